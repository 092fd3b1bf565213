"""Whether several devices find what one does: labels, and how far q is apart.

    JAX_NUM_CPU_DEVICES=8 python -m benchmarks.bench_agreement --devices 8

Digits, the same seed: a short run of plain SGD (50 steps of pretraining, 50 of clustering), the
same with Adam as in ``fast``, and all of ``fast``. The order in which gradients are summed differs
between numbers of devices; training makes more of such rounding with every step, Adam faster than
SGD.
"""

import argparse
from typing import Any

import jax
import numpy as np

from benchmarks.records import append_record
from jdec.config import Config, preset_config
from jdec.datasets import load_dataset
from jdec.fit import fit
from jdec.metrics import clustering_scores
from jdec.sharding import data_mesh


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="one short run, nothing recorded")
    arguments = parser.parse_args()
    runs = configurations(arguments.smoke)
    seeds = range(1 if arguments.smoke else arguments.seeds)
    for name, config in runs.items():
        figures = {
            "recipe": name,
            "n_devices": arguments.devices,
            "runs": [compare(config, arguments.devices, seed) for seed in seeds],
        }
        append_record("agreement", figures, smoke=arguments.smoke)


def configurations(smoke: bool) -> dict[str, Config]:
    """Return the settings to compare, by name."""
    fast = preset_config("fast", n_clusters=10, n_rows=1797, dataset="digits", image_shape=(8, 8))
    short = {
        "pretrain.finetune_steps": 50,
        "clustering.update_interval": 25,
        "clustering.max_intervals": 2,
        "clustering.tol": 0.0,
    }
    sgd = {
        "pretrain.optimizer": {"name": "sgd", "learning_rate": 0.1},
        "clustering.optimizer": {"name": "sgd", "learning_rate": 0.01},
    }
    if smoke:
        return {"SGD, 50 + 50 steps": fast.replace(short | sgd | {"network.hidden_dims": [16]})}
    return {
        "SGD, 50 + 50 steps": fast.replace(short | sgd),
        "Adam, 50 + 50 steps": fast.replace(short),
        "fast, whole": fast,
    }


def compare(config: Config, n_devices: int, seed: int) -> dict[str, Any]:
    """Fit on one device and on several, and compare the results."""
    dataset = load_dataset("digits")
    one, several = (
        fit(jax.random.key(seed), dataset.x, config, mesh=mesh)
        for mesh in (None, data_mesh(n_devices))
    )
    difference = np.abs(one.soft_assignment - several.soft_assignment).max()
    return {
        "seed": seed,
        "same_labels": float(np.mean(one.labels == several.labels)),
        "difference_of_q": float(f"{difference:.2g}"),
        "acc": [
            round(clustering_scores(dataset.y, run.labels)["acc"], 4) for run in (one, several)
        ],
    }


if __name__ == "__main__":
    main()
