"""RCV1 news stories as TF-IDF of the 2000 most frequent stems: reuters and reuters10k."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from jdec._archives import read_npz, write_npz
from jdec._checks import in_a_line
from jdec._files import content_digest, read_member, read_numpy
from jdec._io import atomic_write
from jdec._rows import as_float32
from jdec._sparse import compact, read_sparse, sparse_matrix
from jdec.datasets._cache import cached
from jdec.datasets._labels import encode_labels, name_labels
from jdec.datasets.dataset import Dataset
from jdec.datasets.rcv1 import ROOTS, count_tokens

#: scikit-learn's copy, whose files are pickles, as :func:`download_fetch_rcv1` converts it.
FETCH_RCV1_FILE = "fetch_rcv1.npz"
N_STEMS = 2000
N_SUBSET = 10_000
BLOCK = 10_000  # documents at a time

_SEED = 1234  # of the authors' code
_MAX_COLUMNS = 1_000_000  # of scikit-learn's copy, which has 47 236
_LAST_TRAIN_ID = 26_150  # documents up to here are RCV1's training split
_VERSION = 1  # of the numbers that the recipe gives: part of the name of what is cached
_SAMPLE_NOTE = (
    "rebuilt from a public sample of 30 000 RCV1 documents: not the 10 000 rows that the paper drew"
)
_PAPER_NOTE = "the authors' recipe on RCV1's token files: {} (seed 1234)"
_SCIKIT_LEARN_NOTE = (
    "from scikit-learn's fetch_rcv1: the documents are those of the paper, {} (seed 1234), but the "
    "TF-IDF is RCV1's, over 47 236 stems; of these the 2000 in most documents, as counts are not "
    "available, and rows scaled to L2 norm 1 again"
)

_LOGGER = logging.getLogger("jdec")


def load_tokens(name: str, files: Sequence[Path]) -> Dataset:
    """Follow the authors' recipe from RCV1's topics and its token files, in the authors' order.

    Documents with exactly one root category; the 2000 most frequent stems; (1 + log tf) · idf;
    rows of L2 norm 1 (the paper's factor √2000 is the ``scale`` of the preset), in the order of the
    authors' permutation, of which reuters10k takes the first 10 000. The sparse result is cached.

    Source: Xie et al. 2016, section 4.1, and the authors' code; Lewis et al., JMLR 2004.
    """

    def compute() -> dict[str, np.ndarray]:
        _LOGGER.info("%s: counting the stems of RCV1, some minutes, once", name)
        x, y = count_tokens(files[0], files[1:], n_stems=N_STEMS, block_size=BLOCK)
        parts = {"data": x.data, "indices": x.indices, "indptr": x.indptr}
        return {**parts, "shape": np.array(x.shape), "y": y}

    arrays = cached(
        "reuters",
        ".npz",
        [content_digest(path) for path in files],
        {"version": _VERSION, "n_stems": N_STEMS},
        compute,
        write_npz,
        lambda path: read_npz(path, compressed=False),
    )
    x = scipy.sparse.csr_array(
        (arrays["data"], arrays["indices"], arrays["indptr"]), shape=tuple(arrays["shape"])
    )
    return _drawn(name, x, arrays["y"], "paper", _PAPER_NOTE)


def load_fetch_rcv1(name: str, files: Sequence[Path]) -> Dataset:
    """Reduce the file of :func:`download_fetch_rcv1` to the documents of the paper and 2000 stems.

    Arguments and order of the rows are those of :func:`load_tokens`.
    """
    (path,) = files
    try:
        x, ids, roots = _read_fetch_rcv1(path)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected what `jdec datasets --download reuters` makes, got an error: "
            f"{in_a_line(error)}; delete the file and run that again"
        ) from error
    # The authors read the test files first; within a split the order is the same.
    rows = np.argsort(ids <= _LAST_TRAIN_ID, kind="stable")
    rows = rows[roots[rows].sum(axis=1) == 1]
    x = x[rows].astype(np.float32)
    n_documents = np.bincount(x.indices, minlength=x.shape[1])
    stems = np.sort(np.argsort(-n_documents, kind="stable")[:N_STEMS])
    from sklearn.preprocessing import normalize  # slow to import

    x = normalize(x[:, stems], copy=False)
    return _drawn(name, x, roots[rows].argmax(axis=1), "fetch_rcv1", _SCIKIT_LEARN_NOTE)


def load_sample(name: str, files: Sequence[Path]) -> Dataset:
    """Read finished rows from an ``.npz`` file, in its order.

    The file holds x [N D], rows of L2 norm 1, and y [N], text or numbers into ``names``.
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
    labels = name_labels(path, table.labels, read_member(path, "names"))
    y, class_names = encode_labels(f"{path}: labels", labels, x)
    return Dataset(x, y, name, class_names=class_names, note=_SAMPLE_NOTE, variant="sample")


def download_fetch_rcv1(folder: Path) -> None:
    """Let scikit-learn fetch RCV1 (0.65 GB, checksums are its own), and convert it to arrays.

    scikit-learn keeps pickles, and reading one runs whatever code it holds: hence only here, where
    it was asked for, and never when the data set is loaded. An intact result stays.
    """
    path = folder / FETCH_RCV1_FILE
    if path.exists():
        try:
            _read_fetch_rcv1(path)
        except (ValueError, KeyError, TypeError) as error:
            _LOGGER.warning("%s: damaged, made again: %s", path, error)
        else:
            return
    # scikit_learn.datasets.get_data_home would make the folder.
    from sklearn.datasets import fetch_rcv1  # slow to import

    home = os.environ.get("SCIKIT_LEARN_DATA") or "~/scikit_learn_data"
    pickles = Path(home).expanduser() / "RCV1"
    _LOGGER.warning("reuters: fetched by scikit-learn, and its files in %s are unpickled", pickles)
    try:
        rcv1 = fetch_rcv1(data_home=str(pickles.parent), download_if_missing=True)
        x, ids = scipy.sparse.csr_array(rcv1.data), np.asarray(rcv1.sample_id)
        columns = [rcv1.target_names.tolist().index(root) for root in ROOTS]
        roots = scipy.sparse.csc_array(rcv1.target)[:, columns].toarray() > 0
        if not len(x.indptr) - 1 == len(ids) == len(roots):
            raise ValueError("lengths differ")
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(
            f"{pickles}: expected what scikit-learn's fetch_rcv1 keeps, got an error: "
            f"{in_a_line(error)}; delete the folder and run `jdec datasets --download reuters` "
            "again"
        ) from error
    arrays = {"data": x.data.astype(np.float32), "indices": x.indices, "indptr": x.indptr}
    arrays |= {"shape": np.array(x.shape), "ids": ids.astype(np.int64), "roots": roots}
    with atomic_write(path) as file:
        write_npz(file, arrays)


def _read_fetch_rcv1(path: Path) -> tuple[Any, np.ndarray, np.ndarray]:
    arrays, shape = read_sparse(path)
    ids, roots = arrays["ids"], arrays["roots"]
    if not 0 < shape[1] <= _MAX_COLUMNS or ids.dtype.kind != "i" or ids.shape != shape[:1]:
        raise ValueError(f"a shape of {shape} for {len(ids)} documents")
    if roots.dtype != bool or roots.shape != (len(ids), len(ROOTS)):
        raise ValueError(f"roots of shape {roots.shape} for {len(ids)} documents")
    if arrays["data"].dtype != np.float32 or not np.isfinite(arrays["data"]).all():
        raise ValueError("numbers that are not finite, or not in float32")
    return sparse_matrix("csr", arrays, shape), ids, roots


def _drawn(name: str, x: Any, y: np.ndarray, variant: str, note: str) -> Dataset:
    """Return the rows in the authors' order: all of them, sparse, or the first ones, dense."""
    order = np.random.RandomState(_SEED).permutation(len(y))
    drawn = "all of their permutation"
    if name == "reuters10k":
        order, drawn = order[:N_SUBSET], "the first 10 000 of their permutation"
    x = compact(x[order])
    x = as_float32(name, x.toarray()) if name == "reuters10k" else x.astype(np.float32)
    note = note.format(drawn)
    return Dataset(x, y[order], name, class_names=ROOTS, note=note, variant=variant)
