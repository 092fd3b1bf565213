import gzip
import hashlib

import numpy as np
import pytest
from pictures import IDX_FILES, check_form, idx_bytes, image_arrays, write, write_images
from sklearn.datasets import load_digits

from jdec.datasets import catalogue, load_dataset


def test_digits_are_those_of_scikit_learn():
    data = load_dataset("digits")
    check_form(data, 1797, 64)
    np.testing.assert_array_equal(data.x, load_digits().data)
    np.testing.assert_array_equal(data.y, load_digits().target)
    assert (data.name, data.image_shape, data.n_train) == ("digits", (8, 8), None)


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
    monkeypatch.setitem(catalogue.CONTENT, "mnist", known)
    load_dataset("mnist", data_dir=tmp_path)
    assert not caplog.records


def test_a_gz_name_on_unpacked_bytes_is_read(tmp_path):
    arrays = write_images(tmp_path / "mnist")
    write(tmp_path / "mnist" / IDX_FILES[0], idx_bytes(arrays[0]))
    assert load_dataset("mnist", data_dir=tmp_path).n_train == 5


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
def test_damaged_images_are_rejected(tmp_path, how):
    arrays = write_images(tmp_path / "mnist")
    which, content, needed = damage_images(how, arrays)
    path = write(tmp_path / "mnist" / IDX_FILES[which], content)
    with pytest.raises(ValueError, match="expected") as caught:
        load_dataset("mnist", data_dir=tmp_path)
    assert str(path) in str(caught.value)
    assert needed in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_images_at_all_are_rejected(tmp_path):
    write_images(tmp_path / "mnist", image_arrays(0, 0))
    with pytest.raises(ValueError, match="mnist: expected at least one row"):
        load_dataset("mnist", data_dir=tmp_path)


def test_known_sources_have_checksums():
    for spec in catalogue.SPECS.values():
        if spec.archive[0]:
            assert len(bytes.fromhex(spec.archive[1].removeprefix("md5:"))) == 16
            assert all(len(bytes.fromhex(md5)) == 16 for md5 in spec.files.values())
        elif spec.url:
            assert spec.url.endswith("/")
            assert all(len(bytes.fromhex(sha256)) == 32 for sha256 in spec.files.values())
