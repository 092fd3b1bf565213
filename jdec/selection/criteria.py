"""Criteria to choose among fits, and consensus. None sees classes: accuracy stays unbiased."""

from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from sklearn.metrics import adjusted_rand_score, silhouette_score

from jdec import _checks as checks
from jdec._columns import column_names
from jdec._rows import as_labels, as_rows
from jdec.core import functional
from jdec.core.kmeans import KMeansResult, kmeans
from jdec.trainer.model import Model, assign


def pairwise_ari(labels: Int[np.ndarray, "M N"]) -> Float[np.ndarray, "M M"]:
    """Adjusted Rand index between every two of several partitions of the same rows.

    Args:
        labels: M partitions of the same rows, [M N].

    Returns:
        Symmetric, [M M], with ones on the diagonal.

    Raises:
        ValueError: If ``labels`` is not a matrix.

    Examples:
        >>> pairwise_ari(np.array([[0, 0, 1, 1], [1, 1, 0, 0]])).tolist()
        [[1.0, 1.0], [1.0, 1.0]]

    Source: Hubert & Arabie, "Comparing partitions", 1985.
    """
    labels = _as_partitions(labels)
    ari = np.ones((len(labels), len(labels)))
    for i, j in combinations(range(len(labels)), 2):
        ari[i, j] = ari[j, i] = adjusted_rand_score(labels[i], labels[j])
    return ari


def mean_ari(labels: Int[np.ndarray, "M N"]) -> Float[np.ndarray, "M"]:
    """Mean adjusted Rand index of each partition with all others; the mean of it is stability.

    Args:
        labels: M partitions of the same rows, [M N].

    Returns:
        One value per partition, [M]; NaN for a single one.

    Raises:
        ValueError: If ``labels`` is not a matrix.

    Examples:
        >>> mean_ari(np.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1]])).tolist()
        [0.25, 0.25, -0.5]
    """
    ari = pairwise_ari(labels)
    if len(ari) < 2:
        return np.full(len(ari), np.nan)
    return (ari.sum(axis=1) - 1) / (len(ari) - 1)


def sampled_silhouette(
    embeddings: Float[np.ndarray, "N Z"],
    labels: Int[np.ndarray, "N"],
    *,
    sample_size: int = 2000,
    seed: int = 0,
) -> float:
    """Mean silhouette of a random sample of the rows.

    Args:
        embeddings: Where distances are taken, [N Z].
        labels: Partition, [N].
        sample_size: Max number of rows.
        seed: Of the sample.

    Returns:
        A value in -1 … 1; NaN if the sample has a single cluster, or no two rows of one. Compare
        partitions in one space only: a fit's own clusters are tight in its embedding.

    Raises:
        ValueError: If there is not one label for each row.

    Examples:
        >>> sampled_silhouette(np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0, 0, 1, 1])) > 0.9
        True

    Source: Rousseeuw, "Silhouettes", 1987.
    """
    checks.check_integer("sample_size", sample_size)
    checks.check_seed("seed", seed)
    embeddings, labels = _as_embeddings(embeddings), as_labels("labels", labels)
    labels = np.unique(labels, return_inverse=True)[1]
    checks.check_same_length("labels", labels, "embeddings", embeddings)
    if len(labels) > sample_size:
        rows = np.random.default_rng(seed).choice(len(labels), sample_size, replace=False)
        embeddings, labels = embeddings[rows], labels[rows]
    if not 2 <= len(np.unique(labels)) < len(labels) or not np.isfinite(embeddings).all():
        return float("nan")
    return float(silhouette_score(embeddings, labels))


def generalizability(model: Model, x: Any, x_validation: Any) -> float:
    r"""Ratio of the training loss to the held-out loss, :math:`G = L_{train}/L_{validation}`.

    With too many clusters the model overfits the training rows and G drops. The targets P of
    held-out rows use the cluster frequencies of the training rows.

    Args:
        model: Trained on ``x``.
        x: Unscaled training rows, [N D].
        x_validation: Unscaled held-out rows, [M D].

    Returns:
        G; 1 if both losses are equal.

    Raises:
        ValueError: For bad input.

    Source: Xie et al. 2016, section 5.3 and figure 6.
    """
    if not isinstance(model, Model):
        raise ValueError(f"model: expected a jdec.Model, got {type(model).__name__}")
    alpha = model.config.clustering.alpha
    n_columns = len(model.scaling.shift)
    given = {"x": x, "x_validation": x_validation}
    arrays = {name: as_rows(name, rows) for name, rows in given.items()}
    for name, array in arrays.items():
        if array.shape[1] != n_columns:
            raise ValueError(
                f"{name}: expected {n_columns} columns as the model has, got {array.shape[1]}"
            )

    def log_q(name: str) -> Float[Array, "N K"]:
        names = column_names(given[name], numbers=True)
        embeddings, _ = assign(model, arrays[name], feature_names=names)
        centroids = jnp.asarray(model.centroids)
        return functional.log_soft_assignment(jnp.asarray(embeddings), centroids, alpha=alpha)

    training, validation = map(log_q, given)
    frequencies = functional.cluster_frequencies(jnp.exp(training))

    def loss(log_q: Float[Array, "N K"]) -> float:
        p = functional.target_distribution(jnp.exp(log_q), frequencies=frequencies)
        return float(functional.clustering_loss(log_q, p).mean())

    return loss(training) / loss(validation)


