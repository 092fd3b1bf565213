"""Where rows come from: matrices that are read a few rows at a time, dense or sparse."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import scipy.sparse

from jdec._host_arrays import empty_on_host
from jdec._rows import are_usable, as_real, as_rows, check_finite_rows, check_has_entries

_BLOCK = 2**20  # entries compared at once


@runtime_checkable
class RowSource(Protocol):
    """A matrix [N D] of finite real numbers that gives dense rows, indexed as NumPy's are.

    An array is one, and a memory-mapped file, of which only the rows asked for are read.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """N and D."""

    @property
    def dtype(self) -> np.dtype:
        """Of the entries."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, index: Any, /) -> Any:
        """Rows [M D] of a slice or of integers [M]; a column [N] of ``(slice(None), j)``."""


class SparseRows:
    """Rows of a sparse matrix, made dense where they are asked for.

    Examples:
        >>> rows = SparseRows(scipy.sparse.csr_array(np.eye(3)))
        >>> rows[np.array([2, 0])].tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    ndim = 2

    def __init__(self, matrix: scipy.sparse.csr_array) -> None:
        self.matrix = matrix

    @property
    def shape(self) -> tuple[int, ...]:
        """N and D."""
        return self.matrix.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the entries."""
        return self.matrix.dtype

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What it consists of: entries, their columns, and where rows begin among them."""
        return self.matrix.data, self.matrix.indices, self.matrix.indptr

    @property
    def nbytes(self) -> int:
        """Size of its parts."""
        return sum(part.nbytes for part in self.parts)

    def __len__(self) -> int:
        return self.matrix.shape[0]

    def __getitem__(self, index: Any) -> Any:
        found = self.matrix[index]
        if isinstance(index, tuple) and found.ndim == 2:  # columns in another order
            return SparseRows(found)
        return found.toarray()


def as_source(
    name: str, x: Any, *, first_row: int = 0, columns: Sequence[str] | None = None
) -> RowSource:
    """Return ``x`` as rows of finite real numbers in their own dtype, or raise.

    Sparse matrices stay sparse; all else is as :func:`jdec._rows.as_rows` returns it. Messages
    count the rows from ``first_row`` on, and name the columns.
    """
    if isinstance(x, SparseRows):
        return x
    if not scipy.sparse.issparse(x):
        x = copy_stored(x) if is_stored(x) else x
        return as_rows(name, x, first_row=first_row, columns=columns)
    if x.ndim != 2:
        raise ValueError(f"{name}: Expected 2D array [rows, columns], got a sparse {x.ndim}D one")
    check_has_entries(name, x.shape)
    _check_indices(name, x)
    matrix = scipy.sparse.csr_array(x)
    values = as_real(name, matrix.data[None], first_row, None)[0]
    if values is not matrix.data:
        matrix = scipy.sparse.csr_array((values, matrix.indices, matrix.indptr), matrix.shape)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    _check_finite(name, matrix, first_row, columns)
    return SparseRows(matrix)


def is_stored(x: Any) -> bool:
    """Whether ``x`` is a matrix of HDF5 or zarr, which is slow to read but in order."""
    library = type(x).__module__.partition(".")[0]
    return library in ("h5py", "zarr") and len(getattr(x, "shape", ())) == 2


def copy_stored(x: Any) -> np.ndarray:
    """Copy a stored matrix block by block, so that rows can be read in any order."""
    rows = empty_on_host(x.shape, x.dtype)
    size = max(1, _BLOCK // max(1, x.shape[1]))
    for start in range(0, len(rows), size):
        rows[start : start + size] = x[start : start + size]
    return rows


def _check_indices(name: str, x: Any) -> None:
    """Raise unless all indices are within the shape: SciPy's code would leave its memory."""
    if x.format == "coo":
        for of_axis, size in zip(x.coords, x.shape, strict=True):
            _check_range(name, "coordinates", of_axis, size)
    elif x.format in ("csr", "csc", "bsr"):
        ends, n_entries = x.indptr, len(x.indices)
        height, width = x.data.shape[1:] if x.format == "bsr" else (1, 1)
        sizes = (x.shape[0] // height, x.shape[1] // width)
        n_major, n_minor = reversed(sizes) if x.format == "csc" else sizes
        is_whole = len(ends) == n_major + 1 and ends[0] == 0 and ends[-1] == n_entries
        if not is_whole or len(x.data) != n_entries or (ends[1:] < ends[:-1]).any():
            raise ValueError(f"{name}: expected a sparse matrix whose indptr fits its entries")
        _check_range(name, "indices", x.indices, n_minor)


def _check_range(name: str, what: str, indices: np.ndarray, size: int) -> None:
    for index in (indices.min(), indices.max()) if len(indices) else ():
        if not 0 <= int(index) < size:
            raise ValueError(
                f"{name}: expected a sparse matrix with {what} from 0 to {size - 1}, got {index}"
            )


def _check_finite(
    name: str, matrix: scipy.sparse.csr_array, first_row: int, columns: Sequence[str] | None
) -> None:
    data = matrix.data
    for start in range(0, len(data), _BLOCK):
        usable = are_usable(data[start : start + _BLOCK])
        if not usable.all():
            entry = start + int(np.argmin(usable))
            row = int(np.searchsorted(matrix.indptr, entry, side="right")) - 1
            dense = matrix[[row]].toarray()
            check_finite_rows(name, dense, first_row=first_row + row, columns=columns)


class SourceFile(NamedTuple):
    """A memory-mapped file, as it was when it was opened."""

    path: str
    size: int
    modified: int | None  # in nanoseconds; None where it was mapped to be written to

    def check(self) -> None:
        """Raise if the file is gone or another: what is read beyond its end kills the process."""
        try:
            status = Path(self.path).stat()
        except OSError as error:
            raise ValueError(
                f"x: {self.path} cannot be read any more ({error.strerror}), which rows were "
                "streamed from; put it back and resume"
            ) from error
        same = self.modified is None or status.st_mtime_ns == self.modified
        if status.st_size != self.size or not same:
            raise ValueError(
                f"x: {self.path} changed while its rows were streamed, from {self.size} to "
                f"{status.st_size} bytes, or in its contents; start a new run on a file that stays "
                "as it is"
            )


def source_files(rows: Any) -> list[SourceFile]:
    """Return the memory-mapped files that rows lie in."""
    found = {}
    for array in rows.parts if isinstance(rows, SparseRows) else (rows,):
        while isinstance(array, np.ndarray):
            if isinstance(array, np.memmap) and array.filename is not None:
                path = str(array.filename)
                status = Path(path).stat()
                modified = status.st_mtime_ns if array.mode in ("r", "c") else None
                found[path] = SourceFile(path, status.st_size, modified)
            array = array.base
    return list(found.values())
