"""Checks of settings and arrays; a failure is a ValueError of what was expected and what came."""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Messages ----------------------------------------------------------------------------------------


def in_a_line(value: object, limit: int = 300) -> str:
    """Return what foreign text or an exception says, cut to a line for an error message."""
    text = " ".join(str(value).split()) or type(value).__name__
    return text if len(text) <= limit else f"{text[:limit]}…"


def shown(value: Any) -> str:
    """Return what to show of a value in a message of one line."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    try:
        return in_a_line(repr(value), 200)
    except Exception:  # Python cannot print thousands of digits; foreign types raise anything
        return f"something of type {type(value).__name__}"


# Numbers, flags and choices ----------------------------------------------------------------------


def check_positive(name: str, value: Any) -> None:
    """Raise unless ``value`` is a finite number above zero; traced values pass."""
    _check_number(name, value, "a finite number > 0", lambda number: number > 0, traced=True)


def check_non_negative(name: str, value: Any) -> None:
    """Raise unless ``value`` is a finite number, zero or above; traced values pass."""
    _check_number(name, value, "a finite number >= 0", lambda number: number >= 0, traced=True)


def check_float32(name: str, value: Any) -> None:
    """Raise unless ``value`` is a number > 0 that float32 can hold; traced values pass."""
    check_positive(name, value)
    low, high = (float(limit) for limit in (np.finfo("f4").tiny, np.finfo("f4").max))
    expected = f"a number from {low:.3g} to {high:.3g} (float32)"
    _check_number(name, value, expected, lambda number: low <= number <= high, traced=True)


def check_fraction(name: str, value: Any) -> None:
    """Raise unless 0 <= ``value`` < 1."""
    _check_number(name, value, "a number in [0, 1)", lambda number: 0 <= number < 1)


def check_rate(name: str, value: Any) -> None:
    """Raise unless 0 < ``value`` <= 1."""
    _check_number(name, value, "a number in (0, 1]", lambda number: 0 < number <= 1)


def _check_number(
    name: str, value: Any, expected: str, is_valid: Callable[[float], bool], traced: bool = False
) -> None:
    if traced and isinstance(value, jax.core.Tracer):
        return
    if not _is_finite(value) or not is_valid(float(value)):
        raise ValueError(f"{name}: expected {expected}, got {shown(value)}")


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool | np.bool_ | str | bytes | np.timedelta64 | np.complexfloating):
        return False
    try:
        return np.shape(value) == () and math.isfinite(float(value))
    except Exception:  # foreign types raise anything
        return False


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


def check_n_clusters(n_clusters: Any, n_rows: int) -> None:
    """Raise unless 1 <= ``n_clusters`` <= ``n_rows``."""
    check_integer("n_clusters", n_clusters)
    if n_clusters > n_rows:
        raise ValueError(
            f"n_clusters: expected at most one cluster per row, got n_clusters={n_clusters} "
            f"for n_samples={n_rows}"
        )


def check_seed(name: str, value: Any) -> None:
    """Raise unless ``value`` is an unsigned 32-bit seed."""
    check_integer(name, value, minimum=0, maximum=None)
    if value >= 2**32:
        raise ValueError(f"{name}: expected an integer below 2**32, got {shown(value)}")


def check_flag(name: str, value: Any) -> None:
    """Raise unless ``value`` is true or false."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: expected true or false, got {shown(value)}")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}; got {shown(value)}")


def check_function(name: str, value: Any, what: str = "a function") -> None:
    """Raise unless ``value`` can be called."""
    if not callable(value):
        raise ValueError(f"{name}: expected {what}, got {shown(value)}")


def check_kind(name: str, value: Any, kind: type) -> None:
    """Raise unless ``value`` is of a class."""
    if not isinstance(value, kind):
        raise ValueError(f"{name}: expected a {kind.__name__}, got {shown(value)}")


