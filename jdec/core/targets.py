"""What follows from the parameters and all rows: embeddings, P, labels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from jdec._checks import check_function, check_integer, check_kind, check_rank, check_same_length
from jdec._typing import EncodeFn, Params
from jdec.core.functional import clustering_loss, log_soft_assignment, target_distribution

#: ``embed(encode, params, x [N D]) -> embeddings [N Z]``, for all rows at once.
EmbedFn = Callable[[EncodeFn, Params, Float[Array, "N D"]], Float[Array, "N Z"]]


class DECParams(NamedTuple):
    """What self-training trains."""

    encoder: Params  # with the decoder's, where an extra loss needs them
    centroids: Float[Array, "K Z"]


class Targets(NamedTuple):
    """What a refresh recomputes from the parameters and all rows."""

    p: Float[Array, "N K"]
    labels: Int[Array, "N"]  # argmax q; -1 for padding
    label_change: Float[Array, ""]  # share of the labels; NaN if anything is not finite
    kl: Float[Array, ""]  # mean KL(P‖Q) over all rows


def embed_in_blocks(
    encode: EncodeFn, params: Params, x: Float[Array, "N D"], *, block_size: int = 2048
) -> Float[Array, "N Z"]:
    """Embed all rows in blocks of one fixed size, as :func:`map_row_blocks`.

    Args:
        encode: ``encode(params, x) -> embeddings``.
        params: Its parameters.
        x: Rows, [N D].
        block_size: Rows in a block.

    Returns:
        Embeddings, [N Z].

    Raises:
        ValueError: If an argument is not of its kind, or ``block_size`` below 1.

    Examples:
        >>> embed_in_blocks(lambda w, x: x @ w, jnp.eye(2), jnp.ones((5, 2)), block_size=4).shape
        (5, 2)
    """
    check_function("encode", encode)
    return map_row_blocks(lambda block: encode(params, block), x, block_size=block_size)


def map_row_blocks(
    function: Callable[[Float[Array, "B D"]], PyTree], x: Float[Array, "N D"], *, block_size: int
) -> PyTree:
    """Apply a function of rows to blocks of one fixed size, so that memory does not grow with N.

    What it returns for a row then does not depend on how many rows came with it either. The last
    block begins where it ends with the last row, and does some rows again; fewer rows than a block
    has are padded. So the rows are never copied as a whole.

    Args:
        function: ``function(block [B D])`` returns arrays of B rows.
        x: Rows, [N D].
        block_size: B.

    Returns:
        What the function returns, of N rows.

    Raises:
        ValueError: If an argument is not of its kind, or ``block_size`` below 1.

    Examples:
        >>> map_row_blocks(lambda block: block.sum(axis=1), jnp.ones((5, 2)), block_size=4).tolist()
        [2.0, 2.0, 2.0, 2.0, 2.0]
    """
    check_function("function", function)
    check_rank("x", x, 2)
    check_integer("block_size", block_size)
    n_rows = len(x)
    if n_rows <= block_size:
        found = function(jnp.pad(x, ((0, block_size - n_rows), (0, 0))))
        return jax.tree.map(lambda leaf: leaf[:n_rows], found)
    starts = _starts(n_rows, block_size)
    n_new = (n_rows - 1) % block_size + 1  # in the last block

    def of_block(start: Int[Array, ""]) -> PyTree:
        return function(jax.lax.dynamic_slice_in_dim(x, start, block_size))

    def join(leaf: Array) -> Array:
        return jnp.concatenate([leaf[:-1].reshape(-1, *leaf.shape[2:]), leaf[-1, -n_new:]])

    return jax.tree.map(join, jax.lax.map(of_block, starts))


def _starts(n_rows: int, block_size: int) -> Int[Array, "blocks"]:
    starts = np.minimum(np.arange(0, n_rows, block_size), n_rows - block_size)
    return jnp.asarray(starts, jnp.int32)


def sum_row_blocks(
    function: Callable[[Float[Array, "B D"], Bool[Array, "B 1"]], Array],
    x: Float[Array, "N D"],
    is_row: Bool[Array, "N 1"],
    *,
    block_size: int | None,
) -> Array:
    """Sum ``function(rows, counts)`` over blocks of rows, of which those count that are new."""
    if block_size is None or len(x) <= block_size:
        return function(x, is_row)
    size = block_size

    def add(total: Array, item: Any) -> tuple[Array, None]:
        start, first = item
        rows, counts = (jax.lax.dynamic_slice_in_dim(part, start, size) for part in (x, is_row))
        # The last block begins where it ends with the last row.
        is_new = start + jnp.arange(size, dtype=jnp.int32) >= first
        return total + function(rows, counts & is_new[:, None]), None

    firsts = jnp.arange(0, len(x), size, dtype=jnp.int32)
    shape = jax.eval_shape(function, x[:size], is_row[:size])
    start = jnp.zeros(shape.shape, shape.dtype)
    return jax.lax.scan(add, start, (_starts(len(x), size), firsts))[0]


def refresh_targets(
    params: DECParams,
    x: Float[Array, "N D"],
    labels: Int[Array, "N"] | None = None,
    *,
    encode: EncodeFn,
    alpha: float | Float[Array, ""] = 1.0,
    cluster_mask: Bool[Array, "K"] | None = None,
    n_rows: int | None = None,
    embed: EmbedFn = embed_in_blocks,
) -> Targets:
    """Recompute P, labels and the share of changed labels from all rows.

    Args:
        params: Parameters of encoder and centroids.
        x: All rows, [N D].
        labels: Those of the refresh before, [N]; without, all count as changed.
        encode: ``encode(params, x [B D]) -> embeddings [B Z]``.
        alpha: Degrees of freedom α of Eq. 1.
        cluster_mask: Boolean mask of the clusters in use, [K]; all by default.
        n_rows: Number of rows, all by default; what follows is padding, of frequency zero.
        embed: Embeds all rows.

    Returns:
        The new targets.

    Raises:
        ValueError: If an argument is not of its kind.

    Source: Xie et al. 2016, Eqs. 1 and 3, section 3.3.
    """
    check_kind("params", params, DECParams)
    check_rank("x", x, 2)
    if labels is None:
        labels = jnp.full(len(x), -1, jnp.int32)
    check_rank("labels", labels, 1)
    check_same_length("labels", labels, "x", x)
    if n_rows is not None:
        check_integer("n_rows", n_rows, maximum=len(x))
    check_function("encode", encode)
    check_function("embed", embed)
    embeddings, centroids = embed(encode, params.encoder, x), params.centroids
    log_q = log_soft_assignment(embeddings, centroids, alpha=alpha, cluster_mask=cluster_mask)
    q = jnp.exp(log_q)
    if cluster_mask is not None:  # those not in use may be anything
        centroids = jnp.where(jnp.asarray(cluster_mask)[:, None], centroids, 0)
    # Of the weights as well, as a network may hide theirs: compiled for a CPU, relu makes NaN 0.
    is_finite = all_finite((params.encoder, centroids, embeddings, q))
    new_labels = q.argmax(axis=1).astype(jnp.int32)
    n_all, n_rows = x.shape[0], x.shape[0] if n_rows is None else n_rows
    if n_rows < n_all:
        is_row = jnp.arange(n_all) < n_rows
        q = jnp.where(is_row[:, None], q, 0)
        new_labels = jnp.where(is_row, new_labels, -1)
    p = target_distribution(q)
    kl = clustering_loss(log_q, p).sum() / n_rows
    n_changed = jnp.sum(new_labels != labels, dtype=jnp.int32)
    return Targets(
        p=p.astype(centroids.dtype),
        labels=new_labels,
        label_change=jnp.where(is_finite, n_changed.astype(jnp.float32) / n_rows, jnp.nan),
        kl=jnp.where(is_finite, kl, jnp.nan),
    )


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether no array of a pytree holds NaN or infinity."""
    finite = [
        jnp.isfinite(leaf).all()
        for leaf in jax.tree.leaves(tree)
        if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)
    ]
    return jnp.stack([jnp.bool_(True), *finite]).all()


def cluster_sizes(labels: Int[Array, "N"], n_clusters: int) -> Int[Array, "K"]:
    """Count the rows of each cluster; padding, whose label is -1, belongs to none."""
    return jnp.bincount(jnp.where(labels < 0, n_clusters, labels), length=n_clusters)
