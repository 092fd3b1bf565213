from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from scipy.cluster.hierarchy import fcluster, ward

from jdec.core.kmeans import kmeans as plain_kmeans
from jdec.core.start import CRITERIA, initial_partition, overclustered_kmeans
from jdec.metrics import clustering_accuracy
from jdec.trainer.sharding import data_mesh, map_over_devices

KEY = jax.random.key(0)

kmeans = jax.jit(plain_kmeans, static_argnames=("n_clusters", "n_init"))
overclustered = jax.jit(
    overclustered_kmeans, static_argnames=("n_clusters", "overclustering_factor", "n_init")
)
partition = jax.jit(
    initial_partition,
    static_argnames=("n_clusters", "overclustering_factors", "n_init", "select", "map_restarts"),
)


def rows(array):
    return jnp.asarray(array, jnp.float32)


def check_close(found, expected):
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, found, expected)


def data_set():
    """Sixty rows of three overlapping groups."""
    rng = np.random.default_rng(0)
    y = rng.choice(3, 60)
    x = 3 * rng.standard_normal((3, 2))[y]
    return rows(x + 0.3 * rng.standard_normal((60, 2))), 3


# Sub-clusters merged by Ward linkage.


@pytest.mark.parametrize(("n_clusters", "factor"), [(1, 12), (4, 3), (12, 1)])
def test_merging_is_that_of_scipy(n_clusters, factor):
    rng = np.random.default_rng(1)
    distinct, sizes = rng.standard_normal((12, 3)), rng.integers(1, 5, 12)
    copies = np.repeat(distinct, sizes, axis=0)  # every distinct row is a sub-cluster
    y = fcluster(ward(copies), n_clusters, "maxclust")
    result = overclustered(KEY, rows(copies), n_clusters, overclustering_factor=factor, n_init=1)
    labels = np.asarray(result.labels)
    assert clustering_accuracy(y, labels) == 1
    means = [copies[labels == cluster].mean(axis=0) for cluster in range(n_clusters)]
    np.testing.assert_allclose(result.centroids, means, rtol=1e-5, atol=1e-6)


def test_sub_clusters_are_found_then_merged():
    x, n_clusters = data_set()
    result = overclustered(KEY, x, n_clusters, overclustering_factor=4, n_init=2)
    parts = np.asarray(kmeans(KEY, x, 4 * n_clusters, n_init=2).labels)
    means = np.stack([reference.as_float64(x)[parts == k].mean(axis=0) for k in range(12)])
    y = fcluster(ward(means[parts]), n_clusters, "maxclust")
    assert clustering_accuracy(y, result.labels) == 1
    labels = np.asarray(result.labels)
    means = [reference.as_float64(x)[labels == k].mean(axis=0) for k in range(n_clusters)]
    np.testing.assert_allclose(result.centroids, means, rtol=1e-5, atol=1e-5)
    chosen = reference.squared_distances(x, means)[np.arange(len(x)), labels]
    np.testing.assert_allclose(result.inertia, chosen.sum(), rtol=1e-5)
    assert result.labels.dtype == jnp.int32


def test_merging_far_from_the_origin():
    x, n_clusters = data_set()
    x = jnp.round(x * 256) / 256
    near, far = (overclustered(KEY, x + offset, n_clusters, n_init=2) for offset in (0.0, 1e4))
    np.testing.assert_array_equal(far.labels, near.labels)
    np.testing.assert_allclose(far.centroids - 1e4, near.centroids, atol=4e-3)
    np.testing.assert_allclose(far.inertia, near.inertia, rtol=1e-3)


def test_a_sub_cluster_for_each_cluster_is_plain_kmeans():
    x, n_clusters = data_set()
    check_close(
        overclustered(KEY, x, n_clusters, overclustering_factor=1, n_init=2),
        kmeans(KEY, x, n_clusters, n_init=2),
    )


@pytest.mark.parametrize("n_distinct", [1, 3])
def test_more_sub_clusters_than_distinct_rows(n_distinct):
    x = rows(np.array([[7.5, 7.5], [1, 0], [0, 5]])[np.arange(9) % n_distinct])
    result = overclustered(KEY, x, 2, n_init=2)
    assert jnp.isfinite(result.centroids).all()
    assert set(result.labels.tolist()) == set(range(min(2, n_distinct)))
    assert jnp.isfinite(result.inertia)
    np.testing.assert_array_equal(result.labels[: 9 - n_distinct], result.labels[n_distinct:])


