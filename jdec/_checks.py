"""Checks of user input; each failure is a ValueError that says what was expected and what came."""

import contextlib
import decimal
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_rank(name: str, array: Any, rank: int) -> None:
    """Raise unless ``array`` is an array of ``rank`` dimensions, of NumPy or JAX."""
    check_array(name, array)
    if len(array.shape) != rank:
        raise ValueError(
            f"{name}: expected an array of {rank} dimension(s), got shape {tuple(array.shape)}"
        )


def check_array(name: str, array: Any, shape: tuple[int, ...] | None = None) -> None:
    """Raise unless ``array`` is one of NumPy or JAX with nothing masked, and of that shape."""
    if not isinstance(array, np.ndarray | np.generic | jax.Array):
        raise ValueError(
            f"{name}: expected an array, got {type(array).__name__}; jnp.asarray makes one"
        )
    check_nothing_masked(name, array)
    if shape is not None and tuple(array.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(array.shape)}")


def check_real(name: str, array: Any) -> None:
    """Raise unless an array is of real numbers: a conversion would drop an imaginary part."""
    dtype = array.dtype
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(f"{name}: Complex data not supported; expected real numbers")
    is_number = jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, np.bool_)
    # NumPy has durations among its integers.
    if not is_number or jnp.issubdtype(dtype, np.timedelta64):
        raise ValueError(f"{name}: expected numbers, got dtype {dtype}")


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
        raise ValueError(f"{name}: expected a finite number > 0, got {shown(value)}")


def check_not_deleted(name: str, array: Any) -> None:
    """Raise if ``array`` was donated to a program, which has overwritten it."""
    if (
        isinstance(array, jax.Array)
        and not isinstance(array, jax.core.Tracer)
        and array.is_deleted()
    ):
        raise ValueError(f"{name}: expected an array, got one that was deleted or donated")


def check_float32(name: str, value: Any) -> None:
    """Raise unless ``value`` is a number > 0 that float32 can hold; traced values pass."""
    check_positive(name, value)
    limits = np.finfo(np.float32)
    if isinstance(value, jax.core.Tracer) or float(limits.tiny) <= float(value) <= float(
        limits.max
    ):
        return
    raise ValueError(
        f"{name}: expected a number from {limits.tiny:.3g} to {limits.max:.3g} (float32), "
        f"got {shown(value)}"
    )


def check_non_negative(name: str, value: Any) -> None:
    """Raise unless ``value`` is a finite number of at least zero; traced values pass."""
    if isinstance(value, jax.core.Tracer):
        return
    if not _is_finite(value) or float(value) < 0:
        raise ValueError(f"{name}: expected a finite number >= 0, got {shown(value)}")


def check_integer(
    name: str, value: Any, *, minimum: int = 1, maximum: int | None = 2**31 - 1
) -> None:
    """Raise unless ``value`` is an integer from ``minimum`` to ``maximum``, by default of int32."""
    # NumPy has durations among its integers.
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, np.timedelta64)
    if isinstance(value, bool) or not is_integer or value < minimum:
        raise ValueError(f"{name}: expected an integer >= {minimum}, got {shown(value)}")
    if maximum is not None and value > maximum:
        raise ValueError(f"{name}: expected an integer <= {maximum}, got {shown(value)}")


def shown(value: Any) -> str:
    """Return what to show of a value in a message of one line.

    Examples:
        >>> shown("ten"), shown(10**5000)
        ("'ten'", 'an integer of 16610 bits')
    """
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # Python refuses to print thousands of digits; others fail as they like
        return f"something of type {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}…"


def check_fraction(name: str, value: Any) -> None:
    """Raise unless 0 <= ``value`` < 1."""
    if not _is_finite(value) or not 0 <= float(value) < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {shown(value)}")


