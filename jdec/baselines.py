r"""SEC and LDMGI, the spectral methods that the DEC paper compares with, for many rows.

Both minimise :math:`\mathrm{tr}(F^\top M F)` over orthonormal F for a matrix M made from the
nearest neighbours of each row, and rotate the eigenvectors F to the nearest partition. M is sparse,
or sparse and of low rank, and no N×N array is ever made.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self, cast

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg
from jaxtyping import Array, Float, Int
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from jdec._checks import (
    as_rows,
    check_choice,
    check_finite_rows,
    check_integer,
    check_n_clusters,
    check_positive,
    check_rank,
    check_seed,
)

_BLOCK_ENTRIES = 2**25
_TOLERANCE = 1e-6
_ROUNDING = 3e-14
_MOST_ITERATIONS = 1000
_FACTORED_ROWS = 4000

RandomState = int | np.random.RandomState | None
_Operator = Callable[[np.ndarray], np.ndarray]


class _Decomposition(NamedTuple):
    """Singular value decomposition of the centred rows: X = 1 meanᵀ + left · singular · rightᵀ."""

    mean: Float[np.ndarray, "D"]
    left: Float[np.ndarray, "N r"]
    singular: Float[np.ndarray, "r"]
    right: Float[np.ndarray, "D r"]


class _Problem(NamedTuple):
    """A symmetric matrix without negative eigenvalues, and a rough inverse of it."""

    multiply: _Operator  # [N m] -> [N m]
    precondition: _Operator
    rows: _Decomposition | None = None


# Nearest neighbours.


def nearest_neighbors(X: Any, n_neighbors: int) -> Int[np.ndarray, "N k"]:
    r"""Return for each row itself and then its nearest other rows, by Euclidean distance.

    Blocks of rows meet all rows on the device. The candidates, found from
    :math:`\|y\|^2 - 2 x^\top y` in float32, are twice as many as wanted and put in order by their
    differences, as the expansion cancels where distances are small.

    Args:
        X: Rows, [N D], numeric and finite.
        n_neighbors: How many, the row itself counted; at most N.

    Returns:
        Indices, [N n_neighbors] int32; the first column is 0 … N-1, also among duplicates.

    Raises:
        ValueError: For bad rows or a number that is not in 1 … N.

    Examples:
        >>> nearest_neighbors([[0.0], [1.0], [1.0], [5.0]], 2).tolist()
        [[0, 1], [1, 2], [2, 1], [3, 1]]
    """
    X = as_rows("X", X)
    _check_n_neighbors(n_neighbors, 1, len(X), len(X))
    if n_neighbors == 1:
        return np.arange(len(X), dtype=np.int32)[:, None]
    # Far from the origin the expansion would cancel.
    x = jnp.asarray(X - X.mean(axis=0, dtype=np.float64).astype(np.float32))
    half_norms = (x * x).sum(axis=1) / 2
    rows = max(1, min(len(X), _BLOCK_ENTRIES // max(len(X), 2 * n_neighbors * X.shape[1])))
    found = np.empty((len(X), n_neighbors), np.int32)
    for start in range(0, len(X), rows):
        start = min(start, len(X) - rows)  # the last block overlaps: one shape, one compilation
        found[start : start + rows] = _neighbors_of_block(
            x, half_norms, np.int32(start), rows=rows, n_neighbors=n_neighbors
        )
    return found


@partial(jax.jit, static_argnames=("rows", "n_neighbors"))
def _neighbors_of_block(
    x: Float[Array, "N D"],
    half_norms: Float[Array, "N"],
    start: Int[Any, ""],
    *,
    rows: int,
    n_neighbors: int,
) -> Int[Array, "rows k"]:
    block = jax.lax.dynamic_slice_in_dim(x, start, rows)
    own = start + jnp.arange(rows, dtype=jnp.int32)
    nearness = jnp.matmul(block, x.T, precision=jax.lax.Precision.HIGHEST) - half_norms[None, :]
    nearness = nearness.at[jnp.arange(rows), own].set(-jnp.inf)
    candidates = jax.lax.top_k(nearness, min(2 * n_neighbors, x.shape[0]) - 1)[1]
    squared = ((x[candidates] - block[:, None, :]) ** 2).sum(axis=2)
    order = jax.lax.top_k(-squared, n_neighbors - 1)[1]
    others = jnp.take_along_axis(candidates, order, axis=1)
    return jnp.concatenate([own[:, None], others.astype(jnp.int32)], axis=1)


# From eigenvectors to a partition.


def spectral_rotation(
    embedding: Any,
    *,
    random_state: RandomState = None,
    n_init: int = 10,
    max_iter: int = 100,
) -> Int[np.ndarray, "N"]:
    r"""Return the partition nearest to a rotation of the rows of eigenvectors.

    With rows :math:`\hat f_i = f_i / \|f_i\|`, maximises
    :math:`\sum_i \max_j (\hat F R)_{ij}` over orthogonal R by turns: the labels are the largest
    entries of :math:`\hat F R`, and R = V Uᵀ for the singular value decomposition U S Vᵀ of the
    clusters' sums :math:`Y^\top \hat F`. A start takes a random row and then, one by one, rows most
    nearly orthogonal to those taken.

    Args:
        embedding: Eigenvectors in the columns, [N K].
        random_state: Integer seed, NumPy RandomState, or None.
        n_init: Number of starts; the best objective wins.
        max_iter: Most iterations of a start.

    Returns:
        Cluster of each row, [N] int32.

    Raises:
        ValueError: For an embedding that is not a finite matrix, or bad numbers.

    Examples:
        >>> labels = spectral_rotation([[1.0, 0.1], [0.1, 1.0], [0.9, 0.0]], random_state=0)
        >>> bool(labels[0] == labels[2] != labels[1])
        True

    Source: Yu & Shi, "Multiclass spectral clustering", ICCV 2003.
    """
    embedding = np.asarray(embedding, np.float64)
    check_rank("embedding", embedding, 2)
    check_finite_rows("embedding", embedding)
    return _rotate(embedding, _generator(random_state), n_init, max_iter)[0]


def _rotate(
    embedding: np.ndarray, generator: np.random.RandomState, n_init: int, max_iter: int = 100
) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "K K"]]:
    check_integer("n_init", n_init)
    check_integer("max_iter", max_iter)
    lengths = np.linalg.norm(embedding, axis=1, keepdims=True)
    rows = embedding / np.where(lengths > 0, lengths, 1)
    n_rows, n_clusters = rows.shape
    best = (-np.inf, np.zeros(n_rows, np.int32), np.eye(n_clusters))
    for _ in range(n_init):
        rotation = np.empty((n_clusters, n_clusters))
        likeness = np.zeros(n_rows)
        row = generator.randint(n_rows)
        for column in range(n_clusters):
            rotation[:, column] = rows[row]
            likeness += np.abs(rows @ rows[row])
            row = int(likeness.argmin())
        previous = -np.inf
        for _ in range(max_iter):
            labels = (rows @ rotation).argmax(axis=1)
            partition = np.zeros((n_rows, n_clusters))
            partition[np.arange(n_rows), labels] = 1
            left, singular, right = np.linalg.svd(partition.T @ rows)
            rotation = right.T @ left.T
            # The sum over the rows of the entry that each was given, after the rotation.
            objective = singular.sum()
            if objective <= previous + 1e-10 * n_rows:
                break
            previous = objective
        if objective > best[0]:
            labels = (rows @ rotation).argmax(axis=1)
            best = (objective, labels.astype(np.int32), rotation)
    return best[1:]


# The estimators.


class _SpectralClustering(ClusterMixin, BaseEstimator):
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
            neighbors: What :func:`jdec.baselines.nearest_neighbors` says of X, to share it between
                fits; more columns than needed are left aside. None computes it.

        Returns:
            The estimator.

        Raises:
            ValueError: For bad input or settings.
        """
        X = self._validate(X, reset=True)
        check_n_clusters(self.n_clusters, len(X))
        _check_n_neighbors(self.n_neighbors, 2, len(X) - 1, len(X))
        check_integer("n_init", self.n_init)
        self._check_settings()
        generator = _generator(self.random_state)
        width = self.n_neighbors + (not self._includes_itself)
        if neighbors is None:
            neighbors = nearest_neighbors(X, width)
        neighbors = _check_neighbors(neighbors, len(X), width)
        problem = self._problem(X, neighbors)
        self.eigenvalues_, self.embedding_ = _smallest_eigenpairs(
            problem, len(X), self.n_clusters, generator
        )
        self.labels_, self.rotation_ = _rotate(self.embedding_, generator, self.n_init)
        self._fit_linear(problem)
        return self

    def fit_predict(self, X: Any, y: Any = None, **keywords: Any) -> Int[np.ndarray, "N"]:
        """Cluster the rows of X and return ``labels_``; arguments as of ``fit``."""
        return self.fit(X, **keywords).labels_

    def _validate(self, X: Any, *, reset: bool) -> Float[np.ndarray, "N D"]:
        # Rows that are not finite are left to this library: it names them.
        with np.errstate(over="ignore"):
            X = validate_data(self, X, dtype=np.float32, ensure_all_finite=False, reset=reset)
        return as_rows("X", X)

    def _check_settings(self) -> None:
        raise NotImplementedError

    def _problem(self, X: np.ndarray, neighbors: np.ndarray) -> _Problem:
        raise NotImplementedError

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
        mu = float(self.mu)
        # H - Xc (Xcᵀ Xc + γ I)⁻¹ Xcᵀ is γ/(s² + γ) on left singular vectors, 0 on the constant
        # vector, and 1 on what is orthogonal to them.
        misfit = self.gamma / (rows.singular**2 + self.gamma)[:, None]
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
        ridge = rows.right * (rows.singular / (rows.singular**2 + self.gamma))
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
        for block in _blocks(len(X), others.shape[1] * X.shape[1]):
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
    for block in _blocks(n_rows, size * X.shape[1]):
        rows = contrasts @ X[neighbors[block]].astype(np.float64)
        # By eigenvalues: an inverse would lose the large ones where others are 0 and λ is small.
        values, vectors = np.linalg.eigh(rows @ rows.transpose(0, 2, 1))
        root = contrasts.T @ vectors / np.sqrt(np.maximum(values, 0) + regularization)[:, None, :]
        local[block] = root @ root.transpose(0, 2, 1)
    return _pairs(np.repeat(neighbors, size, axis=1), np.tile(neighbors, size), local, n_rows)


