"""k-means on the device: greedy k-means++ seeding and Lloyd iterations, restarts by vmap.

Laid out as [K, rows], so that minima run along contiguous rows and distances and sums are matrix
products, and in blocks of rows, so that memory stays O(N·K) and a block's distances in the cache.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jdec import _checks as checks
from jdec._rows import as_rows

_BLOCK_ENTRIES = 2**20

#: Matrix product in full precision, also on accelerators.
product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)

_ROUNDING = 1e-5  # of a cost, a sum over the rows in whatever order

#: ``map_restarts(function, keys, shared)``: stacks what ``function(key, *shared)`` returns.
MapFn = Callable[[Callable[..., Any], Key[Array, "R"], tuple[Any, ...]], Any]


class KMeansResult(NamedTuple):
    """The best of the restarts."""

    centroids: Float[Array, "K D"]
    labels: Int[Array, "N"]
    inertia: Float[Array, ""]  # sum of squared distances of the rows to their centroids
    n_iter: Int[Array, ""]
    converged: Bool[Array, ""]


class _Lloyd(NamedTuple):
    centroids: Float[Array, "K D"]
    inertia: Float[Array, ""]
    n_iter: Int[Array, ""]
    converged: Bool[Array, ""]


def kmeans(
    key: Key[Array, ""],
    x: Float[Array, "N D"],
    n_clusters: int,
    *,
    weights: Float[Array, "N"] | None = None,
    n_init: int = 20,
    max_iter: int = 300,
    tol: float | Float[Array, ""] = 1e-4,
    restarts_at_once: int | None = None,
    map_restarts: MapFn | None = None,
) -> KMeansResult:
    r"""Partition rows into clusters of minimal inertia :math:`\sum_i w_i \min_j \|x_i - \mu_j\|^2`.

    Each restart seeds by greedy k-means++ and iterates Lloyd's two steps until the centroids move
    less than ``tol`` or no label can change. Empty clusters are relocated to the farthest point.
    Traceable, with ``n_clusters``, ``n_init``, ``max_iter`` and ``restarts_at_once`` static.

    Args:
        key: Typed random key.
        x: Rows, [N D]; computed in float32 (float64 in JAX stays so), NumPy's centred in float64.
        n_clusters: Number of clusters K, at most N.
        weights: w, how much each row counts, [N], at least 0; 1 by default.
        n_init: Number of restarts.
        max_iter: Maximum number of Lloyd iterations in a restart.
        tol: Squared movement that ends a restart, relative to the mean variance of the columns.
        restarts_at_once: Restarts side by side under vmap; None: all of them on an accelerator, one
            on a CPU, where the first to converge then does not wait for the last.
        map_restarts: Runs the restarts in another way, as on several devices.

    Returns:
        Centroids [K D], labels [N] int32, inertia, iterations and convergence of the best restart.

    Raises:
        ValueError: If ``x`` is not a matrix of finite real numbers, or another argument is not of
            its kind or out of range. Compiled, NaN or infinity in ``x`` gives inertia NaN instead.

    Examples:
        >>> x = jnp.array([[0.0], [0.2], [5.0], [5.2]])
        >>> result = kmeans(jax.random.key(0), x, 2, n_init=2)
        >>> bool(jnp.allclose(jnp.sort(result.centroids[:, 0]), jnp.array([0.1, 5.1])))
        True

    Source: Lloyd 1982; Arthur & Vassilvitskii 2007. Xie et al. 2016, section 3.2 use 20 restarts.
    """
    checks.check_key("key", key)
    x = rows_to_cluster(x, n_clusters)
    checks.check_integer("n_init", n_init)
    checks.check_integer("max_iter", max_iter)
    checks.check_non_negative("tol", tol)
    if restarts_at_once is None:
        restarts_at_once = 1 if jax.default_backend() == "cpu" else n_init
    checks.check_integer("restarts_at_once", restarts_at_once)
    if map_restarts is None:
        map_restarts = partial(map_in_turn, batch_size=min(restarts_at_once, n_init))
    checks.check_function("map_restarts", map_restarts)
    offset = np.zeros((1, x.shape[1]), np.float32)
    if isinstance(x, np.ndarray):
        # In float64, and before the rows become float32, which would cut off what they differ in.
        offset = x.mean(axis=0, keepdims=True, dtype=np.float64)
        x = x - offset
    x = jnp.asarray(x)
    x = x if x.dtype == jnp.float64 else x.astype(jnp.float32)
    mean = x.mean(axis=0, keepdims=True)
    # Far from the origin |μ|² - 2xμ would cancel, so all of it runs on centred rows.
    x = x - mean
    is_finite = jnp.isfinite(x).all()
    if not isinstance(is_finite, jax.core.Tracer) and not is_finite:
        raise ValueError("x: expected finite numbers, got NaN or infinity; drop such rows first")
    mean = mean + jnp.asarray(offset, mean.dtype)
    threshold = (tol if isinstance(tol, jax.Array) else float(tol)) * x.var(axis=0).mean()
    rows_per_block = max(1, min(len(x), _BLOCK_ENTRIES // max(n_clusters, x.shape[1])))
    weights = None if weights is None else _as_weights(weights, x)
    blocks, block_weights = in_blocks(x, rows_per_block, weights)

    # All arrays as arguments: on several devices a function may not close over them.
    def restart(
        key: Key[Array, ""], x: Any, weights: Any, blocks: Any, block_weights: Any, threshold: Any
    ) -> _Lloyd:
        seeds = _greedy_plus_plus(key, x, weights, n_clusters)
        return lloyd(blocks, block_weights, seeds, max_iter=max_iter, threshold=threshold)

    keys, shared = jax.random.split(key, n_init), (x, weights, blocks, block_weights, threshold)
    runs = map_restarts(restart, keys, shared)
    # A restart that ended in NaN must not win.
    best = first_of_lowest(jnp.where(jnp.isnan(runs.inertia), jnp.inf, runs.inertia))
    run: _Lloyd = jax.tree.map(lambda leaf: leaf[best], runs)
    labels, distances = jax.lax.map(partial(_assign, centroids=run.centroids), blocks)
    # Compiled for a CPU, minima drop NaN.
    inertia = jnp.where(is_finite, (distances * block_weights).sum(), jnp.nan)
    labels = labels.reshape(-1)[: len(x)]
    return KMeansResult(run.centroids + mean, labels, inertia, run.n_iter, run.converged)


def first_of_lowest(cost: Float[Array, "R"]) -> Int[Array, ""]:
    """Return which is the lowest, and of those that differ from it by rounding the first.

    Restarts often end with the same partition, of whose numberings rounding would choose one.
    """
    lowest = cost.min()
    return jnp.argmax(cost <= lowest + _ROUNDING * jnp.abs(lowest))


def rows_to_cluster(x: Any, n_clusters: Any) -> Any:
    """Return rows [N D] of NumPy or JAX as :func:`kmeans` takes them, or raise."""
    if not isinstance(x, jax.Array):
        x = as_rows("x", x)
    checks.check_rank("x", x, 2)
    checks.check_real("x", x)
    checks.check_not_deleted("x", x)
    if x.shape[1] == 0:
        raise ValueError(f"x: expected at least one column, got shape {x.shape}")
    checks.check_n_clusters(n_clusters, x.shape[0])
    return x


def _as_weights(weights: Any, x: Float[Array, "N D"]) -> Float[Array, "N"]:
    checks.check_rank("weights", weights, 1)
    checks.check_same_length("weights", weights, "x", x)
    return jnp.asarray(weights, x.dtype)


def map_in_turn(
    function: Callable[..., Any],
    keys: Key[Array, "R"],
    shared: tuple[Any, ...],
    batch_size: int | None = None,
) -> Any:
    """Map as a :data:`MapFn` does, one after another or ``batch_size`` at once."""
    return jax.lax.map(lambda key: function(key, *shared), keys, batch_size=batch_size)


def in_blocks(
    x: Float[Array, "N D"], rows: int, weights: Float[Array, "N"] | None = None
) -> tuple[Float[Array, "blocks rows D"], Float[Array, "blocks rows"]]:
    """Cut rows and their weights into blocks of one size; the padding of the last has weight 0."""
    weights = jnp.ones(x.shape[0], x.dtype) if weights is None else weights
    n_blocks = -(-x.shape[0] // rows)
    padding = n_blocks * rows - x.shape[0]
    blocks = jnp.pad(x, ((0, padding), (0, 0))).reshape(n_blocks, rows, x.shape[1])
    weights = jnp.pad(weights, (0, padding)).reshape(n_blocks, rows)
    return blocks, weights


def _greedy_plus_plus(
    key: Key[Array, ""], x: Float[Array, "N D"], weights: Float[Array, "N"] | None, n_clusters: int
) -> Float[Array, "K D"]:
    # Each new seed is the best of several candidates drawn with probability ∝ weighted squared
    # distance to the nearest seed so far.
    n_candidates = 2 + int(math.log(n_clusters))
    squared_norms = (x * x).sum(axis=1)

    def distances_to(points: Float[Array, "C D"]) -> Float[Array, "C N"]:
        cross = product(points, x.T)
        squared = (points * points).sum(axis=1)[:, None] - 2 * cross + squared_norms[None, :]
        squared = jnp.maximum(squared, 0)
        return squared if weights is None else squared * weights[None, :]

    def drawn(mass: Float[Array, "N"], draws: Float[Array, "C"]) -> Float[Array, "C D"]:
        cumulative = jnp.cumsum(mass)
        # Counted: a binary search is a loop of its own, of a kernel or more each turn.
        rows = (cumulative[None, :] <= (draws * cumulative[-1])[:, None]).sum(axis=1)
        return x[jnp.minimum(rows, x.shape[0] - 1)]

    draws = jax.random.uniform(key, (n_clusters, n_candidates), x.dtype)
    first = drawn(jnp.ones_like(squared_norms) if weights is None else weights, draws[0, :1])
    seeds = jnp.zeros((n_clusters, x.shape[1]), x.dtype).at[0].set(first[0])

    def add_seed(carry, item):  # type: ignore[no-untyped-def]
        (seeds, nearest), (index, draws) = carry, item
        candidates = drawn(nearest, draws)
        improved = jnp.minimum(nearest[None, :], distances_to(candidates))
        best = jnp.argmin(improved.sum(axis=1))
        return (seeds.at[index].set(candidates[best]), improved[best]), None

    start = (seeds, distances_to(first)[0])
    (seeds, _), _ = jax.lax.scan(add_seed, start, (jnp.arange(1, n_clusters), draws[1:]))
    return seeds


def _assign(
    block: Float[Array, "rows D"], centroids: Float[Array, "K D"]
) -> tuple[Int[Array, "rows"], Float[Array, "rows"]]:
    n_clusters = centroids.shape[0]
    half = (centroids * centroids).sum(axis=1)[:, None] / 2 - product(centroids, block.T)
    minimum = half.min(axis=0)
    # XLA vectorises two simple reductions but not the variadic argmin.
    indices = jnp.arange(n_clusters, dtype=jnp.int32)[:, None]
    labels = jnp.where(half == minimum[None, :], indices, n_clusters - 1).min(axis=0)
    distances = jnp.maximum(2 * minimum + (block * block).sum(axis=1), 0)
    return labels, distances


def lloyd(
    blocks: Float[Array, "blocks rows D"],
    weights: Float[Array, "blocks rows"],
    seeds: Float[Array, "K D"],
    *,
    max_iter: int,
    threshold: Float[Array, ""],
) -> _Lloyd:
    """Iterate Lloyd's two steps from given seeds, as :func:`kmeans` does in each restart."""
    n_clusters, dtype = seeds.shape[0], blocks.dtype

    def visit(centroids, carry, block_and_weights):  # type: ignore[no-untyped-def]
        block, weight = block_and_weights
        sums, counts, inertia, farthest, farthest_distance = carry
        labels, distances = _assign(block, centroids)
        distances = distances * weight
        is_member = labels[None, :] == jnp.arange(n_clusters, dtype=jnp.int32)[:, None]
        members = jnp.where(is_member, weight[None, :], 0)
        row = jnp.argmax(distances)
        is_farther = distances[row] > farthest_distance
        carry = (
            sums + product(members, block),
            counts + members.sum(axis=1),
            inertia + distances.sum(),
            jnp.where(is_farther, block[row], farthest),
            jnp.where(is_farther, distances[row], farthest_distance),
        )
        return carry, None

    def iterate(run: _Lloyd) -> _Lloyd:
        zero, counts = jnp.zeros((), dtype), jnp.zeros(n_clusters, dtype)
        start = (jnp.zeros_like(seeds), counts, zero, jnp.zeros_like(seeds[0]), zero)
        (sums, counts, inertia, farthest, farthest_distance), _ = jax.lax.scan(
            partial(visit, run.centroids), start, (blocks, weights)
        )
        empty = counts == 0
        means = sums / jnp.maximum(counts, 1)[:, None]
        moved = jnp.where(empty[:, None], run.centroids, means)
        # One empty cluster an iteration is relocated; where every row sits on its centroid, up to
        # rounding, no point can be relocated, so empty clusters are left empty.
        apart = ((run.centroids - farthest[None, :]) ** 2).sum(axis=1).min()
        smallest = ((64 * jnp.finfo(dtype).eps * farthest) ** 2).sum()
        reseed = empty.any() & (farthest_distance > 0) & (apart > smallest)
        is_reseeded = reseed & (jnp.arange(n_clusters) == jnp.argmax(empty))
        moved = jnp.where(is_reseeded[:, None], farthest[None, :], moved)
        movement = ((moved - run.centroids) ** 2).sum()
        # Under jit a fixed centroid may change by a rounding error.
        rounding = ((jnp.finfo(dtype).eps * moved) ** 2).sum()
        converged = (movement <= threshold + rounding) & ~reseed
        return _Lloyd(moved, inertia, run.n_iter + 1, converged)

    start = _Lloyd(seeds, jnp.asarray(jnp.inf, dtype), jnp.int32(0), jnp.bool_(False))
    return jax.lax.while_loop(lambda run: (run.n_iter < max_iter) & ~run.converged, iterate, start)
