from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
import reference
from sklearn.cluster import KMeans

from jdec.core.kmeans import in_blocks, lloyd
from jdec.core.kmeans import kmeans as plain_kmeans
from jdec.trainer.sharding import data_mesh, map_over_devices

kmeans = jax.jit(
    plain_kmeans, static_argnames=("n_clusters", "n_init", "max_iter", "restarts_at_once")
)

iterate = jax.jit(lloyd, static_argnames="max_iter")
KEY = jax.random.key(0)


def rows(array):
    return jnp.asarray(array, jnp.float32)


def blobs(seed, sizes, width, spread=0.1, distance=10.0):
    """Well separated groups of rows, shuffled; returns rows and their groups."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = distance * (np.arange(len(sizes))[:, None] + rng.uniform(0, 0.2, (1, width)))
    return rows(centres[y] + spread * rng.standard_normal((len(y), width))), y


def check_consistent(x, result, rtol=1e-5):
    """Labels and inertia belong to the centroids, by float64."""
    x = reference.as_float64(x)
    distances = reference.squared_distances(x, result.centroids)
    labels = np.asarray(result.labels)
    assert result.labels.dtype == jnp.int32
    assert labels.min() >= 0
    assert labels.max() < len(result.centroids)
    chosen = distances[np.arange(len(labels)), labels]
    # A row halfway between two centroids may go to either, to float32's accuracy.
    scale = 1 + np.abs(x - x.mean(axis=0)).max() ** 2
    np.testing.assert_array_less(chosen - distances.min(axis=1), 1e-5 * scale)
    np.testing.assert_allclose(
        result.inertia, distances.min(axis=1).sum(), rtol=rtol, atol=1e-6 * scale * len(labels)
    )


def test_a_row_of_weight_n_counts_as_n_rows():
    rng = np.random.default_rng(0)
    x, copies = rng.standard_normal((60, 3)), rng.integers(1, 9, 60)
    found = kmeans(KEY, rows(x), 4, weights=rows(copies), n_init=30, tol=0.0)
    expected = KMeans(4, n_init=30, random_state=0).fit(x, sample_weight=copies)
    np.testing.assert_allclose(found.inertia, expected.inertia_, rtol=1e-4)
    repeated = kmeans(KEY, rows(np.repeat(x, copies, axis=0)), 4, n_init=30, tol=0.0)
    np.testing.assert_allclose(found.inertia, repeated.inertia, rtol=1e-4)


def test_rows_without_weight_do_not_count():
    x, _ = blobs(0, (20, 20), 2)
    away = rows(np.full((5, 2), 1e3))
    weights = rows(np.repeat([1.0, 0.0], [40, 5]))
    found = kmeans(KEY, jnp.concatenate([x, away]), 2, weights=weights, n_init=3)
    plain = kmeans(KEY, x, 2, n_init=3)
    np.testing.assert_allclose(np.sort(found.centroids, 0), np.sort(plain.centroids, 0), rtol=1e-3)
    np.testing.assert_allclose(found.inertia, plain.inertia, rtol=1e-2)


def test_weights_belong_to_the_rows(unchecked):
    with pytest.raises(ValueError, match="weights"):
        plain_kmeans(KEY, rows(np.ones((4, 2))), 2, weights=rows(np.ones(3)))


@pytest.mark.usefixtures("full_compilation_here")
@pytest.mark.parametrize(("sizes", "width"), [((20, 20, 20), 3), ((50, 5, 1, 30), 1)])
def test_separated_groups_are_recovered(sizes, width):
    x, y = blobs(0, sizes, width)
    result = kmeans(KEY, x, len(sizes), n_init=4)
    means = [reference.as_float64(x)[y == group].mean(axis=0) for group in range(len(sizes))]
    order = np.argsort(np.asarray(result.centroids)[:, 0])
    np.testing.assert_allclose(result.centroids[order], means, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(result.labels, order[y])
    assert result.converged
    check_consistent(x, result)


SHAPES = [(60, 2, 3), (200, 10, 10), (300, 3, 5), (250, 1, 7), (80, 2, 20)]


def data_set(number):
    """Ten data sets of differing size, width, overlap, imbalance and number of duplicates."""
    rng = np.random.default_rng(number)
    n_rows, width, n_clusters = SHAPES[number % 5]
    overlap, imbalance = [0.3, 1.0, 2.0][number % 3], number // 3
    shares = (1.0 + np.arange(n_clusters)) ** imbalance
    y = rng.choice(n_clusters, n_rows, p=shares / shares.sum())
    x = 3 * rng.standard_normal((n_clusters, width))[y]
    x = x + overlap * rng.standard_normal((n_rows, width))
    if number % 4 == 3:  # half of the rows are copies of a few others
        x[::2] = x[2 * rng.integers(0, 5, len(x[::2])) + 1]
    return rows(x), n_clusters


@pytest.mark.parametrize("number", range(10))
def test_inertia_is_no_worse_than_scikit_learns(number):
    x, n_clusters = data_set(number)
    result = kmeans(KEY, x, n_clusters, n_init=100)  # 20 are within 2 % on all but the smallest
    rival = KMeans(n_clusters, n_init=20, random_state=0).fit(np.asarray(x, np.float64))
    assert result.inertia <= 1.02 * rival.inertia_
    check_consistent(x, result)
    # Further iterations find nothing to move.
    centroids = reference.lloyd(x, result.centroids, 1)
    assert reference.inertia(x, centroids) >= float(result.inertia) * 0.999


def test_lloyd_is_the_oracles():
    x, _ = data_set(1)
    x = x - x.mean(axis=0, keepdims=True)
    blocks, weights = in_blocks(x, 45)
    assert blocks.shape == (5, 45, 10)  # 200 rows and 25 of padding
    for n_iter in (1, 3):
        run = iterate(blocks, weights, x[:4], max_iter=n_iter, threshold=jnp.float32(0))
        expected = reference.lloyd(x, x[:4], n_iter)
        np.testing.assert_allclose(run.centroids, expected, rtol=1e-4, atol=1e-5)
        before = reference.lloyd(x, x[:4], n_iter - 1)
        np.testing.assert_allclose(run.inertia, reference.inertia(x, before), rtol=1e-5)
        assert run.n_iter == n_iter
        assert not run.converged


def test_blocks_of_rows_change_nothing():
    x, n_clusters = data_set(2)
    wide = jnp.pad(x, ((0, 0), (0, 4096 - x.shape[1])))  # so wide that 256 rows fill a block
    whole, blocked = (kmeans(KEY, rows, n_clusters, n_init=2) for rows in (x, wide))
    found = blocked.centroids[:, : x.shape[1]]
    np.testing.assert_allclose(found, whole.centroids, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(blocked.centroids[:, x.shape[1] :], 0, atol=1e-6)
    np.testing.assert_allclose(blocked.inertia, whole.inertia, rtol=1e-5)
    np.testing.assert_array_equal(blocked.labels, whole.labels)


# Edge sizes.


def test_one_cluster_and_one_column_give_the_mean():
    x = rows(np.random.default_rng(0).standard_normal((11, 1)))
    result = kmeans(KEY, x, 1, n_init=2)
    np.testing.assert_allclose(result.centroids[0], np.mean(x, axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result.labels, 0)
    check_consistent(x, result)


def test_a_cluster_for_each_row():
    x = rows(np.random.default_rng(0).standard_normal((7, 2)))
    result = kmeans(KEY, x, 7, n_init=2)
    assert sorted(result.labels.tolist()) == list(range(7))
    np.testing.assert_allclose(result.inertia, 0, atol=1e-5)
    np.testing.assert_allclose(result.centroids[result.labels], x, atol=1e-5)


def test_one_row():
    result = kmeans(KEY, rows([[3.0, -2.0]]), 1)
    np.testing.assert_allclose(result.centroids, [[3, -2]], rtol=1e-6)
    assert (result.labels.tolist(), float(result.inertia)) == ([0], 0)
    assert result.converged


@pytest.mark.usefixtures("full_compilation_here")
def test_fewer_distinct_rows_than_clusters():
    for n_distinct in (1, 3, 4):
        x = rows(np.array([[7.5, 7.5], [1, 0], [0, 5], [2, 2]])[np.arange(9) % n_distinct])
        result = kmeans(KEY, x, 5, n_init=3)
        assert jnp.isfinite(result.centroids).all()
        assert result.converged
        assert result.n_iter < 20
        check_consistent(x, result)
        np.testing.assert_allclose(result.inertia, 0, atol=1e-4)


@pytest.mark.usefixtures("full_compilation_here")
@pytest.mark.parametrize(("n_distinct", "n_features"), [(5, 10), (4, 3), (6, 50)])
def test_many_copies_of_fewer_rows_than_clusters(n_distinct, n_features):
    """Their means and distances are off by a rounding error: nothing to fill empty clusters by."""
    rng = np.random.default_rng(0)
    x = rows(rng.normal(size=(n_distinct, n_features))[rng.integers(0, n_distinct, 3000)])
    result = kmeans(KEY, x, 8, n_init=2)
    assert result.converged
    assert result.n_iter < 20
    check_consistent(x, result)
    np.testing.assert_allclose(result.inertia, 0, atol=1e-6 * x.size)


def test_constant_columns_change_nothing():
    x, n_clusters = data_set(0)
    wide = jnp.concatenate([x, jnp.full((len(x), 2), 3.0)], axis=1)
    result, plain = kmeans(KEY, wide, n_clusters), kmeans(KEY, x, n_clusters)
    np.testing.assert_allclose(result.centroids[:, 2:], 3, rtol=1e-6)
    np.testing.assert_allclose(result.inertia, plain.inertia, rtol=1e-4)


@pytest.mark.usefixtures("full_compilation_here")
def test_far_from_the_origin():
    # On a grid of 1/256 the shift is exact; float32 then resolves the centroids to 1e-3.
    x, n_clusters = data_set(0)
    x = jnp.round(x * 256) / 256
    near, far = kmeans(KEY, x, n_clusters), kmeans(KEY, x + 1e4, n_clusters)
    np.testing.assert_array_equal(far.labels, near.labels)
    np.testing.assert_allclose(far.centroids - 1e4, near.centroids, atol=2e-3)
    np.testing.assert_allclose(far.inertia, near.inertia, rtol=1e-4)


@pytest.mark.parametrize("n_stray", [1, 2])
def test_an_empty_cluster_is_relocated_to_the_farthest_row(n_stray):
    x, y = blobs(2, (20, 20, 20)[: 2 + n_stray - 1], 2)
    x = jnp.concatenate([x, rows([[90.0, -40.0]])])
    blocks, weights = in_blocks(x, 16)
    n_clusters = int(y.max()) + 2
    strays = jnp.full((n_stray, 2), 1e3) * jnp.arange(1.0, n_stray + 1)[:, None]
    seeds = jnp.concatenate([x[: n_clusters - n_stray], strays])
    threshold = jnp.float32(1e-6)
    run = iterate(blocks, weights, seeds, max_iter=1, threshold=threshold)
    np.testing.assert_array_equal(run.centroids[n_clusters - n_stray], x[-1])
    assert not run.converged
    run = iterate(blocks, weights, seeds, max_iter=100, threshold=threshold)
    labels = reference.squared_distances(x, run.centroids).argmin(axis=1)
    assert len(set(labels.tolist())) == n_clusters
    assert run.converged


def test_float64_stays_float64():
    with quick.float64():
        x = jnp.asarray(data_set(0)[0], jnp.float64)
        result = kmeans(KEY, x, 3, n_init=2)
        assert result.centroids.dtype == result.inertia.dtype == jnp.float64
        assert result.labels.dtype == jnp.int32
        np.testing.assert_allclose(
            result.inertia, reference.inertia(x, result.centroids), rtol=1e-12
        )


def test_bfloat16_is_computed_in_float32():
    x = data_set(0)[0].astype(jnp.bfloat16)
    result = kmeans(KEY, x, 3, n_init=2)
    assert result.centroids.dtype == jnp.float32
    check_consistent(x.astype(jnp.float32), result)


# Randomness, and the ways to run it.


@pytest.mark.usefixtures("full_compilation_here")
def test_the_key_determines_every_bit():
    x, n_clusters = data_set(4)
    first, again = (kmeans(KEY, x, n_clusters, n_init=1, tol=1e-4) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    keys = jax.random.split(KEY, 4)
    others = [kmeans(key, x, n_clusters, n_init=1, tol=1e-4) for key in keys]
    assert any((other.centroids != first.centroids).any() for other in others)


def test_more_restarts_are_never_worse():
    x, n_clusters = data_set(4)
    keys = jax.random.split(jax.random.key(3), 3)
    few = [kmeans(key, x, n_clusters, n_init=1, tol=1e-4).inertia for key in keys]
    many = [kmeans(key, x, n_clusters).inertia for key in keys]
    assert np.mean(many) < np.mean(few)


@pytest.mark.usefixtures("full_compilation_here")
def test_restarts_side_by_side_or_one_by_one_or_under_vmap():
    x, n_clusters = data_set(0)
    keys = jax.random.split(KEY, 2)
    one_by_one = [kmeans(key, x, n_clusters, n_init=3, restarts_at_once=1) for key in keys]
    at_once = [kmeans(key, x, n_clusters, n_init=3, restarts_at_once=3) for key in keys]
    run = partial(kmeans, x=x, n_clusters=n_clusters, n_init=3, restarts_at_once=1)
    vmapped = jax.vmap(run)(keys)
    for i, single in enumerate(one_by_one):
        for other in (at_once[i], jax.tree.map(itemgetter(i), vmapped)):
            np.testing.assert_allclose(other.centroids, single.centroids, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(other.inertia, single.inertia, rtol=1e-5)
            np.testing.assert_array_equal(other.labels, single.labels)
            assert other.n_iter == single.n_iter


@pytest.mark.usefixtures("full_compilation_here")
def test_restarts_may_be_run_in_another_way():
    x, n_clusters = data_set(4)
    default = kmeans(KEY, x, n_clusters, n_init=4)
    n_keys = []

    def map_restarts(function, keys, shared):
        n_keys.append(len(keys))
        return map_over_devices(function, keys, data_mesh(3), shared=shared)

    found = jax.jit(
        lambda key, x: plain_kmeans(key, x, n_clusters, n_init=4, map_restarts=map_restarts)
    )(KEY, x)
    assert n_keys == [4]
    jax.tree.map(np.testing.assert_array_equal, found, default)


def test_max_iter_ends_a_restart():
    x, n_clusters = data_set(4)
    result = kmeans(KEY, x, n_clusters, n_init=1, max_iter=1)
    assert (int(result.n_iter), bool(result.converged)) == (1, False)
    check_consistent(x, result)


def test_a_wide_tolerance_ends_earlier():
    x, n_clusters = data_set(4)
    loose, exact = (kmeans(KEY, x, n_clusters, n_init=1, tol=tol) for tol in (1.0, 0.0))
    assert loose.n_iter < exact.n_iter
    assert loose.inertia >= exact.inertia
    # A tolerance of zero is met where nothing moves any more.
    assert exact.converged
    assert exact.n_iter < 30


def temporary_bytes(n_rows, width, n_clusters, n_init):
    x = jax.ShapeDtypeStruct((n_rows, width), jnp.float32)
    compiled = kmeans.lower(KEY, x, n_clusters, n_init=n_init, restarts_at_once=1).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.usefixtures("full_compilation_here")
def test_memory_is_that_of_rows_and_distances():
    n_rows, width, n_clusters = 20_000, 24, 12
    floats = 4 * n_rows * (width + n_clusters)
    few = temporary_bytes(n_rows, width, n_clusters, 2)
    many = temporary_bytes(n_rows, width, n_clusters, 20)
    # Neither all pairs' differences (N·K·D) nor a copy for every restart.
    assert few < 6 * floats < 4 * n_rows * n_clusters * width
    assert many - few < 0.1 * floats
    assert temporary_bytes(2 * n_rows, width, n_clusters, 2) < 2.5 * few


# Bad arguments.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x": np.zeros(3, np.float32)},
            r"x: Expected 2D array .*, got a 1D array of shape \(3,\)",
        ),
        ({"n_clusters": 0}, "n_clusters: expected an integer >= 1, got 0"),
        (
            {"n_clusters": 5},
            "n_clusters: expected at most one .*, got n_clusters=5 for n_samples=4",
        ),
        ({"n_clusters": 2.0}, "n_clusters: expected an integer >= 1, got 2.0"),
        ({"n_init": 0}, "n_init: expected an integer >= 1, got 0"),
        ({"max_iter": -1}, "max_iter: expected an integer >= 1, got -1"),
        ({"restarts_at_once": -1}, "restarts_at_once: expected an integer >= 1, got -1"),
        ({"tol": -1e-4}, "tol: expected a finite number >= 0, got -0.0001"),
        ({"tol": np.nan}, "tol: expected a finite number >= 0, got nan"),
    ],
)
def test_bad_arguments_are_refused(unchecked, change, message):
    arguments = {"x": np.zeros((4, 2), np.float32), "n_clusters": 2} | change
    with pytest.raises(ValueError, match=message):
        plain_kmeans(KEY, **arguments)
