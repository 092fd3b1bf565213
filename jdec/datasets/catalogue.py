"""The known data sets, as data: files, checksums, folders, addresses and readers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jdec.datasets import pixels, rcv1, reuters, vision
from jdec.datasets.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Source:
    """Files of one form that a data set can be read from.

    Attributes:
        load: Reads the files, in the order of ``files``, as the data set of that name.
        folders: Possible folders, within the folder for data.
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
        alternatives: Further sources, tried if the first one is missing.
        url: Where to download the files from; ends in a slash.
        archive: File there that holds the files, and its checksum; empty for single files.
        fetch: Downloads them by other means, into a folder.
        advice: How to obtain the data where it cannot be downloaded, or not all of it.
    """

    description: str = ""
    shape: tuple[int, int, int] = (0, 0, 0)
    alternatives: tuple[Source, ...] = ()
    url: str = ""
    archive: tuple[str, str] = ("", "")
    fetch: Callable[[Path], None] | None = None
    advice: str = ""

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources, the preferred one first."""
        return (self, *self.alternatives)

    @property
    def downloadable(self) -> bool:
        """Whether :func:`jdec.datasets.download_dataset` can fetch it."""
        return bool(self.url) or self.fetch is not None


def _idx_files(*digests: str) -> dict[str, str]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return {f"{name}-ubyte.gz": digest for name, digest in zip(names, digests, strict=True)}


_TOKEN_SOURCE = Source(
    load=reuters.load_tokens,
    folders=("reuters", "."),
    files=dict.fromkeys((rcv1.TOPICS_FILE, *rcv1.TOKEN_FILES), ""),
    variant="paper",
)
_FETCH_RCV1 = Source(
    load=reuters.load_fetch_rcv1,
    folders=("reuters", "."),
    files={reuters.FETCH_RCV1_FILE: ""},
    variant="fetch_rcv1",
)
_TOKENS_ADVICE = (
    f"for the paper's own recipe place {rcv1.TOPICS_FILE} (of a08-topic-qrels), "
    "lyrl2004_tokens_train.dat.gz and lyrl2004_tokens_test_pt0.dat.gz to pt3 (of a12-token-files) "
    "of http://www.ai.mit.edu/projects/jmlr/papers/volume5/lewis04a/ in the folder reuters"
)

# A new data set is one entry here and one function that reads its files, in a module beside this
# one. The order is that of the table.
SPECS: dict[str, Spec] = {
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
        load=pixels.load_fashion_mnist,
        folders=("fashion_mnist", "fashion-mnist"),
        files=_idx_files(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
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
        **vars(_TOKEN_SOURCE),
        description="news stories, TF-IDF of 2000 stems; all with one root category",
        shape=(685_071, reuters.N_STEMS, 4),
        alternatives=(_FETCH_RCV1,),
        fetch=reuters.download_fetch_rcv1,
        advice=_TOKENS_ADVICE,
    ),
    "reuters10k": Spec(
        **vars(_TOKEN_SOURCE),
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
