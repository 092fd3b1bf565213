"""What the algorithms of the core validate of their arguments, before anything is traced."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdec._checks import (
    as_tuple,
    check_flag,
    check_float32,
    check_function,
    check_integer,
    check_key,
    check_n_clusters,
    check_non_negative,
    check_not_deleted,
    check_optimizer,
    check_rank,
    check_real,
    check_same_length,
    shown,
)
from jdec._rows import as_rows


def check_self_training(
    encode: Any,
    tx: Any,
    alpha: Any,
    freeze_encoder: Any,
    extra_loss: Any,
    cluster_mask: Any,
    embed: Any,
) -> None:
    """Raise unless these can be the arguments of :func:`jdec.self_training`."""
    check_function("encode", encode)
    check_optimizer("tx", tx)
    check_float32("alpha", alpha)
    check_flag("freeze_encoder", freeze_encoder)
    if extra_loss is not None:
        check_function("extra_loss", extra_loss)
    if cluster_mask is not None:
        check_rank("cluster_mask", cluster_mask, 1)
    check_function("embed", embed)


def check_run(key: Any, x: Any, algorithm: Any) -> None:
    """Raise unless self-training can run with these arguments."""
    check_key("key", key)
    check_rank("x", x, 2)
    if getattr(algorithm, "refresh", None) is None:
        raise ValueError(
            f"algorithm: expected one with a refresh, as of jdec.self_training, "
            f"got {shown(algorithm)}"
        )


def check_interval(update_interval: Any, reset_optimizer: Any) -> None:
    """Raise unless an interval can have these settings."""
    check_integer("update_interval", update_interval)
    check_flag("reset_optimizer", reset_optimizer)


def check_refresh(
    x: Any, labels: Any, n_rows: Any, alpha: Any, cluster_mask: Any, encode: Any, embed: Any
) -> None:
    """Raise unless these can be the arguments of :func:`jdec.core.refresh_targets`."""
    check_rank("x", x, 2)
    check_float32("alpha", alpha)
    if cluster_mask is not None:
        check_rank("cluster_mask", cluster_mask, 1)
    if labels is not None:
        check_rank("labels", labels, 1)
        check_same_length("labels", labels, "x", x)
    if n_rows is not None:
        check_integer("n_rows", n_rows, maximum=len(x))
    check_function("encode", encode)
    check_function("embed", embed)


def check_partition(
    key: Any, embeddings: Any, n_clusters: Any, factors: Any, n_init: Any, alpha: Any, mapping: Any
) -> Sequence[int]:
    """Return the factors of over-clustering of :func:`jdec.core.initial_partition`, or raise."""
    check_key("key", key)
    check_rank("embeddings", embeddings, 2)
    check_n_clusters(n_clusters, embeddings.shape[0])
    factors = as_tuple("overclustering_factors", factors, "integers")
    if not factors:
        raise ValueError("overclustering_factors: expected at least one value, got none")
    for factor in factors:
        check_integer("overclustering_factors", factor)
    check_integer("n_init", n_init)
    check_float32("alpha", alpha)
    if mapping is not None:
        check_function("map_restarts", mapping)
    return factors


def check_kmeans(
    key: Any,
    x: Any,
    n_clusters: Any,
    n_init: Any,
    max_iter: Any,
    tol: Any,
    restarts_at_once: Any,
    map_restarts: Any,
) -> Any:
    """Return rows [N D] as :func:`jdec.kmeans` takes them, or raise."""
    check_key("key", key)
    if not isinstance(x, jax.Array):
        x = as_rows("x", x)
    check_rank("x", x, 2)
    check_real("x", x)
    check_not_deleted("x", x)
    if x.shape[1] == 0:
        raise ValueError(f"x: expected at least one column, got shape {x.shape}")
    check_n_clusters(n_clusters, x.shape[0])
    check_integer("n_init", n_init)
    check_integer("max_iter", max_iter)
    check_non_negative("tol", tol)
    if map_restarts is not None:
        check_function("map_restarts", map_restarts)
    if restarts_at_once is not None:
        check_integer("restarts_at_once", restarts_at_once)
    return x


def count_rows(data: Any) -> int:
    """Return N of a pytree of arrays of N rows each, or raise.

    Examples:
        >>> count_rows({"x": np.ones((5, 2)), "y": np.ones(5)})
        5
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of JAX, about objects that are no leaves
        leaves = jax.tree.leaves(data)
    lengths = set()
    for leaf in leaves:
        if not isinstance(leaf, np.ndarray | jax.Array | jax.ShapeDtypeStruct):
            raise ValueError(f"data: expected arrays of N rows each, got {shown(leaf)}")
        lengths.add(jnp.shape(leaf)[:1])
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError(f"data: expected arrays of N rows each, got {shown(data)}")
    return lengths.pop()[0]
