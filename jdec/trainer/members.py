"""The programs of one fit, for the members of a population along a leading axis."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdec._typing import Params
from jdec.core.autoencoder import init_params
from jdec.core.dec import (
    DECState,
    all_finite,
    embed_rows,
    init_state,
    is_finished,
    refresh_targets,
    train_interval,
)
from jdec.core.functional import clustering_loss, log_soft_assignment, target_distribution
from jdec.trainer.build import (
    Stage,
    Variant,
    build_clustering,
    build_network,
    build_pretraining,
    initial_partition,
    scan_pretraining,
)
from jdec.trainer.config import Config
from jdec.trainer.sharding import Mesh, map_over_devices

# A CPU takes small members all at once, as each operation is too little work for it. Members beyond
# this many parameters would drive each other out of its caches, and go one after another.
_MOST_PARAMETERS_SIDE_BY_SIDE = 2**18


class Layout(NamedTuple):
    """How members are mapped over: on which devices, and by ``jax.vmap`` or ``jax.lax.map``."""

    mesh: Mesh | None = None
    vectorized: bool = True


def choose_layout(n_parameters: int, mesh: Mesh | None = None) -> Layout:
    """Return the faster way for members of an autoencoder of so many parameters."""
    is_cpu = jax.default_backend() == "cpu"
    return Layout(mesh, not is_cpu or n_parameters <= _MOST_PARAMETERS_SIDE_BY_SIDE)


@partial(jax.jit, static_argnames=("config", "layout"))
def init_members(keys: Any, x: Any, *, config: Config, layout: Layout) -> Params:
    """Draw fresh parameters for each key."""
    network = build_network(config, x.shape[1])
    return _map(lambda key: init_params(key, network), keys, layout)


@partial(jax.jit, static_argnames=("config", "stage", "layout"))
def init_members_stage(params: Any, x: Any, *, config: Config, stage: Stage, layout: Layout) -> Any:
    """Make the state of a stage of pretraining for each member."""
    algorithm = build_pretraining(config, x.shape[1], stage)
    # Copies, because the state is donated.
    return jax.tree.map(jnp.copy, _map(algorithm.init, params, layout))


@partial(
    jax.jit, static_argnames=("config", "stage", "n_steps", "layout"), donate_argnames="states"
)
def pretrain_members(
    keys: Any,
    states: Any,
    first_step: Any,
    x: Any,
    *,
    config: Config,
    stage: Stage,
    n_steps: int,
    layout: Layout,
) -> Any:
    """Run S steps of a stage for each member; ``states`` is donated."""

    def steps(member: Any, first_step: Any, x: Any) -> Any:
        key, state = member
        state, losses = scan_pretraining(
            key, state, x, first_step, config=config, stage=stage, n_steps=n_steps, n_rows=len(x)
        )
        return state, losses.mean()

    return _map(steps, (keys, states), layout, first_step, x)


@partial(jax.jit, static_argnames=("config", "layout"))
def partition_members(keys: Any, traits: Any, x: Any, *, config: Config, layout: Layout) -> Any:
    """Partition each member's embedding; returns centroids and labels."""

    def partition(member: Any, x: Any) -> Any:
        key, (params, alpha) = member
        embeddings = embed_rows(params, x, build_clustering(config, x.shape[1]))
        initial = initial_partition(key, embeddings, config, alpha=alpha)
        return initial.centroids, initial.labels

    # As restarts of k-means: on a CPU the first to converge should not wait for the last.
    at_once = jax.default_backend() != "cpu"
    return map_over_devices(partition, (keys, traits), layout.mesh, shared=(x,), vectorized=at_once)


@partial(jax.jit, static_argnames=("config", "layout"))
def start_members(
    params: Any, centroids: Any, variant: Variant, x: Any, *, config: Config, layout: Layout
) -> DECState:
    """Make the first state of the clustering phase for each member."""

    def start(member: Any, x: Any) -> DECState:
        params, centroids, variant = member
        return init_state(
            params, centroids, x, build_clustering(config, x.shape[1], variant=variant)
        )

    states = _map(start, (params, centroids, variant), layout, x)
    return jax.tree.map(jnp.copy, states)


@partial(jax.jit, static_argnames=("config", "layout"), donate_argnames="states")
def train_members(
    keys: Any, variant: Variant, states: Any, x: Any, *, config: Config, layout: Layout
) -> Any:
    """Run an interval for each member that has not settled; ``states`` is donated."""
    settings = config.clustering

    def interval(member: Any, x: Any) -> Any:
        key, variant, state = member
        clustering = build_clustering(config, x.shape[1], variant=variant)

        def train(state: DECState) -> Any:
            trained, losses = train_interval(key, state, x, clustering)
            return refresh_targets(trained, x, clustering), losses.mean()

        held = is_finished(state, tol=settings.tol, max_intervals=settings.max_intervals)
        # Side by side this becomes a choice between results, one after another it saves the work.
        return jax.lax.cond(held, lambda state: (state, jnp.float32(jnp.nan)), train, state)

    return _map(interval, (keys, variant, states), layout, x)


@partial(jax.jit, static_argnames="config")
def assign_member(variant: Variant, state: DECState, x: Any, *, config: Config) -> Any:
    """Return labels, q and the mean KL(P‖Q) over all rows of one member."""
    clustering = build_clustering(config, x.shape[1], variant=variant)
    embeddings = embed_rows(state.params, x, clustering)
    log_q = log_soft_assignment(
        embeddings, state.centroids, alpha=clustering.alpha, active=clustering.active
    )
    q = jnp.exp(log_q)
    divergence = clustering_loss(log_q, target_distribution(q)).mean()
    is_finite = all_finite((state.params, clustering.masked(state.centroids), embeddings, q))
    divergence = jnp.where(is_finite, divergence, jnp.nan)
    return q.argmax(axis=1).astype(jnp.int32), q, divergence


def _map(function: Callable[..., Any], members: Any, layout: Layout, *shared: Any) -> Any:
    return map_over_devices(
        function, members, layout.mesh, shared=shared, vectorized=layout.vectorized
    )
