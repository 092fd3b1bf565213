"""Settings of the tests of the baselines."""

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Small matrices are slower with several threads."""
    with threadpool_limits(1):
        yield
