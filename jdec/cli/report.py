"""What the commands print about the data, and about the results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdec._environment import environment
from jdec.cli.results import BASELINE_RESTARTS
from jdec.datasets import Dataset
from jdec.trainer.config import Config
from jdec.trainer.sharding import Mesh

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
        f"seconds  {times(metrics, total)}",
        f"files    {files(out)}",
    ]
    return "\n".join(lines)


def times(record: dict[str, Any], total: float) -> str:
    """Return the seconds of each phase, and those of compiling."""
    phases = ", ".join(f"{name} {value:.1f}" for name, value in record["seconds"].items())
    compilation = record["compilation"]
    hits = compilation["cache_hits"]
    return (
        f"{phases}; total {total:.1f} s ({compilation['seconds']:.1f} s compiling"
        f"{f', {hits} cache hits' if hits else ''})"
    )


def files(out: Path) -> str:
    """Return which files are in a directory."""
    names = [path.name for path in out.iterdir() if path.is_file() and path.name[0] != "."]
    return f"{out}: {', '.join(sorted(names))}"
