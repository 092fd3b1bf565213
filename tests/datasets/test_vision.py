"""Features of photographs, against loops over pixels; the binaries of STL-10 in small."""

import dataclasses
import hashlib
import io
import logging
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from jdec.datasets import catalogue, download_dataset, load_dataset, vision

pytest.importorskip("skimage", reason="needs the extra jdec[vision]")

REAL_DIR = os.environ.get("JDEC_DATA_DIR")
FILES = ["train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "unlabeled_X.bin"]


def make_images(n, side=96, seed=0):
    """Gradients and noise of three colours, so that no two cells are alike."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, side)
    waves = np.sin(rng.uniform(1, 20, (n, 1, 1, 3)) * ramp[:, None, None] + ramp[:, None])
    noise = rng.normal(size=(n, side, side, 3))
    return np.clip(128 + 60 * waves + 25 * noise, 0, 255).astype(np.uint8)


def histogram_features(image):
    """13 numbers a cell, in float64 and by loops: Felzenszwalb et al. with whole votes."""
    pixels = image.astype(np.float64)
    side = len(pixels)
    histograms = np.zeros((side // 8, side // 8, 9))
    for row in range(side):
        for column in range(side):
            down, right = np.zeros(3), np.zeros(3)
            if 0 < row < side - 1:
                down = pixels[row + 1, column] - pixels[row - 1, column]
            if 0 < column < side - 1:
                right = pixels[row, column + 1] - pixels[row, column - 1]
            colour = np.argmax(np.hypot(down, right))
            angle = np.degrees(np.arctan2(down[colour], right[colour])) % 180
            vote = np.hypot(down[colour], right[colour]) / 64
            histograms[row // 8, column // 8, int(angle // 20) % 9] += vote
    cells = []
    for row in range(1, side // 8 - 1):
        for column in range(1, side // 8 - 1):
            normalised = []
            for top in (row - 1, row):
                for left in (column - 1, column):
                    norm = np.sqrt((histograms[top : top + 2, left : left + 2] ** 2).sum() + 1e-10)
                    normalised.append(np.minimum(histograms[row, column] / norm, 0.2))
            normalised = np.array(normalised)
            cells.append([*0.5 * normalised.sum(axis=0), *0.2357 * normalised.sum(axis=1)])
    return np.array(cells).ravel()


def test_histograms_are_those_of_the_loops():
    images = make_images(2)
    features = vision.image_features(images)
    assert features.shape == (2, 1428)
    assert features.dtype == np.float32
    for row, image in enumerate(images):
        wanted = 10 * (histogram_features(image) - 0.2)
        # A direction on the border of two bins may fall into either.
        assert np.mean(np.abs(features[row, :1300] - wanted) > 1e-4) < 0.02
        np.testing.assert_allclose(features[row, :1300], wanted, atol=0.5)


def test_a_plain_image_has_no_edges():
    image = np.full((1, 96, 96, 3), 77, np.uint8)
    np.testing.assert_array_equal(vision.image_features(image)[0, :1300], np.float32(-2))
    np.testing.assert_array_equal(vision.image_features(image)[0, 1300:], 0)  # grey


@pytest.mark.parametrize("side", [96, 32])
def test_colours_are_those_of_a_thumbnail(side):
    image = make_images(1, side)[0]
    colours = vision.image_features(image[None])[0, 1300:].reshape(8, 8, 2)
    step = side // 8
    for row in range(8):
        for column in range(8):
            top, left = row * step + step // 2 - 1, column * step + step // 2 - 1
            square = image[top : top + 2, left : left + 2].reshape(4, 3).astype(int)
            red, green, blue = np.floor(square.mean(axis=0) + 0.5)
            grey = np.round(0.299 * red + 0.587 * green + 0.114 * blue)
            wanted = [np.round(0.713 * (red - grey)), np.round(0.564 * (blue - grey))]
            np.testing.assert_allclose(colours[row, column], np.array(wanted) / 10, atol=1e-6)


def test_pure_colours_have_their_known_values():
    images = np.zeros((2, 96, 96, 3), np.uint8)
    images[0, ..., 0] = images[1, ..., 2] = 255
    colours = vision.image_features(images)[:, 1300:].reshape(2, 64, 2)
    # (Cr, Cb) of red is (255, 85), of blue (107, 255), as OpenCV gives them for bytes.
    np.testing.assert_allclose(colours[0], np.broadcast_to([12.7, -4.3], (64, 2)), atol=1e-6)
    np.testing.assert_allclose(colours[1], np.broadcast_to([-2.1, 12.7], (64, 2)), atol=1e-6)


def test_small_images_are_enlarged_bilinearly():
    from skimage.transform import resize

    images = make_images(2, 32)
    for image, large in zip(images, vision.enlarge(images), strict=True):
        wanted = resize(image.astype(float), (96, 96), order=1, mode="edge", anti_aliasing=False)
        np.testing.assert_allclose(large, wanted, atol=1e-3)
    whole = make_images(1)
    assert vision.enlarge(whole) is whole


# STL-10.


def write_stl10(folder, n_train=3, n_test=2, n_unlabeled=4):
    folder.mkdir(parents=True, exist_ok=True)
    images = make_images(n_train + n_test + n_unlabeled)
    labels = np.arange(n_train + n_test) % 10 + 1
    parts = np.split(images, [n_train, n_train + n_test])
    for file, part in zip(FILES[::2], parts, strict=True):
        # Colour by colour, and each of them column by column.
        (folder / file).write_bytes(np.ascontiguousarray(part.transpose(0, 3, 2, 1)).tobytes())
    for file, some in zip(FILES[1::2], np.split(labels, [n_train]), strict=True):
        (folder / file).write_bytes(some.astype(np.uint8).tobytes())
    return images, labels - 1


@pytest.mark.parametrize("folder", ["stl10_binary", "stl10/stl10_binary", "stl10"])
def test_stl10(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(vision, "BLOCK", 2)
    images, labels = write_stl10(tmp_path / folder)
    data = load_dataset("stl10", data_dir=tmp_path)
    random = np.random.RandomState(1234)
    order, rest = random.permutation(5), random.permutation(4)
    features = vision.image_features(images)
    np.testing.assert_array_equal(data.x, features[:5][order])
    np.testing.assert_array_equal(data.unlabeled, features[5:][rest])
    np.testing.assert_array_equal(data.y, labels[order])
    for array in (data.x, data.unlabeled):
        assert type(array) is np.ndarray
        assert (array.dtype, array.flags.c_contiguous) == (np.float32, True)
    assert data.y.dtype == np.int64
    assert len(data.class_names) == 10
    assert (data.name, data.n_train, data.image_shape) == ("stl10", None, None)
    assert "1428 features" in data.note


def test_a_second_load_reads_the_features(tmp_path, monkeypatch, cache_dir, caplog):
    caplog.set_level(logging.INFO, logger="jdec")
    write_stl10(tmp_path / "stl10_binary")
    first = load_dataset("stl10", data_dir=tmp_path)
    (kept,) = (cache_dir / "features").iterdir()
    assert np.load(kept).shape == (9, 1428)
    assert str(kept) in caplog.text
    with monkeypatch.context() as patch:
        # The extra is not needed any more.
        patch.setitem(sys.modules, "skimage.feature", None)
        again = load_dataset("stl10", data_dir=tmp_path)
        np.testing.assert_array_equal(again.x, first.x)
        np.testing.assert_array_equal(again.unlabeled, first.unlabeled)
        assert type(again.x) is type(again.unlabeled) is np.ndarray
        # Other settings and other bytes are other features.
        patch.setattr(vision, "VERSION", 0)
        with pytest.raises(ImportError):
            load_dataset("stl10", data_dir=tmp_path)
    write_stl10(tmp_path / "stl10_binary", n_train=2)
    assert len(load_dataset("stl10", data_dir=tmp_path).x) == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:1],
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content[:128] + bytes(len(content) - 128),
        lambda content: bytes(len(content)),
        lambda content: content + b"a",
        lambda content: content[:-45],  # as np.save writes it, without a digest
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content[:700] + bytes([content[700] ^ 0x20]) + content[701:],
    ],
)
def test_a_damaged_cache_is_computed_again(tmp_path, cache_dir, caplog, damage):
    (tmp_path / "cifar10").mkdir()
    np.savez(tmp_path / "cifar10" / "cifar10_13k.npz", **cifar10_arrays())
    first = load_dataset("cifar10", data_dir=tmp_path).x
    (kept,) = (cache_dir / "features").iterdir()
    content = kept.read_bytes()
    assert damage(content) != content
    kept.write_bytes(damage(content))
    caplog.clear()
    np.testing.assert_array_equal(load_dataset("cifar10", data_dir=tmp_path).x, first)
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"{kept}: damaged, computed again" in message
    assert kept.read_bytes() == content
    assert load_dataset("cifar10", data_dir=tmp_path).x.tobytes() == first.tobytes()
    assert len(caplog.records) == 1


def test_a_cache_that_cannot_be_read_is_computed_again(tmp_path, cache_dir, caplog):
    (tmp_path / "cifar10").mkdir()
    np.savez(tmp_path / "cifar10" / "cifar10_13k.npz", **cifar10_arrays())
    first = load_dataset("cifar10", data_dir=tmp_path).x
    (kept,) = (cache_dir / "features").iterdir()
    kept.unlink()
    kept.mkdir()
    np.testing.assert_array_equal(load_dataset("cifar10", data_dir=tmp_path).x, first)
    assert f"{kept}: damaged" in caplog.text
    assert "could not be cached" in caplog.text


def test_binaries_that_are_not_the_public_ones_are_named(tmp_path, monkeypatch, caplog):
    write_stl10(tmp_path / "stl10_binary")
    load_dataset("stl10", data_dir=tmp_path)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 5
    for message, file in zip(messages, FILES, strict=True):
        assert str(tmp_path / "stl10_binary" / file) in message
        assert "not the public file of that name" in message
        monkeypatch.setitem(vision.STL10_FILES, file, md5_of(tmp_path / "stl10_binary" / file))
    caplog.clear()
    load_dataset("stl10", data_dir=tmp_path)
    assert not caplog.records


def md5_of(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_an_interrupted_extraction_leaves_nothing(tmp_path, monkeypatch, cache_dir):
    write_stl10(tmp_path / "stl10_binary")
    monkeypatch.setattr(vision, "BLOCK", 2)
    calls = []

    def interrupted(images, original=vision.image_features):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(images)

    monkeypatch.setattr(vision, "image_features", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_dataset("stl10", data_dir=tmp_path)
    assert not list(cache_dir.rglob("*"))


@pytest.mark.parametrize(
    ("file", "change", "needed"),
    [
        ("train_X.bin", lambda raw: raw[:-1], "expected images of 27648 bytes each"),
        ("unlabeled_X.bin", lambda raw: raw + b"\0", "expected images of 27648 bytes each"),
        ("test_X.bin", lambda raw: b"", "got 0 bytes"),
        ("test_X.bin", lambda raw: raw[:27648], "as many entries as test_X.bin has (1), got 2"),
        ("train_y.bin", lambda raw: raw[:-1], "as many entries as train_X.bin has (3), got 2"),
        ("train_y.bin", lambda raw: b"\x01\x00\x02", "expected labels 1 to 10, got 0 in row 1"),
        ("test_y.bin", lambda raw: b"\x01\x0b", "expected labels 1 to 10, got 11 in row 1"),
    ],
)
def test_bad_binaries_are_rejected(tmp_path, file, change, needed):
    write_stl10(tmp_path / "stl10_binary")
    path = tmp_path / "stl10_binary" / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=r"_[Xy]\.bin: expected") as caught:
        load_dataset("stl10", data_dir=tmp_path)
    assert needed in str(caught.value)
    assert str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["train_X.bin", "test_y.bin"])
def test_a_folder_in_place_of_a_binary_is_rejected(tmp_path, file):
    write_stl10(tmp_path / "stl10_binary")
    (tmp_path / "stl10_binary" / file).unlink()
    (tmp_path / "stl10_binary" / file).mkdir()
    with pytest.raises(ValueError, match=f"{file}: expected") as caught:
        load_dataset("stl10", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch):
    write_stl10(tmp_path / "stl10_binary")
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(ImportError, match=r'pip install "jdec\[vision\]"'):
        load_dataset("stl10", data_dir=tmp_path)


def test_a_missing_binary_is_named_with_the_command(tmp_path):
    write_stl10(tmp_path / "stl10_binary")
    (tmp_path / "stl10_binary" / "unlabeled_X.bin").unlink()
    needed = r"stl10: unlabeled_X\.bin not found in .*`jdec datasets --download stl10`"
    with pytest.raises(FileNotFoundError, match=needed):
        load_dataset("stl10", data_dir=tmp_path)


# Its download, from a server on this machine.


@pytest.fixture
def serve(served, monkeypatch):
    """Return a function that makes an archive of some bytes the public source."""
    folder, url = served

    def source(content, checksum=None, made=None):
        (folder / "stl10_binary.tar.gz").write_bytes(content)
        spec = catalogue.SPECS["stl10"]
        checksum = checksum or f"md5:{hashlib.md5(content).hexdigest()}"
        spec = dataclasses.replace(
            spec,
            url=url,
            archive=(spec.archive[0], checksum),
            files={file: md5_of(made / file) for file in FILES} if made else spec.files,
        )
        monkeypatch.setitem(catalogue.SPECS, "stl10", spec)

    return source


def pack(folder, files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for file in files:
            archive.add(folder / file, f"stl10_binary/{file}")
    return buffer.getvalue()


def test_download_unpacks_what_is_needed(tmp_path, serve):
    write_stl10(tmp_path / "made")
    (tmp_path / "made" / "class_names.txt").write_text("airplane")
    serve(pack(tmp_path / "made", ["class_names.txt", *FILES]), made=tmp_path / "made")
    folder = download_dataset("stl10", data_dir=tmp_path / "data")
    assert folder == tmp_path / "data" / "stl10_binary"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert len(load_dataset("stl10", data_dir=tmp_path / "data").x) == 5
    # A finished download is not repeated.
    (tmp_path / "source" / "stl10_binary.tar.gz").unlink()
    assert download_dataset("stl10", data_dir=tmp_path / "data") == folder


def test_files_that_are_damaged_are_fetched_again(tmp_path, serve, caplog):
    write_stl10(tmp_path / "made")
    serve(pack(tmp_path / "made", FILES), made=tmp_path / "made")
    folder = download_dataset("stl10", data_dir=tmp_path / "data")
    content = (folder / FILES[2]).read_bytes()
    (folder / FILES[2]).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (folder / FILES[3]).unlink()
    download_dataset("stl10", data_dir=tmp_path / "data")
    assert f"{folder / FILES[2]}: not the public file of that name" in caplog.text
    for file in FILES:
        assert (folder / file).read_bytes() == (tmp_path / "made" / file).read_bytes()


def test_an_archive_with_another_checksum_is_rejected(tmp_path, serve):
    write_stl10(tmp_path / "made")
    serve(pack(tmp_path / "made", FILES), "md5:" + 32 * "0")
    with pytest.raises(ValueError, match="stl10: could not download http") as caught:
        download_dataset("stl10", data_dir=tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "data" / "stl10_binary").iterdir()) == []


def test_an_archive_without_a_file_is_rejected(tmp_path, serve):
    write_stl10(tmp_path / "made")
    serve(pack(tmp_path / "made", FILES[:-1]))
    with pytest.raises(ValueError, match=r"tar\.gz: expected unlabeled_X\.bin in it"):
        download_dataset("stl10", data_dir=tmp_path / "data")


def test_an_archive_that_is_none_is_rejected(tmp_path, serve):
    serve(b"no archive")
    with pytest.raises(ValueError, match=r"tar\.gz: could not be unpacked"):
        download_dataset("stl10", data_dir=tmp_path / "data")


# CIFAR-10, its stand-in.


def cifar10_arrays(n=6, n_unlabelled=3):
    images = make_images(n + n_unlabelled, 32)
    names = np.array(["airplane", "automobile", "bird"])
    arrays = {"images": images[:n], "labels": np.arange(n, dtype=np.int32) % 3, "names": names}
    return arrays | ({"unlabelled": images[n:]} if n_unlabelled else {})


@pytest.mark.parametrize("folder", ["cifar10", "."])
@pytest.mark.parametrize("n_unlabelled", [0, 3])
def test_cifar10(tmp_path, folder, n_unlabelled):
    (tmp_path / folder).mkdir(exist_ok=True)
    arrays = cifar10_arrays(n_unlabelled=n_unlabelled)
    np.savez(tmp_path / folder / "cifar10_13k.npz", **arrays)
    data = load_dataset("cifar10", data_dir=tmp_path)
    random = np.random.RandomState(1234)
    order = random.permutation(6)
    np.testing.assert_array_equal(data.x, vision.image_features(arrays["images"])[order])
    np.testing.assert_array_equal(data.y, arrays["labels"][order])
    if n_unlabelled:
        wanted = vision.image_features(arrays["unlabelled"])[random.permutation(3)]
        np.testing.assert_array_equal(data.unlabeled, wanted)
    else:
        assert data.unlabeled is None
    assert (data.name, data.class_names) == ("cifar10", ("airplane", "automobile", "bird"))
    for needed in ("6 of CIFAR-10's images (classes of 2)", "JPEG", "not STL-10"):
        assert needed in data.note


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        ({"images": None}, "expected arrays named images and labels"),
        ({"labels": None}, "expected arrays named images and labels"),
        ({"images": np.zeros((6, 3, 32, 32), np.uint8)}, "images: expected uint8 [N 32 32 3], got"),
        ({"images": np.zeros((6, 32, 32, 3))}, "got float64 [6, 32, 32, 3]"),
        ({"images": np.zeros((0, 32, 32, 3), np.uint8)}, "expected at least one image, got none"),
        ({"unlabelled": np.zeros((2, 8, 8, 3), np.uint8)}, "unlabelled: expected uint8"),
        ({"labels": np.arange(6)}, "expected labels 0 to 2 as it names classes"),
        ({"labels": np.zeros(5, int)}, "expected as many entries as x has (6), got 5"),
    ],
)
def test_bad_arrays_of_cifar10_are_rejected(tmp_path, change, needed):
    arrays = {
        name: value for name, value in (cifar10_arrays() | change).items() if value is not None
    }
    np.savez(tmp_path / "cifar10_13k.npz", **arrays)
    with pytest.raises(ValueError, match=r"cifar10_13k\.npz: ") as caught:
        load_dataset("cifar10", data_dir=tmp_path)
    assert needed in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 cut off", b"text"])
def test_a_damaged_file_of_cifar10_is_rejected(tmp_path, content):
    (tmp_path / "cifar10_13k.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"cifar10_13k\.npz: expected") as caught:
        load_dataset("cifar10", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


REAL = Path(REAL_DIR or "/nowhere") / "cifar10" / "cifar10_13k.npz"


@pytest.mark.skipif(not REAL.exists(), reason="JDEC_DATA_DIR does not hold cifar10")
def test_real_photographs(tmp_path):
    """A few of them, since all take a minute or two."""
    with np.load(REAL) as file:
        arrays = {name: file[name][::200] for name in ("images", "labels", "unlabelled")}
        np.savez(tmp_path / "cifar10_13k.npz", names=file["names"], **arrays)
    data = load_dataset("cifar10", data_dir=tmp_path)
    assert (data.x.shape, data.unlabeled.shape) == ((65, 1428), (35, 1428))
    assert np.bincount(data.y).tolist() == [20] + 9 * [5]
    # The authors' constants bring both parts to about the same, small size.
    assert abs(data.x[:, :1300].mean()) < 1
    assert 0.5 < data.x[:, :1300].std() < 2
    assert 0.5 < data.x[:, 1300:].std() < 3
