"""Rows that stay on the host, or in their file: read and scaled where they are asked for."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jdec._host_arrays import ReusedMemory
from jdec._sources import RowSource, SparseRows, source_files
from jdec.trainer.scaling import Scaling

#: Rows encoded at once outside of training: on the host, blocks have a multiple of so many.
BLOCK_SIZE = 2048
#: Rows are sent so many bytes at a time: enough for the device to work on while the next are read.
CHUNK_BYTES = 2**24
_NICENESS = 10  # of the thread that reads, more than of the others


class StreamedRows:
    """Scaled rows, read and scaled where they are asked for; none may overflow when scaled."""

    def __init__(
        self, rows: RowSource, scaling: Scaling, indices: Int[np.ndarray, "M"] | None = None
    ) -> None:
        self._rows, self._scaling, self._indices = rows, scaling, indices
        self._files, self._empty = source_files(rows), ReusedMemory().empty
        self.shape = (len(rows) if indices is None else len(indices), rows.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, indices: Int[np.ndarray, "..."]) -> Float[np.ndarray, "... D"]:
        """Return the rows at some indices, of any shape."""
        flat = indices.reshape(-1) if self._indices is None else self._indices[indices.reshape(-1)]
        return self._scaled(flat).reshape(*indices.shape, self.shape[1])

    def block(self, start: int, stop: int) -> Float[np.ndarray, "B D"]:
        """Return the rows from ``start`` to before ``stop``."""
        if self._indices is not None:
            return self.take(np.arange(start, max(start, min(stop, len(self)))))
        return self._scaled(slice(start, stop))

    def _scaled(self, index: Any) -> Float[np.ndarray, "B D"]:
        rows = self._rows
        for file in self._files:
            file.check()
        if isinstance(rows, SparseRows) and not self._scaling.shift.any():
            return self._scaling.apply_sparse(rows.matrix[index], empty=self._empty)
        if isinstance(index, np.ndarray):
            return self._scaling.apply_at(rows, index, empty=self._empty)
        return self._scaling.apply(rows[index], is_checked=True, empty=self._empty)

    def blocks(
        self, size: int, rows: slice, n_rows: int | None = None
    ) -> Iterator[tuple[int, Float[np.ndarray, "B D"]]]:
        """Read some rows in order, one block while the last is worked on.

        Each comes with how many were before it. With ``n_rows``, blocks without rows follow until
        there are as many blocks as so many rows have.
        """
        first, last = rows.start, rows.stop

        def read(start: int) -> tuple[int, Float[np.ndarray, "B D"]]:
            begin = min(first + start, last)
            return begin - first, self.block(begin, min(begin + size, last))

        return read_ahead(read, range(0, last - first if n_rows is None else n_rows, size))

    def subset(self, indices: Int[np.ndarray, "M"]) -> "StreamedRows":
        """Return some of the rows."""
        if self._indices is not None:
            indices = self._indices[indices]
        return StreamedRows(self._rows, self._scaling, indices)


class JoinedRows(NamedTuple):
    """The first rows of one matrix, followed by those of another."""

    first: StreamedRows
    n_first: int
    others: StreamedRows

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.n_first + len(self.others), self.first.shape[1]

    def take(self, indices: Int[np.ndarray, "..."]) -> Float[np.ndarray, "... D"]:
        """Return the rows at some indices, of any shape."""
        of_first = indices < self.n_first
        rows = np.empty((*indices.shape, self.shape[1]), np.float32)
        rows[of_first] = self.first.take(indices[of_first])
        rows[~of_first] = self.others.take(indices[~of_first] - self.n_first)
        return rows


def _yield_to_others() -> None:
    # A CPU backend computes on all cores at once: a core that reads holds all of them up, unless
    # it reads while that one waits. Elsewhere than on Linux the priority is that of the process.
    if sys.platform == "linux":
        niceness = min(19, os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def read_ahead(read: Callable[[Any], Any], items: Any) -> Iterator[Any]:
    """Yield ``read(item)`` of each item, read by a thread while the one before is worked on."""
    with ThreadPoolExecutor(1, initializer=_yield_to_others) as thread:
        pending: Any = None
        for item in items:
            following = thread.submit(read, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()