def consensus(
    key: Key[Array, ""],
    soft_assignments: Float[np.ndarray, "M N K"],
    n_clusters: int,
    *,
    n_init: int = 20,
) -> KMeansResult:
    r"""Consensus clustering (cluster ensemble) of soft assignments.

    Concatenate the probabilities of row i in all members, :math:`q_i \in R^{M K}`. The
    co-association matrix :math:`A = Q Q^\top` (soft counts of shared clusters) is N×N and is never
    formed: the leading eigenvectors of :math:`D^{-1/2} A D^{-1/2}` come from the M·K × M·K Gram
    matrix. K-means then partitions the eigenvector rows, normalised to length one. Members may
    number their clusters differently and have different numbers of them.

    Args:
        key: Typed random key of k-means.
        soft_assignments: q of each member, [M N K].
        n_clusters: Number of clusters of the consensus.
        n_init: Restarts of k-means.

    Returns:
        The partition; its centroids are in the space of the eigenvectors.

    Raises:
        ValueError: If no member is finite, rows are not probabilities, or K is out of range.

    Examples:
        >>> first = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]]
        >>> second = [[0.2, 0.8], [0.1, 0.9], [0.7, 0.3]]
        >>> labels = consensus(jax.random.key(0), np.array([first, second]), 2).labels
        >>> labels[0] == labels[1] != labels[2]
        Array(True, dtype=bool)

    Source: Fern & Brodley, "Solving cluster ensemble problems by bipartite graph partitioning",
    ICML 2004; Strehl & Ghosh, "Cluster ensembles", JMLR 2002.
    """
    checks.check_key("key", key)
    checks.check_integer("n_init", n_init)
    q = _as_probabilities(soft_assignments)
    q = q[np.isfinite(q).all(axis=(1, 2))]
    if not len(q):
        raise ValueError("soft_assignments: expected at least one finite member, got none")
    checks.check_n_clusters(n_clusters, q.shape[1])
    q = np.concatenate(list(q), axis=1, dtype=np.float64)
    # Empty clusters would divide by zero.
    q = q[:, q.sum(axis=0) > 0]
    degrees = q @ q.sum(axis=0)
    q /= np.sqrt(degrees)[:, None]
    values, vectors = np.linalg.eigh(q.T @ q)
    n_vectors = min(n_clusters, len(values))
    leading, strength = vectors[:, ::-1][:, :n_vectors], values[::-1][:n_vectors]
    rows = q @ (leading / np.sqrt(np.maximum(strength, 1e-12)))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(lengths > 0, lengths, 1)
    compiled = jax.jit(kmeans, static_argnames=("n_clusters", "n_init"))
    return compiled(key, jnp.asarray(rows, jnp.float32), n_clusters, n_init=n_init)


def _as_probabilities(soft_assignments: Any) -> Float[np.ndarray, "M N K"]:
    expected = "soft_assignments: expected q of each member, [members, rows, clusters]"
    checks.check_nothing_masked("soft_assignments", soft_assignments)
    try:
        q = np.asarray(soft_assignments)
        if q.dtype.kind not in "fiubO":
            raise TypeError(q.dtype)
        q = q.astype(np.float64)
    except Exception as error:  # deleted arrays and those of other libraries raise anything
        raise ValueError(f"{expected}, got {checks.shown(soft_assignments)}") from error
    if q.ndim != 3:
        raise ValueError(f"{expected}, got an array of shape {q.shape}; not labels")
    wrong = (q < 0).any(axis=2) | (np.abs(q.sum(axis=2) - 1) > 1e-2)  # both False for NaN
    if wrong.any():
        member, row = np.argwhere(wrong)[0].tolist()
        raise ValueError(
            "soft_assignments: expected probabilities that sum to one, got "
            f"{checks.shown(q[member, row].tolist())} for row {row} of member {member}"
        )
    return q


def _as_partitions(labels: Any) -> Int[np.ndarray, "M N"]:
    checks.check_nothing_masked("labels", labels)
    given = checks.as_tuple("labels", labels, "partitions")
    partitions = [as_labels("labels", part) for part in given]
    if len({len(part) for part in partitions}) != 1:
        sizes = ", ".join(str(len(part)) for part in partitions[:5])
        raise ValueError(
            f"labels: expected partitions of the same rows, [M, N], got {sizes or 'no'} labels"
        )
    return np.array([np.unique(part, return_inverse=True)[1] for part in partitions])


def _as_embeddings(embeddings: Any) -> Float[np.ndarray, "N Z"]:
    checks.check_nothing_masked("embeddings", embeddings)
    try:
        embeddings = np.asarray(embeddings)
    except Exception as error:  # deleted arrays and those of other libraries raise anything
        raise ValueError(
            f"embeddings: expected an array, got {checks.shown(embeddings)}"
        ) from error
    checks.check_rank("embeddings", embeddings, 2)
    checks.check_real("embeddings", embeddings)
    return embeddings
