"""Checks of data: rows and labels; each failure is a ValueError of one line."""

import decimal
import math
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jdec._checks import check_nothing_masked, in_a_line, shown
from jdec._columns import column_name, column_names

_BLOCK = 8192  # rows compared at once


class DataWarning(UserWarning):
    """The rows are probably not what was meant."""


class IdentifierWarning(DataWarning):
    """A column of the rows seems to number them."""


def as_rows(
    name: str, x: Any, *, first_row: int = 0, columns: Sequence[str] | None = None
) -> np.ndarray:
    """Return ``x`` as a matrix [N D] of finite real numbers in their own dtype, or raise.

    Nothing is rounded: a large offset common to all rows would swallow their differences in
    float32, so that rows are centred and scaled first (:class:`jdec.trainer.scaling.Scaling`).
    Messages count the rows from ``first_row`` on, and name the columns, by default those of a data
    frame.
    """
    if hasattr(x, "toarray"):
        raise ValueError(
            f"{name}: expected a dense matrix, got a sparse one; call .toarray() where it fits "
            "in memory"
        )
    columns = column_names(x) if columns is None else columns
    check_nothing_masked(name, x)
    array = _as_matrix(name, x)
    check_has_entries(name, array.shape)
    array = as_real(name, array, first_row, columns)
    check_finite_rows(name, array, first_row=first_row, columns=columns)
    return array


def as_float32(name: str, x: Any) -> np.ndarray:
    """Return :func:`as_rows` rounded to float32, C-contiguous; for rows that are not scaled."""
    return np.ascontiguousarray(as_rows(name, x), np.float32)


def _as_matrix(name: str, x: Any) -> np.ndarray:
    try:
        array = np.asarray(x)
    except Exception as error:  # deleted arrays, and those of other libraries, raise anything
        is_list = isinstance(x, list | tuple) and isinstance(error, ValueError)
        reason = f"{type(x).__name__}: {in_a_line(error, 200)}"
        got = "rows of unequal length" if is_list else reason
        raise ValueError(f"{name}: expected a numeric matrix [rows, columns], got {got}") from error
    if array.dtype.names is not None or array.ndim == 0:
        got = f"fields {', '.join(array.dtype.names)}" if array.dtype.names else shown(x)
        raise ValueError(f"{name}: expected a numeric matrix [rows, columns], got {got}")
    if array.ndim != 2:
        raise ValueError(
            f"{name}: Expected 2D array [rows, columns], got a {array.ndim}D array of shape "
            f"{array.shape}. Reshape your data: x.reshape(-1, 1) for a single feature, "
            "x.reshape(1, -1) for a single row."
        )
    return array


def check_has_entries(name: str, shape: tuple[int, ...]) -> None:
    """Raise unless a matrix of this shape has rows and columns."""
    if shape[0] == 0:
        raise ValueError(f"{name}: expected at least one row, got 0 sample(s), shape {shape}")
    if shape[1] == 0:
        raise ValueError(f"{name}: 0 feature(s) (shape={shape}) while a minimum of 1 is required.")


