from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import eigh
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_moons
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from jdec.core.graph import (
    graph_partition,
    graph_partitions,
    modularity,
    principal_components,
)
from jdec.core.voting import best_partitions, majority_vote
from jdec.metrics import clustering_accuracy, clustering_scores

KEY = jax.random.key(0)
components = jax.jit(
    principal_components, static_argnames=("n_components", "n_rows", "n_iter", "block_size")
)
STATIC = (
    "n_clusters",
    "subclusters",
    "eigenvectors",
    "diffusion_times",
    "n_init",
    "kmeans_restarts",
    "n_votes",
)
partition = jax.jit(graph_partition, static_argnames=STATIC)


def neighbors_of(x, k):
    found = NearestNeighbors(n_neighbors=k).fit(x).kneighbors(return_distance=False)
    return np.column_stack([np.arange(len(x)), found]).astype(np.int32)


# Principal components.


def test_components_are_those_of_scikit_learn():
    x = load_digits().data.astype(np.float32)
    found = np.asarray(components(KEY, jnp.asarray(x), 20), np.float64)
    expected = PCA(20, svd_solver="full").fit_transform(x.astype(np.float64))
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=2e-3 * np.abs(expected).max())


def test_components_do_not_see_the_padding():
    x = jax.random.normal(KEY, (40, 12))
    padded = jnp.concatenate([x, jnp.full((5, 12), 1e3)])
    for block_size in (1, 7, 42, 100):  # the last block does some rows again, which count once
        blocks = components(KEY, padded, 3, n_rows=40, block_size=block_size)
        np.testing.assert_allclose(blocks[:40], components(KEY, x, 3), rtol=1e-4, atol=1e-4)
    found = components(KEY, padded, 3, n_rows=40)
    np.testing.assert_allclose(found[:40], components(KEY, x, 3), rtol=1e-4, atol=1e-4)
    narrow = components(KEY, padded, 20, n_rows=40)[:40]
    np.testing.assert_allclose(narrow, x - x.mean(axis=0, keepdims=True), rtol=1e-5, atol=1e-5)


def test_rows_of_few_columns_are_only_centred():
    x = jnp.array([[1.0, 2.0], [3.0, 8.0]])
    assert components(KEY, x, 2).tolist() == [[-1, -3], [1, 3]]


def test_components_are_centred_far_from_the_origin():
    x = np.random.default_rng(0).standard_normal((200, 8)) * np.arange(8, 0, -1)
    expected = PCA(2).fit_transform(x)
    found = np.asarray(components(KEY, jnp.asarray(x + 100, jnp.float32), 2))
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=0.02)


# Modularity.


def reference_modularity(labels, neighbors, n_clusters, resolution):
    """Newman & Girvan's sum over links, one by one."""
    e = np.zeros((n_clusters, n_clusters))
    for row, *others in neighbors:
        for other in others:
            e[labels[row], labels[other]] += 1
            e[labels[other], labels[row]] += 1
    e /= e.sum()
    return sum(e[k, k] - resolution * e[k].sum() ** 2 for k in range(n_clusters))


@given(seed=st.integers(0, 1000), n_clusters=st.integers(1, 5), resolution=st.floats(0, 2))
def test_modularity_is_that_of_the_links_one_by_one(seed, n_clusters, resolution):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_clusters, 20)
    neighbors = np.stack([rng.permutation(20)[:4] for _ in range(9)])
    found = modularity(
        jnp.asarray(labels), jnp.asarray(neighbors), n_clusters, resolution=resolution
    )
    expected = reference_modularity(labels, neighbors, n_clusters, resolution)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_modularity_of_known_graphs():
    cliques = np.array(
        [[a, *(b for b in group if b != a)] for group in ((0, 1, 2), (3, 4, 5)) for a in group]
    )
    value = partial(modularity, neighbors=jnp.asarray(cliques), n_clusters=2)
    assert float(value(jnp.array([0, 0, 0, 1, 1, 1]))) == pytest.approx(0.5)
    assert float(value(jnp.zeros(6, int))) == pytest.approx(0)
    assert float(value(jnp.array([0, 1, 0, 1, 0, 1]))) < 0


