"""Downloads of public data sets, with their checksums: the only module that imports pooch."""

import contextlib
import logging
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from jdec._checks import in_a_line
from jdec._files import compare_digests, content_digest
from jdec._io import atomic_write
from jdec.datasets.catalogue import SPECS, Spec
from jdec.datasets.load import data_folders, unknown_name

_LOGGER = logging.getLogger("jdec")


def download_dataset(
    name: str, *, data_dir: str | Path | None = None, progress: bool = False
) -> Path:
    """Fetch the files of a public data set and check their checksums.

    Args:
        name: ``mnist``, ``fashion_mnist``, ``stl10`` or ``reuters``; the last is fetched by
            scikit-learn, whose files are pickles: they are read once, here, and saved as arrays.
        data_dir: Where to make the data set's folder; by default ``$JDEC_DATA_DIR``, else the
            user's cache folder. A file there of the same name and another checksum is replaced.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The folder that holds the files.

    Raises:
        ValueError: If the name is unknown, has no public source, a checksum is wrong (nothing is
            kept then), or the folder cannot be written.
        OSError: If the source cannot be reached.

    Examples:
        >>> download_dataset("digits")
        Traceback (most recent call last):
        ValueError: digits: nothing to download: it comes with scikit-learn
    """
    if not isinstance(name, str) or name not in SPECS:
        raise unknown_name(name)
    spec = SPECS[name]
    if not spec.downloadable:
        raise ValueError(f"{name}: nothing to download: {spec.advice}")
    folder = data_folders(data_dir)[0] / spec.folders[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"data_dir: expected a place to make {folder}, got an error: {error.strerror}"
        ) from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"data_dir: expected a folder that can be written, got {folder}")
    if spec.fetch is not None:
        with _reported(name, "it by scikit-learn"):
            spec.fetch(folder)
    elif spec.archive[0]:
        missing = [file for file, md5 in spec.files.items() if not _is_whole(folder / file, md5)]
        if missing:
            _retrieve(name, spec, *spec.archive, folder, progress)
            _unpack(folder / spec.archive[0], missing)
    else:
        for file, sha256 in spec.files.items():
            _retrieve(name, spec, file, sha256, folder, progress)
    return folder


def _retrieve(
    name: str, spec: Spec, file: str, checksum: str, folder: Path, progress: bool
) -> None:
    import pooch  # in a notebook, importing it asks for ipywidgets

    _LOGGER.info("%s: fetching %s%s into %s", name, spec.url, file, folder)
    # pooch writes to stderr through its own logger; this library reports through "jdec".
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with _reported(name, spec.url + file):
            pooch.retrieve(spec.url + file, checksum, file, folder, progressbar=progress)
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _reported(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        # pooch leaves the connection of an answer such as 404 open.
        response = getattr(error, "response", None)
        if response is not None:
            response.close()
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(f"{name}: could not download {what}: {in_a_line(error)}") from error


def _is_whole(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    digest = content_digest(path, "md5")
    compare_digests(path, digest, md5)
    return digest == md5


def _unpack(archive: Path, missing: Sequence[str]) -> None:
    wanted = set(missing)
    try:
        with tarfile.open(archive) as entries:
            for entry in entries:
                file = Path(entry.name).name
                content = entries.extractfile(entry) if file in wanted else None
                if content is not None:
                    with atomic_write(archive.with_name(file)) as target:
                        shutil.copyfileobj(content, target)
                    wanted.discard(file)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ValueError(f"{archive}: could not be unpacked: {error}") from error
    if wanted:
        raise ValueError(f"{archive}: expected {sorted(wanted)[0]} in it, got an archive without")
    # Already extracted; free the disk space.
    archive.unlink()