def as_real(
    name: str, array: np.ndarray, first_row: int, columns: Sequence[str] | None
) -> np.ndarray:
    """Return a matrix in a dtype of real numbers, its own where it is one, or raise."""
    kind = array.dtype.kind
    if kind == "c":
        raise ValueError(f"{name}: Complex data not supported; expected real numbers")
    if (kind == "f" and array.dtype.itemsize <= 8) or kind in "iu":
        return array
    if kind == "b" or array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    if kind == "f":  # long double
        return array.astype(np.float64)
    if kind != "O":  # text, which NumPy would parse, and times, which it would count
        raise ValueError(f"{name}: expected numbers, got dtype {array.dtype}")
    for (row, column), value in np.ndenumerate(array):
        # Python has no Decimal among its real numbers.
        if not (_is_missing(value) or _is_real(value) or isinstance(value, decimal.Decimal)):
            raise ValueError(
                f"{name}: expected numbers, got dtype object with {shown(value)} "
                f"({type(value).__name__}) in row {first_row + row}, "
                f"column {column_name(columns, column)}"
            )
    missing = np.frompyfunc(_is_missing, 1, 1)(array).astype(bool)
    with np.errstate(over="ignore"):
        try:
            return np.where(missing, np.nan, array).astype(np.float64)
        except (OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected numbers, got dtype object: {error}") from error


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType"  # of pandas


def _is_real(value: Any) -> bool:
    # NumPy has durations among its integers.
    return isinstance(value, numbers.Real | np.bool_) and not isinstance(value, np.timedelta64)


def check_finite_rows(
    name: str, array: np.ndarray, *, first_row: int = 0, columns: Sequence[str] | None = None
) -> None:
    """Raise with the row, counted from ``first_row``, and column of the first number not usable.

    Numbers beyond float32 are not usable: training happens in it.
    """
    largest = _largest(array.dtype)
    for start in range(0, len(array), _BLOCK):
        part = array[start : start + _BLOCK]
        usable = are_usable(part)
        if usable.all():
            continue
        row, column = (int(index[0]) for index in np.nonzero(~usable))
        value = part[row, column]
        where = f"in row {first_row + start + row}, column {column_name(columns, column)}"
        if np.isfinite(value):
            raise ValueError(
                f"{name}: expected numbers within ±{largest:.3g} (float32), got {value:.3g} "
                f"{where}, which is too large; scale the data first"
            )
        kind = "NaN" if np.isnan(value) else "infinity"
        raise ValueError(
            f"{name}: expected finite numbers, got {kind} {where}; fill or drop such rows first"
        )


def are_usable(values: np.ndarray) -> np.ndarray:
    """Whether numbers are finite and within float32, for each of them."""
    largest = _largest(values.dtype)
    # Two comparisons hold for every finite number of a float32, and never for NaN.
    return (values >= -largest) & (values <= largest)


def _largest(dtype: np.dtype) -> float:
    # float16 would round the bound to infinity, and let that pass.
    return float(np.finfo(np.float16 if dtype == np.float16 else np.float32).max)


def as_labels(name: str, values: Any) -> np.ndarray:
    """Return labels as an array [N] of whole numbers, numbers or text, or raise.

    Nothing is converted that could merge two labels.

    Examples:
        >>> as_labels("y", [1, "1"])
        Traceback (most recent call last):
        ValueError: y: expected labels of one kind (whole numbers or text), got int and str
    """
    check_nothing_masked(name, values)
    try:
        is_array = isinstance(values, np.ndarray | jax.Array)
        array = np.asarray(values if is_array else np.asarray(values, object))
    except Exception as error:  # deleted arrays, and those of other libraries, raise anything
        got = f"{type(values).__name__}: {in_a_line(error, 200)}"
        raise ValueError(f"{name}: expected labels in one dimension, got {got}") from error
    if array.ndim != 1:
        raise ValueError(f"{name}: expected an array of 1 dimension(s), got shape {array.shape}")
    if array.dtype.kind in "OT":  # T: NumPy's texts of variable length
        array = _labels_of_objects(name, array)
    if array.dtype.kind not in "biufUS":
        raise ValueError(f"{name}: expected whole numbers or text, got dtype {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array)))
        got = "NaN" if np.isnan(array[row]) else "infinity"
        raise ValueError(f"{name}: expected a label for every row, got {got} in row {row}")
    return array


def _labels_of_objects(name: str, array: np.ndarray) -> np.ndarray:
    kinds: dict[str, str] = {}
    for row, value in enumerate(array):
        is_nan = isinstance(value, float | np.floating) and math.isnan(value)
        if _is_missing(value) or is_nan:
            raise ValueError(f"{name}: expected a label for every row, got {value} in row {row}")
        if not (isinstance(value, str | bytes) or _is_real(value)):
            got = f"{shown(value)} ({type(value).__name__})"
            raise ValueError(f"{name}: expected whole numbers or text, got {got}")
        kind = "text" if isinstance(value, str) else "number"
        kinds.setdefault("bytes" if isinstance(value, bytes) else kind, type(value).__name__)
    if len(kinds) > 1:
        raise ValueError(
            f"{name}: expected labels of one kind (whole numbers or text), "
            f"got {' and '.join(kinds.values())}"
        )
    labels = array.tolist()
    as_array = np.array(labels)
    # Integers may have become floats, and a zero byte at the end of a text is cut off.
    if len(set(labels)) > len(set(as_array.tolist())):
        raise ValueError(
            f"{name}: expected labels that NumPy can tell apart, got some that differ in the last "
            "digits of large numbers, or in zero bytes at the end of a text"
        )
    return as_array
