"""Files of the user's own: what is read, rejected or warned of, and how much memory that takes."""

import dataclasses
import decimal
import gzip
import io
import json
import logging
import os
import re
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from jdec.datasets import load_dataset

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rejected(path, *needed, **options):
    """Load what cannot be loaded; the message is one line that names the file."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        load_dataset(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for text in needed:
        assert text in message
    return message


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def check_form(data, x, dtype):
    np.testing.assert_array_equal(data.x, x)
    assert data.x.dtype == dtype
    assert data.x.ndim == 2
    if data.y is not None:
        assert data.y.shape == (len(data.x),)
        assert data.y.dtype == np.int64


# NumPy.


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        *((np.float32, np.float32), (np.float64, np.float64), (np.float16, np.float32)),
        *((np.uint8, np.uint8), (np.int64, np.int64), (bool, np.float32)),
        *((">f4", np.float32), (">i2", np.int16)),
    ],
)
def test_npy(tmp_path, dtype, kept):
    np.save(tmp_path / "rows.npy", X.astype(dtype))
    for name in (tmp_path / "rows.npy", str(tmp_path / "rows.npy")):
        data = load_dataset(name)
        check_form(data, X.astype(dtype), kept)
        assert data.x.dtype.isnative
        assert (data.name, data.y, data.image_shape, data.n_train) == ("rows", None, None, None)
        assert data.feature_names is data.label_name is data.ids is None


def test_large_numbers_keep_their_differences(tmp_path):
    x = 1.7e9 + np.arange(6.0).reshape(3, 2) / 8
    np.save(tmp_path / "a.npy", x)
    np.savetxt(tmp_path / "a.csv", x, delimiter=",", fmt="%.10f")
    for file in ("a.npy", "a.csv"):
        check_form(load_dataset(tmp_path / file), x, np.float64)


def test_fortran_order(tmp_path):
    np.save(tmp_path / "rows.npy", np.asfortranarray(X))
    check_form(load_dataset(tmp_path / "rows.npy"), X, np.float32)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    ("shape", "dtype", "image_shape"),
    [
        ((4, 5, 3), np.uint8, (5, 3)),
        ((4, 5, 6, 3), np.uint8, (5, 6, 3)),
        ((4, 5, 6, 1), np.uint8, (5, 6, 1)),
        ((4, 5, 6, 4), np.uint8, (5, 6, 4)),
        ((4, 3, 5, 6), np.uint8, None),
        ((4, 5, 6, 3, 2), np.uint8, None),
        ((4, 50, 28), np.float32, None),
        ((4, 28, 28), np.float64, None),
        ((4, 28, 28), np.int16, None),
        ((4, 28, 28), bool, None),
        ((4, 5, 6, 3), np.float32, None),
    ],
)
def test_only_bytes_are_taken_for_images(tmp_path, caplog, suffix, shape, dtype, image_shape):
    images = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    path = tmp_path / f"images{suffix}"
    np.save(path, images) if suffix == ".npy" else np.savez(path, images)
    data = load_dataset(path)
    np.testing.assert_array_equal(data.x, images.reshape(4, -1))
    assert data.image_shape == image_shape
    (message,) = warnings_of(caplog)
    assert "--image-shape" in message
    assert str(path) in message
    assert ("flattened" in message) == (image_shape is None)
    assert ("not taken for an image" in message) == (image_shape is None)


@pytest.mark.parametrize(
    ("shape", "image_shape"),
    [
        ((4, 28, 28), (28, 28)),
        ((4, 28, 28), (28, 28, 1)),
        ((4, 5, 6, 1), (5, 6)),
        ((4, 5, 6, 3), [5, 6, 3]),
        ((4, 90), (5, 6, 3)),
        ((4, 30), (np.int64(5), 6)),
    ],
)
def test_an_image_shape_that_is_given_is_taken(tmp_path, caplog, shape, image_shape):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    data = load_dataset(tmp_path / "a.npy", image_shape=image_shape)
    assert data.image_shape == tuple(image_shape)
    assert data.x.shape == (4, np.prod(shape[1:]))
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(
    ("shape", "image_shape", "needed"),
    [
        ((4, 30), (5, 5), "expected 30 entries as x has columns, got (5, 5)"),
        ((4, 3, 5, 6), (5, 6, 3), "expected (3, 5, 6) as the array has, got (5, 6, 3)"),
        ((4, 5, 6), (6, 5), "expected (5, 6) as the array has"),
        ((4, 30), (30,), "expected (height, width) or (height, width, channels), got (30,)"),
        ((4, 30), (5, -6), "expected (height, width)"),
        ((4, 30), (5.0, 6), "expected (height, width)"),
        ((4, 30), "56", "expected (height, width)"),
        ((4, 30), 30, "expected (height, width)"),
    ],
)
def test_an_image_shape_that_does_not_fit_is_rejected(tmp_path, shape, image_shape, needed):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(ValueError, match="image_shape: expected") as caught:
        load_dataset(tmp_path / "a.npy", image_shape=image_shape)
    assert needed in str(caught.value)


def test_a_table_may_hold_images(tmp_path):
    write(tmp_path / "a.csv", "1,2,3,4,5,6\n" * 2)
    assert load_dataset(tmp_path / "a.csv", image_shape=(2, 3)).image_shape == (2, 3)


@pytest.mark.parametrize("x_name", ["x", "X", "data", "anything"])
@pytest.mark.parametrize("y_name", ["y", "labels", "target", "Label", None])
def test_npz(tmp_path, x_name, y_name):
    arrays = {x_name: X, "one_dimension": np.arange(3)}
    if y_name:
        arrays[y_name] = np.array([[7], [3], [7], [9]])
    np.savez_compressed(tmp_path / "rows.npz", **arrays)
    data = load_dataset(tmp_path / "rows.npz")
    check_form(data, X, np.float32)
    assert data.class_names is None
    assert data.label_name == y_name
    if y_name:
        assert data.y.tolist() == [1, 0, 1, 2]
    else:
        assert data.y is None


def test_the_labels_of_an_archive_are_chosen(tmp_path):
    path = tmp_path / "rows.npz"
    np.savez(path, x=X, y=[0, 1, 0, 1], cells=["b", "a", "b", "b"], label=[1, 1, 1, 2])
    rejected(path, "at most one array of labels, got y, label", "--label")
    data = load_dataset(path, label="cells")
    assert (data.y.tolist(), data.class_names, data.label_name) == (
        [1, 0, 1, 1],
        ("a", "b"),
        "cells",
    )
    for none in ("", "none"):
        data = load_dataset(path, label=none)
        assert data.y is data.label_name is None
    rejected(path, "label: expected one of the arrays x, y, cells, label; got 'cell'", label="cell")
    rejected(path, "label: expected", label="x.npy")


@pytest.mark.parametrize("options", [{"id": "a"}, {"drop": ["a"]}, {"drop": "a"}])
def test_arrays_have_no_columns_to_name(tmp_path, options):
    np.savez(tmp_path / "rows.npz", x=X)
    np.save(tmp_path / "rows.npy", X)
    for file in ("rows.npz", "rows.npy"):
        rejected(tmp_path / file, "id, drop: expected none", "'a'", **options)
    rejected(tmp_path / "rows.npy", "label: expected none for a single array", label="y")
    assert load_dataset(tmp_path / "rows.npy", label="none").y is None


@pytest.mark.parametrize(
    ("labels", "y", "names"),
    [
        (["b", "a", "b", "c"], [1, 0, 1, 2], ("a", "b", "c")),
        (["1", "01", "1", "10"], [1, 0, 1, 2], ("01", "1", "10")),
        ([b"b", b"a", b"b", b"\xc3\xa4"], [1, 0, 1, 2], ("a", "b", "ä")),
        ([-1.0, 5.0, -1.0, 0.0], [0, 2, 0, 1], None),
        ([True, False, True, True], [1, 0, 1, 1], None),
        (np.array([2**63, 0, 1, 0], np.uint64), [2, 0, 1, 0], None),
        (np.array([2**53, 2**53 + 1, 1, 0]), [2, 3, 1, 0], None),
    ],
)
def test_labels_are_numbered(tmp_path, labels, y, names):
    np.savez(tmp_path / "rows.npz", x=X, y=labels)
    data = load_dataset(tmp_path / "rows.npz")
    assert data.y.tolist() == y
    assert data.class_names == names


@pytest.mark.parametrize(
    ("labels", "needed"),
    [
        ([1, 2, 3], "expected as many entries as x has (4), got 3"),
        (np.eye(4), "expected one label per row, got shape (4, 4)"),
        ([0.0, 0.5, 1.0, 1.0], "got 0.5 in row 1"),
        ([0.0, 1.0, np.nan, 1.0], "got nan in row 2"),
        ([0.0, 1.0, np.inf, 1.0], "got inf in row 2"),
        ([0.0, 1.0, 2.0**53, 1.0], "beyond which float64 rounds whole numbers"),
        (np.array([0, 2**24, 1, 1], np.float32), "beyond which float32 rounds whole numbers"),
        (["a", "b", "", "a"], "got '' in row 2"),
        ([b"a", b"b", b"\xff", b"\xfe"], "expected text in UTF-8, got the bytes b'\\xff' in row 2"),
        (["a", "b", "c" * 1001, "a"], "at most 1000 characters, got 1001 in row 2"),
        (np.zeros(4, complex), "got dtype complex128"),
        (np.zeros(4, "M8[s]"), "got dtype datetime64[s]"),
        (np.zeros(4, "m8[s]"), "got dtype timedelta64[s]"),
        (np.array(4), "got shape ()"),
    ],
)
def test_labels_that_are_no_classes_are_rejected(tmp_path, labels, needed):
    np.savez(tmp_path / "rows.npz", x=X, y=labels)
    rejected(tmp_path / "rows.npz", needed)


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def damaged_npz():
    content = bytearray(npz_bytes(x=X))
    at = content.index(X.tobytes())
    content[at + 5] ^= 0xFF
    return bytes(content)


def zip_bytes(name="sheet.xml", content="<xml/>"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name), content)  # of no time
    return buffer.getvalue()


class Trap:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


@pytest.mark.parametrize(
    ("file", "content", "needed"),
    [
        ("a.npy", npy_bytes(X)[:-5], "expected a NumPy file"),
        ("a.npy", npy_bytes(X)[:20], "expected a NumPy file"),
        ("a.npy", npy_bytes(X).replace(b"(4, 3)", b"(4,33)"), "expected a NumPy file"),
        ("a.npy", npy_bytes(X).replace(b"(4, 3)", b"(3, 3)"), "expected a NumPy file"),
        ("a.npy", npy_bytes(X).replace(b"(4, 3)", b"(-4,3)"), "expected a NumPy file"),
        ("a.npy", npy_bytes(X).replace(b"4, 3), }     ", b"4, 3999999999"), "a NumPy file"),
        ("a.npy", npy_bytes(X).replace(b"<f4", b"<q9"), "expected a NumPy file"),
        ("a.npy", npy_bytes(X).replace(b"{'descr'", b"((((((((("), "expected a NumPy file"),
        ("a.npy", npy_bytes(X) + npy_bytes(X), "expected a NumPy file"),
        ("a.npy", npy_bytes(np.array([[Trap()]], object)), "never unpickled"),
        ("a.npy", b"1,2\n3,4\n", "expected a NumPy file, got one that starts with b'1,2"),
        ("a.npy", npy_bytes(np.arange(3.0)), "Expected 2D array"),
        ("a.npy", npy_bytes(np.array(3.0)), "expected a numeric matrix [rows, columns]"),
        ("a.npy", npy_bytes(np.zeros((0, 3))), "expected at least one row"),
        ("a.npy", npy_bytes(np.zeros((0, 3, 2))), "expected at least one row"),
        ("a.npy", npy_bytes(np.zeros((3, 0))), "0 feature(s)"),
        ("a.npy", npy_bytes(np.zeros((3, 0, 4))), "0 feature(s)"),
        ("a.npy", npy_bytes(np.array([[0.0, np.nan]])), "NaN in row 0"),
        ("a.npy", npy_bytes(np.array([[0.0, 1e300]])), "too large"),
        ("a.npy", npy_bytes(np.array([["a", "b"]])), "expected numbers"),
        ("a.npy", npy_bytes(np.array([["1", "2"]])), "expected numbers"),
        ("a.npy", npy_bytes(np.zeros((2, 2), complex)), "Complex data not supported"),
        ("a.npy", npy_bytes(np.zeros((2, 2), "f4,f4")), "expected numbers"),
        ("a.npy", npy_bytes(np.zeros((2, 2), "M8[s]")), "expected numbers, got dtype datetime64"),
        ("a.npy", npy_bytes(np.zeros((2, 2), "m8[s]")), "expected numbers, got dtype timedelta64"),
        ("a.npz", npz_bytes(x=X)[:-30], "expected a NumPy file"),
        ("a.npz", npz_bytes(x=X)[:40], "expected a NumPy file"),
        ("a.npz", damaged_npz(), "expected a NumPy file"),
        ("a.npz", npz_bytes(x=np.array([[Trap()]], object)), "unpickled"),
        ("a.npz", npz_bytes(x=X, y=np.array([Trap()] * 4, object)), "unpickled"),
        ("a.npz", npz_bytes(a=X, b=X), "got a (4, 3), b (4, 3)"),
        ("a.npz", npz_bytes(a=X, b=X, c=X, d=X[0]), "c (4, 3), d (3,)"),
        ("a.npz", npz_bytes(x=X, X=X), "expected one array of rows, got x, X"),
        ("a.npz", npz_bytes(), "got none"),
        ("a.npz", npz_bytes(y=np.arange(4)), "expected an array named x, X, data or a single"),
        ("a.npz", npz_bytes(x=X, y=np.arange(4), target=np.arange(4)), "got y, target"),
        ("a.npz", zip_bytes(), "expected a NumPy file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "bytes",
)
def test_damaged_numpy_files_are_rejected(tmp_path, file, content, needed):
    rejected(write(tmp_path / file, content), needed)


# scipy-sparse.


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (X.astype(np.float64), np.float32),
        (X + np.float32(0.1), np.float32),
        (X.astype(np.float64) + 0.1, np.float64),
    ],
)
def test_sparse_files_stay_sparse(tmp_path, form, make, x, dtype):
    path = tmp_path / "rows.npz"
    scipy.sparse.save_npz(path, make(x).asformat(form))
    data = load_dataset(path)
    assert isinstance(data.x, scipy.sparse.csr_array)
    assert (data.x.indices.dtype, data.x.indptr.dtype) == (np.int32, np.int32)
    check_form(dataclasses.replace(data, x=data.x.toarray()), x, dtype)
    rejected(path, "label: expected none for a sparse matrix", label="y")


def test_a_sparse_file_may_be_large_when_dense(tmp_path):
    path = tmp_path / "rows.npz"
    indices = (np.arange(100_000), np.arange(100_000) * 2)
    rows = scipy.sparse.csr_array((np.ones(100_000), indices), shape=(100_000, 200_000))
    scipy.sparse.save_npz(path, rows)
    assert (abs(load_dataset(path).x - rows) > 1e-6).nnz == 0


def test_sparse_files_of_a_made_up_shape_are_rejected(tmp_path):
    path = tmp_path / "rows.npz"
    scipy.sparse.save_npz(path, scipy.sparse.csr_array((10, 10**9), dtype=np.float32))
    rejected(path, "at most 262144 columns", "reduce the number of features")
    scipy.sparse.save_npz(path, scipy.sparse.coo_array((10**12, 3), dtype=np.float32))
    rejected(path, "expected a sparse matrix", "it has 1000000000000 rows in a file of")


def sparse_arrays(tmp_path, form, array=True):
    matrix = scipy.sparse.csr_array(X) if array else scipy.sparse.csr_matrix(X)
    scipy.sparse.save_npz(tmp_path / "rows.npz", matrix.asformat(form))
    with np.load(tmp_path / "rows.npz") as archive:
        return tmp_path / "rows.npz", dict(archive)


@pytest.mark.parametrize("form", ["csr", "csc", "bsr", "coo"])
@pytest.mark.parametrize("index", [-1, 1000])
def test_sparse_indices_out_of_range_are_rejected(tmp_path, form, index):
    path, arrays = sparse_arrays(tmp_path, form)
    names = [name for name in ("indices", "col", "coords") if name in arrays]
    arrays[names[0]].reshape(-1)[0] = index
    np.savez(path, **arrays)
    rejected(path, "expected a sparse matrix")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", ["csr", "bsr", "coo", "dia"])
def test_sparse_numbers_that_are_not_finite_are_rejected(tmp_path, form, value):
    path, arrays = sparse_arrays(tmp_path, form)
    arrays["data"].reshape(-1)[-4 if form == "dia" else 2] = value
    np.savez(path, **arrays)
    row, column = np.argwhere(~np.isfinite(scipy.sparse.load_npz(path).toarray()))[0]
    shown = {"nan": "NaN", "inf": "infinity", "-inf": "infinity"}[str(value)]
    rejected(path, f"expected finite numbers, got {shown} in row {row}, column {column}")


def test_what_lies_outside_of_a_matrix_of_diagonals_is_not_read(tmp_path):
    path, arrays = sparse_arrays(tmp_path, "dia")
    inside = scipy.sparse.load_npz(path).toarray()
    places = np.arange(arrays["data"].shape[1]) - arrays["offsets"][:, None]
    outside = (places < 0) | (places >= len(inside))
    assert outside.any()
    arrays["data"][outside] = np.nan
    np.savez(path, **arrays)
    np.testing.assert_array_equal(load_dataset(path).x.toarray(), inside)


@pytest.mark.parametrize(
    "change",
    [
        {"format": b"abc"},
        {"format": b"__class__"},
        {"format": np.array([b"csr"] * 2)},
        {"shape": [4]},
        {"shape": [4, 3, 1]},
        {"shape": ["a", "b"]},
        {"shape": [4.0, 3.0]},
        {"shape": [-4, -3]},
        {"shape": [2**40, 2**40]},
        {"shape": [2**62, 2]},
        {"indptr": [0, 1]},
        {"indptr": [0, 3, 2, 9, 11]},
        {"indptr": np.array([0, 2, 5, 8, -(2**31)], np.int32)},  # whose differences overflow
        {"indptr": np.array([0, 2**63, 5, 8, 11], np.uint64)},
        {"indices": np.arange(11) % 3 * 1.0},
        {"data": np.zeros(11, complex)},
        {"data": np.array(["a"] * 11)},
        {"data": np.zeros(5)},
    ],
)
def test_other_damage_to_sparse_files_is_rejected(tmp_path, change):
    path, arrays = sparse_arrays(tmp_path, "csr")
    np.savez(path, **(arrays | change))
    rejected(path, "expected a")
    del arrays["indices"]
    np.savez(path, **arrays)
    rejected(path, "expected a sparse matrix")


@pytest.mark.parametrize(
    ("form", "change"),
    [
        ("coo", {"row": [0], "coords": [[0], [1]]}),
        ("coo", {"coords": [[0.0] * 11] * 2}),
        ("bsr", {"data": np.zeros((3, 0, 1))}),
        ("bsr", {"data": np.zeros((3, 3, 2))}),
        ("dia", {"offsets": [[0]]}),
        ("dia", {"offsets": [2**40, 0, 1, 2, 3, 4]}),
        ("dia", {"offsets": [0, 0, 1, 2, 3, 4]}),
        ("dia", {"data": np.zeros(6)}),
    ],
)
def test_damage_to_other_sparse_forms_is_rejected(tmp_path, form, change):
    path, arrays = sparse_arrays(tmp_path, form)
    np.savez(path, **(arrays | change))
    rejected(path, "expected a sparse matrix")


# Text.


@pytest.mark.parametrize(
    ("file", "text", "x", "y", "names", "label", "features"),
    [
        ("a.csv", "1,2\n3,4\n", [[1, 2], [3, 4]], None, None, None, None),
        ("a.csv", "1,2\r\n\r\n3,4", [[1, 2], [3, 4]], None, None, None, None),
        ("a.csv", "\ufeffa,b\n1,-2e3\n .5 ,4\n", [[1, -2000], [0.5, 4]], None, None, None, "a b"),
        ("a.CSV", "y,a,b\n5,1,2\n3,3,4\n", [[1, 2], [3, 4]], [1, 0], None, "y", "a b"),
        ("a.csv", "a,Label\n1,1.0\n3,0.0\n", [[1], [3]], [1, 0], ("0.0", "1.0"), "Label", "a"),
        ("a.csv", 'a,TARGET\n1,"u, v"\n3,t\n', [[1], [3]], [1, 0], ("t", "u, v"), "TARGET", "a"),
        ("a.csv", "class,0\nq,1\np,3\n", [[1], [3]], [1, 0], ("p", "q"), "class", "0"),
        ("a.csv", "y,a\n10,1\n9,2\n", [[1], [2]], [1, 0], None, "y", "a"),
        ("a.csv", "only\n1\n2\n", [[1], [2]], None, None, None, "only"),
        ("a.csv", "7\n8\n", [[7], [8]], None, None, None, None),
        ("a.tsv", "a\ty\tb\n1\tq\t2\n3\tp\t4\n", [[1, 2], [3, 4]], [1, 0], ("p", "q"), "y", "a b"),
        ("a.csv", '"1","2"\n"3","4"\n', [[1, 2], [3, 4]], None, None, None, None),
        ("a.csv", "a,a,b\n1,2,3\n", [[1, 2, 3]], None, None, None, "a a b"),
        ("a.csv", "# a,label\n1.5,0\n2,1\n", [[1.5], [2]], [0, 1], None, "label", "a"),
        ("a.csv", "#a,b\n1.5,0\n2,1\n", [[1.5, 0], [2, 1]], None, None, None, "a b"),
        ("a.csv", "0_1,0_2\n0.5,1\n", [[0.5, 1]], None, None, None, "0_1 0_2"),
        ("a.csv", "x,z\n0.5,1\n", [[0.5, 1]], None, None, None, "x z"),
    ],
)
def test_text_files(tmp_path, file, text, x, y, names, label, features):
    data = load_dataset(write(tmp_path / file, text))
    check_form(data, x, np.float64)
    assert (data.y if data.y is None else data.y.tolist()) == y
    assert data.class_names == names
    assert data.label_name == label
    assert data.feature_names == (None if features is None else tuple(features.split()))
    assert data.name == "a"


def test_savetxt_writes_what_is_read(tmp_path):
    for header in ("label,a,b", "0_label,label,b"):
        np.savetxt(tmp_path / "a.csv", [[0, 1, 2.5], [1, 0, 4.5]], delimiter=",", header=header)
        data = load_dataset(tmp_path / "a.csv")
        assert data.x.shape == (2, 2)
        assert data.label_name == "label"


@pytest.mark.parametrize(
    ("file", "text", "needed"),
    [
        ("a.csv", "a,b\n1,2\n3,x\n", ["column 'b'", "'x'", "line 3", "--drop b"]),
        ("a.csv", "1,2\n\n3,x\n", ["column '2'", "'x'", "line 3", "--drop 2"]),
        ("a.csv", 'a,"b\nc"\n1,2\n3,\n', ["got '' in line 4", "fill or drop"]),
        ("a.csv", "a,town,y\n1,Rome,0\n", ["column 'town'", "'Rome'", "line 2", "--label"]),
        ("a.csv", "1,NA\n2,3\n", ["column '2'", "'NA'", "line 1", "fill or drop"]),
        ("a.csv", "1,2\n3\n", ["expected 2 cells, got 1 in line 2"]),
        ("a.csv", "1,2\n3,4,5\n", ["expected 2 cells, got 3 in line 2"]),
        ("a.csv", "a,b\n7,1,2\n", ["expected 2 cells, got 3 in line 2", "without a name"]),
        ("a.csv", "Measured in May\na,b\n1,2\n", ["expected 1 cells, got 2 in line 2", "title"]),
        ("a.csv", "a,b\n1,2\n3,nan\n", ["NaN in row 1, column 'b'"]),
        ("a.csv", "a,b\n1,2\n3,1e99\n", ["1e+99 in row 1, column 'b'", "too large"]),
        ("a.csv", "a,b\n1,2\n3,1e999\n", ["infinity in row 1"]),
        ("a.csv", "y,a,class\n1,2,3\n", ["at most one label column, got y, class", "--label"]),
        ("a.csv", "y,a\n0.25,2\n0.75,3\n", ["got '0.25' in row 0", "--label none"]),
        ("a.csv", "y,a\n1,2\nnan,3\n", ["got 'nan' in row 1"]),
        ("a.csv", "y,a\nu,2\n,3\n", ["got '' in row 1"]),
        ("a.csv", "a,b\n", ["expected at least one row"]),
        ("a.csv", "y\n1\n", ["0 feature(s)"]),
        ("a.csv", "\n\n", ["expected rows, got blank lines only"]),
        ("a.csv", b"a,b\n1,\xff\xfe\n", ["expected delimited UTF-8 text"]),
        ("a.csv", b"a,b\n1,2\n3,\x00\n", ["zero bytes", "UTF-8"]),
        ("a.csv", 'a,b\n1,"2\n3,4\n', ["expected delimited UTF-8 text"]),
        ("a.csv", "a\n" + "1" * 200_000 + "\n", ["field larger than field limit"]),
        ("a.csv", "a,b\n1," + "z" * 90_000 + "\n", ["column 'b'", "line 2"]),
        ("a.csv", "z" * 90_000 + ",b\nq,1\n", ["line 2"]),
        ("a.csv", ",".join("abcdefgh" * 2000) + "\n", ["expected at least one row"]),
    ],
)
def test_bad_text_files_are_rejected(tmp_path, file, text, needed):
    assert len(rejected(write(tmp_path / file, text), *needed)) < 450 + len(str(tmp_path))


# What is not a number is none: each in a file with a header, and in one without.
@pytest.mark.parametrize(
    "cell",
    [
        *("1_000", "12_34", "_1", "1_0.5", "1e1_0"),
        *("٣", "１２", "1\u00a0000", "½", "−1", "\u00a01"),  # other digits, blanks and signs
        *("0x10", "1'000", "$5", "5%", "1 000", "1e", "--1", "TRUE", "True", "no", "1+2j", "(1)"),
        *("2020-01-01", "12:30", "2020-01-01T12:30:00", "P1D", "#N/A", "1.2.3", "infinite"),
    ],
)
def test_what_is_no_number_is_rejected(tmp_path, cell):
    message = rejected(write(tmp_path / "a.csv", f"a,b\n1,2\n{cell},3\n"), "column 'a'", "line 3")
    assert "--drop a" in message or "separators" in message
    rejected(write(tmp_path / "b.csv", f"1,2\n3,{cell}\n"), "column '2'", "line 2")
    data = load_dataset(tmp_path / "a.csv", drop=["a"])
    assert (data.x.tolist(), data.feature_names) == ([[2], [3]], ("b",))


@pytest.mark.parametrize(
    ("file", "text", "needed"),
    [
        ("a.csv", "a;b\n1;2\n", ["separators", "semicolons"]),
        ("a.csv", "1;2\n3;4\n", ["separators", "semicolons", "line 2"]),
        ("a.csv", "a;b\n1,5;2,5\n", ["semicolons", "decimal commas"]),
        ("a.csv", "1,5;2,5\n3,5;4,5\n", ["semicolons", "decimal commas"]),
        ("a.csv", "a;b;label\n1,5;2,5;u\n", ["semicolons", "decimal commas"]),
        ("a.csv", 'a,b\n"1,5","2,5"\n', ["decimal comma", "line 2"]),
        ("a.csv", 'a,b\n1,"1,234"\n', ["commas between thousands", "line 2"]),
        ("a.csv", "a\tb\n1\t2\n", ["separators", "tabs"]),
        ("a.csv", "a\tb\n1,5\t2,5\n", ["tabs", "decimal commas"]),
        ("a.csv", "a b\n1 2\n3 4\n", ["separators", "blanks"]),
        ("a.csv", "1.5  2\n3  4\n", ["separators", "blanks"]),
        ("a.csv", "# a b\n1.0e0 2.0e0\n", ["separators", "blanks"]),
        ("a.csv", "a|b\n1|2\n", ["separators", "bars"]),
        ("a.tsv", "1,2\n3,4\n", ["separators", "commas", "line 2"]),
        ("a.tsv", "a\tb\n1,5\t2,5\n", ["decimal comma"]),
        ("a.csv", "sep=;\na;b\n1;2\n", ["line 1", "'sep=;'", "Excel", "commas"]),
        ("a.csv", "sep=,\na,b\n1,2\n", ["line 1", "'sep=,'", "Excel"]),
        ("a.csv", "SEP=\t\na\tb\n1\t2\n", ["line 1", "Excel"]),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), ["UTF-16", "UTF-8"]),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-be"), ["UTF-16", "UTF-8"]),
        ("a.csv", b"\xfe\xff" + "a,b\n1,2\n".encode("utf-16-be"), ["UTF-16", "UTF-8"]),
        ("a.csv", "a,b\n1,2\n".encode("utf-32"), ["UTF-16", "UTF-8"]),
        ("a.csv", "größe,b\n1,2\n".encode("latin-1"), ["UTF-8"]),
        ("a.csv", gzip.compress(b"a,b\n1,2\n", mtime=0), ["gzip"]),
        ("a.csv", zip_bytes(), ["spreadsheet"]),
        ("a.csv", npy_bytes(X), ["NumPy"]),
        ("a.csv", b"PAR1" + b"a" * 40, ["parquet"]),
        ("a.csv", "# made by x\na,b\n1,2\n", ["comment lines ('#') must go"]),
        ("a.csv", "# made by x\n# at y\na,b\n1,2\n", ["comment lines ('#') must go"]),
        ("a.csv", "a,b\n# at y\n1,2\n", ["comment lines ('#') must go", "line 2"]),
        ("a.csv", "a,b\n1,2\n# the, end\n", ["comment lines ('#') must go", "line 3"]),
        ("a.csv", "#1,2\n3,4\n", ["comment lines ('#') must go"]),
        ("a.csv", "# nothing else\n", ["comment lines ('#') must go"]),
    ],
)
def test_other_separators_and_formats_are_named(tmp_path, file, text, needed):
    rejected(write(tmp_path / file, text), *needed)


@pytest.mark.parametrize("header", ["0,1,2", "2,0,1"])
def test_a_header_of_numbers_is_reported(tmp_path, caplog, header):
    data = load_dataset(write(tmp_path / "a.csv", f"{header}\n5,6,7\n"))
    assert len(data.x) == 2
    assert f"({header.replace(',', ', ')}) is taken for a row of data" in caplog.text


def test_a_row_of_numbers_is_no_news(tmp_path, caplog):
    assert len(load_dataset(write(tmp_path / "a.csv", "2,0,2\n5,6,7\n")).x) == 2
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("5.1,3.5,setosa\n4.9,3.0,virginica\n", {"label": "3"}),
        ("39,7,Never\n50,13,Married\n", {"drop": ["3"]}),
        ("5,setosa\n6,virginica\n", {"label": "2"}),
        ("setosa,7\nvirginica,8\n", {"id": "1"}),
        ("7,u,3,NA\n8,v,4,u\n", {"id": "2", "drop": ["4"]}),
    ],
)
def test_a_row_of_data_with_text_is_no_header(tmp_path, caplog, text, options):
    path = write(tmp_path / "a.csv", text)
    rejected(path, "expected a number in column", "line 1", "--drop", "--label")
    data = load_dataset(path, **options)
    assert len(data.x) == 2
    assert data.feature_names is None
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("species,400,405\nu,0.1,0.2\nv,0.1,0.3\n", {"label": "species"}),
        ("town,0\nu,3\nv,4\n", {"drop": ["town"]}),
    ],
)
def test_a_header_that_holds_numbers_is_warned_of(tmp_path, caplog, text, options):
    data = load_dataset(write(tmp_path / "a.csv", text), **options)
    assert len(data.x) == 2
    assert data.feature_names is not None
    assert ["holds numbers" in message for message in warnings_of(caplog)] == [True]


@pytest.mark.parametrize(
    "number", ["9007199254740993", "-9007199254740993", "1" * 19, "1" * 40, "1" * 9000]
)
def test_whole_numbers_that_would_be_rounded_are_rejected(tmp_path, number):
    if len(number) < 20:
        rejected(write(tmp_path / "a.csv", f"a,b\n1,2\n3,{number}\n"), "column 'b', line 3", "--id")
        assert load_dataset(tmp_path / "a.csv", id="b").ids.tolist() == ["2", number]
        matrix = scipy.sparse.csr_array(np.array([[1, int(number)]]))
        scipy.sparse.save_npz(tmp_path / "a.npz", matrix)
        rejected(tmp_path / "a.npz", "beyond 2**53")
    rejected(write(tmp_path / "b.csv", f"1,2\n3,{number}\n"), "column '2'")


def test_large_measurements_are_read(tmp_path):
    data = load_dataset(write(tmp_path / "a.csv", "a,b\n1e20,9007199254740992\n-3.5e30,1\n"))
    np.testing.assert_array_equal(data.x, [[1e20, 2**53], [-3.5e30, 1]])


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["01", "1", "001", "2"], ("001", "01", "1", "2")),
        (["1", "1.0", "2"], ("1", "1.0", "2")),
        (["1", "+1", "-1"], ("+1", "-1", "1")),
        (["0", "-0", "00"], ("-0", "0", "00")),
        (["1e2", "100"], ("100", "1e2")),
        (["9223372036854775807", "9223372036854775808"],) * 2,
        (["9007199254740992", "9007199254740993", "1"], None),
        (["1", "2", "a"], ("1", "2", "a")),
        (["1_0", "10"], ("10", "1_0")),
        (["١", "1"], ("1", "١")),
        (["a", "A", "a."], ("A", "a", "a.")),
        (["NA", "nan", "a"], ("NA", "a", "nan")),
        (["True", "true"], ("True", "true")),
        (["-5", "7"], None),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_different_labels_are_different_classes(tmp_path, labels, names, suffix):
    if suffix == ".csv":
        rows = "".join(f"{row},{label}\n" for row, label in enumerate(labels))
        write(tmp_path / "a.csv", "a,label\n" + rows)
    else:
        pandas = pytest.importorskip("pandas", reason="needs the extra jdec[parquet]")
        frame = pandas.DataFrame({"a": range(len(labels)), "label": labels})
        frame.to_parquet(tmp_path / "a.parquet")
        names = names or tuple(sorted(labels))  # text stays text
    data = load_dataset(tmp_path / f"a{suffix}")
    assert len(set(data.y.tolist())) == len(labels)
    assert data.class_names == (names if names is None else tuple(names))
    if names is not None:
        assert [data.class_names[label] for label in data.y] == labels
    else:
        assert np.argsort(data.y).tolist() == np.argsort(np.array(labels, int)).tolist()


def test_labels_that_look_missing_are_warned_of(tmp_path, caplog):
    load_dataset(write(tmp_path / "a.csv", "a,label\n1,NA\n2,b\n"))
    assert ["'NA' is taken for a class" in message for message in warnings_of(caplog)] == [True]


def test_labels_that_differ_in_blanks_are_warned_of(tmp_path, caplog):
    data = load_dataset(write(tmp_path / "a.csv", "a,label\n1,b\n2, b\n3,c\n"))
    assert data.class_names == ("b", "c")
    assert ["blanks" in message for message in warnings_of(caplog)] == [True]


# Which column is what.

TABLE = "sample,a,town,group,b\nu1,1,Rome,01,2\nu2,3,Oslo,1,4\n"


@pytest.fixture(params=[".csv", ".tsv", ".parquet"])
def table(request, tmp_path):
    """A function that writes a table, given as CSV, in one of the formats."""

    def make(text):
        path = tmp_path / f"a{request.param}"
        if request.param != ".parquet":
            return write(path, text.replace(",", "\t") if request.param == ".tsv" else text)
        pandas = pytest.importorskip("pandas", reason="needs the extra jdec[parquet]")
        pytest.importorskip("pyarrow", reason="needs the extra jdec[parquet]")
        lines = [line.split(",") for line in text.splitlines()]
        frame = pandas.DataFrame(lines[1:], columns=lines[0])
        for name in frame.columns:
            if frame[name].map(lambda text: text.isdecimal() and str(int(text)) == text).all():
                frame[name] = frame[name].astype(int)
        frame.to_parquet(path)
        return path

    return make


def test_columns_are_chosen(table):
    data = load_dataset(table(TABLE), label="group", id="sample", drop=["town"])
    np.testing.assert_array_equal(data.x, [[1, 2], [3, 4]])
    assert data.feature_names == ("a", "b")
    assert (data.y.tolist(), data.class_names, data.label_name) == ([0, 1], ("01", "1"), "group")
    assert data.ids.tolist() == ["u1", "u2"]


def test_a_column_called_label_may_be_a_feature(table):
    path = table("a,label,y\n1,5,7\n2,6,7\n")
    for none in ("none", ""):
        data = load_dataset(path, label=none)
        assert (data.y, data.label_name, data.feature_names) == (None, None, ("a", "label", "y"))
    data = load_dataset(path, label="label")
    assert (data.y.tolist(), data.feature_names) == ([0, 1], ("a", "y"))
    data = load_dataset(path, drop=["label"])
    assert (data.label_name, data.feature_names) == ("y", ("a",))
    data = load_dataset(path, id="y")
    assert (data.label_name, data.ids.tolist()) == ("label", data.ids.tolist())


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        (
            {"label": "grup"},
            "label: expected one of the columns 'sample', 'a', 'town', 'group', 'b'",
        ),
        ({"id": "A"}, "id: expected one of the columns"),
        ({"drop": ["b", "c"]}, "drop: expected one of the columns"),
        ({"drop": ["sample", "a", "town", "group", "b"]}, "0 feature(s)"),
        ({"label": "grup"}, "did you mean 'group'?"),
        ({"drop": ["1"]}, "got '1'"),
    ],
)
def test_columns_that_are_not_there_are_rejected(table, options, needed):
    rejected(table(TABLE), needed, **options)


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"label": "a", "id": "a"}, "expected each column once, got 'a' 2 times"),
        ({"label": "a", "drop": ["a"]}, "expected each column once"),
        ({"drop": ["a", "a"]}, "expected each column once"),
        ({"label": 3}, "label: expected the name of a column (text), got 3"),
        ({"id": 0}, "id: expected the name"),
        ({"drop": [0]}, "drop: expected the name"),
        ({"drop": 0}, "drop: expected a list of names of columns"),
        ({"drop": [None]}, "drop: expected the name"),
    ],
)
def test_options_that_contradict_are_rejected(tmp_path, options, needed):
    with pytest.raises(ValueError, match="expected") as caught:
        load_dataset(write(tmp_path / "a.csv", TABLE), **options)
    assert needed in str(caught.value)


def test_a_name_with_a_comma_is_quoted_for_the_command_line(tmp_path):
    path = write(tmp_path / "a.csv", '"town, street",a\nRome,1\n')
    rejected(path, """--drop '"town, street"', in Python drop=['town, street']""")


def test_columns_without_a_header_are_numbered(tmp_path):
    path = write(tmp_path / "a.csv", "u,1,2,0\nv,3,4,1\n".replace("u,", "7,").replace("v,", "8,"))
    data = load_dataset(path, label="4", id="1")
    np.testing.assert_array_equal(data.x, [[1, 2], [3, 4]])
    assert (data.feature_names, data.label_name) == (None, "4")
    assert (data.y.tolist(), data.ids.tolist()) == ([0, 1], ["7", "8"])
    assert load_dataset(path, drop="2").x.shape == (2, 3)
    rejected(path, "drop: expected one of the columns '1', '2', '3', '4'; got '5'", drop=["5"])


@pytest.mark.parametrize("options", [{"label": "a"}, {"id": "a"}, {"drop": ["a"]}])
def test_a_name_of_two_columns_cannot_be_chosen(tmp_path, options):
    path = write(tmp_path / "a.csv", "a,b,a\n1,2,3\n")
    (option,) = options
    rejected(path, f"{option}: expected a column that is there once, got 'a'", "2 times", **options)


@pytest.mark.parametrize(
    "header", ["Unnamed: 0,a", ",a", "a,Unnamed: 1", " ,a", "__index_level_0__,a"]
)
def test_a_saved_row_index_is_rejected(tmp_path, header):
    path = write(
        tmp_path / "a.csv", f"{header}\n" + "".join(f"{row},{row % 3}\n" for row in range(9))
    )
    name = next(name for name in header.split(",") if name != "a").strip()
    rejected(path, "row index", "--drop", "--id", f"drop=[{name!r}]")
    assert load_dataset(path, drop=[name]).feature_names == ("a",)
    assert load_dataset(path, id=name).ids.shape == (9,)
    if name:
        assert load_dataset(path, label=name).label_name == name


def test_pandas_names_of_unnamed_columns_follow_those_of_the_index(tmp_path):
    path = write(tmp_path / "a.csv", ",0,1\n0,5,6\n1,7,8\n")
    rejected(path, "row index", "--drop ''")
    np.testing.assert_array_equal(load_dataset(path, drop=[""]).x, [[5, 6], [7, 8]])


@pytest.mark.parametrize("names", ["x,y", "X,Y", "y,x", "x,y,z", "a,Y,x"])
def test_coordinates_called_y_are_not_taken_for_classes(table, names):
    columns = names.split(",")
    path = table(f"{names}\n" + "".join(",".join("123"[: len(columns)]) + "\n" for _ in range(3)))
    y = next(name for name in columns if name in "yY")
    rejected(path, "coordinate", f"--label {y}", "--label none")
    data = load_dataset(path, label=y)
    assert (data.label_name, len(data.feature_names)) == (y, len(columns) - 1)
    data = load_dataset(path, label="none")
    assert (data.y, data.feature_names) == (None, tuple(columns))
    assert load_dataset(path, drop=[y]).y is None


def test_x_and_another_label_are_no_coordinates(table):
    assert load_dataset(table("x,label\n1,2\n1,3\n")).label_name == "label"
    assert load_dataset(table("x1,y\n1,2\n1,3\n")).label_name == "y"


def test_classes_of_one_row_each_are_warned_of(table, caplog):
    rows = "".join(f"{row * row % 7},{row * row}\n" for row in range(12))
    path = table("a,target\n" + rows)
    load_dataset(path)
    (message,) = warnings_of(caplog)
    assert "'target'" in message
    assert "12 of them in 12 rows" in message
    caplog.clear()
    load_dataset(path, label="target")
    assert warnings_of(caplog) == []


def test_identifiers_that_are_missing_are_rejected(tmp_path):
    path = write(tmp_path / "a.csv", "a,s\n1,u\n2,\n")
    rejected(path, "expected an identifier in column 's' for every row, got none in row 1", id="s")


# Columns that identify rows.


def test_identifiers_of_a_table_are_warned_of(table, caplog):
    rows = "".join(f"{row},{row * row % 7},{row * row % 5}\n" for row in range(20))
    path = table("key,a,b\n" + rows)
    assert load_dataset(path).x.shape == (20, 3)
    (message,) = warnings_of(caplog)
    for needed in (str(path), "'key'", "--drop key", "--id"):
        assert needed in message
    caplog.clear()
    load_dataset(path, drop=["key"])
    assert load_dataset(path, id="key").ids.shape == (20,)
    load_dataset(table("a,b\n" + "1,2\n" * 20))
    assert warnings_of(caplog) == []


def test_identifiers_without_a_header_are_warned_of(tmp_path, caplog):
    rows = "".join(f"{row * row % 7},{row},{row * row % 5}\n" for row in range(20))
    load_dataset(write(tmp_path / "a.csv", rows))
    (message,) = warnings_of(caplog)
    assert "'2'" in message
    assert "--drop 2" in message


def test_tables_larger_than_what_is_held_at_once_are_read_in_order(tmp_path):
    n_rows = 1_100_000  # of 16 bytes
    path = write(tmp_path / "a.csv", "\n".join(f"{i},{-i}" for i in range(n_rows)))
    data = load_dataset(path)
    np.testing.assert_array_equal(data.x, np.arange(n_rows)[:, None] * [1.0, -1.0])


# Parquet.


@pytest.fixture
def pandas():
    pytest.importorskip("pyarrow", reason="needs the extra jdec[parquet]")
    return pytest.importorskip("pandas", reason="needs the extra jdec[parquet]")


@pytest.mark.parametrize(
    ("labels", "y", "names"),
    [
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        (["1", "01", "1"], [1, 0, 1], ("01", "1")),
        ([b"b", b"a", b"b"], [1, 0, 1], ("a", "b")),
        ([10, 9, 10], [1, 0, 1], None),
        ([2**62 + 1, 2**62, 2**62 + 1], [1, 0, 1], None),
        ([1.0, 0.0, 1.0], [1, 0, 1], None),
        ([True, False, True], [1, 0, 1], None),
        (None, None, None),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "category", "nullable"])
def test_parquet(tmp_path, pandas, labels, y, names, kind):
    columns = {
        "a": np.array([1.5, 2, 3]),
        "b": np.array([4, 5, 6], np.int8),
        "c": [True, False, True],
    }
    frame = pandas.DataFrame(columns if labels is None else {"Class": labels} | columns)
    if kind == "nullable":
        frame = frame.convert_dtypes()
    elif kind == "category" and labels is not None and not isinstance(labels[0], bool):
        frame["Class"] = frame["Class"].astype("category")
    frame.index = [7, 8, 9]
    frame.to_parquet(tmp_path / "a.parquet")
    data = load_dataset(tmp_path / "a.parquet")
    check_form(data, [[1.5, 4, 1], [2, 5, 0], [3, 6, 1]], np.float64)
    assert (data.y if data.y is None else data.y.tolist()) == y
    assert data.class_names == names
    assert data.label_name == (None if labels is None else "Class")
    assert data.feature_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("kinds", "dtype"),
    [
        ((np.float32, np.float32), np.float32),
        ((np.float16, np.float16), np.float32),
        ((np.uint8, np.uint8), np.uint8),
        ((np.int64, np.int64), np.int64),
        ((np.int64, np.float32), np.float64),
    ],
)
def test_parquet_keeps_the_type_of_its_columns(tmp_path, pandas, kinds, dtype):
    frame = pandas.DataFrame({f"{i}": np.arange(3).astype(kind) for i, kind in enumerate(kinds)})
    frame.to_parquet(tmp_path / "a.parquet")
    check_form(load_dataset(tmp_path / "a.parquet"), [[0, 0], [1, 1], [2, 2]], dtype)


def test_a_folder_of_parquet_files_is_one_table(tmp_path, pandas):
    folder = tmp_path / "parts"
    folder.mkdir()
    frame = pandas.DataFrame({"a": [1, 2, 3], "b": [4.5, 5, 6], "label": ["u", "v", "u"]})
    frame["id"] = ["x", "y", "z"]
    frame[2:].to_parquet(folder / "part-1.parquet")
    frame[:2].astype({"a": np.int8, "b": np.float32}).to_parquet(folder / "part-0.parquet")
    (folder / "_SUCCESS").write_text("")
    data = load_dataset(folder, id="id")
    check_form(data, [[1, 4.5], [2, 5], [3, 6]], np.float64)
    assert (data.y.tolist(), data.class_names) == ([0, 1, 0], ("u", "v"))
    assert (data.ids.tolist(), data.feature_names, data.name) == (
        ["x", "y", "z"],
        ("a", "b"),
        "parts",
    )
    for columns in (["b", "a", "label", "id"], ["a", "label", "id"], ["a", "b", "id"]):
        frame[columns].to_parquet(folder / "part-2.parquet")
        rejected(folder, "part-2.parquet: expected the columns of the other files", id="id")


def test_parquet_of_many_row_groups_and_equal_names(tmp_path, pandas):
    import pyarrow
    from pyarrow import parquet

    x = np.random.default_rng(0).normal(size=(1000, 3))
    names = np.array(["u", "v"])[np.arange(1000) % 2]
    columns = [*(pyarrow.array(column) for column in x.T), pyarrow.array(names)]
    file = pyarrow.table(columns, names=["b", "a", "b", "label"])
    parquet.write_table(file, tmp_path / "a.parquet", row_group_size=37)
    data = load_dataset(tmp_path / "a.parquet")
    np.testing.assert_array_equal(data.x, x)
    assert data.feature_names == ("b", "a", "b")
    assert data.y.tolist() == [row % 2 for row in range(1000)]


def test_a_row_index_of_pandas_is_no_feature(tmp_path, pandas, caplog):
    caplog.set_level(logging.INFO, logger="jdec")
    frame = pandas.DataFrame({"a": [1, 2], "b": [3, 4]}, index=pandas.Index(["u", "v"], name="s"))
    frame.to_parquet(tmp_path / "a.parquet")
    data = load_dataset(tmp_path / "a.parquet")
    assert data.feature_names == ("a", "b")
    assert "row index of pandas: s" in caplog.text
    assert load_dataset(tmp_path / "a.parquet", id="s").ids.tolist() == ["u", "v"]
    assert load_dataset(tmp_path / "a.parquet", label="s").class_names == ("u", "v")


def test_identifiers_of_parquet_keep_whole_numbers(tmp_path, pandas):
    frame = pandas.DataFrame({"a": [1, 2], "b": [3.5, 4], "s": [2**62 + 1, 7]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert load_dataset(tmp_path / "a.parquet", id="s").ids.tolist() == [2**62 + 1, 7]


@pytest.mark.parametrize(
    ("columns", "needed"),
    [
        ({"a": [1, 2], "town": ["3", "Rome"]}, ["column 'town'", "text", "--drop town", "--id"]),
        ({"a": [1, 2], "zip": ["3", "4"]}, ["column 'zip'", "text", "--label"]),
        ({"a": [1, 2], "yes": ["True", "False"]}, ["column 'yes'", "text"]),
        ({"a": [1.0, None]}, ["column 'a'", "got none in row 1"]),
        ({"a": [None, None]}, ["column 'a'", "missing"]),
        ({"a": [1.0, 1e300]}, ["row 1, column 'a'", "too large"]),
        ({"a": [1.0, np.inf]}, ["infinity in row 1, column 'a'"]),
        ({"a": [[1.0, 2.0], [2.0]]}, ["lists of 2 numbers in column 'a'", "got 1 in row 1"]),
        ({"a": [[1.0, 2.0], [None, 2.0]]}, ["column 'a'", "got none in row 1"]),
        ({"a": [[1.0, 2.0], None]}, ["column 'a'", "got none in row 1"]),
        ({"a": [["u"], ["v"]]}, ["column 'a'", "text"]),
        ({"a": [[1, 2], [2, 2**60 + 1]]}, ["column 'a', row 1", "2**53"]),
        ({"a": [[1.0, 2.0], [1.0, np.inf]]}, ["infinity in row 1, column 'a[1]'"]),
        ({"a": [np.array([]), np.array([])]}, ["0 feature(s)"]),
        ({"a": [[[1.0, 2.0], [3.0]], [[2.0]]]}, ["column 'a'", "list"]),
        ({"a": [{"b": 1}, {"b": 2}]}, ["column 'a'", "struct"]),
        ({"a": np.array(["2020-01-01", "2020-01-02"], "M8[ns]")}, ["column 'a'", "times"]),
        ({"a": np.array([1, 2], "m8[s]")}, ["column 'a'", "times"]),
        ({"a": [np.datetime64("2020-01-01", "D").item()] * 2}, ["column 'a'", "times"]),
        ({"a": [b"1", b"2"]}, ["column 'a'", "binary"]),
        ({"a": [1, 2**60 + 1]}, ["column 'a', row 1", "2**53", "--id"]),
        ({"a": [1, 2], "y": ["u", None]}, ["column 'y'", "got none in row 1"]),
        ({"a": [1, 2], "y": [0.5, 1]}, ["got 0.5 in row 0"]),
        ({"a": [1, 2], "y": np.array([1, 2], "M8[s]")}, ["y: expected a class"]),
        ({"a": [1, 2], "y": [0, 1], "class": [0, 1]}, ["got y, class"]),
        ({"y": [1, 2]}, ["0 feature(s)"]),
        ({"a": np.array([], np.float64)}, ["expected at least one row"]),
    ],
)
def test_bad_parquet_columns_are_rejected(tmp_path, pandas, columns, needed):
    pandas.DataFrame(columns).to_parquet(tmp_path / "a.parquet")
    rejected(tmp_path / "a.parquet", *needed)


def test_text_in_categories_is_rejected(tmp_path, pandas):
    frame = pandas.DataFrame({"a": [1, 2], "b": pandas.Categorical(["1", "2"])})
    frame.to_parquet(tmp_path / "a.parquet")
    rejected(tmp_path / "a.parquet", "column 'b'", "text")
    frame["b"] = pandas.Categorical([7, 9])
    frame.to_parquet(tmp_path / "a.parquet")
    np.testing.assert_array_equal(load_dataset(tmp_path / "a.parquet").x, [[1, 7], [2, 9]])


def test_decimals_are_numbers(tmp_path, pandas):
    values = [decimal.Decimal("1.25"), decimal.Decimal("2.50")]
    pandas.DataFrame({"a": values, "y": [decimal.Decimal(3)] * 2}).to_parquet(
        tmp_path / "a.parquet"
    )
    data = load_dataset(tmp_path / "a.parquet")
    np.testing.assert_array_equal(data.x, [[1.25], [2.5]])
    assert data.y.tolist() == [0, 0]


def test_damaged_parquet_is_rejected(tmp_path, pandas):
    pandas.DataFrame({"a": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    for piece in (content[:-10], content[:4], b"a,b\n1,2\n", content[20:]):
        rejected(write(tmp_path / "a.parquet", piece), "expected an intact parquet file")


def test_parquet_without_its_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = write(tmp_path / "a.parquet", b"PAR1")
    with pytest.raises(ImportError, match=r'pip install "jdec\[parquet\]"'):
        load_dataset(path)


# The rest.


@pytest.mark.parametrize("file", ["a.h5", "a", "a.csv.gz", "a.txt", "a.pkl"])
def test_other_suffixes_are_rejected(tmp_path, file):
    rejected(write(tmp_path / file, b"1"), ".npy, .npz, .csv, .tsv, .parquet")


@pytest.mark.parametrize("file", ["folder", "folder.csv"])
def test_a_folder_is_rejected(tmp_path, file):
    (tmp_path / file).mkdir()
    rejected(
        tmp_path / file, "expected a file, or a folder of .parquet or .arrow or .feather files, got"
    )


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".tsv", ".parquet"])
def test_an_empty_file_is_rejected(tmp_path, suffix):
    rejected(write(tmp_path / f"a{suffix}", b""), "expected data, got an empty file")


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "a.npy", X)
    assert load_dataset("~/a.npy").name == "a"
    assert load_dataset(Path("~/a.npy")).name == "a"


# Memory: what is rejected is rejected before it fills any.


def gzipped_zeros(n_bytes):
    packer = zlib.compressobj(1, wbits=31)
    parts = [packer.compress(bytes(2**24)) for _ in range(n_bytes // 2**24)]
    return b"".join([*parts, packer.flush()])


def npy_header(shape, dtype="|u1"):
    buffer = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def write_hostile_arrays(folder):
    large = 2**29
    with (
        zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w", force_zip64=True) as file,
    ):
        file.write(npy_header((large // 1024, 1024)))
        for _ in range(large // 2**24):
            file.write(bytes(2**24))
    write(folder / "lie.npz", zip_bytes("x.npy", npy_header((2**20, 2**20), "<f8") + bytes(99)))
    write(folder / "lie.npy", npy_header((2**20, 2**12), "<f8") + bytes(99))
    write(folder / "objects.npy", npy_bytes(np.array([[Trap()]], object)))
    text = {"x": np.zeros((30, 1)), "y": np.array(["a" * 10**6] + [""] * 29, "S")}
    np.savez_compressed(folder / "labels.npz", **text)
    csr = {"format": b"csr", "indices": [0], "data": [np.nan], "_is_array": True}
    np.savez_compressed(folder / "nan.npz", **csr, indptr=[0, 1], shape=[1, 2**24])
    csr = {"format": b"csr", "indices": np.zeros(0, int), "data": np.zeros(0), "_is_array": True}
    indptr = np.zeros(500_001, np.int32)
    np.savez_compressed(folder / "wide.npz", **csr, indptr=indptr, shape=[500_000, 1000])
    coords = {"format": b"coo", "coords": np.zeros((2**23, 1), np.int8), "shape": [2, 2]}
    np.savez_compressed(folder / "coords.npz", data=np.zeros(1), **coords)


def write_hostile_tables(folder):
    write(folder / "line.csv", b"10," * 3_000_000)
    write(folder / "names.csv", ",".join(f"c{i}" for i in range(400_000)) + "\n1\n")
    rows = "b" * 100_000 + ",1\n" + "10,1\n" * 400_000
    write(folder / "long.csv", f"label,a\n{rows}z,z\n")
    write(folder / "rows.csv", "label\n" + "10\n" * 3_000_000)
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra jdec[parquet]")
    from pyarrow import parquet

    part = pyarrow.table({"a": np.zeros(2**20)})
    with parquet.ParquetWriter(folder / "zeros.parquet", part.schema) as file:
        for _ in range(64):
            file.write_table(part)
    texts = pyarrow.DictionaryArray.from_arrays(np.zeros(2**16, np.int32), ["u" * 100_000])
    part = pyarrow.table({"a": np.zeros(2**16), "id": texts, "y": texts})
    parquet.write_table(part, folder / "texts.parquet")
    long = {"a": np.arange(100.0), "y": [f"{i}" * 10**6 for i in range(100)]}
    parquet.write_table(pyarrow.table(long), folder / "names.parquet", compression="zstd")
    # As large as is let in, and rejected by its last number: noise makes the file large enough.
    x = np.zeros((2_900_000, 10))
    x.reshape(-1)[:1_300_000] = np.random.default_rng(0).random(1_300_000)
    x[-1, -1] = np.nan
    table = pyarrow.table({f"c{i}": x[:, i] for i in range(10)})
    kept = {"compression": "zstd", "use_dictionary": False, "row_group_size": 10**5}
    parquet.write_table(table, folder / "wide.parquet", **kept)


def write_hostile_collections(folder):
    """Files of known data sets, each in a folder that goes before as data_dir."""
    zeros = gzipped_zeros(2**29)
    names = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]
    heads = {
        "more": (1, 28, 28),  # than its header says
        "much": (2**20, 28, 28),
        "huge": (2**32 - 1, 28, 28),
    }
    for place, shape in heads.items():
        (folder / place / "mnist").mkdir(parents=True)
        for name in names:
            n_dims = int(name[-1])
            head = bytes((0, 0, 8, n_dims)) + np.array(shape[:n_dims], ">u4").tobytes()
            write(folder / place / "mnist" / f"{name}-ubyte.gz", gzip.compress(head) + zeros)
    (folder / "rcv1").mkdir()
    csr = {"indices": np.zeros(1, np.int32), "data": np.ones(1, np.float32), "indptr": [0, 1]}
    rest = {"shape": [1, 2**40], "ids": [1], "roots": np.eye(1, 4, dtype=bool)}
    np.savez_compressed(folder / "rcv1" / "fetch_rcv1.npz", **csr, **rest)


MEASURE = """
import contextlib, json, sys
from pathlib import Path
import sklearn.datasets
with contextlib.suppress(ImportError):  # what readers import when they are used
    import pandas, pyarrow.parquet
