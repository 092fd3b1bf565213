from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix

from jdec.core.voting import best_partitions, majority_vote
from jdec.metrics import clustering_accuracy

N_CLUSTERS = 4
vote = jax.jit(majority_vote, static_argnames="n_clusters")
best = jax.jit(best_partitions, static_argnames=("n_clusters", "n_partitions"))


def noisy(rng, labels, share):
    """The same partition with other numbers, and a share of the rows at random."""
    changed = rng.permutation(N_CLUSTERS)[labels]
    rows = rng.random(len(labels)) < share
    return np.where(rows, rng.integers(0, N_CLUSTERS, len(labels)), changed)


def reference_vote(partitions):
    """Matched by SciPy, counted row by row."""
    first = partitions[0]
    matched = [first]
    for labels in partitions[1:]:
        shared = confusion_matrix(labels, first, labels=range(N_CLUSTERS))
        matched.append(linear_sum_assignment(shared, maximize=True)[1][labels])
    elected = []
    for votes in np.stack(matched, axis=1):
        counts = np.bincount(votes, minlength=N_CLUSTERS)
        winners = np.flatnonzero(counts == counts.max())
        elected.append(votes[0] if votes[0] in winners else winners[0])
    return np.array(elected)


@given(seed=st.integers(0, 10_000), n_votes=st.integers(1, 5))
def test_votes_are_counted_as_row_by_row(seed, n_votes):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, N_CLUSTERS, 60)
    partitions = np.stack([noisy(rng, truth, 0.2) for _ in range(n_votes)])
    expected = reference_vote(partitions)
    assert set(expected.tolist()) == set(partitions[0].tolist())
    np.testing.assert_array_equal(vote(jnp.asarray(partitions), N_CLUSTERS), expected)


def test_partitions_that_lose_a_cluster_do_not_vote():
    partitions = jnp.array([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 2, 2, 2], [2, 2, 1, 0, 0]])
    found = best(partitions, jnp.array([0.8, 0.9, 0.1, 0.2]), 3, n_partitions=4)
    assert found.tolist() == [partitions[i].tolist() for i in (3, 2, 3, 3)]


def test_the_majority_errs_less_than_its_members():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, N_CLUSTERS, 2000)
    partitions = np.stack([noisy(rng, truth, 0.3) for _ in range(5)])
    single = max(clustering_accuracy(truth, one) for one in partitions)
    elected = np.asarray(vote(jnp.asarray(partitions), N_CLUSTERS))
    assert clustering_accuracy(truth, elected) > single + 0.1


def test_no_cluster_is_voted_out():
    """Cluster 2 of the first has one row, which the others give to cluster 1."""
    first, other = [0, 0, 1, 1, 2], [0, 0, 1, 1, 1]
    elected = vote(jnp.array([first, other, other, other]), 3)
    assert elected.tolist() == first


@given(seed=st.integers(0, 10_000))
def test_numbers_of_the_clusters_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, N_CLUSTERS, 60)
    partitions = np.stack([noisy(rng, truth, 0.2) for _ in range(3)])
    renumbered = partitions.copy()
    for i in (1, 2):
        renumbered[i] = rng.permutation(N_CLUSTERS)[partitions[i]]
    # Equal numbers of shared rows may be matched either way.
    shared = confusion_matrix(partitions[1], partitions[0], labels=range(N_CLUSTERS))
    if len(np.unique(shared)) == shared.size:
        found = vote(jnp.asarray(partitions[:2]), N_CLUSTERS)
        np.testing.assert_array_equal(vote(jnp.asarray(renumbered[:2]), N_CLUSTERS), found)


def test_the_best_that_differ_are_chosen_in_order():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, N_CLUSTERS, 500)
    third, first = noisy(rng, truth, 0.5), noisy(rng, truth, 0.3)
    again = (first + 1) % N_CLUSTERS  # other numbers
    nearly = first.copy()
    nearly[:5] = truth[:5]
    second = noisy(rng, truth, 0.3)
    partitions = jnp.asarray(np.stack([third, again, first, nearly, second]))
    scores = jnp.array([0.1, 0.5, 0.6, 0.4, 0.3])
    found = best(partitions, scores, N_CLUSTERS, n_partitions=4)
    np.testing.assert_array_equal(found, np.stack([first, second, third, first]))


def test_what_is_not_to_be_taken_is_not_taken():
    partitions = jnp.array([[0, 0, 1, 1], [0, 1, 0, 1]])
    found = best(partitions, jnp.array([-jnp.inf, 0.0]), 2, n_partitions=3)
    np.testing.assert_array_equal(found, partitions[jnp.array([1, 1, 1])])


@pytest.mark.parametrize(
    ("call", "needed"),
    [
        (lambda: majority_vote(jnp.zeros(3, int), 2), "partitions"),
        (lambda: majority_vote(jnp.zeros((2, 3), int), 0), "n_clusters"),
        (lambda: best_partitions(jnp.zeros(3, int), jnp.zeros(1), 2, n_partitions=1), "partitions"),
        (partial(best_partitions, jnp.zeros((1, 3), int), 0.0, 2, n_partitions=1), "scores"),
        (
            partial(best_partitions, jnp.zeros((1, 3), int), jnp.zeros(1), 2, n_partitions=0),
            "n_partitions",
        ),
    ],
)
def test_bad_arguments(unchecked, call, needed):
    with pytest.raises(ValueError, match=needed):
        call()
