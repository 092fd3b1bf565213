"""Named data sets: locations, downloads, readers."""

import contextlib
import dataclasses
import difflib
import logging
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from jdec._checks import as_path, shown
from jdec._io import atomic_write
from jdec.datasets import pixels, reuters, vision
from jdec.datasets._digests import compare_digests, content_digest
from jdec.datasets._roles import Choice, check_choice
from jdec.datasets.dataset import Dataset
from jdec.datasets.files import load_file

_LOGGER = logging.getLogger("jdec")


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
        variant: As :attr:`Dataset.variant` would be of what was found, or empty.
    """

    name: str
    description: str
    shape: tuple[int, int, int]
    path: Path | None
    downloadable: bool
    built_in: bool
    variant: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
    """Files of one form that a data set can be read from.

    Attributes:
        load: Reads the files, in the order of ``files``, as the data set of that name.
        folders: Where they may lie within the folder for data.
        files: Each file's name and, where it is public, its checksum: SHA256, or MD5 where it
            comes in an archive. One that ends in .gz may have been unpacked.
        variant: As :attr:`Dataset.variant`.
    """

    load: Callable[[str, Sequence[Path]], Dataset]
    folders: tuple[str, ...] = ()
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    variant: str = ""


@dataclasses.dataclass(frozen=True)
class Spec(Source):
    """What is known about a data set.

    Attributes:
        description: One line.
        shape: Rows, features, classes.
        alternatives: Further sources, for when the first one is not here.
        url: Where to download the files from; ends in a slash.
        archive: File there that holds the files, and its checksum, if they are not there singly.
        fetch: Downloads them by other means, into a folder.
        advice: How to come by the data where it cannot be downloaded, or not all of it.
    """

    description: str = ""
    shape: tuple[int, int, int] = (0, 0, 0)
    alternatives: tuple[Source, ...] = ()
    url: str = ""
    archive: tuple[str, str] = ("", "")
    fetch: Callable[[Path, bool], None] | None = None
    advice: str = ""

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources, the preferred one first."""
        return (self, *self.alternatives)

    @property
    def downloadable(self) -> bool:
        """Whether :func:`download_dataset` can fetch it."""
        return bool(self.url) or self.fetch is not None


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

    Files of a named data set are looked for in ``data_dir``, then in ``$JDEC_DATA_DIR``, then in
    the user's cache folder. The options after ``data_dir`` say what the columns of a file are.

    Args:
        name: ``digits``, ``mnist``, ``fashion_mnist``, ``stl10``, ``cifar10``, ``reuters``,
            ``reuters10k``, or the path of a ``.npy``, ``.npz`` (dense or scipy-sparse), ``.csv``,
            ``.tsv`` or ``.parquet`` file.
        data_dir: The folder to look in first.
        label: Column, or array of an ``.npz`` file, that holds the classes; ``"none"`` or empty
            where there is none. By default the one called y, label, labels, target or class.
            Columns of a text file without a header are called 1, 2, ….
        id: Column of identifiers, which is kept as ``ids`` and is no feature.
        drop: Columns to leave out.
        image_shape: (height, width) or (height, width, channels) of rows that are images. Without
            it, arrays of bytes [N H W] and [N H W C] with 1, 3 or 4 channels are taken for images.

    Returns:
        A :class:`Dataset`; numbers from a file keep their precision.

    Raises:
        ValueError: If the name is neither known nor a file, the file cannot be used, or an option
            does not fit it.
        FileNotFoundError: If files of a known data set are missing.
        ImportError: If a parquet file is given and pyarrow is not installed, or features
            of images are to be computed and scikit-image is not.

    Examples:
        >>> digits = load_dataset("digits")
        >>> digits.x.shape, digits.x.dtype, digits.image_shape
        ((1797, 64), dtype('float32'), (8, 8))
        >>> load_dataset("digit")
        Traceback (most recent call last):
        ValueError: name: expected one of digits, mnist, fashion_mnist, stl10, cifar10, reuters,
        reuters10k, or a file; got 'digit', and no such file exists; did you mean 'digits'?
    """
    choice = check_choice(label, id, drop)
    if data_dir is not None:
        data_dir = as_path("data_dir", data_dir)
    if isinstance(name, str) and name in REGISTRY:
        if choice != Choice() or image_shape is not None:
            raise ValueError(
                f"{name}: expected label, id, drop and image_shape for a file of your own alone, "
                "got one for a data set known by name"
            )
        source, files = _find_files(name, data_dir)
        return source.load(name, files)
    if isinstance(name, str) and not name:
        raise _unknown(name, or_a_file=True)
    path = as_path("name", name)
    if not _exists(path):
        raise _unknown(name, or_a_file=True)
    return load_file(path, choice, image_shape)


def download_dataset(
    name: str, *, data_dir: str | Path | None = None, progress: bool = False
) -> Path:
    """Fetch the files of a public data set and check their checksums.

    Args:
        name: ``mnist``, ``fashion_mnist``, ``stl10`` or ``reuters``; the last is fetched by
            scikit-learn, whose files are pickles: they are read once, here, and what is kept is
            arrays.
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
    if not isinstance(name, str) or name not in REGISTRY:
        raise _unknown(name)
    spec = REGISTRY[name]
    if not spec.downloadable:
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
    if spec.fetch is not None:
        with _reported(name, "it by scikit-learn"):
            spec.fetch(folder, progress)
        return folder
    if spec.archive[0]:
        missing = [
            file for file, known in spec.files.items() if not _is_whole(folder / file, known)
        ]
        if missing:
            _unpack(name, spec, folder, missing, progress)
        return folder
    for file, sha256 in spec.files.items():
        _LOGGER.info("%s: fetching %s%s into %s", name, spec.url, file, folder)
        with _reported(name, spec.url + file):
            _retrieve(spec.url + file, sha256, folder / file, progress)
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
        ['digits', 'mnist', 'fashion_mnist', 'stl10', 'cifar10', 'reuters', 'reuters10k']
    """
    rows = []
    for name, spec in REGISTRY.items():
        files: list[Path] = []
        variant = ""
        with contextlib.suppress(FileNotFoundError):
            source, files = _find_files(name, data_dir)
            variant = source.variant
        path = None
        if files:
            path = files[0] if len(files) == 1 else files[0].parent
        rows.append(
            DatasetRow(
                name,
                spec.description,
                spec.shape,
                path,
                spec.downloadable,
                built_in=not spec.files,
                variant=variant,
            )
        )
    return rows


def _retrieve(url: str, sha256: str, path: Path, progress: bool) -> None:
    import pooch  # in a notebook, importing it asks for ipywidgets

    # It writes to stderr through a logger of its own; this library reports through "jdec".
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        pooch.retrieve(url, sha256, path.name, path.parent, progressbar=progress)
    except OSError as error:
        # pooch leaves the connection of an answer such as 404 open.
        response = getattr(error, "response", None)
        if response is not None:
            response.close()
        raise
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _reported(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else OSError
        reason = " ".join(str(error).split())
        raise kind(f"{name}: could not download {what}: {reason}") from error


def _is_whole(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    digest = content_digest(path, "md5")
    compare_digests(path, digest, md5)
    return digest == md5


def _unpack(name: str, spec: Spec, folder: Path, missing: Sequence[str], progress: bool) -> None:
    archive, checksum = spec.archive
    _LOGGER.info("%s: fetching %s%s into %s", name, spec.url, archive, folder)
    with _reported(name, spec.url + archive):
        _retrieve(spec.url + archive, checksum, folder / archive, progress)
    wanted = set(missing)
    try:
        with tarfile.open(folder / archive) as members:
            for member in members:
                file = Path(member.name).name
                content = members.extractfile(member) if file in wanted else None
                if content is not None:
                    with atomic_write(folder / file) as target:
                        shutil.copyfileobj(content, target)
                    wanted.discard(file)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ValueError(f"{folder / archive}: could not be unpacked: {error}") from error
    if wanted:
        raise ValueError(
            f"{folder / archive}: expected {sorted(wanted)[0]} in it, got an archive without"
        )
    # Already extracted; free the disk space.
    (folder / archive).unlink()


def _unknown(name: Any, *, or_a_file: bool = False) -> ValueError:
    plain = name[:100] if isinstance(name, str) else ""
    plain = plain.lower().replace("-", "_").replace(" ", "_")
    close = difflib.get_close_matches(plain, REGISTRY, n=1)
    return ValueError(
        f"name: expected one of {', '.join(REGISTRY)}{', or a file' if or_a_file else ''}; "
        f"got {shown(str(name) if isinstance(name, Path) else name)}"
        f"{', and no such file exists' if or_a_file else ''}"
        f"{f'; did you mean {close[0]!r}?' if close else ''}"
    )


def _exists(path: Path) -> bool:
    # Raises for a name that is too long and below a folder that may not be read.
    with contextlib.suppress(OSError):
        return path.exists()
    return False


def _roots(data_dir: str | Path | None) -> list[Path]:
    roots = [as_path("data_dir", data_dir)] if data_dir is not None else []
    if os.environ.get("JDEC_DATA_DIR"):
        roots.append(as_path("JDEC_DATA_DIR", os.environ["JDEC_DATA_DIR"]))
    roots.append(platformdirs.user_cache_path("jdec"))
    return list(dict.fromkeys(roots))


def _find_files(name: str, data_dir: str | Path | None) -> tuple[Source, list[Path]]:
    spec, roots = REGISTRY[name], _roots(data_dir)
    # Report the most complete source.
    most, first_missing = -1, ""
    for source in spec.sources:
        for folder in (root / folder for root in roots for folder in source.folders):
            found, missing = [], []
            for file in source.files:
                present = [
                    path
                    for path in (folder / file, folder / file.removesuffix(".gz"))
                    if _exists(path)
                ]
                found += present[:1]
                missing += [] if present else [file]
            if not missing:
                return source, found
            if len(found) > most:
                most, first_missing = len(found), missing[0]
    if not spec.files:
        return spec, []
    command = f"run `jdec datasets --download {name}`" if spec.downloadable else ""
    raise FileNotFoundError(
        f"{name}: {first_missing} not found in "
        f"{', '.join(str(root / folder) for root in roots for folder in spec.folders)}; "
        f"{'; '.join(filter(None, [command, spec.advice]))}"
    )


_TOKENS = Source(
    load=reuters.load_tokens,
    folders=("reuters", "."),
    files=dict.fromkeys((reuters.TOPICS_FILE, *reuters.TOKEN_FILES), ""),
    variant="paper",
)
_FETCH_RCV1 = Source(
    load=reuters.load_fetch_rcv1,
    folders=("reuters", "."),
    files={reuters.FETCH_RCV1_FILE: ""},
    variant="fetch_rcv1",
)
_TOKENS_ADVICE = (
    f"for the paper's own recipe place {reuters.TOPICS_FILE} (of a08-topic-qrels), "
    "lyrl2004_tokens_train.dat.gz and lyrl2004_tokens_test_pt0.dat.gz to pt3 (of a12-token-files) "
    "of http://www.ai.mit.edu/projects/jmlr/papers/volume5/lewis04a/ in the folder reuters"
)

# A new data set is one entry here and one function that reads its files, in a module beside this
# one. The order is that of the table.
REGISTRY: dict[str, Spec] = {
    "digits": Spec(
        description="handwritten digits, 8×8 pixels; comes with scikit-learn",
        shape=(1797, 64, 10),
        load=pixels.load_digits,
        advice="it comes with scikit-learn",
    ),
    "mnist": Spec(
        description="handwritten digits, 28×28 pixels, train and test split together",
        shape=(70_000, 784, 10),
        load=pixels.load_mnist,
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
    "fashion_mnist": Spec(
        description="photos of clothing, 28×28 pixels, train and test split together",
        shape=(70_000, 784, 10),
        load=pixels.load_fashion_mnist,
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
    "stl10": Spec(
        description="photos, 96×96 pixels, as HOG and colours; 100 000 more are unlabelled",
        shape=(13_000, vision.N_FEATURES, 10),
        load=vision.load_stl10,
        folders=("stl10_binary", "stl10/stl10_binary", "stl10"),
        files=vision.STL10_FILES,
        url="http://ai.stanford.edu/~acoates/stl10/",
        archive=("stl10_binary.tar.gz", "md5:91f7769df0f17e558f3565bffb0c7dfb"),
    ),
    "cifar10": Spec(
        description="photos of a sample of CIFAR-10, as the features of stl10: its stand-in",
        shape=(13_000, vision.N_FEATURES, 10),
        load=vision.load_cifar10,
        folders=("cifar10", "."),
        files={"cifar10_13k.npz": ""},
        advice=(
            "no public file of this sample exists; place cifar10/cifar10_13k.npz in the data "
            "folder, with arrays images [N 32 32 3] (uint8), labels [N] (0 … 9), names [10] and "
            "unlabelled [M 32 32 3]"
        ),
    ),
    "reuters": Spec(
        **vars(_TOKENS),
        description="news stories, TF-IDF of 2000 stems; all with one root category",
        shape=(685_071, reuters.N_STEMS, 4),
        alternatives=(_FETCH_RCV1,),
        fetch=reuters.download_fetch_rcv1,
        advice=_TOKENS_ADVICE,
    ),
    "reuters10k": Spec(
        **vars(_TOKENS),
        description="news stories, TF-IDF of 2000 stems; 10 000 of reuters, or a sample",
        shape=(reuters.N_SUBSET, reuters.N_STEMS, 4),
        alternatives=(
            _FETCH_RCV1,
            Source(
                load=reuters.load_sample,
                folders=("reuters", "."),
                files={"reuters10k.npz": ""},
                variant="sample",
            ),
        ),
        advice=(
            "run `jdec datasets --download reuters` for scikit-learn's copy of all of them; or "
            f"{_TOKENS_ADVICE}; or place reuters/reuters10k.npz in the data folder, with arrays x "
            "[N 2000] (rows of L2 norm 1) and y [N] (CCAT, GCAT, MCAT, ECAT)"
        ),
    ),
}
