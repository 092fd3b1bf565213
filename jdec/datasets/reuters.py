"""RCV1 news stories as TF-IDF of the 2000 most frequent stems: reuters and reuters10k."""

import collections
import gzip
import logging
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import sklearn.datasets
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.preprocessing import normalize

from jdec._checks import as_float32
from jdec._environment import free_host_bytes
from jdec._files import read_member, read_numpy
from jdec._io import atomic_write, npz_headers, read_npz, unpacked_limit
from jdec._sparse import ENTRY_BYTES, sparse_matrix, sparse_shape
from jdec.datasets._cache import cached, read_arrays, save_arrays
from jdec.datasets._digests import content_digest
from jdec.datasets._labels import encode_labels
from jdec.datasets.dataset import Dataset

#: The classes: root categories of RCV1's topics.
ROOTS = ("CCAT", "ECAT", "GCAT", "MCAT")
TOPICS_FILE = "rcv1-v2.topics.qrels.gz"
#: In the order in which the authors' code reads them.
TOKEN_FILES = (
    *(f"lyrl2004_tokens_test_pt{part}.dat.gz" for part in range(4)),
    "lyrl2004_tokens_train.dat.gz",
)
#: What :func:`download_fetch_rcv1` makes of scikit-learn's copy, whose files are pickles.
FETCH_RCV1_FILE = "fetch_rcv1.npz"
N_STEMS = 2000
N_SUBSET = 10_000

_SEED = 1234  # of the authors' code
_MAX_COLUMNS = 1_000_000  # of scikit-learn's copy, which has 47 236
_LAST_TRAIN_ID = 26_150  # documents up to here are RCV1's training split
_BLOCK = 10_000  # documents at a time
_MAX_LINE = 2**20  # characters
_MAX_DOCUMENT = 2**24  # characters
_MAX_DOCUMENTS = 2**20  # of which RCV1 has 804 414
_MAX_STEMS = 2**20
_VERSION = 1  # of the numbers that the recipe gives: part of the name of what is cached
_SAMPLE_NOTE = (
    "rebuilt from a public sample of 30 000 RCV1 documents: not the 10 000 rows that the paper drew"
)
_PAPER_NOTE = "the authors' recipe on RCV1's token files: {} (seed 1234)"
_SCIKIT_LEARN_NOTE = (
    "from scikit-learn's fetch_rcv1: the documents are those of the paper, {} (seed 1234), but the "
    "TF-IDF is RCV1's own, over 47 236 stems; of these the 2000 in most documents, as counts are "
    "not to be had, and rows brought to L2 norm 1 again"
)

_LOGGER = logging.getLogger("jdec")


class _Documents(NamedTuple):
    """TF-IDF of the documents with one root, in the authors' order before their permutation."""

    x: Any  # CSR float32 [N D]
    y: np.ndarray  # int64 [N], into ROOTS


def load_tokens(name: str, files: Sequence[Path]) -> Dataset:
    """Follow the authors' recipe from RCV1's token files.

    Documents with exactly one root category; the 2000 most frequent stems; (1 + log tf) · idf;
    rows of L2 norm 1 (the paper's factor √2000 is the ``scale`` of the preset). The result, sparse,
    is kept in the user's cache.

    Args:
        name: reuters, or reuters10k for the first 10 000 rows of the same order.
        files: The topics, then the token files in the order of :data:`TOKEN_FILES`.

    Returns:
        Rows in the order of the authors' permutation, variant ``paper``.

    Raises:
        ValueError: If a file is damaged or another does not fit it, or the dense rows would not
            fit into memory.

    Source: Xie et al. 2016, section 4.1, and the authors' code; Lewis et al., JMLR 2004.
    """

    def compute() -> dict[str, np.ndarray]:
        _LOGGER.info("%s: counting the stems of RCV1, some minutes, once", name)
        documents = _count_tokens(files[0], files[1:])
        x = documents.x
        parts = {"data": x.data, "indices": x.indices, "indptr": x.indptr}
        return {**parts, "shape": np.array(x.shape), "y": documents.y}

    settings = {"version": _VERSION, "n_stems": N_STEMS}
    digests = [content_digest(path) for path in files]
    arrays = cached("reuters", ".npz", digests, settings, compute, save_arrays, read_arrays)
    x = scipy.sparse.csr_array(
        (arrays["data"], arrays["indices"], arrays["indptr"]), shape=tuple(arrays["shape"])
    )
    return _dense(name, _Documents(x, arrays["y"]), "paper", _PAPER_NOTE)


