"""What a fit and a population check of their arguments, and what they tell of the rows."""

import reprlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jdec._checks import DataWarning, IdentifierWarning, column_names
from jdec._columns import identifier_columns
from jdec.config import Config
from jdec.progress import Record
from jdec.scaling import (
    OverParts,
    Scaling,
    column_statistics,
    column_warnings,
    fit_scaling,
    only_part,
)
from jdec.sharding import is_first_process


def check_config(config: Any) -> None:
    """Raise unless ``config`` is a :class:`Config`."""
    if not isinstance(config, Config):
        advice = "; Config.from_dict makes one" if isinstance(config, dict) else ""
        advice = "; jdec.config.read_config reads one" if isinstance(config, str | Path) else advice
        raise ValueError(
            f"config: expected a jdec.Config, got {type(config).__name__} "
            f"{reprlib.repr(config)}{advice}"
        )


def check_callbacks(callbacks: Any) -> tuple[Callable[[Record], None], ...]:
    """Return callbacks as a tuple of functions, or raise."""
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, str):
        got = reprlib.repr(callbacks)
        raise ValueError(f"callbacks: expected a list of functions of a record, got {got}")
    callbacks = tuple(callbacks)
    for callback in callbacks:
        if not callable(callback):
            raise ValueError(
                f"callbacks: expected functions of a record, got {reprlib.repr(callback)}"
            )
    return callbacks


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
    theirs = column_names(unlabeled)
    if names is not None and theirs is not None and theirs != names:
        raise ValueError("unlabeled: expected the columns of x, by name and in their order")


def scale_and_tell(
    rows: Shaped[np.ndarray, "n D"],
    config: Config,
    feature_names: Sequence[str] | None,
    *,
    over_parts: OverParts = only_part,
) -> Scaling:
    """Find the scaling of the rows, and warn of columns that are hardly meant as they are."""
    statistics = column_statistics(rows, over_parts)
    options: Any = {"scale": config.scale, "statistics": statistics}
    scaling = fit_scaling(rows, config.scaling, **options)
    if not is_first_process():
        return scaling
    for line in column_warnings(statistics, scaling, rows.dtype, feature_names):
        warnings.warn(line, DataWarning, stacklevel=4)
    for name in identifier_columns(rows, feature_names):
        warnings.warn(
            f"column {name if feature_names is None else repr(name)} seems to number the rows and "
            "not to measure them; leave it out if so",
            IdentifierWarning,
            stacklevel=4,
        )
    return scaling
