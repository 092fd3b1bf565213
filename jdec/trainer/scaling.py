"""Feature scaling, fitted once and applied to new data, and what looks wrong with columns."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jdec._checks import check_choice, check_positive
from jdec._columns import column_name
from jdec._host_arrays import empty_aligned

#: Names of the scalings.
SCALINGS = ("rms", "standard", "minmax", "none")

# Rows are turned into float64 a few at a time: so many, or so many numbers.
_MAX_ROWS, _MAX_NUMBERS = 8192, 2**21

# Of a ufunc: NumPy turns a few numbers at a time, and makes no array of float64.
_IN_FLOAT64: Any = {"dtype": np.float64, "casting": "unsafe"}


class Scaling(NamedTuple):
    """``(x - shift) * factor``, by column, in float64."""

    shift: Float[np.ndarray, "D"]
    factor: Float[np.ndarray, "D"]

    def apply(
        self, x: Any, *, first_row: int = 0, is_checked: bool = False, empty: Any = empty_aligned
    ) -> Float[np.ndarray, "N D"]:
        """Scale rows [N D] of any real dtype, and round to float32, or raise if one overflows.

        Of rows that are checked it is known that none does. ``empty(shape, dtype)`` makes the
        array.
        """
        if x.shape[1] != len(self.shift):
            raise ValueError(
                f"x: X has {x.shape[1]} features, but the model is expecting "
                f"{len(self.shift)} features as input"
            )
        scaled = empty(x.shape, np.float32)
        size = _block_size(x)
        for start in range(0, len(x), size):
            block = x[start : start + size]
            part = scaled[start : start + len(block)]
            self._apply_to(block, part)
            if not is_checked and not np.isfinite(part).all():
                row, column = np.argwhere(~np.isfinite(part))[0].tolist()
                raise ValueError(
                    "x: expected values that stay finite in float32 when scaled, got "
                    f"{block[row, column]:.3g} in row {first_row + start + row}, column {column}"
                )
        return scaled

    def apply_at(
        self, x: Any, indices: Int[np.ndarray, "B"], *, at_once: int = 256, empty: Any
    ) -> Float[np.ndarray, "B D"]:
        """Scale the rows at some indices, which are checked, as :meth:`apply`."""
        scaled = empty((len(indices), x.shape[1]), np.float32)
        # NumPy copies all of an array that is not in this order before it takes from it.
        in_place = isinstance(x, np.ndarray) and x.flags.c_contiguous and x.flags.aligned
        in_place = in_place and self._keeps_float32(x)
        for start in range(0, len(indices), at_once):  # so few that they stay in the cache
            part, chosen = scaled[start : start + at_once], indices[start : start + at_once]
            rows = np.take(x, chosen, axis=0, out=part, mode="clip") if in_place else x[chosen]
            self._apply_to(rows, part)
        return scaled

    def _apply_to(self, x: Any, scaled: Float[np.ndarray, "N D"]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            if self._keeps_float32(x):
                np.multiply(x, np.float32(self.factor[0]), out=scaled)
                return
            rest = np.subtract(x, self.shift, **_IN_FLOAT64) if self.shift.any() else x
            np.multiply(rest, self._uniform_factor(), out=scaled, **_IN_FLOAT64)

    def _keeps_float32(self, x: Any) -> bool:
        """Whether the product in float32 is that in float64, rounded; which takes twice as long."""
        factor = self._uniform_factor()
        if x.dtype != np.float32 or np.ndim(factor) or self.shift.any():
            return False
        return bool(_is_float32(factor))

    def apply_sparse(self, x: Any, *, empty: Any) -> Float[np.ndarray, "N D"]:
        """Scale rows [N D] of a sparse matrix, by a scaling without a shift, as :meth:`apply`."""
        matrix = x.copy()
        of_column = self._uniform_factor()
        factor = of_column if np.ndim(of_column) == 0 else of_column[matrix.indices]
        matrix.data = np.empty(len(x.data), np.float32)
        np.multiply(x.data, factor, out=matrix.data, **_IN_FLOAT64)
        return matrix.toarray(out=empty(x.shape, np.float32))

    def _uniform_factor(self) -> Any:
        """Return one number where all factors are the same."""
        return self.factor[0] if (self.factor == self.factor[:1]).all() else self.factor

    def invert(self, x: Any) -> Float[np.ndarray, "N D"]:
        """Return scaled rows [N D] in the units of the data, float64."""
        return np.asarray(x, np.float64) / self.factor + self.shift


#: ``over_parts(array) -> [P …]``: an array of this part beside those of all others.
OverParts = Callable[[np.ndarray], np.ndarray]


def only_part(array: np.ndarray) -> np.ndarray:
    """Stack the arrays of all parts where there is but one."""
    return array[None]


def _blocks(x: Any) -> Iterator[tuple[int, Float[np.ndarray, "B D"]]]:
    size = _block_size(x)
    for start in range(0, len(x), size):
        yield start, np.asarray(x[start : start + size], np.float64)


def _block_size(x: Any) -> int:
    return max(1, min(_MAX_ROWS, _MAX_NUMBERS // max(1, x.shape[1])))


class ColumnStatistics(NamedTuple):
    """What is known of the columns of all rows, in float64."""

    mean: Float[np.ndarray, "D"]
    variance: Float[np.ndarray, "D"]
    low: Float[np.ndarray, "D"]
    high: Float[np.ndarray, "D"]


def column_statistics(x: Any, over_parts: OverParts = only_part) -> ColumnStatistics:
    """Return the statistics of rows [N D] of any real dtype, in one pass over them."""
    width = x.shape[1]
    n_rows = over_parts(np.array(len(x))).ravel()
    # Sums of what is left of an entry beside the first row: beside a large offset they are exact.
    firsts = over_parts(np.asarray(x[0], np.float64) if len(x) else np.zeros(width))
    first = firsts[np.flatnonzero(n_rows)[0]]
    sums, squares = np.zeros(width), np.zeros(width)
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for _, block in _blocks(x):
        rest = block - first
        sums += rest.sum(axis=0)
        squares += np.square(rest).sum(axis=0)
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    mean = over_parts(sums).sum(axis=0) / n_rows.sum()
    variance = over_parts(squares).sum(axis=0) / n_rows.sum() - np.square(mean)
    low, high = over_parts(low).min(axis=0), over_parts(high).max(axis=0)
    variance = np.where(high > low, np.maximum(variance, 0), 0)
    return ColumnStatistics(first + mean, variance, low, high)


def fit_scaling(
    x: Any,
    name: str = "rms",
    *,
    scale: float = 1.0,
    over_parts: OverParts = only_part,
    statistics: ColumnStatistics | None = None,
) -> Scaling:
    r"""Find the shift and factor of each column.

    ``rms`` divides all entries by one number, so that :math:`\tfrac{1}{D}\|x_i\|^2` is 1 on average
    and the geometry of the data is kept. ``standard`` gives each column mean 0 and variance 1,
    ``minmax`` brings all entries to 0..1 by one shift and factor, ``none`` leaves them.

    Constant columns are shifted but not blown up. Factors without a shift are numbers of float32.
    Where ``x`` [N D] is a part of the rows, ``over_parts`` stacks arrays of all parts.

    Source: Xie et al. 2016, section 4.3 (rms).
    """
    check_choice("scaling", name, SCALINGS)
    check_positive("scale", scale)
    shift, factor = np.zeros(x.shape[1]), np.ones(x.shape[1])
    if name == "none":
        return Scaling(shift, _rounded(scale * factor))
    if statistics is None:
        statistics = column_statistics(x, over_parts)
    if name == "rms":
        mean_square = (statistics.variance + np.square(statistics.mean)).mean()
        factor = factor * _inverse(np.sqrt(mean_square))
    elif name == "standard":
        shift, factor = statistics.mean, _inverse(np.sqrt(statistics.variance))
    else:
        low, high = statistics.low.min(), statistics.high.max()
        shift, factor = shift + low, factor * _inverse(high - low)
    if shift.any():
        return Scaling(shift, scale * factor)
    return Scaling(shift, _rounded(scale * factor))


def _rounded(factor: Float[np.ndarray, "D"]) -> Float[np.ndarray, "D"]:
    """Round to numbers of float32, in which rows can then be scaled without another rounding."""
    with np.errstate(over="ignore", under="ignore"):
        near = factor.astype(np.float32).astype(np.float64)
    return np.where(_is_float32(near), near, factor)


def _is_float32(number: Any) -> Any:
    """Whether a number of float64 is one of float32, of full precision."""
    limits = np.finfo(np.float32)
    size = np.abs(number)
    with np.errstate(over="ignore", under="ignore"):
        same = np.float64(np.float32(number)) == number
    return same & (limits.tiny <= size) & (size <= limits.max)


def _inverse(size: Any) -> Any:
    return np.divide(1.0, size, out=np.ones_like(size), where=size > 0)


#: A column is told of where its standard deviation is fewer steps than this of its number format.
MIN_STEPS = 16
_ADVICE = "scaling='standard' (--scaling standard)"
#: A column is told of where it alone holds more than this share of the scaled variance.
MAX_VARIANCE_SHARE = 0.9


def coarse_columns(
    statistics: ColumnStatistics, scaling: Scaling, dtype: Any
) -> Int[np.ndarray, "C"]:
    """Return the columns whose differences are lost beside their size.

    Either before they came here, in their own ``dtype``, or in the float32 of the scaled rows;
    constant columns are not among them.
    """
    dtype = np.dtype(dtype)
    deviation = np.sqrt(statistics.variance)
    # Integers are exact as far as float64 is.
    step = np.finfo(dtype if dtype.kind == "f" else np.float64).eps
    size = np.maximum(np.abs(statistics.low), np.abs(statistics.high))
    before = deviation < MIN_STEPS * float(step) * size
    ends = [(end - scaling.shift) * scaling.factor for end in (statistics.low, statistics.high)]
    size = np.maximum(np.abs(ends[0]), np.abs(ends[1]))
    after = deviation * scaling.factor < MIN_STEPS * float(np.finfo(np.float32).eps) * size
    return np.flatnonzero((deviation > 0) & (before | after))


def dominant_column(statistics: ColumnStatistics, scaling: Scaling) -> tuple[int, float] | None:
    """Return the column, of several, that holds most of the scaled variance, and its share."""
    variance = statistics.variance * np.square(scaling.factor)
    total = variance.sum()
    if (variance > 0).sum() < 2:  # beside constant columns there is nothing to outweigh
        return None
    index = int(variance.argmax())
    share = float(variance[index] / total)
    return (index, share) if share > MAX_VARIANCE_SHARE else None


def column_warnings(
    statistics: ColumnStatistics, scaling: Scaling, dtype: Any, columns: Sequence[str] | None
) -> list[str]:
    """Say in a line each what is wrong with the columns of rows of a dtype, by their names."""
    lines = []
    coarse = coarse_columns(statistics, scaling, dtype)
    if len(coarse):
        named = ", ".join(column_name(columns, index) for index in coarse[:5].tolist())
        more = f" and {len(coarse) - 5} more" if len(coarse) > 5 else ""
        lines.append(
            f"column {named}{more}: differences between rows are lost to rounding beside the size "
            f"of the numbers (precision of {np.dtype(dtype)}, and float32 once scaled); subtract "
            f"the offset before storing, or use {_ADVICE}"
        )
    dominant = dominant_column(statistics, scaling)
    if dominant is not None:
        index, share = dominant
        lines.append(
            f"column {column_name(columns, index)} holds {min(share, 0.999):.1%} of the scaled "
            "variance, and the clusters will be its; if it is a measurement like the others, use "
            f"{_ADVICE}, and if it is none, leave it out (--drop)"
        )
    return lines