def load_fetch_rcv1(name: str, files: Sequence[Path]) -> Dataset:
    """Reduce scikit-learn's copy of RCV1 to the documents of the paper and 2000 stems.

    Args:
        name: reuters, or reuters10k for the first 10 000 rows of the same order.
        files: What :func:`download_fetch_rcv1` writes.

    Returns:
        Rows in the order of the authors' permutation, variant ``fetch_rcv1``.

    Raises:
        ValueError: If the file is damaged, or the dense rows would not fit into memory.

    Source: Lewis et al., JMLR 2004.
    """
    (path,) = files
    try:
        x, ids, roots = _read_fetch_rcv1(path)
    except (ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: expected what `jdec datasets --download reuters` makes, got an error: "
            f"{reason}; delete the file and run that again"
        ) from error
    # The authors read the test files first; within a split the order is the same.
    rows = np.argsort(ids <= _LAST_TRAIN_ID, kind="stable")
    rows = rows[roots[rows].sum(axis=1) == 1]
    x = x[rows].astype(np.float32)
    n_documents = np.bincount(x.indices, minlength=x.shape[1])
    stems = np.sort(np.argsort(-n_documents, kind="stable")[:N_STEMS])
    x = normalize(x[:, stems], copy=False)
    documents = _Documents(x, roots[rows].argmax(axis=1))
    return _dense(name, documents, "fetch_rcv1", _SCIKIT_LEARN_NOTE)


def load_sample(name: str, files: Sequence[Path]) -> Dataset:
    """Read finished rows from an ``.npz`` file.

    Args:
        name: Name of the data set.
        files: One file with x [N D], rows of L2 norm 1, and y [N], text or numbers into ``names``.

    Returns:
        The rows in the file's order, variant ``sample``.

    Raises:
        ValueError: If the file is damaged, or rows or labels are not as said.
    """
    (path,) = files
    table = read_numpy(path)
    x = as_float32(str(path), table.x)
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
    return Dataset(x, y, name, class_names=class_names, note=_SAMPLE_NOTE, variant="sample")


def scikit_learn_folder() -> Path:
    """Return where ``fetch_rcv1`` keeps RCV1, without making the folder as scikit-learn would."""
    home = os.environ.get("SCIKIT_LEARN_DATA") or "~/scikit_learn_data"
    return Path(home).expanduser() / "RCV1"


def download_fetch_rcv1(folder: Path, progress: bool) -> None:
    """Let scikit-learn fetch RCV1 (0.65 GB, checksums are its own), and convert it to arrays.

    scikit-learn keeps pickles, and reading one runs whatever code it holds: hence only here, where
    it was asked for, and never when the data set is loaded.

    Args:
        folder: Where to write :data:`FETCH_RCV1_FILE`. One that is there stays if it is intact.
        progress: Not used: scikit-learn shows none.

    Raises:
        OSError: If the source cannot be reached or a checksum is wrong.
        ValueError: If scikit-learn's files are damaged.
    """
    del progress
    path = folder / FETCH_RCV1_FILE
    if path.exists():
        try:
            _read_fetch_rcv1(path)
        except (ValueError, KeyError, TypeError) as error:
            _LOGGER.warning("%s: damaged, made again: %s", path, error)
        else:
            return
    pickles = scikit_learn_folder()
    _LOGGER.warning("reuters: fetched by scikit-learn, and its files in %s are unpickled", pickles)
    try:
        rcv1 = sklearn.datasets.fetch_rcv1(data_home=str(pickles.parent), download_if_missing=True)
        x, ids = scipy.sparse.csr_array(rcv1.data), np.asarray(rcv1.sample_id)
        columns = [rcv1.target_names.tolist().index(root) for root in ROOTS]
        roots = scipy.sparse.csc_array(rcv1.target)[:, columns].toarray() > 0
        if not len(x.indptr) - 1 == len(ids) == len(roots):
            raise ValueError("lengths differ")
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{pickles}: expected what scikit-learn's fetch_rcv1 keeps, got an error: {reason}; "
            "delete the folder and run `jdec datasets --download reuters` again"
        ) from error
    with atomic_write(path) as file:
        np.savez(
            file,
            allow_pickle=False,
            data=x.data.astype(np.float32),
            indices=x.indices,
            indptr=x.indptr,
            shape=np.array(x.shape),
            ids=ids.astype(np.int64),
            roots=roots,
        )


