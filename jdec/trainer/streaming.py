"""Rows that stay on the host: sent to the device a few mini-batches, or one block, at a time.

The functions are those of :mod:`jdec.trainer.programs` for rows that the device has no room for.
Indices and keys are drawn by the same functions, so that both ways take the same steps.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jdec._host_arrays import empty_on_host
from jdec._typing import Params
from jdec.core.autoencoder import network_shapes
from jdec.core.batches import Batches
from jdec.core.dec import DECBatch, DECState
from jdec.core.functional import clustering_loss, log_soft_assignment, target_distribution
from jdec.core.pretraining import PretrainState
from jdec.core.targets import DECParams, Targets, all_finite
from jdec.core.training import scan_batches, step_indices
from jdec.trainer import programs
from jdec.trainer.config import ClusteringConfig, PretrainConfig
from jdec.trainer.programs import (
    MemberOverrides,
    Plan,
    Stage,
    alter_clustering,
    alter_pretraining,
    build_pretraining,
    build_self_training,
    draw_clustering,
    draw_pretraining,
    embed_all,
)
from jdec.trainer.streamed_rows import BLOCK_SIZE, CHUNK_BYTES, JoinedRows, StreamedRows, read_ahead
from jdec.trainer.transfer import collect_blocks, map_blocks, put_batches


class HostTargets(NamedTuple):
    """What P follows from, Eq. 3: it is made for the rows of mini-batches alone."""

    q: Float[np.ndarray, "N K"]
    frequencies: Float[np.ndarray, "K"]


def _train(
    steps: Callable[[Any, Any, int], tuple[Any, Any]],
    state: Any,
    read: Callable[[Int[np.ndarray, "S B"]], Any],
    indices: Int[np.ndarray, "S B"],
    row_bytes: int,
) -> tuple[Any, Float[np.ndarray, "S"]]:
    """Run ``steps(state, rows, done)`` on mini-batches read ahead; returns state and losses."""
    n_steps, batch_size = indices.shape
    n_chunks = -(-n_steps * batch_size * row_bytes // CHUNK_BYTES)
    size = -(-n_steps // n_chunks)  # of about equal chunks: each length is a program
    starts = range(0, n_steps, size)
    losses: list[Any] = []
    rows = read_ahead(lambda start: read(indices[start : start + size]), starts)
    for start, of_chunk in zip(starts, rows, strict=True):
        state, loss = steps(state, of_chunk, start)
        if losses:  # one chunk waits while one is worked on, and no more
            jax.block_until_ready(losses[-1])
        losses.append(loss)
    return state, np.concatenate([np.asarray(loss) for loss in losses])


def _draw(
    key: Any,
    first_step: int,
    n_steps: int,
    n_rows: int,
    settings: PretrainConfig | ClusteringConfig,
) -> Int[np.ndarray, "S B"]:
    # Without the gather, whose every instance would be another program.
    batches = Batches(settings.batch_size, settings.batch_order)
    drawn = _step_indices(
        key, first_step=first_step, n_steps=n_steps, n_rows=n_rows, batches=batches
    )
    return np.asarray(drawn)


_step_indices = jax.jit(step_indices, static_argnames=("n_steps", "n_rows", "batches"))


def pretrain_steps(
    key: Any,
    state: PretrainState,
    x: StreamedRows | JoinedRows,
    first_step: int,
    *,
    plan: Plan,
    stage: Stage,
    n_steps: int,
    n_rows: int,
) -> tuple[PretrainState, Float[np.ndarray, "S"], Bool[Array, ""]]:
    """Run S steps of a stage on the first ``n_rows`` rows; ``state`` is donated.

    Returns the state, the loss of each step, and whether the parameters are finite.
    """
    key = _stage_key(key, stage=stage)
    indices = _draw(key, first_step, n_steps, n_rows, plan.config.pretrain)

    def steps(state: Any, rows: Any, done: int) -> Any:
        return _pretrain_batches(key, state, rows, first_step + done, plan=plan, stage=stage)

    read = partial(put_batches, plan.rows, x.take)
    state, losses = _train(steps, state, read, indices, 4 * x.shape[1])
    return state, losses, _all_finite(state.params)


@partial(jax.jit, static_argnames="stage")
def _stage_key(key: Any, *, stage: Stage) -> Any:
    return stage.key(key)


_all_finite = jax.jit(all_finite)


@partial(jax.jit, static_argnames=("plan", "stage"), donate_argnames="state")
def _pretrain_batches(
    key: Any,
    state: PretrainState,
    rows: Float[Array, "S B D"],
    first_step: Int[Array, ""] | int,
    *,
    plan: Plan,
    stage: Stage,
) -> tuple[PretrainState, Float[Array, "S"]]:
    seams: Any = {
        "alter": partial(alter_pretraining, plan),
        "draw": partial(draw_pretraining, plan),
    }
    algorithm = build_pretraining(plan, stage)
    state, info = scan_batches(algorithm, key, state, rows, first_step=first_step, **seams)
    return state, info.loss


def train(
    key: Any,
    state: DECState,
    targets: Targets,
    x: StreamedRows,
    overrides: MemberOverrides = MemberOverrides(),  # noqa: B008 (immutable)
    *,
    plan: Plan,
) -> tuple[DECState, Float[np.ndarray, "S"]]:
    """Train the steps of one interval; ``state`` is donated.

    Returns the state and the mean KL of each mini-batch.
    """
    settings = plan.config.clustering
    n_steps = settings.update_interval
    of_host: Any = targets.p  # HostTargets
    first_step = int(state.interval) * n_steps
    if settings.reset_optimizer:
        state = _reset_optimizer(state, plan=plan)
    indices = _draw(key, first_step, n_steps, len(x), settings)
    frequencies = jnp.asarray(of_host.frequencies, jnp.float32)

    def read(indices: Int[np.ndarray, "S B"]) -> tuple[Any, Any]:
        return (
            put_batches(plan.rows, x.take, indices),
            put_batches(plan.rows, of_host.q.__getitem__, indices),
        )

    def steps(state: Any, rows: Any, done: int) -> Any:
        return _train_batches(key, state, *rows, frequencies, first_step + done, plan=plan)

    row_bytes = 4 * (x.shape[1] + of_host.q.shape[1])
    state, losses = _train(steps, state, read, indices, row_bytes)
    return state._replace(interval=state.interval + 1), losses


@partial(jax.jit, static_argnames="plan")
def _reset_optimizer(state: DECState, *, plan: Plan) -> DECState:
    return state._replace(opt_state=build_self_training(plan).init(*state.params).opt_state)


@partial(jax.jit, static_argnames="plan", donate_argnames="state")
def _train_batches(
    key: Any,
    state: DECState,
    rows: Float[Array, "S B D"],
    q: Float[Array, "S B K"],
    frequencies: Float[Array, "K"],
    first_step: Int[Array, ""] | int,
    *,
    plan: Plan,
) -> tuple[DECState, Float[Array, "S"]]:
    p = jax.vmap(partial(target_distribution, frequencies=frequencies))(q)
    state, infos = scan_batches(
        build_self_training(plan),
        key,
        state,
        DECBatch(rows, p),
        first_step=first_step,
        alter=partial(alter_clustering, plan),
        draw=partial(draw_clustering, plan),
    )
    return state, infos.kl


def refresh(
    params: DECParams,
    labels: Int[np.ndarray, "N"],
    x: StreamedRows,
    overrides: MemberOverrides = MemberOverrides(),  # noqa: B008 (immutable)
    *,
    plan: Plan,
) -> tuple[Targets, Int[np.ndarray, "K"]]:
    """Recompute the targets in one pass over the rows, and count the rows of each cluster."""
    del overrides
    n_rows, n_clusters, mine = len(x), plan.config.n_clusters, plan.rows.local()
    n_mine, finite = mine.stop - mine.start, True
    q = empty_on_host((n_mine, n_clusters), np.float32)
    new_labels = np.empty(n_mine, np.int32)
    for rows, found in map_blocks(plan.rows, x, partial(_assign_block, params, plan=plan)):
        q[rows], new_labels[rows] = found[:2]
        finite = finite and bool(found[2])
    # Mini-batches are of all rows, in every process.
    q, new_labels = plan.rows.join(q), plan.rows.join(new_labels)
    frequencies = np.zeros(n_clusters)
    for part in _parts(q):
        frequencies += part.sum(axis=0, dtype=np.float64)
    of_all = jnp.asarray(frequencies, jnp.float32)
    kl = sum(float(_sum_kl(_padded(part), of_all)) for part in _parts(q)) / n_rows
    change = np.count_nonzero(new_labels != labels) / n_rows
    # JAX's, as those of resident rows: a checkpoint holds the one, and records hold the other.
    numbers = [jnp.float32(value if finite else np.nan) for value in (change, kl)]
    of_host: Any = (HostTargets(q, frequencies), new_labels)
    targets = Targets(*of_host, *numbers)
    return targets, np.bincount(new_labels, minlength=n_clusters)


def _parts(array: np.ndarray) -> Iterator[np.ndarray]:
    size = BLOCK_SIZE * max(1, CHUNK_BYTES // (4 * array.shape[1] * BLOCK_SIZE))
    for start in range(0, len(array), size):
        yield array[start : start + size]


def _padded(block: np.ndarray) -> np.ndarray:
    """Return rows, and zeros up to whole blocks: few lengths, and each is a program."""
    return np.pad(block, ((0, -len(block) % BLOCK_SIZE), (0, 0)))


@partial(jax.jit, static_argnames="plan")
def _assign_block(
    params: DECParams, block: Float[Array, "B D"], *, plan: Plan
) -> tuple[Float[Array, "B K"], Int[Array, "B"], Bool[Array, ""]]:
    embeddings = embed_all(plan.rows, plan.network.encode, params.encoder, block)
    log_q = log_soft_assignment(embeddings, params.centroids, alpha=plan.config.clustering.alpha)
    q = jnp.exp(log_q)
    return q, q.argmax(axis=1).astype(jnp.int32), all_finite((params, embeddings, q))


@jax.jit
def _sum_kl(q: Float[Array, "B K"], frequencies: Float[Array, "K"]) -> Float[Array, ""]:
    p = target_distribution(q, frequencies=frequencies)
    log_q = jnp.log(jnp.maximum(q, jnp.finfo(q.dtype).tiny))  # where it is 0, so is p
    return clustering_loss(log_q, p).sum()


def embed(params: Params, x: StreamedRows, *, plan: Plan) -> Float[np.ndarray, "N Z"]:
    """Embed all rows."""
    width = network_shapes(plan.network, x.shape[1]).latent_dim
    (found,) = collect_blocks(partial(_embed_block, params, plan=plan), x, (width,), plan.rows)
    return found


def assign(
    params: DECParams, x: StreamedRows, alpha: Float[Array, ""], *, plan: Plan
) -> tuple[Float[np.ndarray, "N Z"], Float[np.ndarray, "N K"]]:
    """Embed all rows and assign them to clusters."""

    def of_block(block: Float[Array, "B D"]) -> tuple[Any, ...]:
        return programs.assign(params, block, alpha, plan=plan)

    n_clusters, width = params.centroids.shape
    embeddings, q = collect_blocks(of_block, x, (width, n_clusters), plan.rows)
    return embeddings, q


@partial(jax.jit, static_argnames="plan")
def _embed_block(
    params: Params, block: Float[Array, "B D"], *, plan: Plan
) -> tuple[Float[Array, "B Z"]]:
    return (embed_all(plan.rows, plan.network.encode, params, block),)