def check_flag(name: str, value: Any) -> None:
    """Raise unless ``value`` is true or false."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: expected true or false, got {shown(value)}")


def check_seed(name: str, value: Any) -> None:
    """Raise unless ``value`` is a seed that JAX tells from all others: 0 … 2**32 - 1."""
    check_integer(name, value, minimum=0, maximum=None)
    if value >= 2**32:
        raise ValueError(f"{name}: expected an integer below 2**32, got {shown(value)}")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}; got {shown(value)}")


def as_labels(name: str, values: Any) -> np.ndarray:
    """Return labels as an array [N] of whole numbers, numbers or text, or raise.

    Nothing is converted that could make two labels one: 1 and "1" among each other are refused.

    Args:
        name: What to call them in an error message.
        values: A list, an array or a column of a data frame.

    Returns:
        An array of one dimension, of integers, floating-point numbers or text.

    Raises:
        ValueError: If they are not in one dimension, one is missing, or they are of several kinds.

    Examples:
        >>> as_labels("y", ["b", "a"]).tolist()
        ['b', 'a']
        >>> as_labels("y", [1, "1"])
        Traceback (most recent call last):
        ValueError: y: expected labels of one kind (whole numbers or text), got int and str
    """
    check_nothing_masked(name, values)
    try:
        is_array = isinstance(values, np.ndarray | jax.Array)
        array = np.asarray(values if is_array else np.asarray(values, object))
    except Exception as error:  # of a deleted array, or one of another library, as it likes
        got = _with_reason(values, error)
        raise ValueError(f"{name}: expected labels in one dimension, got {got}") from error
    if array.ndim != 1:
        raise ValueError(f"{name}: expected an array of 1 dimension(s), got shape {array.shape}")
    if array.dtype.kind in "OT":  # T: texts of NumPy's that are each as long as it is
        array = _labels_of_objects(name, array)
    if array.dtype.kind not in "biufUS":
        raise ValueError(f"{name}: expected whole numbers or text, got dtype {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array)))
        got = "NaN" if np.isnan(array[row]) else "infinity"
        raise ValueError(f"{name}: expected a label for every row, got {got} in row {row}")
    return array


def _labels_of_objects(name: str, array: np.ndarray) -> np.ndarray:
    missing = [_is_missing(value) or _is_nan(value) for value in array]
    if any(missing):
        row = missing.index(True)
        raise ValueError(f"{name}: expected a label for every row, got {array[row]} in row {row}")
    kinds: dict[str, str] = {}
    for value in array:
        if isinstance(value, np.timedelta64) or not isinstance(
            value, str | bytes | numbers.Real | np.bool_
        ):
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


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and math.isnan(value)


def check_key(name: str, key: Any) -> None:
    """Raise unless ``key`` is one typed random key; a traced one is."""
    if is_key(key) and not key.shape:
        return
    if is_key(key):
        got = f"{key.shape} of them; split keys are for a population"
    elif hasattr(key, "dtype") and hasattr(key, "shape"):
        got = f"{key.dtype} of shape {tuple(key.shape)}"
    else:
        got = f"{type(key).__name__} {shown(key)}"
    raise ValueError(f"{name}: expected a typed random key as of jax.random.key(0), got {got}")


def is_key(value: Any) -> bool:
    """Whether ``value`` is a typed random key, or an array of them."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def as_path(name: str, value: Any) -> Path:
    """Return a path with ``~`` replaced by the user's folder, or raise if it can be none."""
    if isinstance(value, str) and not value:
        raise ValueError(f"{name}: expected a path, got an empty text; '.' is the current folder")
    try:
        path = Path(value).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()  # for what else it raises: not every text can be the name of a file
    except (TypeError, RuntimeError, ValueError, OSError) as error:
        reason = f": {error.strerror}" if isinstance(error, OSError) else ""
        raise ValueError(f"{name}: expected a path, got {shown(value)}{reason}") from error
    return path


def check_n_clusters(n_clusters: Any, n_rows: int) -> None:
    """Raise unless 1 <= ``n_clusters`` <= ``n_rows``."""
    check_integer("n_clusters", n_clusters)
    if n_clusters > n_rows:
        raise ValueError(
            f"n_clusters: expected at most one cluster per row, got n_clusters={n_clusters} "
            f"for n_samples={n_rows}"
        )


class DataWarning(UserWarning):
    """The rows are probably not what was meant."""


class IdentifierWarning(DataWarning):
    """A column of the rows seems to number them."""


def check_finite_rows(
    name: str,
    array: np.ndarray,
    *,
    first_row: int = 0,
    columns: Sequence[str] | None = None,
    block: int = 8192,
) -> None:
    """Raise with the row, from ``first_row`` on, and column of the first number not usable.

    Numbers beyond float32 are not: training happens in it.
    """
    # float16 would round the bound to infinity, and let that pass.
    narrow = np.float16 if array.dtype == np.float16 else np.float32
    largest = float(np.finfo(narrow).max)
    for start in range(0, len(array), block):
        part = array[start : start + block]
        # Two comparisons hold for every finite number of a float32, and never for NaN.
        usable = (part >= -largest) & (part <= largest)
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


def column_name(columns: Sequence[str] | None, index: int) -> str:
    """Return what to call a column in a message: its name, or its position from 0."""
    return str(index) if columns is None else repr(columns[index])


def column_names(x: Any, *, numbers: bool = False) -> tuple[str, ...] | None:
    """Return the names of the columns of a data frame, as text, or None where it has none.

    Columns that are numbered from 0 in their order are without names, unless ``numbers`` are.

    Examples:
        >>> column_names(np.zeros((2, 2))) is None
        True
    """
    # Arrow's tables call the columns themselves so.
    columns = getattr(x, "column_names", getattr(x, "columns", None))
    names = list(columns) if isinstance(columns, Iterable) else []
    if not names or (names == list(range(len(names))) and not numbers):
        return None
    return tuple(map(str, names))


