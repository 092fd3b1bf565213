"""scikit-learn's checks of estimator arguments, with messages of one line."""

from typing import Any

import numpy as np
from jaxtyping import Shaped
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from jdec._checks import check_nothing_masked, check_seed, in_a_line, shown
from jdec._rows import as_rows

RandomState = int | np.random.RandomState | None


def validate_rows(estimator: Any, X: Any, *, reset: bool) -> Shaped[np.ndarray, "N D"]:
    """Return rows as scikit-learn reads them, and compare them with those of the fit.

    Rows that are not finite pass, since :func:`jdec._rows.check_finite_rows` names them. Rows keep
    their dtype, since they are centred before they become float32. Errors are in scikit-learn's
    words, which its estimator checks require, and in one line except for feature names, where they
    require several; those of sparse matrices, and of objects other than numbers, are TypeErrors.
    In a fit, ``reset`` sets the estimator's number and names of features.
    """
    check_nothing_masked("X", X)
    try:
        # Without a dtype: scikit-learn would read text as numbers, 1_2 as 12.
        rows = validate_data(estimator, X, dtype=None, ensure_all_finite=False, reset=reset)
    except Exception as error:  # deleted arrays, and those of other libraries, raise anything
        if "feature names" in str(error):
            raise
        text = in_a_line(error, 10_000)
        if len(text) > 400:
            text = f"{text[:150]} … {text[-250:]}"
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"X: {text}") from error
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
    """Return NumPy's generator of a seed, or the one given."""
    if isinstance(random_state, int | np.integer):
        check_seed("random_state", random_state)
    try:
        return check_random_state(random_state)
    except Exception as error:  # foreign types raise anything
        raise ValueError(
            f"random_state: expected a seed, a NumPy RandomState or None, got {shown(random_state)}"
        ) from error


def can_reconstruct(estimator: Any) -> bool:
    """Whether an estimator is not fitted yet, or was with its decoder."""
    if hasattr(estimator, "model_") and not estimator.model_.has_decoder:
        raise AttributeError(
            "a model without a decoder reconstructs nothing; fit with "
            'settings={"clustering.reconstruction_weight": 1.0}'
        )
    return True
