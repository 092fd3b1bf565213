"""RCV1's files in small, against the recipe written out in float64."""

import gzip
import logging
import os
import re
from collections import Counter
from pathlib import Path

import joblib
import numpy as np
import pytest
import scipy.sparse
import sklearn.datasets
from pictures import check_form

from jdec.datasets import dataset_table, download_dataset, load_dataset, reuters
from jdec.datasets.rcv1 import ROOTS, TOKEN_FILES, TOPICS_FILE, read_roots

REAL_TOPICS = Path(os.environ.get("JDEC_DATA_DIR", "/nowhere")) / "reuters" / TOPICS_FILE
N_DOCUMENTS, N_STEMS, N_SUBSET = 240, 25, 40


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few stems and rows."""
    monkeypatch.setattr(reuters, "N_STEMS", N_STEMS)
    monkeypatch.setattr(reuters, "N_SUBSET", N_SUBSET)
    monkeypatch.setattr(reuters, "BLOCK", 32)


def make_documents(seed=0):
    """Return (number, words, topics) of each document, in the order of the token files."""
    rng = np.random.default_rng(seed)
    stems = [f"{chr(97 + i % 26)}{chr(97 + i // 26)}stem" for i in range(60)]
    chances = 1 / np.arange(1, 61)
    numbers = [*range(30_000, 30_200), *range(3000, 3040)]
    documents = []
    for number in numbers:
        words = rng.choice(stems, rng.integers(5, 60), p=chances / chances.sum()).tolist()
        roots = rng.choice(ROOTS, 1 + (rng.random() < 0.2), replace=False).tolist()
        documents.append((number, [*words, "x"], [*roots, "C15", "G1"]))
    return documents


def split(documents):
    """Return the documents of each token file."""
    return [documents[start : start + 50] for start in range(0, 200, 50)] + [documents[200:]]


def tokens(documents):
    lines = []
    for number, words, _ in documents:
        lines += [f".I {number}", ".W"]
        lines += [" ".join(words[start : start + 9]) for start in range(0, len(words), 9)]
        lines += [""]
    return "\n".join(lines) + "\n"


def topics(documents):
    return "".join(f"{topic} {number} 1\n" for number, _, found in documents for topic in found)


def write_text(path, text, zipped=True):
    if zipped:
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        path.with_name(path.name.removesuffix(".gz")).write_text(text)


def write_corpus(folder, documents, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / TOPICS_FILE, topics(documents), zipped)
    for file, some in zip(TOKEN_FILES, split(documents), strict=True):
        write_text(folder / file, tokens(some), zipped)


def expected(documents):
    """The authors' recipe, in float64 and by hand."""
    kept = [
        (words, roots[0])
        for _, words, found in documents
        if len(roots := [topic for topic in found if topic in ROOTS]) == 1
    ]
    counts = [Counter(word for word in words if len(word) > 1) for words, _ in kept]
    total = sum(counts, Counter())
    stems = sorted(sorted(total, key=lambda stem: (-total[stem], stem))[:N_STEMS])
    tf = np.array([[count[stem] for stem in stems] for count in counts], np.float64)
    idf = np.log((1 + len(kept)) / (1 + (tf > 0).sum(axis=0))) + 1
    x = np.where(tf > 0, 1 + np.log(np.maximum(tf, 1)), 0) * idf
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    order = np.random.RandomState(1234).permutation(len(kept))
    return x[order], np.array([ROOTS.index(kept[row][1]) for row in order])


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("folder", ["reuters", "."])
def test_tokens_become_tf_idf(tmp_path, zipped, folder):
    documents = make_documents()
    write_corpus(tmp_path / folder, documents, zipped)
    x, y = expected(documents)
    data = load_dataset("reuters", data_dir=tmp_path)
    assert data.x.dtype == np.float32
    assert isinstance(data.x, scipy.sparse.csr_array)
    assert data.x.indices.dtype == np.int32
    found = data.x.toarray()
    np.testing.assert_allclose(found, x, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(data.y, y)
    assert data.y.dtype == np.int64
    assert (data.name, data.variant, data.class_names) == ("reuters", "paper", ROOTS)
    assert data.n_train is data.image_shape is data.unlabeled is None
    assert "authors' recipe" in data.note
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)


