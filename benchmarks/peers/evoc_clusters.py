"""EVoC, for embedding vectors: it chooses the number of clusters, and leaves rows out as noise."""

import time
from typing import Any

import evoc

from benchmarks.peers import Task
from benchmarks.peers.fits import load_rows, scaled, score
from benchmarks.peers.rates import versions


def cluster(task: Task) -> dict[str, Any]:
    """Cluster with its own defaults, told about how many clusters there are."""
    began = time.perf_counter()
    dataset = load_rows(task)
    labels = evoc.EVoC(approx_n_clusters=task.n_clusters).fit_predict(scaled(dataset.x))
    return {
        "versions": versions("evoc"),
        "seconds": time.perf_counter() - began,
        **score(dataset.y, labels),
    }