def _rough_inverse(matrix: scipy.sparse.csr_array) -> _Operator:
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


# Eigenvectors.


def _smallest_eigenpairs(
    problem: _Problem, n_rows: int, n_wanted: int, generator: np.random.RandomState
) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "N K"]]:
    """Return the least eigenvalues, ascending, and their orthonormal eigenvectors.

    A block Davidson method: the basis grows by the preconditioned residuals of a block of Ritz
    vectors, and shrinks to the best of its Ritz vectors when it is full. A block, unlike a single
    vector, finds eigenvalues with their multiplicity, such as the 0 of a graph in many parts; the
    vectors beyond the wanted ones make those converge sooner.
    """
    block = n_wanted + max(4, n_wanted // 2)
    most = 10 * block
    if n_rows <= most:  # no larger than the basis would be
        matrix = problem.multiply(np.eye(n_rows))
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        return values[:n_wanted], vectors[:, :n_wanted]
    basis, images = np.empty((n_rows, most), order="F"), np.empty((n_rows, most), order="F")
    projected = np.zeros((most, most))
    size, scale = 0, 0.0
    new = generator.standard_normal((n_rows, block))
    for _ in range(_MOST_ITERATIONS):
        for _ in range(2):  # once leaves rounding errors
            new -= basis[:, :size] @ (basis[:, :size].T @ new)
            new = np.linalg.qr(new)[0]
        end = size + block
        basis[:, size:end] = new
        images[:, size:end] = problem.multiply(new)
        projected[:end, size:end] = basis[:, :end].T @ images[:, size:end]
        projected[size:end, :size] = projected[:size, size:end].T
        size = end
        values, turns = np.linalg.eigh(projected[:size, :size])
        scale = max(scale, values[-1])
        ritz = basis[:, :size] @ turns[:, :block]
        residuals = images[:, :size] @ turns[:, :block] - ritz * values[:block]
        lengths = np.linalg.norm(residuals, axis=0)
        threshold = max(_TOLERANCE * values[block - 1], _ROUNDING * scale)
        if lengths[:n_wanted].max() <= threshold:
            break
        new = problem.precondition(residuals / np.where(lengths > 0, lengths, 1))
        if size + block > most:
            size = 4 * block
            basis[:, :size] = basis @ turns[:, :size]
            images[:, :size] = images @ turns[:, :size]
            projected[:size, :size] = np.diag(values[:size])
    else:
        warnings.warn(
            f"eigenvectors: residual {lengths[:n_wanted].max():.1e} after {_MOST_ITERATIONS} "
            f"iterations, expected {threshold:.1e}",
            ConvergenceWarning,
            stacklevel=3,
        )
    return values[:n_wanted], ritz[:, :n_wanted]


# Checks.


def _blocks(n_rows: int, entries_of_a_row: int) -> list[slice]:
    step = max(1, _BLOCK_ENTRIES // entries_of_a_row)
    return [slice(start, start + step) for start in range(0, n_rows, step)]


def _generator(random_state: RandomState) -> np.random.RandomState:
    if isinstance(random_state, int | np.integer):
        check_seed("random_state", random_state)
    return check_random_state(random_state)


def _check_n_neighbors(n_neighbors: Any, least: int, most: int, n_rows: int) -> None:
    check_integer("n_neighbors", n_neighbors, minimum=least)
    if n_neighbors > most:
        raise ValueError(
            f"n_neighbors: expected at most {most}, got n_neighbors={n_neighbors} "
            f"for n_samples={n_rows}"
        )


def _check_neighbors(neighbors: Any, n_rows: int, width: int) -> Int[np.ndarray, "N k"]:
    neighbors = np.asarray(neighbors)
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
