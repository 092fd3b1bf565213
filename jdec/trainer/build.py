"""From settings to the pieces of the functional core, and those pieces compiled.

Configurations are frozen and hashable, so they are static arguments: a second run with the same
settings and shapes compiles nothing anew.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from jdec._typing import Params
from jdec.core.augmentation import random_affine
from jdec.core.autoencoder import (
    StackedDenoisingAutoencoder,
    corrupt,
    encoder_params,
    make_autoencoder,
    make_encode,
)
from jdec.core.dec import (
    Clustering,
    DECInfo,
    DECState,
    all_finite,
    cluster_sizes,
    embed_rows,
    init_state,
    refresh_targets,
    train_interval,
)
from jdec.core.functional import (
    clustering_loss,
    log_soft_assignment,
    soft_assignment,
    target_distribution,
)
from jdec.core.kmeans import KMeansResult, merged_kmeans
from jdec.core.pretraining import PretrainState, finetune, layerwise
from jdec.core.training import Algorithm, make_optimizer, scan_steps
from jdec.trainer.config import Config, OptimizerConfig
from jdec.trainer.sharding import Mesh, gather_rows, map_over_devices, map_shards, spread_rows

#: Rows encoded at once outside of training.
BLOCK_SIZE = 2048


class RunKeys(NamedTuple):
    """The random keys of a run, one for each of its parts."""

    init: Key[Array, ""]
    pretraining: Key[Array, ""]
    kmeans: Key[Array, ""]
    clustering: Key[Array, ""]


def split_run_key(key: Key[Array, ""]) -> RunKeys:
    """Split the key of a run."""
    return RunKeys(*jax.random.split(key, 4))


class Stage(NamedTuple):
    """One stage of pretraining."""

    name: str
    layer: int | None  # None trains the whole autoencoder
    n_steps: int


def pretraining_stages(config: Config) -> list[Stage]:
    """Return the stages that a configuration asks for, in order.

    Examples:
        >>> [stage.name for stage in pretraining_stages(Config(n_clusters=2))]
        ['finetune']
    """
    n_layers = len(config.network.hidden_dims) + 1
    stages = [
        Stage(f"layer {layer + 1}", layer, config.pretrain.layerwise_steps)
        for layer in range(n_layers)
    ]
    stages.append(Stage("finetune", None, config.pretrain.finetune_steps))
    return [stage for stage in stages if stage.n_steps]


def build_network(config: Config, n_features: int) -> StackedDenoisingAutoencoder:
    """Return the autoencoder of a configuration for rows of D columns."""
    return make_autoencoder(
        n_features,
        config.network.hidden_dims,
        config.network.latent_dim,
        corruption_rate=config.pretrain.finetune_corruption_rate,
        initializer=config.network.initializer,
        precision=config.network.precision,
    )


def build_optimizer(
    settings: OptimizerConfig,
    n_steps: int,
    *,
    learning_rate: float | Float[Array, ""] | None = None,
) -> optax.GradientTransformation:
    """Return the optimizer of a phase of ``n_steps`` steps, perhaps of another learning rate."""
    values = dict(vars(settings))
    name, rate = values.pop("name"), values.pop("learning_rate")
    rate = rate if learning_rate is None else learning_rate
    return make_optimizer(name, rate, n_steps=n_steps, **values)


def build_pretraining(config: Config, n_features: int, stage: Stage) -> Algorithm:
    """Return the algorithm of one stage of pretraining."""
    network, settings = build_network(config, n_features), config.pretrain
    tx = build_optimizer(settings.optimizer, stage.n_steps)
    if stage.layer is None:
        return finetune(network, tx, loss_scale=settings.loss_scale)
    return layerwise(
        network,
        stage.layer,
        tx,
        corruption_rate=settings.corruption_rate,
        corrupt_data=settings.corrupt_data,
        loss_scale=settings.loss_scale,
    )


@partial(jax.jit, static_argnames=("config", "n_features", "stage"))
def init_stage(params: Params, *, config: Config, n_features: int, stage: Stage) -> PretrainState:
    """Make the first state of a stage of pretraining."""
    return build_pretraining(config, n_features, stage).init(params)


#: :func:`jdec.core.dec.all_finite` as a program of its own.
is_finite = jax.jit(all_finite)


class Variant(NamedTuple):
    """Settings of the clustering phase that may differ within a population; None: as configured."""

    alpha: Float[Array, ""] | None = None
    learning_rate: Float[Array, ""] | None = None
    active: Bool[Array, "K"] | None = None  # which clusters take part


class Rows(NamedTuple):
    """How the rows of an array lie: its padding and its devices."""

    n_rows: int | None = None  # those after them are padding
    mesh: Mesh | None = None


AS_CONFIGURED = Variant()
ALL_ROWS = Rows()


def build_clustering(
    config: Config, n_features: int, *, rows: Rows = ALL_ROWS, variant: Variant = AS_CONFIGURED
) -> Clustering:
    """Return the clustering phase of a configuration."""
    settings = config.clustering
    n_steps = settings.max_intervals * settings.update_interval
    return Clustering(
        encode=make_encode(build_network(config, n_features)),
        tx=build_optimizer(settings.optimizer, n_steps, learning_rate=variant.learning_rate),
        alpha=settings.alpha if variant.alpha is None else variant.alpha,
        update_interval=settings.update_interval,
        batch_size=settings.batch_size,
        batch_order=settings.batch_order,
        freeze_encoder=settings.freeze_encoder,
        reset_optimizer=settings.reset_optimizer,
        augment=partial(_alter, config),
        block_size=BLOCK_SIZE,
        active=variant.active,
        n_rows=rows.n_rows,
        spread=partial(spread_rows, mesh=rows.mesh),
        map_rows=partial(map_shards, mesh=rows.mesh),
    )


def _alter(config: Config, key: Key[Array, ""], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
    augment_key, corrupt_key = jax.random.split(key)
    x = _augment(config, augment_key, x)
    return corrupt(corrupt_key, x, config.clustering.corruption_rate)


def _augment(config: Config, key: Key[Array, ""], x: Float[Array, "B D"]) -> Float[Array, "B D"]:
    if config.image_shape is None:
        return x
    return random_affine(key, x, config.image_shape, config.augmentation)


def scan_pretraining(
    key: Key[Array, ""],
    state: PretrainState,
    x: Float[Array, "N D"],
    first_step: int | Int[Array, ""],
    *,
    config: Config,
    stage: Stage,
    n_steps: int,
    n_rows: int,
    mesh: Mesh | None = None,
) -> tuple[PretrainState, Float[Array, "S"]]:
    """Run S steps of a stage on the first ``n_rows`` rows, as a part of any program."""

    def gather(batch_key: Key[Array, ""], rows: Int[Array, "B"]) -> Float[Array, "B D"]:
        return spread_rows(_augment(config, batch_key, x[rows]), mesh)

    state, info = scan_steps(
        build_pretraining(config, x.shape[1], stage),
        key,
        state,
        gather,
        first_step=first_step,
        n_steps=n_steps,
        n_rows=n_rows,
        batch_size=config.pretrain.batch_size,
        order=config.pretrain.batch_order,
    )
    return state, info.loss


#: :func:`scan_pretraining` as a program of its own; ``state`` is donated.
pretrain_steps = jax.jit(
    scan_pretraining,
    static_argnames=("config", "stage", "n_steps", "n_rows", "mesh"),
    donate_argnames="state",
)


@partial(jax.jit, static_argnames=("config", "rows"))
def start_clustering(
    key: Key[Array, ""],
    params: Params,
    x: Float[Array, "N D"],
    *,
    config: Config,
    rows: Rows = ALL_ROWS,
) -> tuple[KMeansResult, DECState]:
    """Run k-means on the pretrained embedding, and make the clustering phase's first state."""
    clustering = build_clustering(config, x.shape[1], rows=rows)
    params = encoder_params(params)
    # Embeddings are few numbers a row: each device sees them all, and takes some of the restarts.
    embeddings = gather_rows(embed_rows(params, x, clustering), rows.mesh)[: rows.n_rows]
    initial = initial_partition(key, embeddings, config, mesh=rows.mesh)
    return initial, init_state(params, initial.centroids, x, clustering)


