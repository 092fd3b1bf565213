"""Sparse matrices from arrays that may be damaged or made up: looked at before SciPy takes them."""

from collections.abc import Mapping

import numpy as np
import scipy.sparse

#: What an entry takes in memory while a matrix is made, about.
ENTRY_BYTES = 16

FORMATS = ("csr", "csc", "bsr", "coo", "dia")


def sparse_matrix(
    form: str, arrays: Mapping[str, np.ndarray], shape: tuple[int, int]
) -> scipy.sparse.sparray:
    """Make a sparse matrix of what :func:`scipy.sparse.save_npz` writes.

    SciPy's own checks pass some indices that its compiled code then follows out of its memory.

    Args:
        form: One of :data:`FORMATS`.
        arrays: ``data``, and the arrays of indices of that form.
        shape: N and D.

    Returns:
        The matrix.

    Raises:
        ValueError: If indices are out of range, or arrays do not fit each other or the shape.
        KeyError: If one is missing.

    Examples:
        >>> parts = {"data": [5.0], "indices": [1], "indptr": [0, 0, 1]}
        >>> parts = {name: np.array(part) for name, part in parts.items()}
        >>> sparse_matrix("csr", parts, (2, 3)).toarray()
        array([[0., 0., 0.],
               [0., 5., 0.]])
    """
    data = arrays["data"]
    if form in ("csr", "csc", "bsr"):
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
    raise ValueError(f"its format is {form!r}")


def sparse_shape(shape: np.ndarray) -> tuple[int, int]:
    """Return the shape that a file holds.

    Raises:
        ValueError: If it is not that of a matrix.

    Examples:
        >>> sparse_shape(np.array([2, 3]))
        (2, 3)
    """
    if shape.dtype.kind not in "iu" or shape.shape != (2,) or (shape < 0).any():
        raise ValueError(f"its shape is {np.asarray(shape).tolist()}")
    n_rows, n_columns = shape.tolist()
    return n_rows, n_columns


def _indices(name: str, indices: np.ndarray, length: int, size: int) -> np.ndarray:
    """Return indices below ``size`` as int64, in which no difference of two overflows."""
    if indices.dtype.kind not in "iu" or indices.shape != (length,):
        raise ValueError(
            f"its {name} is of dtype {indices.dtype} and shape {indices.shape}, not {(length,)}"
        )
    if length and not (int(indices.min()) >= 0 and int(indices.max()) < size):
        raise ValueError(f"its {name} holds indices that are not within 0 to {size - 1}")
    return indices.astype(np.int64)
