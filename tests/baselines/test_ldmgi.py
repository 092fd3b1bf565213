"""LDMGI against dense matrices, with both preconditioners."""

import jax
import pytest
import reference
from spectral_data import BLOBS, DIGITS, MOONS, POWERS, agrees_with

from jdec.baselines import LDMGI


@pytest.mark.parametrize("regularization", POWERS)
@pytest.mark.parametrize("max_factored_rows", [0, 4000])
def test_agrees_with_the_dense_matrix(regularization, max_factored_rows):
    settings = {"regularization": regularization, "max_factored_rows": max_factored_rows}
    fitted = LDMGI(4, **settings, random_state=0).fit(BLOBS)
    dense = reference.ldmgi_matrix(BLOBS, 5, regularization)
    agrees_with(fitted, dense, n_clusters=4, rounding=1e-10)


@pytest.mark.parametrize("regularization", [1e-8, 1.0, 1e8])
def test_digits(regularization):
    fitted = LDMGI(8, regularization=regularization, random_state=0).fit(DIGITS)
    dense = reference.ldmgi_matrix(DIGITS, 5, regularization)
    agrees_with(fitted, dense, n_clusters=8, rounding=1e-7)


@pytest.mark.parametrize("regularization", [1e-4, 1.0, 1e8])
def test_linearly_dependent_cliques(regularization):
    # Eight rows in the plane: all but two eigenvalues of their Gram matrix are 0.
    fitted = LDMGI(2, n_neighbors=8, regularization=regularization, random_state=0).fit(MOONS)
    agrees_with(fitted, reference.ldmgi_matrix(MOONS, 8, regularization), n_clusters=2)


def test_few_rows_use_a_dense_eigensolver():
    x = BLOBS[::8]
    fitted = LDMGI(4, random_state=0).fit(x)
    agrees_with(fitted, reference.ldmgi_matrix(x, 5, 1.0), n_clusters=4)


def test_float64_stays_disabled_in_jax():
    LDMGI(4, random_state=0).fit(BLOBS)
    assert not jax.config.jax_enable_x64
