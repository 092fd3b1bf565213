"""What a fit and a population check of their arguments, and what they tell of the rows."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped

from jdec._checks import (
    DataWarning,
    IdentifierWarning,
    as_tuple,
    column_names,
    names_to_compare,
    shown,
)
from jdec._columns import identifier_columns
from jdec.trainer.config import Config
from jdec.trainer.progress import Record
from jdec.trainer.scaling import (
    OverParts,
    Scaling,
    column_statistics,
    column_warnings,
    fit_scaling,
    only_part,
)
from jdec.trainer.sharding import is_first_process


def check_config(config: Any) -> None:
    """Raise unless ``config`` is a :class:`Config`."""
    if not isinstance(config, Config):
        advice = "; Config.from_dict makes one" if isinstance(config, dict) else ""
        advice = (
            "; jdec.trainer.config.read_config reads one"
            if isinstance(config, str | Path)
            else advice
        )
        raise ValueError(
            f"config: expected a jdec.Config, got {type(config).__name__} {shown(config)}{advice}"
        )


def check_callbacks(callbacks: Any) -> tuple[Callable[[Record], None], ...]:
    """Return callbacks as a tuple of functions, or raise."""
    callbacks = as_tuple("callbacks", callbacks, "functions of a record")
    for callback in callbacks:
        if not callable(callback):
            raise ValueError(f"callbacks: expected functions of a record, got {shown(callback)}")
    return callbacks


def check_arrays(name: str, tree: Any, wanted: Any) -> None:
    """Raise unless ``tree`` holds real, finite arrays of the names and shapes of ``wanted``."""
    expected, given = _leaves(wanted), _leaves(tree)
    shapes = {path: np.shape(leaf) for path, leaf in expected.items()}
    differences = [
        f"{shapes.get(path, 'none')} in {path}, got {_shape_of(given.get(path))}"
        for path in dict.fromkeys([*shapes, *given])
        if path not in shapes or path not in given or shapes[path] != _shape_of(given[path])
    ]
    structures: list[Any] = [] if differences else [*map(jax.tree.structure, (tree, wanted))]
    if differences or structures[0] != structures[1]:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        told = "; ".join(part[:90] for part in differences[:3]) or "another structure"
        raise ValueError(f"{name}: expected arrays of shapes as the network has: {told}{more}")
    for path, leaf in given.items():
        array = np.asarray(leaf)
        if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
            raise ValueError(f"{name}: expected real numbers in {path}, got dtype {array.dtype}")
        with np.errstate(over="ignore"):
            is_usable = np.isfinite(array.astype(np.float32)).all()
        if not is_usable:
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


def check_image_shape(config: Config, width: int) -> None:
    """Raise unless rows of ``width`` numbers are the images that a configuration speaks of."""
    if config.image_shape is not None and np.prod(config.image_shape) != width:
        raise ValueError(
            f"image_shape: expected {width} entries as x has columns, got {config.image_shape}"
        )


def check_same_columns(
    names: tuple[str, ...] | None, rows: np.ndarray, unlabeled: Any, others: np.ndarray
) -> None:
    """Raise unless further rows have the columns of ``x``."""
    if others.shape[1] != rows.shape[1]:
        raise ValueError(
            f"unlabeled: expected {rows.shape[1]} columns as x has, got {others.shape[1]}"
        )
    pair = names_to_compare(names, column_names(unlabeled, numbers=True))
    if pair is not None and pair[0] != pair[1]:
        raise ValueError("unlabeled: expected the columns of x, by name and in their order")


def look_at_columns(
    rows: Shaped[np.ndarray, "n D"],
    config: Config,
    feature_names: Sequence[str] | None,
    *,
    over_parts: OverParts = only_part,
) -> tuple[Scaling, list[DataWarning]]:
    """Find the scaling of the rows, and what to tell of columns hardly meant as they are."""
    statistics = column_statistics(rows, over_parts)
    options: Any = {"scale": config.scale, "statistics": statistics}
    scaling = fit_scaling(rows, config.scaling, **options)
    told: list[DataWarning] = []
    if is_first_process():
        lines = column_warnings(statistics, scaling, rows.dtype, feature_names)
        told += map(DataWarning, lines)
        told += [
            IdentifierWarning(
                f"column {name if feature_names is None else repr(name)} seems to number the rows "
                "and not to measure them; leave it out if so"
            )
            for name in identifier_columns(rows, feature_names)
        ]
    return scaling, told
