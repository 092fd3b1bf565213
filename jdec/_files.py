"""Readers of files of arrays; each failure is a ValueError of one line that names the file."""

import contextlib
import gzip
import hashlib
import logging
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from jdec._archives import npy_shape, npz_shapes, read_npz, unpacked_limit
from jdec._checks import in_a_line, shown
from jdec._sparse import compact, read_sparse, sparse_matrix

#: Columns of a sparse file.
MAX_SPARSE_COLUMNS = 2**18
_ROW_BYTES = 8  # of a sparse matrix, for where its entries end

#: Default names of an array or column of classes.
LABEL_NAMES = ("y", "label", "labels", "target", "class")

_Shapes = Mapping[str, tuple[int, ...]]

_LOGGER = logging.getLogger("jdec")
_ROW_NAMES = ("x", "X", "data")
_EXPECTED = "a NumPy file of numbers or text; objects are never unpickled"

# Arrays of at least this size are memory-mapped: a process then reads the rows it needs.
_MAPPED_FROM = 2**26


class Table(NamedTuple):
    """What a file holds, unchecked: rows [N …] of any dtype, and what else it has of them."""

    x: Any  # an array, or a sparse one of two dimensions
    labels: np.ndarray | None = None
    label_name: str | None = None  # the column or array that they came from
    feature_names: tuple[str, ...] | None = None
    ids: np.ndarray | None = None


@contextlib.contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Turn any exception within into a ValueError of one line that names the file."""
    try:
        yield
    # A damaged file makes zipfile, zlib, csv, NumPy and pyarrow raise a dozen unrelated types.
    except Exception as error:
        reason = getattr(error, "strerror", None) or in_a_line(error)
        raise ValueError(f"{path}: expected {expected}, got an error: {reason}") from error


def content_digest(path: Path, algorithm: str = "blake2b") -> str:
    """Return the digest of a file's content as hexadecimal digits."""
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
            *(path, known, digest),
        )


def read_idx(path: Path, n_dims: int) -> np.ndarray:
    """Read unsigned bytes from an idx file, gzipped or not: images (3 dims) or labels (1)."""
    with reading(path, "an intact idx file"), path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: Any = gzip.GzipFile(fileobj=file) if gzipped else file
        header = stream.read(4 + 4 * n_dims)
        shape = _idx_shape(header, n_dims)
        n_bytes, size = math.prod(shape), path.stat().st_size
        limit = unpacked_limit(size) if gzipped else size
        # Nothing is read where the header declares too much.
        content = stream.read(n_bytes + 1) if n_bytes <= limit else b""
        if len(content) != n_bytes:
            got = len(header) + len(content) if n_bytes <= limit else f"at most {limit}"
            more = " or more" if len(content) > n_bytes else ""
            raise ValueError(
                f"expected {len(header) + n_bytes} bytes as its header {shape} says, "
                f"got {got}{more}"
            )
    return np.frombuffer(content, np.uint8).reshape(shape)


