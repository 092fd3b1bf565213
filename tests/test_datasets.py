import dataclasses
import functools
import gzip
import hashlib
import http.server
import io
import logging
import os
import struct
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import scipy.sparse
from sklearn.datasets import load_digits

from jdec import _files
from jdec.datasets import (
    Dataset,
    dataset_table,
    download_dataset,
    imbalanced_subset,
    load_dataset,
    registry,
)

NAMES = ["digits", "mnist", "fashion_mnist", "stl10", "cifar10", "reuters", "reuters10k"]
IDX_FILES = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
]
REAL_DIR = os.environ.get("JDEC_DATA_DIR")
X = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory, monkeypatch):
    """Hide the data of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda project: folder / project)
    monkeypatch.delenv("JDEC_DATA_DIR", raising=False)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(folder / "scikit-learn"))
    return folder / "jdec"


def idx_bytes(array, *, type_code=8, shape=None, magic=b"\0\0"):
    shape = array.shape if shape is None else shape
    header = magic + bytes((type_code, len(shape))) + struct.pack(f">{len(shape)}I", *shape)
    return header + array.astype(np.uint8).tobytes()


def image_arrays(n_train=5, n_test=3):
    rng = np.random.default_rng(0)
    arrays = []
    for n in (n_train, n_test):
        arrays.append(rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        arrays.append(rng.integers(0, 10, n, dtype=np.uint8))
    return arrays


def write_images(folder, arrays=None, *, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = image_arrays() if arrays is None else arrays
    for file, array in zip(IDX_FILES, arrays, strict=True):
        raw = idx_bytes(array)
        if zipped:
            (folder / file).write_bytes(gzip.compress(raw))
        else:
            (folder / file.removesuffix(".gz")).write_bytes(raw)
    return arrays


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path, *needed, error=ValueError, **kwargs):
    """Load what cannot be loaded; the message is one line that names the file."""
    with pytest.raises(error) as caught:
        load_dataset(path, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    for text in (str(path), *needed):
        assert text in message
    return message


def check_form(data, n_rows, n_features):
    assert data.x.shape == (n_rows, n_features)
    assert data.x.dtype == np.float32
    assert data.x.flags.c_contiguous
    if data.y is not None:
        assert data.y.shape == (n_rows,)
        assert data.y.dtype == np.int64


# Known names.


def test_digits_are_those_of_scikit_learn():
    data = load_dataset("digits")
    check_form(data, 1797, 64)
    np.testing.assert_array_equal(data.x, load_digits().data)
    np.testing.assert_array_equal(data.y, load_digits().target)
    assert (data.name, data.image_shape, data.n_train) == ("digits", (8, 8), None)


def test_dataset_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_dataset("digits").name = "other"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "mnist"), ("fashion_mnist", "fashion_mnist"), ("fashion_mnist", "fashion-mnist")],
)
def test_images_come_train_first(tmp_path, name, folder, zipped):
    train, train_y, test, test_y = write_images(tmp_path / folder, zipped=zipped)
    data = load_dataset(name, data_dir=tmp_path)
    check_form(data, 8, 784)
    np.testing.assert_array_equal(data.x.reshape(8, 28, 28), np.concatenate([train, test]))
    np.testing.assert_array_equal(data.y, np.concatenate([train_y, test_y]))
    assert (data.name, data.image_shape, data.n_train) == (name, (28, 28), 5)
    if name == "mnist":
        assert data.class_names is None
    else:
        assert len(data.class_names) == 10


def test_a_gz_name_on_unpacked_bytes_is_read(tmp_path):
    arrays = write_images(tmp_path / "mnist")
    write(tmp_path / "mnist" / IDX_FILES[0], idx_bytes(arrays[0]))
    assert load_dataset("mnist", data_dir=tmp_path).n_train == 5


@pytest.mark.parametrize("folder", ["reuters", "."])
@pytest.mark.parametrize("kind", ["text", "named integers"])
def test_reuters10k(tmp_path, folder, kind):
    x = np.eye(5, 7, dtype=np.float32)
    text = np.array(["MCAT", "CCAT", "ECAT", "GCAT", "CCAT"])
    names = np.array(["CCAT", "GCAT", "MCAT", "ECAT"])
    arrays = {"y": text} if kind == "text" else {"y": np.array([2, 0, 3, 1, 0]), "names": names}
    (tmp_path / folder).mkdir(exist_ok=True)
    np.savez(tmp_path / folder / "reuters10k.npz", x=x, **arrays)
    data = load_dataset("reuters10k", data_dir=tmp_path)
    check_form(data, 5, 7)
    np.testing.assert_array_equal(data.x, x)
    assert [data.class_names[label] for label in data.y] == text.tolist()
    assert "not the 10 000 rows that the paper drew" in data.note
    assert data.variant == "sample"


def test_reuters10k_without_names_keeps_its_numbers(tmp_path):
    np.savez(tmp_path / "reuters10k.npz", x=np.eye(3), y=[2, 0, 1])
    data = load_dataset("reuters10k", data_dir=tmp_path)
    assert data.y.tolist() == [2, 0, 1]
    assert data.class_names is None


@pytest.mark.parametrize(
    ("arrays", "needed"),
    [
        ({"x": 3 * np.eye(3), "y": [0, 1, 2]}, "expected rows of L2 norm 1, got 3 in row 0"),
        ({"x": np.eye(3)}, "expected labels in an array named y, got none"),
        ({"x": np.eye(3), "y": [0, 1]}, "expected as many entries as x has (3), got 2"),
        ({"x": np.eye(3), "y": [0, 1, 9], "names": ["a", "b"]}, "expected labels 0 to 1"),
    ],
)
def test_reuters10k_refuses(tmp_path, arrays, needed):
    path = tmp_path / "reuters10k.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"reuters10k\.npz") as caught:
        load_dataset("reuters10k", data_dir=tmp_path)
    assert needed in str(caught.value)


# Classes of unequal size.


def many_rows(n=20_000, n_classes=10, **fields):
    y = np.random.default_rng(0).integers(0, n_classes, n)
    return Dataset(x=np.arange(n, dtype=np.float32)[:, None], y=y, name="many", **fields)


@pytest.mark.parametrize("rate", [0.1, 0.5, 1, np.float32(0.25)])
def test_an_imbalanced_subset_keeps_each_class_at_its_rate(rate):
    data = many_rows(note="made up", variant="sample", unlabeled=np.ones((3, 1), np.float32))
    drawn = imbalanced_subset(data, rate, seed=3)
    check_form(drawn, len(drawn.y), 1)
    for label, expected in enumerate(np.linspace(rate, 1, 10)):
        n = (data.y == label).sum()
        deviation = 5 * np.sqrt(n * expected * (1 - expected))
        assert abs((drawn.y == label).sum() - n * expected) <= deviation + 1e-3
    rows = drawn.x[:, 0].astype(int)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(drawn.y, data.y[rows])
    assert (drawn.name, drawn.variant, drawn.n_train) == ("many", "sample", None)
    assert drawn.unlabeled is data.unlabeled
    assert drawn.note == (
        f"made up; imbalanced: class 0 kept with probability {rate:g}, the last with 1 (seed 3)"
    )


def test_an_imbalanced_subset_follows_its_seed():
    first, again, other = (imbalanced_subset(many_rows(), 0.3, seed=seed).x for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or (first != other).any()


def test_an_imbalanced_subset_counts_its_training_rows():
    data = many_rows(n_train=15_000)
    drawn = imbalanced_subset(data, 0.2, seed=0)
    assert drawn.n_train == (drawn.x[:, 0] < 15_000).sum()


@pytest.mark.parametrize("rate", [0, -0.1, 1.01, float("nan"), "0.5", None, True])
def test_a_retention_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=r"min_retention_rate: expected a number in \(0, 1\]"):
        imbalanced_subset(many_rows(), rate, seed=0)


@pytest.mark.parametrize(
    ("data", "seed", "needed"),
    [
        (Dataset(X, None, "a"), 0, "a: expected classes to draw by, got a data set without"),
        (Dataset(X, np.zeros(4, np.int64), "a"), 0, "a: expected at least 2 classes, got 1"),
        (many_rows(), -1, "seed: expected an integer >= 0"),
    ],
)
def test_what_has_no_imbalanced_subset_is_refused(data, seed, needed):
    with pytest.raises(ValueError, match=needed):
        imbalanced_subset(data, 0.5, seed=seed)


# Where files are looked for.


def test_folders_are_searched_in_order(tmp_path, monkeypatch, cache_dir):
    places = [tmp_path / "given", tmp_path / "variable", cache_dir]
    monkeypatch.setenv("JDEC_DATA_DIR", str(places[1]))
    for n_train, place in zip((3, 2, 1), reversed(places), strict=True):
        write_images(place / "mnist", image_arrays(n_train))
        assert load_dataset("mnist", data_dir=str(places[0])).n_train == n_train


def test_an_incomplete_folder_is_passed_over(tmp_path, cache_dir):
    write_images(tmp_path / "mnist")
    (tmp_path / "mnist" / IDX_FILES[3]).unlink()
    write_images(cache_dir / "mnist", image_arrays(2))
    assert load_dataset("mnist", data_dir=tmp_path).n_train == 2


def test_a_missing_file_is_named_with_places_and_command(tmp_path, monkeypatch, cache_dir):
    monkeypatch.setenv("JDEC_DATA_DIR", str(tmp_path / "variable"))
    write_images(tmp_path / "given" / "fashion-mnist")
    (tmp_path / "given" / "fashion-mnist" / IDX_FILES[2]).unlink()
    refused(
        "fashion_mnist",
        IDX_FILES[2],
        str(tmp_path / "given"),
        str(tmp_path / "variable"),
        str(cache_dir),
        "`jdec datasets --download fashion_mnist`",
        error=FileNotFoundError,
        data_dir=tmp_path / "given",
    )


def test_a_missing_file_without_source_says_where_to_place_it(tmp_path):
    message = refused("cifar10", "place cifar10/cifar10_13k.npz", error=FileNotFoundError)
    assert "--download" not in message


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("mnsit", "mnist"),
        ("Fashion-MNIST", "fashion_mnist"),
        ("reuters-10k", "reuters10k"),
        ("STL", "stl10"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(name, close):
    refused(name, *NAMES, "no such file exists", f"did you mean {close!r}?")


@pytest.mark.parametrize("name", ["nothing/like.csv", Path("absent.npy"), "", "qqq"])
def test_an_absent_file_is_refused(name):
    message = refused(name, *NAMES, "no such file exists")
    assert "did you mean" not in message


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", 3, None, "~no-such-user-here/x.csv"])
def test_a_name_that_is_no_path_is_refused(name):
    with pytest.raises(ValueError, match="name: expected"):
        load_dataset(name)


def test_data_dir_that_is_no_path_is_refused():
    with pytest.raises(ValueError, match="data_dir: expected a path, got 3"):
        load_dataset("mnist", data_dir=3)


def test_a_path_object_is_never_a_known_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(Path("digits"), "no such file exists")


# Damaged idx files.


def damage_images(how, arrays):
    """Return the file to replace, its bytes, and what the message must say."""
    images, labels = idx_bytes(arrays[0]), idx_bytes(arrays[1])
    packed = gzip.compress(images)
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 0xFF
    return {
        "truncated": (
            0,
            images[:-1],
            "expected 3936 bytes as its header (5, 28, 28) says, got 393",
        ),
        "too long": (1, labels + b"\0", "expected 13 bytes as its header (5,) says, got 14"),
        "count": (0, idx_bytes(arrays[0], shape=(6, 28, 28)), "header (6, 28, 28) says"),
        "huge count": (0, idx_bytes(arrays[0], shape=(2**32 - 1,) * 3), "as its header"),
        "magic": (0, idx_bytes(arrays[0], magic=b"\1\2"), "got 01 02 08 03"),
        "labels for images": (0, labels, "expected the first bytes 00 00 08 03 (idx, 3"),
        "type": (0, idx_bytes(arrays[0], type_code=0x0D), "expected idx type 0x08 (unsigned byte)"),
        "short header": (0, images[:9], "expected a header of 16 bytes, got 9"),
        "empty": (2, b"", "got none"),
        "empty gzip": (2, gzip.compress(b""), "got none"),
        "cut gzip": (0, packed[:-20], "expected an intact idx file"),
        "broken gzip": (0, bytes(flipped), "expected an intact idx file"),
        "text": (0, b"<!DOCTYPE html>", "got 3c 21 44 4f"),
        "lengths": (1, idx_bytes(arrays[1][:4]), "expected as many entries as train-images"),
        "pixels": (0, idx_bytes(np.zeros((5, 32, 32))), "expected images of 28×28 pixels"),
        "labels": (3, idx_bytes(np.array([1, 2, 10])), "expected labels 0 to 9, got 10"),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        *("truncated", "too long", "count", "huge count", "magic", "labels for images", "type"),
        *("short header", "empty", "empty gzip", "cut gzip", "broken gzip", "text", "lengths"),
        *("pixels", "labels"),
    ],
)
def test_damaged_images_are_refused(tmp_path, how):
    arrays = write_images(tmp_path / "mnist")
    which, content, needed = damage_images(how, arrays)
    path = write(tmp_path / "mnist" / IDX_FILES[which], content)
    with pytest.raises(ValueError, match="expected") as caught:
        load_dataset("mnist", data_dir=tmp_path)
    assert str(path) in str(caught.value)
    assert needed in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_images_at_all_are_refused(tmp_path):
    write_images(tmp_path / "mnist", image_arrays(0, 0))
    with pytest.raises(ValueError, match="mnist: expected at least one row"):
        load_dataset("mnist", data_dir=tmp_path)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "reuters10k.npz").mkdir()
    with pytest.raises(ValueError, match=r"reuters10k\.npz: expected a readable file"):
        load_dataset("reuters10k", data_dir=tmp_path)


# User files: NumPy.


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.uint8, np.int64, bool])
def test_npy(tmp_path, dtype):
    np.save(tmp_path / "rows.npy", X.astype(dtype))
    for name in (tmp_path / "rows.npy", str(tmp_path / "rows.npy")):
        data = load_dataset(name)
        check_form(data, 4, 3)
        np.testing.assert_array_equal(data.x, X.astype(dtype))
        assert (data.name, data.y, data.image_shape, data.n_train) == ("rows", None, None, None)


def test_data_sets_compare_by_identity():
    # Compared by their arrays, "==" would raise.
    one, other = (Dataset(x=X, y=None, name="a") for _ in range(2))
    assert one in (other, one)
    assert one != other


@pytest.mark.parametrize(
    ("shape", "image_shape"),
    [((4, 2, 3), (2, 3)), ((4, 2, 3, 5), (2, 3, 5)), ((4, 2, 3, 1, 2), None)],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_images_are_flattened(tmp_path, shape, image_shape, suffix):
    images = np.random.default_rng(0).random(shape)
    path = tmp_path / f"images{suffix}"
    np.save(path, images) if suffix == ".npy" else np.savez(path, images)
    data = load_dataset(path)
    check_form(data, 4, images[0].size)
    np.testing.assert_array_equal(data.x.reshape(shape), images.astype(np.float32))
    assert data.image_shape == image_shape


@pytest.mark.parametrize("x_name", ["x", "X", "data", "anything"])
@pytest.mark.parametrize("y_name", ["y", "labels", "target", "Label", None])
def test_npz(tmp_path, x_name, y_name):
    arrays = {x_name: X, "one_dimension": np.arange(3)}
    if y_name:
        arrays[y_name] = np.array([[7], [3], [7], [9]])
    np.savez_compressed(tmp_path / "rows.npz", **arrays)
    data = load_dataset(tmp_path / "rows.npz")
    check_form(data, 4, 3)
    np.testing.assert_array_equal(data.x, X)
    assert data.class_names is None
    if y_name:
        assert data.y.tolist() == [1, 0, 1, 2]
    else:
        assert data.y is None


@pytest.mark.parametrize(
    ("labels", "y", "names"),
    [
        (["b", "a", "b", "c"], [1, 0, 1, 2], ("a", "b", "c")),
        ([b"b", b"a", b"b", b"c"], [1, 0, 1, 2], ("a", "b", "c")),
        ([-1.0, 5.0, -1.0, 0.0], [0, 2, 0, 1], None),
        ([True, False, True, True], [1, 0, 1, 1], None),
        (np.array([2**63, 0, 1, 0], np.uint64), [2, 0, 1, 0], None),
    ],
)
def test_labels_are_numbered(tmp_path, labels, y, names):
    np.savez(tmp_path / "rows.npz", x=X, y=labels)
    data = load_dataset(tmp_path / "rows.npz")
    check_form(data, 4, 3)
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
        (["a", "b", "", "a"], "got '' in row 2"),
        (np.zeros(4, complex), "got dtype complex128"),
        (np.array(4), "got shape ()"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path, labels, needed):
    np.savez(tmp_path / "rows.npz", x=X, y=labels)
    refused(tmp_path / "rows.npz", needed)


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


def zip_bytes():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("sheet.xml", "<xml/>")
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
        ("a.npy", npy_bytes(X).replace(b"4, 3), }     ", b"4, 3999999999"), "a NumPy file"),
        ("a.npy", npy_bytes(X).replace(b"<f4", b"<q9"), "expected a NumPy file"),
        ("a.npy", npy_bytes(np.array([[Trap()]], object)), "never unpickled"),
        ("a.npy", b"1,2\n3,4\n", "expected a NumPy file, got one that starts with b'1,2"),
        ("a.npy", npy_bytes(np.arange(3.0)), "Expected 2D array"),
        ("a.npy", npy_bytes(np.array(3.0)), "Expected 2D array"),
        ("a.npy", npy_bytes(np.zeros((0, 3))), "expected at least one row"),
        ("a.npy", npy_bytes(np.zeros((0, 3, 2))), "expected at least one row"),
        ("a.npy", npy_bytes(np.zeros((3, 0))), "0 feature(s)"),
        ("a.npy", npy_bytes(np.zeros((3, 0, 4))), "0 feature(s)"),
        ("a.npy", npy_bytes(np.array([[0.0, np.nan]])), "NaN in row 0"),
        ("a.npy", npy_bytes(np.array([[0.0, 1e300]])), "infinity in row 0"),
        ("a.npy", npy_bytes(np.array([["a", "b"]])), "expected numbers"),
        ("a.npy", npy_bytes(np.zeros((2, 2), complex)), "Complex data not supported"),
        ("a.npy", npy_bytes(np.zeros((2, 2), "f4,f4")), "expected numbers"),
        ("a.npz", npz_bytes(x=X)[:-30], "expected a NumPy file"),
        ("a.npz", npz_bytes(x=X)[:40], "expected a NumPy file"),
        ("a.npz", damaged_npz(), "in array 'x'"),
        ("a.npz", npz_bytes(x=np.array([[Trap()]], object)), "never unpickled"),
        ("a.npz", npz_bytes(x=X, y=np.array([Trap()] * 4, object)), "never unpickled"),
        ("a.npz", npz_bytes(a=X, b=X), "got a (4, 3), b (4, 3)"),
        ("a.npz", npz_bytes(a=X, b=X, c=X, d=X[0]), "c (4, 3), d (3,)"),
        ("a.npz", npz_bytes(), "got none"),
        ("a.npz", npz_bytes(y=np.arange(4)), "expected an array named x, X, data or a single"),
        ("a.npz", npz_bytes(x=X, y=np.arange(4), target=np.arange(4)), "got y, target"),
        ("a.npz", zip_bytes(), "expected an array named x, X, data"),
    ],
    ids=lambda value: value if isinstance(value, str) else "bytes",
)
def test_damaged_numpy_files_are_refused(tmp_path, file, content, needed):
    refused(write(tmp_path / file, content), needed)


# User files: scipy-sparse.


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_sparse_is_made_dense_with_a_note(tmp_path, caplog, form, make):
    caplog.set_level(logging.INFO, logger="jdec")
    path = tmp_path / "rows.npz"
    scipy.sparse.save_npz(path, make(X.astype(np.float64)).asformat(form))
    data = load_dataset(path)
    check_form(data, 4, 3)
    np.testing.assert_array_equal(data.x, X)
    assert [(record.name, record.levelname) for record in caplog.records] == [("jdec", "INFO")]
    assert "made dense" in caplog.text


def test_a_large_sparse_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "rows.npz"
    scipy.sparse.save_npz(path, scipy.sparse.csr_array((1_000_000, 1024), dtype=np.float32))
    refused(path, "at most 2 GiB", "got 3.81 GiB for shape (1000000, 1024)", "reduce the number")


def test_the_sparse_limit_itself_is_allowed(tmp_path, monkeypatch):
    path = tmp_path / "rows.npz"
    scipy.sparse.save_npz(path, scipy.sparse.csr_array(X))
    monkeypatch.setattr(_files, "MAX_DENSE_BYTES", X.nbytes)
    assert load_dataset(path).x.shape == (4, 3)
    monkeypatch.setattr(_files, "MAX_DENSE_BYTES", X.nbytes - 1)
    refused(path, "GiB")


@pytest.mark.parametrize("form", ["csr", "csc", "bsr", "coo"])
@pytest.mark.parametrize("index", [-1, 1000])
def test_sparse_indices_out_of_range_are_refused(tmp_path, form, index):
    path = tmp_path / "rows.npz"
    scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(X).asformat(form))
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["col" if form == "coo" else "indices"][0] = index
    np.savez(path, **arrays)
    refused(path, "expected a sparse matrix")


@pytest.mark.parametrize(
    "change", [{"format": b"abc"}, {"shape": [4]}, {"shape": ["a", "b"]}, {"indptr": [0, 1]}]
)
def test_other_damage_to_sparse_files_is_refused(tmp_path, change):
    path = tmp_path / "rows.npz"
    scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(X))
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **(arrays | change))
    refused(path, "expected")


# User files: text.


@pytest.mark.parametrize(
    ("file", "text", "x", "y", "names"),
    [
        ("a.csv", "1,2\n3,4\n", [[1, 2], [3, 4]], None, None),
        ("a.csv", "1,2\r\n\r\n3,4", [[1, 2], [3, 4]], None, None),
        ("a.csv", "\ufeffa,b\n1,-2e3\n .5 ,4\n", [[1, -2000], [0.5, 4]], None, None),
        ("a.CSV", "y,a,b\n5,1,2\n3,3,4\n", [[1, 2], [3, 4]], [1, 0], None),
        ("a.csv", "a,b,Label\n1,2,1.0\n3,4,0.0\n", [[1, 2], [3, 4]], [1, 0], None),
        ("a.csv", 'a,TARGET,b\n1,"u, v",2\n3,t,4\n', [[1, 2], [3, 4]], [1, 0], ("t", "u, v")),
        ("a.csv", "class,0,1\nq,1,2\np,3,4\n", [[1, 2], [3, 4]], [1, 0], ("p", "q")),
        ("a.csv", "y,a\n10,1\n9,2\n", [[1], [2]], [1, 0], None),
        ("a.csv", "only\n1\n2\n", [[1], [2]], None, None),
        ("a.csv", "7\n8\n", [[7], [8]], None, None),
        ("a.tsv", "a\ty\tb\n1\tq\t2\n3\tp\t4\n", [[1, 2], [3, 4]], [1, 0], ("p", "q")),
        ("a.csv", '"1","2"\n"3","4"\n', [[1, 2], [3, 4]], None, None),
    ],
)
def test_text_files(tmp_path, file, text, x, y, names):
    data = load_dataset(write(tmp_path / file, text))
    check_form(data, *np.shape(x))
    np.testing.assert_array_equal(data.x, np.array(x, np.float32))
    assert (data.y if data.y is None else data.y.tolist()) == y
    assert data.class_names == names
    assert data.name == "a"


@pytest.mark.parametrize(
    ("file", "text", "needed"),
    [
        ("a.csv", "a,b\n1,2\n3,x\n", ["column 'b'", "'x'", "line 3"]),
        ("a.csv", "1,2\n\n3,x\n", ["column '2'", "'x'", "line 3"]),
        ("a.csv", 'a,"b\nc"\n1,2\n3,\n', ["got '' in line 4"]),
        ("a.csv", "a,town,y\n1,Rome,0\n", ["column 'town'", "'Rome'", "line 2"]),
        ("a.csv", "1,NA\n2,3\n", ["column '2'", "'NA'", "line 1"]),
        ("a.csv", ",0,1\n0,1,2\n", ["column '1'", "row index"]),
        ("a.csv", ",a,b\n0,1,2\n", ["expected a name for every column", "row index"]),
        ("a.csv", "1,2\n3\n", ["expected 2 cells, got 1 in line 2"]),
        ("a.csv", "1,2\n3,4,5\n", ["expected 2 cells, got 3 in line 2"]),
        ("a.csv", "a,b\n1,2\n3,nan\n", ["NaN in row 1"]),
        ("a.csv", "a,b\n1,2\n3,1e99\n", ["infinity in row 1"]),
        ("a.csv", "y,a,class\n1,2,3\n", ["at most one label column, got y, class"]),
        ("a.csv", "y,a\n0.25,2\n0.75,3\n", ["got 0.25 in row 0", "needs another name"]),
        ("a.csv", "y,a\nu,2\n,3\n", ["got '' in row 1"]),
        ("a.csv", "a,b\n", ["expected at least one row"]),
        ("a.csv", "y\n1\n", ["0 feature(s)"]),
        ("a.csv", "\n\n", ["expected rows, got blank lines only"]),
        ("a.csv", "", ["expected data, got an empty file"]),
        ("a.csv", b"a,b\n1,\xff\xfe\n", ["expected delimited UTF-8 text"]),
        ("a.csv", b"a,b\n1,2\n3,\x00\n", ["expected"]),
        ("a.csv", 'a,b\n1,"2\n3,4\n', ["expected delimited UTF-8 text"]),
        ("a.csv", "a\n" + "1" * 200_000 + "\n", ["field larger than field limit"]),
        ("a.csv", "a,b\n1," + "z" * 90_000 + "\n", ["column 'b'", "line 2"]),
        ("a.csv", "1;2\n3;4\n", ["got '3;4' in line 2"]),
        ("a.tsv", "1,2\n3,4\n", ["got '3,4' in line 2"]),
    ],
)
def test_bad_text_files_are_refused(tmp_path, file, text, needed):
    assert len(refused(write(tmp_path / file, text), *needed)) < 400 + len(str(tmp_path))


def test_a_header_of_numbers_is_reported(tmp_path, caplog):
    data = load_dataset(write(tmp_path / "a.csv", "0,1,2\n5,6,7\n"))
    assert len(data.x) == 2
    assert "taken for a row of data" in caplog.text


# User files: parquet.


@pytest.fixture
def pandas():
    pytest.importorskip("pyarrow", reason="needs the extra jdec[parquet]")
    return pytest.importorskip("pandas", reason="needs the extra jdec[parquet]")


@pytest.mark.parametrize(
    ("labels", "y", "names"),
    [
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        ([10, 9, 10], [1, 0, 1], None),
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
    frame = pandas.DataFrame(columns if labels is None else columns | {"Class": labels})
    if kind == "nullable":
        frame = frame.convert_dtypes()
    elif kind == "category" and labels is not None and not isinstance(labels[0], bool):
        frame["Class"] = frame["Class"].astype("category")
    frame.index = [7, 8, 9]
    frame.to_parquet(tmp_path / "a.parquet")
    data = load_dataset(tmp_path / "a.parquet")
    check_form(data, 3, 3)
    np.testing.assert_array_equal(data.x, np.array([[1.5, 4, 1], [2, 5, 0], [3, 6, 1]], np.float32))
    assert (data.y if data.y is None else data.y.tolist()) == y
    assert data.class_names == names


@pytest.mark.parametrize(
    ("columns", "needed"),
    [
        ({"a": [1, 2], "town": ["3", "Rome"]}, ["column 'town'", "'Rome'", "row 1"]),
        ({"a": [1.0, None]}, ["NaN in row 1"]),
        ({"a": [1.0, 1e300]}, ["infinity in row 1"]),
        ({"a": [[1.0], [2.0]]}, ["column 'a'", "row 0"]),
        ({"a": [[[1.0, 2.0], [3.0]], [[2.0]]]}, ["column 'a'", "row 0"]),
        ({"a": np.array(["2020-01-01", "2020-01-02"], "M8[ns]")}, ["column 'a'", "row 0"]),
        ({"a": [1, 2], "y": ["u", None]}, ["expected a label in column 'y', got none in row 1"]),
        ({"a": [1, 2], "y": [0.5, 1]}, ["got 0.5 in row 0"]),
        ({"a": [1, 2], "y": [0, 1], "class": [0, 1]}, ["got y, class"]),
        ({"y": [1, 2]}, ["0 feature(s)"]),
        ({"a": []}, ["expected at least one row"]),
    ],
)
def test_bad_parquet_columns_are_refused(tmp_path, pandas, columns, needed):
    pandas.DataFrame(columns).to_parquet(tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", *needed)


def test_damaged_parquet_is_refused(tmp_path, pandas):
    pandas.DataFrame({"a": [1, 2]}).to_parquet(tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    for piece in (content[:-10], content[:4], b"a,b\n1,2\n"):
        refused(write(tmp_path / "a.parquet", piece), "expected an intact parquet file")


@pytest.mark.parametrize("module", ["pandas", "pyarrow"])
def test_parquet_without_its_extra_says_what_to_install(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    path = write(tmp_path / "a.parquet", b"PAR1")
    refused(path, 'pip install "jdec[parquet]"', error=ImportError)


# User files: the rest.


@pytest.mark.parametrize("file", ["a.h5", "a", "a.csv.gz", "a.txt", "a.pkl"])
def test_other_suffixes_are_refused(tmp_path, file):
    refused(write(tmp_path / file, b"1"), ".npy, .npz, .csv, .tsv, .parquet")


@pytest.mark.parametrize("file", ["folder", "folder.csv"])
def test_a_folder_is_refused(tmp_path, file):
    (tmp_path / file).mkdir()
    refused(tmp_path / file, "expected a file, got a folder")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".tsv", ".parquet"])
def test_an_empty_file_is_refused(tmp_path, suffix):
    refused(write(tmp_path / f"a{suffix}", b""), "expected data, got an empty file")


# The table.


def test_table_without_data():
    rows = dataset_table()
    assert [row.name for row in rows] == NAMES
    assert [row.path for row in rows] == [None] * len(NAMES)
    assert [row.name for row in rows if row.downloadable] == [
        *("mnist", "fashion_mnist", "stl10", "reuters"),
    ]
    assert [row.name for row in rows if row.built_in] == ["digits"]
    assert {row.variant for row in rows} == {""}
    assert rows[0].shape == (*load_dataset("digits").x.shape, 10)
    assert all(row.description for row in rows)


def test_table_says_where_data_was_found(tmp_path, cache_dir):
    write_images(tmp_path / "fashion-mnist")
    cache_dir.mkdir()
    np.savez(cache_dir / "reuters10k.npz", x=np.eye(3), y=[2, 0, 1])
    found = {row.name: row for row in dataset_table(tmp_path) if row.path is not None}
    assert {name: row.path for name, row in found.items()} == {
        "fashion_mnist": tmp_path / "fashion-mnist",
        "reuters10k": cache_dir / "reuters10k.npz",
    }
    assert found["fashion_mnist"].variant == ""
    assert found["reuters10k"].variant == "sample"


# Download, from a server on this machine.


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Serve made-up images; the registry is told their address and checksums."""
    folder = tmp_path / "source"
    write_images(folder)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        files = {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in IDX_FILES
        }
        for name in ("mnist", "fashion_mnist"):
            spec = dataclasses.replace(
                registry.REGISTRY[name],
                url=f"http://127.0.0.1:{server.server_port}/",
                files=files,
            )
            monkeypatch.setitem(registry.REGISTRY, name, spec)
        yield folder
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_download_then_load(tmp_path, source, name, capfd):
    folder = download_dataset(name, data_dir=tmp_path / "new" / "place")
    assert folder == tmp_path / "new" / "place" / name
    assert sorted(path.name for path in folder.iterdir()) == sorted(IDX_FILES)
    assert load_dataset(name, data_dir=tmp_path / "new" / "place").n_train == 5
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_when_asked_for(tmp_path, source, capfd):
    download_dataset("mnist", data_dir=tmp_path, progress=True)
    assert "100%" in capfd.readouterr().err