def check_optimizer(name: str, value: Any, what: str = "an Optax optimizer") -> None:
    """Raise unless ``value`` is an Optax optimizer."""
    if not (callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))):
        raise ValueError(f"{name}: expected {what}, got {shown(value)}")


def as_tuple(name: str, values: Any, what: str) -> tuple[Any, ...]:
    """Return the entries of a list, or raise; neither text nor an unordered set is a list."""
    if not isinstance(values, str | bytes | bytearray | memoryview | Set | Mapping):
        with contextlib.suppress(TypeError):  # an array without dimensions is iterable by its type
            return tuple(values)
    raise ValueError(f"{name}: expected a list of {what}, got {shown(values)}")


def as_integers(name: str, values: Any) -> tuple[int, ...]:
    """Return the entries of a list of integers >= 1, or raise."""
    values = as_tuple(name, values, "integers")
    for value in values:
        check_integer(name, value)
    return tuple(map(int, values))


# Keys and paths ----------------------------------------------------------------------------------


def is_key(value: Any) -> bool:
    """Whether ``value`` is a typed random key, or an array of them."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def check_key(name: str, key: Any) -> None:
    """Raise unless ``key`` is one typed random key; a traced one is."""
    if is_key(key):
        if not key.shape:
            return
        got = f"{key.shape} of them; split keys are for a population"
    elif hasattr(key, "dtype") and hasattr(key, "shape"):
        got = f"{key.dtype} of shape {tuple(key.shape)}"
    else:
        got = f"{type(key).__name__} {shown(key)}"
    raise ValueError(f"{name}: expected a typed random key as of jax.random.key(0), got {got}")


def as_path(name: str, value: Any) -> Path:
    """Return a path with ``~`` replaced by the user's folder, or raise if it cannot be one."""
    if isinstance(value, str) and not value:
        raise ValueError(f"{name}: expected a path, got an empty text; '.' is the current folder")
    try:
        path = Path(value).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()  # raises for text that cannot be a file name
    except (TypeError, RuntimeError, ValueError, OSError) as error:
        reason = f": {error.strerror}" if isinstance(error, OSError) else ""
        raise ValueError(f"{name}: expected a path, got {shown(value)}{reason}") from error
    return path


# Arrays ------------------------------------------------------------------------------------------


def check_array(name: str, array: Any, shape: tuple[int, ...] | None = None) -> None:
    """Raise unless ``array`` is one of NumPy or JAX with nothing masked, and of that shape."""
    if not isinstance(array, np.ndarray | np.generic | jax.Array):
        raise ValueError(
            f"{name}: expected an array, got {type(array).__name__}; jnp.asarray makes one"
        )
    check_nothing_masked(name, array)
    if shape is not None and tuple(array.shape) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {tuple(array.shape)}")


def check_rank(name: str, array: Any, rank: int) -> None:
    """Raise unless ``array`` is an array of ``rank`` dimensions, of NumPy or JAX."""
    check_array(name, array)
    if len(array.shape) != rank:
        raise ValueError(
            f"{name}: expected an array of {rank} dimension(s), got shape {tuple(array.shape)}"
        )


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
    n_rows = np.shape(other)[0] if not hasattr(other, "shape") else other.shape[0]  # of sparse ones
    if len(array) != n_rows:
        raise ValueError(
            f"{name}: expected as many entries as {other_name} has ({n_rows}), got {len(array)}"
        )


def check_not_deleted(name: str, array: Any) -> None:
    """Raise if ``array`` was donated to a program, which has overwritten it."""
    is_concrete = isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer)
    if is_concrete and array.is_deleted():
        raise ValueError(f"{name}: expected an array, got one that was deleted or donated")


def check_nothing_masked(name: str, array: Any) -> None:
    """Raise if entries of a masked array are masked: what stands below the mask is no value."""
    n_masked = int(np.ma.count_masked(array)) if isinstance(array, np.ma.MaskedArray) else 0
    if n_masked:
        raise ValueError(
            f"{name}: expected a value in every place, got a masked array with {n_masked} masked; "
            "fill or drop them first"
        )
