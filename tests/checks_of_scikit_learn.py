"""scikit-learn's checks of estimators, whatever else is installed."""

import pytest
import sklearn.base  # SciPy, which reads the variable below as well, is imported before it is set

# Of scikit-learn 1.6, where array_api_compat (a dependency of anndata) is installed.
with pytest.MonkeyPatch.context() as _patch:
    _patch.setenv("SCIPY_ARRAY_API", "1")
    from sklearn.utils.estimator_checks import check_array_api_input, parametrize_with_checks

__all__ = ["check_array_api_input", "parametrize_with_checks", "sklearn"]
