import os
import subprocess
import sys
import tracemalloc
import warnings

import jax
import numpy as np
import pytest
import reference
import scipy.linalg
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, make_blobs, make_moons
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_array_api_input, parametrize_with_checks
from threadpoolctl import threadpool_limits

import jdec.baselines.methods
import jdec.baselines.spectral
from jdec.baselines.methods import LDMGI, SEC
from jdec.baselines.spectral import nearest_neighbors, smallest_eigenpairs, spectral_rotation

POWERS = [1e-8, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e8]
BOTH = pytest.mark.parametrize("method", [SEC, LDMGI])


def rows_of(*arguments, **keywords):
    # float32, as the estimators read them: the oracle has to see the same numbers.
    x, y = arguments[0](**keywords)
    return x.astype(np.float32), y


BLOBS, BLOB_OF = rows_of(
    make_blobs, n_samples=240, centers=4, n_features=6, cluster_std=2.5, random_state=0
)
MOONS, MOON_OF = rows_of(make_moons, n_samples=300, noise=0.05, random_state=0)
DIGITS = load_digits().data[:280].astype(np.float32)


def same_partition(one, other):
    return adjusted_rand_score(one, other) == 1


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Spare small matrices the wait for threads."""
    with threadpool_limits(1):
        yield


def agrees_with(fitted, matrix, *, n_clusters, rounding=1e-12):
    """Compare eigenvalues, subspace and partition with those of a dense matrix."""
    values, vectors = np.linalg.eigh(matrix)
    wanted = values[:n_clusters]
    # Rounding in the dense matrix is relative to its own scale.
    np.testing.assert_allclose(fitted.eigenvalues_, wanted, rtol=1e-6, atol=rounding * values[-1])
    embedding = fitted.embedding_
    np.testing.assert_allclose(embedding.T @ embedding, np.eye(n_clusters), atol=1e-10)
    assert values[n_clusters] > 1.02 * wanted[-1], "the subspace is not determined"
    cosines = np.linalg.svd(vectors[:, :n_clusters].T @ embedding, compute_uv=False)
    assert cosines.min() > 1 - 1e-6
    labels, _ = reference.spectral_rotation(vectors[:, :n_clusters])
    assert fitted.labels_.dtype == np.int32
    assert same_partition(fitted.labels_, labels)


# Against dense matrices.


@pytest.mark.parametrize("weights", ["heat", "binary"])
@pytest.mark.parametrize("mu", POWERS)
def test_sec_is_what_the_dense_matrix_says(mu, weights):
    fitted = SEC(4, n_neighbors=7, mu=mu, gamma=0.5, weights=weights, random_state=0).fit(BLOBS)
    agrees_with(fitted, reference.sec_matrix(BLOBS, 7, mu, 0.5, weights), n_clusters=4)


@pytest.mark.parametrize("gamma", [1e-8, 1e-3, 1e3, 1e8])
def test_sec_with_another_ridge(gamma):
    fitted = SEC(4, gamma=gamma, random_state=0).fit(BLOBS)
    agrees_with(fitted, reference.sec_matrix(BLOBS, 5, 1.0, gamma, "heat"), n_clusters=4)


def test_sec_of_rows_longer_than_there_are_rows():
    x = np.random.default_rng(0).normal(size=(120, 200)).astype(np.float32)
    x[:60, :5] += 6
    fitted = SEC(2, mu=10.0, random_state=0).fit(x)
    agrees_with(fitted, reference.sec_matrix(x, 5, 10.0, 1.0, "heat"), n_clusters=2)


@pytest.mark.parametrize("regularization", POWERS)
@pytest.mark.parametrize("factored_rows", [0, 4000])
def test_ldmgi_is_what_the_dense_matrix_says(regularization, factored_rows, monkeypatch):
    monkeypatch.setattr(jdec.baselines.methods, "_FACTORED_ROWS", factored_rows)
    fitted = LDMGI(4, regularization=regularization, random_state=0).fit(BLOBS)
    dense = reference.ldmgi_matrix(BLOBS, 5, regularization)
    agrees_with(fitted, dense, n_clusters=4, rounding=1e-10)


@pytest.mark.parametrize("regularization", [1e-8, 1.0, 1e8])
def test_ldmgi_of_digits(regularization):
    fitted = LDMGI(8, regularization=regularization, random_state=0).fit(DIGITS)
    dense = reference.ldmgi_matrix(DIGITS, 5, regularization)
    agrees_with(fitted, dense, n_clusters=8, rounding=1e-7)


@pytest.mark.parametrize("regularization", [1e-4, 1.0, 1e8])
def test_ldmgi_of_cliques_that_are_linearly_dependent(regularization):
    # Eight rows in the plane: all but two eigenvalues of their Gram matrix are 0.
    fitted = LDMGI(2, n_neighbors=8, regularization=regularization, random_state=0).fit(MOONS)
    agrees_with(fitted, reference.ldmgi_matrix(MOONS, 8, regularization), n_clusters=2)


def test_few_rows_take_the_dense_way():
    x = BLOBS[::8]
    fitted = LDMGI(4, random_state=0).fit(x)
    agrees_with(fitted, reference.ldmgi_matrix(x, 5, 1.0), n_clusters=4)


def test_the_linear_part_is_the_ridge_regression_of_the_eigenvectors():
    fitted = SEC(4, gamma=2.0, random_state=0).fit(BLOBS)
    x = reference.as_float64(BLOBS)
    centred = x - x.mean(axis=0)
    coef = np.linalg.solve(centred.T @ centred + 2.0 * np.eye(6), centred.T @ fitted.embedding_)
    np.testing.assert_allclose(fitted.coef_, coef, rtol=1e-8, atol=1e-12)
    intercept = (fitted.embedding_ - x @ coef).mean(axis=0)
    np.testing.assert_allclose(fitted.intercept_, intercept, atol=1e-10)
    scores = (x @ coef + intercept) @ fitted.rotation_
    np.testing.assert_array_equal(fitted.predict(BLOBS), scores.argmax(axis=1))


def test_sec_predicts_rows_it_has_not_seen():
    x, y = make_blobs(400, centers=4, n_features=6, random_state=0)
    fitted = SEC(4, random_state=0).fit(x[:300])
    assert same_partition(fitted.labels_, y[:300])
    assert same_partition(fitted.predict(x[300:]), y[300:])


# The eigenproblem.


def pairs_of(matrix, n_wanted, precondition=lambda v: v):
    generator = np.random.RandomState(0)
    return smallest_eigenpairs(lambda v: matrix @ v, precondition, len(matrix), n_wanted, generator)


@pytest.mark.parametrize("multiplicity", [1, 3, 7, 12])
def test_eigenvalues_come_with_their_multiplicity(multiplicity):
    values = np.concatenate([np.zeros(multiplicity), np.linspace(0.01, 2, 300 - multiplicity)])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(300, 300)))[0]
    found, vectors = pairs_of(turn * values @ turn.T, 6)
    np.testing.assert_allclose(found, values[:6], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(6), atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_the_scale_of_a_matrix_does_not_matter(scale):
    matrix = reference.ldmgi_matrix(BLOBS, 5, 1.0)
    one, other = pairs_of(matrix, 4), pairs_of(matrix * scale, 4)
    np.testing.assert_allclose(other[0], one[0] * scale, rtol=1e-6, atol=1e-12 * scale)
    assert np.linalg.svd(one[1].T @ other[1])[1].min() > 1 - 1e-8


def test_unfinished_eigenvectors_are_warned_of(monkeypatch):
    monkeypatch.setattr(jdec.baselines.spectral, "_MOST_ITERATIONS", 2)
    with pytest.warns(ConvergenceWarning, match="after 2 iterations"):
        LDMGI(4, random_state=0).fit(BLOBS)


# Shapes of data.


@pytest.mark.parametrize("estimator", [SEC(2, mu=1e-4), LDMGI(2, n_neighbors=8)])
def test_moons_are_found_where_k_means_fails(estimator):
    assert same_partition(estimator.set_params(random_state=0).fit_predict(MOONS), MOON_OF)
    assert (
        adjusted_rand_score(KMeans(2, n_init=5, random_state=0).fit_predict(MOONS), MOON_OF) < 0.5
    )


@BOTH
@pytest.mark.parametrize("power", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("n_clusters", [3, 5])
def test_a_graph_in_parts(method, power, n_clusters):
    x, y = make_blobs(250, centers=5, n_features=5, cluster_std=0.1, random_state=3)
    name = "mu" if method is SEC else "regularization"
    fitted = method(n_clusters, **{name: power}, random_state=0).fit(x)
    assert np.isfinite(fitted.embedding_).all()
    # Linear functions of five columns tell five groups apart, but need not have the least energy.
    if n_clusters == 5:
        assert same_partition(fitted.labels_, y)
    if method is LDMGI:
        scale = np.linalg.eigvalsh(reference.ldmgi_matrix(x.astype(np.float32), 5, power))[-1]
        np.testing.assert_allclose(fitted.eigenvalues_, 0, atol=1e-10 * scale)


@BOTH
@pytest.mark.parametrize("power", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("factored_rows", [0, 4000])
def test_duplicates(method, power, factored_rows, monkeypatch):
    monkeypatch.setattr(jdec.baselines.methods, "_FACTORED_ROWS", factored_rows)
    x, y = make_blobs(100, centers=2, n_features=5, random_state=0)
    x, y = np.repeat(x, 3, axis=0), np.repeat(y, 3)
    name = "mu" if method is SEC else "regularization"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = method(2, **{name: power}, n_neighbors=10, random_state=0).fit(x)
    assert np.isfinite(fitted.embedding_).all()
    assert same_partition(fitted.labels_, y)


@BOTH
def test_rows_that_are_all_the_same(method):
    fitted = method(2, random_state=0).fit(np.ones((150, 3)))
    assert np.isfinite(fitted.embedding_).all()
    assert set(fitted.labels_) <= {0, 1}


@BOTH
def test_as_many_clusters_as_rows_and_one_cluster(method):
    x = BLOBS[:9]
    assert len(set(method(9, n_neighbors=3, random_state=0).fit_predict(x))) > 5
    assert set(method(1, n_neighbors=3, random_state=0).fit_predict(x)) == {0}


@BOTH
def test_the_place_and_the_units_of_the_rows_do_not_matter(method):
    x, y = make_blobs(300, centers=3, n_features=4, random_state=1)
    for scaled in (x + 1e4, x * 1e-6, x * 1e6):
        assert same_partition(method(3, random_state=0).fit_predict(scaled), y)


# Neighbours.


@pytest.mark.parametrize("block_entries", [2**25, 2**12])
def test_neighbors_are_the_nearest(monkeypatch, block_entries):
    monkeypatch.setattr(jdec.baselines.spectral, "_BLOCK_ENTRIES", block_entries)
    for x in (BLOBS, DIGITS, MOONS + np.float32(100)):
        found = nearest_neighbors(x, 6)
        assert (found.dtype, found.shape) == (np.int32, (len(x), 6))
        np.testing.assert_array_equal(found[:, 0], np.arange(len(x)))
        assert all(len(set(row)) == 6 for row in found.tolist())
        squared = reference.squared_distances(x, x)
        expected = np.take_along_axis(squared, reference.nearest_neighbors(x, 6), axis=1)
        np.testing.assert_allclose(
            np.take_along_axis(squared, found, axis=1), expected, rtol=1e-5, atol=1e-6
        )


def test_neighbors_of_tight_groups_far_apart():
    # Where ‖x‖² - 2xᵀy + ‖y‖² alone would mix up the rows of a group.
    x = np.random.default_rng(0).normal(size=(4, 1, 3)) * 20
    x = (x + np.linspace(0, 0.02, 5)[:, None]).reshape(20, 3).astype(np.float32)
    found = nearest_neighbors(x, 3)
    np.testing.assert_array_equal(found // 5, found[:, :1] // 5 * np.ones(3))
    assert (np.abs(found % 5 - found[:, :1] % 5).sum(axis=1) <= 3).all()


def test_a_row_is_its_own_first_neighbor_among_duplicates():
    found = nearest_neighbors(np.zeros((50, 2)), 4)
    np.testing.assert_array_equal(found[:, 0], np.arange(50))
    assert all(len(set(row)) == 4 for row in found.tolist())
    np.testing.assert_array_equal(nearest_neighbors(np.ones((3, 1)), 1), [[0], [1], [2]])
    assert sorted(nearest_neighbors(np.ones((3, 1)), 3)[1].tolist()) == [0, 1, 2]


@BOTH
def test_neighbors_can_be_shared(method, monkeypatch):
    expected = method(4, random_state=0).fit(BLOBS)
    shared = nearest_neighbors(BLOBS, 9)
    monkeypatch.setattr(jdec.baselines.methods, "nearest_neighbors", None)
    fitted = method(4, random_state=0).fit(BLOBS, neighbors=shared)
    assert fitted.embedding_.tobytes() == expected.embedding_.tobytes()
    labels = method(4, random_state=0).fit_predict(BLOBS, neighbors=shared.astype(np.int64))
    np.testing.assert_array_equal(labels, expected.labels_)


# Memory.


@BOTH
def test_no_array_has_a_place_for_every_pair_of_rows(method):
    x, _ = make_blobs(20_000, centers=4, n_features=5, random_state=0)
    neighbors = nearest_neighbors(x, 6)
    tracemalloc.start()
    method(4, random_state=0).fit(x, neighbors=neighbors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000 * 8 * 400  # 80-odd basis vectors and their images, 25 entries of a clique


# Spectral rotation.


@pytest.mark.parametrize("n_clusters", [1, 2, 5])
def test_rotation_is_the_best_of_all_starts(n_clusters):
    embedding = np.linalg.eigh(reference.sec_matrix(DIGITS[:150], 5, 0.1, 1.0, "heat"))[1]
    embedding = embedding[:, :n_clusters]
    labels = spectral_rotation(embedding, random_state=0, n_init=20)
    expected, best = reference.spectral_rotation(embedding)
    rows = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    objective = scipy.linalg.svdvals(np.eye(n_clusters)[labels].T @ rows).sum()
    assert objective == pytest.approx(best, rel=1e-6)
    assert same_partition(labels, expected)


def test_rotation_undoes_a_rotation():
    y = np.random.default_rng(0).integers(0, 4, 100)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    embedding = np.eye(4)[y] @ turn
    embedding *= np.linspace(0.1, 10, 100)[:, None]
    labels = spectral_rotation(embedding, random_state=0)
    assert labels.dtype == np.int32
    assert same_partition(labels, y)
    embedding[::10] = 0  # rows without a direction
    labels = spectral_rotation(embedding, random_state=0)
    assert same_partition(np.delete(labels, np.s_[::10]), np.delete(y, np.s_[::10]))


# Seeds.


@BOTH
def test_the_seed_decides(method):
    one, same = (method(4, random_state=7).fit(BLOBS) for _ in range(2))
    assert one.embedding_.tobytes() == same.embedding_.tobytes()
    np.testing.assert_array_equal(one.labels_, same.labels_)
    state = method(4, random_state=np.random.RandomState(7)).fit(BLOBS)
    np.testing.assert_array_equal(state.labels_, one.labels_)
    assert len(method(4).fit_predict(BLOBS)) == 240


# Bad input.


def broken(row, value):
    x = BLOBS.copy()
    x[row, 1] = value
    return x


@BOTH
@pytest.mark.parametrize(
    ("x", "needed"),
    [
        (broken(17, np.nan), "X: expected finite numbers, got NaN in row 17"),
        (broken(3, -np.inf), "X: expected finite numbers, got infinity in row 3"),
        (BLOBS[:, 0], "Expected 2D array, got 1D array"),
        ([["a", "b"]] * 9, "X: expected numbers, got dtype <U1"),
        (BLOBS[:0], "0 sample"),
        (BLOBS[:, :0], "0 feature"),
        (BLOBS + 1j, "Complex data not supported"),
    ],
)
def test_bad_rows_are_refused(method, x, needed):
    with pytest.raises(ValueError, match=r".") as caught:
        method(2).fit(x)
    assert needed in str(caught.value)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("estimator", "needed"),
    [
        *(
            (method(**changes), needed)
            for method in (SEC, LDMGI)
            for changes, needed in [
                ({"n_clusters": 0}, "n_clusters: expected an integer >= 1, got 0"),
                ({"n_clusters": 2.0}, "n_clusters: expected an integer >= 1, got 2.0"),
                ({"n_clusters": 241}, "got n_clusters=241 for n_samples=240"),
                ({"n_neighbors": 1}, "n_neighbors: expected an integer >= 2, got 1"),
                ({"n_neighbors": 2.5}, "n_neighbors: expected an integer >= 2, got 2.5"),
                ({"n_neighbors": 240}, "n_neighbors: expected at most 239, got n_neighbors=240"),
                ({"n_init": 0}, "n_init: expected an integer >= 1, got 0"),
                ({"random_state": -1}, "random_state: expected an integer >= 0, got -1"),
                (
                    {"random_state": "zero"},
                    "RandomState or None, got 'zero'",
                ),
            ]
        ),
        (SEC(mu=0), "mu: expected a finite number > 0, got 0"),
        (SEC(mu=np.inf), "mu: expected a finite number > 0, got inf"),
        (SEC(gamma=-1.0), "gamma: expected a finite number > 0, got -1.0"),
        (SEC(weights="none"), "weights: expected one of heat, binary; got 'none'"),
        (LDMGI(regularization=0), "regularization: expected a finite number > 0, got 0"),
        (LDMGI(regularization="1"), "regularization: expected a finite number > 0, got '1'"),
        (LDMGI(regularization=np.nan), "regularization: expected a finite number > 0, got nan"),
    ],
)
def test_bad_settings_are_refused_when_fitting(estimator, needed):
    with pytest.raises(ValueError, match=r".") as caught:
        estimator.fit(BLOBS)
    assert needed in str(caught.value)
    assert not hasattr(estimator, "labels_")


SHARED = np.arange(240)[:, None] + np.zeros((1, 6), int)


@BOTH
@pytest.mark.parametrize(
    ("neighbors", "needed"),
    [
        (SHARED[:-1], "neighbors: expected 240 rows and at least"),
        (SHARED[:, :4], "got shape (240, 4)"),
        (SHARED[:, 0], "got shape (240,)"),
        (SHARED * 1.0, "neighbors: expected integers, got dtype float64"),
        (SHARED - 1, "neighbors: expected indices in 0 … 239, got -1 … 238"),
        (SHARED + 1, "neighbors: expected indices in 0 … 239, got 1 … 240"),
        (SHARED[::-1], "neighbors: expected each row itself in the first column"),
    ],
)
def test_bad_neighbors_are_refused(method, neighbors, needed):
    with pytest.raises(ValueError, match=r".") as caught:
        method(2).fit(BLOBS, neighbors=neighbors)
    assert needed in str(caught.value)


@pytest.mark.usefixtures("unchecked")
def test_the_functions_check_their_input():
    for n_neighbors in (0, 241, 1.5, True):
        with pytest.raises(ValueError, match="n_neighbors: expected"):
            nearest_neighbors(BLOBS, n_neighbors)
    with pytest.raises(ValueError, match="NaN in row 5"):
        nearest_neighbors(broken(5, np.nan), 3)
    with pytest.raises(ValueError, match="embedding: expected an array of 2 dim"):
        spectral_rotation(np.zeros(5))
    with pytest.raises(ValueError, match="NaN in row 1"):
        spectral_rotation([[0, 1], [np.nan, 1]])
    for name in ("n_init", "max_iter"):
        with pytest.raises(ValueError, match=f"{name}: expected an integer >= 1, got 0"):
            spectral_rotation(np.eye(3), **{name: 0})


# scikit-learn's company.

ARRAY_API = """
import sys
from sklearn.utils.estimator_checks import check_array_api_input
import jdec.baselines.methods