def test_download_goes_where_data_is_looked_for_first(tmp_path, source, monkeypatch, cache_dir):
    assert download_dataset("mnist") == cache_dir / "mnist"
    monkeypatch.setenv("JDEC_DATA_DIR", str(tmp_path / "variable"))
    assert download_dataset("mnist") == tmp_path / "variable" / "mnist"


def test_a_finished_download_is_not_repeated(tmp_path, source):
    download_dataset("mnist", data_dir=tmp_path)
    for name in IDX_FILES:
        (source / name).unlink()
    assert load_dataset("mnist", data_dir=download_dataset("mnist", data_dir=tmp_path).parent)


def test_a_damaged_file_is_fetched_again(tmp_path, source):
    folder = download_dataset("mnist", data_dir=tmp_path)
    write(folder / IDX_FILES[0], b"cut off")
    download_dataset("mnist", data_dir=tmp_path)
    assert load_dataset("mnist", data_dir=tmp_path).n_train == 5


def test_a_wrong_checksum_leaves_nothing(tmp_path, source):
    write(source / IDX_FILES[1], b"tampered with")
    with pytest.raises(ValueError, match="mnist: could not download http") as caught:
        download_dataset("mnist", data_dir=tmp_path)
    assert IDX_FILES[1] in str(caught.value)
    assert "hash" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "mnist").iterdir()] == [IDX_FILES[0]]


