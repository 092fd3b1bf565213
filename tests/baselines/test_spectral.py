"""Nearest neighbours, eigenpairs and spectral rotation against dense references."""

import numpy as np
import pytest
import reference
import scipy.linalg
from sklearn.exceptions import ConvergenceWarning
from spectral_data import BLOBS, DIGITS, MOONS, broken, same_partition

from jdec.baselines.spectral import nearest_neighbors, rotate, smallest_eigenpairs

# The eigenproblem.


def pairs_of(matrix, n_pairs, **options):
    generator = np.random.RandomState(0)
    return smallest_eigenpairs(
        matrix.__matmul__, lambda v: v, len(matrix), n_pairs, generator, **options
    )


@pytest.mark.parametrize("multiplicity", [1, 3, 7, 12])
def test_eigenvalues_come_with_their_multiplicity(multiplicity):
    values = np.concatenate([np.zeros(multiplicity), np.linspace(0.01, 2, 300 - multiplicity)])
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(300, 300)))[0]
    found, vectors = pairs_of(basis * values @ basis.T, 6)
    np.testing.assert_allclose(found, values[:6], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(6), atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_the_scale_of_a_matrix_does_not_matter(scale):
    matrix = reference.ldmgi_matrix(BLOBS, 5, 1.0)
    one, other = pairs_of(matrix, 4), pairs_of(matrix * scale, 4)
    np.testing.assert_allclose(other[0], one[0] * scale, rtol=1e-6, atol=1e-12 * scale)
    assert np.linalg.svd(one[1].T @ other[1])[1].min() > 1 - 1e-8


def test_too_few_iterations_warn():
    with pytest.warns(ConvergenceWarning, match="after 2 iterations"):
        pairs_of(reference.ldmgi_matrix(BLOBS, 5, 1.0), 4, max_iter=2)


# Neighbours.


@pytest.mark.parametrize("block_entries", [2**25, 2**12])
def test_neighbors_are_the_nearest(block_entries):
    for x in (BLOBS, DIGITS, MOONS + np.float32(100)):
        found = nearest_neighbors(x, 6, block_entries=block_entries)
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


# Spectral rotation.


@pytest.mark.parametrize("n_clusters", [1, 2, 5])
def test_rotation_is_the_best_of_all_starts(n_clusters):
    embedding = np.linalg.eigh(reference.sec_matrix(DIGITS[:150], 5, 0.1, 1.0, "heat"))[1]
    embedding = embedding[:, :n_clusters]
    labels, _ = rotate(embedding, np.random.RandomState(0), 20)
    expected, best = reference.spectral_rotation(embedding)
    rows = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    objective = scipy.linalg.svdvals(np.eye(n_clusters)[labels].T @ rows).sum()
    assert objective == pytest.approx(best, rel=1e-6)
    assert same_partition(labels, expected)


def test_rotation_undoes_a_rotation():
    y = np.random.default_rng(0).integers(0, 4, 100)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    embedding = np.eye(4)[y] @ rotation
    embedding *= np.linspace(0.1, 10, 100)[:, None]
    labels, _ = rotate(embedding, np.random.RandomState(0), 10)
    assert labels.dtype == np.int32
    assert same_partition(labels, y)
    embedding[::10] = 0  # rows without a direction
    labels, _ = rotate(embedding, np.random.RandomState(0), 10)
    assert same_partition(np.delete(labels, np.s_[::10]), np.delete(y, np.s_[::10]))


@pytest.mark.usefixtures("unchecked")
def test_the_functions_check_their_input():
    for n_neighbors in (0, 241, 1.5, True):
        with pytest.raises(ValueError, match="n_neighbors: expected"):
            nearest_neighbors(BLOBS, n_neighbors)
    with pytest.raises(ValueError, match="NaN in row 5"):
        nearest_neighbors(broken(5, np.nan), 3)
