"""Data sets by name or from a file: where their files are, and the table of the known ones."""

import contextlib
import dataclasses
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import platformdirs

from jdec._checks import as_path, shown
from jdec.datasets._roles import Choice, as_choice
from jdec.datasets.catalogue import SPECS, Source
from jdec.datasets.dataset import Dataset
from jdec.datasets.files import load_file


@dataclasses.dataclass(frozen=True)
class DatasetRow:
    """One line of the table of known data sets.

    Attributes:
        name: Name for :func:`load_dataset`.
        description: One line.
        shape: Rows, features, classes.
        path: The file or folder found, or None.
        downloadable: Whether :func:`jdec.datasets.download_dataset` can fetch it.
        built_in: Whether it needs no file at all.
        variant: :attr:`Dataset.variant` of the files found, or empty.
    """

    name: str
    description: str
    shape: tuple[int, int, int]
    path: Path | None
    downloadable: bool
    built_in: bool
    variant: str = ""


def load_dataset(
    name: str | Path,
    *,
    data_dir: str | Path | None = None,
    label: str | None = None,
    id: str | None = None,
    drop: Sequence[str] = (),
    image_shape: Sequence[int] | None = None,
) -> Dataset:
    """Load a data set by name, or rows from a file. Nothing is downloaded.

    Files of a named data set are searched for in ``data_dir``, then ``$JDEC_DATA_DIR``, then the
    user's cache folder. The options after ``data_dir`` describe the columns of a file.

    Args:
        name: A name in :func:`dataset_table`, or the path of a ``.npy``, ``.npz`` (dense or
            scipy-sparse), ``.csv``, ``.tsv``, ``.parquet``, ``.arrow``, ``.feather`` or ``.h5ad``
            file, or of a folder of files of Parquet or Arrow.
        data_dir: The folder to search first.
        label: Column, or array of an ``.npz`` file, with the classes; ``"none"`` or empty for none.
            By default the one called y, label, labels, target or class. Columns of a text file
            without a header are called 1, 2, ….
        id: Column of identifiers, kept as ``ids`` and not a feature.
        drop: Columns to leave out.
        image_shape: (height, width) or (height, width, channels) of rows that are images. Without
            it, arrays of bytes [N H W] and [N H W C] with 1, 3 or 4 channels are taken for images.

    Returns:
        A :class:`Dataset`; numbers from a file keep their precision.

    Raises:
        ValueError: If name, file or options cannot be used.
        FileNotFoundError: If files of a known data set are missing.
        ImportError: If pyarrow (Parquet, Arrow), anndata (``.h5ad``) or scikit-image (image
            features) is not installed.

    Examples:
        >>> digits = load_dataset("digits")
        >>> digits.x.shape, digits.x.dtype, digits.image_shape
        ((1797, 64), dtype('float32'), (8, 8))
        >>> load_dataset("digit")
        Traceback (most recent call last):
        ValueError: name: expected one of digits, mnist, fashion_mnist, pendigits, stl10, cifar10,
        reuters, reuters10k, or a file; got 'digit', and no such file exists; did you mean 'digits'?
    """
    choice = as_choice(label, id, drop)
    data_dir = None if data_dir is None else as_path("data_dir", data_dir)
    if isinstance(name, str) and name in SPECS:
        if choice != Choice() or image_shape is not None:
            raise ValueError(
                f"{name}: expected label, id, drop and image_shape for a file of your own alone, "
                "got one for a data set known by name"
            )
        source, files = _find_files(name, data_dir)
        return source.load(name, files)
    is_empty = isinstance(name, str) and not name
    if is_empty or not _exists(path := as_path("name", name)):
        raise unknown_name(name, or_a_file=True)
    return load_file(path, choice, image_shape)


def dataset_table(data_dir: str | Path | None = None) -> list[DatasetRow]:
    """List the known data sets and where each was found.

    Args:
        data_dir: The folder to search first, as in :func:`load_dataset`.

    Returns:
        One row per data set.

    Raises:
        ValueError: If ``data_dir`` is not a path.

    Examples:
        >>> " ".join(row.name for row in dataset_table())
        'digits mnist fashion_mnist pendigits stl10 cifar10 reuters reuters10k'
    """
    rows = []
    for name, spec in SPECS.items():
        path, variant = None, ""
        with contextlib.suppress(FileNotFoundError):
            source, files = _find_files(name, data_dir)
            variant = source.variant
            if files:
                path = files[0] if len(files) == 1 else files[0].parent
        built_in = not spec.files
        about = (name, spec.description, spec.shape, path, spec.downloadable, built_in, variant)
        rows.append(DatasetRow(*about))
    return rows


def unknown_name(name: Any, *, or_a_file: bool = False) -> ValueError:
    """Return an error that lists the known names, with the one closest to ``name``."""
    plain = name[:100] if isinstance(name, str) else ""
    plain = plain.lower().replace("-", "_").replace(" ", "_")
    close = difflib.get_close_matches(plain, SPECS, n=1)
    return ValueError(
        f"name: expected one of {', '.join(SPECS)}{', or a file' if or_a_file else ''}; "
        f"got {shown(str(name) if isinstance(name, Path) else name)}"
        f"{', and no such file exists' if or_a_file else ''}"
        f"{f'; did you mean {close[0]!r}?' if close else ''}"
    )


def _exists(path: Path) -> bool:
    # Raises for a name that is too long, or in a folder that is not readable.
    with contextlib.suppress(OSError):
        return path.exists()
    return False


def data_folders(data_dir: str | Path | None) -> list[Path]:
    """Return the folders to search for data, in order: the given one, the variable's, the cache."""
    given = {"data_dir": data_dir, "JDEC_DATA_DIR": os.environ.get("JDEC_DATA_DIR") or None}
    roots = [as_path(name, folder) for name, folder in given.items() if folder is not None]
    return list(dict.fromkeys([*roots, platformdirs.user_cache_path("jdec")]))


def _find_files(name: str, data_dir: str | Path | None) -> tuple[Source, list[Path]]:
    spec, roots = SPECS[name], data_folders(data_dir)
    # Of incomplete sources, the most complete one is reported.
    max_found, first_missing = -1, ""
    for source in (spec, *spec.alternatives):
        for folder in (root / folder for root in roots for folder in source.folders):
            found, missing = [], []
            for file in source.files:
                packed, unpacked = folder / file, folder / file.removesuffix(".gz")
                if _exists(packed) or _exists(unpacked):
                    found.append(packed if _exists(packed) else unpacked)
                else:
                    missing.append(file)
            if not missing:
                return source, found
            if len(found) > max_found:
                max_found, first_missing = len(found), missing[0]
    if not spec.files:
        return spec, []
    command = f"run `jdec datasets --download {name}`" if spec.downloadable else ""
    raise FileNotFoundError(
        f"{name}: {first_missing} not found in "
        f"{', '.join(str(root / folder) for root in roots for folder in spec.folders)}; "
        f"{'; '.join(filter(None, [command, spec.advice]))}"
    )
