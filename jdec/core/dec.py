"""Self-training: intervals of S steps on KL(P‖Q) with P held, then a refresh of P from ALL rows."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from jdec import _checks as checks
from jdec._typing import EncodeFn, Params
from jdec.core.batches import Batches, check_batches
from jdec.core.functional import clustering_loss, log_soft_assignment
from jdec.core.optimizers import apply_gradients, state_factors
from jdec.core.targets import DECParams, EmbedFn, Targets, embed_in_blocks, refresh_targets
from jdec.core.training import Algorithm, scan_steps


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
        encode: ``encode(params, x [B D]) -> embeddings [B Z]``; all that is known of the network.
        tx: Optimizer of the encoder's parameters and the centroids.
        alpha: Degrees of freedom α of Eq. 1.
        freeze_encoder: Train the centroids alone (the paper's "DEC without back-propagation").
        extra_loss: ``extra_loss(key, params: DECParams, batch: DECBatch) -> scalar``, added to the
            KL. A reconstruction term makes this IDEC (Guo et al. 2017).
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
    checks.check_function("encode", encode)
    checks.check_optimizer("tx", tx)
    checks.check_float32("alpha", alpha)
    checks.check_flag("freeze_encoder", freeze_encoder)
    if extra_loss is not None:
        checks.check_function("extra_loss", extra_loss)
    if cluster_mask is not None:
        checks.check_rank("cluster_mask", cluster_mask, 1)
    checks.check_function("embed", embed)

    def trained(params: DECParams) -> DECParams:
        # None is a pytree without leaves: the optimizer then sees the centroids alone.
        return params._replace(encoder=None) if freeze_encoder else params

    def init(encoder_params: Params, centroids: Float[Array, "K Z"]) -> DECState:
        params = DECParams(encoder_params, centroids)
        return DECState(params, tx.init(trained(params)), jnp.int32(0))

    def step(
        key: Key[Array, ""], state: DECState, batch: DECBatch, *, ahead: Any = None
    ) -> tuple[DECState, DECInfo]:
        def loss(part: DECParams) -> tuple[Float[Array, ""], DECInfo]:
            params = part._replace(encoder=state.params.encoder) if freeze_encoder else part
            z, mu = encode(params.encoder, batch.x), params.centroids
            log_q = log_soft_assignment(z, mu, alpha=alpha, cluster_mask=cluster_mask)
            kl = clustering_loss(log_q, batch.p).mean()
            if extra_loss is None:
                return kl, DECInfo(kl, jnp.zeros_like(kl))
            extra = extra_loss(key, params, batch)
            if (shape := getattr(extra, "shape", type(extra).__name__)) != ():
                raise ValueError(
                    "extra_loss: expected a function that returns a scalar, got "
                    f"{shape}; take the mean"
                )
            extra = extra.astype(kl.dtype)
            return kl + extra, DECInfo(kl, extra)

        part = trained(state.params)
        grads, info = jax.grad(loss, has_aux=True)(part)
        part, opt_state = apply_gradients(tx, grads, state.opt_state, part, ahead)
        params = part._replace(encoder=state.params.encoder) if freeze_encoder else part
        return state._replace(params=params, opt_state=opt_state), info

    refresh = partial(
        refresh_targets, encode=encode, alpha=alpha, cluster_mask=cluster_mask, embed=embed
    )
    return Algorithm(init, step, refresh, partial(state_factors, tx))


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
    _check_run(key, state, x, algorithm)
    checks.check_kind("targets", targets, Targets)
    checks.check_integer("update_interval", update_interval)
    checks.check_flag("reset_optimizer", reset_optimizer)
    if reset_optimizer:
        state = state._replace(opt_state=algorithm.init(*state.params).opt_state)
    data, first_step = DECBatch(x, targets.p), state.interval * update_interval
    state, infos = scan_steps(
        algorithm, key, state, data, first_step=first_step, n_steps=update_interval, batches=batches
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
        key: Typed random key of the phase, the same for all intervals.
        state: Of the algorithm.
        targets: Of the last refresh.
        x: All rows, [N D].
        algorithm: From :func:`self_training`.
        **settings: ``update_interval``, ``batches``, ``reset_optimizer`` of :func:`train_interval`.

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
    n_rows = settings.get("batches", Batches()).n_rows
    return state, algorithm.refresh(state.params, x, targets.labels, n_rows=n_rows), infos


def is_finished(interval: Any, label_change: Any, *, tol: float, max_intervals: int) -> Any:
    """Whether under ``tol`` of the labels changed, q broke, or ``max_intervals`` is reached."""
    # Not before one full interval. A NaN compares false, so a broken state ends the run as well.
    return ((interval > 0) & ~(label_change >= tol)) | (interval >= max_intervals)


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

    For ``jax.jit`` and ``jax.vmap``; the host loop of :func:`jdec.fit` gives the same result.

    Args:
        key: Typed random key of the phase.
        state: From ``algorithm.init``.
        x: All rows, [N D].
        algorithm: From :func:`self_training`.
        tol: Stop when a refresh changed a smaller share of the labels; 0.001 in the paper.
        max_intervals: Stop after this many intervals in any case.
        **settings: ``update_interval``, ``batches``, ``reset_optimizer`` of :func:`train_interval`.

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
    _check_run(key, state, x, algorithm)
    checks.check_non_negative("tol", tol)
    checks.check_integer("max_intervals", max_intervals)
    batches = settings.get("batches", Batches())
    check_batches(batches)
    targets = algorithm.refresh(state.params, x, n_rows=batches.n_rows)

    def goes_on(carry: tuple[DECState, Targets]) -> Bool[Array, ""]:
        interval, change = carry[0].interval, carry[1].label_change
        return ~is_finished(interval, change, tol=tol, max_intervals=max_intervals)

    def train(carry: tuple[DECState, Targets]) -> tuple[DECState, Targets]:
        return run_interval(key, *carry, x, algorithm, **settings)[:2]

    return jax.lax.while_loop(goes_on, train, (state, targets))


def _check_run(key: Any, state: Any, x: Any, algorithm: Any) -> None:
    checks.check_key("key", key)
    checks.check_rank("x", x, 2)
    if getattr(algorithm, "refresh", None) is None:
        raise ValueError(
            f"algorithm: expected one with a refresh, as of jdec.self_training, "
            f"got {checks.shown(algorithm)}"
        )
    checks.check_kind("state", state, DECState)
