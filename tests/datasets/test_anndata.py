"""Annotated matrices in .h5ad files."""

import sys

import numpy as np
import pytest
import scipy.sparse

from jdec.datasets import load_dataset

anndata = pytest.importorskip("anndata", reason="needs the extra jdec[anndata]")
pandas = pytest.importorskip("pandas", reason="needs the extra jdec[anndata]")

X = np.where(np.arange(35).reshape(7, 5) % 3, 0, np.arange(35).reshape(7, 5)).astype(np.float32)
FORMS = {"dense": np.asarray, "csr": scipy.sparse.csr_matrix, "csc": scipy.sparse.csc_array}


@pytest.fixture(params=FORMS)
def path(tmp_path, request):
    kinds = pandas.Categorical(["T", "B", "T", "T", "B", "B", "T"])
    about = pandas.DataFrame(
        {"kind": kinds, "batch": [1, 2] * 3 + [1]}, index=[f"cell{i}" for i in range(7)]
    )
    genes = pandas.DataFrame(index=[f"gene{i}" for i in range(5)])
    matrix = anndata.AnnData(FORMS[request.param](X), about, genes)
    matrix.layers["counts"] = matrix.X * 2
    matrix.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def dense(data):
    return data.x.toarray() if scipy.sparse.issparse(data.x) else data.x


def test_the_matrix_is_read_with_its_names(path, request):
    data = load_dataset(path)
    np.testing.assert_array_equal(dense(data), X)
    assert data.x.dtype == np.float32
    assert scipy.sparse.issparse(data.x) == (request.node.callspec.params["path"] != "dense")
    assert data.feature_names == tuple(f"gene{i}" for i in range(5))
    assert data.ids.tolist() == [f"cell{i}" for i in range(7)]
    assert data.y is None


def test_columns_of_obs_are_labels_and_ids_and_genes_are_dropped(path):
    data = load_dataset(path, label="kind", id="batch", drop=["gene1"])
    np.testing.assert_array_equal(dense(data), np.delete(X, 1, axis=1))
    assert (data.y.tolist(), data.class_names) == ([1, 0, 1, 1, 0, 0, 1], ("B", "T"))
    assert data.ids.tolist() == ["1", "2"] * 3 + ["1"]
    assert data.label_name == "kind"


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"label": "knd"}, "did you mean 'kind'"),
        ({"label": "gene0"}, "label: expected a column of obs, kind, batch; got 'gene0'"),
        ({"id": "gene0"}, "id: expected a column of obs"),
    ],
)
def test_other_columns_are_rejected(path, options, needed):
    with pytest.raises(ValueError, match=needed):
        load_dataset(path, **options)


def test_numbers_that_are_not_finite_are_named(tmp_path):
    for form in FORMS.values():
        x = X.copy()
        x[4, 2] = np.nan
        anndata.AnnData(form(x)).write_h5ad(tmp_path / "a.h5ad")
        with pytest.raises(ValueError, match="got NaN in row 4, column '2'"):
            load_dataset(tmp_path / "a.h5ad")


def test_files_of_another_kind_are_rejected(tmp_path, path):
    content = path.read_bytes()
    for piece in (content[: len(content) // 2], b"a,b\n1,2\n"):
        (tmp_path / "a.h5ad").write_bytes(piece)
        with pytest.raises(ValueError, match=r"a\.h5ad: expected an intact \.h5ad file, got"):
            load_dataset(tmp_path / "a.h5ad")


def test_without_its_extra_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    (tmp_path / "a.h5ad").write_bytes(b"a")
    with pytest.raises(ImportError, match=r'pip install "jdec\[anndata\]"'):
        load_dataset(tmp_path / "a.h5ad")


def test_parts_that_are_missing_or_do_not_fit_are_named(tmp_path, path):
    h5py = pytest.importorskip("h5py", reason="needs the extra jdec[anndata]")
    with h5py.File(path, "r+") as file:
        del file["var"]
    with pytest.raises(ValueError, match="got an error: it has no var"):
        load_dataset(path)


def test_what_unpacks_to_more_than_is_trusted_is_rejected(tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs the extra jdec[anndata]")
    anndata.AnnData(X).write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        del file["X"]
        file.create_dataset("X", (7, 2**40), np.float32, chunks=(1, 2**20), compression="gzip")
    with pytest.raises(ValueError, match=r"it unpacks to \d+ bytes"):
        load_dataset(tmp_path / "a.h5ad")
