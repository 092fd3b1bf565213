"""One partition from several good ones, by vote."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from optax.assignment import hungarian_algorithm

from jdec import _checks as checks

_SAME = 0.98  # share of the rows from which on two partitions are one


def best_partitions(
    partitions: Int[Array, "C N"],
    scores: Float[Array, "C"],
    n_clusters: int,
    *,
    n_partitions: int,
) -> Int[Array, "V N"]:
    """Return the partitions of highest score among those that differ, best first.

    One that has fewer clusters than another is passed over, and so is one that gives 98 % of the
    rows as a better one does, whatever the numbers of the clusters. Where too few differ, the best
    stands in the places that are left.

    Args:
        partitions: Labels, [C N].
        scores: Of each partition, [C]; -inf where it is not to be taken.
        n_clusters: Number of clusters K.
        n_partitions: V.

    Returns:
        Labels, [V N] int32.

    Raises:
        ValueError: If an argument is not of its kind or out of range.

    Examples:
        >>> partitions = jnp.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]])
        >>> best_partitions(partitions, jnp.array([0.3, 0.4, 0.1]), 2, n_partitions=2).tolist()
        [[1, 1, 0, 0], [0, 1, 1, 1]]
    """
    checks.check_rank("partitions", partitions, 2)
    checks.check_rank("scores", scores, 1)
    checks.check_integer("n_clusters", n_clusters)
    checks.check_integer("n_partitions", n_partitions)

    def count(labels: Int[Array, "N"]) -> Int[Array, ""]:
        return (jnp.bincount(labels, length=n_clusters) > 0).sum()

    counts = jax.lax.map(count, partitions)
    scores = jnp.where(counts < counts.max(), -jnp.inf, scores)
    best = jnp.argmax(scores)

    def choose(scores: Float[Array, "C"], _: Any) -> Any:
        index = jnp.where(jnp.isneginf(scores.max()), best, jnp.argmax(scores))
        shared = partial(_shared_rows, partitions[index], n_clusters=n_clusters)
        shares = jax.lax.map(lambda other: _agreement(shared(other)), partitions)
        return jnp.where(shares >= _SAME, -jnp.inf, scores).at[index].set(-jnp.inf), index

    return partitions[jax.lax.scan(choose, scores, None, length=n_partitions)[1]]


def majority_vote(partitions: Int[Array, "V N"], n_clusters: int) -> Int[Array, "N"]:
    """Give each row the cluster that most partitions give it, numbered as by the first of them.

    Clusters of the others are matched to those of the first by the rows that they share. The first
    decides between equal numbers of votes, and alone where a cluster would lose all its rows.

    Args:
        partitions: Labels, [V N].
        n_clusters: Number of clusters K.

    Returns:
        Labels, [N] int32.

    Raises:
        ValueError: If an argument is not of its kind or out of range.

    Examples:
        >>> majority_vote(jnp.array([[0, 0, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0]]), 2).tolist()
        [0, 0, 0, 1]

    Source: Dimitriadou, Weingessel & Hornik, "Voting-merging: an ensemble method for clustering",
    ICANN 2001.
    """
    checks.check_rank("partitions", partitions, 2)
    checks.check_integer("n_clusters", n_clusters)
    first = partitions[0]

    def renumbered(labels: Int[Array, "N"]) -> Int[Array, "N"]:
        rows, columns = hungarian_algorithm(-_shared_rows(labels, first, n_clusters))
        return jnp.zeros(n_clusters, jnp.int32).at[rows].set(columns.astype(jnp.int32))[labels]

    def add(votes: Float[Array, "N K"], labels: Int[Array, "N"]) -> Any:
        return votes + jax.nn.one_hot(renumbered(labels), n_clusters), None

    votes = 1.5 * jax.nn.one_hot(first, n_clusters)
    votes, _ = jax.lax.scan(add, votes, partitions[1:])
    elected = jnp.argmax(votes, axis=1).astype(jnp.int32)
    sizes, before = (jnp.bincount(one, length=n_clusters) for one in (elected, first))
    return jnp.where(jnp.any((sizes == 0) & (before > 0)), first, elected)


def _shared_rows(
    first: Int[Array, "N"], second: Int[Array, "N"], n_clusters: int
) -> Float[Array, "K K"]:
    counts = jnp.bincount(first * n_clusters + second, length=n_clusters**2)
    return counts.reshape(n_clusters, n_clusters).astype(jnp.float32)


def _agreement(counts: Float[Array, "K K"]) -> Float[Array, ""]:
    """Share of rows that are in the cluster of the other that their own shares most with."""
    return jnp.minimum(counts.max(axis=0).sum(), counts.max(axis=1).sum()) / counts.sum()