def _read_fetch_rcv1(path: Path) -> tuple[Any, np.ndarray, np.ndarray]:
    n_entries = math.prod(npz_headers(path)["data"].shape)
    if ENTRY_BYTES * n_entries > unpacked_limit(path.stat().st_size):
        raise ValueError(f"{n_entries} entries in a file of {path.stat().st_size} bytes")
    arrays = read_npz(path)
    shape, ids, roots = sparse_shape(arrays["shape"]), arrays["ids"], arrays["roots"]
    if not 0 < shape[1] <= _MAX_COLUMNS or ids.dtype.kind != "i" or ids.shape != shape[:1]:
        raise ValueError(f"a shape of {shape} for {len(ids)} documents")
    if roots.dtype != bool or roots.shape != (len(ids), len(ROOTS)):
        raise ValueError(f"roots of shape {roots.shape} for {len(ids)} documents")
    if arrays["data"].dtype != np.float32 or not np.isfinite(arrays["data"]).all():
        raise ValueError("numbers that are not finite, or not in float32")
    x = sparse_matrix("csr", arrays, shape)
    return x, ids, roots


def read_roots(path: Path) -> dict[int, str]:
    """Read the root category of each document from RCV1's topics.

    Args:
        path: ``rcv1-v2.topics.qrels``, gzipped or not: lines of topic, document and 1.

    Returns:
        Root by document; an empty text for a document with several roots, or none.

    Raises:
        ValueError: If the file is damaged or a line is not of that form.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "rcv1-v2.topics.qrels")
        ...     _ = path.write_text(os.linesep.join(["CCAT 1 1", "CCAT 2 1", "GCAT 2 1"]))
        ...     read_roots(path)
        {1: 'CCAT', 2: ''}

    Source: Lewis et al., JMLR 2004.
    """
    roots: dict[int, str] = {}
    known = frozenset(ROOTS)
    several = set()
    for number, line in enumerate(_lines(path), 1):
        fields = line.split()
        if len(fields) != 3 or fields[2] != "1" or not _is_document(fields[1]):
            raise ValueError(
                f"{path}: expected a topic, a document's number and 1, got {line.strip()[:60]!r} "
                f"in line {number}"
            )
        topic, document = fields[0], int(fields[1])
        if len(roots) > _MAX_DOCUMENTS:
            raise ValueError(f"{path}: expected at most {_MAX_DOCUMENTS} documents, got more")
        if topic not in known:
            roots.setdefault(document, "")
        elif roots.get(document, "") in ("", topic):
            roots[document] = topic
        else:
            several.add(document)
    if not roots:
        raise ValueError(f"{path}: expected topics of documents, got an empty file")
    return roots | dict.fromkeys(several, "")


def _count_tokens(topics: Path, files: Sequence[Path]) -> _Documents:
    roots = read_roots(topics)
    labels: list[int] = []
    analyze = CountVectorizer().build_analyzer()
    counts: collections.Counter[str] = collections.Counter()
    for label, text in _documents(topics, roots, files):
        labels.append(label)
        counts.update(analyze(text))
        if len(counts) > _MAX_STEMS:
            raise ValueError(f"{files[0]}: expected at most {_MAX_STEMS} stems, got more")
    # The second reading knows its columns, so no more than those ever lie in memory.
    stems = sorted(sorted(counts, key=lambda stem: (-counts[stem], stem))[:N_STEMS])
    if not stems:
        raise ValueError(f"{files[0]}: expected documents with a root in {topics}, got none")
    counter = CountVectorizer(vocabulary=stems, dtype=np.float32)
    texts = (text for _, text in _documents(topics, roots, files))
    blocks = [counter.transform(block) for block in _blocks(texts)]
    x = scipy.sparse.csr_array(scipy.sparse.vstack(blocks, format="csr"))
    del blocks
    x = TfidfTransformer(norm="l2", sublinear_tf=True).fit(x).transform(x, copy=False)
    return _Documents(scipy.sparse.csr_array(x), np.array(labels, np.int64))


