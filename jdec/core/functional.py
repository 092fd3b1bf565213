"""The equations of Deep Embedded Clustering as pure, differentiable functions of arrays.

Source: Xie, Girshick & Farhadi, "Unsupervised Deep Embedding for Clustering Analysis", ICML 2016.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from jdec._checks import check_array, check_float32, check_rank, check_real

# The square of a coordinate this far out still fits float32 when thousands of them are added up.
_FARTHEST = 1e17
# Finite stand-in for log 0: exp(-1e30) = 0, and 0 · -1e30 is not NaN.
_LOG_ZERO = -1e30


def squared_distances(
    embeddings: Float[Array, "N Z"], centroids: Float[Array, "K Z"]
) -> Float[Array, "N K"]:
    r"""Squared Euclidean distances :math:`\|z_i - \mu_j\|^2`, in float32 at least.

    Coordinates beyond 1e17, also infinite ones, count as 1e17. NaN stays NaN, also compiled.
    """
    check_rank("embeddings", embeddings, 2)
    check_rank("centroids", centroids, 2)
    check_real("embeddings", embeddings)
    check_real("centroids", centroids)
    if embeddings.shape[1] != centroids.shape[1]:
        raise ValueError(
            f"centroids: expected width {embeddings.shape[1]} as the embeddings have, "
            f"got {centroids.shape[1]}"
        )
    is_double = jnp.float64 in (embeddings.dtype, centroids.dtype)
    dtype = jnp.dtype(jnp.float64 if is_double else jnp.float32)
    z, mu = embeddings.astype(dtype), centroids.astype(dtype)
    # Far from the origin the expansion |z|² - 2zμ + |μ|² would cancel, so the points are centred.
    # Distances do not depend on the origin, so its gradient is zero and need not be traced.
    origin = jax.lax.stop_gradient(_bounded(mu).mean(axis=0, keepdims=True))
    z, mu = _bounded(z - origin), _bounded(mu - origin)
    cross = jnp.matmul(z, mu.T, precision=jax.lax.Precision.HIGHEST, preferred_element_type=dtype)
    squared = (z * z).sum(axis=1)[:, None] - 2 * cross + (mu * mu).sum(axis=1)[None, :]
    return jnp.where(squared < 0, jnp.zeros_like(squared), squared)


def _bounded(values: Float[Array, "M Z"]) -> Float[Array, "M Z"]:
    # Compiled for a CPU, clip and maximum drop NaN; a choice by comparison keeps it.
    farthest = jnp.asarray(_FARTHEST, values.dtype)
    values = jnp.where(values > farthest, farthest, values)
    return jnp.where(values < -farthest, -farthest, values)


def log_soft_assignment(
    embeddings: Float[Array, "N Z"],
    centroids: Float[Array, "K Z"],
    *,
    alpha: float | Float[Array, ""] = 1.0,
    cluster_mask: Bool[Array, "K"] | None = None,
) -> Float[Array, "N K"]:
    r"""Logarithm of the soft assignment, which unlike its plain form does not underflow.

    .. math:: \log q_{ij} = -\tfrac{\alpha+1}{2} \log(1 + \|z_i-\mu_j\|^2/\alpha)
              - \log \sum_{j'} (1 + \|z_i-\mu_{j'}\|^2/\alpha)^{-(\alpha+1)/2}

    Args:
        embeddings: Rows z, [N Z].
        centroids: Cluster centres μ, [K Z].
        alpha: Degrees of freedom α > 0 of Student's t kernel; the paper uses 1.
        cluster_mask: Boolean mask of the clusters in use, [K]; the others get q = 0 exactly and no
            gradient, so that programs for several K can share one shape. All by default.

    Returns:
        log q, [N K], float32 (float64 for float64 input); -1e30 for masked clusters.

    Raises:
        ValueError: If shapes do not match or ``alpha`` is not positive.

    Examples:
        >>> log_q = log_soft_assignment(jnp.zeros((1, 2)), jnp.array([[0.0, 0.0], [2.0, 0.0]]))
        >>> jnp.exp(log_q).round(4).tolist()
        [[0.833..., 0.166...]]

    Source: Xie et al. 2016, Eq. 1.
    """
    check_float32("alpha", alpha)
    if cluster_mask is not None:
        check_rank("centroids", centroids, 2)
        check_array("cluster_mask", cluster_mask, centroids.shape[:1])
        if cluster_mask.dtype != np.bool_:
            raise ValueError(f"cluster_mask: expected booleans, got dtype {cluster_mask.dtype}")
        # Masked centroids lie on one that is not, so that they do not affect centring.
        other = jax.lax.stop_gradient(centroids[jnp.argmax(cluster_mask)])
        centroids = jnp.where(jnp.asarray(cluster_mask)[:, None], centroids, other)
    distances = squared_distances(embeddings, centroids)
    alpha = jnp.asarray(alpha, distances.dtype)
    logits = -(alpha + 1) / 2 * jnp.log1p(distances / alpha)
    if cluster_mask is not None:
        logits = jnp.where(cluster_mask[None, :], logits, jnp.asarray(_LOG_ZERO, logits.dtype))
    return jax.nn.log_softmax(logits, axis=1)


def soft_assignment(
    embeddings: Float[Array, "N Z"],
    centroids: Float[Array, "K Z"],
    *,
    alpha: float | Float[Array, ""] = 1.0,
    cluster_mask: Bool[Array, "K"] | None = None,
) -> Float[Array, "N K"]:
    r"""Probability of each row belonging to each cluster, by Student's t kernel.

    .. math:: q_{ij} = \frac{(1 + \|z_i-\mu_j\|^2/\alpha)^{-(\alpha+1)/2}}
              {\sum_{j'} (1 + \|z_i-\mu_{j'}\|^2/\alpha)^{-(\alpha+1)/2}}

    Args:
        embeddings: Rows z, [N Z].
        centroids: Cluster centres μ, [K Z].
        alpha: Degrees of freedom α > 0; the paper uses 1.
        cluster_mask: Boolean mask of the clusters in use, [K]; all by default.

    Returns:
        q, [N K]; every row sums to one.

    Raises:
        ValueError: If shapes do not match or ``alpha`` is not positive.

    Examples:
        >>> q = soft_assignment(jnp.array([[-2.0, -2.0]]), jnp.array([[-1.0, -1.0], [1.0, 1.0]]))
        >>> bool(jnp.allclose(q, jnp.array([[19 / 22, 3 / 22]])))
        True

    Source: Xie et al. 2016, Eq. 1.
    """
    log_q = log_soft_assignment(embeddings, centroids, alpha=alpha, cluster_mask=cluster_mask)
    return jnp.exp(log_q)


def cluster_frequencies(q: Float[Array, "N K"]) -> Float[Array, "K"]:
    r"""Soft cluster frequencies :math:`f_j = \sum_i q_{ij}`.

    Args:
        q: Soft assignment, [N K].

    Returns:
        f, [K]; sums to N. Frequencies of blocks or shards add up to those of the whole data set.

    Raises:
        ValueError: If ``q`` is not a matrix.

    Examples:
        >>> cluster_frequencies(jnp.array([[0.5, 0.5], [0.0, 1.0]])).tolist()
        [0.5, 1.5]

    Source: Xie et al. 2016, below Eq. 3.
    """
    check_rank("q", q, 2)
    check_real("q", q)
    return q.sum(axis=0)


def target_distribution(
    q: Float[Array, "N K"], *, frequencies: Float[Array, "K"] | None = None
) -> Float[Array, "N K"]:
    r"""Auxiliary target distribution: q sharpened, and divided by the cluster frequencies.

    .. math:: p_{ij} = \frac{q_{ij}^2 / f_j}{\sum_{j'} q_{ij'}^2 / f_{j'}}

    Args:
        q: Soft assignment, [N K].
        frequencies: f of ALL rows, [K]; by default that of ``q``, which then has to hold them all.

    Returns:
        p, [N K]; rows sum to one, but rows and columns of zeros (padding, empty clusters) stay so.

    Raises:
        ValueError: If ``q`` is not a matrix or ``frequencies`` is not [K].

    Examples:
        >>> target_distribution(jnp.array([[0.5, 0.5], [0.0, 1.0]])).tolist()
        [[0.75, 0.25], [0.0, 1.0]]

    Source: Xie et al. 2016, Eq. 3.
    """
    check_rank("q", q, 2)
    check_real("q", q)
    if frequencies is None:
        frequencies = cluster_frequencies(q)
    check_array("frequencies", frequencies, q.shape[1:])
    check_real("frequencies", frequencies)
    # q * (q / f) and not q² / f: the square of a small q underflows before the division.
    weights = q * (q / jnp.where(frequencies > 0, frequencies, 1)[None, :])
    total = weights.sum(axis=1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)


def clustering_loss(log_q: Float[Array, "B K"], p: Float[Array, "B K"]) -> Float[Array, "B"]:
    r"""Kullback-Leibler divergence of the soft assignment from its target, for each row.

    .. math:: L_i = \mathrm{KL}(p_i \| q_i) = \sum_j p_{ij} \log \frac{p_{ij}}{q_{ij}}

    Args:
        log_q: Logarithm of the soft assignment, [B K].
        p: Target distribution, [B K], held constant by the caller.

    Returns:
        One value per row, [B]; the caller takes the mean.

    Raises:
        ValueError: If the shapes differ or are not matrices.

    Examples:
        >>> q, p = jnp.array([[0.6, 0.4], [0.4, 0.6]]), jnp.array([[0.8, 0.2], [0.3, 0.7]])
        >>> round(float(clustering_loss(jnp.log(q), p).mean()), 5)
        0.05656

    Source: Xie et al. 2016, Eq. 2.
    """
    check_rank("log_q", log_q, 2)
    check_array("p", p, log_q.shape)
    check_real("log_q", log_q)
    check_real("p", p)
    return optax.losses.kl_divergence(log_q, p)


def mean_kl(log_q: Float[Array, "N K"]) -> Float[Array, ""]:
    r"""Mean KL(P‖Q) of a soft assignment of all rows and its own target distribution.

    Args:
        log_q: Logarithm of the soft assignment of ALL rows, [N K].

    Returns:
        The mean, []: 0 where all rows are assigned with certainty, or all alike.

    Examples:
        >>> mean_kl(jnp.log(jnp.array([[0.5, 0.5], [0.5, 0.5]]))).tolist()
        0.0

    Source: Xie et al. 2016, Eqs. 2 and 3.
    """
    return clustering_loss(log_q, target_distribution(jnp.exp(log_q))).mean()
