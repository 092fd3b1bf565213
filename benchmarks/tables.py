"""The tables of README.md and benchmarks/README.md, each rendered from the records alone."""

import json
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks import aot_tables
from benchmarks.bench_ablation import PIECES, WHOLE
from benchmarks.bench_peers import FIGURES, median_of, strongest_ratio
from benchmarks.paper import report as paper_report
from benchmarks.paper.tables import pretraining_steps
from benchmarks.peers import PEERS
from benchmarks.records import read_bench_records, read_records
from benchmarks.suite import METHODS
from jdec.bench import figures_of
from jdec.trainer.presets import preset_config

Record = dict[str, Any]

_PICKS: tuple[Callable[..., float], ...] = (statistics.mean, min, max)
_METHODS = ("k-means", "AE + k-means", "DEC initialisation", "DEC")
_FIGURE_NAMES = {
    "pretrain_step": "pretraining step",
    "cluster_step": "clustering step",
    "refresh": "refresh of P",
    "seconds": "whole fit",
}


def latest_by_seed(records: list[Record]) -> dict[tuple[str, ...], list[Record]]:
    """Group fits by data set, preset and options, keeping the latest record of each seed."""
    newest: dict[tuple[Any, ...], Record] = {}
    for record in records:
        key = (record["dataset"], record["preset"], " ".join(record["options"]))
        newest[(*key, record["seed"])] = record
    groups: dict[tuple[str, ...], list[Record]] = {}
    for key, record in newest.items():
        groups.setdefault(key[:-1], []).append(record)
    return groups


def quality_table() -> str:
    """Accuracy, wall time and memory of whole fits."""
    rows = []
    # Those without diffusion times are of a recipe before, which is ``fast`` no longer.
    records = [
        record
        for record in read_records("quality")
        if "diffusion_times" in record["config"].get("graph", {})
    ]
    for (dataset, preset, options), fits in latest_by_seed(records).items():
        accuracies = []
        for method in _METHODS:  # records before AE + k-means was scored lack it
            found = [fit["scores"][method]["acc"] for fit in fits if method in fit["scores"]]
            accuracies.append(_mean_and_std(found) if found else "–")
        nmi = _mean_and_std([fit["scores"]["DEC"]["nmi"] for fit in fits])
        config = fits[0]["config"]
        intervals = statistics.mean(fit["n_intervals"] for fit in fits)
        steps = intervals * config["clustering"]["update_interval"]
        budget = f"{pretraining_steps(config)} + {steps:.0f}"
        wall = statistics.mean(fit["wall_seconds"] for fit in fits)
        memory = max(fit["peak_memory_mb"] for fit in fits) / 1000
        seeds = ", ".join(str(fit["seed"]) for fit in sorted(fits, key=lambda fit: fit["seed"]))
        name = f"{preset} {options}".strip()
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
                _where(fits[-1]),
            ]
        )
    header = ["data", "preset", *(f"{method} ACC" for method in _METHODS), "DEC NMI"]
    header += ["steps (pretraining + clustering)", "wall", "memory", "seeds", "machine"]
    return _table(header, rows)


def suite_table() -> str:
    """Accuracy and seconds beside what one would pick instead: ACC / ARI, seconds from cold."""
    merged: dict[tuple[Any, ...], Record] = {}
    for record in read_records("suite"):  # of a method, the newest
        key = (_device(record), record["dataset"], record["seed"])
        before = merged.get(key, {"methods": {}})
        merged[key] = record | {"methods": before["methods"] | record["methods"]}
    by_set: dict[str, list[Record]] = {}
    for record in merged.values():
        by_set.setdefault(record["dataset"], []).append(record)
    rows = []
    for name, records in by_set.items():
        records.sort(key=lambda record: record["seed"])
        n_rows, n_features = records[0]["shape"]
        row = [name, f"{_size(n_rows)} × {n_features}, {records[0]['n_clusters']}"]
        for method in METHODS:
            found = [record["methods"].get(method, {"absent": ""}) for record in records]
            run = [one for one in found if "absent" not in one]
            if not run:
                row.append("–")
                continue
            ari = statistics.mean(one["scores"]["ari"] for one in run)
            seconds = statistics.mean(one["seconds"] for one in run)
            accuracy = _mean_and_std([one["scores"]["acc"] for one in run])
            fewer = f" ({len(run)} of {len(records)} seeds)" if len(run) < len(records) else ""
            row.append(f"{accuracy} / {ari:.3f}, {seconds:.0f} s{fewer}")
        seeds = ", ".join(str(record["seed"]) for record in records)
        rows.append([*row, seeds, _where(records[-1])])
    return _table(["data", "rows × features, K", *METHODS, "seeds", "machine"], rows)


