"""Several processes of one run: what they exchange, and what all raise when one does."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree


def is_primary() -> bool:
    """Whether this process writes the files."""
    return jax.process_index() == 0


def allgather(array: np.ndarray) -> np.ndarray:
    """Stack an array of the host over all processes, [P …], bit by bit."""
    if jax.process_count() == 1:
        return array[None]
    # As bytes, since JAX would round 64 bits to 32.
    data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    gathered = np.asarray(multihost_utils.process_allgather(data))
    return gathered.reshape(-1).view(array.dtype).reshape(-1, *array.shape)


def allgather_json(value: Any) -> list[Any]:
    """Return the JSON values of all processes."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = allgather(np.array(len(text)))
    texts = allgather(np.pad(text, (0, int(lengths.max()) - len(text))))
    pairs = zip(texts, lengths.tolist(), strict=True)
    return [json.loads(text[:length].tobytes()) for text, length in pairs]


def broadcast_from_primary(tree: PyTree) -> PyTree:
    """Return the arrays of process 0 on all, whose own have the same shapes."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


@contextmanager
def raised_everywhere() -> Iterator[None]:
    """Raise on every process what one raises, else the others hang in a collective."""
    reason = None
    try:
        yield
    except ValueError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error)
    for message in allgather_json(reason):
        if message is not None:
            raise ValueError(message)


def check_processes_agree(values: Mapping[str, Any]) -> None:
    """Raise on every process if a JSON value differs somewhere; names the process and the values.

    Before any work: processes that differ would wait for each other in programs that do not match,
    or end with a result that is nobody's.
    """
    everywhere = allgather_json(dict(values))
    expected = everywhere[0]
    for process, values in enumerate(everywhere):
        differences = [
            f"{name}: {_shortened(values.get(name))} against {_shortened(expected.get(name))}"
            for name in dict.fromkeys([*expected, *values])
            if values.get(name) != expected.get(name)
        ]
        if differences:
            raise ValueError(
                f"process {process} differs from process 0 in {'; '.join(differences[:5])}; "
                "start all processes with the same command and data"
            )


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