name, keywords = sys.argv[1], eval(sys.argv[2])
check_array_api_input(name, getattr(jdec.baselines.methods, name)(3), **keywords)
"""


@parametrize_with_checks([SEC(3), LDMGI(3)])
def test_scikit_learn_checks(estimator, check):
    if check.func is check_array_api_input:
        # It asks for a variable that SciPy reads when it is imported.
        subprocess.run(
            [sys.executable, "-c", ARRAY_API, type(estimator).__name__, repr(check.keywords)],
            env=os.environ | {"SCIPY_ARRAY_API": "1"},
            check=True,
        )
    else:
        check(estimator)


@BOTH
def test_clones_and_pipelines(method):
    fitted = method(4, n_neighbors=6, random_state=0).fit(BLOBS)
    assert fitted.n_features_in_ == 6
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "labels_")
    np.testing.assert_array_equal(copy.fit_predict(BLOBS), fitted.labels_)
    pipeline = make_pipeline(StandardScaler(), method(4, random_state=0))
    scaled = StandardScaler().fit_transform(BLOBS)
    expected = method(4, random_state=0).fit_predict(scaled)
    np.testing.assert_array_equal(pipeline.fit_predict(BLOBS), expected)


def test_nothing_is_predicted_before_fitting_or_of_another_width():
    with pytest.raises(NotFittedError):
        SEC(4).predict(BLOBS)
    with pytest.raises(ValueError, match="X has 5 features, but SEC is expecting 6"):
        SEC(4, random_state=0).fit(BLOBS).predict(BLOBS[:, :5])


def test_float64_is_not_switched_on_for_others():
    LDMGI(4, random_state=0).fit(BLOBS)
    assert not jax.config.jax_enable_x64
