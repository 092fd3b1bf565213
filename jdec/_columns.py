"""Columns that number the rows or name them, and measure nothing."""

import re
from collections.abc import Sequence

import numpy as np

#: So many rows are needed: fewer whole numbers are in order by chance.
MIN_ROWS = 10

_SCREENED = 64  # rows looked at first; few columns pass, and only those are read whole
_WORDS = r"ids?|idx|index|row|rows|rowid|rownames?|row[ _.-]?(?:number|nr|num)|uuid|guid|level[ _]0"
_NAME = re.compile(rf"(?:^|[ _.:/-])(?:{_WORDS})$", re.IGNORECASE)
_CAMEL_CASE = re.compile(r"[a-z0-9](?:Id|ID|Idx|Index)$")


def identifier_columns(x: np.ndarray, names: Sequence[str] | None = None) -> list[str]:
    """Find the columns that identify the rows instead of measuring something.

    They hold whole numbers, each of them once, that are consecutive in any order, or only rise or
    only fall from row to row, or stand under a name such as ``id``, ``index`` or ``sample_id``.

    Args:
        x: Rows [N D] of real numbers.
        names: Names of the columns, where they have any.

    Returns:
        Names of such columns, or their positions from 0 as text. None is found in fewer than
        :data:`MIN_ROWS` rows, or where there is but one column.

    Examples:
        >>> x = np.c_[np.arange(20.0)[::-1], np.sin(np.arange(20.0))]
        >>> identifier_columns(x, ["sample", "a"])
        ['sample']
    """
    n_rows, n_columns = x.shape
    if n_rows < MIN_ROWS or n_columns < 2:
        return []
    first = np.asarray(x[:_SCREENED], np.float64)
    with np.errstate(invalid="ignore"):
        whole = (first == np.trunc(first)).all(axis=0) & np.isfinite(first).all(axis=0)
    distinct = (np.diff(np.sort(first, axis=0), axis=0) > 0).all(axis=0)
    return [
        str(column) if names is None else names[column]
        for column in np.flatnonzero(whole & distinct).tolist()
        if _is_identifier(x[:, column], None if names is None else names[column])
    ]


def _is_identifier(values: np.ndarray, name: str | None) -> bool:
    ordered = np.sort(values)
    if not np.isfinite(values).all() or (values != np.trunc(values)).any():
        return False
    if not (ordered[1:] > ordered[:-1]).all():
        return False
    if float(ordered[-1]) - float(ordered[0]) == len(values) - 1:
        return True
    if (values[1:] > values[:-1]).all() or (values[1:] < values[:-1]).all():
        return True
    return name is not None and bool(_NAME.search(name.strip()) or _CAMEL_CASE.search(name.strip()))
