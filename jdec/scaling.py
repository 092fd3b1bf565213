"""Bringing the columns of a data set to a common size, in a way that new rows can follow."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jdec._checks import check_choice, check_positive

#: Names of the scalings.
SCALINGS = ("rms", "standard", "minmax", "none")


class Scaling(NamedTuple):
    """``(x - shift) * factor``, by column."""

    shift: Float[np.ndarray, "D"]
    factor: Float[np.ndarray, "D"]

    def apply(self, x: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
        """Scale rows, [N D] float32; the argument is not changed.

        Raises:
            ValueError: If the rows are of another width, or overflow float32.
        """
        if x.shape[1] != len(self.shift):
            raise ValueError(
                f"x: X has {x.shape[1]} features, but the model is expecting "
                f"{len(self.shift)} features as input"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (x - self.shift) * self.factor
        if not np.isfinite(scaled).all():
            raise ValueError("x: expected values that stay finite in float32 when scaled")
        return scaled


#: ``over_parts(array) -> [P …]``: an array of this part beside those of all others.
OverParts = Callable[[np.ndarray], np.ndarray]


def _only_part(array: np.ndarray) -> np.ndarray:
    return array[None]


def fit_scaling(
    x: Float[np.ndarray, "N D"],
    name: str = "rms",
    *,
    scale: float = 1.0,
    over_parts: OverParts = _only_part,
) -> Scaling:
    r"""Find the shift and factor of each column.

    ``rms`` divides all entries by one number, so that :math:`\tfrac{1}{D}\|x_i\|^2` is 1 on average
    and the geometry of the data is kept. ``standard`` gives each column mean 0 and variance 1,
    ``minmax`` brings all entries to 0..1 by one shift and factor, ``none`` leaves them.

    Args:
        x: Rows, [N D] float32.
        name: One of :data:`SCALINGS`.
        scale: Factor on the result.
        over_parts: Where ``x`` is a part of the rows, stacks an array of this part with those of
            all others.

    Returns:
        A :class:`Scaling`; constant columns are shifted but not blown up.

    Raises:
        ValueError: For an unknown name or a ``scale`` that is not positive.

    Examples:
        >>> scaling = fit_scaling(np.array([[3.0, 4.0]], np.float32))
        >>> float((scaling.apply(np.array([[3.0, 4.0]], np.float32)) ** 2).mean().round(5))
        1.0

    Source: Xie et al. 2016, section 4.3 (rms).
    """
    check_choice("scaling", name, SCALINGS)
    check_positive("scale", scale)
    width = x.shape[1]
    n_rows = over_parts(np.array(len(x))).sum()
    shift, factor = np.zeros(width), np.ones(width)

    def mean(part: Any) -> Any:
        return over_parts(np.asarray(part)).sum(axis=0) / n_rows

    if name == "rms":
        # Row by row in float64: neither large values overflow nor is a second copy of x made.
        norms = np.einsum("ij,ij->i", x, x, dtype=np.float64)
        factor = factor * _inverse(np.sqrt(mean(norms.sum()) / width))
    elif name == "standard":
        shift = mean(x.sum(axis=0, dtype=np.float64))
        factor = _inverse(np.sqrt(mean(np.square(x - shift).sum(axis=0))))
    elif name == "minmax":
        # A part may be empty.
        low = over_parts(np.array(x.min(initial=np.inf))).min()
        high = over_parts(np.array(x.max(initial=-np.inf))).max()
        shift, factor = shift + low, factor * _inverse(np.float64(high) - np.float64(low))
    return Scaling(shift.astype(np.float32), (scale * factor).astype(np.float32))


def _inverse(size: Any) -> Any:
    return np.divide(1.0, size, out=np.ones_like(size), where=size > 0)
