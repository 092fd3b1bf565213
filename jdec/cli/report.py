"""What the commands print about the data, and about the results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdec._environment import environment
from jdec.cli.results import BASELINE_RESTARTS
from jdec.datasets import Dataset
from jdec.selection.sweep import AXES, CRITERIA, SweepResult, setting_of
from jdec.trainer.config import Config
from jdec.trainer.sharding import Mesh

_TITLES = {
    "n_clusters": "k",
    "learning_rate": "learning rate",
    "kl": "KL",
    "generalizability": "G",
    "acc": "ACC",
    "nmi": "NMI",
    "ari": "ARI",
}
_STOPPED = {"tol": "converged (label change < tol)", "max_intervals": "reached max_intervals"}


def introduction(dataset: Dataset, config: Config, what: str, mesh: Mesh | None) -> str:
    """Introduce a fit or a sweep: rows, what is run, devices, and how the rows are interpreted."""
    headline = (
        f"{dataset.name}{f' ({dataset.variant})' if dataset.variant else ''}: "
        f"{dataset.x.shape[0]} rows, {dataset.x.shape[1]} features{what}; "
        f"{environment()['device']}{f' × {mesh.size}' if mesh else ''}"
    )
    return "\n".join([headline, *data_lines(dataset, config)])


def data_lines(dataset: Dataset, config: Config) -> list[str]:
    """Return how the rows are interpreted: classes, images, and any note."""
    lines = []
    if dataset.label_name is not None:
        kind, hint = "column", "; --label none to train on it"
        if dataset.feature_names is None:
            kind, hint = "array", ""
        lines.append(f"classes from {kind} {dataset.label_name!r}, kept out of training{hint}")
    if config.image_shape is not None:
        size = "×".join(map(str, config.image_shape))
        varied = "without augmentation"
        if config.augmentation:
            amounts = [f"{name} {value:g}" for name, value in vars(config.augmentation).items()]
            varied = f"varied at random in training (--augmentation: {', '.join(amounts)})"
        lines.append(f"rows are images of {size} (--image-shape), {varied}")
    return lines + [f"note: {dataset.note}"] * bool(dataset.note)


def score_table(scores: dict[str, dict[str, float]]) -> str:
    """Return ACC, NMI and ARI of some methods as a table."""
    width = max(map(len, scores))
    lines = [f"{'':{width}}    ACC    NMI    ARI"]
    for name, score in scores.items():
        values = "  ".join(f"{score[kind]:.3f}" for kind in ("acc", "nmi", "ari"))
        lines.append(f"{name:{width}}  {values}")
    return "\n".join(lines)


def _legend(config: Config, scores: Mapping[str, Any]) -> list[str]:
    """Return what the names in the table of scores mean."""
    factors, n_init = config.kmeans.overclustering_factors, config.kmeans.n_init
    start = f"k-means on the same embedding, best of {n_init} restarts"
    if factors != (1,):
        start = f"{'/'.join(map(str, factors))} sub-clusters per cluster, merged by Ward linkage"
    if config.kmeans.select == "modularity":
        start = (
            f"vote of k-means and spectral partitions, by neighbours in the {config.graph.space}"
        )
    of_input = f"(k-means: on the input, best of {BASELINE_RESTARTS} restarts;"
    if "k-means" not in scores:
        of_input = "(k-means on the input: left out, as the rows were streamed;"
    return [
        of_input,
        f"AE + k-means: on the pretrained embedding, best of {n_init} restarts;",
        f"DEC initialisation: {start})",
    ]


def fit_summary(out: Path, config: Config, metrics: dict[str, Any], total: float) -> str:
    """Summarise a fit: scores, sizes, stop reason, times and files."""
    sizes, changed = metrics["cluster_sizes"], metrics["label_change"]
    n_intervals = metrics["n_intervals"]
    lines = [""]
    if metrics["scores"] is not None:
        lines += [score_table(metrics["scores"]), "", *_legend(config, metrics["scores"])]
    if metrics["start_rows"] is not None:
        lines.append(f"start    found on a sample of {metrics['start_rows']} rows")
    lines += [
        f"sizes    {', '.join(map(str, sizes[:20]))}{', …' if len(sizes) > 20 else ''}",
        f"stopped  after {n_intervals} interval{'s' * (n_intervals != 1)}, "
        + _STOPPED[metrics["stop_reason"]]
        + (f"; {changed:.2%} of labels changed in the last" if changed is not None else ""),
        f"seconds  {_times(metrics, total)}",
        f"files    {_files(out)}",
    ]
    return "\n".join(lines)


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
    return "\n".join([*lines, f"seconds    {_times(summary, total)}", f"files      {_files(out)}"])


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


def _times(record: dict[str, Any], total: float) -> str:
    phases = ", ".join(f"{name} {value:.1f}" for name, value in record["seconds"].items())
    compilation = record["compilation"]
    hits = compilation["cache_hits"]
    return (
        f"{phases}; total {total:.1f} s ({compilation['seconds']:.1f} s compiling"
        f"{f', {hits} cache hits' if hits else ''})"
    )


def _files(out: Path) -> str:
    names = [path.name for path in out.iterdir() if path.is_file() and path.name[0] != "."]
    return f"{out}: {', '.join(sorted(names))}"
