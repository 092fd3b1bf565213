"""Data and comparisons that the tests of SEC and LDMGI share."""

import numpy as np
import reference
from sklearn.datasets import load_digits, make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score

POWERS = [1e-8, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e8]


def rows_of(*arguments, **keywords):
    # float32, as the estimators read them: the oracle must see the same numbers.
    x, y = arguments[0](**keywords)
    return x.astype(np.float32), y


BLOBS, BLOB_OF = rows_of(
    make_blobs, n_samples=240, centers=4, n_features=6, cluster_std=2.5, random_state=0
)
MOONS, MOON_OF = rows_of(make_moons, n_samples=300, noise=0.05, random_state=0)
DIGITS = load_digits().data[:280].astype(np.float32)


def same_partition(one, other):
    return adjusted_rand_score(one, other) == 1


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


def broken(row, value):
    x = BLOBS.copy()
    x[row, 1] = value
    return x
