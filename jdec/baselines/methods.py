r"""SEC and LDMGI, the spectral methods that the DEC paper compares with, for many rows.

Both minimise :math:`\mathrm{tr}(F^\top M F)` over orthonormal F for a matrix M made from the
nearest neighbours of each row, and rotate the eigenvectors F to the nearest partition. M is sparse,
or sparse and of low rank, and no N×N array is ever made.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self, cast

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg
from jaxtyping import Float, Int, Shaped
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

from jdec._checks import (
    as_rows,
    check_choice,
    check_integer,
    check_n_clusters,
    check_nothing_masked,
    check_positive,
    shown,
)
from jdec._validation import RandomState, make_generator, validate_rows
from jdec.baselines.spectral import (
    Operator,
    check_n_neighbors,
    nearest_neighbors,
    rotate,
    row_blocks,
    smallest_eigenpairs,
)

_FACTORED_ROWS = 4000


class _Decomposition(NamedTuple):
    """Singular value decomposition of the centred rows: X = 1 meanᵀ + left · singular · rightᵀ."""

    mean: Float[np.ndarray, "D"]
    left: Float[np.ndarray, "N r"]
    singular: Float[np.ndarray, "r"]
    right: Float[np.ndarray, "D r"]


class _Problem(NamedTuple):
    """A symmetric matrix without negative eigenvalues, and a rough inverse of it."""

    multiply: Operator  # [N m] -> [N m]
    precondition: Operator
    rows: _Decomposition | None = None


class _SpectralClustering(ClusterMixin, BaseEstimator, ABC):
    """What both methods share: neighbours, eigenvectors, rotation."""

    n_clusters: int
    n_neighbors: int
    n_init: int
    random_state: RandomState
    _includes_itself: bool  # whether n_neighbors counts the row itself

    def fit(self, X: Any, y: Any = None, *, neighbors: Any = None) -> Self:
        """Cluster the rows of X.

        Args:
            X: Rows, [N D], numeric and finite.
            y: Ignored.
            neighbors: What :func:`jdec.baselines.spectral.nearest_neighbors` says of X, to share it between
                fits; more columns than needed are left aside. None computes it.

        Returns:
            The estimator.

        Raises:
            ValueError: For bad input or settings.
        """
        X = self._validate(X, reset=True)
        check_n_clusters(self.n_clusters, len(X))
        check_n_neighbors(self.n_neighbors, 2, len(X) - 1, len(X))
        check_integer("n_init", self.n_init)
        self._check_settings()
        generator = make_generator(self.random_state)
        width = self.n_neighbors + (not self._includes_itself)
        if neighbors is None:
            neighbors = nearest_neighbors(X, width)
        neighbors = _check_neighbors(neighbors, len(X), width)
        problem = self._problem(X, neighbors)
        self.eigenvalues_, self.embedding_ = smallest_eigenpairs(
            problem.multiply, problem.precondition, len(X), self.n_clusters, generator
        )
        self.labels_, self.rotation_ = rotate(self.embedding_, generator, self.n_init)
        self._fit_linear(problem)
        return self

    def fit_predict(self, X: Any, y: Any = None, **keywords: Any) -> Int[np.ndarray, "N"]:
        """Cluster the rows of X and return ``labels_``; arguments as of ``fit``."""
        return self.fit(X, **keywords).labels_

    def _validate(self, X: Any, *, reset: bool) -> Shaped[np.ndarray, "N D"]:
        return as_rows("X", validate_rows(self, X, reset=reset))

    @abstractmethod
    def _check_settings(self) -> None:
        """Refuse values out of range."""

    @abstractmethod
    def _problem(self, X: np.ndarray, neighbors: np.ndarray) -> _Problem:
        """Return the matrix whose eigenvectors are wanted."""

    def _fit_linear(self, problem: _Problem) -> None:
        """Leave it to the method that has a linear part."""


class SEC(_SpectralClustering):
    r"""Spectral Embedded Clustering: eigenvectors of a graph that are nearly linear in the rows.

    .. math::
        \min_{F, W, b}\ \mathrm{tr}(F^\top L F)
        + \mu \left(\|X W + 1 b^\top - F\|^2 + \gamma\,\mathrm{tr}(W^\top W)\right),
        \quad F^\top F = I

    with L the normalised Laplacian of the nearest-neighbour graph. With the best W and b, F holds
    the eigenvectors of least eigenvalue of

    .. math:: M = L + \mu \left(H - X_c (X_c^\top X_c + \gamma I)^{-1} X_c^\top\right),

    H the centring matrix and :math:`X_c = H X`. A row and its neighbours are joined with weight
    :math:`\exp(-\|x_i - x_j\|^2 / (\sigma_i \sigma_j))`, σ the distance of the last neighbour, or
    with weight 1.

    Args:
        n_clusters: Number of clusters K.
        n_neighbors: Nearest other rows that a row is joined with, from either side.
        mu: Weight of the linear part; the paper tries powers of ten.
        gamma: Ridge penalty of the linear part.
        weights: ``heat`` or ``binary``.
        n_init: Starts of the spectral rotation.
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

        The rows of the fit may get other labels than ``labels_``, which come from F.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        scores = (X @ self.coef_ + self.intercept_) @ self.rotation_
        return scores.argmax(axis=1).astype(np.int32)

    def _check_settings(self) -> None:
        check_positive("mu", self.mu)
        check_positive("gamma", self.gamma)
        check_choice("weights", self.weights, ("heat", "binary"))

    def _problem(self, X: np.ndarray, neighbors: np.ndarray) -> _Problem:
        laplacian = _normalized_laplacian(X, neighbors, self.weights)
        rows = _decompose(X)
        mu, gamma = float(self.mu), float(self.gamma)
        # H - Xc (Xcᵀ Xc + γ I)⁻¹ Xcᵀ is γ/(s² + γ) on left singular vectors, 0 on the constant
        # vector, and 1 on what is orthogonal to them.
        misfit = gamma / (rows.singular**2 + gamma)[:, None]
        # With L taken for the identity, the inverse of M is known: then a large μ takes no more
        # steps than a small one.
        gain = 1 / (1 + mu * misfit) - 1 / (1 + mu)

        def multiply(v: np.ndarray) -> np.ndarray:
            fitted = rows.left @ ((1 - misfit) * (rows.left.T @ v))
            return laplacian @ v + mu * (v - v.mean(axis=0) - fitted)

        def precondition(v: np.ndarray) -> np.ndarray:
            constant = (1 - 1 / (1 + mu)) * v.mean(axis=0)
            return v / (1 + mu) + constant + rows.left @ (gain * (rows.left.T @ v))

        return _Problem(multiply, precondition, rows)

    def _fit_linear(self, problem: _Problem) -> None:
        rows = cast(_Decomposition, problem.rows)
        ridge = rows.right * (rows.singular / (rows.singular**2 + float(self.gamma)))
        self.coef_ = ridge @ (rows.left.T @ self.embedding_)
        self.intercept_ = self.embedding_.mean(axis=0) - rows.mean @ self.coef_


