"""Where data sets are found, and what is said of names and files that are not."""

import os
from pathlib import Path

import numpy as np
import pytest
from pictures import IDX_FILES, check_form, image_arrays, write_images

from jdec.datasets import Dataset, dataset_table, load_dataset

NAMES = [
    *("digits", "mnist", "fashion_mnist", "pendigits", "stl10", "cifar10"),
    *("reuters", "reuters10k"),
]
REAL_DIR = os.environ.get("JDEC_DATA_DIR")


def rejected(path, *needed, error=ValueError, **kwargs):
    """Load what cannot be loaded; the message is one line that names the file."""
    with pytest.raises(error) as caught:
        load_dataset(path, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    for text in (str(path), *needed):
        assert text in message
    return message


@pytest.mark.parametrize(
    "options",
    [{"label": "y"}, {"label": ""}, {"id": "a"}, {"drop": ["a"]}, {"image_shape": (8, 8)}],
)
@pytest.mark.parametrize("name", ["digits", "mnist", "reuters"])
def test_options_of_files_are_rejected_for_known_names(name, options):
    with pytest.raises(ValueError, match=f"{name}: expected label, id, drop and image_shape for"):
        load_dataset(name, **options)


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
    rejected(
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
    message = rejected("cifar10", "place cifar10/cifar10_13k.npz", error=FileNotFoundError)
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
    rejected(name, *NAMES, "no such file exists", f"did you mean {close!r}?")


@pytest.mark.parametrize("name", ["nothing/like.csv", Path("absent.npy"), "", "qqq"])
def test_an_absent_file_is_rejected(name):
    message = rejected(name, *NAMES, "no such file exists")
    assert "did you mean" not in message


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", 3, None, "~no-such-user-here/x.csv"])
def test_a_name_that_is_no_path_is_rejected(name):
    with pytest.raises(ValueError, match="name: expected"):
        load_dataset(name)


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_images(tmp_path / "data" / "mnist")
    assert load_dataset("mnist", data_dir="~/data").n_train == 5
    monkeypatch.setenv("JDEC_DATA_DIR", "~/data")
    assert load_dataset("mnist").n_train == 5
    assert dataset_table()[1].path == tmp_path / "data" / "mnist"


def test_data_dir_that_is_no_path_is_rejected():
    with pytest.raises(ValueError, match="data_dir: expected a path, got 3"):
        load_dataset("mnist", data_dir=3)


def test_a_path_object_is_never_a_known_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rejected(Path("digits"), "no such file exists")


def write_strokes(folder, n_columns):
    folder.mkdir(parents=True)
    names = [f"{axis}{point}" for point in range(1, 9) for axis in "xy"][:n_columns]
    rows = np.random.default_rng(0).integers(0, 101, (4, n_columns)).astype(str).tolist()
    lines = [",".join([*row, label]) for row, label in zip(rows, "7317", strict=True)]
    (folder / "pendigits.csv").write_text("\n".join([",".join([*names, "label"]), *lines]))
    return np.array(rows, np.float32)


def test_strokes_of_a_pen(tmp_path):
    rows = write_strokes(tmp_path / "pendigits", 16)
    data = load_dataset("pendigits", data_dir=tmp_path)
    np.testing.assert_array_equal(data.x, rows)
    assert data.y.tolist() == [2, 1, 0, 2]
    assert (data.x.dtype, data.name, data.label_name) == (np.float32, "pendigits", None)


def test_strokes_of_another_length_are_rejected(tmp_path):
    write_strokes(tmp_path / "pendigits", 14)
    with pytest.raises(ValueError, match=r"pendigits\.csv: expected 16 columns beside .*14"):
        load_dataset("pendigits", data_dir=tmp_path)


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
    cache_dir.mkdir(parents=True)
    np.savez(cache_dir / "reuters10k.npz", x=np.eye(3), y=[2, 0, 1])
    found = {row.name: row for row in dataset_table(tmp_path) if row.path is not None}
    assert {name: row.path for name, row in found.items()} == {
        "fashion_mnist": tmp_path / "fashion-mnist",
        "reuters10k": cache_dir / "reuters10k.npz",
    }
    assert found["fashion_mnist"].variant == ""
    assert found["reuters10k"].variant == "sample"


# The real files, where they are at hand.


@pytest.mark.parametrize(
    ("name", "largest", "counts"),
    [
        ("mnist", 255, [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]),
        ("fashion_mnist", 255, [7000] * 10),
        ("pendigits", 100, [1143, 1143, 1144, 1055, 1144, 1055, 1056, 1142, 1055, 1055]),
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
    elif name == "pendigits":
        assert (data.name, data.label_name, data.ids) == (name, None, None)
    else:
        assert (data.n_train, data.image_shape) == (60_000, (28, 28))
