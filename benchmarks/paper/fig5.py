"""Figure 5: the embedding while it trains, and accuracy along the way.

t-SNE of the same rows at intervals of self-training, coloured by class. The paper shows clusters
drawing apart while accuracy rises.

    python -m benchmarks.paper fig5 --dataset mnist --preset fast --seeds 0

Expected: clusters farther apart from panel to panel, accuracy rising.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.manifold import TSNE

from benchmarks.paper.cells import Cell, Laboratory, Rows
from benchmarks.paper.options import Options
from jdec.core.dec import is_finished
from jdec.metrics import clustering_accuracy
from jdec.trainer.build import assign_block, cluster_interval, start_clustering

DATASETS = DEFAULT_DATASETS = ("mnist",)

_POINTS, _PANELS, _COLUMNS = 2000, 6, 3


def trace(
    laboratory: Laboratory, cell: Cell, sample: np.ndarray
) -> list[tuple[int, float, np.ndarray]]:
    """Run self-training; return step, accuracy and the sample's embedding at each refresh."""
    config = laboratory.config(cell)
    x = jnp.asarray(laboratory.scaled(cell.rows, cell.preset))
    y = laboratory.data(cell.rows).y
    params = laboratory.pretrained(cell.rows, cell.preset, cell.seed).autoencoder_params
    # The keys that fit() draws from the same seed.
    _, _, kmeans_key, cluster_key = jax.random.split(jax.random.key(cell.seed), 4)
    _, state = start_clustering(kmeans_key, params, x, config=config)
    state = jax.tree.map(jnp.copy, state)
    settings = config.clustering
    points = []
    while True:
        embedding, _ = assign_block(state.params, state.centroids, x[sample], config=config)
        step = int(state.interval) * settings.update_interval
        points.append((step, clustering_accuracy(y, state.labels), np.asarray(embedding)))
        if is_finished(state, tol=settings.tol, max_intervals=settings.max_intervals):
            return points
        state, _ = cluster_interval(cluster_key, state, x, config=config)


def draw(
    laboratory: Laboratory, options: Options, records: list[dict[str, Any]]
) -> dict[str, Figure]:
    """Draw some of the embeddings, and the curve of the accuracy."""
    figures = {}
    for dataset in options.datasets:
        cell = Cell(Rows(dataset), "DEC", options.preset, options.seeds[0])
        y = laboratory.data(cell.rows).y
        if y is None:
            raise ValueError(f"{dataset}: expected classes, to colour by")
        generator = np.random.default_rng(0)
        n_points = min(100 if options.smoke else _POINTS, len(y))
        sample = generator.choice(len(y), n_points, replace=False)
        points = trace(laboratory, cell, sample)
        chosen = np.unique(np.linspace(0, len(points) - 1, _PANELS).round().astype(int))

        n_lines = -(-len(chosen) // _COLUMNS)
        figure = Figure(figsize=(9, 2.8 * n_lines + 2.8), dpi=110, layout="constrained")
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(n_lines, 1))[:, 0]
        panels = above.subplots(n_lines, _COLUMNS, squeeze=False).ravel()
        for panel in panels:
            panel.set_axis_off()
        for panel, index in zip(panels, chosen, strict=False):
            step, accuracy, embedding = points[index]
            flat = TSNE(random_state=0, init="pca", perplexity=min(30, len(sample) / 4))
            place = flat.fit_transform(embedding)
            panel.scatter(*place.T, c=y[sample], cmap="tab10", s=3, linewidths=0)
            panel.set_title(f"step {step}: {accuracy:.1%}", fontsize=9)
        above.suptitle(f"{dataset}: the embedding while it trains (t-SNE, coloured by class)")
        axes = below.subplots()
        axes.plot([p[0] for p in points], [100 * p[1] for p in points], marker="o", markersize=3)
        axes.set(xlabel="clustering step", ylabel="accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        figures[dataset] = figure
    return figures