class LDMGI(_SpectralClustering):
    r"""Local discriminant models and global integration.

    .. math::
        M = \sum_i S_i L_i S_i^\top, \quad
        L_i = H_k (\tilde X_i \tilde X_i^\top + \lambda I)^{-1} H_k

    over the cliques of a row and its k - 1 nearest neighbours: :math:`\tilde X_i = H_k X_i` are
    the clique's centred rows, [k D], and S_i puts the clique's entries where they belong. The
    eigenvectors of least eigenvalue of M, [N K], are rotated to a partition.

    Args:
        n_clusters: Number of clusters K.
        n_neighbors: Rows k of a clique, the row itself counted.
        regularization: λ; the paper tries 1e-8, 1e-6, …, 1e8.
        n_init: Starts of the spectral rotation.
        random_state: Integer seed, NumPy RandomState, or None.

    Attributes:
        labels_: Cluster of each row, [N] int32.
        embedding_: Eigenvectors, [N K].
        eigenvalues_: Their eigenvalues, ascending, [K].
        rotation_: Rotation of the eigenvectors to the partition, [K K].
        n_features_in_: D.

    Examples:
        >>> from sklearn.datasets import make_moons
        >>> X, y = make_moons(200, noise=0.03, random_state=0)
        >>> labels = LDMGI(2, n_neighbors=8, random_state=0).fit_predict(X)
        >>> float(max((labels == y).mean(), (labels != y).mean()))
        1.0

    Source: Yang, Xu, Nie, Yan & Zhuang, "Image clustering using local discriminant models and
    global integration", IEEE Transactions on Image Processing 19(10), 2010.
    """

    _includes_itself = True

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        n_neighbors: int = 5,
        regularization: float = 1.0,
        n_init: int = 10,
        random_state: RandomState = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_neighbors = n_neighbors
        self.regularization = regularization
        self.n_init = n_init
        self.random_state = random_state

    def _check_settings(self) -> None:
        check_positive("regularization", self.regularization)

    def _problem(self, X: np.ndarray, neighbors: np.ndarray) -> _Problem:
        matrix = _integrated_cliques(X, neighbors, float(self.regularization))
        if len(X) > _FACTORED_ROWS and X.shape[1] > 2:
            return _Problem(lambda v: matrix @ v, _rough_inverse(matrix))
        # Where cliques are linearly dependent and λ is small, eigenvalues differ by many orders of
        # magnitude, and the diagonal is no guide. The factors of a graph of many rows would not
        # be sparse, but for rows in the plane.
        shift = 1e-13 * matrix.diagonal().max() * scipy.sparse.eye_array(len(X))
        factors = scipy.sparse.linalg.splu(
            (matrix + shift).tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        return _Problem(lambda v: matrix @ v, factors.solve)


# Matrices.


def _pairs(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, n_rows: int
) -> scipy.sparse.csr_array:
    return scipy.sparse.coo_array(
        (values.ravel(), (rows.ravel(), columns.ravel())), shape=(n_rows, n_rows)
    ).tocsr()


def _normalized_laplacian(
    X: np.ndarray, neighbors: np.ndarray, weights: str
) -> scipy.sparse.csr_array:
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
        # Duplicates, at distance 0, are joined fully whatever the scale.
        exponent = np.divide(squared, product, out=np.zeros_like(squared), where=squared > 0)
        # Underflow would cut a row off from the graph.
        affinity = np.exp(-np.minimum(exponent, 600))
    directed = _pairs(np.broadcast_to(own, others.shape), others, affinity, len(X))
    graph = directed.maximum(directed.T)
    root = scipy.sparse.diags_array(1 / np.sqrt(graph.sum(axis=1)))
    return (scipy.sparse.eye_array(len(X)) - root @ graph @ root).tocsr()


def _integrated_cliques(
    X: np.ndarray, neighbors: np.ndarray, regularization: float
) -> scipy.sparse.csr_array:
    n_rows, size = neighbors.shape
    # Orthonormal columns that span what H_k projects on: with contrasts in place of centred rows
    # nothing cancels, however small λ. In float64, hence not on the device.
    contrasts = scipy.linalg.helmert(size)
    local = np.empty((n_rows, size, size))
    for block in row_blocks(n_rows, size * X.shape[1]):
        rows = contrasts @ X[neighbors[block]].astype(np.float64)
        # By eigenvalues: an inverse would lose the large ones where others are 0 and λ is small.
        values, vectors = np.linalg.eigh(rows @ rows.transpose(0, 2, 1))
        root = contrasts.T @ vectors / np.sqrt(np.maximum(values, 0) + regularization)[:, None, :]
        local[block] = root @ root.transpose(0, 2, 1)
    return _pairs(np.repeat(neighbors, size, axis=1), np.tile(neighbors, size), local, n_rows)


def _rough_inverse(matrix: scipy.sparse.csr_array) -> Operator:
    # The diagonal is right about rows alone, and far too large for duplicates that move together,
    # tied by entries of 1/λ: such groups, at each order of magnitude, add a diagonal of their own.
    diagonal = matrix.diagonal()
    entries = matrix.tocoo()
    levels: list[tuple[scipy.sparse.csr_array, np.ndarray]] = []
    strength = 10 * np.median(diagonal)
    while strength < diagonal.max():
        strong = np.abs(entries.data) > strength
        ties = (entries.data[strong], (entries.row[strong], entries.col[strong]))
        graph = scipy.sparse.coo_array(ties, shape=matrix.shape)
        n_groups, groups = scipy.sparse.csgraph.connected_components(graph, directed=False)
        members = _pairs(groups, np.arange(len(groups)), np.ones(len(groups)), len(groups))
        members = members[:n_groups]
        grouped = (members @ matrix @ members.T).diagonal()
        # Sums that should be 0 are rounding errors, of a graph in parts.
        grouped = np.maximum(grouped, 1e-12 * diagonal.max())
        levels.append((members, grouped[:, None]))
        strength *= 100

    def precondition(v: np.ndarray) -> np.ndarray:
        total = v / diagonal[:, None]
        for members, grouped in levels:
            total += members.T @ ((members @ v) / grouped)
        return total

    return precondition


def _decompose(X: np.ndarray) -> _Decomposition:
    mean = X.mean(axis=0, dtype=np.float64)
    centred = X - mean  # float64
    if X.shape[1] > len(X):
        left, singular, rows = np.linalg.svd(centred, full_matrices=False)
        right = rows.T
        kept = singular > 1e-12 * singular[0]
        return _Decomposition(mean, left[:, kept], singular[kept], right[:, kept])
    # By way of the D×D Gram matrix, many times faster where rows are many.
    squared, right = np.linalg.eigh(centred.T @ centred)
    kept = squared > 1e-12 * squared[-1]
    singular, right = np.sqrt(squared[kept]), right[:, kept]
    return _Decomposition(mean, centred @ (right / singular), singular, right)


def _check_neighbors(neighbors: Any, n_rows: int, width: int) -> Int[np.ndarray, "N k"]:
    check_nothing_masked("neighbors", neighbors)
    try:
        neighbors = np.asarray(neighbors)
    except Exception as error:  # of a deleted array, or one of another library, as it likes
        raise ValueError(f"neighbors: expected an array, got {shown(neighbors)}") from error
    if neighbors.ndim != 2 or len(neighbors) != n_rows or neighbors.shape[1] < width:
        raise ValueError(
            f"neighbors: expected {n_rows} rows and at least {width} columns, got shape "
            f"{neighbors.shape}"
        )
    if neighbors.dtype.kind not in "iu":
        raise ValueError(f"neighbors: expected integers, got dtype {neighbors.dtype}")
    neighbors = neighbors[:, :width]
    if neighbors.min() < 0 or neighbors.max() >= n_rows:
        raise ValueError(
            f"neighbors: expected indices in 0 … {n_rows - 1}, got {neighbors.min()} … "
            f"{neighbors.max()}"
        )
    if (neighbors[:, 0] != np.arange(n_rows)).any():
        raise ValueError("neighbors: expected each row itself in the first column")
    return neighbors