def test_a_source_without_the_file_is_an_os_error(tmp_path, source):
    (source / IDX_FILES[2]).unlink()
    with pytest.raises(OSError, match=r"mnist: could not download http.*404"):
        download_dataset("mnist", data_dir=tmp_path)
    assert not (tmp_path / "mnist" / IDX_FILES[2]).exists()


def test_no_server_is_an_os_error(tmp_path, source, monkeypatch):
    spec = dataclasses.replace(registry.REGISTRY["mnist"], url="http://127.0.0.1:1/")
    monkeypatch.setitem(registry.REGISTRY, "mnist", spec)
    with pytest.raises(OSError, match=r"mnist: could not download http://127\.0\.0\.1:1/"):
        download_dataset("mnist", data_dir=tmp_path)


def test_a_place_that_cannot_hold_a_folder_is_refused(tmp_path, source):
    write(tmp_path / "file", b"")
    with pytest.raises(ValueError, match="data_dir: expected a place to make"):
        download_dataset("mnist", data_dir=tmp_path / "file")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, source, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="data_dir: expected a folder that can be written"):
        download_dataset("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("digits", "it comes with scikit-learn"),
        ("reuters10k", r"place reuters/reuters10k\.npz .* arrays x .* and y"),
        ("mnits", "expected one of digits.*did you mean 'mnist'"),
        (3, "expected one of digits"),
    ],
)
def test_what_cannot_be_downloaded_is_refused(name, needed):
    with pytest.raises(ValueError, match=needed):
        download_dataset(name)


