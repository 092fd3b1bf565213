"""Optimizers by name, with what the authors' solver files can say and Optax has no word for."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from jdec import _checks as checks
from jdec._typing import Params

SCHEDULES = ("constant", "step", "cosine", "one_cycle")
#: Optax's aliases that need nothing but a learning rate.
OPTIMIZERS = (
    *("sgd", "adam", "adabelief", "adadelta", "adafactor", "adagrad", "adamax", "adamaxw"),
    *("adamw", "adan", "amsgrad", "fromage", "lamb", "lars", "lion", "novograd"),
    *("optimistic_adam_v2", "radam", "rmsprop", "rprop", "sign_sgd", "signum", "sm3", "yogi"),
)

_WARMUP_SHARE = 0.15  # of a one-cycle schedule


def takes_weight_decay(name: str) -> bool:
    """Whether weight decay, of kernels alone, can be set for one of :data:`OPTIMIZERS`."""
    return name in ("sgd", "adam") or _mask_option(name) is not None


def check_weight_decay(name: str, weight_decay: Any) -> None:
    """Raise if there is weight decay for an optimizer of :data:`OPTIMIZERS` that takes none."""
    if weight_decay and not takes_weight_decay(name):
        raise ValueError(f"weight_decay: expected 0 for {name}, which has none; got {weight_decay}")


def _mask_option(name: str) -> str | None:
    # What Optax calls the mask of an alias's weight decay; that of novograd has none.
    takes = inspect.signature(getattr(optax, name)).parameters
    masks = ("mask", "weight_decay_mask") if "weight_decay" in takes else ()
    return next((option for option in masks if option in takes), None)


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
        name: One of :data:`OPTIMIZERS`: ``sgd``, ``adam`` or Optax's alias with its own defaults.
        learning_rate: Base (constant, step) or peak (cosine, one-cycle) learning rate.
        n_steps: Length of the phase, which cosine and one-cycle span.
        schedule: One of :data:`SCHEDULES`.
        decay_every: Steps between the decays of ``step``.
        decay_rate: Factor of each decay.
        momentum: Momentum of ``sgd``.
        momentum_warmup_steps: Steps over which it rises linearly from zero.
        bias_multiplier: Factor on the learning rate of leaves named ``bias``.
        weight_decay: Decoupled weight decay on leaves named ``kernel``; 0 for aliases without.

    Returns:
        The gradient transformation.

    Raises:
        ValueError: For an unknown name, a number out of range, or weight decay of an alias without.

    Examples:
        >>> tx = make_optimizer("sgd", 0.1, n_steps=100)
        >>> updates, _ = tx.update(jax.numpy.ones(1), tx.init(jax.numpy.zeros(1)))
        >>> bool(jax.numpy.allclose(updates, -0.1))
        True

    Source: the authors' solver files; Xie et al. 2016, section 4.3.
    """
    checks.check_choice("optimizer", name, OPTIMIZERS)
    checks.check_choice("schedule", schedule, SCHEDULES)
    checks.check_integer("n_steps", n_steps, minimum=0)
    checks.check_integer("momentum_warmup_steps", momentum_warmup_steps, minimum=0)
    checks.check_positive("learning_rate", learning_rate)
    checks.check_fraction("momentum", momentum)
    checks.check_positive("bias_multiplier", bias_multiplier)
    checks.check_non_negative("weight_decay", weight_decay)
    check_weight_decay(name, weight_decay)
    rate: Any = _schedule(schedule, learning_rate, n_steps, decay_every, decay_rate)
    if name == "adam":
        return _adam(rate, weight_decay, bias_multiplier)
    parts: list[Any] = []
    if name == "sgd":
        if weight_decay:
            parts.append(optax.add_decayed_weights(weight_decay, mask=_leaves_named("kernel")))
        parts.append(optax.scale_by_learning_rate(rate))
    else:
        mask = _mask_option(name)
        decay = {"weight_decay": weight_decay, mask: _leaves_named("kernel")} if mask else {}
        parts.append(getattr(optax, name)(rate, **decay))
    if bias_multiplier != 1:
        parts.append(optax.masked(optax.scale(bias_multiplier), _leaves_named("bias")))
    if name == "sgd" and momentum_warmup_steps:
        ramp = optax.linear_schedule(0.0, momentum, momentum_warmup_steps)
        parts.append(optax.inject_hyperparams(optax.trace)(decay=ramp))
    elif name == "sgd" and momentum:
        parts.append(optax.trace(momentum))
    return optax.chain(*parts)


