"""Files of Arrow, and columns of lists."""

import numpy as np
import pytest

from jdec.datasets import load_dataset

pyarrow = pytest.importorskip("pyarrow", reason="needs the extra jdec[parquet]")
feather = pytest.importorskip("pyarrow.feather", reason="needs the extra jdec[parquet]")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra jdec[parquet]")

VECTORS = np.arange(21, dtype=np.float32).reshape(7, 3)


def write_stream(table, path):
    with pyarrow.ipc.new_stream(path, table.schema) as file:
        file.write_table(table, max_chunksize=2)


def write_file(table, path):
    with pyarrow.ipc.new_file(path, table.schema) as file:
        file.write_table(table, max_chunksize=2)


def packed(table, path):
    feather.write_feather(table, path, compression="zstd", chunksize=3)


WRITERS = {
    "stream.arrow": write_stream,
    "file.arrow": write_file,
    "packed.feather": packed,
    "plain.feather": lambda table, path: feather.write_feather(table, path, "uncompressed"),
    "table.parquet": lambda table, path: parquet.write_table(table, path, row_group_size=3),
}


@pytest.fixture(params=WRITERS)
def stored(tmp_path, request):
    """Write a table to a file of one of the forms."""

    def write(columns):
        path = str(tmp_path / request.param)
        WRITERS[request.param](pyarrow.table(columns), path)
        return path

    return write


def lists(kind):
    flat = pyarrow.array(VECTORS.reshape(-1))
    if kind == "of a fixed size":
        return pyarrow.FixedSizeListArray.from_arrays(flat, 3)
    ends = np.arange(0, 22, 3)
    if kind == "large":
        return pyarrow.LargeListArray.from_arrays(pyarrow.array(ends), flat)
    return pyarrow.ListArray.from_arrays(pyarrow.array(ends, pyarrow.int32()), flat)


@pytest.mark.parametrize("kind", ["of a fixed size", "large", "plain"])
def test_a_column_of_lists_has_a_feature_for_each_entry(stored, kind):
    texts = ["u", "v"] * 3 + ["u"]
    path = stored(
        {"id": list("abcdefg"), "v": lists(kind), "n": np.arange(7, dtype=np.int8), "y": texts}
    )
    data = load_dataset(path, id="id")
    np.testing.assert_array_equal(data.x, np.c_[VECTORS, np.arange(7)])
    assert data.x.dtype == np.float32
    assert data.feature_names == ("v[0]", "v[1]", "v[2]", "n")
    assert data.ids.tolist() == list("abcdefg")
    assert (data.y.tolist(), data.class_names) == ([0, 1] * 3 + [0], ("u", "v"))


def test_columns_that_are_not_read_may_hold_anything(stored):
    path = stored({"text": [None] * 7, "when": [[{"a": 1}]] * 7, "v": lists("plain")})
    data = load_dataset(path, drop=["text", "when"])
    np.testing.assert_array_equal(data.x, VECTORS)


def test_text_as_codes_is_a_label(stored):
    labels = pyarrow.array(["b", "a", "b", "b", "a", "a", "b"]).dictionary_encode()
    data = load_dataset(stored({"label": labels, "a": np.arange(7.0)}))
    assert (data.y.tolist(), data.class_names) == ([1, 0, 1, 1, 0, 0, 1], ("a", "b"))


def test_lists_of_another_length_are_named_by_their_row(stored):
    path = stored({"v": [[1.0, 2.0]] * 5 + [[1.0]] + [[1.0, 2.0]]})
    with pytest.raises(ValueError, match=r"lists of 2 numbers in column 'v'.*, got 1 in row 5"):
        load_dataset(path)


def test_a_folder_of_arrow_files_is_one_table(tmp_path):
    for part in range(3):
        write_stream(
            pyarrow.table({"v": lists("plain")[2 * part : 2 * part + 2]}),
            str(tmp_path / f"{part}.arrow"),
        )
    np.testing.assert_array_equal(load_dataset(tmp_path).x, VECTORS[:6])


@pytest.mark.parametrize("name", [name for name in WRITERS if not name.endswith(".parquet")])
def test_damaged_files_are_rejected(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](pyarrow.table({"a": np.arange(900.0), "y": ["u", "v"] * 450}), str(path))
    content = path.read_bytes()
    cut = [content[: len(content) // 2], content[:7], b"a,b\n1,2\n", content[3:]]
    changed = [
        content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]
        for place in range(0, len(content), max(1, len(content) // 150))
    ]
    for damaged in cut:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="expected an intact file of Arrow, got an error"):
            load_dataset(path)
    for damaged in changed:  # a number may be another one, and nothing worse happens
        path.write_bytes(damaged)
        try:
            load_dataset(path)
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017 (most are read)


def test_feather_of_version_1_is_told_of(tmp_path):
    (tmp_path / "a.feather").write_bytes(b"FEA1" + bytes(40))
    with pytest.raises(ValueError, match="feather of version 1; write it as version 2"):
        load_dataset(tmp_path / "a.feather")
