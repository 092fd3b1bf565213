"""Render the tables of README.md and benchmarks/README.md from the records in results/.

python -m benchmarks report
python -m benchmarks report --check      # only say whether they are up to date
"""

import argparse
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.paper import report as paper_report
from benchmarks.records import read_records
from jdec.config import Config, preset_config

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")

_METHODS = ("k-means", "AE + k-means", "DEC")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=["report"])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if outdated")
    arguments = parser.parse_args()
    outdated = write_pages(check=arguments.check)
    return 1 if arguments.check and outdated else 0


def write_pages(*, check: bool = False) -> list[Path]:
    """Render the pages that are out of date, or only name them; return them."""
    outdated = [page for page in PAGES if render(page.read_text()) != page.read_text()]
    for page in outdated:
        if not check:
            page.write_text(render(page.read_text()))
        print(f"{page.relative_to(ROOT)}: {'outdated' if check else 'written'}")
    return outdated


def render(text: str) -> str:
    """Fill each ``<!-- table: NAME -->`` of a page."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- table: {name} -->\n{TABLES[name]()}\n<!-- end: {name} -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end: \1 -->", fill, text, flags=re.DOTALL)


def latest_by_seed(records: list[dict[str, Any]]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Group fits by data set, preset and options; of each seed the newest record counts."""
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        key = (record["dataset"], record["preset"], " ".join(record["options"]))
        newest[(*key, record["seed"])] = record
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for key, record in newest.items():
        groups.setdefault(key[:-1], []).append(record)
    return groups


def quality_table() -> str:
    """Accuracy, wall time and memory of whole fits."""
    rows = []
    for (dataset, preset, options), fits in latest_by_seed(read_records("quality")).items():
        accuracies = [
            _mean_and_std([fit["scores"][method]["acc"] for fit in fits]) for method in _METHODS
        ]
        nmi = _mean_and_std([fit["scores"]["DEC"]["nmi"] for fit in fits])
        config = Config.from_dict(fits[0]["config"])
        intervals = statistics.mean(fit["n_intervals"] for fit in fits)
        layers = len(config.network.hidden_dims) + 1
        steps = config.pretrain.finetune_steps + layers * config.pretrain.layerwise_steps
        budget = f"{steps} + {intervals * config.clustering.update_interval:.0f}"
        wall = statistics.mean(fit["wall_seconds"] for fit in fits)
        memory = max(fit["peak_memory_mb"] for fit in fits) / 1000
        seeds = ", ".join(str(fit["seed"]) for fit in sorted(fits, key=lambda fit: fit["seed"]))
        name = f"{preset} {options}".strip()
        machine = fits[-1]["machine"]
        where = f"{machine['cores']} × {machine['processor']}, {fits[-1]['date']}"
        rows.append(
            [
                dataset,
                name,
                *accuracies,
                nmi,
                budget,
                f"{wall:.0f} s",
                f"{memory:.1f} GB",
                seeds,
                where,
            ]
        )
    header = ["data", "preset", "k-means ACC", "AE + k-means ACC", "DEC ACC", "DEC NMI"]
    header += ["steps (pretraining + clustering)", "wall", "memory", "seeds", "machine"]
    return _table(header, rows)


def step_table() -> str:
    """Share of the matmul peak."""
    rows = [
        [
            record["recipe"],
            f"{record['peak_gflops']:.0f}",
            f"{record['pretrain_step_ms']:.1f}",
            f"{record['pretrain_share_of_peak']:.2f}",
            f"{record['cluster_step_ms']:.1f}",
            f"{record['cluster_share_of_peak']:.2f}",
            f"{record['machine']['cores']} × {record['machine']['processor']}, {record['date']}",
        ]
        for record in _newest(read_records("step"), "recipe")
    ]
    header = ["recipe", "peak, GFLOP/s", "pretraining step, ms", "share of peak"]
    return _table([*header, "clustering step, ms", "share of peak", "machine"], rows)


def kmeans_table() -> str:
    """K-means against scikit-learn."""
    rows = [
        [
            record["data"],
            " × ".join(map(str, record["shape"])),
            f"{statistics.median(record['seconds']['jdec']):.2f}",
            f"{statistics.median(record['seconds']['scikit-learn']):.2f}",
            f"{record['time_ratio']:.2f}",
            f"{record['inertia_ratio']:.4f}",
            f"{record['machine']['cores']} × {record['machine']['processor']}, {record['date']}",
        ]
        for record in _newest(read_records("kmeans"), "data")
    ]
    header = ["data", "shape", "jdec, s", "scikit-learn, s", "time ratio", "inertia ratio"]
    return _table([*header, "machine"], rows)


def settings_table() -> str:
    """The settings in which the presets differ, for MNIST."""
    presets = {
        name: preset_config(
            name, n_clusters=10, n_rows=70_000, dataset="mnist", image_shape=(28, 28)
        )
        for name in ("fast", "paper")
    }
    lines = presets["fast"].differences(presets["paper"])
    rows = []
    for line in lines:
        name, values = line.split(": ", 1)
        fast, paper = values.split(" against ")
        rows.append([f"`{name}`", fast, paper])
    return _table(["setting (for MNIST)", "fast", "paper"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "quality": quality_table,
    "step": step_table,
    "kmeans": kmeans_table,
    "settings": settings_table,
    **paper_report.TABLES,
}


def _newest(records: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return list({record[name]: record for record in records}.values())


def _mean_and_std(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *(rows or [["not run", *[""] * (len(header) - 1)]])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
