import dataclasses
import hashlib
import os

import pytest
from pictures import IDX_FILES, write, write_images

from jdec.datasets import catalogue, download_dataset, load_dataset


@pytest.fixture
def source(served, monkeypatch):
    """Serve made-up images; the catalogue gets their address and checksums."""
    folder, url = served
    write_images(folder)
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in IDX_FILES}
    for name in ("mnist", "fashion_mnist"):
        spec = dataclasses.replace(catalogue.SPECS[name], url=url, files=files)
        monkeypatch.setitem(catalogue.SPECS, name, spec)
    return folder


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_download_then_load(tmp_path, source, name, capfd):
    folder = download_dataset(name, data_dir=tmp_path / "new" / "place")
    assert folder == tmp_path / "new" / "place" / name
    assert sorted(path.name for path in folder.iterdir()) == sorted(IDX_FILES)
    assert load_dataset(name, data_dir=tmp_path / "new" / "place").n_train == 5
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_when_asked_for(tmp_path, source, capfd):
    download_dataset("mnist", data_dir=tmp_path, progress=True)
    assert "100%" in capfd.readouterr().err


def test_download_goes_where_data_is_looked_for_first(tmp_path, source, monkeypatch, cache_dir):
    assert download_dataset("mnist") == cache_dir / "mnist"
    monkeypatch.setenv("JDEC_DATA_DIR", str(tmp_path / "variable"))
    assert download_dataset("mnist") == tmp_path / "variable" / "mnist"


def test_a_finished_download_is_not_repeated(tmp_path, source):
    download_dataset("mnist", data_dir=tmp_path)
    for name in IDX_FILES:
        (source / name).unlink()
    assert load_dataset("mnist", data_dir=download_dataset("mnist", data_dir=tmp_path).parent)


def test_a_damaged_file_is_fetched_again(tmp_path, source):
    folder = download_dataset("mnist", data_dir=tmp_path)
    write(folder / IDX_FILES[0], b"cut off")
    download_dataset("mnist", data_dir=tmp_path)
    assert load_dataset("mnist", data_dir=tmp_path).n_train == 5


def test_a_wrong_checksum_leaves_nothing(tmp_path, source):
    write(source / IDX_FILES[1], b"tampered with")
    with pytest.raises(ValueError, match="mnist: could not download http") as caught:
        download_dataset("mnist", data_dir=tmp_path)
    assert IDX_FILES[1] in str(caught.value)
    assert "hash" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "mnist").iterdir()] == [IDX_FILES[0]]


def test_a_source_without_the_file_is_an_os_error(tmp_path, source):
    (source / IDX_FILES[2]).unlink()
    with pytest.raises(OSError, match=r"mnist: could not download http.*404"):
        download_dataset("mnist", data_dir=tmp_path)
    assert not (tmp_path / "mnist" / IDX_FILES[2]).exists()


def test_no_server_is_an_os_error(tmp_path, source, monkeypatch):
    spec = dataclasses.replace(catalogue.SPECS["mnist"], url="http://127.0.0.1:1/")
    monkeypatch.setitem(catalogue.SPECS, "mnist", spec)
    with pytest.raises(OSError, match=r"mnist: could not download http://127\.0\.0\.1:1/"):
        download_dataset("mnist", data_dir=tmp_path)


def test_a_place_that_cannot_hold_a_folder_is_rejected(tmp_path, source):
    write(tmp_path / "file", b"")
    with pytest.raises(ValueError, match="data_dir: expected a place to make"):
        download_dataset("mnist", data_dir=tmp_path / "file")


def test_a_folder_that_cannot_be_written_is_rejected(tmp_path, source, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="data_dir: expected a folder that can be written"):
        download_dataset("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("digits", "it comes with scikit-learn"),
        ("reuters10k", r"place reuters/reuters10k\.npz .* arrays x .* and y"),
        ("mnits", "expected one of digits.*did you mean 'mnist'"),
        (3, "expected one of digits"),
    ],
)
def test_what_cannot_be_downloaded_is_rejected(name, needed):
    with pytest.raises(ValueError, match=needed):
        download_dataset(name)
