"""What a fit tells of itself on its way: records, seconds by phase, progress bars."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

#: A record of the history, as :func:`jdec.fit` hands it to callbacks and writes it to
#: history.jsonl.
Record = dict[str, Any]

# Reports (and checkpoints) in a stage of pretraining, and the most steps between two of them.
_REPORTS = 20
_MOST_STEPS = 2000


def chunks(n_steps: int, first_step: int = 0) -> Iterator[tuple[int, int]]:
    """Cut a stage of pretraining into the first steps and lengths of its compiled calls.

    Examples:
        >>> list(chunks(60, first_step=55))
        [(55, 3), (58, 2)]
    """
    size = min(max(1, -(-n_steps // _REPORTS)), _MOST_STEPS)
    for start in range(first_step, n_steps, size):
        yield start, min(size, n_steps - start)


class Reporter:
    """The history and the seconds of a fit, and who is told of them."""

    def __init__(
        self, callbacks: Sequence[Callable[[Record], None]] = (), *, progress: bool = False
    ) -> None:
        self.callbacks, self.progress = callbacks, progress
        self.history: list[Record] = []
        self.seconds: dict[str, float] = {}

    def report(self, record: Record) -> None:
        """Keep a record with the seconds so far, and hand it to the callbacks."""
        record["seconds"] = round(sum(self.seconds.values()), 3)
        self.history.append(record)
        for callback in self.callbacks:
            callback(record)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count the seconds of a block as those of a phase."""
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