def names_to_compare(
    mine: Sequence[str] | None, theirs: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the names of two tables that can be compared, or None where one of them has none.

    Numbers from 0 on are the places of columns without names: they say something to another table
    of such columns, and nothing to one with names.

    Examples:
        >>> names_to_compare(None, ("1", "0"))
        (('0', '1'), ('1', '0'))
        >>> names_to_compare(("a", "b"), ("0", "1")) is None
        True
    """
    if theirs is None:
        return None
    numbers = tuple(map(str, range(len(theirs))))
    pair = tuple(numbers if mine is None else mine), tuple(theirs)
    return None if numbers in pair and set(pair[0]) != set(pair[1]) else pair


def as_tuple(name: str, values: Any, what: str) -> tuple[Any, ...]:
    """Return the entries of a list, or raise; a text is none, nor what has no order.

    Examples:
        >>> as_tuple("drop", ["a", "b"], "names")
        ('a', 'b')
        >>> as_tuple("drop", 3, "names")
        Traceback (most recent call last):
        ValueError: drop: expected a list of names, got 3
    """
    if not isinstance(values, str | bytes | bytearray | memoryview | Set | Mapping):
        with contextlib.suppress(TypeError):  # an array without dimensions is iterable by its type
            return tuple(values)
    raise ValueError(f"{name}: expected a list of {what}, got {shown(values)}")


def check_feature_names(names: Any, x: Any) -> tuple[str, ...] | None:
    """Return names given for the columns of ``x``, or those that it has as a data frame.

    Raises:
        ValueError: If they are no texts, or not one for each column.
    """
    if names is None:
        return column_names(x)
    names = as_tuple("feature_names", names, "texts")
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"feature_names: expected texts, got {shown(name)}")
    shape = np.shape(x)
    if len(shape) == 2 and len(names) != shape[1]:
        raise ValueError(f"feature_names: expected {shape[1]} as x has columns, got {len(names)}")
    return tuple(map(str, names))


def as_rows(
    name: str, x: Any, *, first_row: int = 0, columns: Sequence[str] | None = None
) -> np.ndarray:
    """Return ``x`` as a matrix [N D] of finite real numbers in their own dtype, or raise.

    Nothing is rounded: a large offset common to all rows would swallow their differences in
    float32, so that rows are centred and scaled first (:class:`jdec.trainer.scaling.Scaling`).

    Args:
        name: What to call ``x`` in an error message.
        x: Anything NumPy can read as a numeric matrix.
        first_row: Index of its first row, for error messages, where ``x`` is a part.
        columns: Names of its columns, for error messages; those of a data frame by default.

    Returns:
        An array of floating-point numbers or integers; ``x`` itself where it is one already.

    Raises:
        ValueError: For sparse, complex, text, time or non-2-D input, objects that are no numbers,
            no rows, no columns, or entries that are not finite in float32.

    Examples:
        >>> as_rows("x", [[0.5, 1], [2, 3]]).dtype
        dtype('float64')
        >>> as_rows("x", [[0.0, float("nan")]])
        Traceback (most recent call last):
        ValueError: x: expected finite numbers, got NaN in row 0, column 1; fill or drop such rows
        first
    """
    if hasattr(x, "toarray"):
        raise ValueError(
            f"{name}: expected a dense matrix, got a sparse one; call .toarray() where it fits "
            "in memory"
        )
    columns = column_names(x) if columns is None else columns
    check_nothing_masked(name, x)
    try:
        array = np.asarray(x)
    except Exception as error:  # of a deleted array, or one of another library, as it likes
        is_list = isinstance(x, list | tuple) and isinstance(error, ValueError)
        got = "rows of unequal length" if is_list else _with_reason(x, error)
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
    if array.shape[0] == 0:
        raise ValueError(f"{name}: expected at least one row, got 0 sample(s), shape {array.shape}")
    if array.shape[1] == 0:
        raise ValueError(
            f"{name}: 0 feature(s) (shape={array.shape}) while a minimum of 1 is required."
        )
    array = _as_real(name, array, first_row, columns)
    check_finite_rows(name, array, first_row=first_row, columns=columns)
    return array


def check_nothing_masked(name: str, array: Any) -> None:
    """Raise if entries of a masked array are masked: what stands below the mask is no value."""
    n_masked = int(np.ma.count_masked(array)) if isinstance(array, np.ma.MaskedArray) else 0
    if n_masked:
        raise ValueError(
            f"{name}: expected a value in every place, got a masked array with {n_masked} masked; "
            "fill or drop them first"
        )


def _with_reason(value: Any, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return f"{type(value).__name__}: {reason}" if reason else type(value).__name__


def as_float32(
    name: str, x: Any, *, first_row: int = 0, columns: Sequence[str] | None = None
) -> np.ndarray:
    """Return :func:`as_rows` rounded to float32, C-contiguous; for what needs no scaling."""
    rows = as_rows(name, x, first_row=first_row, columns=columns)
    return np.ascontiguousarray(rows, np.float32)


def _as_real(
    name: str, array: np.ndarray, first_row: int, columns: Sequence[str] | None
) -> np.ndarray:
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
        if not _is_real(value):
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
    # NumPy has durations among its integers, and Python no Decimal among its real numbers.
    is_number = isinstance(value, numbers.Real | decimal.Decimal | np.bool_)
    return _is_missing(value) or (is_number and not isinstance(value, np.timedelta64))


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool | np.bool_ | str | bytes | np.timedelta64 | np.complexfloating):
        return False
    try:
        return np.shape(value) == () and math.isfinite(float(value))
    except Exception:  # an object of a foreign type fails as it likes
        return False
