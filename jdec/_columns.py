"""Names of columns, and columns that identify the rows instead of measuring something."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jdec._checks import as_tuple, shown

#: With fewer rows, whole numbers are in order by chance.
MIN_ROWS = 10

_SCREENED = 64  # rows screened first: few columns pass, and only those are read in full
_WORDS = r"ids?|idx|index|row|rows|rowid|rownames?|row[ _.-]?(?:number|nr|num)|uuid|guid|level[ _]0"
_NAME = re.compile(rf"(?i:(?:^|[ _.:/-])(?:{_WORDS})$)|[a-z0-9](?:Id|ID|Idx|Index)$")


def column_name(columns: Sequence[str] | None, index: int) -> str:
    """Return what to call a column in a message: its name, or its position from 0."""
    return str(index) if columns is None else repr(columns[index])


def column_names(x: Any, *, numbers: bool = False) -> tuple[str, ...] | None:
    """Return the names of the columns of a data frame, as text, or None where it has none.

    Columns that are numbered from 0 in their order are without names, unless ``numbers`` are.
    """
    # Arrow's tables have the columns themselves under ``columns``.
    columns = getattr(x, "column_names", getattr(x, "columns", None))
    names = list(columns) if isinstance(columns, Iterable) else []
    if not names or (names == list(range(len(names))) and not numbers):
        return None
    return tuple(map(str, names))


def names_to_compare(
    mine: Sequence[str] | None, theirs: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the names of two tables that can be compared, or None where one of them has none.

    Numbers from 0 on are the positions of columns without names: they can be compared with those
    of another such table, and not with names.
    """
    if theirs is None:
        return None
    numbers = tuple(map(str, range(len(theirs))))
    pair = tuple(numbers if mine is None else mine), tuple(theirs)
    return None if numbers in pair and set(pair[0]) != set(pair[1]) else pair


def check_feature_names(names: Any, x: Any) -> tuple[str, ...] | None:
    """Return names given for the columns of ``x``, or those that it has as a data frame."""
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


def identifier_columns(x: Any, names: Sequence[str] | None = None) -> list[str]:
    """Find the columns that identify the rows instead of measuring something.

    They hold distinct whole numbers that are consecutive in any order, or monotonic, or have a name
    such as ``id``, ``index`` or ``sample_id``. Returns their names, or positions from 0 as text;
    none for fewer than :data:`MIN_ROWS` rows, or a single column.
    """
    n_rows, n_columns = x.shape
    if n_rows < MIN_ROWS or n_columns < 2:
        return []
    names = [*map(str, range(n_columns))] if names is None else names
    first = np.asarray(x[:_SCREENED], np.float64)
    with np.errstate(invalid="ignore"):
        whole = (first == np.trunc(first)).all(axis=0) & np.isfinite(first).all(axis=0)
    distinct = (np.diff(np.sort(first, axis=0), axis=0) > 0).all(axis=0)
    return [
        names[column]
        for column in np.flatnonzero(whole & distinct).tolist()
        if _is_identifier(x[:, column], names[column])
    ]


def _is_identifier(values: np.ndarray, name: str) -> bool:
    ordered = np.sort(values)
    whole = np.isfinite(values).all() and (values == np.trunc(values)).all()
    if not whole or not (ordered[1:] > ordered[:-1]).all():
        return False
    return (
        float(ordered[-1]) - float(ordered[0]) == len(values) - 1
        or np.array_equal(values, ordered)
        or np.array_equal(values, ordered[::-1])
        or _NAME.search(name.strip()) is not None
    )
