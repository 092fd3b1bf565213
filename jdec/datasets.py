"""Data sets by name or from a file. Labels are only handed on; nothing here trains with them."""

import contextlib
import dataclasses
import difflib
import logging
import math
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pooch
from sklearn.datasets import load_digits

from jdec._checks import as_rows, check_same_length, check_seed
from jdec._files import encode_labels, read_idx, read_member, read_numpy, read_table

_LOGGER = logging.getLogger("jdec")

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
_REUTERS10K_NOTE = (
    "rebuilt from a public sample of 30 000 RCV1 documents: not the 10 000 rows that the paper drew"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Rows and, where known, their classes.

    Attributes:
        x: Rows in their natural units, float32 [N D]: pixels 0 … 255 for mnist and fashion_mnist,
            0 … 16 for digits, rows of L2 norm 1 for reuters10k, a file's own values.
        y: Classes 0 … C-1, int64 [N], or None.
        name: The name asked for, or the file's name without its suffix.
        image_shape: Shape of a row as an image, (H, W) or (H, W, C), or None.
        n_train: Number of leading rows that are the training split, or None.
        class_names: Names of the classes 0 … C-1, or None.
        note: What to say beside any number made from these rows.
        variant: Which of several sources or recipes of that name the rows come from, such as
            ``paper`` or ``sample``; empty where there is but one.
        unlabeled: Further rows without classes, for pretraining alone, float32 [M D], or None.

    Examples:
        >>> Dataset(x=np.zeros((3, 2), np.float32), y=None, name="zeros").x.shape
        (3, 2)
    """

    x: np.ndarray
    y: np.ndarray | None
    name: str
    image_shape: tuple[int, ...] | None = None
    n_train: int | None = None
    class_names: tuple[str, ...] | None = None
    note: str = ""
    variant: str = ""
    unlabeled: np.ndarray | None = None


def imbalanced_subset(dataset: Dataset, min_retention_rate: float, *, seed: int) -> Dataset:
    """Drop rows at random so that the classes differ in size, the first one the smallest.

    Each row is kept by itself, with a probability that rises linearly from ``min_retention_rate``
    for class 0 to 1 for the last class.

    Args:
        dataset: Rows with at least two classes.
        min_retention_rate: Probability of keeping a row of class 0, in (0, 1].
        seed: Seed of the NumPy generator that draws the rows, 0 … 2**32 - 1.

    Returns:
        The rows kept, in their order. ``n_train`` counts those kept of the training split, the
        note says how they were drawn, and all else is as in ``dataset``.

    Raises:
        ValueError: If ``min_retention_rate`` is not in (0, 1], ``seed`` is no seed, or the data
            set has fewer than two classes.

    Examples:
        >>> x, y = np.zeros((3000, 2), np.float32), np.arange(3000) % 3
        >>> np.bincount(imbalanced_subset(Dataset(x, y, "zeros"), 0.1, seed=0).y)
        array([ 119,  551, 1000])

    Source: Xie et al. 2016, section 5.4 and Table 4.
    """
    try:
        rate = float(min_retention_rate)
    except (TypeError, ValueError):
        rate = math.nan
    if isinstance(min_retention_rate, bool | str) or not 0 < rate <= 1:
        raise ValueError(
            f"min_retention_rate: expected a number in (0, 1], got {min_retention_rate!r}"
        )
    check_seed("seed", seed)
    if dataset.y is None:
        raise ValueError(f"{dataset.name}: expected classes to draw by, got a data set without")
    n_classes = int(dataset.y.max(initial=-1)) + 1
    if n_classes < 2:
        raise ValueError(f"{dataset.name}: expected at least 2 classes, got {n_classes}")
    kept_rate = np.linspace(rate, 1, n_classes)[dataset.y]
    kept = np.random.default_rng(seed).random(len(dataset.y)) < kept_rate
    drawn = f"imbalanced: class 0 kept with probability {rate:g}, the last with 1 (seed {seed})"
    return dataclasses.replace(
        dataset,
        x=dataset.x[kept],
        y=dataset.y[kept],
        n_train=None if dataset.n_train is None else int(kept[: dataset.n_train].sum()),
        note="; ".join(filter(None, [dataset.note, drawn])),
    )


@dataclasses.dataclass(frozen=True)
class DatasetRow:
    """One line of the table of known data sets.

    Attributes:
        name: What :func:`load_dataset` takes.
        description: One line.
        shape: Rows, features, classes.
        path: The file or folder found, or None.
        downloadable: Whether :func:`download_dataset` can fetch it.
        built_in: Whether it needs no file at all.
    """

    name: str
    description: str
    shape: tuple[int, int, int]
    path: Path | None
    downloadable: bool
    built_in: bool


@dataclasses.dataclass(frozen=True)
class _Spec:
    description: str
    shape: tuple[int, int, int]
    load: Callable[[str, Sequence[Path]], Dataset]
    folders: tuple[str, ...] = ()
    #: Each file's name and, where ``url`` is given, its SHA256.
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    url: str = ""
    #: How to come by the data where there is no ``url``.
    advice: str = ""


def load_dataset(name: str | Path, *, data_dir: str | Path | None = None) -> Dataset:
    """Load a data set by name, or rows from a file. Nothing is downloaded.

    Files of a named data set are looked for in ``data_dir``, then in ``$JDEC_DATA_DIR``, then in
    the user's cache folder.

    Args:
        name: ``digits``, ``mnist``, ``fashion_mnist``, ``reuters10k``, or the path of a ``.npy``,
            ``.npz`` (dense or scipy-sparse), ``.csv``, ``.tsv`` or ``.parquet`` file. A column or
            array called y, label, labels, target or class becomes ``y``.
        data_dir: The folder to look in first.

    Returns:
        A :class:`Dataset`.

    Raises:
        ValueError: If the name is neither known nor a file, or the file cannot be used.
        FileNotFoundError: If files of a known data set are missing.
        ImportError: If a parquet file is given and pandas or pyarrow is not installed.

    Examples:
        >>> digits = load_dataset("digits")
        >>> digits.x.shape, digits.x.dtype, digits.image_shape
        ((1797, 64), dtype('float32'), (8, 8))
        >>> load_dataset("digit")
        Traceback (most recent call last):
        ValueError: name: expected one of digits, mnist, fashion_mnist, reuters10k, or a file;
        got 'digit', and no such file exists; did you mean 'digits'?
    """
    if isinstance(name, str) and name in _REGISTRY:
        return _REGISTRY[name].load(name, _find_files(name, data_dir))
    path = _as_path("name", name)
    if not name or not _exists(path):
        raise _unknown(name, or_a_file=True)
    return _load_file(path)


def download_dataset(
    name: str, *, data_dir: str | Path | None = None, progress: bool = False
) -> Path:
    """Fetch the files of a public data set and check their SHA256.

    Args:
        name: ``mnist`` or ``fashion_mnist``.
        data_dir: Where to make the data set's folder; by default ``$JDEC_DATA_DIR``, else the
            user's cache folder. A file there of the same name and another checksum is replaced.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The folder that holds the files.

    Raises:
        ValueError: If the name is unknown, has no public source, a checksum is wrong (nothing is
            kept then), or the folder cannot be written.
        OSError: If the source cannot be reached.

    Examples:
        >>> download_dataset("digits")
        Traceback (most recent call last):
        ValueError: digits: nothing to download: it comes with scikit-learn
    """
    if not isinstance(name, str) or name not in _REGISTRY:
        raise _unknown(name)
    spec = _REGISTRY[name]
    if not spec.url:
        raise ValueError(f"{name}: nothing to download: {spec.advice}")
    folder = _roots(data_dir)[0] / spec.folders[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"data_dir: expected a place to make {folder}, got an error: {error.strerror}"
        ) from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"data_dir: expected a folder that can be written, got {folder}")
    for file, sha256 in spec.files.items():
        _LOGGER.info("%s: fetching %s%s into %s", name, spec.url, file, folder)
        try:
            _retrieve(spec.url + file, sha256, folder / file, progress)
        except (OSError, ValueError) as error:
            kind = ValueError if isinstance(error, ValueError) else OSError
            reason = " ".join(str(error).split())
            raise kind(f"{name}: could not download {spec.url}{file}: {reason}") from error
    return folder


def dataset_table(data_dir: str | Path | None = None) -> list[DatasetRow]:
    """List the known data sets and where each was found.

    Args:
        data_dir: The folder to look in first, as in :func:`load_dataset`.

    Returns:
        One row per data set.

    Raises:
        ValueError: If ``data_dir`` is not a path.

    Examples:
        >>> [row.name for row in dataset_table()]
        ['digits', 'mnist', 'fashion_mnist', 'reuters10k']
    """
    rows = []
    for name, spec in _REGISTRY.items():
        try:
            files = _find_files(name, data_dir)
        except FileNotFoundError:
            files = []
        path = None
        if files:
            path = files[0] if len(files) == 1 else files[0].parent
        rows.append(
            DatasetRow(
                name, spec.description, spec.shape, path, bool(spec.url), built_in=not spec.files
            )
        )
    return rows


def _retrieve(url: str, sha256: str, path: Path, progress: bool) -> None:
    # pooch writes to stderr through a logger of its own; this library reports through "jdec".
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        pooch.retrieve(url, sha256, path.name, path.parent, progressbar=progress)
    finally:
        logger.setLevel(level)


def _unknown(name: Any, *, or_a_file: bool = False) -> ValueError:
    plain = str(name).lower().replace("-", "_").replace(" ", "_")
    close = difflib.get_close_matches(plain, _REGISTRY, n=1)
    return ValueError(
        f"name: expected one of {', '.join(_REGISTRY)}{', or a file' if or_a_file else ''}; "
        f"got {reprlib.repr(str(name))}{', and no such file exists' if or_a_file else ''}"
        f"{f'; did you mean {close[0]!r}?' if close else ''}"
    )


def _as_path(name: str, value: Any) -> Path:
    try:
        return Path(value).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{name}: expected a path, got {reprlib.repr(value)}") from error


def _exists(path: Path) -> bool:
    # Raises for a name that is too long and below a folder that may not be read.
    with contextlib.suppress(OSError):
        return path.exists()
    return False


def _roots(data_dir: str | Path | None) -> list[Path]:
    roots = [_as_path("data_dir", data_dir)] if data_dir is not None else []
    if os.environ.get("JDEC_DATA_DIR"):
        roots.append(_as_path("JDEC_DATA_DIR", os.environ["JDEC_DATA_DIR"]))
    roots.append(Path(pooch.os_cache("jdec")))
    return list(dict.fromkeys(roots))


def _find_files(name: str, data_dir: str | Path | None) -> list[Path]:
    spec, roots = _REGISTRY[name], _roots(data_dir)
    fewest_missing = list(spec.files)
    for folder in [root / folder for root in roots for folder in spec.folders]:
        found, missing = [], []
        for file in spec.files:
            # An idx file may have been unpacked.
            present = [
                path for path in (folder / file, folder / file.removesuffix(".gz")) if _exists(path)
            ]
            found += present[:1]
            missing += [] if present else [file]
        if not missing:
            return found
        fewest_missing = min(fewest_missing, missing, key=len)
    if not spec.files:
        return []
    how = f"run `jdec datasets --download {name}`" if spec.url else spec.advice
    raise FileNotFoundError(
        f"{name}: {fewest_missing[0]} not found in "
        f"{', '.join(str(root / folder) for root in roots for folder in spec.folders)}; {how}"
    )


def _load_file(path: Path) -> Dataset:
    table = read_table(path)
    x, shape = table.x, table.x.shape
    if len(shape) > 2:
        x = x.reshape(shape[0], math.prod(shape[1:]))
    x = as_rows(str(path), x)
    y, class_names = None, None
    if table.labels is not None:
        y, class_names = encode_labels(f"{path}: labels", table.labels, x)
    return Dataset(
        x, y, path.stem, shape[1:] if len(shape) in (3, 4) else None, class_names=class_names
    )


def _load_digits(name: str, files: Sequence[Path]) -> Dataset:
    bunch = load_digits()
    return Dataset(as_rows(name, bunch.data), bunch.target.astype(np.int64), name, (8, 8))


def _load_mnist(name: str, files: Sequence[Path]) -> Dataset:
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
    return Dataset(as_rows(name, x), y, name, (28, 28), n_train)


def _load_fashion_mnist(name: str, files: Sequence[Path]) -> Dataset:
    return dataclasses.replace(_load_mnist(name, files), class_names=_FASHION_CLASSES)


def _load_reuters10k(name: str, files: Sequence[Path]) -> Dataset:
    (path,) = files
    table = read_numpy(path)
    x = as_rows(str(path), table.x)
    norms = np.linalg.norm(x, axis=1)
    wrong = np.abs(norms - 1) > 1e-3
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"{path}: expected rows of L2 norm 1, got {norms[row]:.4g} in row {row}")
    if table.labels is None:
        raise ValueError(f"{path}: expected labels in an array named y, got none")
    labels, names = table.labels, read_member(path, "names")
    if names is not None and labels.dtype.kind in "iu":
        if labels.min(initial=0) < 0 or labels.max(initial=0) >= len(names):
            raise ValueError(f"{path}: expected labels 0 to {len(names) - 1} as it names classes")
        labels = names[labels]
    y, class_names = encode_labels(f"{path}: labels", labels, x)
    return Dataset(x, y, name, class_names=class_names, note=_REUTERS10K_NOTE)


# A new data set is one entry here and one loader above. The order is that of the table.
_REGISTRY: dict[str, _Spec] = {
    "digits": _Spec(
        description="handwritten digits, 8×8 pixels; comes with scikit-learn",
        shape=(1797, 64, 10),
        load=_load_digits,
        advice="it comes with scikit-learn",
    ),
    "mnist": _Spec(
        description="handwritten digits, 28×28 pixels, train and test split together",
        shape=(70_000, 784, 10),
        load=_load_mnist,
        folders=("mnist",),
        files={
            "train-images-idx3-ubyte.gz": (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
            ),
            "train-labels-idx1-ubyte.gz": (
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
            ),
            "t10k-images-idx3-ubyte.gz": (
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
            ),
        },
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    "fashion_mnist": _Spec(
        description="photos of clothing, 28×28 pixels, train and test split together",
        shape=(70_000, 784, 10),
        load=_load_fashion_mnist,
        folders=("fashion_mnist", "fashion-mnist"),
        files={
            "train-images-idx3-ubyte.gz": (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
            ),
            "train-labels-idx1-ubyte.gz": (
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
            ),
            "t10k-images-idx3-ubyte.gz": (
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
            ),
        },
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    "reuters10k": _Spec(
        description="news stories, TF-IDF of 2000 stems; not the rows that the paper drew",
        shape=(10_000, 2000, 4),
        load=_load_reuters10k,
        folders=("reuters", "."),
        files={"reuters10k.npz": ""},
        advice=(
            "no public file of this sample exists; place reuters/reuters10k.npz in the data "
            "folder, with arrays x [N 2000] (rows of L2 norm 1) and y [N] (CCAT, GCAT, MCAT, ECAT)"
        ),
    ),
}
