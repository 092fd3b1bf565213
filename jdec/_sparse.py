"""Sparse matrices from arrays that may be damaged or made up, validated before SciPy gets them."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.sparse

from jdec._archives import npz_shapes, read_npz, unpacked_limit

_ENTRY_BYTES = 16  # that an entry takes in memory while a matrix is made, about


def read_sparse(path: Path) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Read the arrays that :func:`scipy.sparse.save_npz` writes, and the shape of the matrix."""
    n_entries, size = math.prod(npz_shapes(path)["data"]), path.stat().st_size
    if _ENTRY_BYTES * n_entries > unpacked_limit(size):
        raise ValueError(f"{n_entries} entries in a file of {size} bytes")
    arrays = read_npz(path)
    shape = arrays["shape"]
    if shape.dtype.kind not in "iu" or shape.shape != (2,) or (shape < 0).any():
        raise ValueError(f"its shape is {shape.tolist()}")
    n_rows, n_columns = shape.tolist()
    return arrays, (n_rows, n_columns)


def sparse_matrix(
    form: str, arrays: Mapping[str, np.ndarray], shape: tuple[int, int]
) -> scipy.sparse.sparray:
    """Make a sparse matrix of what :func:`read_sparse` returns.

    SciPy's own checks pass some indices that its compiled code then follows out of its memory.
    """
    data = arrays["data"]
    if form == "coo":
        row, column = arrays["coords"] if "coords" in arrays else (arrays["row"], arrays["col"])
        if data.ndim != 1:
            raise ValueError(f"its data has the shape {data.shape}")
        row = _indices("row", row, len(data), shape[0])
        column = _indices("col", column, len(data), shape[1])
        return scipy.sparse.coo_array((data, (row, column)), shape=shape)
    if form == "dia":
        offsets = arrays["offsets"]
        if offsets.dtype.kind not in "iu" or offsets.ndim != 1:
            raise ValueError(f"its offsets are of dtype {offsets.dtype}, shape {offsets.shape}")
        offsets = offsets.astype(np.int64)
        if (offsets < -shape[0]).any() or (offsets > shape[1]).any():
            raise ValueError(f"its offsets are not within -{shape[0]} to {shape[1]}")
        if data.ndim != 2 or len(data) != len(offsets) or len(np.unique(offsets)) != len(offsets):
            raise ValueError(f"data of shape {data.shape} for {len(offsets)} diagonals")
        return scipy.sparse.dia_array((data, offsets), shape=shape)
    if form not in ("csr", "csc", "bsr"):
        raise ValueError(f"its format is {form!r}")
    blocks = data.shape[1:] if form == "bsr" else (1, 1)
    if data.ndim != (3 if form == "bsr" else 1) or 0 in blocks:
        raise ValueError(f"its data has the shape {data.shape}")
    if shape[0] % blocks[0] or shape[1] % blocks[1]:
        raise ValueError(f"blocks of shape {blocks} do not fit the shape {shape}")
    sizes = (shape[0] // blocks[0], shape[1] // blocks[1])
    n_major, n_minor = reversed(sizes) if form == "csc" else sizes
    indices = _indices("indices", arrays["indices"], len(data), n_minor)
    ends = _indices("indptr", arrays["indptr"], n_major + 1, len(data) + 1)
    if ends[0] != 0 or ends[-1] != len(data) or (np.diff(ends) < 0).any():
        raise ValueError(f"its indptr is not that of {len(data)} numbers")
    return getattr(scipy.sparse, f"{form}_array")((data, indices, ends), shape=shape)


def compact(matrix: scipy.sparse.sparray) -> scipy.sparse.csr_array:
    """Return a matrix by rows, with indices of 32 bits where these are enough."""
    rows = scipy.sparse.csr_array(matrix)
    if max(rows.nnz, *rows.shape) < 2**31:
        parts = (rows.data, rows.indices.astype(np.int32), rows.indptr.astype(np.int32))
        rows = scipy.sparse.csr_array(parts, shape=rows.shape)
    rows.sum_duplicates()
    return rows


def _indices(name: str, indices: np.ndarray, length: int, size: int) -> np.ndarray:
    """Return indices below ``size`` as int64, in which no difference of two overflows."""
    if indices.dtype.kind not in "iu" or indices.shape != (length,):
        raise ValueError(
            f"its {name} is of dtype {indices.dtype} and shape {indices.shape}, not {(length,)}"
        )
    if length and not (int(indices.min()) >= 0 and int(indices.max()) < size):
        raise ValueError(f"its {name} holds indices that are not within 0 to {size - 1}")
    return indices.astype(np.int64)