def test_the_subset_is_the_first_rows_of_the_same_order(tmp_path):
    write_corpus(tmp_path, make_documents())
    whole, part = (load_dataset(name, data_dir=tmp_path) for name in ("reuters", "reuters10k"))
    assert part.x.flags.c_contiguous
    np.testing.assert_array_equal(part.x, whole.x[:N_SUBSET].toarray())
    np.testing.assert_array_equal(part.y, whole.y[:N_SUBSET])
    assert (part.name, part.variant) == ("reuters10k", "paper")


def test_fewer_stems_than_asked_for_are_all_used(tmp_path, monkeypatch):
    monkeypatch.setattr(reuters, "N_STEMS", 2000)
    write_corpus(tmp_path, make_documents())
    assert load_dataset("reuters", data_dir=tmp_path).x.shape[1] == 60


def test_a_second_load_reads_what_was_computed(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="jdec")
    write_corpus(tmp_path / "data", make_documents())
    first = load_dataset("reuters", data_dir=tmp_path / "data")
    (kept,) = (tmp_path / "cache" / "jdec" / "features").iterdir()
    assert kept.name.startswith("reuters-")
    assert "once" in caplog.text
    # Neither the place of the files nor the name of the subset matters.
    (tmp_path / "data").rename(tmp_path / "moved")
    with monkeypatch.context() as patch:
        patch.setattr(reuters, "count_tokens", lambda *_, **__: pytest.fail("computed again"))
        again = load_dataset("reuters10k", data_dir=tmp_path / "moved")
    np.testing.assert_array_equal(again.x, first.x[:N_SUBSET].toarray())
    # Other contents do.
    write_corpus(tmp_path / "moved", make_documents(seed=1))
    assert load_dataset("reuters", data_dir=tmp_path / "moved").x.shape != first.x.shape
    # And a damaged file is computed again.
    kept.write_bytes(kept.read_bytes()[:-100])
    write_corpus(tmp_path / "moved", make_documents())
    again = load_dataset("reuters", data_dir=tmp_path / "moved")
    np.testing.assert_array_equal(again.x.toarray(), first.x.toarray())
    assert f"{kept}: damaged" in caplog.text


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path, caplog):
    (tmp_path / "cache").write_text("")
    write_corpus(tmp_path / "data", make_documents())
    assert load_dataset("reuters", data_dir=tmp_path / "data").variant == "paper"
    assert "could not be cached" in caplog.text


TRAIN, FIRST = TOKEN_FILES[-1], TOKEN_FILES[0]
ONE = ".I 30000\n.W\naa bb\n"