def test_known_sources_have_checksums():
    for spec in registry.REGISTRY.values():
        if spec.archive[0]:
            assert len(bytes.fromhex(spec.archive[1].removeprefix("md5:"))) == 16
        elif spec.url:
            assert spec.url.endswith("/")
            assert all(len(bytes.fromhex(sha256)) == 32 for sha256 in spec.files.values())


# The real files, where they are at hand.


@pytest.mark.parametrize(
    ("name", "largest", "counts"),
    [
        ("mnist", 255, [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]),
        ("fashion_mnist", 255, [7000] * 10),
        ("reuters10k", 1, [4078, 790, 2271, 2861]),
    ],
)
def test_real_data(name, largest, counts):
    row = next(row for row in dataset_table(REAL_DIR) if row.name == name)
    if REAL_DIR is None or row.path is None:
        pytest.skip(f"JDEC_DATA_DIR is not set or does not hold {name}")
    data = load_dataset(name, data_dir=REAL_DIR)
    check_form(data, *row.shape[:2])
    assert np.bincount(data.y).tolist() == counts
    assert data.x.min() == 0
    assert 0.5 * largest < data.x.max() <= largest
    assert isinstance(data, Dataset)
    if name == "reuters10k":
        np.testing.assert_allclose(np.linalg.norm(data.x, axis=1), 1, rtol=1e-5)
        assert data.class_names == ("CCAT", "ECAT", "GCAT", "MCAT")
    else:
        assert (data.n_train, data.image_shape) == (60_000, (28, 28))
