"""What the commands print when they are done."""

from pathlib import Path
from typing import Any

import numpy as np

from jdec.cli.arguments import Fit, Sweep
from jdec.cli.results import BASELINE_RESTARTS
from jdec.datasets import Dataset
from jdec.selection.sweep import AXES, SweepResult, sweep_table
from jdec.trainer.config import Config


def recipe(arguments: Fit | Sweep) -> str:
    """Say where the settings come from."""
    if arguments.config is not None:
        return f"settings of {arguments.config}"
    return f"preset {arguments.preset}"


def data_lines(dataset: Dataset, config: Config) -> list[str]:
    """Say what the rows are taken for: their classes, identifiers and images, and any note."""
    lines = []
    if dataset.label_name is not None and dataset.feature_names is None:
        lines.append(f"classes from array {dataset.label_name!r}, kept out of training")
    elif dataset.label_name is not None:
        lines.append(
            f"classes from column {dataset.label_name!r}, kept out of training; --label none to "
            "train on it"
        )
    if config.image_shape is not None:
        size = "×".join(map(str, config.image_shape))
        amounts = ", ".join(
            f"{name} {value:g}" for name, value in vars(config.augmentation).items()
        )
        varied = f"varied at random in training (--augmentation: {amounts})"
        lines.append(
            f"rows are images of {size} (--image-shape), "
            f"{varied if config.augmentation else 'trained on as they are'}"
        )
    return lines + [f"note: {dataset.note}"] * bool(dataset.note)


def score_table(scores: dict[str, dict[str, float]]) -> str:
    """Lay out ACC, NMI and ARI of some methods."""
    width = max(len(name) for name in scores)
    lines = [f"{'':{width}}    ACC    NMI    ARI"]
    lines += [
        f"{name:{width}}  " + "  ".join(f"{score[kind]:.3f}" for kind in ("acc", "nmi", "ari"))
        for name, score in scores.items()
    ]
    return "\n".join(lines)


def _start(config: Config) -> str:
    if config.kmeans.oversampling == (1,):
        return f"AE + k-means: best of {config.kmeans.n_init} restarts)"
    factors = "/".join(map(str, config.kmeans.oversampling))
    return f"AE + k-means: into {factors} pieces a cluster, merged by Ward linkage)"


def fit_summary(out: Path, config: Config, metrics: dict[str, Any], total: float) -> str:
    """Sum up a fit: scores, sizes, why it stopped, times and files."""
    sizes = metrics["cluster_sizes"]
    shown = ", ".join(map(str, sizes[:20])) + (", …" if len(sizes) > 20 else "")
    reasons = {
        "tol": "few enough labels changed",
        "max_intervals": "all intervals used",
    }
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in metrics["seconds"].items())
    lines = [""]
    if metrics["scores"] is not None:
        lines += [score_table(metrics["scores"]), ""]
        lines += [f"(k-means: on the input, best of {BASELINE_RESTARTS} restarts;", _start(config)]
    changed = metrics["label_change"]
    lines += [
        f"sizes    {shown}",
        f"stopped  after {metrics['n_intervals']} intervals, {reasons[metrics['stop_reason']]}"
        + (f" ({changed:.2%} in the last)" if changed is not None else ""),
        f"seconds  {seconds}; {total:.1f} in all, {_compiling(metrics['compilation'])}",
        f"files    {out}: {', '.join(_result_files(out))}",
    ]
    return "\n".join(lines)


def sweep_summary(out: Path, result: SweepResult, summary: dict[str, Any], total: float) -> str:
    """Sum up a sweep: settings, what was chosen, times and files."""
    best = result.members[result.best]
    setting = f"seed {best['seed']}, k {best['n_clusters']}"
    varied = {
        name: len({row[name] for row in result.settings}) > 1 for name in best if name in AXES
    }
    setting += "".join(
        f", {title} {best[name]:g}"
        for name, title in (("alpha", "alpha"), ("learning_rate", "learning rate"))
        if varied[name]
    )
    kind = "least" if result.criterion == "divergence" else "greatest"
    lines = ["", sweep_table(result.settings), ""]
    lines.append(f"best       {setting}: {kind} {result.criterion}, {best[result.criterion]:.3f}")
    scores = result.consensus_scores
    if scores is not None:
        siblings = [
            row["acc"] for row in result.members if all(row[axis] == best[axis] for axis in AXES)
        ]
        lines.append(
            f"ACC        best {best['acc']:.3f}; consensus of its {len(siblings)} seeds "
            f"{scores['acc']:.3f}, mean of these {np.mean(siblings):.3f} "
            "(classes: to report, not to choose)"
        )
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in summary["seconds"].items())
    lines += [
        f"seconds    {seconds}; {total:.1f} in all, {_compiling(summary['compilation'])}",
        f"files      {out}: {', '.join(_result_files(out))}",
    ]
    return "\n".join(lines)


def _compiling(compilation: dict[str, Any]) -> str:
    kept = compilation["kept from before"]
    return f"{compilation['seconds']:.1f} of them compiling" + (
        f" ({kept} programs kept from before)" if kept else ""
    )


def _result_files(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.is_file() and path.name[0] != ".")