def initial_partition(
    key: Key[Array, ""],
    embeddings: Float[Array, "N Z"],
    config: Config,
    *,
    alpha: float | Float[Array, ""] | None = None,
    mesh: Mesh | None = None,
) -> KMeansResult:
    """Partition the pretrained embedding as a configuration says."""
    settings = config.kmeans
    alpha = config.clustering.alpha if alpha is None else alpha
    map_restarts = None if mesh is None else partial(_map_restarts, mesh=mesh)

    def partition(
        restart_key: Key[Array, ""],
        embeddings: Float[Array, "N Z"],
        *,
        factor: int,
        n_init: int,
    ) -> KMeansResult:
        return merged_kmeans(
            restart_key,
            embeddings,
            config.n_clusters,
            oversampling=factor,
            n_init=n_init,
            max_iter=settings.max_iter,
            tol=settings.tol,
            map_restarts=map_restarts if n_init > 1 else None,
        )

    def signal(candidate: KMeansResult) -> Float[Array, ""]:
        log_q = log_soft_assignment(embeddings, candidate.centroids, alpha=alpha)
        divergence = clustering_loss(log_q, target_distribution(jnp.exp(log_q))).mean()
        return jnp.where(jnp.isfinite(divergence), divergence, -jnp.inf)

    candidates = []
    for index, factor in enumerate(settings.oversampling):
        factor_key = jax.random.fold_in(key, index)
        if settings.select == "inertia":
            best = partition(factor_key, embeddings, factor=factor, n_init=settings.n_init)
            candidates.append(jax.tree.map(lambda leaf: leaf[None], best))
        else:
            keys = jax.random.split(factor_key, settings.n_init)
            one = partial(partition, factor=factor, n_init=1)
            candidates.append(_map_restarts(one, keys, (embeddings,), mesh=mesh))
    runs: KMeansResult = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *candidates)
    score = -runs.inertia if settings.select == "inertia" else jax.lax.map(signal, runs)
    return jax.tree.map(lambda leaf: leaf[jnp.argmax(score)], runs)


