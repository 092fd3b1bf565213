"""Images whose pixels are the features: digits, mnist, fashion_mnist."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sklearn.datasets

from jdec._checks import as_float32, check_same_length
from jdec._files import read_idx
from jdec.datasets.dataset import Dataset

_FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load_digits(name: str, files: Sequence[Path]) -> Dataset:
    """Take the digits that come with scikit-learn."""
    bunch = sklearn.datasets.load_digits()
    return Dataset(as_float32(name, bunch.data), bunch.target.astype(np.int64), name, (8, 8))


def load_mnist(name: str, files: Sequence[Path]) -> Dataset:
    """Read four idx files: images and labels of the training split, then of the test split.

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
    n_train = len(images[0])
    x = np.concatenate([part.reshape(-1, 28 * 28) for part in images], dtype=np.float32)
    y = np.concatenate(labels).astype(np.int64)
    return Dataset(as_float32(name, x), y, name, (28, 28), n_train)


def load_fashion_mnist(name: str, files: Sequence[Path]) -> Dataset:
    """Read what :func:`load_mnist` reads, with names for the classes."""
    return dataclasses.replace(load_mnist(name, files), class_names=_FASHION_CLASSES)
