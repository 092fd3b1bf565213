"""Optimizers by name, with what the authors' solver files can say and Optax has no word for."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax
from jaxtyping import Array, Float, PyTree

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
    parts = []
    if name == "adam":
        parts.append(optax.scale_by_adam())
    if name in ("sgd", "adam"):
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
    tx: optax.GradientTransformation, grads: Params, opt_state: optax.OptState, params: Params
) -> tuple[Params, optax.OptState]:
    """Return parameters and optimizer state after one step."""
    # Optax adds its int32 step counts to floats, which strict promotion would refuse.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state
