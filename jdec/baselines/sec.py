"""Spectral Embedded Clustering (SEC)."""

from typing import Any

import numpy as np
from jaxtyping import Int
from scipy import sparse
from sklearn.utils.validation import check_is_fitted

from jdec._checks import check_choice, check_positive
from jdec._validation import RandomState
from jdec.baselines.base import Problem, SpectralClustering, sparse_from_pairs
from jdec.baselines.spectral import row_blocks


class SEC(SpectralClustering):
    r"""Spectral Embedded Clustering: graph eigenvectors that are nearly linear in the data.

    .. math::
        \min_{F, W, b}\ \mathrm{tr}(F^\top L F)
        + \mu \left(\|X W + 1 b^\top - F\|^2 + \gamma\,\mathrm{tr}(W^\top W)\right),
        \quad F^\top F = I

    with L the normalised Laplacian of the nearest-neighbour graph. With the best W and b, F holds
    the eigenvectors to the smallest eigenvalues of

    .. math:: M = L + \mu \left(H - X_c (X_c^\top X_c + \gamma I)^{-1} X_c^\top\right),

    H the centring matrix and :math:`X_c = H X`. Edges have the weight
    :math:`\exp(-\|x_i - x_j\|^2 / (\sigma_i \sigma_j))`, σ the distance of the last neighbour, or
    the weight 1.

    Args:
        n_clusters: Number of clusters K.
        n_neighbors: Number of neighbours, the row itself not counted; the graph joins two rows if
            either is a neighbour of the other.
        mu: Weight of the linear part; the paper tries powers of ten.
        gamma: Ridge penalty of the linear part.
        weights: ``heat`` or ``binary``.
        n_init: Number of starts of the spectral rotation.
        random_state: Integer seed, NumPy RandomState, or None.

    Attributes:
        labels_: Cluster of each row, [N] int32.
        embedding_: Eigenvectors F, [N K].
        eigenvalues_: Their eigenvalues, ascending, [K].
        rotation_: Rotation of F to the partition, [K K].
        coef_: W, [D K].
        intercept_: b, [K].
        n_features_in_: D.

    Examples:
        >>> from sklearn.datasets import make_blobs
        >>> X, y = make_blobs(60, centers=3, random_state=0, cluster_std=0.3)
        >>> sec = SEC(3, random_state=0).fit(X)
        >>> bool((sec.predict(X) == sec.labels_).all())
        True

    Source: Nie, Zeng, Tsang, Xu & Zhang, "Spectral embedded clustering: a framework for in-sample
    and out-of-sample spectral clustering", IEEE Transactions on Neural Networks 22(11), 2011.
    """

    _includes_itself = False

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        n_neighbors: int = 5,
        mu: float = 1.0,
        gamma: float = 1.0,
        weights: str = "heat",
        n_init: int = 10,
        random_state: RandomState = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_neighbors = n_neighbors
        self.mu = mu
        self.gamma = gamma
        self.weights = weights
        self.n_init = n_init
        self.random_state = random_state

    def predict(self, X: Any) -> Int[np.ndarray, "N"]:
        """Return the cluster of each row by the linear part, the largest entry of (X W + 1 bᵀ) R.

        Training rows may get labels other than ``labels_``, which come from F.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        scores = (X @ self.coef_ + self.intercept_) @ self.rotation_
        return scores.argmax(axis=1).astype(np.int32)

    def _check_settings(self) -> None:
        check_positive("mu", self.mu)
        check_positive("gamma", self.gamma)
        check_choice("weights", self.weights, ("heat", "binary"))

    def _problem(self, X: np.ndarray, neighbors: np.ndarray) -> Problem:
        laplacian = _normalized_laplacian(X, neighbors, self.weights)
        mu, gamma = float(self.mu), float(self.gamma)
        mean, left, singular, right = _decompose(X)
        # H - Xc (Xcᵀ Xc + γ I)⁻¹ Xcᵀ is γ/(s² + γ) on left singular vectors, 0 on the constant
        # vector, and 1 on their orthogonal complement.
        misfit = gamma / (singular**2 + gamma)[:, None]
        # M with L replaced by the identity has a known inverse, which keeps the number of
        # iterations independent of μ.
        gain = 1 / (1 + mu * misfit) - 1 / (1 + mu)

        def multiply(v: np.ndarray) -> np.ndarray:
            fitted = left @ ((1 - misfit) * (left.T @ v))
            return laplacian @ v + mu * (v - v.mean(axis=0) - fitted)

        def precondition(v: np.ndarray) -> np.ndarray:
            constant = (1 - 1 / (1 + mu)) * v.mean(axis=0)
            return v / (1 + mu) + constant + left @ (gain * (left.T @ v))

        def regress(embedding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            coef = (right * (singular / (singular**2 + gamma))) @ (left.T @ embedding)
            return coef, embedding.mean(axis=0) - mean @ coef

        return Problem(multiply, precondition, regress)


def _normalized_laplacian(X: np.ndarray, neighbors: np.ndarray, weights: str) -> sparse.csr_array:
    """I - D^(-1/2) A D^(-1/2)."""
    own, others = neighbors[:, :1], neighbors[:, 1:]
    affinity = np.ones(others.shape)
    if weights == "heat":
        squared = np.empty(others.shape)
        for block in row_blocks(len(X), others.shape[1] * X.shape[1]):
            differences = X[others[block]].astype(np.float64) - X[own[block]]
            squared[block] = (differences**2).sum(axis=2)
        scale = np.sqrt(squared.max(axis=1))
        product = scale[:, None] * scale[others]
        # Duplicates, at distance 0, have weight 1 whatever the scale.
        exponent = np.divide(squared, product, out=np.zeros_like(squared), where=squared > 0)
        # Underflow would disconnect a row from the graph.
        affinity = np.exp(-np.minimum(exponent, 600))
    directed = sparse_from_pairs(np.broadcast_to(own, others.shape), others, affinity, len(X))
    graph = directed.maximum(directed.T)
    root = sparse.diags_array(1 / np.sqrt(graph.sum(axis=1)))
    return (sparse.eye_array(len(X)) - root @ graph @ root).tocsr()


def _decompose(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean [D] and the SVD of the centred rows: left [N r], values [r], right [D r]."""
    mean = X.mean(axis=0, dtype=np.float64)
    centred = X - mean  # float64
    if X.shape[1] > len(X):
        left, singular, rows = np.linalg.svd(centred, full_matrices=False)
        kept = singular > 1e-12 * singular[0]
        return mean, left[:, kept], singular[kept], rows[kept].T
    # Through the D×D Gram matrix, which is many times faster for N ≫ D.
    squared, right = np.linalg.eigh(centred.T @ centred)
    kept = squared > 1e-12 * squared[-1]
    singular, right = np.sqrt(squared[kept]), right[:, kept]
    return mean, centred @ (right / singular), singular, right
