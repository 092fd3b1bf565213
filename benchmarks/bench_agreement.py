"""Whether several devices find what one does: labels, and how far q is apart.

    JAX_NUM_CPU_DEVICES=8 python -m benchmarks.bench_agreement --devices 8

Digits, preset ``fast`` with a network 64-128-128-10, the same seed. First the clustering phase,
from one pretrained network: labels are compared as they are. Then whole fits: the order in which
gradients are summed differs between numbers of devices, and thousands of steps of pretraining make
so much of it that k-means can start elsewhere; labels are compared under the best matching.
"""

import argparse
from typing import Any

import jax
import numpy as np

from benchmarks.records import append_record
from jdec.datasets import load_dataset
from jdec.metrics import clustering_accuracy
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.presets import preset_config
from jdec.trainer.results import FitResult
from jdec.trainer.sharding import data_mesh


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="one short run, nothing recorded")
    arguments = parser.parse_args()
    config = preset_config(
        "fast", n_clusters=10, n_rows=1797, dataset="digits", image_shape=(8, 8)
    ).replace({"network.hidden_dims": [128, 128]})
    if arguments.smoke:
        config = config.replace({"pretrain.finetune_steps": 20, "clustering.max_intervals": 2})
    seeds = range(1 if arguments.smoke else arguments.seeds)
    comparisons = [compare(config, arguments.devices, seed) for seed in seeds]
    for part in comparisons[0]:
        figures = {
            "part": part,
            "n_devices": arguments.devices,
            "runs": [comparison[part] for comparison in comparisons],
        }
        append_record("agreement", figures, smoke=arguments.smoke)


def compare(config: Config, n_devices: int, seed: int) -> dict[str, dict[str, Any]]:
    """Fit on one device and on several, from one pretrained network and from the beginning."""
    dataset = load_dataset("digits")
    key, mesh = jax.random.key(seed), data_mesh(n_devices)
    one = fit(key, dataset.x, config)
    params = one.autoencoder_params
    clustered = fit(key, dataset.x, config, mesh=mesh, autoencoder_params=params)
    whole = fit(key, dataset.x, config, mesh=mesh)
    return {
        "clustering phase": _differences(
            dataset.y, one, clustered, float(np.mean(one.labels == clustered.labels))
        ),
        "whole fit": _differences(
            dataset.y, one, whole, clustering_accuracy(one.labels, whole.labels)
        ),
    }


def _differences(y: Any, one: FitResult, several: FitResult, same: float) -> dict[str, Any]:
    return {
        "same_labels": same,
        "n_intervals": [one.n_intervals, several.n_intervals],
        "acc": [round(clustering_accuracy(y, run.labels), 4) for run in (one, several)],
    }


if __name__ == "__main__":
    main()
