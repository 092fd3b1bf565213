"""Figure 5: the embedding and the accuracy during self-training.

t-SNE of the same rows at intervals of self-training, coloured by class. The paper shows
clusters separating while accuracy rises.

    python -m benchmarks.paper fig5 --dataset mnist --preset fast --seeds 0

Expected: clusters separate from panel to panel, accuracy rises.
"""

from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.manifold import TSNE

from benchmarks.paper.cells import Cell, Laboratory, Rows
from benchmarks.paper.options import Options
from jdec.trainer.fit import fit

DATASETS = DEFAULT_DATASETS = ("mnist",)

_POINTS, _PANELS, _COLUMNS = 2000, 6, 3


def trace(
    laboratory: Laboratory, cell: Cell, sample: np.ndarray
) -> list[tuple[int, float, np.ndarray]]:
    """Run self-training; return step, accuracy and the sample's embedding at each refresh."""
    data = laboratory.data(cell.rows)
    points = []

    def keep(record: dict[str, Any], snapshot: Any) -> None:
        if record["phase"] == "clustering":
            points.append((record["step"], record["acc"], snapshot.embeddings[sample]))

    pretrained = laboratory.pretrained(cell.rows, cell.preset, cell.seed)
    fit(
        jax.random.key(cell.seed),
        data.x,
        laboratory.config(cell),
        y=data.y,
        n_train=data.n_train,
        autoencoder_params=pretrained.autoencoder_params,
        callbacks=[keep],
    )
    return points


def draw(
    laboratory: Laboratory, options: Options, records: list[dict[str, Any]]
) -> dict[str, Figure]:
    """Draw some of the embeddings, and the curve of the accuracy."""
    figures = {}
    for dataset in options.datasets:
        cell = Cell(Rows(dataset), "DEC", options.preset, options.seeds[0])
        y = laboratory.data(cell.rows).y
        if y is None:
            raise ValueError(f"{dataset}: expected classes to colour by")
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
        above.suptitle(f"{dataset}: the embedding during self-training (t-SNE, coloured by class)")
        axes = below.subplots()
        axes.plot([p[0] for p in points], [100 * p[1] for p in points], marker="o", markersize=3)
        axes.set(xlabel="clustering step", ylabel="accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        figures[dataset] = figure
    return figures
