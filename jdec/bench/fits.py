"""Time to accuracy: seconds until a whole fit first reaches it, and where they go.

Seconds run from the call of :func:`jdec.fit` on. A cold fit compiles all of its programs, a warm
one finds those that the fit before left in memory. The accuracy is looked at where a fit looks at
its labels anyway: after the DEC initialisation, and at the end of each interval. Labels only score.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jdec.metrics import clustering_accuracy
from jdec.trainer.compilation import CompilationClock
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.history import Record


class Task(NamedTuple):
    """Rows to cluster, and the accuracy whose time counts.

    Attributes:
        name: Of the data set.
        x: Rows [N D].
        y: Classes [N], to score with.
        image_shape: Of rows that are images.
        level: The accuracy.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    image_shape: tuple[int, ...] | None
    level: float


def measure_fits(
    task: Task,
    config: Config,
    *,
    n_seeds: int = 1,
    progress: bool = False,
    note: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Fit seed 0 cold, and then this and other seeds warm.

    Args:
        task: Rows and classes.
        config: Of the fits.
        n_seeds: Number of seeds of the warm fits.
        progress: Show the progress bars of the fits on stderr.
        note: Called with what is measured next.

    Returns:
        JSON values: of each fit the seconds in all and to the accuracy, by phase and compiling.
    """
    clock, runs = CompilationClock(), []
    jax.clear_caches()
    for number in range(n_seeds + 1):
        seed, start = max(0, number - 1), "warm" if number else "cold"
        note(f"{task.name}, seed {seed}, {start}")
        runs.append(
            {"start": start, "seed": seed, **_measure_fit(task, config, seed, clock, progress)}
        )
    shape = list(task.x.shape)
    return {"dataset": task.name, "shape": shape, "level": task.level, "runs": runs}


def _measure_fit(
    task: Task, config: Config, seed: int, clock: CompilationClock, progress: bool
) -> dict[str, Any]:
    timeline: list[tuple[float, float | None]] = []

    def note(record: Record) -> None:
        timeline.append((time.perf_counter() - began, record.get("acc")))

    before, began = clock.as_record(), time.perf_counter()
    result = fit(
        jax.random.key(seed), task.x, config, y=task.y, callbacks=[note], progress=progress
    )
    seconds = time.perf_counter() - began
    after = clock.as_record()
    phases = {name: round(value, 3) for name, value in result.seconds.items()}
    phases["other"] = round(max(0.0, seconds - sum(phases.values())), 3)
    return {
        "acc": round(clustering_accuracy(task.y, result.labels), 4),
        "seconds": round(seconds, 3),
        "seconds_to_level": time_to(timeline, [task.level])[f"{task.level:g}"],
        "phases": phases,
        "shares": {name: round(value / seconds, 4) for name, value in phases.items()},
        "compiling": {name: round(after[name] - before[name], 2) for name in after},
        "n_intervals": result.n_intervals,
    }


def time_to(
    timeline: list[tuple[float, float | None]], levels: Sequence[float]
) -> dict[str, float | None]:
    """Return the seconds at which each accuracy was first reached, None where it never was.

    Args:
        timeline: Seconds and accuracy (None in pretraining) as the fit went on.
        levels: Accuracies.

    Returns:
        Seconds by accuracy.

    Examples:
        >>> time_to([(5.0, None), (7.0, 0.8), (8.0, 0.9)], [0.8, 0.85, 0.95])
        {'0.8': 7.0, '0.85': 8.0, '0.95': None}
    """
    found: dict[str, float | None] = {}
    for level in levels:
        reached = (seconds for seconds, acc in timeline if acc is not None and acc >= level)
        first = next(reached, None)
        found[f"{level:g}"] = None if first is None else round(first, 2)
    return found
