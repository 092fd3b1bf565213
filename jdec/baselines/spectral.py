"""Pieces of spectral clustering: nearest neighbours, smallest eigenpairs, spectral rotation."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from sklearn.exceptions import ConvergenceWarning

from jdec._checks import check_integer
from jdec._rows import as_rows

_BLOCK_ENTRIES = 2**25
_TOLERANCE = 1e-6
_ROUNDING = 3e-14

#: A matrix [N N] as its product with columns, [N m] -> [N m].
Operator = Callable[[np.ndarray], np.ndarray]


def nearest_neighbors(
    X: Any, n_neighbors: int, *, block_entries: int = _BLOCK_ENTRIES
) -> Int[np.ndarray, "N k"]:
    r"""Return the index of each row, followed by its nearest other rows in Euclidean distance.

    :math:`\|y\|^2 - 2 x^\top y` in float32 selects twice as many candidates as needed, which are
    sorted by their differences, because the expansion cancels at small distances.

    Args:
        X: Rows, [N D], numeric and finite.
        n_neighbors: At most N, the row itself counted, which is the first also of duplicates.
        block_entries: Maximum number of entries of a temporary array.
    """
    X = as_rows("X", X)
    check_n_neighbors(n_neighbors, 1, len(X), len(X))
    if n_neighbors == 1:
        return np.arange(len(X), dtype=np.int32)[:, None]
    # Centred: the expansion cancels far from the origin.
    x = jnp.asarray((X - X.mean(axis=0, dtype=np.float64)).astype(np.float32))
    half_norms = (x * x).sum(axis=1) / 2
    rows = max(1, min(len(X), block_entries // max(len(X), 2 * n_neighbors * X.shape[1])))
    found = np.empty((len(X), n_neighbors), np.int32)
    for start in range(0, len(X), rows):
        start = min(start, len(X) - rows)  # the last block overlaps: one shape, one program
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


def rotate(
    embedding: np.ndarray, generator: np.random.RandomState, n_init: int, max_iter: int = 100
) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "K K"]]:
    r"""Discretise eigenvectors [N K]: return the partition nearest to a rotation R of them, and R.

    With rows :math:`\hat f_i = f_i / \|f_i\|`, maximises
    :math:`\sum_i \max_j (\hat F R)_{ij}` over orthogonal R by alternating steps: the labels are the
    largest entries of :math:`\hat F R`, and R = V Uᵀ for the singular value decomposition U S Vᵀ of
    the cluster sums :math:`Y^\top \hat F`. Each start chooses a random row and then, one by one,
    the row closest to orthogonal to those chosen; of ``n_init`` starts the best objective wins.

    Source: Yu & Shi, "Multiclass spectral clustering", ICCV 2003.
    """
    lengths = np.linalg.norm(embedding, axis=1, keepdims=True)
    rows = embedding / np.where(lengths > 0, lengths, 1)
    n_rows, n_clusters = rows.shape
    best = (-np.inf, np.zeros(n_rows, np.int32), np.eye(n_clusters))
    for _ in range(n_init):
        rotation = np.empty((n_clusters, n_clusters))
        similarity = np.zeros(n_rows)
        row = generator.randint(n_rows)
        for column in range(n_clusters):
            rotation[:, column] = rows[row]
            similarity += np.abs(rows @ rows[row])
            row = int(similarity.argmin())
        previous = -np.inf
        for _ in range(max_iter):
            labels = (rows @ rotation).argmax(axis=1)
            left, singular, right = np.linalg.svd(np.eye(n_clusters)[labels].T @ rows)
            rotation = right.T @ left.T
            # The sum over rows of the entry at the row's label, after the rotation.
            objective = singular.sum()
            if objective <= previous + 1e-10 * n_rows:
                break
            previous = objective
        if objective > best[0]:
            labels = (rows @ rotation).argmax(axis=1)
            best = (objective, labels.astype(np.int32), rotation)
    return best[1:]


def smallest_eigenpairs(
    multiply: Operator,
    precondition: Operator,
    n_rows: int,
    n_pairs: int,
    generator: np.random.RandomState,
    *,
    max_iter: int = 1000,
) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "N K"]]:
    """Return the smallest eigenvalues, ascending, and their orthonormal eigenvectors.

    The block Davidson method: a basis grows by the preconditioned residuals of a block of Ritz
    vectors, and a full one restarts from its best. A block, unlike a single vector, finds
    eigenvalues with their multiplicity, such as the 0 of a disconnected graph; its extra vectors
    speed up convergence. The matrix is positive semidefinite, ``precondition`` about its inverse.

    Source: Davidson 1975; Crouzeix, Philippe & Sadkane, SIAM J. Sci. Comput. 15(1), 1994.
    """
    block = n_pairs + max(4, n_pairs // 2)
    if n_rows <= 10 * block:  # no larger than the basis
        matrix = multiply(np.eye(n_rows))
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        return values[:n_pairs], vectors[:, :n_pairs]
    new = generator.standard_normal((n_rows, block))
    capacity = 10 * block
    basis, images = (np.empty((n_rows, capacity), order="F") for _ in range(2))
    projected = np.zeros((capacity, capacity))
    size, scale = 0, 0.0
    for _ in range(max_iter):
        for _ in range(2):  # a single pass leaves rounding errors
            new -= basis[:, :size] @ (basis[:, :size].T @ new)
            new = np.linalg.qr(new)[0]
        end = size + block
        basis[:, size:end] = new
        images[:, size:end] = multiply(new)
        projected[:end, size:end] = basis[:, :end].T @ images[:, size:end]
        projected[size:end, :size] = projected[:size, size:end].T
        size = end
        values, vectors = np.linalg.eigh(projected[:size, :size])
        scale = max(scale, values[-1])
        ritz = basis[:, :size] @ vectors[:, :block]
        residuals = images[:, :size] @ vectors[:, :block] - ritz * values[:block]
        lengths = np.linalg.norm(residuals, axis=0)
        threshold = max(_TOLERANCE * values[block - 1], _ROUNDING * scale)
        if lengths[:n_pairs].max() <= threshold:
            break
        new = precondition(residuals / np.where(lengths > 0, lengths, 1))
        if size + block > capacity:
            size = 4 * block
            basis[:, :size] = basis @ vectors[:, :size]
            images[:, :size] = images @ vectors[:, :size]
            projected[:size, :size] = np.diag(values[:size])
    else:
        warnings.warn(
            f"eigenvectors: residual {lengths[:n_pairs].max():.1e} after {max_iter} iterations, "
            f"expected {threshold:.1e}",
            ConvergenceWarning,
            stacklevel=3,
        )
    return values[:n_pairs], ritz[:, :n_pairs]


def row_blocks(n_rows: int, entries_per_row: int) -> list[slice]:
    """Split rows into blocks of bounded size."""
    step = max(1, _BLOCK_ENTRIES // entries_per_row)
    return [slice(start, start + step) for start in range(0, n_rows, step)]


def check_n_neighbors(n_neighbors: Any, minimum: int, maximum: int, n_rows: int) -> None:
    """Raise a ValueError unless a number of neighbours lies in minimum … maximum."""
    check_integer("n_neighbors", n_neighbors, minimum=minimum)
    if n_neighbors > maximum:
        raise ValueError(
            f"n_neighbors: expected at most {maximum}, got n_neighbors={n_neighbors} "
            f"for n_samples={n_rows}"
        )