def _map_restarts(
    function: Callable[..., Any],
    keys: Key[Array, "R"],
    shared: tuple[Any, ...],
    *,
    mesh: Mesh | None,
) -> Any:
    found = map_over_devices(function, keys, mesh, shared=shared)
    return jax.tree.map(partial(gather_rows, mesh=mesh), found)


@partial(jax.jit, static_argnames=("config", "rows"), donate_argnames="state")
def cluster_steps(
    key: Key[Array, ""],
    state: DECState,
    x: Float[Array, "N D"],
    *,
    config: Config,
    rows: Rows = ALL_ROWS,
) -> tuple[DECState, Float[Array, "S"]]:
    """Train the steps of one interval of the clustering phase; ``state`` is donated."""
    return train_interval(key, state, x, build_clustering(config, x.shape[1], rows=rows))


@partial(jax.jit, static_argnames=("config", "rows"), donate_argnames="state")
def refresh(
    state: DECState, x: Float[Array, "N D"], *, config: Config, rows: Rows = ALL_ROWS
) -> tuple[DECState, Int[Array, "K"]]:
    """Recompute P and labels, and count the rows of each cluster; ``state`` is donated.

    A program of its own: a run that was interrupted begins with it, and gets the same bits.
    """
    state = refresh_targets(state, x, build_clustering(config, x.shape[1], rows=rows))
    return state, cluster_sizes(state)


def cluster_interval(
    key: Key[Array, ""],
    state: DECState,
    x: Float[Array, "N D"],
    *,
    config: Config,
    rows: Rows = ALL_ROWS,
) -> tuple[DECState, DECInfo]:
    """Run one interval of the clustering phase; ``state`` is donated."""
    state, losses = cluster_steps(key, state, x, config=config, rows=rows)
    state, sizes = refresh(state, x, config=config, rows=rows)
    return state, DECInfo(losses, state.label_change, sizes)


@partial(jax.jit, static_argnames="config")
def assign_block(
    params: Params, centroids: Float[Array, "K Z"], x: Float[Array, "B D"], *, config: Config
) -> tuple[Float[Array, "B Z"], Float[Array, "B K"]]:
    """Embed scaled rows and assign them to clusters."""
    embeddings = make_encode(build_network(config, x.shape[1]))(params, x)
    return embeddings, soft_assignment(embeddings, centroids, alpha=config.clustering.alpha)