def _documents(
    topics: Path, roots: dict[int, str], files: Sequence[Path]
) -> Iterator[tuple[int, str]]:
    """Yield the label and the text of each document that has one root, in the files' order."""
    seen: set[int] = set()
    for path in files:
        for document, text in _read_tokens(path):
            if document in seen:
                raise ValueError(f"{path}: expected each document once, got {document} again")
            if document not in roots:
                raise ValueError(f"{path}: document {document} has no entry in {topics}")
            seen.add(document)
            if roots[document]:
                yield ROOTS.index(roots[document]), text
    missing = [document for document, root in roots.items() if root and document not in seen]
    if missing:
        raise ValueError(
            f"{topics}: expected all its documents with one root in the token files, but "
            f"{len(missing)} are not there, such as {missing[0]}; a token file may be cut off"
        )


def _read_tokens(path: Path) -> Iterator[tuple[int, str]]:
    document: int | None = None
    lines: list[str] = []
    started = False  # whether the document's .W was seen
    size = 0

    def whole(number: int) -> tuple[int, str]:
        text = "".join(lines)
        if document is None or not text.strip():
            raise ValueError(
                f"{path}: expected tokens of document {document} before line {number}, got none"
            )
        return document, text

    number = 0
    for number, line in enumerate(_lines(path), 1):
        if line.startswith(".I"):
            if document is not None:
                yield whole(number)
            fields = line.split()
            if len(fields) != 2 or not _is_document(fields[1]):
                raise ValueError(
                    f"{path}: expected .I and a document's number, got {line.strip()[:60]!r} in "
                    f"line {number}"
                )
            document, lines, started, size = int(fields[1]), [], False, 0
        elif line.startswith(".W"):
            if document is None or started:
                raise ValueError(f"{path}: expected .I before .W in line {number}")
            started = True
        elif started:
            lines.append(line)
            size += len(line)
            if size > _MAX_DOCUMENT:
                raise ValueError(
                    f"{path}: expected at most {_MAX_DOCUMENT} characters of document {document}, "
                    f"got more in line {number}"
                )
        elif line.strip():
            raise ValueError(
                f"{path}: expected .I and .W before any token, got {line.strip()[:60]!r} in line "
                f"{number}"
            )
    if document is None:
        raise ValueError(f"{path}: expected documents, got none")
    yield whole(number + 1)


def _is_document(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        limit = unpacked_limit(path.stat().st_size)
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if gzipped
            else path.open(encoding="utf-8") as text
        ):
            while line := text.readline(_MAX_LINE):
                limit -= len(line)
                if limit < 0 or len(line) == _MAX_LINE:
                    raise ValueError("a line, or the whole text, is too long")
                yield line
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{path}: expected an intact text file, got an error: {reason}") from error


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    block: list[str] = []
    for text in texts:
        block.append(text)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block


def _dense(name: str, documents: _Documents, variant: str, note: str) -> Dataset:
    order = np.random.RandomState(_SEED).permutation(len(documents.y))
    if name == "reuters10k":
        order = order[:N_SUBSET]
        drawn = "the first 10 000 of their permutation"
    else:
        drawn = "all of their permutation"
    shape = (len(order), documents.x.shape[1])
    check_fits(name, shape)
    x = np.zeros(shape, np.float32)
    for start in range(0, len(order), _BLOCK):
        rows = order[start : start + _BLOCK]
        documents.x[rows].toarray(out=x[start : start + _BLOCK])
    return Dataset(
        as_float32(name, x),
        documents.y[order],
        name,
        class_names=ROOTS,
        note=note.format(drawn),
        variant=variant,
    )


def check_fits(name: str, shape: tuple[int, int]) -> None:
    """Raise unless dense float32 rows fit into the memory that is available.

    Args:
        name: What to call the rows in the error message.
        shape: N and D.

    Raises:
        ValueError: If they do not.
    """
    needed = 4 * shape[0] * shape[1]
    available = free_host_bytes()
    if available is not None and needed > available:
        raise ValueError(
            f"{name}: {shape[0]} × {shape[1]} dense float32 rows take {needed / 2**30:.3g} GiB, "
            f"and {available / 2**30:.3g} GiB of memory are available; use a machine with more, "
            "or a subset such as reuters10k"
        )
