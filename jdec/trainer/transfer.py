"""Rows of the host to the devices and back: mini-batches, and blocks in their order."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Shaped

from jdec._host_arrays import empty_on_host
from jdec.trainer.sharding import DATA, RowSharding
from jdec.trainer.streamed_rows import BLOCK_SIZE, CHUNK_BYTES, StreamedRows


def put_batches(
    rows: RowSharding,
    read: Callable[[Int[np.ndarray, "S b"]], Shaped[np.ndarray, "S b ..."]],
    indices: Int[np.ndarray, "S B"],
) -> Shaped[Array, "S B ..."]:
    """Put mini-batches onto the devices; each process reads the rows of its own devices."""
    if rows.mesh is None:
        return jax.device_put(read(indices))
    shape = (*indices.shape, *read(indices[:0, :0]).shape[2:])
    is_even = indices.shape[1] % rows.n_shards == 0
    spec = PartitionSpec(None, DATA) if is_even else PartitionSpec()

    def part(index: Any) -> np.ndarray:
        return read(indices[index[:2]])

    return jax.make_array_from_callback(shape, NamedSharding(rows.mesh, spec), part)


def map_blocks(
    rows: RowSharding,
    x: StreamedRows,
    function: Callable[[Array], tuple[Any, ...]],
) -> Iterator[tuple[slice, tuple[Any, ...]]]:
    """Apply ``function`` to all rows of this process, block by block; yields where they are.

    Blocks [B D] end with rows of zeros where there are no more. What the function returns of its
    rows, [B …], is fetched without them; scalars are as they are.
    """
    mine, n_here = rows.local(), 1
    if rows.mesh is not None:
        n_here = max(1, rows.n_shards // jax.process_count())
    unit = BLOCK_SIZE * n_here
    size = unit * max(1, CHUNK_BYTES // (4 * x.shape[1] * unit))
    # Processes with fewer rows than others go along: all devices work on each block.
    n_rows = -(-rows.padded_length // (1 if rows.mesh is None else jax.process_count()))
    last = None
    for start, block in x.blocks(size, mine, n_rows):
        length = size if rows.mesh is not None else -(-len(block) // unit) * unit
        if len(block) < length:
            block = np.pad(block, ((0, length - len(block)), (0, 0)))
        found = function(_put_block(rows, block))
        # What was found of a block is waited for when the devices work on the next.
        if last is not None:
            yield _fetch(*last)
        last = (start, min(length, mine.stop - mine.start - start), found)
    if last is not None:
        yield _fetch(*last)


def collect_blocks(
    function: Callable[[Array], tuple[Any, ...]],
    x: StreamedRows,
    widths: Sequence[int],
    sharding: RowSharding,
) -> tuple[np.ndarray, ...]:
    """Return what a function returns of all rows, of so many columns each."""
    mine = sharding.local()
    found = [empty_on_host((mine.stop - mine.start, width), np.float32) for width in widths]
    for rows, parts in map_blocks(sharding, x, function):
        for array, part in zip(found, parts, strict=True):
            array[rows] = part
    return tuple(map(sharding.join, found))


def _fetch(start: int, n_rows: int, found: Sequence[Any]) -> tuple[slice, tuple[Any, ...]]:
    parts = [_fetch_block(part)[:n_rows] if part.ndim else part for part in found]
    return slice(start, start + n_rows), tuple(parts)


def _put_block(rows: RowSharding, block: Shaped[np.ndarray, "b D"]) -> Shaped[Array, "B D"]:
    if rows.mesh is None:
        return jax.device_put(block)
    sharding = NamedSharding(rows.mesh, PartitionSpec(DATA))
    return jax.make_array_from_process_local_data(sharding, block)


def _fetch_block(array: Array) -> np.ndarray:
    """Return the rows that are on devices of this process."""
    if array.is_fully_addressable:
        return np.asarray(array)
    parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])
