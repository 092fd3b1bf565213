"""Figure 3: the ten rows of highest probability in each cluster.

The paper shows that the top-scoring images of a cluster look alike: digits of MNIST, kinds of
objects of STL-10.

    python -m benchmarks.paper fig3 --dataset mnist --preset fast --seeds 0

Expected: one row of clear digits for each cluster.
"""

from typing import Any

from matplotlib.figure import Figure

from benchmarks.paper.cells import Cell, Laboratory, Rows
from benchmarks.paper.options import Options
from jdec.plotting import plot_top_samples

DATASETS = DEFAULT_DATASETS = ("mnist",)


def draw(
    laboratory: Laboratory, options: Options, records: list[dict[str, Any]]
) -> dict[str, Figure]:
    """Draw the top-scoring images of each cluster."""
    figures = {}
    for dataset in options.datasets:
        cell = Cell(Rows(dataset), "DEC", options.preset, options.seeds[0])
        data = laboratory.data(cell.rows)
        if data.image_shape is None:
            print(f"{dataset}: no picture, since its rows are not images")
            continue
        result = laboratory.fit(cell)
        images = data.x.reshape(-1, *data.image_shape)
        figures[dataset] = plot_top_samples(
            images, result.soft_assignment, y=data.y, class_names=data.class_names
        )
    return figures
