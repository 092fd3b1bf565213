"""UMAP, and HDBSCAN or k-means on what it gives: what many would pick instead of DEC.

Settings are those that UMAP's documentation advises for clustering: many neighbours, no least
distance. It runs without a seed, which would keep it on one core. HDBSCAN chooses the number of
clusters itself, and leaves rows out as noise.
"""

import time
from typing import Any

import umap
from sklearn.cluster import HDBSCAN, KMeans

from benchmarks.peers import Task
from benchmarks.peers.fits import load_rows, scaled, score
from benchmarks.peers.rates import versions


def cluster(task: Task) -> dict[str, Any]:
    """Embed and cluster, from loading to labels; the least cluster holds 1 % of the rows."""
    began = time.perf_counter()
    dataset = load_rows(task)
    reducer = umap.UMAP(n_neighbors=30, min_dist=0.0, n_components=10, n_jobs=task.threads)
    embedding = reducer.fit_transform(scaled(dataset.x))
    embedded = time.perf_counter()
    method = HDBSCAN(min_cluster_size=max(5, len(embedding) // 100), min_samples=10, copy=True)
    labels = method.fit_predict(embedding)
    done = time.perf_counter()
    return {
        "versions": versions("umap-learn", "scikit-learn"),
        "seconds": done - began,
        "phases": {"loading and UMAP": embedded - began, "HDBSCAN": done - embedded},
        **score(dataset.y, labels),
    }


def k_means(task: Task) -> dict[str, Any]:
    """Embed with UMAP's own defaults, in two dimensions, and partition by k-means."""
    began = time.perf_counter()
    dataset = load_rows(task)
    embedding = umap.UMAP(n_jobs=task.threads).fit_transform(scaled(dataset.x))
    method = KMeans(task.n_clusters, n_init=task.n_init, random_state=task.seed)
    labels = method.fit_predict(embedding)
    return {
        "versions": versions("umap-learn", "scikit-learn"),
        "seconds": time.perf_counter() - began,
        **score(dataset.y, labels),
    }
