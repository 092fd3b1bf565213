"""jdec: its scanned steps, a whole fit at a given number of steps, and preset ``fast``."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import (
    ADAM_CLUSTER_RATE,
    ADAM_PRETRAIN_RATE,
    CLUSTER_RATE,
    MOMENTUM,
    PRETRAIN_RATE,
    Task,
)
from benchmarks.peers.fits import load_rows, score
from benchmarks.peers.rates import time_loops, versions
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.presets import preset_config
from jdec.trainer.programs import (
    Plan,
    Stage,
    build_network,
    init_params,
    init_stage,
    init_state,
    pretrain_steps,
    refresh,
    train,
)
from jdec.trainer.results import FitResult
from jdec.trainer.sharding import RowSharding

_LIBRARIES = ("jdec", "jax", "jaxlib", "flax", "optax")


def time_steps(task: Task) -> dict[str, Any]:
    """Time the pretraining steps, the intervals and the refresh as :func:`jdec.fit` runs them."""
    x = jnp.asarray(np.load(task.rows_file))
    n_rows, n_features = x.shape
    sgd = {"name": "sgd", "momentum": MOMENTUM}
    config = _config(task).replace(
        {
            "pretrain.optimizer": {**sgd, "learning_rate": PRETRAIN_RATE},
            "clustering.optimizer": {**sgd, "learning_rate": CLUSTER_RATE},
            "clustering.update_interval": task.update_interval,
        }
    )
    key = jax.random.key(task.seed)
    stage = Stage("finetune", None, task.pretrain_steps)
    plan = Plan(config, build_network(config), RowSharding(n_rows))
    params, _ = init_params(key, plan=plan, n_features=n_features)
    centroids = plan.network.encode(params, x[: task.n_clusters])
    state = init_state(params, centroids, plan=plan)
    targets, _ = refresh(state.params, jnp.full(n_rows, -1, jnp.int32), x, plan=plan)
    held: dict[str, Any] = {
        "pretrain": init_stage(params, plan=plan, stage=stage),
        "cluster": state,
        "targets": targets,
        "first_step": 0,
    }

    def pretrain() -> float:
        held["pretrain"], losses, _ = pretrain_steps(
            key,
            held["pretrain"],
            x,
            held["first_step"],
            plan=plan,
            stage=stage,
            n_steps=task.pretrain_steps,
            n_rows=n_rows,
        )
        held["first_step"] += task.pretrain_steps
        jax.block_until_ready(held["pretrain"])
        return float(losses[-1])

    def interval() -> float:
        state, kl = train(key, held["cluster"], held["targets"], x, plan=plan)
        held["cluster"] = state
        held["targets"], _ = refresh(state.params, held["targets"].labels, x, plan=plan)
        jax.block_until_ready(held)
        return float(kl[-1])

    def refresh_once() -> Any:
        held["targets"], _ = refresh(held["cluster"].params, held["targets"].labels, x, plan=plan)
        return jax.block_until_ready(held["targets"])

    return time_loops(task, pretrain, interval, refresh_once, libraries=_LIBRARIES)


def fit_equal_steps(task: Task) -> dict[str, Any]:
    """Fit from loading to labels with Adam, in a given number of epochs."""
    began = time.perf_counter()
    dataset = load_rows(task)
    steps_an_epoch = -(-len(dataset.x) // task.batch_size)
    config = _config(task).replace(
        {
            "pretrain.optimizer": {"name": "adam", "learning_rate": ADAM_PRETRAIN_RATE},
            "pretrain.finetune_steps": task.pretrain_epochs * steps_an_epoch,
            "kmeans.n_init": task.n_init,
            "clustering.optimizer": {"name": "adam", "learning_rate": ADAM_CLUSTER_RATE},
            "clustering.update_interval": steps_an_epoch,
            "clustering.max_intervals": task.cluster_epochs,
            "clustering.tol": 0.0,
        }
    )
    result = fit(jax.random.key(task.seed), dataset.x, config)
    return _figures(time.perf_counter() - began, dataset.y, result)


def fit_fast(task: Task) -> dict[str, Any]:
    """Fit from loading to labels with preset ``fast``."""
    began = time.perf_counter()
    dataset = load_rows(task)
    config = preset_config(
        "fast",
        n_clusters=task.n_clusters,
        n_rows=len(dataset.x),
        dataset=dataset.name,
        image_shape=dataset.image_shape,
    ).replace({"network.hidden_dims": task.dims[1:-1], "network.latent_dim": task.dims[-1]})
    result = fit(jax.random.key(task.seed), dataset.x, config)
    return _figures(time.perf_counter() - began, dataset.y, result)


def _config(task: Task) -> Config:
    return Config(n_clusters=task.n_clusters).replace(
        {
            "network.hidden_dims": task.dims[1:-1],
            "network.latent_dim": task.dims[-1],
            "pretrain.batch_size": task.batch_size,
            "clustering.batch_size": task.batch_size,
        }
    )


def _figures(seconds: float, y: Any, result: FitResult) -> dict[str, Any]:
    return {
        "versions": versions(*_LIBRARIES),
        "seconds": seconds,
        "phases": result.seconds,
        **score(y, result.labels),
    }