def criterion_table() -> str:
    """What chooses among partitions to start from: accuracies, and rank correlation with them."""
    by_set: dict[str, list[Record]] = {}
    for record in newest(read_records("criterion"), "dataset", "seed"):
        by_set.setdefault(record["dataset"], []).append(record)
    rows, names = [], list(next(iter(by_set.values()))[0]["criteria"]) if by_set else []
    for dataset, records in by_set.items():
        row = [dataset]
        row += [f"{statistics.mean(pick(r['acc']) for r in records):.3f}" for pick in _PICKS]
        for name in names:
            found = [record["criteria"][name] for record in records]
            mean = {key: statistics.mean(one[key] for one in found) for key in found[0]}
            row.append(f"{mean['acc']:.3f} ({mean['rank_correlation']:+.2f})")
        row.append(f"{statistics.mean(record['vote'] for record in records):.3f}")
        seeds = ", ".join(str(record["seed"]) for record in records)
        rows.append([*row, seeds, _where(records[-1])])
    header = ["data", "mean ACC of all", "worst", "best", *(f"chosen by {name}" for name in names)]
    return _table([*header, "vote", "seeds", "machine"], rows)


def ablation_table() -> str:
    """ACC without each piece of ``fast``, and how much it is above or below the whole."""
    by_set: dict[str, list[Record]] = {}
    for record in newest(read_records("ablation"), "dataset", "seed"):
        by_set.setdefault(record["dataset"], []).append(record)
    rows = []
    for piece in PIECES if by_set else ():
        row = [piece]
        for records in by_set.values():
            found = [record["acc"] for record in records if piece in record["acc"]]
            if not found:
                row.append("–")
                continue
            mean = statistics.mean(acc[piece]["end"] for acc in found)
            change = mean - statistics.mean(acc[WHOLE]["end"] for acc in found)
            row.append(f"{mean:.3f}" + ("" if piece == WHOLE else f" ({change:+.3f})"))
        rows.append(row)
    seeds = [", ".join(str(record["seed"]) for record in records) for records in by_set.values()]
    if by_set:
        rows.append(["seeds", *seeds])
    return _table(["ACC", *by_set], rows)


def start_table() -> str:
    """A first start, and the same command again."""
    rows = []
    for record in newest(read_records("start"), "dataset"):
        first, second = record["starts"]
        rows.append(
            [
                record["dataset"],
                f"{first['compilation']['seconds']:.1f} s",
                f"{second['compilation']['seconds']:.1f} s",
                f"{second['compilation']['cache_hits']} of {second['compilation']['programs']}",
                f"{first['wall_seconds']:.0f} s",
                f"{second['wall_seconds']:.0f} s",
                _where(record),
            ]
        )
    header = ["data", "compiling, first start", "second start", "cache hits", "wall, first"]
    return _table([*header, "wall, second", "machine"], rows)


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
            _where(record),
        ]
        for record in newest(read_records("step"), "recipe")
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
            _where(record),
        ]
        for record in newest(read_records("kmeans"), "data")
    ]
    header = ["data", "shape", "jdec, s", "scikit-learn, s", "time ratio", "inertia ratio"]
    return _table([*header, "machine"], rows)


def bench_table() -> str:
    """Records of ``jdec bench``; parts that were measured one by one are a column together."""
    merged: dict[str, Record] = {}
    for record in read_bench_records():
        options = {name: v for name, v in record["options"].items() if name != "parts"}
        key = json.dumps([record["machine"], record["environment"], options])
        before = merged.get(key, {})
        steps = record["steps"] or before.get("steps", [])
        merged[key] = before | record | {"steps": steps}
    columns = [figures_of(record) for record in merged.values()]
    names = dict.fromkeys(name for column in columns for name in column if name != "device")
    rows = [[name, *(column.get(name, "–") for column in columns)] for name in names]
    return _table(["", *(column["device"] for column in columns)] if columns else ["device"], rows)


