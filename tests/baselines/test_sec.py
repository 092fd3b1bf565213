"""SEC against dense matrices; its linear part and predictions."""

import numpy as np
import pytest
import reference
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from spectral_data import BLOBS, POWERS, agrees_with, same_partition

from jdec.baselines import SEC


@pytest.mark.parametrize("weights", ["heat", "binary"])
@pytest.mark.parametrize("mu", POWERS)
def test_agrees_with_the_dense_matrix(mu, weights):
    fitted = SEC(4, n_neighbors=7, mu=mu, gamma=0.5, weights=weights, random_state=0).fit(BLOBS)
    agrees_with(fitted, reference.sec_matrix(BLOBS, 7, mu, 0.5, weights), n_clusters=4)


@pytest.mark.parametrize("gamma", [1e-8, 1e-3, 1e3, 1e8])
def test_ridge_penalty(gamma):
    fitted = SEC(4, gamma=gamma, random_state=0).fit(BLOBS)
    agrees_with(fitted, reference.sec_matrix(BLOBS, 5, 1.0, gamma, "heat"), n_clusters=4)


def test_more_features_than_rows():
    x = np.random.default_rng(0).normal(size=(120, 200)).astype(np.float32)
    x[:60, :5] += 6
    fitted = SEC(2, mu=10.0, random_state=0).fit(x)
    agrees_with(fitted, reference.sec_matrix(x, 5, 10.0, 1.0, "heat"), n_clusters=2)


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


def test_predicts_new_rows():
    x, y = make_blobs(400, centers=4, n_features=6, random_state=0)
    fitted = SEC(4, random_state=0).fit(x[:300])
    assert same_partition(fitted.labels_, y[:300])
    assert same_partition(fitted.predict(x[300:]), y[300:])


def test_predict_needs_a_fit_and_the_same_width():
    with pytest.raises(NotFittedError):
        SEC(4).predict(BLOBS)
    with pytest.raises(ValueError, match="X has 5 features, but SEC is expecting 6"):
        SEC(4, random_state=0).fit(BLOBS).predict(BLOBS[:, :5])
