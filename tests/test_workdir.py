import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdec.workdir import rows_digest

# More rows than are read at once.
X = np.random.default_rng(0).standard_normal((9000, 3)).astype(np.float32)
WHOLE = rows_digest(X, 0)


def test_a_digest_is_two_numbers():
    assert (WHOLE.shape, WHOLE.dtype) == ((2,), np.uint64)
    assert WHOLE[0] != WHOLE[1]
    np.testing.assert_array_equal(rows_digest(X[:0], 7), 0)


@given(st.lists(st.sampled_from([0, 1, 4095, 4096, 4097, 8191, 8192, 8999, 9000]), max_size=4))
def test_parts_add_up_to_the_whole_however_rows_are_shared_out(cuts):
    cuts = sorted(cuts)
    parts = [
        rows_digest(part, first) for first, part in zip([0, *cuts], np.split(X, cuts), strict=True)
    ]
    np.testing.assert_array_equal(np.sum(parts, axis=0, dtype=np.uint64), WHOLE)


def changed(how):
    x = X.copy()
    if how == "one bit of a number":
        x.view(np.uint32)[4096, 1] ^= 1
    elif how == "a sign of zero":
        x[5, 2] = -0.0
    elif how == "two rows swapped":
        x[[10, 5000]] = x[[5000, 10]]
    elif how == "two columns swapped":
        x = x[:, [1, 0, 2]]
    elif how == "two numbers of a column swapped":
        x[[3, 4], 0] = x[[4, 3], 0]
    elif how == "all rows turned around":
        x = x[::-1]
    elif how == "a row less":
        x = x[:-1]
    elif how == "a row twice":
        x[11] = x[10]
    elif how == "rows moved by one":
        x = np.roll(x, 1, axis=0)
    return x


@pytest.mark.parametrize(
    "how",
    [
        *("one bit of a number", "a sign of zero", "two rows swapped", "two columns swapped"),
        *("two numbers of a column swapped", "all rows turned around", "a row less"),
        *("a row twice", "rows moved by one"),
    ],
)
def test_other_rows_have_another_digest(how):
    x = X.copy()
    x[5, 2] = 0.0
    before = rows_digest(x, 0) if how == "a sign of zero" else WHOLE
    assert (rows_digest(changed(how), 0) != before).all()


def test_a_part_elsewhere_has_another_digest():
    digests = {tuple(rows_digest(X[:5], first).tolist()) for first in range(100)}
    assert len(digests) == 100


def test_many_small_matrices_have_digests_of_their_own():
    """Numbers such as counts share most of their bits."""
    numbers = np.stack(np.meshgrid(*[np.arange(6)] * 4), axis=-1).reshape(-1, 2, 2)
    digests = [rows_digest(x.astype(np.float32), 0).tolist() for x in numbers]
    assert len(numbers) == 6**4
    for half in zip(*digests, strict=True):
        assert len(set(half)) == 6**4


def test_the_form_of_the_rows_does_not_matter():
    np.testing.assert_array_equal(rows_digest(np.asfortranarray(X), 0), WHOLE)
    np.testing.assert_array_equal(rows_digest(X.astype(np.float64), 0), WHOLE)
    np.testing.assert_array_equal(rows_digest(np.repeat(X, 2, axis=0)[::2], 0), WHOLE)
