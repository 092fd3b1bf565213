"""scikit-learn's k-means on the rows or their principal components, from loading to labels."""

import time
from typing import Any

from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

from benchmarks.peers import Task
from benchmarks.peers.fits import load_rows, scaled, score
from benchmarks.peers.rates import versions


def k_means(task: Task) -> dict[str, Any]:
    """k-means with many restarts."""
    return _timed(task, KMeans(task.n_clusters, n_init=task.n_init, random_state=task.seed))


def mini_batch_k_means(task: Task) -> dict[str, Any]:
    """k-means on mini-batches; its restarts choose the start alone."""
    return _timed(
        task, MiniBatchKMeans(task.n_clusters, n_init=task.n_init, random_state=task.seed)
    )


def pca_k_means(task: Task) -> dict[str, Any]:
    """k-means with many restarts on at most 50 principal components."""
    pca = PCA(min(50, task.dims[0]), random_state=task.seed)
    method = KMeans(task.n_clusters, n_init=task.n_init, random_state=task.seed)
    return _timed(task, make_pipeline(pca, method))


def _timed(task: Task, method: Any) -> dict[str, Any]:
    began = time.perf_counter()
    dataset = load_rows(task)
    labels = method.fit_predict(scaled(dataset.x))
    seconds = time.perf_counter() - began
    return {
        "versions": versions("scikit-learn"),
        "seconds": seconds,
        **score(dataset.y, labels),
    }