def idx_header(array: np.ndarray) -> bytes:
    """Return the first bytes of the idx file of an array of unsigned bytes."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)


def _idx_shape(header: bytes, n_dims: int) -> tuple[int, ...]:
    magic = bytes((0, 0, 8, n_dims))
    if header[:2] == magic[:2] and header[3:4] == magic[3:] and header[2] != magic[2]:
        raise ValueError(f"expected idx type 0x08 (unsigned byte), got 0x{header[2]:02x}")
    if header[:4] != magic:
        raise ValueError(
            f"expected the first bytes {magic.hex(' ')} (idx, {n_dims} dimension(s)), "
            f"got {header[:4].hex(' ') or 'none'}"
        )
    if len(header) < 4 + 4 * n_dims:
        raise ValueError(f"expected a header of {4 + 4 * n_dims} bytes, got {len(header)}")
    return struct.unpack(f">{n_dims}I", header[4:])


def read_numpy(path: Path, label: str | None = None) -> Table:
    """Read ``.npy``, ``.npz`` or a scipy-sparse ``.npz``, which stays sparse.

    In an archive the rows are called x, X or data or are the only matrix, and the labels ``label``,
    or one of :data:`LABEL_NAMES` if that is None; there are none if it is empty.
    """
    with reading(path, "a readable file"), path.open("rb") as file:
        start = file.read(6)
    if start == b"\x93NUMPY":
        if label:
            raise ValueError(f"{path}: label: expected none for a single array, got {shown(label)}")
        return Table(_read_npy(path))
    if not start.startswith(b"PK"):
        # np.load takes every other file for a pickle, and its message does not help.
        raise ValueError(f"{path}: expected a NumPy file, got one that starts with {start!r}")
    with reading(path, _EXPECTED):
        shapes = npz_shapes(path)
    if {"format", "shape"} <= set(shapes):
        if label:
            raise ValueError(
                f"{path}: label: expected none for a sparse matrix, got {shown(label)}"
            )
        return Table(_read_sparse(path))
    label = _label_array(path, shapes, label)
    rows = _row_array(path, shapes, skip=label)
    with reading(path, _EXPECTED):
        arrays = read_npz(path, [rows, label or rows])
    return Table(arrays[rows], None if label is None else arrays[label], label)


def read_member(path: Path, name: str) -> np.ndarray | None:
    """Return one array of an ``.npz`` file, or None where it has no such array."""
    with reading(path, _EXPECTED):
        return read_npz(path, [name]).get(name)


def _read_npy(path: Path) -> np.ndarray:
    with reading(path, _EXPECTED):
        size = path.stat().st_size
        # NumPy would silently read a longer file, such as one that several arrays were saved to.
        with path.open("rb") as file:
            npy_shape(file, size)
        return np.load(path, mmap_mode="r" if size >= _MAPPED_FROM else None, allow_pickle=False)


def _label_array(path: Path, shapes: _Shapes, label: str | None) -> str | None:
    if label is not None:
        if label and label not in shapes:
            raise ValueError(
                f"{path}: label: expected one of the arrays {', '.join(shapes)}; got {shown(label)}"
            )
        return label or None
    found = [name for name in shapes if name.lower() in LABEL_NAMES]
    if len(found) > 1:
        raise ValueError(
            f"{path}: expected at most one array of labels, got {', '.join(found)}; say which it "
            f"is: --label {found[-1]} (label={found[-1]!r})"
        )
    return found[0] if found else None


def _row_array(path: Path, shapes: _Shapes, *, skip: str | None) -> str:
    others = {name: shape for name, shape in shapes.items() if name != skip}
    named = [name for name in _ROW_NAMES if name in others]
    if len(named) > 1:
        raise ValueError(
            f"{path}: expected one array of rows, got {', '.join(named)}; store them apart"
        )
    found = named or [name for name, shape in others.items() if len(shape) >= 2]
    if len(found) != 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in others.items()) or "none"
        raise ValueError(
            f"{path}: expected an array named {', '.join(_ROW_NAMES)} or a single matrix, "
            f"got {listed}"
        )
    return found[0]


def _read_sparse(path: Path) -> scipy.sparse.csr_array:
    expected = "a sparse matrix as scipy.sparse.save_npz writes it"
    with reading(path, expected):
        arrays, shape = read_sparse(path)
        data = arrays["data"]
        if data.dtype.kind not in "biuf":
            raise ValueError(f"its numbers are of dtype {data.dtype}")
        if data.dtype.kind in "iu" and data.size and max(int(data.max()), -int(data.min())) > 2**53:
            raise ValueError("it holds whole numbers beyond 2**53, which float64 rounds")
        # float32 where that loses nothing, as for counts.
        with np.errstate(over="ignore"):
            single = data.astype(np.float32)
        dtype = np.float32 if np.array_equal(single, data, equal_nan=True) else np.float64
        if shape[0] * _ROW_BYTES > unpacked_limit(path.stat().st_size):
            raise ValueError(f"it has {shape[0]} rows in a file of {path.stat().st_size} bytes")
    if shape[1] > MAX_SPARSE_COLUMNS:
        raise ValueError(
            f"{path}: expected a sparse matrix of at most {MAX_SPARSE_COLUMNS} columns, since "
            f"mini-batches are dense, got the shape {shape}; reduce the number of features first, "
            "as with sklearn.decomposition.TruncatedSVD"
        )
    if 0 in shape:
        return scipy.sparse.csr_array(shape, dtype=dtype)
    with reading(path, expected):
        form = str(arrays["format"].astype(str).item())
        return compact(sparse_matrix(form, {**arrays, "data": data.astype(dtype)}, shape))
