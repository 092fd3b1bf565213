"""Partitions that follow the graph of nearest neighbours, and what chooses among them."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jdec import _checks as checks
from jdec.core.kmeans import kmeans, product, rows_to_cluster
from jdec.core.targets import sum_row_blocks
from jdec.core.voting import best_partitions, majority_vote

_MAX_SUBCLUSTERS = 1000
_MIN_ROWS = 3  # in a sub-cluster, on average
_RESTARTS = 10  # of k-means on eigenvectors, which are few
_MAX_ITER = 10  # of k-means into sub-clusters, which only cover the rows


def principal_components(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    n_components: int,
    *,
    n_rows: int | None = None,
    n_iter: int = 6,
    oversampling: int = 10,
    block_size: int | None = None,
) -> Float[Array, "N d"]:
    """Project centred rows on their first principal components, by subspace iteration.

    Args:
        key: Typed random key, of the first subspace.
        x: Rows, [N D].
        n_components: d; rows of fewer columns are only centred.
        n_rows: Number of rows, all by default; what follows is padding.
        n_iter: Iterations.
        oversampling: Directions beyond d that are iterated as well.
        block_size: Rows that are read at once, all by default: a compiler may copy them.

    Returns:
        Components, [N d]; their signs are arbitrary.

    Raises:
        ValueError: If an argument is not of its kind or out of range.

    Examples:
        >>> x = jnp.array([[0.0, 0.0], [3.0, 4.0]])
        >>> jnp.abs(principal_components(jax.random.key(0), x, 1)).tolist()
        [[2.5], [2.5]]

    Source: Halko, Martinsson & Tropp, SIAM Review 2011, algorithm 4.4.
    """
    checks.check_key("key", key)
    checks.check_rank("x", x, 2)
    checks.check_integer("n_components", n_components)
    checks.check_integer("n_iter", n_iter)
    checks.check_integer("oversampling", oversampling, minimum=0)
    if block_size is not None:
        checks.check_integer("block_size", block_size)
    n_rows = len(x) if n_rows is None else n_rows
    checks.check_integer("n_rows", n_rows, maximum=len(x))
    is_row = (jnp.arange(len(x)) < n_rows)[:, None]
    mean = jnp.where(is_row, x, 0).sum(axis=0, keepdims=True) / n_rows
    if x.shape[1] <= n_components:
        return x - mean

    def project(
        basis: Float[Array, "D r"], rows: Float[Array, "B D"], counts: Bool[Array, "B 1"]
    ) -> Float[Array, "B r"]:
        # (x - mean) V without the centred copy of all rows.
        return jnp.where(counts, product(rows, basis) - product(mean, basis), 0)

    def covariance(
        basis: Float[Array, "D r"], rows: Float[Array, "B D"], counts: Bool[Array, "B 1"]
    ) -> Float[Array, "D r"]:
        z = project(basis, rows, counts)
        return product(rows.T, z) - mean.T * z.sum(axis=0, keepdims=True)

    def total(basis: Float[Array, "D r"]) -> Float[Array, "D r"]:
        return sum_row_blocks(partial(covariance, basis), x, is_row, block_size=block_size)

    def iterate(_: Any, basis: Float[Array, "D r"]) -> Float[Array, "D r"]:
        return jnp.linalg.qr(total(basis))[0]

    width = min(n_components + oversampling, x.shape[1])
    basis = jnp.linalg.qr(jax.random.normal(key, (x.shape[1], width), x.dtype))[0]
    basis = jax.lax.fori_loop(0, n_iter, iterate, basis)
    # (V' X' X V) without the projections of all rows.
    projected = product(basis.T, total(basis))
    rotation = jnp.linalg.eigh(projected)[1][:, ::-1][:, :n_components]
    return project(product(basis, rotation), x, is_row)


def modularity(
    labels: Int[Array, "N"],
    neighbors: Int[Array, "S k"],
    n_clusters: int,
    *,
    resolution: float = 1.0,
) -> Float[Array, ""]:
    r"""Share of the links within clusters, less what would be there by chance.

    :math:`\sum_k e_{kk} - \gamma a_k^2` with :math:`e_{kl}` the share of the links between a row of
    cluster k and one of l, in either direction, and :math:`a_k = \sum_l e_{kl}`.

    Args:
        labels: Clusters, [N].
        neighbors: Index of a row, followed by those of its nearest other rows, [S k].
        n_clusters: Number of clusters K.
        resolution: γ: smaller values ask less for clusters of equal size.

    Returns:
        The modularity, at most 1.

    Raises:
        ValueError: If an argument is not of its kind or out of range.

    Examples:
        >>> neighbors = jnp.array([[0, 1], [1, 0], [2, 3], [3, 2]])
        >>> float(modularity(jnp.array([0, 0, 1, 1]), neighbors, 2))
        0.5

    Source: Newman & Girvan, Phys. Rev. E 2004; γ: Reichardt & Bornholdt, Phys. Rev. E 2006.
    """
    checks.check_rank("labels", labels, 1)
    checks.check_rank("neighbors", neighbors, 2)
    checks.check_integer("n_clusters", n_clusters)
    checks.check_non_negative("resolution", resolution)
    links = _count_links(labels, neighbors, n_clusters)
    links = links / jnp.maximum(links.sum(), 1)
    return jnp.trace(links) - resolution * (links.sum(axis=1) ** 2).sum()


def _count_links(
    labels: Int[Array, "N"], neighbors: Int[Array, "S k"], n_groups: int
) -> Float[Array, "M M"]:
    groups = labels[neighbors]
    start, end = groups[:, :1], groups[:, 1:]
    links = jnp.zeros((n_groups, n_groups), jnp.float32).at[start, end].add(1.0)
    return links + links.T


def graph_partition(
    key: Key[Array, ""],
    points: Float[Array, "N d"],
    neighbors: Int[Array, "S k"],
    n_clusters: int,
    *,
    resolution: float = 0.85,
    n_votes: int = 5,
    **settings: Any,
) -> Int[Array, "N"]:
    """Vote among those of :func:`graph_partitions` of highest :func:`modularity`.

    Args:
        key: Typed random key.
        points: Rows, [N d].
        neighbors: Index of a row, followed by those of its nearest other rows, [S k].
        n_clusters: Number of clusters K.
        resolution: As of :func:`modularity`.
        n_votes: Partitions that vote; 1 returns the best.
        **settings: Of :func:`graph_partitions`.

    Returns:
        Labels, [N] int32.

    Raises:
        ValueError: If an argument is not of its kind or out of range.

    Examples:
        >>> x = jnp.array([[0.0], [0.2], [0.1], [5.0], [5.2], [5.1]])
        >>> neighbors = jnp.array([[0, 2], [1, 2], [2, 0], [3, 5], [4, 5], [5, 3]])
        >>> labels = graph_partition(jax.random.key(0), x, neighbors, 2)
        >>> (labels == labels[0]).tolist()
        [True, True, True, False, False, False]
    """
    checks.check_integer("n_votes", n_votes)
    candidates = graph_partitions(key, points, neighbors, n_clusters, **settings)
    score = partial(modularity, neighbors=neighbors, n_clusters=n_clusters, resolution=resolution)
    scores = jax.lax.map(score, candidates)
    return majority_vote(
        best_partitions(candidates, scores, n_clusters, n_partitions=n_votes), n_clusters
    )


def graph_partitions(
    key: Key[Array, ""],
    points: Float[Array, "N d"],
    neighbors: Int[Array, "S k"],
    n_clusters: int,
    *,
    subclusters: int = 40,
    eigenvectors: Sequence[float] = (1.5, 2.0),
    diffusion_times: Sequence[float] = (2.0, 8.0),
    n_init: int = 20,
    kmeans_restarts: int = 50,
    max_iter: int = 300,
) -> Int[Array, "C N"]:
    r"""Partition rows by plain k-means, and by spectral clustering of their neighbour graph.

    Sub-clusters of k-means are merged by k-means on the first eigenvectors of the normalised graph
    of the links between them, each times its eigenvalue to the power of the diffusion time,
    :math:`\lambda_j^t v_j`, each sub-cluster's coordinates then scaled to length 1. More
    eigenvectors than clusters keep apart what the normalised cut into K parts would join for the
    sake of cutting up something larger; the powers let those count for less that a random walk of
    t steps would forget.

    Args:
        key: Typed random key.
        points: Rows, [N d].
        neighbors: Index of a row, followed by those of its nearest other rows, [S k].
        n_clusters: Number of clusters K.
        subclusters: Sub-clusters per cluster, at most 1000 in all and of three rows on average.
        eigenvectors: Their numbers to be tried, per cluster.
        diffusion_times: t, to be tried; 0 counts all eigenvectors alike.
        n_init: Clusterings into sub-clusters; each is tried with each number of eigenvectors and
            each diffusion time.
        kmeans_restarts: Partitions by plain k-means.
        max_iter: Maximum number of iterations of these.

    Returns:
        Labels, [C N] int32: the C partitions of k-means, then the spectral ones.

    Raises:
        ValueError: If an argument is not of its kind or out of range.

    Examples:
        >>> x = jnp.array([[0.0], [0.2], [0.1], [5.0], [5.2], [5.1]])
        >>> neighbors = jnp.array([[0, 2], [1, 2], [2, 0], [3, 5], [4, 5], [5, 3]])
        >>> graph_partitions(
        ...     jax.random.key(0), x, neighbors, 2, n_init=1, kmeans_restarts=3).shape
        (7, 6)

    Source: Ng, Jordan & Weiss, NIPS 2001; Shi & Malik, PAMI 2000; diffusion: Coifman & Lafon,
    "Diffusion maps", Appl. Comput. Harmon. Anal. 2006; sub-clusters: Yan, Huang & Jordan, "Fast
    approximate spectral clustering", KDD 2009.
    """
    checks.check_key("key", key)
    points = rows_to_cluster(points, n_clusters)
    checks.check_rank("neighbors", neighbors, 2)
    for name, value in (("subclusters", subclusters), ("n_init", n_init)):
        checks.check_integer(name, value)
    checks.check_integer("kmeans_restarts", kmeans_restarts)
    _check_weights(eigenvectors, diffusion_times)
    n_parts = min(subclusters * n_clusters, _MAX_SUBCLUSTERS, len(points) // _MIN_ROWS)
    n_parts = max(n_parts, n_clusters)
    counts = [min(max(round(ratio * n_clusters), 1), n_parts) for ratio in eigenvectors]
    n_vectors = max(counts)
    tried, times = zip(*itertools.product(counts, diffusion_times), strict=True)
    trials = (jnp.array(tried, jnp.int32), jnp.array(times, points.dtype))
    plain_key, spectral_key = jax.random.split(key)

    def plain(key: Key[Array, ""]) -> Int[Array, "N"]:
        return kmeans(key, points, n_clusters, n_init=1, max_iter=max_iter).labels

    def spectral(key: Key[Array, ""]) -> Int[Array, "C N"]:
        part_key, merge_key = jax.random.split(key)
        parts = kmeans(part_key, points, n_parts, n_init=1, max_iter=_MAX_ITER).labels
        sizes = jnp.bincount(parts, length=n_parts).astype(points.dtype)
        links = _count_links(parts, neighbors, n_parts)
        degrees = jnp.maximum(links.sum(axis=1), 1e-6)
        scale = jax.lax.rsqrt(degrees)
        values, vectors = jnp.linalg.eigh(links * scale[:, None] * scale[None, :])
        values = jnp.maximum(values[::-1][:n_vectors], 0)
        vectors = vectors[:, ::-1][:, :n_vectors]

        def merge(trial: tuple[Int[Array, ""], Float[Array, ""]]) -> Int[Array, "N"]:
            count, time = trial
            kept = jnp.where(jnp.arange(n_vectors) < count, vectors * values[None, :] ** time, 0)
            lengths = jnp.linalg.norm(kept, axis=1, keepdims=True)
            rows = kept / jnp.maximum(lengths, 1e-12)
            merged = kmeans(merge_key, rows, n_clusters, weights=sizes, n_init=_RESTARTS)
            return merged.labels[parts]

        return jax.lax.map(merge, trials)

    found = jax.lax.map(spectral, jax.random.split(spectral_key, n_init))
    of_kmeans = jax.lax.map(plain, jax.random.split(plain_key, kmeans_restarts))
    return jnp.concatenate([of_kmeans, found.reshape(-1, len(points))])


def _check_weights(eigenvectors: Sequence[float], diffusion_times: Sequence[float]) -> None:
    for name, values in (("eigenvectors", eigenvectors), ("diffusion_times", diffusion_times)):
        if not values:
            raise ValueError(f"{name}: expected at least one number, got none")
    for ratio in eigenvectors:
        checks.check_positive("eigenvectors", ratio)
    for time in diffusion_times:
        checks.check_non_negative("diffusion_times", time)
