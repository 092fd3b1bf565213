"""The known data sets: files, checksums, addresses and readers; those of pixels are read here."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from jdec._checks import check_same_length
from jdec._files import compare_digests, idx_header, read_idx
from jdec._rows import as_float32
from jdec.datasets import rcv1, reuters, vision
from jdec.datasets._roles import Choice
from jdec.datasets.dataset import Dataset
from jdec.datasets.files import load_file

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

_CLASS_NAMES = {
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
}


@dataclasses.dataclass(frozen=True)
class Source:
    """Files of one form that a data set can be read from."""

    load: Callable[[str, Sequence[Path]], Dataset]  # takes the data set's name, and the files
    folders: tuple[str, ...] = ()  # possible ones, within the folder for data
    # By name, the checksum where the file is public: SHA256, or MD5 where it comes in an archive.
    # One that ends in .gz may have been unpacked.
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    variant: str = ""  # as Dataset.variant


@dataclasses.dataclass(frozen=True)
class Spec(Source):
    """What is known about a data set; of its sources, the first that is complete is read."""

    description: str = ""
    shape: tuple[int, int, int] = (0, 0, 0)  # rows, features, classes
    alternatives: tuple[Source, ...] = ()
    url: str = ""  # to download the files from; ends in a slash
    archive: tuple[str, str] = ("", "")  # file there that holds them all, and its checksum
    fetch: Callable[[Path], None] | None = None  # downloads them into a folder by other means
    advice: str = ""  # how to obtain the data where not all of it can be downloaded

    @property
    def downloadable(self) -> bool:
        """Whether :func:`jdec.datasets.download_dataset` can fetch it."""
        return bool(self.url) or self.fetch is not None


def load_digits(name: str, files: Sequence[Path]) -> Dataset:
    """Return the digits that come with scikit-learn."""
    from sklearn.datasets import load_digits  # slow to import

    bunch = load_digits()
    return Dataset(as_float32(name, bunch.data), bunch.target.astype(np.int64), name, (8, 8))


def load_mnist(name: str, files: Sequence[Path]) -> Dataset:
    """Read four idx files: images and labels of the training split, then of the test split.

    A content other than the public file's is logged as a warning.
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
        digest = hashlib.sha256(idx_header(array) + array.tobytes()).hexdigest()
        compare_digests(path, digest, known)
    n_train = len(images[0])
    x = np.concatenate([part.reshape(-1, 28 * 28) for part in images], dtype=np.float32)
    y = np.concatenate(labels).astype(np.int64)
    return Dataset(as_float32(name, x), y, name, (28, 28), n_train, _CLASS_NAMES.get(name))


def load_pendigits(name: str, files: Sequence[Path]) -> Dataset:
    """Read a table of 16 columns, two coordinates of each of 8 points, and a column ``label``."""
    dataset = load_file(files[0], Choice(label="label"))
    if dataset.x.shape[1] != 16:
        raise ValueError(f"{files[0]}: expected 16 columns beside label, got {dataset.x.shape[1]}")
    x = as_float32(name, dataset.x)
    return dataclasses.replace(dataset, x=x, name=name, label_name=None)


def _idx_files(*digests: str) -> dict[str, str]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return {f"{name}-ubyte.gz": digest for name, digest in zip(names, digests, strict=True)}


_FOLDERS = ("reuters", ".")
_TOKEN_FILES = dict.fromkeys((rcv1.TOPICS_FILE, *rcv1.TOKEN_FILES), "")
_TOKENS = Source(reuters.load_tokens, _FOLDERS, _TOKEN_FILES, "paper")
_FETCHED = Source(reuters.load_fetch_rcv1, _FOLDERS, {reuters.FETCH_RCV1_FILE: ""}, "fetch_rcv1")
_SAMPLE = Source(reuters.load_sample, _FOLDERS, {"reuters10k.npz": ""}, "sample")
_TOKENS_ADVICE = (
    f"for the paper's own recipe place {rcv1.TOPICS_FILE} (of a08-topic-qrels), "
    "lyrl2004_tokens_train.dat.gz and lyrl2004_tokens_test_pt0.dat.gz to pt3 (of a12-token-files) "
    "of http://www.ai.mit.edu/projects/jmlr/papers/volume5/lewis04a/ in the folder reuters"
)

# A new data set is one entry here and one function that reads its files. The order is that of the
# table.
SPECS: dict[str, Spec] = {
    "digits": Spec(
        description="handwritten digits, 8×8 pixels; comes with scikit-learn",
        shape=(1797, 64, 10),
        load=load_digits,
        advice="it comes with scikit-learn",
    ),
    "mnist": Spec(
        description="handwritten digits, 28×28 pixels, train and test split together",
        shape=(70_000, 784, 10),
        load=load_mnist,
        folders=("mnist",),
        files=_idx_files(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    "fashion_mnist": Spec(
        description="photos of clothing, 28×28 pixels, train and test split together",
        shape=(70_000, 784, 10),
        load=load_mnist,
        folders=("fashion_mnist", "fashion-mnist"),
        files=_idx_files(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    "pendigits": Spec(
        description="digits written with a pen, as 8 points of the stroke; train and test together",
        shape=(10_992, 16, 10),
        load=load_pendigits,
        folders=("pendigits", "."),
        files={"pendigits.csv": ""},
        advice=(
            "place pendigits.tra and .tes of https://archive.ics.uci.edu/dataset/81, joined under "
            "a header x1,y1,…,x8,y8,label, as pendigits/pendigits.csv in the data folder"
        ),
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
        alternatives=(_FETCHED,),
        fetch=reuters.download_fetch_rcv1,
        advice=_TOKENS_ADVICE,
    ),
    "reuters10k": Spec(
        **vars(_TOKENS),
        description="news stories, TF-IDF of 2000 stems; 10 000 of reuters, or a sample",
        shape=(reuters.N_SUBSET, reuters.N_STEMS, 4),
        alternatives=(_FETCHED, _SAMPLE),
        advice=(
            "run `jdec datasets --download reuters` for scikit-learn's copy of all of them; or "
            f"{_TOKENS_ADVICE}; or place reuters/reuters10k.npz in the data folder, with arrays x "
            "[N 2000] (rows of L2 norm 1) and y [N] (CCAT, GCAT, MCAT, ECAT)"
        ),
    ),
}
