"""Rows and labels of every kind of array."""

import numpy as np
import pytest

from jdec._rows import as_labels, as_rows

X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 1, 0])


def test_what_is_masked_nowhere_is_an_array_like_others():
    np.testing.assert_array_equal(as_rows("x", np.ma.masked_array(X)), X)
    np.testing.assert_array_equal(as_labels("y", np.ma.masked_array(Y)), Y)


@pytest.mark.parametrize("value", [1.0, 65504.0, -65504.0])
def test_rows_of_half_precision_are_rows(value):
    x = np.full((3, 2), value, np.float16)
    assert as_rows("x", x) is x
