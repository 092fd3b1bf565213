"""What a fit and a population validate of their arguments."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdec import _checks as checks
from jdec._columns import column_names, names_to_compare
from jdec._rows import as_labels
from jdec._sources import RowSource
from jdec.core.autoencoder import Autoencoder, as_autoencoder, is_layered, network_shapes
from jdec.core.dec import DECBatch
from jdec.core.targets import DECParams
from jdec.trainer.config import Config
from jdec.trainer.fingerprint import describe
from jdec.trainer.history import Callback
from jdec.trainer.programs import Hooks, build_network


def check_config(config: Any) -> None:
    """Raise unless ``config`` is a :class:`Config`."""
    if not isinstance(config, Config):
        advice = "; Config.from_dict makes one" if isinstance(config, dict) else ""
        if isinstance(config, str | Path):
            advice = "; jdec.trainer.read_config reads one"
        raise ValueError(
            f"config: expected a jdec.Config, got {type(config).__name__} "
            f"{checks.shown(config)}{advice}"
        )


def check_shell(
    config: Any, callbacks: Any, workdir: Any, resume: Any, checkpoint_seconds: Any, progress: Any
) -> tuple[tuple[Callback, ...], Path | None]:
    """Validate what is around the work of a fit or population; return callbacks and folder."""
    check_config(config)
    callbacks = checks.as_tuple("callbacks", callbacks, "functions of a record")
    for callback in callbacks:
        checks.check_function("callbacks", callback, "functions of a record")
    checks.check_flag("resume", resume)
    checks.check_non_negative("checkpoint_seconds", checkpoint_seconds)
    checks.check_flag("progress", progress)
    return callbacks, None if workdir is None else checks.as_path("workdir", workdir)


def check_arrays(name: str, tree: Any, wanted: Any) -> None:
    """Raise unless ``tree`` holds real, finite arrays of the names and shapes of ``wanted``."""
    shapes = {path: np.shape(leaf) for path, leaf in _leaves(wanted).items()}
    given = _leaves(tree)
    differences = [
        f"{shapes.get(path, 'none')} in {path}, got {_shape_of(given.get(path))}"
        for path in dict.fromkeys([*shapes, *given])
        if shapes.get(path) != _shape_of(given.get(path))
    ]
    structure: Any = jax.tree.structure
    if differences or structure(tree) != structure(wanted):
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        warned = "; ".join(part[:90] for part in differences[:3]) or "another structure"
        raise ValueError(f"{name}: expected arrays of shapes as the network has: {warned}{more}")
    for path, leaf in given.items():
        array = np.asarray(leaf)
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise ValueError(f"{name}: expected real numbers in {path}, got dtype {array.dtype}")
        with np.errstate(over="ignore"):
            if not np.isfinite(array.astype(np.float32)).all():
                raise ValueError(f"{name}: expected finite numbers, got NaN or infinity in {path}")


def _leaves(tree: Any) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of JAX, about objects that are no leaves
        leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator=".") or "it": leaf
        for path, leaf in leaves
    }


def _shape_of(leaf: Any) -> Any:
    is_array = isinstance(leaf, np.ndarray | np.generic | jax.Array)
    return np.shape(leaf) if is_array else "none" if leaf is None else type(leaf).__name__


def check_same_columns(
    names: tuple[str, ...] | None, rows: RowSource, unlabeled: Any, others: RowSource
) -> None:
    """Raise unless further rows have the columns of ``x``."""
    if others.shape[1] != rows.shape[1]:
        raise ValueError(
            f"unlabeled: expected {rows.shape[1]} columns as x has, got {others.shape[1]}"
        )
    pair = names_to_compare(names, column_names(unlabeled, numbers=True))
    if pair is not None and pair[0] != pair[1]:
        raise ValueError("unlabeled: expected the columns of x, by name and in their order")


def check_parts(
    config: Config, n_features: int, network: Any, tx: Any, extra_loss: Any, augment: Any
) -> tuple[Autoencoder, Hooks]:
    """Return the network and hooks of a run: the caller's, where not those of the settings."""
    if config.image_shape is not None and np.prod(config.image_shape) != n_features:
        raise ValueError(
            f"image_shape: expected {n_features} entries as x has columns, got {config.image_shape}"
        )
    network = as_autoencoder(build_network(config) if network is None else network, n_features)
    for name, leaf in _leaves(network_shapes(network, n_features).params).items():
        if not jax.numpy.issubdtype(leaf.dtype, np.floating):
            raise ValueError(
                f"network: expected floating-point parameters, got dtype {leaf.dtype} in {name}"
            )
    if config.pretrain.layerwise_steps and not is_layered(network):
        raise ValueError(
            f"pretrain.layerwise_steps: expected 0 for {describe(network)[:100]}, which has no "
            f"greedy layers, got {config.pretrain.layerwise_steps}"
        )
    return network, _check_hooks(network, config, n_features, tx, extra_loss, augment)


