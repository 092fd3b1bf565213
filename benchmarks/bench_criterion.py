"""Whether modularity chooses well among partitions to start from: rank correlation with accuracy.

    python -m benchmarks.bench_criterion --seeds 0-2
    python -m benchmarks.bench_criterion --sets digits scrna --seeds 0

For each data set and seed, the partitions among which preset ``fast`` chooses: their accuracy, and
what criteria without labels say of them. Classes are used here alone, to judge the criteria.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import spearmanr

from benchmarks.suite import run_on_sets
from jdec.core.graph import graph_partitions, modularity
from jdec.core.start import partition_of_labels
from jdec.core.voting import best_partitions, majority_vote
from jdec.datasets import Dataset
from jdec.metrics import clustering_accuracy
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.neighbors import nearest_neighbors
from jdec.trainer.presets import preset_config
from jdec.trainer.programs import Plan, build_network, components
from jdec.trainer.rows import own_rows
from jdec.trainer.scaling import fit_scaling
from jdec.trainer.sharding import RowSharding


def main() -> None:
    """Run the benchmark."""
    run_on_sets("criterion", __doc__, compare)


def compare(dataset: Dataset, seed: int, smoke: bool) -> dict[str, Any]:
    """Return accuracies of the partitions, and what each criterion makes of them."""
    n_clusters = len(set(np.asarray(dataset.y).tolist()))
    shape: Any = {"n_clusters": n_clusters, "n_rows": len(dataset.x)}
    config = preset_config("fast", image_shape=dataset.image_shape, **shape)
    if smoke:
        config = config.replace({"graph.n_init": 1, "graph.kmeans_restarts": 2})
    points = _points(config, dataset, seed)
    neighbors = jnp.asarray(nearest_neighbors(points, config.graph))
    names = ("subclusters", "eigenvectors", "diffusion_times", "n_init", "kmeans_restarts")
    settings: Any = {name: getattr(config.graph, name) for name in names}
    settings |= {"n_clusters": n_clusters, "max_iter": config.kmeans.max_iter}
    partitions = jax.jit(graph_partitions, static_argnames=tuple(settings))
    labels = partitions(jax.random.key(seed), jnp.asarray(points), neighbors, **settings)
    accuracies = [clustering_accuracy(dataset.y, np.asarray(one)) for one in labels]
    values: dict[str, list[float]] = {"modularity": [], "modularity, γ 1": [], "−inertia": []}
    for one in labels:
        for name, resolution in zip(values, (config.graph.resolution, 1.0), strict=False):
            values[name].append(
                float(modularity(one, neighbors, n_clusters, resolution=resolution))
            )
        values["−inertia"].append(
            -float(partition_of_labels(jnp.asarray(points), one, n_clusters).inertia)
        )
    voters = best_partitions(
        labels,
        jnp.array(values["modularity"]),
        n_clusters,
        n_partitions=config.graph.n_votes,
    )
    elected = np.asarray(majority_vote(voters, n_clusters))
    return {
        "acc": [round(accuracy, 4) for accuracy in accuracies],
        "vote": round(clustering_accuracy(dataset.y, elected), 4),
        "criteria": {
            name: {
                "rank_correlation": round(float(spearmanr(found, accuracies)[0]), 3),
                "acc": round(accuracies[int(np.argmax(found))], 4),
            }
            for name, found in values.items()
        },
    }


def _points(config: Config, dataset: Dataset, seed: int) -> np.ndarray:
    """Return what ``fast`` finds neighbours among: components of the rows, or an embedding."""
    if config.graph.space == "embedding":
        return fit(
            jax.random.key(seed), dataset.x, config.replace({"clustering.max_intervals": 0})
        ).embedding
    rows = own_rows("x", dataset.x).rows
    rows = fit_scaling(rows).apply(rows)
    plan = Plan(config, build_network(config), RowSharding(len(rows)))
    return np.asarray(components(jnp.asarray(rows), plan=plan))


if __name__ == "__main__":
    main()
