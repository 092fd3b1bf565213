"""What was computed from files, kept so that it is computed once."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import platformdirs

from jdec._io import atomic_write

_LOGGER = logging.getLogger("jdec")
_Value = TypeVar("_Value")


def cached(
    name: str,
    suffix: str,
    files: Sequence[Path],
    settings: Mapping[str, Any],
    compute: Callable[[], _Value],
    save: Callable[[IO[bytes], _Value], None],
    read: Callable[[Path], _Value],
) -> _Value:
    """Read what an earlier call computed from the same bytes and settings, else compute it.

    It lies in the folder ``features`` of the user's cache. Where that cannot be written, the
    result is computed each time, with a warning to the log.

    Args:
        name: Start of the file's name.
        suffix: Its end.
        files: What the result is computed from; sizes and contents count, names do not.
        settings: All else it depends on, as JSON values.
        compute: Gives the result.
        save: Writes the result to an open file.
        read: Reads it; a ValueError means that the file is damaged.

    Returns:
        The result.
    """
    path = (
        platformdirs.user_cache_path("jdec")
        / "features"
        / f"{name}-{_digest(files, settings)}{suffix}"
    )
    if path.exists():
        try:
            return read(path)
        except (OSError, ValueError, KeyError) as error:
            _LOGGER.warning("%s: damaged, computed anew: %s", path, error)
    result = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            save(file, result)
    except OSError as error:
        _LOGGER.warning("%s: could not be kept for the next time: %s", path, error)
    else:
        _LOGGER.info("%s: kept in %s", name, path)
    return result


def save_arrays(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays."""
    np.savez(file, allow_pickle=False, **dict(arrays))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`save_arrays` wrote.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
            return dict(loaded)
    except Exception as error:  # zipfile, zlib and NumPy have a type each for it
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _digest(files: Sequence[Path], settings: Mapping[str, Any]) -> str:
    parts = [json.dumps(settings, sort_keys=True)]
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "blake2b").hexdigest()
        parts.append(f"{path.stat().st_size} {content}")
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()
