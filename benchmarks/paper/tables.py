"""Rendering records as Markdown. Accuracy in percent throughout."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.paper.methods import sweep

Record = dict[str, Any]
PRESETS = ("fast", "paper")


def find(
    records: Iterable[Record],
    dataset: str,
    method: str,
    preset: str,
    *,
    r_min: float | None = None,
    split: str = "all",
    setting: Mapping[str, float] | None = None,
) -> list[Record]:
    """Return the newest record of each seed."""
    wanted = (dataset, method, preset, r_min, split, dict(setting or {}))
    newest = {
        record["seed"]: record
        for record in records
        if "scores" in record
        and wanted
        == (
            record["dataset"],
            record["method"],
            record["preset"],
            record["r_min"],
            record["split"],
            record["setting"],
        )
    }
    return [newest[seed] for seed in sorted(newest)]


def swept(
    records: Iterable[Record], dataset: str, method: str, preset: str
) -> dict[float, list[Record]]:
    """Return the records at each value of a method's hyper-parameter."""
    name, values = sweep(method)
    records = list(records)
    found = {
        value: find(records, dataset, method, preset, setting={name: value}) for value in values
    }
    return {value: runs for value, runs in found.items() if runs}


def groups(records: Iterable[Record], datasets: Sequence[str]) -> list[tuple[str, str]]:
    """Return the data sets and presets to show: those run, else the first preset."""
    run = {(record["dataset"], record["preset"]) for record in records if "scores" in record}
    shown = []
    for dataset in datasets:
        presets = [preset for preset in PRESETS if (dataset, preset) in run]
        shown += [(dataset, preset) for preset in presets or PRESETS[:1]]
    return shown


def percent(record: Record, score: str = "acc") -> float:
    """Return a score in percent."""
    return 100 * record["scores"][score]


def mean_and_std(records: Sequence[Record], score: str = "acc") -> str:
    """Return the mean over seeds, and the sample standard deviation where there are two."""
    if not records:
        return "not run"
    values = [percent(record, score) for record in records]
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def difference(records: Sequence[Record], published: float | None) -> str:
    """Return our mean minus the paper's number."""
    if not records or published is None:
        return "–"
    return f"{statistics.mean(percent(record) for record in records) - published:+.2f}"


def pretraining_steps(config: Mapping[str, Any]) -> int:
    """Return the number of steps of pretraining of a recorded configuration."""
    layers = len(config["network"]["hidden_dims"]) + 1
    steps = config["pretrain"]["finetune_steps"] + layers * config["pretrain"]["layerwise_steps"]
    return int(steps)


def budget(records: Sequence[Record]) -> str:
    """Return the steps of pretraining and clustering."""
    if not records:
        return "–"
    parts = []
    if records[0]["method"].startswith(("AE", "DEC")):
        parts.append(f"{pretraining_steps(records[0]['config'])}")
    if "steps" in records[0]:
        parts.append(f"{statistics.mean(record['steps'] for record in records):.0f}")
    return f"{' + '.join(parts)} steps" if parts else "–"


def best_of_sweep(records: Sequence[Record], dataset: str, method: str, preset: str) -> str:
    """Return the max accuracy over the values tried, selected by the labels as in the paper."""
    found = swept(records, dataset, method, preset)
    if not found:
        return "not run" if sweep(method)[1] else "–"
    value, runs = max(found.items(), key=lambda item: max(map(percent, item[1])))
    name, values = sweep(method)
    incomplete = f", {len(found)} of {len(values)} tried" if len(found) < len(values) else ""
    return f"{max(map(percent, runs)):.2f} ({name} {value:g}{incomplete})"


def method_tables(
    records: Sequence[Record],
    methods: Sequence[str],
    datasets: Sequence[str],
    published: Mapping[str, Mapping[str, float]],
) -> str:
    """Render one table for each data set and preset, one row for each method."""
    header = ["method", "paper", "best of the sweep", "default, mean ± std", "difference"]
    header += ["n seeds", "budget", "seconds"]
    texts = []
    for dataset, preset in groups(records, datasets):
        rows = []
        for method in methods:
            number = published.get(method, {}).get(dataset)
            found = find(records, dataset, method, preset)
            rows.append(
                [
                    method,
                    "–" if number is None else f"{number:.2f}",
                    best_of_sweep(records, dataset, method, preset),
                    mean_and_std(found),
                    difference(found, number),
                    str(len(found)),
                    budget(found),
                    f"{statistics.mean(r['seconds'] for r in found):.0f}" if found else "–",
                ]
            )
        texts.append(f"**{dataset}, preset `{preset}`**\n\n{markdown(header, rows)}")
        texts.append(notes(records, dataset))
    return "\n\n".join(filter(None, texts))


def notes(records: Iterable[Record], dataset: str) -> str:
    """Return the note on the numbers of a data set, or why there are none."""
    mine = [record for record in records if record["dataset"] == dataset]
    run = [record for record in mine if "scores" in record and record["r_min"] is None]
    if not run:
        return next((f"Not run: {r['missing']}." for r in mine if "missing" in r), "")
    variant, note = run[-1]["variant"], run[-1]["note"]
    return ": ".join(filter(None, [f"Variant `{variant}`" if variant else "", note]))


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
