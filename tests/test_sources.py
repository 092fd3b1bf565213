"""Rows that are read a few at a time: sparse matrices against NumPy's."""

import numpy as np
import pytest
import scipy.sparse

from jdec._sources import RowSource, SparseRows, as_source

RNG = np.random.default_rng(0)
DENSE = np.where(RNG.random((40, 7)) < 0.3, RNG.normal(size=(40, 7)), 0.0)
FORMATS = ("csr", "csc", "coo", "bsr", "dia", "dok", "lil")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", ["array", "matrix"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.bool_])
def test_rows_of_a_sparse_matrix_are_those_of_the_dense_one(form, kind, dtype):
    dense = (10 * DENSE).astype(dtype)
    rows = as_source("x", getattr(scipy.sparse, f"{form}_{kind}")(dense))
    assert isinstance(rows, SparseRows)
    assert isinstance(rows, RowSource)
    assert (rows.shape, len(rows)) == ((40, 7), 40)
    assert rows.dtype == (np.float32 if dtype == np.bool_ else dtype)
    indices = np.array([5, 39, 0, 5])
    for index in (slice(3, 9), slice(38, 50), indices, indices[:0], (slice(None), 2)):
        np.testing.assert_array_equal(rows[index], dense[index])
    np.testing.assert_array_equal(rows[:, [6, 0]][:], dense[:, [6, 0]])


def test_entries_given_twice_are_added():
    twice = scipy.sparse.coo_array(([1.0, 2.0], ([1, 1], [0, 0])), shape=(3, 2))
    assert as_source("x", twice)[:].tolist() == [[0, 0], [3, 0], [0, 0]]


@pytest.mark.parametrize("library", ["h5py", "zarr"])
@pytest.mark.parametrize("n_rows", [40, 30_000, 0])
def test_stored_matrices_are_read_in_blocks(tmp_path, library, n_rows):
    dense = np.resize(DENSE, (n_rows, 70))
    stored = pytest.importorskip(library, reason=f"{library} is not installed")
    if library == "h5py":
        file = stored.File(tmp_path / "x.h5", "w")
        x = file.create_dataset("x", data=dense, chunks=True if n_rows else None)
    else:
        x = stored.create_array(tmp_path / "x.zarr", shape=dense.shape, dtype=dense.dtype)
        x[:] = dense
    if n_rows:
        np.testing.assert_array_equal(as_source("x", x), dense)
    else:
        with pytest.raises(ValueError, match="at least one row"):
            as_source("x", x)


def test_dense_rows_are_left_as_they_are(tmp_path):
    np.save(tmp_path / "x.npy", DENSE)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert np.shares_memory(as_source("x", stored), stored)


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (1e39, "1e")])
def test_a_number_that_cannot_be_used_is_named(form, value, word):
    dense = DENSE.copy()
    dense[17, 4] = value
    sparse = getattr(scipy.sparse, f"{form}_array")(dense)
    with pytest.raises(ValueError, match=rf"{word}.* in row 117, column 'e'"):
        as_source("x", sparse, first_row=100, columns=list("abcdefg"))


def broken(form, name, place, value):
    matrix = getattr(scipy.sparse, f"{form}_array")(DENSE)
    getattr(matrix, name)[place] = value
    return matrix


def broken_coordinates():
    matrix = scipy.sparse.coo_array(DENSE)
    matrix.coords[1][3] = 70
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (broken("csr", "indices", 3, 7), "indices from 0 to 6, got 7"),
        (broken("csr", "indices", 3, -1), "indices from 0 to 6, got -1"),
        (broken("csc", "indices", 3, 4000), "indices from 0 to 39, got 4000"),
        (broken("csr", "indptr", 3, 10**6), "whose indptr fits its entries"),
        (broken("csr", "indptr", -1, 3), "whose indptr fits its entries"),
        (broken("csc", "indptr", 0, -1), "whose indptr fits its entries"),
        (broken_coordinates(), "coordinates from 0 to 6, got 70"),
        (scipy.sparse.csr_array((0, 4)), "at least one row"),
        (scipy.sparse.csr_array((4, 0)), "minimum of 1 is required"),
        (scipy.sparse.csr_array(DENSE.astype(complex)), "Complex data not supported"),
        (scipy.sparse.coo_array(DENSE[0]), "a sparse 1D one"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_matrix_is_refused_before_its_indices_are_followed(matrix, message):
    with pytest.raises(ValueError, match=f"^x: .*{message}"):
        as_source("x", matrix)
