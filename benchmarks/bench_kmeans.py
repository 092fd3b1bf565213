"""k-means against scikit-learn's in the same process: 70 000 × 10 embeddings, 20 restarts.

    python -m benchmarks.bench_kmeans                 # embeddings of MNIST, where it is at hand
    python -m benchmarks.bench_kmeans --synthetic     # a mixture of Gaussians

Both are timed after warm-up, in turns, on the same float32 rows with the same number of restarts,
iterations at most and tolerance.
"""

import argparse
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.cluster import KMeans

from benchmarks.records import append_record
from jdec.core.kmeans import kmeans
from jdec.datasets import load_dataset
from jdec.trainer.fit import fit
from jdec.trainer.presets import preset_config


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="small sizes, nothing recorded")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    synthetic = arguments.synthetic or arguments.smoke
    x = mixture(2000 if arguments.smoke else 70_000) if synthetic else mnist_embeddings()
    figures = measure(x, repeats=1 if arguments.smoke else arguments.repeats)
    data = "mixture of Gaussians" if synthetic else "MNIST embeddings"
    append_record("kmeans", {"data": data, **figures}, smoke=arguments.smoke)


def mixture(n_rows: int) -> np.ndarray:
    """Draw ten overlapping Gaussians in ten dimensions."""
    rng = np.random.default_rng(0)
    centres = 1.2 * rng.normal(size=(10, 10))
    rows = centres[rng.integers(0, 10, n_rows)] + rng.normal(size=(n_rows, 10))
    return rows.astype(np.float32)


def mnist_embeddings() -> np.ndarray:
    """Embed MNIST by an autoencoder pretrained with preset ``fast``."""
    mnist = load_dataset("mnist")
    config = preset_config(
        "fast", n_clusters=10, n_rows=len(mnist.x), image_shape=mnist.image_shape
    ).replace({"clustering.max_intervals": 0})
    return fit(jax.random.key(0), mnist.x, config).embedding


def measure(x: np.ndarray, *, repeats: int) -> dict[str, Any]:
    """Time both in turns."""
    rows = jnp.asarray(x)
    compiled = jax.jit(kmeans, static_argnames=("n_clusters", "n_init", "max_iter"))
    began = time.perf_counter()
    jax.block_until_ready(compiled(jax.random.key(repeats), rows, 10))
    first_call = time.perf_counter() - began
    KMeans(10, n_init=1, random_state=0).fit(x)
    seconds: dict[str, list[float]] = {"jdec": [], "scikit-learn": []}
    inertia: dict[str, list[float]] = {"jdec": [], "scikit-learn": []}
    for repeat in range(repeats):
        began = time.perf_counter()
        ours = jax.block_until_ready(compiled(jax.random.key(repeat), rows, 10))
        seconds["jdec"].append(time.perf_counter() - began)
        inertia["jdec"].append(float(ours.inertia))
        began = time.perf_counter()
        theirs = KMeans(10, n_init=20, random_state=repeat).fit(x)
        seconds["scikit-learn"].append(time.perf_counter() - began)
        inertia["scikit-learn"].append(float(theirs.inertia_))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "shape": x.shape,
        "repeats": repeats,
        "first_call_seconds": round(first_call, 3),
        "seconds": {name: [round(v, 3) for v in values] for name, values in seconds.items()},
        "time_ratio": round(medians["jdec"] / medians["scikit-learn"], 3),
        "inertia_ratio": round(
            float(np.mean(inertia["jdec"]) / np.mean(inertia["scikit-learn"])), 5
        ),
    }


if __name__ == "__main__":
    main()
