"""A record as text: one figure a line, for people, and for tables of several records."""

import textwrap
from typing import Any

Record = dict[str, Any]

_PHASES = {"finetune": "pretraining step", "KL step": "KL step", "refresh": "refresh of P, a block"}


def figures_of(record: Record) -> dict[str, str]:
    """Return the figures of a record of :func:`measure_machine` as texts, by what they are.

    Args:
        record: The record.

    Returns:
        The figures, in an order that is the same for all records.

    Examples:
        >>> record = {
        ...     "machine": {"cores": 2, "processor": "A"}, "date": "2026-12-01",
        ...     "environment": {"device": "cpu: cpu", "n_devices": 1, "jdec": "0.1.0",
        ...                     "jax": "0.10.2", "python": "3.11.7"},
        ...     "options": {"precision": "float32", "scan_unroll": 1, "xla_flags": "",
        ...                 "quick": False},
        ...     "peak_gflops": 400.0, "bandwidth_gbytes": 50.0, "steps": []}
        >>> figures_of(record)["peak"]
        '400 GFLOP/s'
    """
    environment, options = record["environment"], record["options"]
    machine, device = record["machine"], environment["device"]
    processor = f"{machine['cores']} × {machine['processor']}"
    n_devices = f" × {environment['n_devices']}" if environment["n_devices"] > 1 else ""
    figures = {
        "device": f"{processor if device == 'cpu: cpu' else device.split(': ')[-1]}{n_devices}",
        "date": record["date"],
        "jdec, JAX, Python": ", ".join(environment[name] for name in ("jdec", "jax", "python")),
        "options": _options(options),
        "peak": f"{_number(record['peak_gflops'])} GFLOP/s",
        "bandwidth": f"{_number(record['bandwidth_gbytes'])} GB/s",
    }
    for point in record["steps"]:
        figures |= _step(point)
    for preset in dict.fromkeys(point["preset"] for point in record["steps"]):
        timings = [p["timings"] for p in record["steps"] if p["preset"] == preset]
        compiling = sum(timing["compile"] for each in timings for timing in each)
        figures[f"{preset}: compiling its steps"] = f"{compiling:.1f} s"
    if "members" in record:
        figures |= _members(record["members"])
    if "fits" in record:
        figures |= _fits(record["fits"])
    return figures


def format_record(record: Record) -> str:
    """Return a record as an aligned table of at most 100 columns.

    Args:
        record: The record.

    Returns:
        Lines of text.
    """
    figures = figures_of(record)
    width = max(map(len, figures))
    lines = []
    for name, figure in figures.items():
        first, *others = textwrap.wrap(figure, 98 - width)
        lines.append(f"{name:{width}}  {first}")
        lines += [f"{'':{width}}  {line}" for line in others]
    return "\n".join(lines)


def _options(options: Record) -> str:
    texts = [options["precision"]]
    if options["quick"]:
        texts.append("quick: says nothing of the machine")
    if options["scan_unroll"] != 1:
        texts.append(f"scan unroll {options['scan_unroll']}")
    return ", ".join([*texts, *options["xla_flags"].split()])


def _step(point: Record) -> dict[str, str]:
    bandwidth = point["share_of_bandwidth"]
    share = "" if bandwidth is None else f", {bandwidth:.2f} of bandwidth"
    return {
        f"{point['preset']}: {_PHASES[point['phase']]}": f"{_number(point['step_ms'])} ms "
        f"± {_number(point['step_iqr_ms'], 2)}, {_number(point['gflops'])} GFLOP/s, "
        f"{point['share_of_peak']:.2f} of peak{share}"
    }


def _members(members: Record) -> dict[str, str]:
    figures = {}
    for point in members["points"]:
        n_members = point["members"]
        rates = [point[f"{name}_steps_per_second"] for name in ("pretraining", "interval")]
        texts = [f"{_number(rate)} ({_number(rate / n_members)})" for rate in rates]
        figures[f"members {n_members}: steps/s (each)"] = f"pretraining {texts[0]}, KL {texts[1]}"
    if members["left_out"]:
        left_out = ", ".join(map(str, members["left_out"]))
        figures["members left out for lack of memory"] = left_out
    return figures


def _fits(fits: Record) -> dict[str, str]:
    figures: dict[str, str] = {}
    for run in fits["runs"]:
        title = f"{fits['dataset']}, {run['start']}, seed {run['seed']}"
        seconds = run["seconds_to_level"]
        reached = "not reached" if seconds is None else f"{_number(seconds)} s"
        hits = run["compiling"]["cache_hits"]
        figures[f"{title}: to ACC {fits['level']:g}"] = reached
        figures[f"{title}: whole fit"] = (
            f"{_number(run['seconds'])} s, of which compiling {run['compiling']['seconds']:.1f} s"
            + f" ({hits} cache hits)" * bool(hits)
            + f"; ACC {run['acc']:.3f}"
        )
        shares = [f"{name} {100 * share:.0f} %" for name, share in run["shares"].items()]
        figures[f"{title}: shares"] = ", ".join(shares)
    return figures


def _number(value: float, digits: int = 3) -> str:
    if value >= 10**digits:
        return f"{value:.0f}"
    return f"{value:#.{digits}g}".rstrip(".")
