"""What SEC and LDMGI share: neighbours, smallest eigenvectors, spectral rotation.

Both minimise tr(Fᵀ M F) over orthonormal F, M from the nearest neighbours and never a dense array,
and rotate the eigenvectors F to the nearest partition.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Int, Shaped
from scipy import sparse
from sklearn.base import BaseEstimator, ClusterMixin

from jdec._checks import check_integer, check_n_clusters, check_nothing_masked, shown
from jdec._rows import as_rows
from jdec._validation import RandomState, make_generator, validate_rows
from jdec.baselines.spectral import (
    Operator,
    check_n_neighbors,
    nearest_neighbors,
    rotate,
    smallest_eigenpairs,
)


class Problem(NamedTuple):
    """An eigenproblem, and the linear model of the eigenvectors where a method has one."""

    multiply: Operator  # M, symmetric positive semidefinite: [N m] -> [N m]
    precondition: Operator  # approximate inverse of M
    # [N K] -> coefficients [D K] and intercepts [K]
    regress: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None


class SpectralClustering(ClusterMixin, BaseEstimator, ABC):
    """Base class: a method defines its settings and its eigenproblem."""

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
            neighbors: Result of :func:`jdec.baselines.spectral.nearest_neighbors` for X, to share
                between fits; additional columns are ignored. None computes it.

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
        problem = self._problem(X, _check_neighbors(neighbors, len(X), width))
        self.eigenvalues_, self.embedding_ = smallest_eigenpairs(
            problem.multiply, problem.precondition, len(X), self.n_clusters, generator
        )
        self.labels_, self.rotation_ = rotate(self.embedding_, generator, self.n_init)
        if problem.regress is not None:
            self.coef_, self.intercept_ = problem.regress(self.embedding_)
        return self

    def _validate(self, X: Any, *, reset: bool) -> Shaped[np.ndarray, "N D"]:
        return as_rows("X", validate_rows(self, X, reset=reset))

    @abstractmethod
    def _check_settings(self) -> None:
        """Validate the settings of the method."""

    @abstractmethod
    def _problem(self, X: np.ndarray, neighbors: np.ndarray) -> Problem:
        """Return the matrix whose smallest eigenvectors are the embedding."""


def sparse_from_pairs(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, n_rows: int
) -> sparse.csr_array:
    """Sum the values at each pair of indices into a sparse matrix [N N]."""
    entries = (values.ravel(), (rows.ravel(), columns.ravel()))
    return sparse.coo_array(entries, shape=(n_rows, n_rows)).tocsr()


def _check_neighbors(neighbors: Any, n_rows: int, width: int) -> Int[np.ndarray, "N k"]:
    check_nothing_masked("neighbors", neighbors)
    try:
        neighbors = np.asarray(neighbors)
    except Exception as error:  # array-likes may raise any exception, deleted ones for example
        raise ValueError(f"neighbors: expected an array, got {shown(neighbors)}") from error
    if neighbors.ndim != 2 or len(neighbors) != n_rows or neighbors.shape[1] < width:
        raise ValueError(
            f"neighbors: expected {n_rows} rows and at least {width} columns, got shape "
            f"{neighbors.shape}"
        )
    if neighbors.dtype.kind not in "iu":
        raise ValueError(f"neighbors: expected integers, got dtype {neighbors.dtype}")
    neighbors = neighbors[:, :width]
    low, high = neighbors.min(), neighbors.max()
    if low < 0 or high >= n_rows:
        raise ValueError(f"neighbors: expected indices in 0 … {n_rows - 1}, got {low} … {high}")
    if (neighbors[:, 0] != np.arange(n_rows)).any():
        raise ValueError("neighbors: expected each row itself in the first column")
    return neighbors
