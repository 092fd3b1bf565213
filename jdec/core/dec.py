r"""Self-training of encoder and centroids on the auxiliary target distribution.

An interval is S mini-batch steps on KL(P‖Q) with P held, then a refresh of P from ALL rows; the
first P comes from the initial centroids. What is carried from step to step (:class:`DECState`) is
apart from what follows from the parameters and the rows (:class:`Targets`). Knows no network: it
takes ``encode(params, x)``.

Source: Xie et al. 2016, sections 3.1 and 3.3.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from jdec._checks import check_integer, check_kind, check_non_negative
from jdec._typing import EncodeFn, Params
from jdec.core.arguments import check_interval, check_run, check_self_training
from jdec.core.functional import clustering_loss, log_soft_assignment
from jdec.core.targets import DECParams, EmbedFn, Targets, embed_in_blocks, refresh_targets
from jdec.core.training import Algorithm, Batches, apply_gradients, check_batches, scan_steps


class DECState(NamedTuple):
    """State of self-training: what is carried from step to step, and saved."""

    params: DECParams
    opt_state: optax.OptState
    interval: Int[Array, ""]  # number of completed intervals


class DECBatch(NamedTuple):
    """One mini-batch of self-training."""

    x: Float[Array, "B D"]
    p: Float[Array, "B K"]


class DECInfo(NamedTuple):
    """Diagnostics of one step (not carried)."""

    kl: Float[Array, ""]  # mean over the mini-batch
    extra_loss: Float[Array, ""]  # 0 without


#: ``extra_loss(key, params, batch) -> scalar``, added to the KL.
ExtraLossFn = Callable[[Key[Array, ""], DECParams, DECBatch], Float[Array, ""]]


def self_training(
    encode: EncodeFn,
    tx: optax.GradientTransformation,
    *,
    alpha: float | Float[Array, ""] = 1.0,
    freeze_encoder: bool = False,
    extra_loss: ExtraLossFn | None = None,
    cluster_mask: Bool[Array, "K"] | None = None,
    embed: EmbedFn = embed_in_blocks,
) -> Algorithm:
    """Self-training: mini-batch steps on KL(P‖Q) over encoder and centroids, with P held.

    Args:
        encode: ``encode(params, x [B D]) -> embeddings [B Z]``.
        tx: Optimizer of the encoder's parameters and the centroids.
        alpha: Degrees of freedom α of Eq. 1.
        freeze_encoder: Train the centroids alone (the paper's "DEC without back-propagation").
        extra_loss: ``extra_loss(key, params, batch) -> scalar``, added to the KL: ``params`` is a
            :class:`DECParams`, ``batch`` a :class:`DECBatch`. A reconstruction term makes this
            IDEC (Guo et al. 2017).
        cluster_mask: Boolean mask of the clusters in use, [K]; all by default.
        embed: Embeds all rows, for the refresh.

    Returns:
        ``init(encoder_params, centroids) -> DECState``, ``step(key, state, batch: DECBatch) ->
        (state, DECInfo)`` and ``refresh``, which is :func:`refresh_targets` with the same settings.

    Raises:
        ValueError: If an argument is not of its kind, or ``extra_loss`` does not return a scalar.

    Examples:
        >>> algorithm = self_training(lambda w, x: x * w, optax.sgd(0.1))
        >>> state = algorithm.init(jnp.ones(()), jnp.array([[0.0], [4.0]]))
        >>> targets = algorithm.refresh(state.params, jnp.array([[0.0], [0.2], [5.0], [5.2]]))
        >>> targets.labels.tolist(), float(targets.label_change)
        ([0, 0, 1, 1], 1.0)

    Source: Xie et al. 2016, section 3.1.2, Eqs. 2, 4 and 5.
    """
    check_self_training(encode, tx, alpha, freeze_encoder, extra_loss, cluster_mask, embed)

    def trained(params: DECParams) -> DECParams:
        # None is a pytree without leaves: the optimizer then sees the centroids alone.
        return params._replace(encoder=None) if freeze_encoder else params

    def init(encoder_params: Params, centroids: Float[Array, "K Z"]) -> DECState:
        params = DECParams(encoder_params, centroids)
        return DECState(params, tx.init(trained(params)), jnp.int32(0))

    def step(key: Key[Array, ""], state: DECState, batch: DECBatch) -> tuple[DECState, DECInfo]:
        def loss(part: DECParams) -> tuple[Float[Array, ""], DECInfo]:
            params = part._replace(encoder=state.params.encoder) if freeze_encoder else part
            log_q = log_soft_assignment(
                encode(params.encoder, batch.x),
                params.centroids,
                alpha=alpha,
                cluster_mask=cluster_mask,
            )
            kl = clustering_loss(log_q, batch.p).mean()
            if extra_loss is None:
                return kl, DECInfo(kl, jnp.zeros_like(kl))
            extra = extra_loss(key, params, batch)
            if getattr(extra, "shape", None) != ():
                raise ValueError(
                    "extra_loss: expected a function that returns a scalar, got "
                    f"{getattr(extra, 'shape', type(extra).__name__)}; take the mean"
                )
            return kl + extra.astype(kl.dtype), DECInfo(kl, extra.astype(kl.dtype))

        part = trained(state.params)
        grads, info = jax.grad(loss, has_aux=True)(part)
        part, opt_state = apply_gradients(tx, grads, state.opt_state, part)
        params = part._replace(encoder=state.params.encoder) if freeze_encoder else part
        return state._replace(params=params, opt_state=opt_state), info

    refresh = partial(
        refresh_targets, encode=encode, alpha=alpha, cluster_mask=cluster_mask, embed=embed
    )
    return Algorithm(init, step, refresh)


def train_interval(
    key: Key[Array, ""],
    state: DECState,
    targets: Targets,
    x: Float[Array, "N D"],
    algorithm: Algorithm,
    *,
    update_interval: int = 160,
    batches: Batches = Batches(),  # noqa: B008 (immutable)
    reset_optimizer: bool = False,
) -> tuple[DECState, DECInfo]:
    """Train S mini-batch steps with P held, and count the interval.

    Args:
        key: As in :func:`run_interval`.
        state: Of the algorithm.
        targets: Of the last refresh.
        x: All rows, [N D].
        algorithm: From :func:`self_training`.
        update_interval: S.
        batches: How mini-batches are drawn; ``gather`` is given ``DECBatch(x, p)`` of all rows.
        reset_optimizer: Start with fresh optimizer state, as the authors' code does.

    Returns:
        The state, and the diagnostics of all steps, stacked.

    Source: Xie et al. 2016, section 3.1.2.
    """
    check_run(key, x, algorithm)
    check_kind("state", state, DECState)
    check_kind("targets", targets, Targets)
    check_interval(update_interval, reset_optimizer)
    if reset_optimizer:
        state = state._replace(opt_state=algorithm.init(*state.params).opt_state)
    state, infos = scan_steps(
        algorithm,
        key,
        state,
        DECBatch(x, targets.p),
        first_step=state.interval * update_interval,
        n_steps=update_interval,
        batches=batches,
    )
    return state._replace(interval=state.interval + 1), infos


def run_interval(
    key: Key[Array, ""],
    state: DECState,
    targets: Targets,
    x: Float[Array, "N D"],
    algorithm: Algorithm,
    **settings: Any,
) -> tuple[DECState, Targets, DECInfo]:
    """Train S mini-batch steps on P, then refresh it from all rows.

    Args:
        key: Typed random key of the phase, the same for all intervals: a step's key is
            ``fold_in(key, step)``.
        state: Of the algorithm.
        targets: Of the last refresh.
        x: All rows, [N D].
        algorithm: From :func:`self_training`.
        **settings: ``update_interval``, ``batches`` and ``reset_optimizer`` of
            :func:`train_interval`.

    Returns:
        The state, the targets of the refresh, and the diagnostics of all steps, stacked.

    Examples:
        >>> x = jnp.array([[0.0], [0.2], [5.0], [5.2]])
        >>> algorithm = self_training(lambda w, x: x * w, optax.sgd(0.1))
        >>> state = algorithm.init(jnp.ones(()), jnp.array([[0.0], [4.0]]))
        >>> targets = algorithm.refresh(state.params, x)
        >>> state, targets, info = run_interval(
        ...     jax.random.key(0), state, targets, x, algorithm, update_interval=3)
        >>> targets.labels.tolist(), info.kl.shape, float(targets.label_change)
        ([0, 0, 1, 1], (3,), 0.0)

    Source: Xie et al. 2016, section 3.1.
    """
    state, infos = train_interval(key, state, targets, x, algorithm, **settings)
    n_rows = _rows_of(settings)
    return state, algorithm.refresh(state.params, x, targets.labels, n_rows=n_rows), infos


def _rows_of(settings: dict[str, Any]) -> int | None:
    check_interval(settings.get("update_interval", 1), settings.get("reset_optimizer", False))
    batches = settings.get("batches", Batches())
    check_batches(batches)
    return batches.n_rows


def is_finished(
    interval: Any,  # integers [...], of JAX or NumPy
    label_change: Any,  # numbers [...]
    *,
    tol: float,
    max_intervals: int,
) -> Any:
    """Whether fewer than ``tol`` of the labels changed, q broke, or ``max_intervals`` is reached.

    Never before one full interval. Of arrays, for each entry.
    """
    # A NaN compares false, so a broken state ends the run as well.
    settled = (interval > 0) & ~(label_change >= tol)
    return settled | (interval >= max_intervals)


def run(
    key: Key[Array, ""],
    state: DECState,
    x: Float[Array, "N D"],
    algorithm: Algorithm,
    *,
    tol: float = 1e-3,
    max_intervals: int = 100,
    **settings: Any,
) -> tuple[DECState, Targets]:
    """Run intervals until fewer than ``tol`` of the labels change: one ``lax.while_loop``.

    The whole phase is one program, for ``jax.jit`` and ``jax.vmap``; the host-driven
    :func:`jdec.fit` runs the same intervals one after another and gives the same result.

    Args:
        key: Typed random key of the phase.
        state: From ``algorithm.init``.
        x: All rows, [N D].
        algorithm: From :func:`self_training`.
        tol: Stop when a refresh changed a smaller share of the labels; 0.001 in the paper.
        max_intervals: Stop after this many intervals in any case.
        **settings: ``update_interval``, ``batches`` and ``reset_optimizer`` of
            :func:`train_interval`.

    Returns:
        The last state and targets; ``interval`` and ``label_change`` say why it ended.

    Raises:
        ValueError: If an argument is not of its kind or out of range.

    Examples:
        >>> x = jnp.array([[0.0], [0.2], [5.0], [5.2]])
        >>> algorithm = self_training(lambda w, x: x * w, optax.sgd(0.1))
        >>> state = algorithm.init(jnp.ones(()), jnp.array([[0.0], [4.0]]))
        >>> state, targets = run(jax.random.key(0), state, x, algorithm, update_interval=3)
        >>> int(state.interval), targets.labels.tolist()
        (1, [0, 0, 1, 1])

    Source: Xie et al. 2016, section 3.3.
    """
    check_run(key, x, algorithm)
    check_kind("state", state, DECState)
    check_non_negative("tol", tol)
    check_integer("max_intervals", max_intervals)
    targets = algorithm.refresh(state.params, x, n_rows=_rows_of(settings))

    def goes_on(carry: tuple[DECState, Targets]) -> Bool[Array, ""]:
        state, targets = carry
        change = targets.label_change
        return ~is_finished(state.interval, change, tol=tol, max_intervals=max_intervals)

    def interval(carry: tuple[DECState, Targets]) -> tuple[DECState, Targets]:
        state, targets, _ = run_interval(key, *carry, x, algorithm, **settings)
        return state, targets

    return jax.lax.while_loop(goes_on, interval, (state, targets))