from jdec.datasets import load_dataset

def peak():  # in MiB; that of getrusage includes the process this one was forked from
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10

outcomes, start = {}, peak()
for path, options in json.loads(sys.argv[1]):
    try:
        load_dataset(path, **options)
        outcomes[str(options.get("data_dir", path))] = ["read", peak() - start]
    except ValueError as error:
        outcomes[str(options.get("data_dir", path))] = [str(error), peak() - start]
print(json.dumps(outcomes))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_hostile_files_fill_no_memory(tmp_path):
    write_hostile_arrays(tmp_path)
    write_hostile_tables(tmp_path)
    files = [path for path in sorted(tmp_path.iterdir()) if path.is_file()]
    write_hostile_collections(tmp_path)
    tried = [(str(path), {}) for path in files]
    tried.append((str(tmp_path / "texts.parquet"), {"id": "id"}))
    tried += [("mnist", {"data_dir": str(tmp_path / place)}) for place in ("more", "much", "huge")]
    tried.append(("reuters", {"data_dir": str(tmp_path / "rcv1")}))
    assert max(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 10**7
    largest = [file for file in tried if "wide.parquet" in file[0]]
    outcomes = {}
    for some in ([file for file in tried if file not in largest], largest):
        if some:  # the largest apart, since used memory is kept
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, json.dumps(some)],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
            )
            outcomes |= json.loads(done.stdout)
    assert len(outcomes) == len(tried) - 1
    for name, (message, grown) in outcomes.items():
        assert grown <= 300, (name, message, grown)
        # What is sparse stays so, and takes no more than its entries.
        assert (message == "read") == name.endswith("wide.npz"), (name, message)
        assert "\n" not in message


def test_a_file_of_another_type_is_rejected(tmp_path):
    (tmp_path / "notes.txt").write_text("1")
    types = r"\.npy, \.npz, \.csv, \.tsv, \.parquet, \.arrow, \.feather, \.h5ad"
    with pytest.raises(ValueError, match=rf"expected a file of type {types}; got '\.txt'"):
        load_dataset(tmp_path / "notes.txt")
