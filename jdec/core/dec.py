r"""The clustering phase: self-training of encoder and centroids on the auxiliary target.

An interval is S mini-batch steps on KL(P‖Q) with P held, then a refresh of P from ALL rows; the
first P comes from the k-means centroids. Labels are those of the last refresh, so a state's labels
always belong to its own parameters. Knows no network: it takes ``encode(params, x)``.

Source: Xie et al. 2016, sections 3.1 and 3.3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from jdec._checks import check_choice, check_integer, check_non_negative, check_positive
from jdec._typing import EncodeFn, Params
from jdec.core.functional import (
    clustering_loss,
    log_soft_assignment,
    soft_assignment,
    target_distribution,
)
from jdec.core.training import BATCH_ORDERS, Algorithm, scan_steps

#: ``augment(key, x [B D]) -> x [B D]``: a random variant of each row that keeps its cluster.
AugmentFn = Callable[[Key[Array, ""], Float[Array, "B D"]], Float[Array, "B D"]]
#: ``embed(params, x [N D]) -> embeddings [N Z]``, for all rows at once.
EmbedRowsFn = Callable[[Params, Float[Array, "N D"]], Float[Array, "N Z"]]


def _as_it_is(array: Any) -> Any:
    return array


@dataclass(frozen=True)
class Clustering:
    """What stays the same through the clustering phase.

    Attributes:
        encode: ``encode(params, x [B D]) -> embeddings [B Z]``.
        tx: Optimizer of the encoder's parameters and the centroids.
        alpha: Degrees of freedom α of Eq. 1.
        update_interval: S, mini-batch steps between two refreshes of P.
        batch_size: B.
        batch_order: ``random`` or ``sequential``.
        freeze_encoder: Train the centroids alone (the paper's "DEC without back-propagation").
        reset_optimizer: Start each interval with fresh optimizer state, as the authors' code does.
        augment: Alters the rows of a mini-batch; P and the labels always come from the rows as
            they are.
        block_size: Rows encoded at once in a refresh.
        active: Which clusters take part, [K]; all by default.
        n_rows: How many of the rows count; those after them are padding, which no mini-batch draws
            and no cluster frequency sees. All by default.
        spread: Lays an array of rows out, as over devices; mini-batches and targets go through it.
        map_rows: Turns a function that embeds all rows into one that does so by device.
    """

    encode: EncodeFn
    tx: optax.GradientTransformation
    alpha: float | Float[Array, ""] = 1.0
    update_interval: int = 160
    batch_size: int = 256
    batch_order: str = "random"
    freeze_encoder: bool = False
    reset_optimizer: bool = False
    augment: AugmentFn | None = None
    block_size: int = 2048
    active: Bool[Array, "K"] | None = None
    n_rows: int | None = None
    spread: Callable[[Any], Any] = _as_it_is
    map_rows: Callable[[EmbedRowsFn], EmbedRowsFn] = _as_it_is

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_positive("alpha", self.alpha)
        check_integer("update_interval", self.update_interval)
        check_integer("batch_size", self.batch_size)
        check_choice("batch_order", self.batch_order, BATCH_ORDERS)
        check_integer("block_size", self.block_size)

    def masked(self, centroids: Float[Array, "K Z"]) -> Float[Array, "K Z"]:
        """Return the centroids with those that take no part at 0: they may be anything."""
        if self.active is None:
            return centroids
        return jnp.where(jnp.asarray(self.active)[:, None], centroids, jnp.zeros_like(centroids))


class DECState(NamedTuple):
    """What the clustering phase carries from interval to interval."""

    params: Params  # of the encoder
    centroids: Float[Array, "K Z"]
    opt_state: optax.OptState
    targets: Float[Array, "N K"]  # P of the last refresh
    labels: Int[Array, "N"]  # argmax q of the last refresh
    label_change: Float[Array, ""]  # share of the labels it changed; NaN if anything is not finite
    interval: Int[Array, ""]  # how many are done


class DECInfo(NamedTuple):
    """What one interval tells."""

    loss: Float[Array, "S"]  # mean KL of each mini-batch
    label_change: Float[Array, ""]
    cluster_sizes: Int[Array, "K"]


class DECBatch(NamedTuple):
    """One mini-batch of the clustering phase."""

    x: Float[Array, "B D"]
    targets: Float[Array, "B K"]


def encode_rows(
    encode: EncodeFn, params: Params, x: Float[Array, "N D"], *, block_size: int = 2048
) -> Float[Array, "N Z"]:
    """Embed all rows in blocks of one fixed size, so that memory does not grow with N.

    The last block is padded: a row's embedding then does not depend on how many rows came with it.

    Args:
        encode: ``encode(params, x) -> embeddings``.
        params: Its parameters.
        x: Rows, [N D].
        block_size: Rows in a block.

    Returns:
        Embeddings [N Z].

    Examples:
        >>> encode_rows(lambda w, x: x @ w, jnp.eye(2), jnp.ones((5, 2)), block_size=4).shape
        (5, 2)
    """
    n_rows = x.shape[0]
    n_blocks = -(-n_rows // block_size)
    padded = jnp.pad(x, ((0, n_blocks * block_size - n_rows), (0, 0)))
    blocks = padded.reshape(n_blocks, block_size, x.shape[1])
    embeddings = jax.lax.map(lambda block: encode(params, block), blocks)
    return embeddings.reshape(n_blocks * block_size, -1)[:n_rows]


def init_state(
    params: Params, centroids: Float[Array, "K Z"], x: Float[Array, "N D"], clustering: Clustering
) -> DECState:
    """State before the first interval: P and labels from the initial centroids.

    Args:
        params: Encoder parameters after pretraining.
        centroids: Of k-means on the embeddings, [K Z].
        x: All rows, [N D].
        clustering: The phase's settings.

    Returns:
        A state with ``interval`` 0 and ``label_change`` 1.

    Source: Xie et al. 2016, section 3.2.
    """
    state = DECState(
        params=params,
        centroids=centroids,
        opt_state=clustering.tx.init(_trained(params, centroids, clustering)),
        targets=jnp.zeros((x.shape[0], centroids.shape[0]), centroids.dtype),
        labels=jnp.full(x.shape[0], -1, jnp.int32),
        label_change=jnp.float32(1),
        interval=jnp.int32(0),
    )
    return refresh_targets(state, x, clustering)


def refresh_targets(state: DECState, x: Float[Array, "N D"], clustering: Clustering) -> DECState:
    """Recompute P, labels and the share of changed labels from all rows.

    Args:
        state: The phase's state.
        x: All rows, [N D].
        clustering: The phase's settings.

    Returns:
        The state with new ``targets``, ``labels`` and ``label_change``.

    Source: Xie et al. 2016, Eqs. 1 and 3, section 3.3.
    """
    embeddings = embed_rows(state.params, x, clustering)
    q = soft_assignment(
        embeddings, state.centroids, alpha=clustering.alpha, active=clustering.active
    )
    is_finite = all_finite((state.params, clustering.masked(state.centroids), embeddings, q))
    labels = q.argmax(axis=1).astype(jnp.int32)
    n_rows = _count_rows(x, clustering)
    if n_rows < x.shape[0]:
        is_row = jnp.arange(x.shape[0]) < n_rows
        q = jnp.where(is_row[:, None], q, 0)
        labels = jnp.where(is_row, labels, -1)
    n_changed = jnp.sum(labels != state.labels, dtype=jnp.int32)
    return state._replace(
        targets=clustering.spread(target_distribution(q).astype(state.targets.dtype)),
        labels=clustering.spread(labels),
        label_change=jnp.where(is_finite, n_changed.astype(jnp.float32) / n_rows, jnp.nan),
    )


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether no array of a pytree holds NaN or infinity.

    What a run is judged by: a network may hide NaN among its own weights, since, compiled for a
    CPU, ``relu`` gives 0 for it.

    Examples:
        >>> bool(all_finite({"w": jnp.ones(2), "b": jnp.array([jnp.nan])}))
        False
    """
    finite = [
        jnp.isfinite(leaf).all()
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    ]
    return jnp.stack([jnp.bool_(True), *finite]).all()


def embed_rows(
    params: Params, x: Float[Array, "N D"], clustering: Clustering
) -> Float[Array, "N Z"]:
    """Embed all rows as the phase does it: in its blocks, and on its devices."""
    embed = partial(encode_rows, clustering.encode, block_size=clustering.block_size)
    return clustering.map_rows(embed)(params, x)


def cluster_sizes(state: DECState) -> Int[Array, "K"]:
    """Count the rows of each cluster; padding, whose label is -1, belongs to none."""
    n_clusters = state.centroids.shape[0]
    labels = jnp.where(state.labels < 0, n_clusters, state.labels)
    return jnp.bincount(labels, length=n_clusters)


def _count_rows(x: Float[Array, "N D"], clustering: Clustering) -> int:
    return x.shape[0] if clustering.n_rows is None else clustering.n_rows


def clustering_algorithm(clustering: Clustering) -> Algorithm:
    """Mini-batch step on KL(P‖Q) over encoder and centroids, with P held.

    Args:
        clustering: The phase's settings.

    Returns:
        ``init = init_state`` and ``step(key, state, batch) -> (state, loss)``.

    Source: Xie et al. 2016, section 3.1.2, Eqs. 2, 4 and 5.
    """

    def step(
        key: Key[Array, ""], state: DECState, batch: DECBatch
    ) -> tuple[DECState, Float[Array, ""]]:
        del key  # this phase draws nothing but its batches
        trained = _trained(state.params, state.centroids, clustering)

        def loss(trained: dict[str, Params]) -> Float[Array, ""]:
            embeddings = clustering.encode(trained.get("params", state.params), batch.x)
            log_q = log_soft_assignment(
                embeddings, trained["centroids"], alpha=clustering.alpha, active=clustering.active
            )
            return clustering_loss(log_q, batch.targets).mean()

        value, grads = jax.value_and_grad(loss)(trained)
        updates, opt_state = clustering.tx.update(grads, state.opt_state, trained)
        trained = optax.apply_updates(trained, updates)
        return state._replace(**trained, opt_state=opt_state), value

    return Algorithm(init_state, step)


def run_interval(
    key: Key[Array, ""], state: DECState, x: Float[Array, "N D"], clustering: Clustering
) -> tuple[DECState, DECInfo]:
    """Train S mini-batch steps on the state's P, then refresh it from all rows.

    The two halves, :func:`train_interval` and :func:`refresh_targets`, can be had by themselves.

    Args:
        key: Typed random key of the phase, the same for all intervals: a step's key is
            ``fold_in(key, step)``.
        state: From :func:`init_state` or an interval before.
        x: All rows, [N D].
        clustering: The phase's settings.

    Returns:
        The state after the refresh, and the interval's diagnostics.

    Examples:
        >>> x = jnp.array([[0.0], [0.2], [5.0], [5.2]])
        >>> clustering = Clustering(lambda w, x: x * w, optax.sgd(0.1), update_interval=3)
        >>> state = init_state(jnp.ones(()), jnp.array([[0.0], [4.0]]), x, clustering)
        >>> state, info = run_interval(jax.random.key(0), state, x, clustering)
        >>> state.labels.tolist(), info.loss.shape, float(info.label_change)
        ([0, 0, 1, 1], (3,), 0.0)

    Source: Xie et al. 2016, section 3.1.
    """
    state, losses = train_interval(key, state, x, clustering)
    state = refresh_targets(state, x, clustering)
    return state, DECInfo(losses, state.label_change, cluster_sizes(state))


def train_interval(
    key: Key[Array, ""], state: DECState, x: Float[Array, "N D"], clustering: Clustering
) -> tuple[DECState, Float[Array, "S"]]:
    """Train S mini-batch steps on the state's P, and count the interval; P and labels stay.

    Args:
        key: As in :func:`run_interval`.
        state: From :func:`init_state` or an interval before.
        x: All rows, [N D].
        clustering: The phase's settings.

    Returns:
        The state, and the mean KL of each mini-batch.

    Source: Xie et al. 2016, section 3.1.2.
    """
    targets = state.targets

    def gather(batch_key: Key[Array, ""], rows: Int[Array, "B"]) -> DECBatch:
        batch = x[rows]
        if clustering.augment is not None:
            batch = clustering.augment(batch_key, batch)
        return DECBatch(clustering.spread(batch), clustering.spread(targets[rows]))

    if clustering.reset_optimizer:
        fresh = clustering.tx.init(_trained(state.params, state.centroids, clustering))
        state = state._replace(opt_state=fresh)
    state, losses = scan_steps(
        clustering_algorithm(clustering),
        key,
        state,
        gather,
        first_step=state.interval * clustering.update_interval,
        n_steps=clustering.update_interval,
        n_rows=_count_rows(x, clustering),
        batch_size=clustering.batch_size,
        order=clustering.batch_order,
    )
    return state._replace(interval=state.interval + 1), losses


def is_finished(state: DECState, *, tol: float, max_intervals: int) -> Array | bool:
    """Whether fewer than ``tol`` of the labels changed, q broke, or the intervals are used up.

    Never before one full interval.
    """
    started = state.interval > 0
    # A NaN compares false, so a broken state ends the run as well.
    settled = started & ~(state.label_change >= tol)
    return settled | (state.interval >= max_intervals)


def run(
    key: Key[Array, ""],
    state: DECState,
    x: Float[Array, "N D"],
    clustering: Clustering,
    *,
    tol: float = 1e-3,
    max_intervals: int = 100,
) -> DECState:
    """Run intervals until fewer than ``tol`` of the labels change: one ``lax.while_loop``.

    The whole phase is one program, for ``jax.jit`` and ``jax.vmap``; the host-driven
    :func:`jdec.fit` runs the same intervals one by one and gives the same result.

    Args:
        key: Typed random key of the phase.
        state: From :func:`init_state`.
        x: All rows, [N D].
        clustering: The phase's settings.
        tol: Stop when a refresh changed a smaller share of the labels; 0.001 in the paper.
        max_intervals: Stop after this many intervals in any case.

    Returns:
        The last state; ``label_change`` and ``interval`` tell why it ended.

    Raises:
        ValueError: If ``tol`` is negative or ``max_intervals`` below 1.

    Examples:
        >>> x = jnp.array([[0.0], [0.2], [5.0], [5.2]])
        >>> clustering = Clustering(lambda w, x: x * w, optax.sgd(0.1), update_interval=3)
        >>> state = init_state(jnp.ones(()), jnp.array([[0.0], [4.0]]), x, clustering)
        >>> int(run(jax.random.key(0), state, x, clustering).interval)
        1

    Source: Xie et al. 2016, section 3.3.
    """
    check_non_negative("tol", tol)
    check_integer("max_intervals", max_intervals)
    return jax.lax.while_loop(
        lambda state: ~is_finished(state, tol=tol, max_intervals=max_intervals),
        lambda state: run_interval(key, state, x, clustering)[0],
        state,
    )


def _trained(
    params: Params, centroids: Float[Array, "K Z"], clustering: Clustering
) -> dict[str, Params]:
    frozen = {} if clustering.freeze_encoder else {"params": params}
    return {**frozen, "centroids": centroids}
