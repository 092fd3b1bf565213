"""Share of the float32 matmul peak that a pretraining step and a clustering step reach.

    python -m benchmarks.bench_step

The peak is that of a 2048×2048×2048 product in the same process. Work is counted as the products
of the layers alone: 6·B·(weights) for a step of the autoencoder less the gradient of the data,
nothing for optimizer, noise and gathering. Network 784-500-500-2000-10, batch 256, many steps a
dispatch, after warm-up. The clock of a shared machine wanders, so the peak is measured right
before and after each piece, and a share is the median over the rounds of work done against work
possible in the same round.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.records import append_record
from jdec.autoencoder import init_params
from jdec.build import (
    Stage,
    build_clustering,
    build_network,
    build_pretraining,
    cluster_interval,
    pretrain_steps,
    start_clustering,
)
from jdec.config import Config, preset_config
from jdec.dec import refresh_targets


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small sizes, nothing recorded")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    for name, config in configurations(arguments.smoke).items():
        figures = measure(config, repeats=2 if arguments.smoke else arguments.repeats)
        append_record("step", {"recipe": name, **figures}, smoke=arguments.smoke)


def configurations(smoke: bool) -> dict[str, Config]:
    """Plain SGD without noise, and the recipe that ``fast`` uses for MNIST."""
    fast = preset_config("fast", n_clusters=10, n_rows=70_000, image_shape=(28, 28))
    fields: dict[str, Any] = {
        "network.hidden_dims": [500, 500, 2000],
        "pretrain.finetune_steps": 50,
        "pretrain.batch_size": 256,
        "clustering.update_interval": 50,
        "clustering.batch_size": 256,
        "clustering.max_intervals": 1000,
    }
    if smoke:
        fields |= {"network.hidden_dims": [16], "pretrain.finetune_steps": 5}
    plain = {
        "augmentation": {},
        "pretrain.finetune_corruption_rate": 0.0,
        "pretrain.optimizer": {"name": "sgd", "learning_rate": 0.1},
        "clustering.optimizer": {"name": "sgd", "learning_rate": 0.01},
    }
    return {"sgd": fast.replace(fields | plain), "fast": fast.replace(fields)}


def measure(config: Config, *, repeats: int) -> dict[str, Any]:
    """Time the peak, a pretraining step and a clustering step in turns."""
    n_rows, n_features, batch = 8192, 784, config.pretrain.batch_size
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 2, (n_rows, n_features)).astype(np.float32))
    key = jax.random.key(0)
    n_steps = config.pretrain.finetune_steps
    stage = Stage("finetune", None, n_steps)
    params = init_params(key, build_network(config, n_features))
    state = jax.tree.map(jnp.copy, build_pretraining(config, n_features, stage).init(params))
    _, cluster = start_clustering(key, params, x, config=config)
    cluster = jax.tree.map(jnp.copy, cluster)
    refresh = _refresh_only(config)

    square = jnp.ones((2048, 2048), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    held: dict[str, Any] = {"pretrain": state, "cluster": cluster}

    def peak() -> float:
        return statistics.median(_seconds(lambda: product(square)) for _ in range(4))

    def pretrain() -> Any:
        held["pretrain"], losses = pretrain_steps(
            key, held["pretrain"], x, 0, config=config, stage=stage, n_steps=n_steps, n_rows=n_rows
        )
        return losses

    def interval() -> Any:
        held["cluster"], info = cluster_interval(key, held["cluster"], x, config=config)
        return info.loss

    def refresh_once() -> Any:
        return refresh(held["cluster"], x)

    pieces = [pretrain, interval, refresh_once]
    for piece in [peak, *pieces]:
        _seconds(piece)
    times: dict[str, list[float]] = {piece.__name__: [] for piece in pieces}
    products: dict[str, list[float]] = {piece.__name__: [] for piece in pieces}
    for _ in range(repeats):
        for piece in pieces:
            before = peak()
            times[piece.__name__].append(_seconds(piece))
            products[piece.__name__].append((before + peak()) / 2)

    dims = (n_features, *config.network.hidden_dims, config.network.latent_dim)
    weights = sum(a * b for a, b in itertools.pairwise(dims))
    data_gradient = 2 * batch * dims[0] * dims[1]
    pretrain_step = np.array(times["pretrain"]) / n_steps
    cluster_seconds = np.array(times["interval"]) - np.array(times["refresh_once"])
    cluster_step = cluster_seconds / config.clustering.update_interval
    rates = {name: 2 * 2048**3 / np.array(values) for name, values in products.items()}
    pretrain_share = (6 * batch * 2 * weights - data_gradient) / pretrain_step / rates["pretrain"]
    cluster_share = (6 * batch * weights - data_gradient) / cluster_step / rates["interval"]
    return {
        "dims": dims,
        "batch_size": batch,
        "repeats": repeats,
        "peak_gflops": _median(np.concatenate(list(rates.values())) / 1e9),
        "pretrain_step_ms": _median(1e3 * pretrain_step),
        "pretrain_share_of_peak": _median(pretrain_share),
        "cluster_step_ms": _median(1e3 * cluster_step),
        "cluster_share_of_peak": _median(cluster_share),
        "refresh_ms_per_1000_rows": _median(1e6 * np.array(times["refresh_once"]) / n_rows),
        "seconds": {name: [round(v, 5) for v in values] for name, values in times.items()},
        "seconds_of_product": {
            name: [round(v, 5) for v in values] for name, values in products.items()
        },
    }


def _refresh_only(config: Config) -> Callable[..., Any]:
    return jax.jit(lambda state, x: refresh_targets(state, x, build_clustering(config, x.shape[1])))


def _median(values: np.ndarray) -> float:
    return round(float(np.median(values)), 3)


def _seconds(piece: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(piece())
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
