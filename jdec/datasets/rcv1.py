"""RCV1's own text files: the topics of its documents, and their tokens."""

import collections
import gzip
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from jdec._archives import unpacked_limit
from jdec._files import reading

#: The classes: root categories of RCV1's topics.
ROOTS = ("CCAT", "ECAT", "GCAT", "MCAT")
TOPICS_FILE = "rcv1-v2.topics.qrels.gz"
#: In the order in which the authors' code reads them.
TOKEN_FILES = (
    *(f"lyrl2004_tokens_test_pt{part}.dat.gz" for part in range(4)),
    "lyrl2004_tokens_train.dat.gz",
)

_MAX_LINE = 2**20  # characters
_MAX_DOCUMENT = 2**24  # characters
_MAX_DOCUMENTS = 2**20  # of which RCV1 has 804 414
_MAX_STEMS = 2**20


def read_roots(path: Path) -> dict[int, str]:
    """Read the root category of each document, or an empty text if it has several, or none.

    The file, gzipped or not, has lines of topic, document and 1 (Lewis et al., JMLR 2004).
    """
    roots: dict[int, str] = {}
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
        if topic not in ROOTS:
            roots.setdefault(document, "")
        elif roots.get(document, "") in ("", topic):
            roots[document] = topic
        else:
            several.add(document)
    if not roots:
        raise ValueError(f"{path}: expected topics of documents, got an empty file")
    return roots | dict.fromkeys(several, "")


def count_tokens(
    topics: Path, files: Sequence[Path], *, n_stems: int, block_size: int
) -> tuple[Any, np.ndarray]:
    """Return TF-IDF, CSR float32 [N D], of the most frequent stems, and classes [N] into ROOTS.

    They are of the documents with one root, in the authors' order before their permutation.
    """
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer  # slow to import

    roots = read_roots(topics)
    labels: list[int] = []
    analyze = CountVectorizer().build_analyzer()
    counts: collections.Counter[str] = collections.Counter()
    for label, text in _documents(topics, roots, files):
        labels.append(label)
        counts.update(analyze(text))
        if len(counts) > _MAX_STEMS:
            raise ValueError(f"{files[0]}: expected at most {_MAX_STEMS} stems, got more")
    # The second pass knows its columns, so that no others take memory.
    stems = sorted(sorted(counts, key=lambda stem: (-counts[stem], stem))[:n_stems])
    if not stems:
        raise ValueError(f"{files[0]}: expected documents with a root in {topics}, got none")
    counter = CountVectorizer(vocabulary=stems, dtype=np.float32)
    texts = (text for _, text in _documents(topics, roots, files))
    blocks = iter(lambda: list(itertools.islice(texts, block_size)), [])
    x = scipy.sparse.csr_array(
        scipy.sparse.vstack([counter.transform(block) for block in blocks], format="csr")
    )
    x = TfidfTransformer(norm="l2", sublinear_tf=True).fit(x).transform(x, copy=False)
    return scipy.sparse.csr_array(x), np.array(labels, np.int64)


def _documents(
    topics: Path, roots: Mapping[int, str], files: Sequence[Path]
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
    lines: list[str] | None = None  # of the document, once its .W was seen
    size = 0

    def whole(number: int) -> tuple[int, str]:
        text = "".join(lines or ())
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
            document, lines, size = int(fields[1]), None, 0
        elif line.startswith(".W"):
            if document is None or lines is not None:
                raise ValueError(f"{path}: expected .I before .W in line {number}")
            lines = []
        elif lines is not None:
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
    with reading(path, "an intact text file"):
        with path.open("rb") as file:
            gzipped = file.read(2) == b"\x1f\x8b"
        limit = unpacked_limit(path.stat().st_size)
        opened: Any = gzip.open if gzipped else open
        with opened(path, "rt", encoding="utf-8") as text:
            while line := text.readline(_MAX_LINE):
                limit -= len(line)
                if limit < 0 or len(line) == _MAX_LINE:
                    raise ValueError("a line, or the whole text, is too long")
                yield line
