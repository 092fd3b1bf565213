"""Rows that come block by block."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse

from jdec._host_arrays import RowBuffer
from jdec._sources import SparseRows, as_source


def stack_blocks(blocks: Iterable[Any]) -> Any:
    """Stack blocks of rows, such as a generator makes, without all of them in memory.

    Args:
        blocks: Arrays [M D] of one dtype and any M, or sparse ones of SciPy.

    Returns:
        All rows [N D], to be passed to :func:`jdec.fit`: an array in the dtype of the blocks, which
        beyond 16 MiB lies in a temporary file without a name, or a :class:`scipy.sparse.csr_array`.

    Raises:
        ValueError: If there is no block, or one that does not fit the first: by its number.

    Examples:
        >>> stack_blocks(np.full((2, 3), i, np.float32) for i in range(4)).shape
        (8, 3)
    """
    buffer: RowBuffer | None = None
    sparse: list[Any] = []
    first: Any = None
    for number, block in enumerate(blocks):
        rows = as_source(f"blocks[{number}]", block)
        is_sparse = isinstance(rows, SparseRows)
        form = (rows.shape[1], rows.dtype, "sparse" if is_sparse else "dense")
        first = first or form
        if form != first:
            raise ValueError(
                f"blocks[{number}]: expected {_told(first)}, as the first block is, got "
                f"{_told(form)}"
            )
        if is_sparse:
            sparse.append(rows.matrix)  # type: ignore[attr-defined]
            continue
        buffer = buffer or RowBuffer(rows.shape[1], rows.dtype)
        buffer.append(rows)
    if first is None:
        raise ValueError("blocks: expected at least one block of rows, got none")
    if buffer is None:
        return scipy.sparse.vstack(sparse, format="csr")
    return buffer.finish()


def _told(form: tuple[int, np.dtype[Any], str]) -> str:
    return f"{form[2]} rows of {form[0]} {form[1]}"
