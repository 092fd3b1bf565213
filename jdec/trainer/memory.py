"""Memory of a run, validated before any work, and the size of batches of members."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jdec._environment import free_device_bytes
from jdec.core.autoencoder import count_params, network_shapes
from jdec.trainer import programs
from jdec.trainer.config import Config
from jdec.trainer.streamed_rows import BLOCK_SIZE


def check_memory(config: Config, n_rows: int, n_features: int, n_devices: int = 1) -> None:
    """Raise a ValueError that names what takes the most, if settings alone exceed the memory."""
    free = free_device_bytes()
    if free is None:
        return
    network = config.network
    n_weights = count_params(network_shapes(programs.build_network(config), n_features).params)
    dims, widths = (n_features, *network.hidden_dims, network.latent_dim), "network.hidden_dims"
    if network.kind == "conv":  # the first layer has a quarter of the pixels
        widths = "network.channels"
        dims = (n_features, network.channels[0] * n_features // 4, network.latent_dim)
    trains = config.pretrain.finetune_steps or config.pretrain.layerwise_steps
    batch_size = max(
        config.pretrain.batch_size if trains else 1,
        config.clustering.batch_size if config.clustering.max_intervals else 1,
    )
    numbers = {
        widths: n_weights * (2 if trains else 1),  # with gradients
        f"batch_size × {widths}": batch_size * sum(dims),
        "n_clusters × rows": config.n_clusters * (2 * n_rows // n_devices),  # Q and P
        "kmeans.n_init × n_clusters": config.kmeans.n_init * config.n_clusters * network.latent_dim,
    }
    needed = 4 * sum(numbers.values())
    if needed > free:
        raise ValueError(
            f"{max(numbers, key=numbers.__getitem__)}: expected settings that take at most "
            f"{free / 2**30:.3g} GiB, which are free, got some that take {needed / 2**30:.3g} GiB "
            "and more"
        )


def members_that_fit(plan: programs.Plan, x: Float[Array, "N D"], n_members: int) -> int:
    """Return how many members the free memory has room for, as XLA counts it."""
    budget = free_device_bytes()
    mesh = plan.rows.mesh
    n_devices = 1 if mesh is None else mesh.size
    if budget is None:
        return n_members
    if jax.default_backend() == "cpu":
        budget //= n_devices  # which share the host's
    # Compiling to know takes seconds, and is skipped where there is plenty.
    while n_members > 1 and 4 * _estimate_bytes(plan, x, n_members) // n_devices > budget:
        n_bytes = compiled_bytes(plan, x, n_members)
        if n_bytes <= budget:
            break
        n_members = max(1, min(n_members - 1, int(n_members * budget / n_bytes)))
    return n_members


def _estimate_bytes(plan: programs.Plan, x: Float[Array, "N D"], n_members: int) -> int:
    config, n_features = plan.config, x.shape[1]
    n_parameters = count_params(network_shapes(plan.network, n_features).params)
    widths = n_features + sum(config.network.hidden_dims) + config.network.latent_dim
    batches = 4 * max(config.pretrain.batch_size, BLOCK_SIZE) * widths
    return 4 * n_members * (4 * n_parameters + batches + 4 * len(x) * config.n_clusters)


def compiled_bytes(plan: programs.Plan, x: Float[Array, "N D"], n_members: int) -> int:
    """Return the bytes on a device that the largest of the programs needs."""
    config, common = plan.config, {"plan": plan}
    keys = jax.random.split(jax.random.key(0), n_members)
    init = partial(programs.init_params, plan=plan, n_features=x.shape[1])
    params, _ = jax.eval_shape(init, keys)
    lowered = []
    for stage in programs.pretraining_stages(config, plan.network)[-1:]:
        state = jax.eval_shape(partial(programs.init_stage, plan=plan, stage=stage), params)
        options: Any = {"stage": stage, "n_steps": 1, "n_rows": plan.rows.n_rows}
        lowered.append(
            programs.pretrain_steps.lower(keys, state, x, jnp.int32(0), **options, **common)
        )
    shapes = network_shapes(plan.network, x.shape[1])
    n_embedded = (n_members, min(len(x), config.kmeans.max_rows), shapes.latent_dim)
    embeddings = jax.ShapeDtypeStruct(n_embedded, jnp.float32)
    lowered.append(programs.partition.lower(keys, embeddings, **common))
    shape = (n_members, config.n_clusters, shapes.latent_dim)
    centroids = jax.ShapeDtypeStruct(shape, jnp.float32)
    one_each = jax.ShapeDtypeStruct(shape[:1], jnp.float32)
    mask = jax.ShapeDtypeStruct(shape[:2], jnp.bool_)
    rate = one_each if plan.hooks.clustering_tx is None else None
    overrides: Any = programs.MemberOverrides(one_each, rate, mask)  # type: ignore[arg-type]
    state = jax.eval_shape(partial(programs.init_state, **common), params, centroids, overrides)
    labels = jax.ShapeDtypeStruct((n_members, len(x)), jnp.int32)
    refreshed = (state.params, labels, x, overrides)
    targets, _ = jax.eval_shape(partial(programs.refresh, **common), *refreshed)
    lowered.append(programs.refresh.lower(*refreshed, **common))
    lowered.append(programs.train.lower(keys, state, targets, x, overrides, **common))
    needs: list[Any] = [program.compile().memory_analysis() for program in lowered]
    return max(
        int(n.argument_size_in_bytes + n.output_size_in_bytes + n.temp_size_in_bytes)
        - int(n.alias_size_in_bytes)
        for n in needs
    )