# The partition that self-training starts from.


def two_arcs():
    """Long bent groups, which plain k-means cuts up."""
    angles = np.linspace(0, np.pi, 40)
    arc = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return rows(3 * np.concatenate([arc, [1.0, 0.4] - arc])), np.repeat([0, 1], 40)


def mean_kl(z, centroids, alpha=1.0):
    q = reference.soft_assignment(z, centroids, alpha)
    return reference.kl(reference.target_distribution(q), q).mean()


def test_by_default_it_is_plain_kmeans():
    x, n_clusters = data_set()
    found = partition(KEY, x, n_clusters, n_init=2)
    check_close(found, kmeans(jax.random.fold_in(KEY, 0), x, n_clusters, n_init=2))


@pytest.mark.parametrize("select", CRITERIA)
def test_the_best_of_all_candidates_is_chosen(select):
    x, _ = two_arcs()
    factors = (1, 8)
    found = partition(KEY, x, 4, overclustering_factors=factors, n_init=3, select=select)
    scores = []
    for index, factor in enumerate(factors):
        factor_key = jax.random.fold_in(KEY, index)
        keys = [factor_key] if select == "inertia" else jax.random.split(factor_key, 3)
        for key in keys:
            n_init = 3 if select == "inertia" else 1
            run = overclustered(key, x, 4, overclustering_factor=factor, n_init=n_init)
            kl = mean_kl(x, run.centroids)
            scores.append(-float(run.inertia) if select == "inertia" else kl)
    best = {"inertia": -float(found.inertia), "kl": mean_kl(x, found.centroids)}[select]
    np.testing.assert_allclose(best, max(scores), rtol=1e-4)
    assert len(set(np.round(scores, 4))) > 1


def test_alpha_is_that_of_the_kl():
    x, _ = two_arcs()
    for alpha in (0.2, 5.0):
        found = partition(
            KEY, x, 4, overclustering_factors=(1, 8), n_init=3, select="kl", alpha=alpha
        )
        scores = [
            mean_kl(x, overclustered(key, x, 4, overclustering_factor=f, n_init=1).centroids, alpha)
            for index, f in enumerate((1, 8))
            for key in jax.random.split(jax.random.fold_in(KEY, index), 3)
        ]
        np.testing.assert_allclose(mean_kl(x, found.centroids, alpha), max(scores), rtol=1e-4)


@pytest.mark.parametrize("select", CRITERIA)
def test_restarts_may_be_run_in_another_way(select):
    x, n_clusters = data_set()
    lengths = []

    def over_devices(function, keys, shared):
        lengths.append(len(keys))
        return map_over_devices(function, keys, data_mesh(2), shared=shared)

    settings = {"overclustering_factors": (2,), "n_init": 3, "select": select}
    found = partition(KEY, x, n_clusters, map_restarts=over_devices, **settings)
    check_close(found, partition(KEY, x, n_clusters, **settings))
    assert lengths == [3]


def test_nan_never_wins():
    """Embeddings that overflow: the KL of their partition is not finite."""
    x, n_clusters = data_set()
    result = partition(KEY, x * jnp.float32(1e30), n_clusters, n_init=2, select="kl")
    assert result.centroids.shape == (3, 2)
    assert result.labels.shape == (60,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"select": "divergence"}, "select: expected one of inertia, kl; got 'divergence'"),
        ({"n_clusters": 61}, "n_clusters: expected at most one .* n_clusters=61 for n_samples=60"),
        (
            {"overclustering_factors": (2, 0)},
            "overclustering_factors: expected an integer >= 1, got 0",
        ),
        ({"key": 0}, "key: expected a typed random key as of jax.random.key.0., got int 0"),
        ({"n_init": 0}, "n_init: expected an integer >= 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(unchecked, change, message):
    x, n_clusters = data_set()
    arguments = {"key": KEY, "embeddings": x, "n_clusters": n_clusters} | change
    with pytest.raises(ValueError, match=message):
        initial_partition(**arguments)
