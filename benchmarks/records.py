"""Dated records of measurements, one JSON object a line."""

import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

from jdec.bench import describe_machine
from jdec.trainer import environment

RESULTS = Path(__file__).parent / "results"


def append_record(
    what: str,
    figures: dict[str, Any],
    *,
    smoke: bool = False,
    folder: Path | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Append a measurement with date, device, versions and commit to results/; print it as well.

    Args:
        what: Name of the benchmark.
        figures: JSON values.
        smoke: Only print: figures of a smoke run are not worth keeping.
        folder: Another folder than results/.
        quiet: Do not print.

    Returns:
        The whole record.
    """
    record = {
        "what": what,
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "machine": describe_machine(),
        "environment": environment(),
        **figures,
    }
    if not quiet:
        print(json.dumps(record))
    if smoke:
        return record
    device = str(record["environment"]["device"]).split(":")[0]
    path = (folder or RESULTS) / f"{record['date']}_{device}_{what}.jsonl"
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
    return record


def read_records(what: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """Return all records of a benchmark, oldest first."""
    paths = sorted((folder or RESULTS).glob(f"*_{what}.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def read_bench_records(folder: Path | None = None) -> list[dict[str, Any]]:
    """Return the records of ``jdec bench``, one a file, oldest first."""
    records = [json.loads(p.read_text()) for p in (folder or RESULTS).glob("*_bench.json")]
    return sorted(records, key=lambda record: str(record["date"]))


def parse_seeds(text: str) -> list[int]:
    """Read ``0-4`` or ``0,2,5``."""
    if "-" in text:
        first, last = text.split("-")
        return list(range(int(first), int(last) + 1))
    return [int(part) for part in text.split(",")]


def _commit() -> str:
    try:
        command = ["git", "describe", "--always", "--dirty"]
        run = subprocess.run(command, capture_output=True, text=True, cwd=RESULTS, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()
