"""Share of the float32 matmul peak that each phase reaches, and its place under the roofline.

    python -m benchmarks.bench_step                          # shares and roofline
    python -m benchmarks.bench_step --parts shares
    python -m benchmarks.bench_step --parts roofline --batch-sizes 256 4096 --precisions float32
    python -m benchmarks.bench_step --parts population --members 1 16

Shares: a pretraining step and a clustering step of network 784-500-500-2000-10, batch 256, many
steps a dispatch, after warm-up. The peak is that of a 2048×2048×2048 product in the same process.
Work is counted as the products of the layers alone: 6·B·(weights) for a step of the autoencoder
less the gradient of the data, nothing for optimizer, noise and gathering. The clock of a shared
machine wanders, so the peak is measured right before and after each piece, and a share is the
median over the rounds of work done against work possible in the same round.

Roofline: each phase (layer-wise pretraining, as the mean over its layers; fine-tuning; step on the
KL divergence; refresh of P) at each batch size and precision, plain SGD. FLOPs are the products of
the layers, bytes are what XLA counts in the compiled program of one step: every operand of every
operation, so that bytes served by a cache count as well and a rate may exceed what memory gives.
Peak and bandwidth (the triad y ← a·x + y) are measured before and after each phase; the peak is
float32's for every precision. Tracing, compiling and the first call are recorded by themselves.

Population: steps of fine-tuning and whole intervals of populations of some sizes, each as one
program, against the plain run of one member, measured in turns: the time of a member's share.
"""

import argparse
import statistics
from typing import Any

import jax
import numpy as np

from benchmarks.member_curve import measure_population
from benchmarks.records import append_record
from benchmarks.roofline import measure_roofline
from jdec.bench.phases import (
    N_ROWS,
    clustering_state,
    dims_of,
    make_plan,
    make_rows,
    pretraining_state,
    products_of,
)
from jdec.bench.timing import PEAK_SIDE, make_product, seconds_of
from jdec.core.networks import PRECISIONS
from jdec.trainer.config import Config
from jdec.trainer.presets import preset_config
from jdec.trainer.programs import Stage, pretrain_steps, refresh, train

PARTS = ("shares", "roofline", "population")
#: How the members of a population are mapped over.
MAPPINGS = {"one after another": False, "side by side": True}
BATCH_SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:2])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=BATCH_SIZES)
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=("float32", "bfloat16")
    )
    parser.add_argument("--members", nargs="+", type=int, default=(1, 2, 4, 8, 16, 32, 64))
    parser.add_argument("--smoke", action="store_true", help="small sizes, nothing recorded")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    smoke, repeats = arguments.smoke, 2 if arguments.smoke else arguments.repeats
    if "shares" in arguments.parts:
        for name, config in configurations(smoke).items():
            append_record("step", {"recipe": name, **measure(config, repeats=repeats)}, smoke=smoke)
    if "roofline" in arguments.parts:
        for precision in arguments.precisions[: 1 if smoke else None]:
            config = configurations(smoke)["sgd"].replace({"network.precision": precision})
            batch_sizes = (256,) if smoke else arguments.batch_sizes
            points = measure_roofline(config, batch_sizes, repeats=repeats, smoke=smoke)
            figures = {"precision": precision, "dims": dims_of(config), "points": points}
            append_record("roofline", figures, smoke=smoke)
    if "population" in arguments.parts:
        config = configurations(smoke)["sgd"]
        members = (2,) if smoke else arguments.members
        for name, vectorized in MAPPINGS.items():
            points = measure_population(config, members, repeats=repeats, vectorized=vectorized)
            figures = {"mapping": name, "dims": dims_of(config), "points": points}
            append_record("population", figures, smoke=smoke)


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
    recipes = {"sgd": fast.replace(fields | plain), "fast": fast.replace(fields)}
    return {"sgd": recipes["sgd"]} if smoke else recipes


def measure(config: Config, *, repeats: int) -> dict[str, Any]:
    """Time the peak, a pretraining step and a clustering step in turns."""
    n_rows, batch = N_ROWS, config.pretrain.batch_size
    key, x, n_steps = jax.random.key(0), make_rows(N_ROWS), config.pretrain.finetune_steps
    plan, stage = make_plan(config, n_rows), Stage("finetune", None, n_steps)
    state, targets = clustering_state(plan, x)
    held: dict[str, Any] = {"pretrain": pretraining_state(plan, stage), "cluster": state}
    product = make_product()

    def peak() -> float:
        return statistics.median(seconds_of(product) for _ in range(4))

    def pretrain() -> Any:
        held["pretrain"], losses, _ = pretrain_steps(
            key, held["pretrain"], x, 0, plan=plan, stage=stage, n_steps=n_steps, n_rows=n_rows
        )
        return losses

    def cluster() -> Any:
        held["cluster"], losses = train(key, held["cluster"], targets, x, plan=plan)
        return losses

    def refresh_once() -> Any:
        return refresh(held["cluster"].params, targets.labels, x, plan=plan)

    pieces = [pretrain, cluster, refresh_once]
    for piece in [peak, *pieces]:
        seconds_of(piece)
    times: dict[str, list[float]] = {piece.__name__: [] for piece in pieces}
    products: dict[str, list[float]] = {piece.__name__: [] for piece in pieces}
    for _ in range(repeats):
        for piece in pieces:
            before = peak()
            times[piece.__name__].append(seconds_of(piece))
            products[piece.__name__].append((before + peak()) / 2)

    pretrain_step = np.array(times["pretrain"]) / n_steps
    cluster_step = np.array(times["cluster"]) / config.clustering.update_interval
    rates = {name: 2 * PEAK_SIDE**3 / np.array(values) for name, values in products.items()}
    pretrain_share = products_of("finetune", config, batch) / pretrain_step / rates["pretrain"]
    cluster_share = products_of("KL step", config, batch) / cluster_step / rates["cluster"]
    return {
        "dims": dims_of(config),
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


def _median(values: np.ndarray) -> float:
    return round(float(np.median(values)), 3)


if __name__ == "__main__":
    main()