@pytest.mark.parametrize(
    ("file", "change", "needed"),
    [
        (FIRST, lambda text: "aa bb\n" + text, "expected .I and .W before any token, got 'aa bb'"),
        (FIRST, lambda text: text.replace(".I 30001", ".I x1"), "document's number, got '.I x1'"),
        (FIRST, lambda text: text.replace(".I 30001", ".I"), "document's number, got '.I' in line"),
        (FIRST, lambda text: text.replace(".W\n", "", 1), "expected .I and .W before any token"),
        (FIRST, lambda text: ".W\n" + text, "expected .I before .W in line 1"),
        (FIRST, lambda text: text + ONE, "expected each document once, got 30000 again"),
        (FIRST, lambda text: text + ".I 9\n.W\naa\n", "document 9 has no entry in"),
        (FIRST, lambda text: text + ".I 9\n.W\n", "expected tokens of document 9 before line"),
        (FIRST, lambda text: ".I 9\n.W\n" + text, "expected tokens of document 9 before line 3"),
        (FIRST, lambda text: "", "expected documents, got none"),
        (TOPICS_FILE, lambda text: "CCAT 30000\n" + text, "got 'CCAT 30000' in line 1"),
        (TOPICS_FILE, lambda text: text + "CCAT abc 1\n", "got 'CCAT abc 1' in line"),
        (TOPICS_FILE, lambda text: text + "CCAT 7 0\n", "got 'CCAT 7 0' in line"),
        (TOPICS_FILE, lambda text: text + "CCAT ² 1\n", "got 'CCAT ² 1' in line"),
        (TOPICS_FILE, lambda text: text + f"CCAT {'9' * 5000} 1\n", "got 'CCAT 999"),
        (TOPICS_FILE, lambda text: text + "9" * 2**20, "is too long"),
        (FIRST, lambda text: text.replace(".I 30001", ".I ²"), "document's number, got '.I ²'"),
        (FIRST, lambda text: text + f".I 9\n.W\n{'a ' * 2**20}\n", "is too long"),
        (TOPICS_FILE, lambda text: "", "expected topics of documents, got an empty file"),
        (TOPICS_FILE, lambda text: text + "CCAT 7 1\n", "1 are not there, such as 7"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_bad_files_are_rejected(tmp_path, file, change, needed, zipped):
    documents = make_documents()
    write_corpus(tmp_path, documents, zipped)
    text = topics(documents) if file == TOPICS_FILE else tokens(split(documents)[0])
    write_text(tmp_path / file, change(text), zipped)
    with pytest.raises(ValueError, match=file.removesuffix(".gz")) as caught:
        load_dataset("reuters", data_dir=tmp_path)
    assert needed in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", [TOPICS_FILE, FIRST, TRAIN])
@pytest.mark.parametrize("how", ["cut", "flipped", "not UTF-8"])
def test_damaged_files_are_rejected(tmp_path, file, how):
    write_corpus(tmp_path, make_documents())
    content = bytearray((tmp_path / file).read_bytes())
    if how == "cut":
        content = content[:-20]
    elif how == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content = b".I 30000 1\n.W\n\xff\xfe\n"
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match="expected") as caught:
        load_dataset("reuters", data_dir=tmp_path)
    assert str(tmp_path / file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_documents_without_a_single_root_leave_nothing(tmp_path):
    write_corpus(tmp_path, [(number, words, ["C15"]) for number, words, _ in make_documents()])
    with pytest.raises(ValueError, match=r"expected documents with a root in .*, got none"):
        load_dataset("reuters", data_dir=tmp_path)


# scikit-learn's copy.


PICKLES = (
    *("samples_py3.pkl", "sample_id_py3.pkl", "sample_topics_py3.pkl", "topics_names_py3.pkl"),
)


def write_scikit_learn(folder, documents):
    """Write what fetch_rcv1 keeps: the training split first; returns its matrix."""
    ordered = documents[200:] + documents[:200]
    stems = sorted({word for _, words, _ in documents for word in words})
    rng = np.random.default_rng(2)
    x = np.zeros((len(ordered), len(stems)))
    for row, (_, words, _) in enumerate(ordered):
        for word in set(words):
            x[row, stems.index(word)] = rng.uniform(0.1, 1)
    names = np.array(sorted({topic for _, _, found in documents for topic in found}), object)
    y = np.array([[name in found for name in names] for _, _, found in ordered], np.uint8)
    (folder / "RCV1").mkdir(parents=True)
    ids = np.array([number for number, _, _ in ordered], np.uint32)
    for file, value in zip(
        PICKLES, (scipy.sparse.csr_matrix(x), ids, scipy.sparse.csr_matrix(y), names), strict=True
    ):
        joblib.dump(value, folder / "RCV1" / file, compress=9)
    return x, ordered


class Trap:
    """Unpickling this leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_fetch_rcv1_gives_the_same_documents(tmp_path, caplog):
    documents = make_documents()
    x, ordered = write_scikit_learn(tmp_path / "scikit-learn", documents)
    rows = {number: row for row, (number, _, _) in enumerate(ordered)}
    kept = [
        rows[number]
        for number, _, found in documents
        if sum(topic in ROOTS for topic in found) == 1
    ]
    x = x[kept]
    stems = np.sort(np.argsort(-(x > 0).sum(axis=0), kind="stable")[:N_STEMS])
    x = x[:, stems] / np.linalg.norm(x[:, stems], axis=1, keepdims=True)
    order = np.random.RandomState(1234).permutation(len(kept))
    assert download_dataset("reuters", data_dir=tmp_path) == tmp_path / "reuters"
    (message,) = [record.getMessage() for record in caplog.records]
    assert "unpickled" in message
    assert str(tmp_path / "scikit-learn" / "RCV1") in message
    data = load_dataset("reuters", data_dir=tmp_path)
    np.testing.assert_allclose(data.x.toarray(), x[order], rtol=0, atol=1e-6)
    # The classes, and so the documents and their order, are those of the token files.
    np.testing.assert_array_equal(data.y, expected(documents)[1])
    assert (data.variant, data.class_names) == ("fetch_rcv1", ROOTS)
    assert "in most documents, as counts are not available" in data.note
    part = load_dataset("reuters10k", data_dir=tmp_path)
    np.testing.assert_array_equal(part.x, data.x[:N_SUBSET].toarray())
    assert part.variant == "fetch_rcv1"


def test_loading_unpickles_nothing(tmp_path):
    write_scikit_learn(tmp_path / "scikit-learn", make_documents())
    for file in PICKLES:
        joblib.dump(Trap(tmp_path / "trapped"), tmp_path / "scikit-learn" / "RCV1" / file)
    for name in ("reuters", "reuters10k"):
        with pytest.raises(FileNotFoundError, match="run `jdec datasets --download reuters`"):
            load_dataset(name, data_dir=tmp_path)
    dataset_table(tmp_path)
    assert not (tmp_path / "trapped").exists()
    # Where it is asked for, it is: the trap is one.
    with pytest.raises(ValueError, match="expected what scikit-learn's fetch_rcv1 keeps"):
        download_dataset("reuters", data_dir=tmp_path)
    assert (tmp_path / "trapped").exists()


def test_a_finished_conversion_is_not_repeated(tmp_path, caplog):
    write_scikit_learn(tmp_path / "scikit-learn", make_documents())
    path = download_dataset("reuters", data_dir=tmp_path) / reuters.FETCH_RCV1_FILE
    content = path.read_bytes()
    caplog.clear()
    download_dataset("reuters", data_dir=tmp_path)
    assert not caplog.records
    path.write_bytes(content[:-100])
    download_dataset("reuters", data_dir=tmp_path)
    assert f"{path}: damaged, made again" in caplog.text
    assert load_dataset("reuters", data_dir=tmp_path).variant == "fetch_rcv1"


@pytest.mark.parametrize("how", ["cut", "lengths", "topics"])
def test_a_damaged_copy_of_scikit_learn_is_rejected(tmp_path, how):
    folder = tmp_path / "scikit-learn" / "RCV1"
    write_scikit_learn(folder.parent, make_documents())
    samples, ids, _, names = (folder / file for file in PICKLES)
    if how == "cut":
        samples.write_bytes(samples.read_bytes()[:-50])
    elif how == "lengths":
        joblib.dump(np.arange(3), ids)
    else:
        joblib.dump(np.array(["C15"], object), names)
    with pytest.raises(ValueError, match="expected what scikit-learn's fetch_rcv1 keeps") as caught:
        download_dataset("reuters", data_dir=tmp_path)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "reuters").iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [240, 2**40]},
        {"shape": [-240, 60]},
        {"shape": [240.0, 60.0]},
        {"ids": np.arange(3)},
        {"ids": np.array(["a"] * 240)},
        {"roots": np.ones((240, 3), bool)},
        {"roots": np.ones((240, 4))},
        {"indices": np.full(10**4, 99)},
        {"indices": np.full(10**4, -1)},
        {"data": np.full(10**4, np.nan, np.float32)},
        {"indptr": np.zeros(3, int)},
        {"data": np.zeros(3, object)},
    ],
)
def test_damaged_arrays_of_the_copy_are_rejected(tmp_path, change):
    write_scikit_learn(tmp_path / "scikit-learn", make_documents())
    path = download_dataset("reuters", data_dir=tmp_path) / reuters.FETCH_RCV1_FILE
    with np.load(path) as archive:
        arrays = dict(archive)
    for name, value in change.items():
        size = len(arrays[name])
        arrays[name] = np.asarray(value)[:size] if len(value) > size else np.asarray(value)
    np.savez(path, **arrays)
    with pytest.raises(
        ValueError, match=re.escape(f"{path}: expected what `jdec datasets")
    ) as caught:
        load_dataset("reuters", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_nothing_is_downloaded_and_no_folder_made_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(sklearn.datasets, "fetch_rcv1", lambda **_: pytest.fail("asked"))
    for name in ("reuters", "reuters10k"):
        with pytest.raises(FileNotFoundError, match="jdec datasets --download reuters") as caught:
            load_dataset(name, data_dir=tmp_path)
        for needed in (TOPICS_FILE, str(tmp_path), "lewis04a", "lyrl2004_tokens_train"):
            assert needed in str(caught.value)
        assert "\n" not in str(caught.value)
    dataset_table(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_of_a_started_collection_is_named(tmp_path):
    write_corpus(tmp_path, make_documents())
    (tmp_path / TOKEN_FILES[2]).unlink()
    with pytest.raises(FileNotFoundError, match=f"reuters: {TOKEN_FILES[2]} not found"):
        load_dataset("reuters", data_dir=tmp_path)


def test_a_failed_download_says_so(tmp_path, monkeypatch):
    def fail(**_):
        raise OSError("no route\nto host")

    monkeypatch.setattr(sklearn.datasets, "fetch_rcv1", fail)
    with pytest.raises(OSError, match="could not download it by scikit-learn: no route"):
        download_dataset("reuters", data_dir=tmp_path)


def test_the_better_source_goes_first(tmp_path):
    np.savez(tmp_path / "reuters10k.npz", x=np.eye(5), y=[0, 1, 2, 3, 0])

    def found():
        row = next(row for row in dataset_table(tmp_path) if row.name == "reuters10k")
        data = load_dataset("reuters10k", data_dir=tmp_path)
        assert row.variant == data.variant
        return data.variant, row.path

    assert found() == ("sample", tmp_path / "reuters10k.npz")
    write_scikit_learn(tmp_path / "scikit-learn", make_documents())
    assert found() == ("sample", tmp_path / "reuters10k.npz")
    path = download_dataset("reuters", data_dir=tmp_path) / reuters.FETCH_RCV1_FILE
    assert found() == ("fetch_rcv1", path)
    write_corpus(tmp_path, make_documents())
    assert found() == ("paper", tmp_path)


# A sample of finished rows.


@pytest.mark.parametrize("folder", ["reuters", "."])
@pytest.mark.parametrize("kind", ["text", "named integers"])
def test_reuters10k(tmp_path, folder, kind):
    x = np.eye(5, 7, dtype=np.float32)
    text = np.array(["MCAT", "CCAT", "ECAT", "GCAT", "CCAT"])
    names = np.array(["CCAT", "GCAT", "MCAT", "ECAT"])
    arrays = {"y": text} if kind == "text" else {"y": np.array([2, 0, 3, 1, 0]), "names": names}
    (tmp_path / folder).mkdir(exist_ok=True)
    np.savez(tmp_path / folder / "reuters10k.npz", x=x, **arrays)
    data = load_dataset("reuters10k", data_dir=tmp_path)
    check_form(data, 5, 7)
    np.testing.assert_array_equal(data.x, x)
    assert [data.class_names[label] for label in data.y] == text.tolist()
    assert "not the 10 000 rows that the paper drew" in data.note
    assert data.variant == "sample"


def test_reuters10k_without_names_keeps_its_numbers(tmp_path):
    np.savez(tmp_path / "reuters10k.npz", x=np.eye(3), y=[2, 0, 1])
    data = load_dataset("reuters10k", data_dir=tmp_path)
    assert data.y.tolist() == [2, 0, 1]
    assert data.class_names is None


@pytest.mark.parametrize(
    ("arrays", "needed"),
    [
        ({"x": 3 * np.eye(3), "y": [0, 1, 2]}, "expected rows of L2 norm 1, got 3 in row 0"),
        ({"x": np.eye(3)}, "expected labels in an array named y, got none"),
        ({"x": np.eye(3), "y": [0, 1]}, "expected as many entries as x has (3), got 2"),
        ({"x": np.eye(3), "y": [0, 1, 9], "names": ["a", "b"]}, "expected labels 0 to 1"),
    ],
)
def test_reuters10k_rejects(tmp_path, arrays, needed):
    path = tmp_path / "reuters10k.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"reuters10k\.npz") as caught:
        load_dataset("reuters10k", data_dir=tmp_path)
    assert needed in str(caught.value)


def test_a_folder_in_place_of_a_file_is_rejected(tmp_path):
    (tmp_path / "reuters10k.npz").mkdir()
    with pytest.raises(ValueError, match=r"reuters10k\.npz: expected a readable file"):
        load_dataset("reuters10k", data_dir=tmp_path)


# The real topics, where they are at hand.


@pytest.mark.skipif(not REAL_TOPICS.exists(), reason="JDEC_DATA_DIR does not hold RCV1's topics")
def test_685_071_documents_have_one_root():
    roots = read_roots(REAL_TOPICS)
    counts = Counter(roots.values())
    assert len(roots) == 804_414
    assert counts.total() - counts[""] == 685_071
    assert counts == {
        **{"CCAT": 299_612, "MCAT": 167_629, "GCAT": 163_135, "ECAT": 54_695},
        "": 804_414 - 685_071,
    }
