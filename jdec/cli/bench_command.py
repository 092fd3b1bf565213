"""``jdec bench``: loads the rows of its fits, has the machine measured, and writes the record."""

import contextlib
import datetime
import itertools
import sys
import tempfile
from pathlib import Path

import jax

from jdec._io import write_json
from jdec.bench import Options, Task, format_record, measure_machine, set_xla_flags
from jdec.cli.arguments import Bench
from jdec.cli.fit_commands import check_platform
from jdec.cli.parsing import names
from jdec.datasets import load_dataset

#: Accuracies whose time counts. Fits of digits end just below .95, and some just above.
_LEVELS = {"mnist": 0.95, "digits": 0.90}
_SECONDS_ON_A_CPU = {"steps": 45, "members": 120, "fits": 100}  # of two cores; of one fit


def run_bench(arguments: Bench) -> None:
    """Run ``jdec bench``."""
    options = Options(
        names("parts", arguments.parts),
        arguments.precision,
        arguments.scan_unroll,
        arguments.seeds,
        arguments.quick,
    )
    if arguments.out is not None:
        _check_output(arguments.out)
    flags = set_xla_flags(arguments.xla_flags)
    check_platform()
    out = arguments.out or _default_output()
    _check_output(out)
    task = _load_task(arguments) if "fits" in options.parts else None
    if not arguments.quiet:
        print(_introduction(options, task), flush=True)
    progress = not arguments.quiet and sys.stderr is not None
    record = measure_machine(options, task, xla_flags=flags, progress=progress)
    write_json(out, record)
    if not arguments.quiet:
        print(f"\n{format_record(record)}\n\nrecord: {out}")


def _load_task(arguments: Bench) -> Task:
    """Load MNIST where it is found, and digits otherwise."""
    dataset = load_dataset("digits")
    if not arguments.quick:
        with contextlib.suppress(FileNotFoundError):
            dataset = load_dataset("mnist", data_dir=arguments.data_dir)
    if dataset.y is None:
        raise ValueError(f"{dataset.name}: expected classes to score with, got none")
    level = _LEVELS[dataset.name]
    return Task(dataset.name, dataset.x, dataset.y, dataset.image_shape, level)


def _introduction(options: Options, task: Task | None) -> str:
    """Say what is measured, and about how long that takes."""
    what = ["peak and bandwidth"]
    if "steps" in options.parts:
        what.append("steps of presets fast and paper")
    if "members" in options.parts:
        what.append("1 to 64 members at once" if not options.quick else "2 members at once")
    if task is not None:
        what.append(f"{1 + options.seeds} fits of {task.name}, to ACC {task.level:g}")
    minutes = "a few minutes"
    if options.quick:
        minutes = "less than a minute; the figures mean nothing"
    elif jax.default_backend() == "cpu":
        seconds = {**_SECONDS_ON_A_CPU}
        seconds["fits"] *= 1 + options.seeds
        if task is not None and task.name == "digits":
            seconds["fits"] //= 10
        total = sum(seconds[part] for part in options.parts)
        minutes = f"about {max(1, round(total / 60))} min on two cores"
    return f"bench on {jax.devices()[0].device_kind}: {', '.join(what)}: {minutes}"


def _default_output() -> Path:
    """Return a name in runs/ that is not taken."""
    stem = f"{datetime.date.today().isoformat()}_{jax.default_backend()}"
    for number in itertools.count(1):
        path = Path("runs") / f"{stem}{f'_{number}' if number > 1 else ''}_bench.json"
        if not path.exists():
            break
    return path


def _check_output(out: Path) -> None:
    """Raise, before any work, unless ``out`` can be written and is new."""
    if out.suffix != ".json":
        raise ValueError(f"out: expected a name that ends in .json, got {out}")
    if out.exists():
        raise ValueError(f"out: expected a new file, got {out}, which exists; choose another name")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ValueError(f"out: {error.strerror}: '{out}'; expected a writable folder") from error
