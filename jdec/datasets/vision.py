"""Photographs as HOG and colour features: stl10 and its stand-in cifar10."""

import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jdec._checks import check_same_length
from jdec._files import compare_digests, content_digest, read_member, reading
from jdec._rows import as_float32
from jdec.datasets._cache import cached
from jdec.datasets._labels import encode_labels, name_labels
from jdec.datasets.dataset import Dataset

#: Side of the images, in pixels; smaller ones are enlarged to it.
SIDE = 96
_CELL = 8  # pixels
_ORIENTATIONS = 9
_THUMBNAIL = 8  # pixels
_INNER_CELLS = SIDE // _CELL - 2
#: Features of an image: 10 × 10 cells of 9 + 4 numbers, and 8 × 8 pixels of 2.
N_FEATURES = _INNER_CELLS**2 * (_ORIENTATIONS + 4) + 2 * _THUMBNAIL**2

VERSION = 1  # of the numbers that image_features gives: part of the name of what is cached
_SEED = 1234  # of the authors' code
BLOCK = 500  # images at a time: 14 MB of bytes, 80 MB of features and intermediate results
#: Files of STL-10, as the archive holds them, and their MD5, as torchvision lists them.
STL10_FILES = {
    "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
    "train_y.bin": "5a34089d4802c674881badbb80307741",
    "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
    "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
    "unlabeled_X.bin": "5242ba1fed5e4be9e1e742405eb56ca4",
}

_STL10_BYTES = 3 * SIDE * SIDE
_STL10_CLASSES = (
    *("airplane", "bird", "car", "cat", "deer"),
    *("dog", "horse", "monkey", "ship", "truck"),
)

_LOGGER = logging.getLogger("jdec")


def image_features(images: np.ndarray) -> np.ndarray:
    """Describe each image by its edges (HOG) and by the colours of a thumbnail.

    13 numbers for each of the 10 × 10 inner cells of 8 × 8 pixels, the outer ones only serving to
    normalise them, then Cr and Cb of an 8 × 8 thumbnail: 1300 + 128 = 1428, as many as the authors
    have. The 13 numbers are those of Felzenszwalb et al.: a histogram of 9 undirected orientations
    under 4 normalisations, each cut off at 0.2, summed over the normalisations and over the
    orientations. The authors' own HOG is not public; that it has this layout is a guess from its
    1300 numbers. Here scikit-image counts the orientations, each pixel for one cell and one bin.

    Args:
        images: uint8 [N H H 3], RGB, with H a multiple of 16 of at most 96.

    Returns:
        float32 [N 1428]: (HOG - 0.2) · 10, then (Cr, Cb - 128) / 10.

    Source: Xie et al. 2016, section 4.1, and the authors' code; Felzenszwalb et al., PAMI 2010.
    """
    feature = _skimage_feature()
    large = enlarge(images)
    features = np.empty((len(images), N_FEATURES), np.float32)
    for row, image in enumerate(large):
        features[row, : -2 * _THUMBNAIL**2] = 10 * (_histograms(feature, image).ravel() - 0.2)
    colours = (_thumbnail_colours(images) - 128) / 10
    features[:, -2 * _THUMBNAIL**2 :] = colours.reshape(len(images), -1)
    return features


def load_stl10(name: str, files: Sequence[Path]) -> Dataset:
    """Read the official binaries of STL-10, in the order of :data:`STL10_FILES`, as features.

    The labelled rows, train and test together, are in the authors' order.
    """
    parts = [_read_stl10_images(path) for path in (files[0], files[2], files[4])]
    labels = [_read_stl10_labels(path) for path in (files[1], files[3])]
    for part in (0, 1):
        check_same_length(str(files[2 * part + 1]), labels[part], files[2 * part].name, parts[part])
    # Hashed once: some seconds for the 3 GB of the unlabelled images.
    digests = [content_digest(path, "md5") for path in files]
    for path, digest in zip(files, digests, strict=True):
        compare_digests(path, digest, STL10_FILES[path.name])
    features = _cached_features(name, digests[::2], parts)
    note = (
        f"{N_FEATURES} features: HOG by scikit-image, not by the authors' code, and the colours of "
        "a thumbnail"
    )
    y = np.concatenate(labels)
    return _shuffled(name, features, y, class_names=_STL10_CLASSES, note=note)


def load_cifar10(name: str, files: Sequence[Path]) -> Dataset:
    """Read a sample of CIFAR-10 as the features of :func:`load_stl10`, in a fixed random order.

    The ``.npz`` file holds images [N 32 32 3] uint8, labels [N], names [C], and optionally
    unlabelled [M 32 32 3] uint8.
    """
    (path,) = files
    images, labels, names = (read_member(path, part) for part in ("images", "labels", "names"))
    if images is None or labels is None:
        raise ValueError(f"{path}: expected arrays named images and labels")
    _check_photographs(f"{path}: images", images)
    parts = [images]
    unlabelled = read_member(path, "unlabelled")
    if unlabelled is not None and len(unlabelled):
        _check_photographs(f"{path}: unlabelled", unlabelled)
        parts.append(unlabelled)
    y, class_names = encode_labels(f"{path}: labels", name_labels(path, labels, names), images)
    sizes = np.bincount(y)
    counts = f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
    note = (
        f"{len(images)} of CIFAR-10's images (classes of {counts}) from a copy that is lossy "
        f"(JPEG), enlarged to {SIDE}×{SIDE} pixels: a stand-in for STL-10, and not STL-10; "
        f"{N_FEATURES} features: HOG by scikit-image, and the colours of a thumbnail"
    )
    features = _cached_features(name, [content_digest(path)], parts)
    return _shuffled(name, features, y, class_names=class_names, note=note)