def settings_table() -> str:
    """The settings in which the presets differ, for MNIST."""
    presets = {
        name: preset_config(
            name, n_clusters=10, n_rows=70_000, dataset="mnist", image_shape=(28, 28)
        )
        for name in ("fast", "paper")
    }
    fast, paper = presets["fast"].flat(), presets["paper"].flat()
    rows = [
        [f"`{name}`", repr(value), repr(paper[name])]
        for name, value in fast.items()
        if value != paper[name]
    ]
    return _table(["setting (for MNIST)", "fast", "paper"], rows)


def roofline_table() -> str:
    """Every phase under the roofline."""
    records = newest(read_records("roofline"), "precision", "dims")
    rows = [
        [
            point["phase"],
            record["precision"],
            _size(point["batch_size"]),
            f"{_number(point['step_ms'])} ms",
            _number(point["intensity"]),
            _number(point["gflops"]),
            f"{point['share_of_peak']:.2f}",
            _number(point["gbytes"]),
            "–" if point["share_of_bandwidth"] is None else f"{point['share_of_bandwidth']:.2f}",
            _where(record),
        ]
        for record in records
        for point in record["points"]
    ]
    header = ["phase", "precision", "rows", "time", "FLOP/byte", "GFLOP/s", "share of peak"]
    table = _table([*header, "GB/s", "share of bandwidth", "machine"], rows)
    return table + _pictures("roofline", "Phases under the roofline", records)


def population_table() -> str:
    """Time per member relative to a single fit."""
    rows = [
        [
            record["mapping"],
            str(point["members"]),
            f"{_number(point['pretrain_member_step_ms'])} ms",
            f"{point['pretrain_ratio']:.2f}",
            f"{_number(point['interval_member_ms'])} ms",
            f"{point['interval_ratio']:.2f}",
            _where(record),
        ]
        for record in newest(read_records("population"), "mapping")
        for point in record["points"]
    ]
    header = ["mapping", "members", "pretraining step per member", "ratio to a single fit"]
    return _table([*header, "interval per member", "ratio to a single fit", "machine"], rows)


def agreement_table() -> str:
    """Labels of several devices against those of one."""
    rows = [
        [
            record["part"],
            str(record["n_devices"]),
            _percents(run["same_labels"] for run in record["runs"]),
            _percents(run["acc"][0] for run in record["runs"]),
            _percents(run["acc"][1] for run in record["runs"]),
            _where(record),
        ]
        for record in newest(read_records("agreement"), "part", "n_devices")
    ]
    header = ["what", "devices", "same labels, by seed"]
    return _table([*header, "ACC, one device", "ACC, several", "machine"], rows)


def _percents(values: Iterable[float]) -> str:
    return ", ".join(f"{100 * value:.2f} %" for value in values)


def time_to_quality_table() -> str:
    """Seconds until an accuracy was first reached, by phase."""
    records = newest(read_records("fit"), "dataset", "preset", "seed")
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        groups.setdefault((_device(record), record["dataset"], record["preset"]), []).append(record)
    levels = sorted({level for record in records for level in record["seconds_to"]}, key=float)
    levels = levels or ["0.8", "0.85", "0.9", "0.95"]
    phases = ("loading", "pretraining", "kmeans", "clustering", "target refresh")
    rows = []
    for (_, dataset, preset), fits in groups.items():
        seconds = {
            name: statistics.median(fit["phases"].get(name, 0.0) for fit in fits) for name in phases
        }
        compiling = statistics.median(sum(fit["compiling"].values()) for fit in fits)
        share = statistics.median(fit["refresh_share"] for fit in fits)
        rows.append(
            [
                dataset,
                preset,
                _mean_and_std([fit["acc"] for fit in fits]),
                *(_seconds_to([fit["seconds_to"].get(level) for fit in fits]) for level in levels),
                f"{statistics.median(fit['seconds'] for fit in fits):.0f} s",
                *(f"{_number(value)} s" for value in seconds.values()),
                f"{_number(compiling)} s",
                f"{share:.2f}",
                ", ".join(str(seed) for seed in sorted(fit["seed"] for fit in fits)),
                _where(fits[-1]),
            ]
        )
    header = ["data", "preset", "ACC", *(f"to ACC {level}" for level in levels), "whole"]
    header += ["loading", "pretraining", "k-means", "KL steps", "P refresh", "compiling"]
    return _table([*header, "refresh, share of KL phase", "seeds", "machine"], rows)


