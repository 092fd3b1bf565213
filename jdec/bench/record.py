"""The record of a machine: what is measured, in which sizes, and all figures as JSON values."""

import contextlib
import datetime
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jdec._checks import check_choice, check_flag, check_integer
from jdec._environment import environment, free_device_bytes
from jdec.bench.fits import Task, measure_fits
from jdec.bench.member_steps import measure_members
from jdec.bench.phases import N_FEATURES, measure_steps
from jdec.core.networks import PRECISIONS
from jdec.trainer.config import Config
from jdec.trainer.history import Reporter
from jdec.trainer.memory import check_memory
from jdec.trainer.presets import PRESETS, preset_config

#: Of the record; a higher one has figures of another meaning.
SCHEMA = 1
#: What is measured beside the device itself.
PARTS = ("steps", "members", "fits")

_N_ROWS = 70_000  # of MNIST, whose recipes the steps have


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        parts: Some of :data:`PARTS`.
        precision: Of the products, as ``network.precision``.
        scan_unroll: Unrolling of the loops over steps, of steps and members.
        seeds: Number of seeds of the warm fits.
        quick: Small sizes, which show that it runs and say nothing of the machine.
    """

    parts: tuple[str, ...] = PARTS
    precision: str = "float32"
    scan_unroll: int = 1
    seeds: int = 1
    quick: bool = False

    def __post_init__(self) -> None:
        """Validate the fields."""
        if not isinstance(self.parts, tuple) or not self.parts:
            raise ValueError(f"parts: expected some of {', '.join(PARTS)}, got {self.parts!r}")
        for part in self.parts:
            check_choice("parts", part, PARTS)
        check_choice("precision", self.precision, PRECISIONS)
        check_integer("scan_unroll", self.scan_unroll, maximum=1000)
        check_integer("seeds", self.seeds, maximum=1000)
        check_flag("quick", self.quick)


class _Sizes(NamedTuple):
    side: int  # of the product whose rate is the peak
    triad: int  # numbers in each array for the bandwidth
    n_rows: int  # that steps gather from
    n_steps: int  # in a call
    repeats: int
    member_steps: int  # of each member in a call
    member_repeats: int
    members: tuple[int, ...]


_MEMBERS = (1, 2, 4, 8, 16, 32, 64)
_QUICK = _Sizes(128, 2**14, 512, 4, 2, 2, 2, _MEMBERS[:2])
_CPU = _Sizes(2048, 2**25, 8192, 50, 5, 5, 3, _MEMBERS)
# Arrays beyond any cache, and enough work that starting a program does not count.
_ACCELERATOR = _Sizes(8192, 2**28, 8192, 200, 10, 50, 5, _MEMBERS)


def measure_machine(
    options: Options,
    task: Task | None = None,
    *,
    xla_flags: str = "",
    progress: bool = False,
) -> dict[str, Any]:
    """Measure this machine: peak and bandwidth, steps, members, and time to accuracy.

    Args:
        options: What to measure.
        task: What to fit; needed for the part ``fits`` alone.
        xla_flags: What :func:`set_xla_flags` returned, for the record.
        progress: Show progress bars on stderr.

    Returns:
        The record, JSON values.

    Raises:
        ValueError: If there is no task to fit, or too little memory.
    """
    if "fits" in options.parts and task is None:
        raise ValueError("task: expected rows and classes for the part fits, got none")
    sizes = _QUICK if options.quick else _CPU if jax.default_backend() == "cpu" else _ACCELERATOR
    configs = {name: _config(name, options) for name in sorted(PRESETS)}
    if "fits" not in options.parts:
        task = None
    fitted = None if task is None else _config_of(task, options)
    _check_memory(sizes, configs, task, fitted)
    record: dict[str, Any] = {
        "what": "bench",
        "schema": SCHEMA,
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "environment": environment(),
        "options": asdict(options) | {"parts": list(options.parts), "xla_flags": xla_flags},
    }
    with _noted(options, sizes, progress) as note:
        common: dict[str, Any] = {"n_rows": sizes.n_rows, "repeats": sizes.repeats}
        common |= {"unroll": options.scan_unroll, "note": note}
        record |= measure_steps(
            configs if "steps" in options.parts else {},
            side=sizes.side,
            triad=sizes.triad,
            precision=options.precision,
            n_steps=sizes.n_steps,
            **common,
        )
        if "members" in options.parts:
            common |= {"n_steps": sizes.member_steps, "repeats": sizes.member_repeats}
            members = measure_members(configs["fast"], sizes.members, **common)
            record["members"] = {"preset": "fast", **members}
        if fitted is not None and task is not None:
            fits = measure_fits(task, fitted, n_seeds=options.seeds, progress=progress, note=note)
            record["fits"] = {"preset": "fast", **fits}
    return record


@contextlib.contextmanager
def _noted(options: Options, sizes: _Sizes, progress: bool) -> Iterator[Callable[[str], None]]:
    """Show a bar over all that is measured; yield what names the next of it."""
    n_pieces = {
        "steps": 3 * len(PRESETS),  # phases
        "members": len(sizes.members),
        "fits": 1 + options.seeds,
    }
    total = 1 + sum(n_pieces[part] for part in options.parts)  # 1: the device itself
    noted: list[str] = []
    bar = Reporter(progress=progress).bar("bench", total, "part")

    def note(what: str) -> None:
        bar.set_description(what)
        bar.update(min(1, len(noted)))  # the one before is done
        noted.append(what)

    with bar:
        yield note
        bar.update()


def _config(preset: str, options: Options) -> Config:
    """Return what a preset gives for MNIST, in the precision asked for."""
    image_shape = (28, 28)
    config = preset_config(
        preset, n_clusters=10, n_rows=_N_ROWS, dataset="mnist", image_shape=image_shape
    )
    fields: dict[str, Any] = {"network.precision": options.precision}
    # So that no count of steps ends a schedule, or a phase, while it is timed.
    fields |= {"clustering.max_intervals": 1000}
    if options.quick:
        fields |= {"network.hidden_dims": [16]}
    return config.replace(fields)


def _config_of(task: Task, options: Options) -> Config:
    """Return the recipe of the fits."""
    config = preset_config(
        "fast",
        n_clusters=len(np.unique(task.y)),
        n_rows=len(task.x),
        dataset=task.name,
        image_shape=task.image_shape,
    ).replace({"network.precision": options.precision})
    if options.quick:
        few = {"network.hidden_dims": [16], "pretrain.finetune_steps": 40, "kmeans.n_init": 2}
        few |= {"kmeans.select": "inertia", "kmeans.overclustering_factors": [1]}
        few |= {"clustering.warmup_steps": 0, "clustering.max_intervals": 2}
        config = config.replace(few)
    return config


def _check_memory(
    sizes: _Sizes, configs: dict[str, Config], task: Task | None, fitted: Config | None
) -> None:
    """Raise, before any work, if there is too little memory for a single member."""
    free = free_device_bytes()
    needed = {
        "the peak": 12 * sizes.side**2,  # two matrices and their product
        "the bandwidth": 12 * sizes.triad,
        "the steps": 8 * sizes.n_rows * N_FEATURES,
        "the fits": 0 if task is None else 8 * task.x.size,
    }
    name = max(needed, key=needed.__getitem__)
    if free is not None and needed[name] > free:
        raise ValueError(
            f"bench: expected {needed[name] / 2**30:.3g} GiB of free memory for {name}, got "
            f"{free / 2**30:.3g} GiB; free some, or choose --quick or fewer --parts"
        )
    for config in configs.values():
        check_memory(config, sizes.n_rows, N_FEATURES)
    if task is not None and fitted is not None:
        check_memory(fitted, *task.x.shape)


def describe_machine() -> dict[str, Any]:
    """Return the name of the processor, and its number of cores.

    Examples:
        >>> sorted(describe_machine())
        ['cores', 'processor']
    """
    return {"processor": _processor(), "cores": os.cpu_count()}


def _processor() -> str:
    # Of an ARM processor, Linux has no name.
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
