"""Arrays of the host: in memory that is aligned or used again, or in files where they are large."""

import contextlib
import math
import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

#: Larger arrays lie in a file, which the system reads and writes as they are used.
MAX_BYTES = 2**28
_ALIGNMENT = 64  # bytes
_MAX_REUSED = 2**26  # larger memory is given back to the system


def empty_aligned(shape: tuple[int, ...], dtype: Any, memory: np.ndarray | None = None) -> Any:
    """Return an array to fill whose memory a CPU backend of JAX can use without a copy."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if memory is None:
        memory = np.empty(n_bytes + _ALIGNMENT, np.uint8)
    offset = -memory.ctypes.data % _ALIGNMENT
    return memory[offset : offset + n_bytes].view(dtype).reshape(shape)


class ReusedMemory:
    """Memory for arrays of about the same size, one after another: fresh pages take time.

    An array can be kept as long as it is needed, by JAX too; its memory is used again when it is
    gone.

    Examples:
        >>> memory = ReusedMemory()
        >>> first = memory.empty((2, 3), np.float32)
        >>> place = first.ctypes.data
        >>> memory.empty((2, 3), np.float32).ctypes.data == place
        False
        >>> del first
        >>> memory.empty((1, 3), np.float32).ctypes.data == place
        True
    """

    def __init__(self) -> None:
        self._free: list[Any] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array to fill, as :func:`empty_aligned`."""
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize + _ALIGNMENT
        if n_bytes > _MAX_REUSED:
            return empty_aligned(shape, dtype)
        try:
            owner: Any = self._free.pop()
        except IndexError:  # asked beforehand, another thread might come between
            owner = np.empty(n_bytes, np.uint8)
        if owner.nbytes < n_bytes:
            owner = np.empty(n_bytes, np.uint8)
        # NumPy's views keep the array that has their memory: here one that no other view keeps.
        lent = np.frombuffer(memoryview(owner), np.uint8)
        weakref.finalize(lent, self._free.append, owner).atexit = False
        return empty_aligned(shape, dtype, lent)


class RowBuffer:
    """Rows that are written one after another, in a temporary file beyond ``max_bytes``.

    Examples:
        >>> buffer = RowBuffer(2, np.float32)
        >>> buffer.append([[1, 2], [3, 4]])
        >>> buffer.append([[5, 6]])
        >>> buffer.finish().tolist()
        [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    """

    def __init__(self, n_columns: int, dtype: Any, *, max_bytes: int = 2**24) -> None:
        self._n_columns, self._dtype, self._max_bytes = n_columns, np.dtype(dtype), max_bytes
        self._file = tempfile.SpooledTemporaryFile(max_bytes)  # noqa: SIM115 (see below)
        weakref.finalize(self, self._file.close)  # where an error comes before the end
        self._n_bytes = 0

    def append(self, rows: Any) -> None:
        """Write rows [M D], or their entries one after another."""
        content = np.ascontiguousarray(rows, self._dtype).reshape(-1, self._n_columns)
        self._n_bytes += content.nbytes
        with _explained(self._n_bytes):
            self._file.write(content.data)

    def finish(self) -> np.ndarray:
        """Return all rows."""
        shape = (self._n_bytes // (self._n_columns * self._dtype.itemsize), self._n_columns)
        with self._file as file:
            if self._n_bytes > self._max_bytes:  # the array keeps the file
                with _explained(self._n_bytes):
                    file.flush()
                return np.memmap(file, self._dtype, "r+", shape=shape)
            file.seek(0)
            return np.frombuffer(bytearray(file.read()), self._dtype).reshape(shape)


def empty_on_host(shape: tuple[int, ...], dtype: Any, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Return an array to fill; beyond ``max_bytes``, one in a temporary file that has no name.

    Examples:
        >>> array = empty_on_host((3, 2), np.float32, max_bytes=0)
        >>> array[:] = 1
        >>> array.sum()
        np.float32(6.0)
    """
    if math.prod(shape) * np.dtype(dtype).itemsize <= max_bytes:
        return np.empty(shape, dtype)
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile() as file, _explained(n_bytes):
        # A page that the disk has no room for would kill the process when it is written to.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        return np.memmap(file, dtype, "r+" if file.seek(0, 2) else "w+", shape=shape)


@contextlib.contextmanager
def _explained(n_bytes: int) -> Iterator[None]:
    """Say of a disk without room how much it needs, and where."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror} in {tempfile.gettempdir()}, where {n_bytes} bytes of rows go"
        message = f"{reason}; make room, or set TMPDIR to a folder that has it"
        raise OSError(error.errno, message) from error