# Partitions.


def test_bent_clusters_are_kept_whole():
    """Two half moons, which k-means cuts up."""
    x, y = make_moons(600, noise=0.05, random_state=0)
    plain = KMeans(2, n_init=10, random_state=0).fit_predict(x)
    assert clustering_accuracy(y, plain) < 0.9
    labels = partition(KEY, jnp.asarray(x, jnp.float32), jnp.asarray(neighbors_of(x, 10)), 2)
    assert clustering_accuracy(y, np.asarray(labels)) > 0.99


@pytest.mark.parametrize("time", [0.0, 9.0])
def test_eigenvectors_are_those_of_the_normalised_graph(time):
    """Every row its own sub-cluster: Coifman & Lafon's map, in float64."""
    x = load_digits().data[:100].repeat(3, axis=0)  # all three copies of a row are one sub-cluster
    neighbors = neighbors_of(x, 20)
    adjacency = np.zeros((300, 300))
    np.add.at(adjacency, (neighbors[:, :1], neighbors[:, 1:]), 1)
    adjacency += adjacency.T
    merge = np.kron(np.eye(100), np.ones((3, 1)))
    links = merge.T @ adjacency @ merge
    scale = 1 / np.sqrt(links.sum(axis=1))
    values, vectors = eigh(links * scale[:, None] * scale[None, :])
    found = jax.jit(graph_partitions, static_argnames=STATIC[:-1])(
        KEY,
        jnp.asarray(x, jnp.float32),
        jnp.asarray(neighbors),
        5,
        subclusters=20,
        eigenvectors=(4.0,),
        diffusion_times=(time,),
        n_init=3,
        kmeans_restarts=1,
    )

    def coordinates(time):
        rows = (vectors * np.maximum(values, 0) ** time)[:, -20:]
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def inertia(labels):
        rows = coordinates(time)
        centres = np.stack([rows[labels == k].mean(axis=0) for k in range(5)])
        return ((rows - centres[labels]) ** 2).sum()

    merges = KMeans(5, n_init=30, random_state=0)
    least = merges.fit(coordinates(time)).inertia_
    assert min(inertia(labels) for labels in np.asarray(found)[1:, ::3]) < 1.02 * least
    if time:
        assert inertia(merges.fit_predict(coordinates(0))) > 1.2 * least  # another partition


def test_the_only_vote_is_that_of_maximal_modularity():
    x = load_digits().data[:500].astype(np.float32)
    neighbors = jnp.asarray(neighbors_of(x, 10))
    value = partial(modularity, neighbors=neighbors, n_clusters=10, resolution=0.9)
    small: dict = {"n_init": 1, "kmeans_restarts": 1, "n_votes": 1}
    more: dict = {"n_init": 4, "kmeans_restarts": 6, "n_votes": 1}
    larger = partition(KEY, jnp.asarray(x), neighbors, 10, **more)
    for seed in range(3):
        plain = KMeans(10, n_init=1, random_state=seed).fit_predict(x)
        assert float(value(jnp.asarray(plain))) <= float(value(larger)) + 1e-6
    for ratio in (1.0, 1.5):
        one = partition(
            jax.random.key(1), jnp.asarray(x), neighbors, 10, eigenvectors=(ratio,), **small
        )
        assert float(value(one)) <= float(value(larger)) + 0.02


def test_of_several_votes_the_majority_is_returned():
    x = load_digits().data[:500].astype(np.float32)
    neighbors, few = jnp.asarray(neighbors_of(x, 10)), {"n_init": 3, "kmeans_restarts": 5}
    candidates = jax.jit(graph_partitions, static_argnames=STATIC[:-1])(
        KEY, jnp.asarray(x), neighbors, 10, **few
    )
    scores = jnp.array([modularity(one, neighbors, 10, resolution=0.85) for one in candidates])
    voters = best_partitions(candidates, scores, 10, n_partitions=3)
    expected = majority_vote(voters, 10)
    found = partition(KEY, jnp.asarray(x), neighbors, 10, n_votes=3, **few)
    np.testing.assert_array_equal(found, expected)


