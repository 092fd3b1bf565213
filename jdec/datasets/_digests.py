"""Digests of files, compared with those of public files."""

import hashlib
import logging
from pathlib import Path

from jdec._files import reading

_LOGGER = logging.getLogger("jdec")


def content_digest(path: Path, algorithm: str = "blake2b") -> str:
    """Return the digest of a file's content as hexadecimal digits.

    Raises:
        ValueError: If the file cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a").write_bytes(b"abc")
        ...     content_digest(Path(folder, "a"), "md5")
        '900150983cd24fb0d6963f7d28e17f72'
    """
    with reading(path, "a readable file"), path.open("rb") as file:
        # Against damage, not against a forger.
        return hashlib.file_digest(
            file, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()


def compare_digests(path: Path, digest: str, known: str) -> None:
    """Warn if a file's digest is not the known one of the public file, by the same algorithm."""
    if digest != known:
        _LOGGER.warning(
            "%s: not the public file of that name, or damaged: expected the checksum %s, got %s",
            path,
            known,
            digest,
        )
