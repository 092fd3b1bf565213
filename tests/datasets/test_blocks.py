"""Rows that come block by block."""

import itertools

import numpy as np
import pytest
import scipy.sparse

from jdec.datasets import stack_blocks


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("n_rows", [1, 700_000])  # the more lie in a file
def test_blocks_of_any_length_are_stacked(dtype, n_rows):
    x = (np.arange(n_rows * 8) % 200).reshape(n_rows, 8).astype(dtype)
    ends = [0, 0, n_rows // 3, n_rows // 2, n_rows]
    found = stack_blocks(x[a:b] for a, b in itertools.pairwise(ends) if a < b)
    np.testing.assert_array_equal(found, x)
    assert found.dtype == dtype
    found[0] = 7  # it is the caller's own
    assert (found[0] == 7).all()


def test_sparse_blocks_stay_sparse():
    x = scipy.sparse.random_array((50, 9), density=0.2, rng=np.random.default_rng(0)).tocsr()
    found = stack_blocks([x[:20], x[20:].tocsc()])
    assert scipy.sparse.issparse(found)
    assert found.format == "csr"
    np.testing.assert_array_equal(found.toarray(), x.toarray())


@pytest.mark.parametrize(
    ("blocks", "needed"),
    [
        ([], "at least one block of rows, got none"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], r"blocks\[1\]: expected dense rows of 3 float64"),
        ([np.zeros((2, 3)), np.zeros((2, 3), np.float32)], r"got dense rows of 3 float32"),
        ([np.zeros((2, 3)), scipy.sparse.csr_array((2, 3))], r"blocks\[1\].*got sparse rows"),
        ([np.zeros((2, 3)), np.full((2, 3), np.nan)], r"blocks\[1\].*NaN"),
        ([np.zeros(3)], r"blocks\[0\]: Expected 2D array"),
    ],
)
def test_blocks_that_do_not_fit_are_rejected(blocks, needed):
    with pytest.raises(ValueError, match=needed):
        stack_blocks(blocks)
