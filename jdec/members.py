"""The programs of one fit, vectorised over the members of a population.

Each takes members along a leading axis, by ``jax.vmap`` on each device of a mesh.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jdec._typing import Params
from jdec.autoencoder import init_params
from jdec.build import (
    Stage,
    Variant,
    build_clustering,
    build_network,
    build_pretraining,
    initial_partition,
    scan_pretraining,
)
from jdec.config import Config
from jdec.dec import (
    DECState,
    embed_rows,
    init_state,
    is_finished,
    refresh_targets,
    train_interval,
)
from jdec.functional import clustering_loss, log_soft_assignment, target_distribution
from jdec.sharding import Mesh, map_over_devices


@partial(jax.jit, static_argnames=("config", "mesh"))
def init_members(keys: Any, x: Any, *, config: Config, mesh: Mesh | None) -> Params:
    """Draw fresh parameters for each key."""
    network = build_network(config, x.shape[1])
    return _side_by_side(lambda key: init_params(key, network), keys, mesh)


@partial(jax.jit, static_argnames=("config", "stage", "mesh"))
def init_members_stage(
    params: Any, x: Any, *, config: Config, stage: Stage, mesh: Mesh | None
) -> Any:
    """Make the state of a stage of pretraining for each member."""
    algorithm = build_pretraining(config, x.shape[1], stage)
    # Copies, because the state is donated.
    return jax.tree.map(jnp.copy, _side_by_side(algorithm.init, params, mesh))


@partial(jax.jit, static_argnames=("config", "stage", "n_steps", "mesh"), donate_argnames="states")
def pretrain_members(
    keys: Any,
    states: Any,
    first_step: Any,
    x: Any,
    *,
    config: Config,
    stage: Stage,
    n_steps: int,
    mesh: Mesh | None,
) -> Any:
    """Run S steps of a stage for each member; ``states`` is donated."""

    def steps(member: Any, first_step: Any, x: Any) -> Any:
        key, state = member
        state, losses = scan_pretraining(
            key, state, x, first_step, config=config, stage=stage, n_steps=n_steps, n_rows=len(x)
        )
        return state, losses.mean()

    return _side_by_side(steps, (keys, states), mesh, first_step, x)


@partial(jax.jit, static_argnames=("config", "mesh"))
def partition_members(keys: Any, traits: Any, x: Any, *, config: Config, mesh: Mesh | None) -> Any:
    """Partition each member's embedding; returns centroids and labels."""

    def partition(member: Any, x: Any) -> Any:
        key, (params, alpha) = member
        embeddings = embed_rows(params, x, build_clustering(config, x.shape[1]))
        initial = initial_partition(key, embeddings, config, alpha=alpha)
        return initial.centroids, initial.labels

    # As restarts of k-means: on a CPU the first to converge should not wait for the last.
    at_once = jax.default_backend() != "cpu"
    return map_over_devices(partition, (keys, traits), mesh, shared=(x,), vectorized=at_once)


@partial(jax.jit, static_argnames=("config", "mesh"))
def start_members(
    params: Any, centroids: Any, variant: Variant, x: Any, *, config: Config, mesh: Mesh | None
) -> DECState:
    """Make the first state of the clustering phase for each member."""

    def start(member: Any, x: Any) -> DECState:
        params, centroids, variant = member
        return init_state(
            params, centroids, x, build_clustering(config, x.shape[1], variant=variant)
        )

    states = _side_by_side(start, (params, centroids, variant), mesh, x)
    return jax.tree.map(jnp.copy, states)


@partial(jax.jit, static_argnames=("config", "mesh"), donate_argnames="states")
def train_members(
    keys: Any, variant: Variant, states: Any, x: Any, *, config: Config, mesh: Mesh | None
) -> Any:
    """Run an interval for each member that has not settled; ``states`` is donated."""
    settings = config.clustering

    def interval(member: Any, x: Any) -> Any:
        key, variant, state = member
        clustering = build_clustering(config, x.shape[1], variant=variant)
        trained, losses = train_interval(key, state, x, clustering)
        trained = refresh_targets(trained, x, clustering)
        held = is_finished(state, tol=settings.tol, max_intervals=settings.max_intervals)
        state = jax.tree.map(lambda old, new: jnp.where(held, old, new), state, trained)
        return state, losses.mean()

    return _side_by_side(interval, (keys, variant, states), mesh, x)


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
    return q.argmax(axis=1).astype(jnp.int32), q, divergence


def _side_by_side(
    function: Callable[..., Any], members: Any, mesh: Mesh | None, *shared: Any
) -> Any:
    return map_over_devices(function, members, mesh, shared=shared, vectorized=True)
