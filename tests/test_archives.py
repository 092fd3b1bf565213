"""Archives of arrays are read within limits."""

import struct
import warnings
import zipfile

import numpy as np
import pytest

from jdec._archives import MIN_UNPACKED_LIMIT, npz_shapes, read_npz, write_npz


def save(path, **arrays):
    with path.open("wb") as file:
        write_npz(file, arrays)


@pytest.mark.parametrize("save", [save, np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, save):
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array("text"), "c": np.zeros((0, 3), bool)}
    save(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert npz_shapes(tmp_path / "a.npz") == {"a": (2, 3), "b": (), "c": (0, 3)}
    assert read_npz(tmp_path / "a.npz", ["b", "absent"]).keys() == {"b"}


def test_any_name_can_be_written_and_no_object(tmp_path):
    arrays = {"file": np.arange(3), "allow_pickle": np.ones(2), "a.b/c": np.array(1.5)}
    save(tmp_path / "a.npz", **arrays)
    with np.load(tmp_path / "a.npz") as found:
        assert found.keys() == arrays.keys()
    with pytest.raises(ValueError, match="Object arrays"):
        save(tmp_path / "a.npz", a=np.array([None]))


def test_compressed_arrays_are_taken_where_they_are_expected(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(100))
    assert read_npz(tmp_path / "a.npz")["a"].sum() == 0
    with pytest.raises(ValueError, match="expected"):
        read_npz(tmp_path / "a.npz", compressed=False)


def test_an_archive_that_unpacks_to_more_than_the_limit_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({MIN_UNPACKED_LIMIT},)}}"
        start = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()
        archive.writestr("a.npy", start + bytes(MIN_UNPACKED_LIMIT))
    with pytest.raises(ValueError, match=f"at most {MIN_UNPACKED_LIMIT} bytes"):
        npz_shapes(tmp_path / "a.npz")


def test_a_name_twice_is_rejected(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("a.npy", archive.read("a.npy"))
    with pytest.raises(ValueError, match="expected arrays of different names"):
        npz_shapes(tmp_path / "a.npz")


def test_members_that_overlap_are_rejected(tmp_path):
    """A few megabytes could hold the same megabytes thousands of times."""
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(300), b=np.zeros(3))
    content = bytearray(path.read_bytes())
    first = content.index(b"PK\1\2")
    second = content.index(b"PK\1\2", first + 1)
    (place,) = struct.unpack("<I", content[first + 42 : first + 46])
    content[second + 42 : second + 46] = struct.pack("<I", place + 100)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected arrays apart, got 'b\.npy' within another"):
        npz_shapes(path)


@pytest.mark.parametrize("array", [np.array([{}]), np.zeros(3, [("a", int)]), np.zeros(3, "V4")])
def test_what_is_neither_numbers_nor_text_is_rejected(tmp_path, array):
    np.savez(tmp_path / "a.npz", a=array)
    with pytest.raises(ValueError, match="expected numbers or text in 'a', got"):
        npz_shapes(tmp_path / "a.npz")


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "absent.npz")
