"""Checks of user input; each failure is a ValueError that says what was expected and what came."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np


def check_rank(name: str, array: Any, rank: int) -> None:
    """Raise unless ``array`` has ``rank`` dimensions."""
    shape = np.shape(array)
    if len(shape) != rank:
        raise ValueError(f"{name}: expected an array of {rank} dimension(s), got shape {shape}")


def check_same_length(name: str, array: Any, other_name: str, other: Any) -> None:
    """Raise unless both arrays have the same number of rows."""
    if len(array) != len(other):
        raise ValueError(
            f"{name}: expected as many entries as {other_name} has ({len(other)}), got {len(array)}"
        )


def check_positive(name: str, value: Any) -> None:
    """Raise unless ``value`` is a finite number above zero; traced values pass."""
    if isinstance(value, jax.core.Tracer):
        return
    if not _is_finite(value) or float(value) <= 0:
        raise ValueError(f"{name}: expected a finite number > 0, got {value!r}")


def check_non_negative(name: str, value: Any) -> None:
    """Raise unless ``value`` is a finite number of at least zero; traced values pass."""
    if isinstance(value, jax.core.Tracer):
        return
    if not _is_finite(value) or float(value) < 0:
        raise ValueError(f"{name}: expected a finite number >= 0, got {value!r}")


def check_integer(name: str, value: Any, *, minimum: int = 1) -> None:
    """Raise unless ``value`` is an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ValueError(f"{name}: expected an integer >= {minimum}, got {value!r}")


def check_fraction(name: str, value: Any) -> None:
    """Raise unless 0 <= ``value`` < 1."""
    if not _is_finite(value) or not 0 <= float(value) < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value!r}")


def check_flag(name: str, value: Any) -> None:
    """Raise unless ``value`` is true or false."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: expected true or false, got {value!r}")


def check_seed(name: str, value: Any) -> None:
    """Raise unless ``value`` is a seed that JAX tells from all others: 0 … 2**32 - 1."""
    check_integer(name, value, minimum=0)
    if value >= 2**32:
        raise ValueError(f"{name}: expected an integer below 2**32, got {value}")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}; got {value!r}")


def check_n_clusters(n_clusters: Any, n_rows: int) -> None:
    """Raise unless 1 <= ``n_clusters`` <= ``n_rows``."""
    check_integer("n_clusters", n_clusters)
    if n_clusters > n_rows:
        raise ValueError(
            f"n_clusters: expected at most one cluster per row, got n_clusters={n_clusters} "
            f"for n_samples={n_rows}"
        )


def check_finite_rows(
    name: str, array: np.ndarray, *, first_row: int = 0, block: int = 8192
) -> None:
    """Raise with the index, from ``first_row`` on, of the first row with NaN or infinity."""
    for start in range(0, len(array), block):
        finite = np.isfinite(array[start : start + block])
        if not finite.all():
            row = start + int(np.argmin(finite.reshape(len(finite), -1).all(axis=1)))
            kind = "NaN" if np.isnan(array[row]).any() else "infinity"
            raise ValueError(
                f"{name}: expected finite numbers, got {kind} in row {first_row + row}; "
                "fill or drop such rows first"
            )


def as_rows(name: str, x: Any, *, first_row: int = 0) -> np.ndarray:
    """Return ``x`` as a finite float32 matrix [N D], or raise.

    Args:
        name: What to call ``x`` in an error message.
        x: Anything NumPy can read as a numeric matrix.
        first_row: Index of its first row, for error messages, where ``x`` is a part.

    Returns:
        A C-contiguous float32 array; ``x`` itself where it is one already.

    Raises:
        ValueError: For sparse, object, complex, text or non-2-D input, no rows, no columns, or
            entries that are not finite in float32.

    Examples:
        >>> as_rows("x", [[0, 1], [2, 3]]).dtype
        dtype('float32')
        >>> as_rows("x", [[0.0, float("nan")]])
        Traceback (most recent call last):
        ValueError: x: expected finite numbers, got NaN in row 0; fill or drop such rows first
    """
    if hasattr(x, "toarray"):
        raise ValueError(
            f"{name}: expected a dense matrix, got a sparse one; call .toarray() where it fits "
            "in memory"
        )
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ValueError(
            f"{name}: expected a numeric matrix [rows, columns], got rows of unequal length"
        ) from error
    if array.dtype.kind == "c":
        raise ValueError(f"{name}: Complex data not supported; expected real numbers")
    if array.dtype.kind in "mM":  # which astype would turn into counts of some unit
        raise ValueError(f"{name}: expected numbers, got dtype {array.dtype}")
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name}: expected numbers, got dtype {array.dtype}: {error}"
            ) from error
    if array.ndim != 2:
        raise ValueError(
            f"{name}: Expected 2D array [rows, columns], got a {array.ndim}D array of shape "
            f"{array.shape}. Reshape your data: x.reshape(-1, 1) for a single feature, "
            "x.reshape(1, -1) for a single row."
        )
    if array.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one row, got 0 sample(s), shape {array.shape}")
    if array.shape[1] == 0:
        raise ValueError(
            f"{name}: 0 feature(s) (shape={array.shape}) while a minimum of 1 is required."
        )
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(array, dtype=np.float32)
    check_finite_rows(name, rows, first_row=first_row)
    return rows


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool | str | bytes):
        return False
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