def _shuffled(name: str, features: np.ndarray, y: np.ndarray, **about: Any) -> Dataset:
    # The authors' code draws this order with this seed, then reads batches in sequence.
    random = np.random.RandomState(_SEED)
    order = random.permutation(len(y))
    unlabeled = None
    if len(features) > len(y):
        unlabeled = features[len(y) :][random.permutation(len(features) - len(y))]
    x = as_float32(name, features[order])
    return Dataset(x, y[order], name, unlabeled=unlabeled, **about)


def _cached_features(name: str, digests: Sequence[str], parts: Sequence[np.ndarray]) -> np.ndarray:
    n_images = sum(len(part) for part in parts)

    def compute() -> np.ndarray:
        _skimage_feature()
        _LOGGER.info("%s: features of %d images, some milliseconds each, once", name, n_images)
        features = np.empty((n_images, N_FEATURES), np.float32)
        start = 0
        for part in parts:
            for first in range(0, len(part), BLOCK):
                block = np.ascontiguousarray(part[first : first + BLOCK])
                features[start : start + len(block)] = image_features(block)
                start += len(block)
        return features

    return cached(
        name,
        ".npy",
        digests,
        {"version": VERSION, "n_images": [len(part) for part in parts]},
        compute,
        lambda file, features: np.save(file, features, allow_pickle=False),
        # Memory-mapped: the rows are copied once, into their final order.
        lambda path: np.load(path, mmap_mode="r", allow_pickle=False),
    )


def _skimage_feature() -> ModuleType:
    try:
        import skimage.feature
    except ImportError as error:
        raise ImportError(
            'features of images need scikit-image: pip install "jdec[vision]"'
        ) from error
    return skimage.feature


def _histograms(feature: ModuleType, image: np.ndarray) -> np.ndarray:
    blocks = feature.hog(
        image,
        orientations=_ORIENTATIONS,
        pixels_per_cell=(_CELL, _CELL),
        cells_per_block=(2, 2),
        block_norm="L2",
        feature_vector=False,
        channel_axis=-1,
    )
    blocks = np.minimum(blocks, 0.2)
    # An inner cell is the last, or the first, of two blocks in either direction.
    normalised = np.stack(
        [
            blocks[:-1, :-1, 1, 1],
            blocks[:-1, 1:, 1, 0],
            blocks[1:, :-1, 0, 1],
            blocks[1:, 1:, 0, 0],
        ],
        axis=2,
    )  # [rows, columns, normalisations, orientations]
    # The weights are those of Felzenszwalb's code.
    return np.concatenate([0.5 * normalised.sum(axis=2), 0.2357 * normalised.sum(axis=3)], axis=2)


def enlarge(images: np.ndarray) -> np.ndarray:
    """Resize images to :data:`SIDE` pixels, bilinearly."""
    size = images.shape[1]
    if size == SIDE:
        return images
    # Bilinear: where the centre of each new pixel lies between those of the old ones.
    centres = np.clip((np.arange(SIDE) + 0.5) * size / SIDE - 0.5, 0, size - 1)
    weights = np.maximum(1 - np.abs(centres[:, None] - np.arange(size)), 0).astype(np.float32)
    rows = np.einsum("ij,njkc->nikc", weights, images.astype(np.float32), optimize=True)
    return np.einsum("lk,nikc->nilc", weights, rows, optimize=True)


def _thumbnail_colours(images: np.ndarray) -> np.ndarray:
    # As OpenCV resizes and converts bytes: bilinear without smoothing, so that the four pixels in
    # the middle of each square count; whole numbers after each step.
    step = images.shape[1] // _THUMBNAIL
    first, second = (slice(step // 2 - shift, None, step) for shift in (1, 0))
    total = sum(
        images[:, rows, columns].astype(np.int32)
        for rows in (first, second)
        for columns in (first, second)
    )
    red, green, blue = np.moveaxis((np.asarray(total) + 2) >> 2, -1, 0)
    grey = np.rint(0.299 * red + 0.587 * green + 0.114 * blue)
    colours = np.stack([0.713 * (red - grey), 0.564 * (blue - grey)], axis=-1)
    return np.clip(np.rint(colours + 128), 0, 255).astype(np.float32)


def _read_stl10_images(path: Path) -> np.ndarray:
    with reading(path, "a readable file"):
        size = path.stat().st_size
    if size == 0 or size % _STL10_BYTES:
        raise ValueError(
            f"{path}: expected images of {_STL10_BYTES} bytes each (96×96 pixels, 3 colours), "
            f"got {size} bytes"
        )
    with reading(path, "a readable file"):
        pixels = np.memmap(path, np.uint8, mode="r", shape=(size // _STL10_BYTES, 3, SIDE, SIDE))
    return pixels.transpose(0, 3, 2, 1)  # each colour is stored column by column


def _read_stl10_labels(path: Path) -> np.ndarray:
    with reading(path, "a readable file"):
        labels = np.frombuffer(path.read_bytes(), np.uint8).astype(np.int64)
    wrong = (labels < 1) | (labels > len(_STL10_CLASSES))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"{path}: expected labels 1 to 10, got {labels[row]} in row {row}")
    return labels - 1


def _check_photographs(name: str, images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3):
        raise ValueError(
            f"{name}: expected uint8 [N 32 32 3], got {images.dtype} {list(images.shape)}"
        )
    if not len(images):
        raise ValueError(f"{name}: expected at least one image, got none")
