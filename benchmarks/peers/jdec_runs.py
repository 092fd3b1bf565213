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
from jdec.core.autoencoder import encoder_params, init_params
from jdec.core.dec import init_state
from jdec.trainer.build import (
    Stage,
    build_clustering,
    build_network,
    build_pretraining,
    cluster_interval,
    pretrain_steps,
    refresh,
)
from jdec.trainer.config import Config, preset_config
from jdec.trainer.fit import FitResult, fit

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
    params = init_params(key, build_network(config, n_features))
    clustering = build_clustering(config, n_features)
    centroids = clustering.encode(params, x[: task.n_clusters])
    start = jax.jit(lambda x: init_state(encoder_params(params), centroids, x, clustering))
    pretraining = build_pretraining(config, n_features, stage)
    held: dict[str, Any] = {
        "pretrain": jax.tree.map(jnp.copy, pretraining.init(params)),
        "cluster": jax.tree.map(jnp.copy, start(x)),
        "first_step": 0,
    }

    def pretrain() -> float:
        held["pretrain"], losses = pretrain_steps(
            key,
            held["pretrain"],
            x,
            held["first_step"],
            config=config,
            stage=stage,
            n_steps=task.pretrain_steps,
            n_rows=n_rows,
        )
        held["first_step"] += task.pretrain_steps
        jax.block_until_ready(held["pretrain"])
        return float(losses[-1])

    def interval() -> float:
        held["cluster"], info = cluster_interval(key, held["cluster"], x, config=config)
        jax.block_until_ready(held["cluster"])
        return float(info.loss[-1])

    def refresh_once() -> Any:
        held["cluster"], _ = refresh(held["cluster"], x, config=config)
        return jax.block_until_ready(held["cluster"])

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
