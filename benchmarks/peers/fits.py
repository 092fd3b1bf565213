"""What every whole fit does before and after: load the rows, score the labels."""

from typing import Any

import numpy as np

from benchmarks.peers import Task
from jdec.datasets import Dataset, load_dataset
from jdec.metrics import clustering_scores


def load_rows(task: Task) -> Dataset:
    """Load the leading rows of the task's data set."""
    dataset = load_dataset(task.dataset)
    if not task.n_rows or dataset.y is None:
        return dataset
    return Dataset(
        x=dataset.x[: task.n_rows],
        y=dataset.y[: task.n_rows],
        name=dataset.name,
        image_shape=dataset.image_shape,
    )


def scaled(x: np.ndarray) -> np.ndarray:
    """Divide all by the root mean square, as jdec does by default."""
    return (x / np.sqrt(np.mean(np.square(x, dtype=np.float64)))).astype(np.float32)


def score(y: np.ndarray | None, labels: Any) -> dict[str, Any]:
    """Score labels; rows that a method calls noise (-1) count as one cluster more."""
    labels = np.asarray(labels)
    scores = clustering_scores(y, labels) if y is not None else {}
    found = np.unique(labels[labels >= 0])
    return {"scores": scores, "n_found": len(found), "noise": float(np.mean(labels < 0))}
