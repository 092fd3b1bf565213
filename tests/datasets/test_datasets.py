import dataclasses
import functools
import gzip
import hashlib
import http.server
import os
import struct
import threading
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from sklearn.datasets import load_digits

from jdec.datasets import (
    Dataset,
    catalogue,
    dataset_table,
    download_dataset,
    imbalanced_subset,
    load_dataset,
    pixels,
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


@pytest.mark.parametrize("zipped", [True, False])
def test_files_that_are_not_the_public_ones_are_named(tmp_path, caplog, monkeypatch, zipped):
    arrays = write_images(tmp_path / "mnist", zipped=zipped)
    load_dataset("mnist", data_dir=tmp_path)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 4
    for message, file in zip(messages, IDX_FILES, strict=True):
        assert str(tmp_path / "mnist" / file.removesuffix(".gz")) in message
        assert "not the public file of that name" in message
    caplog.clear()
    # The content counts, however it was packed.
    known = tuple(hashlib.sha256(idx_bytes(array)).hexdigest() for array in arrays)
    monkeypatch.setitem(pixels.CONTENT, "mnist", known)
    load_dataset("mnist", data_dir=tmp_path)
    assert not caplog.records


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


def test_an_imbalanced_subset_keeps_the_identifiers_of_its_rows():
    data = many_rows(ids=np.arange(20_000) + 7, feature_names=("a",), label_name="b")
    drawn = imbalanced_subset(data, 0.2, seed=0)
    np.testing.assert_array_equal(drawn.ids, drawn.x[:, 0] + 7)
    assert (drawn.feature_names, drawn.label_name) == (("a",), "b")


# Options of files.


@pytest.mark.parametrize(
    "options",
    [{"label": "y"}, {"label": ""}, {"id": "a"}, {"drop": ["a"]}, {"image_shape": (8, 8)}],
)
@pytest.mark.parametrize("name", ["digits", "mnist", "reuters"])
def test_options_of_files_are_refused_for_known_names(name, options):
    with pytest.raises(ValueError, match=f"{name}: expected label, id, drop and image_shape for"):
        load_dataset(name, **options)


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


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_images(tmp_path / "data" / "mnist")
    assert load_dataset("mnist", data_dir="~/data").n_train == 5
    monkeypatch.setenv("JDEC_DATA_DIR", "~/data")
    assert load_dataset("mnist").n_train == 5
    assert dataset_table()[1].path == tmp_path / "data" / "mnist"


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
            "expected 3936 bytes as its header (5, 28, 28) says, got 3935",
        ),
        "too long": (
            1,
            labels + b"\0",
            "expected 13 bytes as its header (5,) says, got 14 or more",
        ),
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
    """Serve made-up images; the catalogue gets their address and checksums."""
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
                catalogue.SPECS[name],
                url=f"http://127.0.0.1:{server.server_port}/",
                files=files,
            )
            monkeypatch.setitem(catalogue.SPECS, name, spec)
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
    spec = dataclasses.replace(catalogue.SPECS["mnist"], url="http://127.0.0.1:1/")
    monkeypatch.setitem(catalogue.SPECS, "mnist", spec)
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
    for spec in catalogue.SPECS.values():
        if spec.archive[0]:
            assert len(bytes.fromhex(spec.archive[1].removeprefix("md5:"))) == 16
            assert all(len(bytes.fromhex(md5)) == 16 for md5 in spec.files.values())
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
def test_real_data(name, largest, counts, caplog):
    row = next(row for row in dataset_table(REAL_DIR) if row.name == name)
    if REAL_DIR is None or row.path is None:
        pytest.skip(f"JDEC_DATA_DIR is not set or does not hold {name}")
    data = load_dataset(name, data_dir=REAL_DIR)
    assert not caplog.records  # the files are the public ones
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