class AdamFactors(NamedTuple):
    """What a step of Adam takes from its number alone."""

    rate: Float[Array, "*S"]
    of_mean: Float[Array, "*S"]  # rate / (1 - β₁ᵗ)
    of_square: Float[Array, "*S"]  # 1 / (1 - β₂ᵗ)


class Adam(optax.GradientTransformationExtraArgs):
    """Adam whose schedule can be evaluated before a scan over steps.

    There each of its numbers would be a kernel a step, and stand between gradients and updates.
    """

    factors: Callable[[Int[Array, ""]], AdamFactors]  # of a count of steps

    def ahead(self, opt_state: optax.ScaleByAdamState, n_steps: int) -> AdamFactors:
        """Return the factors of the next S steps, [S], which ``update`` takes as ``ahead=``."""
        return jax.vmap(self.factors)(opt_state.count + jnp.arange(n_steps, dtype=jnp.int32))


def _adam(rate: Any, weight_decay: float, bias_multiplier: float) -> Adam:
    """Return Adam, with decoupled weight decay of kernels and the rate of biases multiplied."""
    b1, b2, eps = 0.9, 0.999, 1e-8
    is_kernel, is_bias = _leaves_named("kernel"), _leaves_named("bias")

    def factors(count: Int[Array, ""]) -> AdamFactors:
        now = jnp.asarray(rate(count) if callable(rate) else rate, float)
        number = jnp.asarray(count + 1, float)
        return AdamFactors(now, now / (1 - b1**number), 1 / (1 - b2**number))

    def update(
        grads: Params, state: Any, params: Any = None, *, ahead: Any = None, **_: Any
    ) -> Any:
        given = factors(state.count) if ahead is None else ahead
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, grads)

        def step(m: Array, v: Array, decays: bool, is_bias: bool, p: Any) -> Array:
            f = AdamFactors(*(factor.astype(m.dtype) for factor in given))
            change = f.of_mean * m / (jnp.sqrt(f.of_square * v) + eps)
            if weight_decay and decays:
                change = change + f.rate * weight_decay * p
            return -bias_multiplier * change if is_bias else -change

        ps = mu if params is None else params
        updates = jax.tree.map(step, mu, nu, is_kernel(mu), is_bias(mu), ps)
        # As Optax counts, which stops at the largest.
        return updates, optax.ScaleByAdamState(optax.safe_increment(state.count), mu, nu)

    tx = Adam(optax.scale_by_adam(b1, b2, eps).init, update)
    tx.factors = factors
    return tx


def state_factors(tx: Any, state: Any, n_steps: int) -> Any:
    """Return what the optimizer of a state takes from the numbers of the next S steps, or None."""
    ahead = getattr(tx, "ahead", None)
    if ahead is None:
        return None
    with jax.numpy_dtype_promotion("standard"):  # as below
        return ahead(state.opt_state, n_steps)


def _schedule(
    name: str, learning_rate: Any, n_steps: int, decay_every: int, decay_rate: float
) -> Any:
    if name == "step":
        checks.check_positive("decay_every", decay_every)
        checks.check_positive("decay_rate", decay_rate)
        return optax.exponential_decay(learning_rate, decay_every, decay_rate, staircase=True)
    if name == "cosine":
        return optax.cosine_decay_schedule(learning_rate, max(n_steps, 1))
    if name == "constant":
        return learning_rate
    # Optax compares the values of this schedule, which those of a traced rate do not allow.
    is_traced = isinstance(learning_rate, jax.core.Tracer)
    peak = 1.0 if is_traced else learning_rate
    warmup = max(1, int(_WARMUP_SHARE * n_steps))
    cycle = optax.warmup_cosine_decay_schedule(
        peak / 10, peak, warmup, max(n_steps, 2), peak / 1000
    )
    return (lambda step: learning_rate * cycle(step)) if is_traced else cycle


def _leaves_named(name: str) -> Callable[[Params], PyTree[bool]]:
    def is_named(path: Any, _: Any) -> bool:
        return bool(path) and getattr(path[-1], "key", None) == name

    return partial(jax.tree_util.tree_map_with_path, is_named)


def apply_gradients(
    tx: optax.GradientTransformation,
    grads: Params,
    opt_state: PyTree,
    params: Params,
    ahead: Any = None,
) -> tuple[Params, PyTree]:
    """Return parameters and optimizer state after a step; ``ahead`` of :func:`state_factors`."""
    more = {} if ahead is None else {"ahead": ahead}
    # Optax adds its int32 step counts to floats, which strict promotion would refuse.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = tx.update(grads, opt_state, params, **more)
        return optax.apply_updates(params, updates), opt_state
