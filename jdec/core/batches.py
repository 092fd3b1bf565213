"""Mini-batches: which rows, and what is drawn for them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, UInt

from jdec._checks import check_choice, check_function, check_integer, check_kind

#: Sampling order of mini-batches: random (with replacement), or sequential and cyclic.
BATCH_ORDERS = ("random", "sequential")

#: ``draw(key) -> drawn``: the random numbers of a mini-batch, drawn before the scan over steps.
DrawFn = Callable[[Key[Array, ""]], Any]

#: ``gather(drawn, data, indices [B]) -> batch``: picks rows of the data, and may alter its copy.
GatherFn = Callable[[Any, Any, Int[Array, "B"]], Any]


def keep_key(key: Key[Array, ""]) -> Key[Array, ""]:
    """Draw nothing before the scan: the default ``draw``, which leaves the key to ``gather``."""
    return key


def take_rows(drawn: Any, data: Any, indices: Int[Array, "B"]) -> Any:
    """Return the rows at some indices, unaltered: the default ``gather``.

    Args:
        drawn: Not used: rows that are altered at random take theirs from it.
        data: Pytree of arrays with N rows each.
        indices: Positions of rows, [B].

    Returns:
        The same pytree, with B rows each.

    Examples:
        >>> take_rows(jax.random.key(0), jnp.arange(4.0), jnp.array([3, 0])).tolist()
        [3.0, 0.0]
    """
    del drawn
    return jax.tree.map(lambda leaf: leaf[indices], data)


class Batches(NamedTuple):
    """How mini-batches are drawn.

    Attributes:
        size: B.
        order: One of :data:`BATCH_ORDERS`.
        n_rows: How many rows to draw from, the first ones; all by default.
        gather: Picks the batch out of the data.
        draw: Draws what ``gather`` takes, of the key of the batch; by default the key itself.
        unroll: Steps that the compiled loop runs as one; for speed alone.
    """

    size: int = 256
    order: str = "random"
    n_rows: int | None = None
    gather: GatherFn = take_rows
    draw: DrawFn = keep_key
    unroll: int = 1


def batch_indices(
    key: Key[Array, ""], step: Int[Array, ""] | int, n_rows: int, batch_size: int, order: str
) -> Int[Array, "B"]:
    """Indices of the rows of one mini-batch: a function of the step alone, so a run can resume.

    Args:
        key: Typed random key of the step.
        step: Number of the step within its phase.
        n_rows: N; may be smaller than the batch.
        batch_size: B.
        order: One of :data:`BATCH_ORDERS`.

    Returns:
        Indices [B], int32.

    Examples:
        >>> batch_indices(jax.random.key(0), 2, 5, 3, "sequential").tolist()
        [1, 2, 3]
    """
    if order == "random":
        return jax.random.randint(key, (batch_size,), 0, n_rows, jnp.int32)
    offsets = jnp.arange(batch_size, dtype=jnp.uint32)
    return ((_product_modulo(step, batch_size, n_rows) + offsets) % n_rows).astype(jnp.int32)


def _product_modulo(step: Int[Array, ""] | int, factor: int, modulus: int) -> UInt[Array, ""]:
    # step · factor overflows 32 bits in long runs, so it is built up bit by bit below the modulus.
    step = jnp.asarray(step).astype(jnp.uint32) % modulus
    product = jnp.uint32(0)
    for bit in format(factor, "b"):
        product = (2 * product + (step if bit == "1" else 0)) % modulus
    return product


def check_batches(batches: Any) -> None:
    """Raise unless mini-batches can be drawn so."""
    check_kind("batches", batches, Batches)
    check_integer("batch_size", batches.size)
    check_choice("batch_order", batches.order, BATCH_ORDERS)
    if batches.n_rows is not None:
        check_integer("n_rows", batches.n_rows)
    check_function("gather", batches.gather)
    check_function("draw", batches.draw)
    check_integer("unroll", batches.unroll)