def scaling_table() -> str:
    """Exponents of the costs."""
    records = newest(read_records("scaling"), "cost", "variable")
    rows = [
        [
            record["cost"],
            record["variable"],
            ", ".join(f"{name} = {_size(size)}" for name, size in record["fixed"].items()),
            f"{_size(record['sizes'][0])} … {_size(record['sizes'][-1])}",
            f"{_number(record['seconds'][0])} … {_number(record['seconds'][-1])} s",
            f"{record['fit']['exponent']:.2f}",
            f"{_size(record['fit']['first'])} … {_size(record['fit']['last'])}",
            _where(record),
        ]
        for record in records
    ]
    header = ["cost", "variable", "fixed", "sizes", "time", "exponent", "fitted over", "machine"]
    return _table(header, rows) + _pictures("scaling", "Cost over size", records)


def devices_table() -> str:
    """Refresh and step over devices, and their ratio to the min number of devices."""
    rows = []
    for record in newest(read_records("devices")):
        for point in record["points"]:
            one = next(other for other in record["points"] if other["kind"] == point["kind"])
            rows.append(
                [
                    point["kind"],
                    str(point["n_devices"]),
                    _size(point["n_rows"]),
                    f"{_number(point['refresh_seconds'])} s",
                    f"{point['refresh_seconds'] / one['refresh_seconds']:.2f}",
                    f"{_number(1e3 * point['step_seconds'])} ms",
                    f"{point['step_seconds'] / one['step_seconds']:.2f}",
                    _where(record),
                ]
            )
    header = ["scaling", "devices", "rows", "refresh", "ratio to the fewest devices", "step"]
    return _table([*header, "ratio to the fewest devices", "machine"], rows)


def peers_table() -> str:
    """Every peer compared with jdec, and those that are absent."""
    records = newest(read_records("peers"), "group", "dataset")
    parts = [_peers_of(record) for record in records]
    missing = [group for group in PEERS if group not in {record["group"] for record in records}]
    parts += [f"**{group}**\n\n" + _table(["peer"], []) for group in missing]
    return "\n\n".join(parts)


def _peers_of(record: Record) -> str:
    figures = FIGURES[record["group"]]
    header = ["peer"]
    for figure in figures:
        header += [_FIGURE_NAMES[figure], "ratio to jdec"]
    scored = record["group"] != "steps"
    header += ["ACC", "ARI", "noise"] if scored else []
    rows = []
    for name, run in record["peers"].items():
        if "absent" in run:
            reason = run["absent"].replace("|", "/")
            rows.append([name, f"absent: {reason}", *[""] * (len(header) - 1)])
            continue
        row = [name]
        for figure in figures:
            seconds = statistics.median(median_of(one[figure]) for one in run["rounds"])
            ratio = record["ratios"].get(name, {}).get(figure)
            row += [f"{_number(1e3 * seconds)} ms" if seconds < 1 else f"{_number(seconds)} s"]
            row += ["–" if ratio is None else f"{ratio:.2f}"]
        if scored:
            scores = [one["scores"] for one in run["rounds"] if one["scores"]]
            row += [
                _mean_and_std([score[key] for score in scores]) if scores else "–"
                for key in ("acc", "ari")
            ]
            row.append(f"{statistics.median(one['noise'] for one in run['rounds']):.3f}")
        rows.append([*row, "; ".join(f"{k} {v}" for k, v in run["rounds"][-1]["versions"].items())])
    task = record["task"]
    title = f"**{record['group']}: {record['dataset']}, {_size(task['n_rows'])} rows**"
    about = f"{task['threads']} threads, {record['rounds']} rounds; {_where(record)}."
    if record["group"] == "fit":
        about = f"{task['pretrain_epochs']} + {task['cluster_epochs']} epochs, {about}"
    if record["group"] == "steps":
        about = f"P refreshed every {task['update_interval']} steps, {about}"
        ratios = [(figure, strongest_ratio(record, figure)) for figure in figures[:2]]
        named = [f"{_FIGURE_NAMES[f]} {ratio:.2f}" for f, ratio in ratios if ratio is not None]
        if named:
            about += " Ratio of the faster PyTorch loop on resident tensors to jdec: "
            about += f"{', '.join(named)}."
    return f"{title}\n\n{_table([*header, 'versions'], rows)}\n\n{about}"


def _seconds_to(values: list[float | None]) -> str:
    """Median over the fits that reached the accuracy, and their number unless all did."""
    reached = [value for value in values if value is not None]
    if not reached:
        return "never"
    text = f"{statistics.median(reached):.0f} s"
    return text if len(reached) == len(values) else f"{text} ({len(reached)} of {len(values)})"


