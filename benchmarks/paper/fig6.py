"""Figure 6: how many clusters?

For k = 3 … 15: NMI, which needs labels, and the generalizability G = L_train / L_validation, which
does not. The paper shows a peak of NMI at k = 9 and a sharp drop of G from 9 to 10, and selects 9
for MNIST, where 4 and 9 share a cluster. Training and validation rows are disjoint: the split of
the data set, or four fifths and one fifth of it.

    python -m benchmarks.paper fig6 --dataset mnist --preset fast --seeds 0

Expected: NMI highest at 9 or 10, G lower beyond it.
"""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.paper.cells import Cell, Laboratory, Outcome, Rows
from benchmarks.paper.options import Options
from benchmarks.paper.tables import find, groups, markdown
from jdec.selection import generalizability

DATASETS = DEFAULT_DATASETS = ("mnist",)

_METHOD = "DEC, by number of clusters"
_KS = tuple(range(3, 16))


def cells(options: Options) -> list[Cell]:
    """Return the cells of the figure."""
    return [
        Cell(Rows(dataset, split="train"), _METHOD, options.preset, seed, ("n_clusters", k))
        for dataset in options.datasets
        for seed in options.seeds
        for k in options.values(_KS)
    ]


def run(laboratory: Laboratory, cell: Cell) -> Outcome:
    """Train on one part, and compare its loss with that of the other."""
    result = laboratory.fit(cell)
    data = laboratory.data(cell.rows)
    other = laboratory.data(dataclasses.replace(cell.rows, split="validation"))
    if data.y is None:
        raise ValueError(f"{cell.rows.dataset}: expected classes to score by")
    classes = np.unique(data.y)
    homes = [int(np.bincount(result.labels[data.y == c]).argmax()) for c in classes]
    return Outcome(
        result.labels,
        {
            "generalizability": generalizability(result.model, data.x, other.x),
            "cluster_of_class": homes,
            "n_intervals": result.n_intervals,
            "stop_reason": result.stop_reason,
            "steps": result.n_intervals * laboratory.config(cell).clustering.update_interval,
        },
    )


METHODS = {_METHOD: run}


def _found(records: list[dict[str, Any]], dataset: str, preset: str) -> dict[int, Any]:
    found = {
        k: find(records, dataset, _METHOD, preset, split="train", setting={"n_clusters": k})
        for k in _KS
    }
    return {k: runs for k, runs in found.items() if runs}


def draw(
    laboratory: Laboratory, options: Options, records: list[dict[str, Any]]
) -> dict[str, Figure]:
    """Draw NMI and G over k."""
    figures = {}
    for dataset in options.datasets:
        found = _found(records, dataset, options.preset)
        figure = Figure(figsize=(6.4, 4), dpi=110, layout="constrained")
        axes = figure.subplots()
        other = axes.twinx()
        lines = [
            *axes.plot(list(found), [_mean(r, "nmi") for r in found.values()], "o-", label="NMI"),
            *other.plot(
                list(found),
                [_mean(r, "generalizability") for r in found.values()],
                "s--",
                color="tab:red",
                label="generalizability G",
            ),
        ]
        axes.set(xlabel="number of clusters k", ylabel="NMI")
        other.set_ylabel("G = training loss / validation loss")
        axes.set_title(f"{dataset}: choosing the number of clusters")
        axes.legend(handles=lines, loc="lower right")
        figures[dataset] = figure
    return figures


def _mean(runs: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([run.get(name, run["scores"].get(name)) for run in runs]))


def table(records: list[dict[str, Any]]) -> str:
    """Render NMI, G and the classes that share a cluster."""
    texts = []
    for dataset, preset in groups(records, DATASETS):
        rows = [
            [
                str(k),
                f"{_mean(runs, 'nmi'):.4f}",
                f"{_mean(runs, 'generalizability'):.3f}",
                _shared(runs[0]["cluster_of_class"]),
                str(len(runs)),
            ]
            for k, runs in _found(records, dataset, preset).items()
        ]
        header = ["k", "NMI", "G", "classes that share a cluster (first seed)", "n seeds"]
        rows = rows or [["not run", *[""] * (len(header) - 1)]]
        texts.append(f"**{dataset}, preset `{preset}`**\n\n{markdown(header, rows)}")
    return "\n\n".join(texts)


def _shared(homes: list[int]) -> str:
    together = [
        "+".join(str(c) for c, home in enumerate(homes) if home == cluster)
        for cluster in sorted(set(homes))
        if homes.count(cluster) > 1
    ]
    return ", ".join(together) or "none"
