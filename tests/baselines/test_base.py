"""What SEC and LDMGI share: edge cases, shared neighbours, bad input, the API of scikit-learn."""

import os
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import reference
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_array_api_input, parametrize_with_checks
from spectral_data import BLOBS, MOON_OF, MOONS, broken, same_partition

import jdec.baselines.base
from jdec.baselines import LDMGI, SEC
from jdec.baselines.spectral import nearest_neighbors

BOTH = pytest.mark.parametrize("method", [SEC, LDMGI])


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
def test_disconnected_graph(method, power, n_clusters):
    x, y = make_blobs(250, centers=5, n_features=5, cluster_std=0.1, random_state=3)
    name = "mu" if method is SEC else "regularization"
    fitted = method(n_clusters, **{name: power}, random_state=0).fit(x)
    assert np.isfinite(fitted.embedding_).all()
    # Linear functions of five columns separate five groups, but need not minimise the objective.
    if n_clusters == 5:
        assert same_partition(fitted.labels_, y)
    if method is LDMGI:
        scale = np.linalg.eigvalsh(reference.ldmgi_matrix(x.astype(np.float32), 5, power))[-1]
        np.testing.assert_allclose(fitted.eigenvalues_, 0, atol=1e-10 * scale)


@pytest.mark.parametrize(
    ("method", "settings"),
    [(SEC, {}), (LDMGI, {"max_factored_rows": 0}), (LDMGI, {"max_factored_rows": 4000})],
)
@pytest.mark.parametrize("power", [1e-8, 1.0, 1e8])
def test_duplicates(method, settings, power):
    x, y = make_blobs(100, centers=2, n_features=5, random_state=0)
    x, y = np.repeat(x, 3, axis=0), np.repeat(y, 3)
    name = "mu" if method is SEC else "regularization"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = method(2, **{name: power}, **settings, n_neighbors=10, random_state=0).fit(x)
    assert np.isfinite(fitted.embedding_).all()
    assert same_partition(fitted.labels_, y)


@BOTH
def test_constant_rows(method):
    fitted = method(2, random_state=0).fit(np.ones((150, 3)))
    assert np.isfinite(fitted.embedding_).all()
    assert set(fitted.labels_) <= {0, 1}


@BOTH
def test_as_many_clusters_as_rows_and_one_cluster(method):
    x = BLOBS[:9]
    assert len(set(method(9, n_neighbors=3, random_state=0).fit_predict(x))) > 5
    assert set(method(1, n_neighbors=3, random_state=0).fit_predict(x)) == {0}


@BOTH
def test_invariant_to_shift_and_scale(method):
    x, y = make_blobs(300, centers=3, n_features=4, random_state=1)
    for scaled in (x + 1e4, x * 1e-6, x * 1e6):
        assert same_partition(method(3, random_state=0).fit_predict(scaled), y)


@BOTH
def test_neighbors_can_be_shared(method, monkeypatch):
    expected = method(4, random_state=0).fit(BLOBS)
    shared = nearest_neighbors(BLOBS, 9)
    monkeypatch.setattr(jdec.baselines.base, "nearest_neighbors", None)
    fitted = method(4, random_state=0).fit(BLOBS, neighbors=shared)
    assert fitted.embedding_.tobytes() == expected.embedding_.tobytes()
    labels = method(4, random_state=0).fit_predict(BLOBS, neighbors=shared.astype(np.int64))
    np.testing.assert_array_equal(labels, expected.labels_)


@BOTH
def test_no_dense_matrix_of_pairs_of_rows(method):
    x, _ = make_blobs(20_000, centers=4, n_features=5, random_state=0)
    neighbors = nearest_neighbors(x, 6)
    tracemalloc.start()
    method(4, random_state=0).fit(x, neighbors=neighbors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000 * 8 * 400  # about 80 basis vectors and their images, 25 entries per clique


@BOTH
def test_the_seed_determines_the_result(method):
    one, same = (method(4, random_state=7).fit(BLOBS) for _ in range(2))
    assert one.embedding_.tobytes() == same.embedding_.tobytes()
    np.testing.assert_array_equal(one.labels_, same.labels_)
    state = method(4, random_state=np.random.RandomState(7)).fit(BLOBS)
    np.testing.assert_array_equal(state.labels_, one.labels_)
    assert len(method(4).fit_predict(BLOBS)) == 240


# Bad input.


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
def test_bad_rows(method, x, needed):
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
        (LDMGI(max_factored_rows=-1), "max_factored_rows: expected an integer >= 0, got -1"),
    ],
)
def test_bad_settings_raise_in_fit(estimator, needed):
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
def test_bad_neighbors(method, neighbors, needed):
    with pytest.raises(ValueError, match=r".") as caught:
        method(2).fit(BLOBS, neighbors=neighbors)
    assert needed in str(caught.value)


# scikit-learn's API.

ARRAY_API = """
import sys
from sklearn.utils.estimator_checks import check_array_api_input
import jdec.baselines

name, keywords = sys.argv[1], eval(sys.argv[2])
check_array_api_input(name, getattr(jdec.baselines, name)(3), **keywords)
"""


@parametrize_with_checks([SEC(3), LDMGI(3)])
def test_scikit_learn_checks(estimator, check):
    if check.func is check_array_api_input:
        # Needs an environment variable that SciPy reads on import.
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
