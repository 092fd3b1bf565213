"""Class labels of any kind as the numbers 0 … C-1, without merging any."""

import decimal
import logging
import math
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdec._checks import check_same_length

_LOGGER = logging.getLogger("jdec")
_MAX_LENGTH = 1000  # characters of a class's name
_INTEGER = re.compile("0|-?[1-9][0-9]{0,18}")  # in canonical form
_MISSING = ("na", "n/a", "nan", "null", "none", "?", "-", "<na>")


def encode_labels(
    name: str, labels: Any, x: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Number the classes 0 … C-1 in sorted order; different labels are different classes.

    Labels [N] or [N 1] of the rows ``x`` are whole numbers, booleans or text, all of one kind. The
    second result is the names of the classes where they were text, else None.
    """
    labels = _as_vector(name, labels)
    check_same_length(name, labels, "x", x)
    if labels.dtype.kind in "OUS":
        return _encode_objects(name, labels)
    if labels.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected whole numbers or text, got dtype {labels.dtype}")
    if labels.dtype.kind == "f":
        wrong = ~np.isfinite(labels) | (labels != np.trunc(labels))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise _no_class(name, labels[row].item(), row)
        _check_exact(name, labels)
    y = np.unique(labels, return_inverse=True)[1]
    return y.astype(np.int64), None


def name_labels(path: Path, labels: np.ndarray, names: np.ndarray | None) -> np.ndarray:
    """Return the class names that whole numbers stand for, where a file has an array of names."""
    if names is None or labels.dtype.kind not in "iu":
        return labels
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= len(names):
        raise ValueError(f"{path}: expected labels 0 to {len(names) - 1} as it names classes")
    return names[labels]


def parse_labels(name: str, labels: Sequence[str]) -> np.ndarray:
    """Convert the labels of a text file to int64 [N] where that loses nothing, else to objects.

    Numbers that are not whole are an error: they are measurements, not classes.

    Examples:
        >>> parse_labels("y", ["1", "01"])
        array(['1', '01'], dtype=object)
    """
    texts = list(dict.fromkeys(labels))
    if all(_INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63 for text in texts):
        return np.fromiter(map(int, labels), np.int64, len(labels))
    values = [_number(text) for text in texts]
    if None not in values:
        for text, value in zip(texts, values, strict=True):
            if value is None or not value.is_finite() or value != value.to_integral_value():
                raise _no_class(name, text, labels.index(text))
    missing = [text for text in texts if text.lower() in _MISSING]
    if missing:
        _LOGGER.warning("%s: %r is taken for a class, not for a missing label", name, missing[0])
    return np.fromiter(labels, object, len(labels))  # each text takes its own length


def _as_vector(name: str, labels: Any) -> np.ndarray:
    if isinstance(labels, list | tuple):
        # Otherwise numbers beside text would become text, and large integers be rounded.
        try:
            array = np.asarray(labels, dtype=object)
        except ValueError as error:
            raise ValueError(f"{name}: expected one label per row, got unequal lengths") from error
    else:
        array = np.asarray(labels)
    if array.dtype.kind == "T":
        array = array.astype(object)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one label per row, got shape {array.shape}")
    return array


def _encode_objects(name: str, labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...] | None]:
    first, values = "", []
    for row, label in enumerate(labels.tolist()):
        kind, value = _kind(name, label, row)
        first = first or kind
        if kind != first:
            raise ValueError(
                f"{name}: expected labels of one kind, got {kind} ({reprlib.repr(label)}) in row "
                f"{row} beside {first}"
            )
        values.append(value)
    classes = sorted(set(values))
    codes = {value: code for code, value in enumerate(classes)}
    y = np.fromiter((codes[value] for value in values), np.int64, len(values))
    return y, tuple(classes) if first in ("text", "bytes") else None


def _kind(name: str, label: Any, row: int) -> tuple[str, Any]:
    if isinstance(label, bool | np.bool_):
        return "a boolean", bool(label)
    if isinstance(label, bytes | str) and len(label) > _MAX_LENGTH:
        raise ValueError(
            f"{name}: expected names of classes of at most {_MAX_LENGTH} characters, got "
            f"{len(label)} in row {row}"
        )
    if isinstance(label, bytes) and label:
        try:
            return "bytes", label.decode()
        except UnicodeDecodeError:
            raise ValueError(
                f"{name}: expected text in UTF-8, got the bytes {reprlib.repr(label)} in row "
                f"{row}; decode the labels first"
            ) from None
    if isinstance(label, str) and label:
        return "text", str(label)
    if isinstance(label, int | np.integer) and not isinstance(label, np.timedelta64):
        return "a whole number", int(label)
    is_number = isinstance(label, float | np.floating | decimal.Decimal)
    if is_number and math.isfinite(label) and label == int(label):
        if not isinstance(label, decimal.Decimal):
            _check_exact(name, np.asarray([label]), row)
        return "a whole number", int(label)
    raise _no_class(name, label, row)


def _check_exact(name: str, labels: np.ndarray, first_row: int = 0) -> None:
    # A larger floating-point number stands for several integers.
    largest = 2.0 ** (np.finfo(labels.dtype).nmant + 1)
    wrong = np.abs(labels) >= largest
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{name}: expected labels below {largest:.0f}, beyond which {labels.dtype} rounds "
            f"whole numbers, got {labels[row]:.0f} in row {first_row + row}; store them as "
            "integers or text"
        )


def _no_class(name: str, label: Any, row: int) -> ValueError:
    return ValueError(
        f"{name}: expected a class (whole number or text) for every row, got "
        f"{reprlib.repr(label)} in row {row}; where these are no classes, say --label none "
        "(label='none')"
    )


def _number(text: str) -> decimal.Decimal | None:
    if not text.isascii() or "_" in text:
        return None
    try:
        return decimal.Decimal(text)
    except decimal.InvalidOperation:
        return None
