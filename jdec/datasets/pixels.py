"""Images whose pixels are the features: digits, mnist, fashion_mnist."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sklearn.datasets

from jdec._checks import check_same_length
from jdec._files import idx_header, read_idx
from jdec._rows import as_float32
from jdec.datasets._digests import compare_digests
from jdec.datasets.dataset import Dataset

#: SHA256 of the public files, unpacked: training images and labels, then those for testing.
CONTENT = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion_mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}

_FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def load_digits(name: str, files: Sequence[Path]) -> Dataset:
    """Return the digits that come with scikit-learn."""
    bunch = sklearn.datasets.load_digits()
    return Dataset(as_float32(name, bunch.data), bunch.target.astype(np.int64), name, (8, 8))


def load_mnist(name: str, files: Sequence[Path]) -> Dataset:
    """Read four idx files: images and labels of the training split, then of the test split.

    A content other than the public file's is logged as a warning.

    Raises:
        ValueError: If a file is damaged, its images are not 28×28, or its labels not 0 … 9.
    """
    images, labels = [], []
    for image_file, label_file in (files[:2], files[2:]):
        images.append(read_idx(image_file, 3))
        labels.append(read_idx(label_file, 1))
        if images[-1].shape[1:] != (28, 28):
            raise ValueError(
                f"{image_file}: expected images of 28×28 pixels, got shape {images[-1].shape}"
            )
        check_same_length(str(label_file), labels[-1], image_file.name, images[-1])
        if labels[-1].max(initial=0) > 9:
            raise ValueError(f"{label_file}: expected labels 0 to 9, got {labels[-1].max()}")
    arrays = (images[0], labels[0], images[1], labels[1])
    for path, array, known in zip(files, arrays, CONTENT[name], strict=True):
        compare_digests(
            path, hashlib.sha256(idx_header(array) + array.tobytes()).hexdigest(), known
        )
    n_train = len(images[0])
    x = np.concatenate([part.reshape(-1, 28 * 28) for part in images], dtype=np.float32)
    y = np.concatenate(labels).astype(np.int64)
    return Dataset(as_float32(name, x), y, name, (28, 28), n_train)


def load_fashion_mnist(name: str, files: Sequence[Path]) -> Dataset:
    """Read what :func:`load_mnist` reads, with names for the classes."""
    return dataclasses.replace(load_mnist(name, files), class_names=_FASHION_CLASSES)