def test_digits_are_found_without_training(full_compilation_here):
    digits = load_digits()
    x = jnp.asarray(digits.data, jnp.float32)
    few = {"n_init": 5, "kmeans_restarts": 5}
    labels = partition(KEY, x, jnp.asarray(neighbors_of(digits.data, 15)), 10, **few)
    assert clustering_scores(digits.target, np.asarray(labels))["acc"] > 0.88
    plain = KMeans(10, n_init=10, random_state=0).fit_predict(digits.data)
    assert clustering_scores(digits.target, plain)["acc"] < 0.83


def test_links_of_a_sample_of_the_rows_are_enough():
    x, y = make_moons(900, noise=0.05, random_state=0)
    sample = np.sort(np.random.default_rng(0).choice(900, 300, replace=False))
    neighbors = sample[neighbors_of(x[sample], 8)].astype(np.int32)
    labels = partition(KEY, jnp.asarray(x, jnp.float32), jnp.asarray(neighbors), 2, subclusters=20)
    assert clustering_accuracy(y, np.asarray(labels)) > 0.98


@pytest.mark.parametrize(("n_rows", "n_clusters"), [(2, 1), (3, 2), (5, 5), (40, 13)])
def test_edge_sizes(n_rows, n_clusters):
    x = np.random.default_rng(0).standard_normal((n_rows, 3)).astype(np.float32)
    neighbors = neighbors_of(x, min(15, n_rows - 1))
    labels = np.asarray(partition(KEY, jnp.asarray(x), jnp.asarray(neighbors), n_clusters))
    assert labels.shape == (n_rows,)
    assert sorted(set(labels.tolist())) == list(range(n_clusters))


def test_equal_rows_give_some_partition():
    x = jnp.ones((30, 2))
    labels = partition(KEY, x, jnp.asarray(neighbors_of(np.ones((30, 2)), 5)), 3)
    assert set(np.asarray(labels).tolist()) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        ({"eigenvectors": ()}, "eigenvectors: expected at least one number, got none"),
        ({"eigenvectors": (1.0, 0.0)}, "eigenvectors: expected a finite number > 0, got 0.0"),
        ({"diffusion_times": ()}, "diffusion_times: expected at least one number, got none"),
        ({"diffusion_times": (-1.0,)}, "diffusion_times: expected a finite number >= 0, got -1.0"),
        ({"n_clusters": 7}, "n_clusters"),
        ({"subclusters": 0}, "subclusters: expected an integer >= 1, got 0"),
        ({"n_init": 0}, "n_init: expected an integer >= 1, got 0"),
        ({"kmeans_restarts": 0}, "kmeans_restarts: expected an integer >= 1, got 0"),
        ({"n_votes": 0}, "n_votes: expected an integer >= 1, got 0"),
        ({"neighbors": jnp.zeros(3, int)}, "neighbors"),
        ({"key": 0}, "key"),
    ],
)
def test_bad_arguments_of_a_partition(unchecked, change, needed):
    x = jnp.arange(12.0).reshape(6, 2)
    arguments = {"key": KEY, "points": x, "neighbors": jnp.zeros((6, 2), int), "n_clusters": 2}
    with pytest.raises(ValueError, match=needed):
        graph_partition(**(arguments | change))


def test_bad_arguments_of_modularity_and_components(unchecked):
    with pytest.raises(ValueError, match="resolution"):
        modularity(jnp.zeros(3, int), jnp.zeros((3, 2), int), 2, resolution=-1)
    with pytest.raises(ValueError, match="neighbors"):
        modularity(jnp.zeros(3, int), jnp.zeros(3, int), 2)
    with pytest.raises(ValueError, match="n_components"):
        principal_components(KEY, jnp.ones((3, 2)), 0)
    with pytest.raises(ValueError, match="n_rows"):
        principal_components(KEY, jnp.ones((3, 2)), 1, n_rows=4)
