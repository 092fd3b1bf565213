"""Arrays in .npy and .npz files, read only if their headers declare no objects and not too much."""

import contextlib
import errno
import math
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from jdec._checks import in_a_line
from jdec._io import open_file

#: An archive may unpack to this many bytes, or to so many times its size if that is more.
MIN_UNPACKED_LIMIT = 2**27
MAX_UNPACKED_RATIO = 24


def unpacked_limit(size: int) -> int:
    """Return how many bytes a compressed file of ``size`` bytes may unpack to."""
    return max(MIN_UNPACKED_LIMIT, MAX_UNPACKED_RATIO * size)


def npy_shape(file: IO[bytes], size: int, where: str = "") -> tuple[int, ...]:
    """Return the shape of an array in NumPy's format of ``size`` bytes in all, from its header."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"expected an array{where}, got format version {version}")
    # Version 3 differs from 2 in the encoding of field names alone, which are not allowed.
    is_first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"expected numbers or text{where}, got objects; none are unpickled")
    if dtype.names is not None or dtype.kind not in "biufcSUmM":
        raise ValueError(f"expected numbers or text{where}, got dtype {dtype}")
    n_bytes = file.tell() + math.prod(int(length) for length in shape) * dtype.itemsize
    if any(length < 0 for length in shape) or n_bytes != size:
        raise ValueError(f"expected {n_bytes} bytes{where} as its header says, got {size}")
    return tuple(shape)


def npz_shapes(path: Path, *, compressed: bool = True) -> dict[str, tuple[int, ...]]:
    """Read the shapes of the arrays of an .npz archive from their headers.

    Arrays that are not ``compressed`` cannot be larger than the file; others unpack together to at
    most :func:`unpacked_limit`.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    size = path.stat().st_size
    limit = unpacked_limit(size) if compressed else size
    with _archive(path) as archive:
        entries = archive.infolist()
        total = sum(entry.file_size for entry in entries)
        if total > limit:
            raise ValueError(
                f"expected an archive that unpacks to at most {limit} bytes, "
                f"got {total} from a file of {size}; store a larger array as .npy"
            )
        end = 0
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            if entry.header_offset < end:
                raise ValueError(f"expected arrays apart, got {entry.filename!r} within another")
            end = entry.header_offset + len(entry.filename) + entry.compress_size
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name == entry.filename or name in shapes:
                raise ValueError(f"expected arrays of different names, got {entry.filename!r}")
            if not compressed and entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"expected arrays that are not compressed, got {name!r}")
            with archive.open(entry) as file:
                shapes[name] = npy_shape(file, entry.file_size, f" in {name!r}")
    return shapes


def read_npz(
    path: Path, names: Collection[str] | None = None, *, compressed: bool = True
) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz archive, or those of the names it has, once its headers fit."""
    arrays = {}
    stored = npz_shapes(path, compressed=compressed)
    with _archive(path) as archive:
        for name in stored if names is None else [name for name in stored if name in names]:
            with archive.open(f"{name}.npy") as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    # A damaged archive makes zipfile, zlib and NumPy raise a dozen unrelated types.
    with open_file(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive
        except Exception as error:
            # A position before the beginning of the file is an OSError as well.
            is_unreadable = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
            if isinstance(error, ValueError) or is_unreadable:
                raise
            raise ValueError(
                f"expected an intact archive, got an error: {in_a_line(error)}"
            ) from error


def write_npz(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as :func:`numpy.savez` does, whatever their names, and none that hold objects.

    NumPy 2.0 has no option against pickling, and leaves the archive open after an error.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
