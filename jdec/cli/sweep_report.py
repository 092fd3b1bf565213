"""What ``jdec sweep`` prints about its settings and the selected fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdec.cli.report import files, times
from jdec.selection.sweep import AXES, CRITERIA, SweepResult, setting_of

_TITLES = {
    "n_clusters": "k",
    "learning_rate": "learning rate",
    "kl": "KL",
    "generalizability": "G",
    "acc": "ACC",
    "nmi": "NMI",
    "ari": "ARI",
}


def sweep_summary(out: Path, result: SweepResult, summary: dict[str, Any], total: float) -> str:
    """Summarise a sweep: settings, the selected fit, times and files."""
    best = result.members[result.best]
    axes = dict.fromkeys(("n_clusters", *_varied(result.settings)))
    setting = "".join(f", {_TITLES.get(axis, axis)} {best[axis]:g}" for axis in axes)
    kind = "max" if CRITERIA[result.criterion] else "min"
    found = f"{_TITLES.get(result.criterion, result.criterion)} {best[result.criterion]:.3f}"
    lines = ["", sweep_table(result.settings), ""]
    lines.append(f"best       seed {best['seed']}{setting}: {kind} {found}")
    scores = result.consensus_scores
    if scores is not None:
        siblings = [r["acc"] for r in result.members if setting_of(r) == setting_of(best)]
        lines.append(
            f"ACC        best {best['acc']:.3f}; consensus of its {len(siblings)} seeds "
            f"{scores['acc']:.3f}, mean of these {np.mean(siblings):.3f} "
            "(classes are not used for the selection)"
        )
    return "\n".join([*lines, f"seconds    {times(summary, total)}", f"files      {files(out)}"])


def varied_axis(settings: Sequence[dict[str, Any]]) -> str | None:
    """Return the first axis along which settings differ, if any does."""
    return next(iter(_varied(settings)), None)


def _varied(settings: Sequence[dict[str, Any]]) -> list[str]:
    return [axis for axis in AXES if len({row[axis] for row in settings}) > 1]


def sweep_table(settings: Sequence[dict[str, Any]]) -> str:
    """Return settings as a table: mean ± standard deviation over seeds."""
    axes = dict.fromkeys(("n_clusters", *_varied(settings)))
    names = ("kl", "silhouette", "agreement", "generalizability", "acc", "nmi", "ari")
    columns = [name for name in names if name in settings[0]]
    table = [[_TITLES.get(name, name) for name in (*axes, *columns)]]
    for row in settings:
        cells = [f"{row[axis]:g}" for axis in axes]
        for name in columns:
            std = row[f"{name}_std"]
            cells.append(f"{row[name]:.3f}" + (f" ± {std:.3f}" if np.isfinite(std) else ""))
        table.append(cells)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )
