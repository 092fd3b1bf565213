"""Figure 2: accuracy of each method over nine values of its hyper-parameter.

The hyper-parameters are DEC's update interval λ = 10·2^i, LDMGI's regularisation and SEC's μ. The
paper shows that DEC hardly depends on it, which matters since it cannot be tuned without labels.

    python -m benchmarks.paper fig2 --dataset mnist --preset fast --seeds 0

Expected: a much smaller range (max − min) of the accuracy for DEC than for the others.
"""

from typing import Any

from matplotlib.figure import Figure

from benchmarks.paper.cells import Cell, Laboratory
from benchmarks.paper.options import Options
from benchmarks.paper.tables import groups, markdown, percent, swept

DATASETS = ("mnist", "reuters10k")
DEFAULT_DATASETS = ("mnist",)

_METHODS = ("DEC", "LDMGI", "SEC")


def cells(options: Options) -> list[Cell]:
    """Return the cells of the figure."""
    return options.sweep_cells(_METHODS)


def draw(
    laboratory: Laboratory, options: Options, records: list[dict[str, Any]]
) -> dict[str, Figure]:
    """Draw a line for each method."""
    figures = {}
    for dataset in options.datasets:
        figure = Figure(figsize=(6.4, 4), dpi=110, layout="constrained")
        axes = figure.subplots()
        for method, marker in zip(_METHODS, "os^", strict=True):
            found = swept(records, dataset, method, options.preset)
            if found:
                accuracies = [max(map(percent, runs)) for runs in found.values()]
                axes.plot(range(len(found)), accuracies, marker=marker, label=_label(method, found))
        axes.set(xlabel="value of the hyper-parameter, ascending", ylabel="accuracy, %")
        axes.set_title(f"{dataset}: accuracy over the hyper-parameter of each method")
        axes.set_ylim(0, 100)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc="lower left")
        figures[dataset] = figure
    return figures


def _label(method: str, found: dict[float, Any]) -> str:
    setting = next(iter(next(iter(found.values()))[0]["setting"]))
    return f"{method}: {setting.replace('_', ' ')} {min(found):g} … {max(found):g}"


def table(records: list[dict[str, Any]]) -> str:
    """Render the range of each method."""
    rows = []
    for dataset, preset in groups(records, DATASETS):
        for method in _METHODS:
            found = swept(records, dataset, method, preset)
            accuracies = [max(map(percent, runs)) for runs in found.values()]
            limits = [f"{v:.2f}" for v in (min(accuracies), max(accuracies))] if found else []
            rows.append(
                [
                    dataset,
                    preset,
                    method,
                    *(limits or ["not run", "not run"]),
                    f"{max(accuracies) - min(accuracies):.2f}" if found else "–",
                    str(len(found)),
                ]
            )
    header = ["data", "preset", "method", "min", "max", "range", "values"]
    return markdown(header, rows)
