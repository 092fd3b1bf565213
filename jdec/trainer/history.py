"""Training history, phase timings, progress bars."""

import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from jdec._typing import Params

#: A record of the history, as callbacks get it and history.jsonl holds it.
Record = dict[str, Any]
#: ``callback(record)``, or ``callback(record, snapshot)`` for one that takes two arguments.
Callback = Callable[..., Any]

# Reports (and checkpoints) in a stage of pretraining, and the maximum of steps between two of them.
_REPORTS = 20
_MAX_STEPS = 2000


def chunks(n_steps: int, first_step: int = 0) -> Iterator[tuple[int, int]]:
    """Cut a stage of pretraining into the first steps and lengths of its compiled calls."""
    size = min(max(1, -(-n_steps // _REPORTS)), _MAX_STEPS)
    for start in range(first_step, n_steps, size):
        yield start, min(size, n_steps - start)


class Snapshot:
    """Parameters and embeddings during a callback, whose buffers training then reuses."""

    def __init__(
        self, params: Params, centroids: Any = None, embed: Callable[[], Any] | None = None
    ) -> None:
        self._params, self._centroids, self._embed = params, centroids, embed

    @property
    def params(self) -> Params:
        """Parameters of the network, NumPy arrays."""
        return jax.tree.map(np.array, self._params)

    @property
    def centroids(self) -> Any:
        """Centroids [K Z], or None during pretraining."""
        return None if self._centroids is None else np.array(self._centroids)

    @property
    def embeddings(self) -> Any:
        """Embeddings of all rows, [N Z], or None during pretraining."""
        return None if self._embed is None else np.array(self._embed())


class Reporter:
    """Collects records and timings and forwards them to callbacks."""

    def __init__(self, callbacks: Sequence[Callback] = (), *, progress: bool = False) -> None:
        self.callbacks = [(callback, takes_snapshot(callback)) for callback in callbacks]
        self.progress = progress
        self.history: list[Record] = []
        self.seconds: dict[str, float] = {}

    def report(self, record: Record, snapshot: Snapshot) -> None:
        """Append a record with the seconds so far, and call the callbacks with it.

        One that raises is named in a warning and does not end the fit.
        """
        record["seconds"] = round(sum(self.seconds.values()), 3)
        self.history.append(record)
        for callback, takes_both in self.callbacks:
            try:
                callback(record, snapshot) if takes_both else callback(record)
            except Exception as error:
                name = getattr(callback, "__name__", type(callback).__name__)
                warnings.warn(
                    f"callback {name} raised {type(error).__name__}: {error}; the fit continues",
                    RuntimeWarning,
                    stacklevel=2,
                )

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the seconds of a block to those of a phase."""
        began = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began

    def bar(self, description: str, total: int, unit: str, *, initial: int = 0) -> Any:
        """Return a progress bar, which shows nothing unless asked for."""
        if self.progress:
            from tqdm.auto import tqdm  # in a notebook, importing it asks for ipywidgets
        else:
            from tqdm import tqdm
        return tqdm(
            desc=description,
            total=total,
            initial=initial,
            unit=unit,
            disable=not self.progress,
            dynamic_ncols=True,
        )


def takes_snapshot(callback: Callback) -> bool:
    """Whether a callback takes a second positional argument that has no default."""
    try:
        parameters = inspect.signature(callback).parameters.values()
    except (TypeError, ValueError):  # of some built-in functions
        return False
    required = [p for p in parameters if p.default is p.empty]
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in required) == 2
