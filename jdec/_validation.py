"""What the estimators check as scikit-learn does, told in a line."""

from typing import Any

import numpy as np
from jaxtyping import Shaped
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from jdec._checks import check_nothing_masked, check_seed, shown
from jdec._rows import as_rows

RandomState = int | np.random.RandomState | None


def validate_rows(estimator: Any, X: Any, *, reset: bool) -> Shaped[np.ndarray, "N D"]:
    """Return rows as scikit-learn reads them, and compare them with those of the fit.

    Rows that are not finite pass: this library names them. They keep their dtype, since they are
    centred before they become float32.

    Args:
        estimator: Whose number and names of features are set, or looked at.
        X: Anything that scikit-learn takes for a matrix.
        reset: Whether this is a fit.

    Returns:
        An array [N D].

    Raises:
        ValueError: In scikit-learn's words, which its own checks ask for; in one line, but for
            names of features, where they ask for several.
        TypeError: For sparse matrices, and objects that are no numbers.

    Examples:
        >>> from sklearn.base import BaseEstimator
        >>> validate_rows(BaseEstimator(), [1.0, 2.0], reset=True)
        Traceback (most recent call last):
        ValueError: X: Expected 2D array, got 1D array instead: array=[1. 2.]. Reshape your data ...
    """
    check_nothing_masked("X", X)
    try:
        # Without a dtype: scikit-learn would read text as numbers, 1_2 as 12.
        rows = validate_data(estimator, X, dtype=None, ensure_all_finite=False, reset=reset)
    except Exception as error:  # of a deleted array, or one of another library, as it likes
        text = " ".join(str(error).split())
        if "feature names" in text:
            raise
        if len(text) > 400:
            text = f"{text[:150]} … {text[-250:]}"
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"X: {text or type(error).__name__}") from error
    if rows.dtype.kind in "iufb":
        return rows
    try:
        return as_rows("X", rows)
    except ValueError as error:
        is_text = rows.dtype.kind != "O" or any(isinstance(v, str | bytes) for v in rows.flat)
        if is_text or "finite" in str(error):
            raise
        raise TypeError(f"{error}; float() argument must be a string or a number") from error


def make_generator(random_state: Any) -> np.random.RandomState:
    """Return NumPy's generator of a seed, or the one given.

    Examples:
        >>> make_generator("ten")
        Traceback (most recent call last):
        ValueError: random_state: expected a seed, a NumPy RandomState or None, got 'ten'
    """
    if isinstance(random_state, int | np.integer):
        check_seed("random_state", random_state)
    try:
        return check_random_state(random_state)
    except Exception as error:  # an object of a foreign type fails as it likes
        raise ValueError(
            f"random_state: expected a seed, a NumPy RandomState or None, got {shown(random_state)}"
        ) from error
