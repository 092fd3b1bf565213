"""Where self-training starts: partitions of the pretrained embedding."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jdec import _checks as checks
from jdec.core.functional import log_soft_assignment, mean_kl
from jdec.core.kmeans import (
    KMeansResult,
    MapFn,
    first_of_lowest,
    kmeans,
    map_in_turn,
    product,
    rows_to_cluster,
)

#: What the best of several partitions is chosen by.
CRITERIA = ("inertia", "kl")

_MAX_SUBCLUSTERS = 1000


def initial_partition(
    key: Key[Array, ""],
    embeddings: Float[Array, "N Z"],
    n_clusters: int,
    *,
    overclustering_factors: Sequence[int] = (1,),
    n_init: int = 20,
    max_iter: int = 300,
    tol: float = 1e-4,
    select: str = "inertia",
    alpha: float | Float[Array, ""] = 1.0,
    map_restarts: MapFn | None = None,
) -> KMeansResult:
    r"""Return the best of several partitions of the pretrained embedding.

    Args:
        key: Typed random key.
        embeddings: Rows z, [N Z].
        n_clusters: Number of clusters K.
        overclustering_factors: To be tried, as of :func:`overclustered_kmeans`; 1 is plain k-means.
        n_init: Restarts for each factor.
        max_iter: Maximum number of iterations of a restart.
        tol: As in :func:`kmeans`.
        select: ``inertia``: the minimum; ``kl``: the maximum of :func:`mean_kl`.
        alpha: Degrees of freedom α, for ``kl``.
        map_restarts: As in :func:`kmeans`.

    Returns:
        The partition, as :func:`kmeans` returns it.

    Raises:
        ValueError: As :func:`kmeans`, or for an unknown criterion.

    Examples:
        >>> z = jnp.array([[0.0], [0.2], [5.0], [5.2]])
        >>> initial_partition(jax.random.key(0), z, 2, n_init=2).labels.shape
        (4,)

    Source: Xie et al. 2016, section 3.2 (plain k-means with 20 restarts).
    """
    checks.check_key("key", key)
    checks.check_rank("embeddings", embeddings, 2)
    checks.check_n_clusters(n_clusters, embeddings.shape[0])
    factors = checks.as_integers("overclustering_factors", overclustering_factors)
    if not factors:
        raise ValueError("overclustering_factors: expected at least one value, got none")
    checks.check_integer("n_init", n_init)
    checks.check_float32("alpha", alpha)
    if map_restarts is not None:
        checks.check_function("map_restarts", map_restarts)
    checks.check_choice("select", select, CRITERIA)
    cluster: Any = partial(overclustered_kmeans, n_clusters=n_clusters, max_iter=max_iter, tol=tol)
    found = []
    for index, factor in enumerate(factors):
        factor_key = jax.random.fold_in(key, index)
        partition = partial(cluster, overclustering_factor=factor)
        if select == "inertia":
            mapped = map_restarts if n_init > 1 else None
            best = partition(factor_key, embeddings, n_init=n_init, map_restarts=mapped)
            found.append(jax.tree.map(lambda leaf: leaf[None], best))
        else:
            one = partial(partition, n_init=1)
            keys = jax.random.split(factor_key, n_init)
            found.append((map_restarts or map_in_turn)(one, keys, (embeddings,)))
    runs: KMeansResult = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found)

    def kl(run: KMeansResult) -> Float[Array, ""]:
        value = mean_kl(log_soft_assignment(embeddings, run.centroids, alpha=alpha))
        return jnp.where(jnp.isfinite(value), value, -jnp.inf)

    cost = runs.inertia if select == "inertia" else -jax.lax.map(kl, runs)
    return jax.tree.map(lambda leaf: leaf[first_of_lowest(cost)], runs)


def partition_of_labels(
    embeddings: Float[Array, "N Z"], labels: Int[Array, "N"], n_clusters: int
) -> KMeansResult:
    """Return a partition as :func:`kmeans` does: with the means of its clusters and its inertia.

    An empty cluster has the mean of all rows.

    Args:
        embeddings: Rows z, [N Z].
        labels: Their clusters, [N].
        n_clusters: Number of clusters K.

    Returns:
        The partition, as :func:`kmeans` returns it, after no iteration.

    Raises:
        ValueError: If an argument is not of its kind.

    Examples:
        >>> z = jnp.array([[0.0], [2.0], [5.0]])
        >>> partition_of_labels(z, jnp.array([0, 0, 1]), 2).centroids.tolist()
        [[1.0], [5.0]]
    """
    checks.check_rank("embeddings", embeddings, 2)
    checks.check_rank("labels", labels, 1)
    checks.check_same_length("labels", labels, "embeddings", embeddings)
    mean = embeddings.mean(axis=0, keepdims=True)
    members = jax.nn.one_hot(labels, n_clusters, dtype=embeddings.dtype, axis=0)
    sizes = members.sum(axis=1, keepdims=True)
    # Centred: far from the origin the sums would lose digits.
    centroids = mean + product(members, embeddings - mean) / jnp.maximum(sizes, 1)
    inertia = ((embeddings - centroids[labels]) ** 2).sum()
    return KMeansResult(centroids, labels, inertia, jnp.int32(0), jnp.bool_(True))


def overclustered_kmeans(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    n_clusters: int,
    *,
    overclustering_factor: int = 6,
    n_init: int = 20,
    max_iter: int = 300,
    tol: float | Float[Array, ""] = 1e-4,
    map_restarts: MapFn | None = None,
) -> KMeansResult:
    r"""Partition rows by k-means into more clusters than asked, and merge these by Ward linkage.

    A cluster may then be long or bent, where one centroid of k-means would cut it up.

    Args:
        key: Typed random key.
        x: Rows, [N D].
        n_clusters: Number of clusters K.
        overclustering_factor: Sub-clusters per cluster, at most 1000 in all; 1 is :func:`kmeans`.
        n_init: Restarts of k-means.
        max_iter: Maximum number of iterations of a restart.
        tol: As in :func:`kmeans`.
        map_restarts: As in :func:`kmeans`.

    Returns:
        As :func:`kmeans`: the centroids are the means of the merged clusters, and ``labels`` the
        merged clusters themselves, so that a row need not belong to its nearest centroid.

    Raises:
        ValueError: As :func:`kmeans`.

    Examples:
        >>> x = jnp.array([[0.0], [0.2], [5.0], [5.2], [5.3]])
        >>> key = jax.random.key(0)
        >>> result = overclustered_kmeans(key, x, 2, overclustering_factor=2, n_init=2)
        >>> bool(jnp.allclose(jnp.sort(result.centroids[:, 0]), jnp.array([0.1, 15.5 / 3])))
        True

    Source: Wong, "A hybrid clustering method for identifying high-density clusters", JASA 1982;
    Ward 1963.
    """
    checks.check_integer("overclustering_factor", overclustering_factor)
    x = rows_to_cluster(x, n_clusters)
    n_parts = max(n_clusters, min(overclustering_factor * n_clusters, x.shape[0], _MAX_SUBCLUSTERS))
    parts = kmeans(
        key, x, n_parts, n_init=n_init, max_iter=max_iter, tol=tol, map_restarts=map_restarts
    )
    sizes = jnp.bincount(parts.labels, length=n_parts).astype(parts.centroids.dtype)
    centroids, merged = _ward_merge(parts.centroids, sizes, n_clusters)
    inertia = parts.inertia + (sizes * ((parts.centroids - centroids[merged]) ** 2).sum(1)).sum()
    return KMeansResult(centroids, merged[parts.labels], inertia, parts.n_iter, parts.converged)


def _ward_merge(
    centroids: Float[Array, "M D"], sizes: Float[Array, "M"], n_clusters: int
) -> tuple[Float[Array, "K D"], Int[Array, "M"]]:
    # Merge, M-K times, the two clusters whose union adds the minimum to the inertia.
    n_parts = centroids.shape[0]
    indices = jnp.arange(n_parts, dtype=jnp.int32)
    # Far from the origin the expanded distances would cancel.
    origin = centroids.mean(axis=0, keepdims=True)

    def merge(_, carry):  # type: ignore[no-untyped-def]
        means, weights, merged, alive = carry
        norms = (means * means).sum(axis=1)
        squared = norms[:, None] - 2 * product(means, means.T) + norms[None, :]
        total = weights[:, None] + weights[None, :]
        cost = squared * weights[:, None] * weights[None, :] / jnp.maximum(total, 1)
        usable = alive[:, None] & alive[None, :] & (indices[:, None] < indices[None, :])
        pair = jnp.argmin(jnp.where(usable, cost, jnp.inf))
        kept, gone = pair // n_parts, pair % n_parts
        weight = weights[kept] + weights[gone]
        mean = weights[kept] * means[kept] + weights[gone] * means[gone]
        means = means.at[kept].set(mean / jnp.maximum(weight, 1))
        weights = weights.at[kept].set(weight)
        merged = jnp.where(merged == gone, kept.astype(jnp.int32), merged)
        return means, weights, merged, alive.at[gone].set(False)

    start = (centroids - origin, sizes, indices, jnp.ones(n_parts, bool))
    means, _, merged, alive = jax.lax.fori_loop(0, n_parts - n_clusters, merge, start)
    kept = jnp.nonzero(alive, size=n_clusters)[0]
    rank = (jnp.cumsum(alive) - 1).astype(jnp.int32)
    return means[kept] + origin, rank[merged]
