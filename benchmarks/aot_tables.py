"""The tables of what compiles ahead of time, rendered from the records alone."""

from typing import Any

from benchmarks.records import read_records

Record = dict[str, Any]

_STEP_HEADER = ["step of", "H100: kernels", "of these", "estimated", "v5e: estimated"]
_STEP_HEADER += ["pixels gathered singly", "collectives, H100 / v5e"]
_HEADER = ["program", "H100: temporaries", "kernels", "estimated", "v5e: temporaries", "estimated"]


def by_program() -> dict[str, dict[str, Record]]:
    """Return the newest record of each program and target, in the order of their first records."""
    found: dict[str, dict[str, Record]] = {}
    for record in read_records("aot"):
        found.setdefault(record["program"], {})[record["target"]] = record
    return found


def steps_table() -> str:
    """One step of each scan: kernels by what they do, estimated times, collectives."""
    rows = []
    for program, targets in by_program().items():
        steps = {name: record["step"] for name, record in targets.items() if record["step"]}
        if not steps:
            continue
        h100, v5e = steps.get("h100"), steps.get("v5e")
        kinds = "" if h100 is None else _counts(h100["kinds"])
        collectives = " / ".join(
            "–" if step is None else ", ".join(step["collectives"]) or "none"
            for step in (h100, v5e)
        )
        pixels = max(step["pixels"] for step in steps.values())
        kernels = "–" if h100 is None else str(h100["kernels"])
        times = [_of_step(step) for step in (h100, v5e)]
        rows.append(
            [_name(program), kernels, kinds, *times, f"{pixels:,}".replace(",", " "), collectives]
        )
    return _table(_STEP_HEADER, rows)


def programs_table() -> str:
    """Each whole program: the memory it asks for beside arguments and results, kernels, time."""
    rows = []
    for program, targets in by_program().items():
        h100, v5e = targets.get("h100"), targets.get("v5e")
        kernels = "–"
        if h100 is not None:
            kernels = f"{h100['whole']['kernels']:,}".replace(",", " ")
            kernels = f"≤ {kernels}" if h100["whole"]["at_most"] else kernels
        cells = [_gigabytes(h100), kernels, _of_whole(h100)]
        rows.append([_name(program), *cells, _gigabytes(v5e), _of_whole(v5e)])
    return _table(_HEADER, rows)


TABLES = {"aot_steps": steps_table, "aot_programs": programs_table}


def _name(program: str) -> str:
    return program.replace("/", ", ").replace("1000000", "1 000 000")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts.items())


def _gigabytes(record: Record | None) -> str:
    return "–" if record is None else f"{record['bytes']['temporaries'] / 1e9:.2f} GB"


def _of_step(step: dict[str, Any] | None) -> str:
    return "–" if step is None else _time(step["estimated_us"])


def _of_whole(record: Record | None) -> str:
    if record is None:
        return "–"
    at_most = "≤ " if record["whole"]["at_most"] else ""
    return f"{at_most}{_time(record['whole']['estimated_us'])}"


def _time(microseconds: float) -> str:
    units = ((1e6, "s"), (1e3, "ms"), (1.0, "µs"))
    size, unit = next((one for one in units if microseconds >= one[0]), units[-1])
    return f"{microseconds / size:#.3g} {unit}".replace(". ", " ")


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *(rows or [["not run", *[""] * (len(header) - 1)]])]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