def kills_table() -> str:
    """Runs that were killed, had a full disk or were damaged, and their outcome."""
    rows = []
    for record in newest(read_records("kills")):
        counts = record["kills_by_part"] | {
            name: record[name.replace(" ", "_")]
            for name in ("full disks", "damaged files", "second runs", "runs compared", "same bits")
        }
        names = {
            "runs compared": "runs compared with an uninterrupted one",
            "same bits": "… bit-identical",
        }
        rows += [
            [names.get(name, name), f"{count}", _where(record)] for name, count in counts.items()
        ]
    return _table(["what", "how often", "machine"], rows)


def streaming_table() -> str:
    """Streamed rows beside resident ones, and whole fits of them."""
    rows = []
    for record in newest(read_records("streaming"), "figure", *_STREAMED):
        shape = " × ".join(map(_size, record["shape"]))
        if record["figure"] == "steps":
            for phase in ("pretraining", "self-training"):
                rates = record[phase]["steps_per_second"]
                what = f"steps/s, {phase}, {record['kind']}"
                both = f"{_number(rates['streamed'])} / {_number(rates['resident'])}"
                rows.append([what, shape, both, f"{record[phase]['ratio']:.2f}", _where(record)])
        elif record["figure"] == "refresh":
            rates = record["gigabytes_per_second"]
            both = f"{_number(rates['refresh'])} / {_number(rates['reading'])}"
            what = f"refresh / reading, GB/s, {record['kind']}"
            about = [what, shape, both, f"{record['ratio']:.2f}"]
            rows.append([*about, _where(record)])
        else:
            limit = record["memory_limit_gib"]
            told = f"peak {record['peak_resident_gib']:.2f} GiB resident"
            told += f", allocations limited to {limit:g} GiB" if limit else ""
            scores = f"ACC {record['scores']['acc']:.3f}, {record['process_seconds']:.0f} s"
            what = f"whole fit, {record['rows']} of {record['gigabytes']:.2g} GB"
            rows.append([what, shape, told, scores, _where(record)])
    return _table(["what", "rows", "streamed / resident", "ratio or result", "machine"], rows)


#: What tells records of bench_streaming from each other, where they have it.
_STREAMED = ("kind", "rows", "shape", "memory_limit_gib")

TABLES: dict[str, Callable[[], str]] = {
    "streaming": streaming_table,
    "quality": quality_table,
    "start": start_table,
    "bench": bench_table,
    "step": step_table,
    "kmeans": kmeans_table,
    "suite": suite_table,
    "criterion": criterion_table,
    "ablation": ablation_table,
    "settings": settings_table,
    "roofline": roofline_table,
    "population": population_table,
    "agreement": agreement_table,
    "time_to_quality": time_to_quality_table,
    "scaling": scaling_table,
    "devices": devices_table,
    "peers": peers_table,
    "kills": kills_table,
    **aot_tables.TABLES,
    **paper_report.TABLES,
}


def newest(records: list[Record], *names: str) -> list[Record]:
    """Return the last of the records that agree in the named fields and the device.

    Examples:
        >>> newest([{"a": 1, "b": 2}, {"a": 1, "b": 3}], "a")
        [{'a': 1, 'b': 3}]
    """
    found = {
        (_device(record), *(json.dumps(record.get(name)) for name in names)): record
        for record in records
    }
    return list(found.values())


def platform_of(record: Record) -> str:
    """Return the kind of device of a record, as cpu."""
    return _device(record).split(":")[0]


def _pictures(name: str, about: str, records: list[Record]) -> str:
    """Links to the pictures that :mod:`benchmarks.figures` draws of these records."""
    platforms = dict.fromkeys(platform_of(record) for record in records)
    return "".join(f"\n\n![{about}, {one}](results/{name}_{one}.png)" for one in platforms)


def _device(record: Record) -> str:
    return str(record.get("environment", {}).get("device", ""))


def _where(record: Record) -> str:
    machine, device = record["machine"], _device(record)
    processor = f"{machine['cores']} × {machine['processor']}"
    # On an accelerator the processor says little.
    name = processor if device.startswith("cpu") else device.split(": ", 1)[-1]
    return f"{name}, {record['date']}"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:#.{digits}g}".rstrip(".")


def _size(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def _mean_and_std(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *(rows or [["not run", *[""] * (len(header) - 1)]])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
