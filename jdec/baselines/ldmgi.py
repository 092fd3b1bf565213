"""Local discriminant models and global integration (LDMGI)."""

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from jdec._checks import check_integer, check_positive
from jdec._validation import RandomState
from jdec.baselines.base import Problem, SpectralClustering, sparse_from_pairs
from jdec.baselines.spectral import Operator, row_blocks


class LDMGI(SpectralClustering):
    r"""Local discriminant models and global integration.

    .. math::
        M = \sum_i S_i L_i S_i^\top, \quad
        L_i = H_k (\tilde X_i \tilde X_i^\top + \lambda I)^{-1} H_k

    over the cliques of a row and its k - 1 nearest neighbours: :math:`\tilde X_i = H_k X_i` are the
    centred rows of the clique, [k D], and S_i scatters its entries into an [N N] matrix. The
    eigenvectors to the smallest eigenvalues of M, [N K], are rotated to a partition.

    Args:
        n_clusters: Number of clusters K.
        n_neighbors: Rows k of a clique, the row itself counted.
        regularization: λ; the paper tries 1e-8, 1e-6, …, 1e8.
        n_init: Number of starts of the spectral rotation.
        random_state: Integer seed, NumPy RandomState, or None.
        max_factored_rows: Maximum N for which the eigensolver is preconditioned by a sparse LU
            decomposition of M, which fills in for large N; in two dimensions it always is.

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
        max_factored_rows: int = 4000,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_neighbors = n_neighbors
        self.regularization = regularization
        self.n_init = n_init
        self.random_state = random_state
        self.max_factored_rows = max_factored_rows

    def _check_settings(self) -> None:
        check_positive("regularization", self.regularization)
        check_integer("max_factored_rows", self.max_factored_rows, minimum=0)

    def _problem(self, X: np.ndarray, neighbors: np.ndarray) -> Problem:
        matrix = _integrate_cliques(X, neighbors, float(self.regularization))
        if len(X) > self.max_factored_rows and X.shape[1] > 2:
            return Problem(matrix.__matmul__, _multilevel_preconditioner(matrix))
        # Linearly dependent cliques and a small λ give eigenvalues of very different magnitude,
        # for which the diagonal is a poor preconditioner.
        shift = 1e-13 * matrix.diagonal().max() * sparse.eye_array(len(X))
        factors = splu(
            (matrix + shift).tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        return Problem(matrix.__matmul__, factors.solve)


def _integrate_cliques(X: np.ndarray, neighbors: np.ndarray, ridge: float) -> sparse.csr_array:
    n_rows, size = neighbors.shape
    # An orthonormal basis of the range of H_k: contrasts, unlike centred rows, do not cancel for
    # small λ. In float64, hence not on the device.
    contrasts = linalg.helmert(size)
    local = np.empty((n_rows, size, size))
    for block in row_blocks(n_rows, size * X.shape[1]):
        rows = contrasts @ X[neighbors[block]].astype(np.float64)
        # An explicit inverse would lose the large eigenvalues where others are 0 and λ is small.
        values, vectors = np.linalg.eigh(rows @ rows.transpose(0, 2, 1))
        root = contrasts.T @ vectors / np.sqrt(np.maximum(values, 0) + ridge)[:, None, :]
        local[block] = root @ root.transpose(0, 2, 1)
    rows, columns = np.repeat(neighbors, size, axis=1), np.tile(neighbors, size)
    return sparse_from_pairs(rows, columns, local, n_rows)


def _multilevel_preconditioner(matrix: sparse.csr_array) -> Operator:
    # The diagonal alone overestimates groups of duplicates that move together, coupled by entries
    # of 1/λ: such groups add a diagonal at each order of magnitude.
    diagonal = matrix.diagonal()
    entries = matrix.tocoo()
    levels: list[tuple[sparse.csr_array, np.ndarray]] = []
    threshold = 10 * np.median(diagonal)
    while threshold < diagonal.max():
        strong = np.abs(entries.data) > threshold
        edges = (entries.data[strong], (entries.row[strong], entries.col[strong]))
        graph = sparse.coo_array(edges, shape=matrix.shape)
        n_groups, groups = connected_components(graph, directed=False)
        indices = np.arange(len(groups))
        sums = sparse_from_pairs(groups, indices, np.ones(len(groups)), len(groups))[:n_groups]
        grouped = (sums @ matrix @ sums.T).diagonal()
        # Sums over a connected component of the rows are 0 up to rounding.
        levels.append((sums, np.maximum(grouped, 1e-12 * diagonal.max())[:, None]))
        threshold *= 100

    def precondition(v: np.ndarray) -> np.ndarray:
        total = v / diagonal[:, None]
        for sums, grouped in levels:
            total += sums.T @ ((sums @ v) / grouped)
        return total

    return precondition
