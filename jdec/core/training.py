"""What all phases share: algorithms as pairs of functions, mini-batches, one scan over steps."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from jdec._checks import check_function, check_integer, check_key, check_kind, shown
from jdec.core.batches import Batches, DrawFn, batch_indices, check_batches, keep_key

#: ``alter(drawn, batch) -> batch``: changes rows that were gathered.
AlterFn = Callable[[Any, Any], Any]


class Algorithm(NamedTuple):
    """A training phase as pure functions.

    Attributes:
        init: ``init(…) -> state``: what is carried from step to step.
        step: ``step(key, state, batch) -> (state, info)``; ``info`` is diagnostic and not carried.
        refresh: ``refresh(params, x, labels=None, *, n_rows=None) -> targets``, if it has any.
        ahead: ``ahead(state, n_steps)``, if it has any: arrays [S …] of what steps take from their
            numbers alone, each of which gets its entry as ``step(…, ahead=entry)``.
    """

    init: Callable[..., Any]
    step: Callable[..., tuple[Any, Any]]
    refresh: Any = None
    ahead: Any = None


def keep_batch(drawn: Any, batch: Any) -> Any:
    """Return a mini-batch as it is: the default ``alter``."""
    del drawn
    return batch


def scan_steps(
    algorithm: Algorithm,
    key: Key[Array, ""],
    state: Any,
    data: Any,
    *,
    first_step: Int[Array, ""] | int = 0,
    n_steps: int,
    batches: Batches = Batches(),  # noqa: B008 (immutable)
) -> tuple[Any, Any]:
    """Run many steps of an algorithm in one ``lax.scan``; rows are gathered on the device.

    The key of step s is ``fold_in(key, s)``, so that it does not matter how calls cut the steps.

    Args:
        algorithm: The phase to train.
        key: Typed random key of the phase.
        state: Its state.
        data: Pytree of arrays with N rows each, from which ``batches.gather`` picks.
        first_step: Number of the first step within the phase.
        n_steps: S, how many to run.
        batches: How mini-batches are drawn.

    Returns:
        The state after the last step, and the infos of all steps stacked, [S …].

    Raises:
        ValueError: If an argument is not of its kind or out of range.

    Examples:
        >>> algorithm = Algorithm(init=lambda: 0.0, step=lambda key, s, batch: (s + batch.sum(), s))
        >>> state, infos = scan_steps(
        ...     algorithm, jax.random.key(0), jnp.float32(0), jnp.arange(4.0), n_steps=3,
        ...     batches=Batches(size=2, order="sequential"))
        >>> float(state), infos.tolist()
        (7.0, [0.0, 1.0, 6.0])
    """
    check_kind("algorithm", algorithm, Algorithm)
    check_key("key", key)
    _check_steps(first_step, n_steps)
    n_all = _count_rows(data)
    check_batches(batches)
    n_rows = n_all if batches.n_rows is None else batches.n_rows

    indices = step_indices(
        key, first_step=first_step, n_steps=n_steps, n_rows=n_rows, batches=batches
    )
    keys = _keys_of_steps(key, first_step, n_steps)
    gather: AlterFn = lambda drawn, i: batches.gather(drawn, data, i)  # noqa: E731
    return _scan(algorithm, state, keys, indices, gather, batches.draw, batches.unroll)


def step_indices(
    key: Key[Array, ""],
    *,
    first_step: Int[Array, ""] | int = 0,
    n_steps: int,
    n_rows: int,
    batches: Batches = Batches(),  # noqa: B008 (immutable)
) -> Int[Array, "S B"]:
    """Indices of the rows that :func:`scan_steps` gathers, for rows that are gathered elsewhere.

    Args:
        key: Typed random key of the phase.
        first_step: Number of the first step within the phase.
        n_steps: S.
        n_rows: N.
        batches: How mini-batches are drawn.

    Returns:
        Indices [S B], int32.

    Raises:
        ValueError: If an argument is not of its kind or out of range.

    Examples:
        >>> batches = Batches(size=2, order="sequential")
        >>> step_indices(jax.random.key(0), n_steps=2, n_rows=3, batches=batches).tolist()
        [[0, 1], [2, 0]]
    """
    check_key("key", key)
    _check_steps(first_step, n_steps)
    check_integer("n_rows", n_rows)
    check_batches(batches)

    def draw(row_key: Key[Array, ""], step: Int[Array, ""]) -> Int[Array, "B"]:
        return batch_indices(row_key, step, n_rows, batches.size, batches.order)

    keys = _keys_of_steps(key, first_step, n_steps)
    return jax.vmap(draw)(keys[:, 0], _steps(first_step, n_steps))


def scan_batches(
    algorithm: Algorithm,
    key: Key[Array, ""],
    state: Any,
    rows: Any,
    *,
    first_step: Int[Array, ""] | int = 0,
    alter: AlterFn = keep_batch,
    draw: DrawFn = keep_key,
) -> tuple[Any, Any]:
    """Run :func:`scan_steps` on rows that were gathered before, at :func:`step_indices`.

    Args:
        algorithm: The phase to train.
        key: Typed random key of the phase.
        state: Its state.
        rows: Pytree of arrays [S B …]: the mini-batches of S steps.
        first_step: Number of the first step within the phase.
        alter: ``alter(drawn, batch) -> batch``: what ``batches.gather`` does to the rows it picks.
        draw: As of ``batches``.

    Returns:
        As :func:`scan_steps`.

    Raises:
        ValueError: If an argument is not of its kind.

    Examples:
        >>> algorithm = Algorithm(init=lambda: 0.0, step=lambda key, s, batch: (s + batch.sum(), s))
        >>> rows = jnp.array([[0.0, 1.0], [2.0, 3.0]])
        >>> state, infos = scan_batches(algorithm, jax.random.key(0), jnp.float32(0), rows)
        >>> float(state), infos.tolist()
        (6.0, [0.0, 1.0])
    """
    check_kind("algorithm", algorithm, Algorithm)
    check_key("key", key)
    check_function("alter", alter)
    check_function("draw", draw)
    _check_steps(first_step)
    keys = _keys_of_steps(key, first_step, _count_rows(rows, "rows"))
    return _scan(algorithm, state, keys, rows, alter, draw)


def _check_steps(first_step: Any, n_steps: Any = 0) -> None:
    check_integer("n_steps", n_steps, minimum=0)
    if not isinstance(first_step, jax.Array):
        check_integer("first_step", first_step, minimum=0)


def _steps(first_step: Int[Array, ""] | int, n_steps: int) -> Int[Array, "S"]:
    return jnp.asarray(first_step, jnp.int32) + jnp.arange(n_steps, dtype=jnp.int32)


def _keys_of_steps(
    key: Key[Array, ""], first_step: Int[Array, ""] | int, n_steps: int
) -> Key[Array, "S 3"]:
    """Return keys for the indices of a step, for its batch and for the step itself."""

    def split(step: Int[Array, ""]) -> Key[Array, "3"]:
        return jax.random.split(jax.random.fold_in(key, step), 3)

    return jax.vmap(split)(_steps(first_step, n_steps))


def _scan(
    algorithm: Algorithm,
    state: Any,
    keys: Key[Array, "S 3"],
    items: Any,
    batch_of: AlterFn,
    draw: DrawFn,
    unroll: int = 1,
) -> tuple[Any, Any]:
    # All that does not depend on the state: a step on an accelerator is bound by its kernels.
    drawn = jax.vmap(draw)(keys[:, 1])
    ahead = None if algorithm.ahead is None else algorithm.ahead(state, len(keys))

    def body(state: Any, of_step: Any) -> tuple[Any, Any]:
        key, drawn, item, ahead = of_step
        more = {} if ahead is None else {"ahead": ahead}
        return algorithm.step(key, state, batch_of(drawn, item), **more)

    return jax.lax.scan(body, state, (keys[:, 2], drawn, items, ahead), unroll=unroll)


def _count_rows(data: Any, name: str = "data") -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of JAX, about objects that are no leaves
        leaves = jax.tree.leaves(data)
    for leaf in leaves:
        if not isinstance(leaf, np.ndarray | jax.Array | jax.ShapeDtypeStruct):
            raise ValueError(f"{name}: expected arrays of N rows each, got {shown(leaf)}")
    lengths = {leaf.shape[:1] for leaf in leaves}
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError(f"{name}: expected arrays of N rows each, got {shown(data)}")
    return lengths.pop()[0]
