"""The figures that every step loop reports, measured in the same way."""

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from benchmarks.peers import Task


def time_loops(
    task: Task,
    pretrain: Callable[[], float],
    train_interval: Callable[[], float],
    refresh: Callable[[], Any],
    *,
    libraries: tuple[str, ...],
    pretrain_steps: int | None = None,
) -> dict[str, Any]:
    """Time three pieces after warm-up, in turns within the process.

    Args:
        task: The work.
        pretrain: Runs one repeat of pretraining, returns its last loss.
        train_interval: Runs the steps of one interval and the refresh of P that ends it, returns
            the last loss.
        refresh: Recomputes P from all rows alone.
        libraries: Whose versions to tell.
        pretrain_steps: Steps of ``pretrain``, where they are not the task's.

    Returns:
        Seconds of each repeat: of a pretraining step, of a clustering step with its share of the
        refresh, and of a refresh; the last losses, which tell that all train alike.
    """
    pieces: Mapping[str, Callable[[], Any]] = {
        "pretrain": pretrain,
        "interval": train_interval,
        "refresh": refresh,
    }
    began = time.perf_counter()
    results = {name: piece() for name, piece in pieces.items()}
    warm_up = time.perf_counter() - began
    seconds: dict[str, list[float]] = {name: [] for name in pieces}
    for _ in range(task.repeats):
        for name, piece in pieces.items():
            began = time.perf_counter()
            results[name] = piece()
            seconds[name].append(time.perf_counter() - began)
    n_steps = pretrain_steps or task.pretrain_steps
    return {
        "versions": versions(*libraries),
        "warm_up_seconds": warm_up,
        "pretrain_step": [value / n_steps for value in seconds["pretrain"]],
        "cluster_step": [value / task.update_interval for value in seconds["interval"]],
        "refresh": seconds["refresh"],
        "pretrain_loss": float(results["pretrain"]),
        "cluster_loss": float(results["interval"]),
    }


def versions(*libraries: str) -> dict[str, str]:
    """Return the version of each library.

    Examples:
        >>> list(versions("numpy"))
        ['numpy']
    """
    return {name: version(name) for name in libraries}