def _check_hooks(
    network: Autoencoder, config: Config, n_features: int, tx: Any, extra_loss: Any, augment: Any
) -> Hooks:
    """Return what a caller brings beside the settings, tried on shapes alone."""
    tx = {} if tx is None else tx
    if not isinstance(tx, Mapping) or not set(tx) <= {"pretrain", "clustering"}:
        raise ValueError(
            'tx: expected optimizers by phase, as {"pretrain": optax.adam(1e-3), "clustering": '
            f"optax.sgd(0.01)}}, got {checks.shown(tx)}"
        )
    for phase, chain in tx.items():
        checks.check_optimizer("tx", chain, f"an Optax optimizer in {phase}")
    shapes = network_shapes(network, n_features)
    key = jax.eval_shape(lambda: jax.random.key(0))  # nothing is computed, on no device
    x = jax.ShapeDtypeStruct((3, n_features), np.float32)
    if augment is not None:
        got = _shape_from("augment", augment, key, x)
        if (got.shape, got.dtype) != (x.shape, x.dtype):
            raise ValueError(
                f"augment: expected rows of shape {x.shape} and dtype float32 as it is given, got "
                f"{got.shape} and {got.dtype}"
            )
    if extra_loss is not None:
        n_clusters = config.n_clusters
        centroids = jax.ShapeDtypeStruct((n_clusters, shapes.latent_dim), np.float32)
        batch: Any = DECBatch(x, jax.ShapeDtypeStruct((3, n_clusters), np.float32))  # type: ignore[arg-type]
        params: Any = DECParams(shapes.params, centroids)  # type: ignore[arg-type]
        got = _shape_from("extra_loss", extra_loss, key, params, batch)
        if got.shape != () or not np.issubdtype(got.dtype, np.floating):
            raise ValueError(
                f"extra_loss: expected a floating-point scalar, got shape {got.shape} and dtype "
                f"{got.dtype}; take the mean over the batch"
            )
    return Hooks(tx.get("pretrain"), tx.get("clustering"), extra_loss, augment)


def _shape_from(name: str, function: Any, *arguments: Any) -> Any:
    checks.check_function(name, function)
    returned = []

    def called(*arguments: Any) -> Any:
        returned.append(function(*arguments))
        return returned[-1]

    try:
        got = jax.eval_shape(called, *arguments)
    except Exception as error:  # whatever a user's function raises
        raise ValueError(
            f"{name}: {type(error).__name__}: {checks.in_a_line(error)[:300]}"
        ) from error
    if not hasattr(returned[-1], "shape"):  # nor has a Python number
        raise ValueError(f"{name}: expected an array, got {type(returned[-1]).__name__}")
    return got


def check_classes(y: Any, n_rows: int) -> np.ndarray | None:
    """Return classes [N] as an array, or raise."""
    if y is None:
        return None
    labels = as_labels("y", y)
    if len(labels) != n_rows:
        raise ValueError(f"y: expected as many entries as x has ({n_rows}), got {len(labels)}")
    return labels


def check_n_train(config: Config, n_train: Any, n_rows: int) -> int:
    """Return the number of rows of pretraining."""
    if n_train is None:
        return n_rows
    checks.check_integer("n_train", n_train)
    if n_train > n_rows:
        raise ValueError(f"n_train: expected at most the {n_rows} rows of x, got {n_train}")
    return n_train if config.pretrain.rows == "train" else n_rows
