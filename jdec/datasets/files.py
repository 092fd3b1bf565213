"""Rows from a file of the user, by its suffix."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from jdec._checks import shown
from jdec._columns import identifier_columns
from jdec._files import Table, read_numpy, reading
from jdec._rows import as_rows
from jdec._sources import as_source
from jdec.datasets import _arrow_files
from jdec.datasets._anndata import read_anndata
from jdec.datasets._arrow import read_arrow, read_arrow_folder
from jdec.datasets._labels import encode_labels
from jdec.datasets._roles import Choice, way_out
from jdec.datasets._text import read_text
from jdec.datasets.dataset import Dataset

#: Suffixes that :func:`load_file` can read.
SUFFIXES = (".npy", ".npz", ".csv", ".tsv", *_arrow_files.SUFFIXES, ".h5ad")

_LOGGER = logging.getLogger("jdec")
_CHANNELS = (1, 3, 4)


def load_file(path: Path, choice: Choice, image_shape: Any = None) -> Dataset:
    """Read a file with one of :data:`SUFFIXES` as a data set of the file's name."""
    image_shape = _check_image_shape(image_shape)
    table = _read(path, choice)
    names, shape = table.feature_names, table.x.shape
    if len(shape) > 2:
        image_shape = _array_image_shape(path, table.x, image_shape)
    y, class_names = None, None
    if table.labels is not None and table.x.ndim > 0:
        name = f"{path}: {table.label_name or 'labels'}"
        y, class_names = encode_labels(name, table.labels, table.x)
    x = _as_matrix(path, table.x, names)
    if image_shape is not None and math.prod(image_shape) != x.shape[1]:
        expected = f"{x.shape[1]} entries as x has columns"
        raise ValueError(f"{path}: image_shape: expected {expected}, got {image_shape}")
    dataset = Dataset(
        x,
        y,
        path.stem,
        image_shape,
        class_names=class_names,
        feature_names=names,
        label_name=table.label_name,
        ids=table.ids,
    )
    if path.suffix.lower() not in (".npy", ".npz"):
        _warn_of_columns(path, dataset, choice)
    return dataset


def _read(path: Path, choice: Choice) -> Table:
    if path.is_dir():
        with reading(path, "a readable folder"):
            every = sorted(path.iterdir())
        if files := [file for file in every if file.suffix.lower() in _arrow_files.SUFFIXES]:
            return read_arrow_folder(path, files, choice)
        raise ValueError(
            f"{path}: expected a file, or a folder of {' or '.join(_arrow_files.SUFFIXES)} files, "
            "got another folder; for a known data set pass its name, and the folder above as "
            "data_dir"
        )
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a file of type {', '.join(SUFFIXES)}; got {suffix!r}")
    with reading(path, "a readable file"):
        size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path}: expected data, got an empty file")
    if suffix in _arrow_files.SUFFIXES:
        return read_arrow(path, choice)
    if suffix == ".h5ad":
        return read_anndata(path, choice)
    if suffix in (".csv", ".tsv"):
        return read_text(path, "\t" if suffix == ".tsv" else ",", choice)
    if choice.id is not None or choice.drop:
        raise ValueError(
            f"{path}: id, drop: expected none for {suffix}, whose columns have no names; got "
            f"{shown(choice.id or choice.drop[0])}"
        )
    return read_numpy(path, choice.label)


def _check_image_shape(image_shape: Any) -> tuple[int, ...] | None:
    if image_shape is None:
        return None
    try:
        sizes = tuple(image_shape)
    except TypeError:
        sizes = ()
    whole = all(isinstance(size, int | np.integer) and 1 <= size < 2**31 for size in sizes)
    if isinstance(image_shape, str) or len(sizes) not in (2, 3) or not whole:
        raise ValueError(
            "image_shape: expected (height, width) or (height, width, channels), "
            f"got {shown(image_shape)}"
        )
    return tuple(int(size) for size in sizes)


def _array_image_shape(
    path: Path, x: np.ndarray, image_shape: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    shape = x.shape[1:]
    if image_shape is not None:
        if image_shape not in (shape, (*shape, 1), shape[:-1] if shape[-1] == 1 else shape):
            raise ValueError(
                f"{path}: image_shape: expected {shape} as the array has, got {image_shape}; for "
                "another order of its axes store it so"
            )
        return image_shape
    text, size = "×".join(map(str, shape)), math.prod(shape)
    if x.dtype == np.uint8 and (len(shape) == 2 or (len(shape) == 3 and shape[2] in _CHANNELS)):
        _LOGGER.warning(
            "%s: rows are taken for images of shape %s, being bytes; store them as [N, %d] if they "
            "are not, and give --image-shape (image_shape=) for other arrays",
            *(path, text, size),
        )
        return shape
    _LOGGER.warning(
        "%s: each row of shape %s is flattened to %d features, and is not taken for an image; "
        "if it is one, give its height, width and channels by --image-shape (image_shape=)",
        *(path, text, size),
    )
    return None


def _as_matrix(path: Path, x: Any, names: Sequence[str] | None) -> Any:
    if scipy.sparse.issparse(x):
        as_source(str(path), x)
        return x
    if x.ndim > 2:
        x = x.reshape(x.shape[0], math.prod(x.shape[1:]))
    if x.dtype.kind in "iuf" and not x.dtype.isnative:
        native = x.dtype.newbyteorder("=")
        x = x.byteswap(inplace=True).view(native) if x.flags.writeable else x.astype(native)
    x = as_rows(str(path), x, columns=names)
    return x.astype(np.float32) if x.dtype == np.float16 else x


def _warn_of_columns(path: Path, dataset: Dataset, choice: Choice) -> None:
    x, y, names = dataset.x, dataset.y, dataset.feature_names
    for name in identifier_columns(x, names or [str(place + 1) for place in range(x.shape[1])]):
        _LOGGER.warning(
            "%s: column %r seems to number the rows, not to measure something; %s",
            *(path, name, way_out(name)),
        )
    if y is not None and choice.label is None and 10 <= len(y) < 2 * (n_classes := y.max() + 1):
        _LOGGER.warning(
            "%s: column %r is taken for the classes, and has %d of them in %d rows; say "
            "--label none (label='none') if it is a feature",
            *(path, dataset.label_name, n_classes, len(y)),
        )
