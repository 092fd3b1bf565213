"""Spectral clustering of many rows: neighbours, eigenvectors, and their rotation to a partition."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from sklearn.exceptions import ConvergenceWarning

from jdec._checks import (
    as_rows,
    check_finite_rows,
    check_integer,
    check_rank,
)
from jdec._validation import RandomState, make_generator

_BLOCK_ENTRIES = 2**25
_TOLERANCE = 1e-6
_ROUNDING = 3e-14
_MOST_ITERATIONS = 1000

#: A matrix [N N] as what it does to columns, [N m] -> [N m].
Operator = Callable[[np.ndarray], np.ndarray]


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
    check_n_neighbors(n_neighbors, 1, len(X), len(X))
    if n_neighbors == 1:
        return np.arange(len(X), dtype=np.int32)[:, None]
    # Far from the origin the expansion would cancel.
    x = jnp.asarray((X - X.mean(axis=0, dtype=np.float64)).astype(np.float32))
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
    return rotate(embedding, make_generator(random_state), n_init, max_iter)[0]


def rotate(
    embedding: np.ndarray, generator: np.random.RandomState, n_init: int, max_iter: int = 100
) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "K K"]]:
    """Return the labels of :func:`spectral_rotation` and the rotation R that gives them."""
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


def smallest_eigenpairs(
    multiply: Operator,
    precondition: Operator,
    n_rows: int,
    n_wanted: int,
    generator: np.random.RandomState,
) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "N K"]]:
    """Return the least eigenvalues, ascending, and their orthonormal eigenvectors.

    A block Davidson method: the basis grows by the preconditioned residuals of a block of Ritz
    vectors, and shrinks to the best of its Ritz vectors when it is full. A block, unlike a single
    vector, finds eigenvalues with their multiplicity, such as the 0 of a graph in many parts; the
    vectors beyond the wanted ones make those converge sooner.

    Args:
        multiply: A symmetric matrix [N N] without negative eigenvalues.
        precondition: A rough inverse of it.
        n_rows: N.
        n_wanted: K, how many.
        generator: Draws the first block.

    Returns:
        Eigenvalues [K] and eigenvectors [N K], float64.

    Examples:
        >>> diagonal = np.arange(1.0, 501.0)[:, None]
        >>> values, vectors = smallest_eigenpairs(
        ...     lambda v: diagonal * v, lambda v: v / diagonal, 500, 3, make_generator(0))
        >>> values.round(6).tolist(), vectors.shape
        ([1.0, 2.0, 3.0], (500, 3))

    Source: Davidson 1975; Crouzeix, Philippe & Sadkane, SIAM J. Sci. Comput. 15(1), 1994.
    """
    block = n_wanted + max(4, n_wanted // 2)
    most = 10 * block
    if n_rows <= most:  # no larger than the basis would be
        matrix = multiply(np.eye(n_rows))
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
        images[:, size:end] = multiply(new)
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
        new = precondition(residuals / np.where(lengths > 0, lengths, 1))
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


def row_blocks(n_rows: int, entries_of_a_row: int) -> list[slice]:
    """Cut rows into blocks of bounded size."""
    step = max(1, _BLOCK_ENTRIES // entries_of_a_row)
    return [slice(start, start + step) for start in range(0, n_rows, step)]


def check_n_neighbors(n_neighbors: Any, least: int, most: int, n_rows: int) -> None:
    """Raise a ValueError unless a number of neighbours lies in least … most."""
    check_integer("n_neighbors", n_neighbors, minimum=least)
    if n_neighbors > most:
        raise ValueError(
            f"n_neighbors: expected at most {most}, got n_neighbors={n_neighbors} "
            f"for n_samples={n_rows}"
        )
