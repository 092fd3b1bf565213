"""What both phases share: algorithms as pairs of functions, optimizers, batches, the one scan."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree, UInt

from jdec._checks import (
    check_choice,
    check_fraction,
    check_integer,
    check_non_negative,
    check_positive,
)
from jdec._typing import Params

#: How mini-batches go through the rows: at random with replacement, or in order and cyclic.
BATCH_ORDERS = ("random", "sequential")
OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("constant", "step", "cosine", "one_cycle")

_WARMUP_SHARE = 0.15  # of a one-cycle schedule

#: ``gather(key, rows [B]) -> batch``: picks rows out of the data, and may alter its copy of them.
Gather = Callable[[Key[Array, ""], Int[Array, "B"]], Any]


class Algorithm(NamedTuple):
    """A training phase as two pure functions: ``init(…) -> state``, ``step(key, state, batch)``.

    ``step`` returns ``(state, info)``: what is carried on, and what is only looked at.
    """

    init: Callable[..., Any]
    step: Callable[[Key[Array, ""], Any, Any], tuple[Any, Any]]


def make_optimizer(
    name: str,
    learning_rate: float | Float[Array, ""],
    *,
    n_steps: int,
    schedule: str = "constant",
    decay_every: int = 20_000,
    decay_rate: float = 0.1,
    momentum: float = 0.9,
    momentum_warmup_steps: int = 0,
    bias_multiplier: float = 1.0,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    r"""Optax chain for one phase of training.

    SGD is Caffe's: the velocity v ← m·v + lr·g already contains the learning rate, so that a step
    decay acts on new gradients alone.

    Args:
        name: ``sgd`` or ``adam``.
        learning_rate: Base (constant, step) or peak (cosine, one-cycle) learning rate.
        n_steps: Length of the phase, which cosine and one-cycle span.
        schedule: One of :data:`SCHEDULES`.
        decay_every: Steps between the decays of ``step``.
        decay_rate: Factor of each decay.
        momentum: Momentum of SGD.
        momentum_warmup_steps: Steps over which it rises linearly from zero.
        bias_multiplier: Factor on the learning rate of leaves named ``bias``.
        weight_decay: Decoupled weight decay on leaves named ``kernel``.

    Returns:
        The gradient transformation.

    Raises:
        ValueError: For an unknown name or a number out of range.

    Examples:
        >>> tx = make_optimizer("sgd", 0.1, n_steps=100)
        >>> updates, _ = tx.update(jnp.ones(1), tx.init(jnp.zeros(1)))
        >>> bool(jnp.allclose(updates, -0.1))
        True

    Source: the authors' solver files; Xie et al. 2016, section 4.3.
    """
    check_choice("optimizer", name, OPTIMIZERS)
    check_choice("schedule", schedule, SCHEDULES)
    check_integer("n_steps", n_steps, minimum=0)
    check_integer("momentum_warmup_steps", momentum_warmup_steps, minimum=0)
    check_positive("learning_rate", learning_rate)
    check_fraction("momentum", momentum)
    check_positive("bias_multiplier", bias_multiplier)
    check_non_negative("weight_decay", weight_decay)
    rate: Any = learning_rate
    if schedule == "step":
        check_positive("decay_every", decay_every)
        check_positive("decay_rate", decay_rate)
        rate = optax.exponential_decay(learning_rate, decay_every, decay_rate, staircase=True)
    elif schedule == "cosine":
        rate = optax.cosine_decay_schedule(learning_rate, max(n_steps, 1))
    elif schedule == "one_cycle":
        # Optax compares the values of this schedule, which those of a traced rate do not allow.
        is_traced = isinstance(learning_rate, jax.core.Tracer)
        peak = 1.0 if is_traced else learning_rate
        cycle = optax.warmup_cosine_decay_schedule(
            peak / 10,
            peak,
            max(1, int(_WARMUP_SHARE * n_steps)),
            max(n_steps, 2),
            peak / 1000,
        )
        rate = (lambda step: learning_rate * cycle(step)) if is_traced else cycle
    parts = []
    if name == "adam":
        parts.append(optax.scale_by_adam())
    if weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay, mask=_leaves_named("kernel")))
    parts.append(optax.scale_by_learning_rate(rate))
    if bias_multiplier != 1:
        parts.append(optax.masked(optax.scale(bias_multiplier), _leaves_named("bias")))
    if name == "sgd" and momentum_warmup_steps:
        ramp = optax.linear_schedule(0.0, momentum, momentum_warmup_steps)
        parts.append(optax.inject_hyperparams(optax.trace)(decay=ramp))
    elif name == "sgd" and momentum:
        parts.append(optax.trace(momentum))
    return optax.chain(*parts)


def _leaves_named(name: str) -> Callable[[Params], PyTree[bool]]:
    def mask(params: Params) -> PyTree[bool]:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: bool(path) and getattr(path[-1], "key", None) == name, params
        )

    return mask


def batch_rows(
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
        >>> batch_rows(jax.random.key(0), 2, 5, 3, "sequential").tolist()
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


def scan_steps(
    algorithm: Algorithm,
    key: Key[Array, ""],
    state: Any,
    gather: Gather,
    *,
    first_step: Int[Array, ""] | int,
    n_steps: int,
    n_rows: int,
    batch_size: int,
    order: str = "random",
) -> tuple[Any, Any]:
    """Run many steps of an algorithm in one ``lax.scan``; rows are gathered on the device.

    The key of step s is ``fold_in(key, s)``: however the steps are cut into calls, they are the
    same steps.

    Args:
        algorithm: The phase to train.
        key: Typed random key of the phase.
        state: Its state.
        gather: Picks the batch of given rows out of the data.
        first_step: Number of the first step within the phase.
        n_steps: S, how many to run.
        n_rows: N.
        batch_size: B.
        order: One of :data:`BATCH_ORDERS`.

    Returns:
        The state after the last step, and the infos of all steps stacked, [S …].

    Raises:
        ValueError: If ``order`` is unknown.

    Examples:
        >>> algorithm = Algorithm(init=lambda: 0.0, step=lambda key, s, batch: (s + batch.sum(), s))
        >>> data = jnp.arange(4.0)
        >>> state, infos = scan_steps(
        ...     algorithm, jax.random.key(0), jnp.float32(0), lambda key, rows: data[rows],
        ...     first_step=0, n_steps=3, n_rows=4, batch_size=2, order="sequential")
        >>> float(state), infos.tolist()
        (7.0, [0.0, 1.0, 6.0])
    """
    check_choice("batch_order", order, BATCH_ORDERS)

    def body(state: Any, step: Int[Array, ""]) -> tuple[Any, Any]:
        row_key, batch_key, step_key = jax.random.split(jax.random.fold_in(key, step), 3)
        rows = batch_rows(row_key, step, n_rows, batch_size, order)
        return algorithm.step(step_key, state, gather(batch_key, rows))

    steps = jnp.asarray(first_step, jnp.int32) + jnp.arange(n_steps, dtype=jnp.int32)
    return jax.lax.scan(body, state, steps)
