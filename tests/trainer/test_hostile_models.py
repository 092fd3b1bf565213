"""Model files that are damaged, or made to do harm: one line each, little memory, nothing run."""

import io
import json
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jdec.trainer.config import Config
from jdec.trainer.model import Model
from jdec.trainer.model_file import load_model, save_model
from jdec.trainer.scaling import Scaling

D, K, Z = 6, 3, 2
MAX_MEMORY = 300 * 2**20


def make_model():
    config = Config(K).replace({"network.hidden_dims": [5], "network.latent_dim": Z})
    rng = np.random.default_rng(0)
    params = {
        f"encoder_{layer}": {
            "kernel": rng.normal(size=widths).astype(np.float32),
            "bias": np.zeros(widths[1], np.float32),
        }
        for layer, widths in enumerate([(D, 5), (5, Z)])
    }
    centroids = rng.normal(size=(K, Z)).astype(np.float32)
    return Model(Scaling(np.zeros(D), np.ones(D)), params, centroids, config)


def npy(array):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=True)
    return buffer.getvalue()


def npy_of(header, data=b"", version=(1, 0)):
    """Return an .npy file of a header as text."""
    text = header.encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + data


def declared(descr="<f4", shape="(3, 2)", data=b"\0" * 24):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n"
    return npy_of(header, data)


def saved(path):
    """Return the members of a good model's file: name to content."""
    save_model(path, make_model(), {"labels_": np.arange(4), "why": "tol"})
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def with_header(change):
    """Return a change of the members that alters the header's JSON."""

    def apply(members):
        header = json.loads(str(np.load(io.BytesIO(members["header.npy"]))))
        header = change(header) or header
        return members | {"header.npy": npy(np.array(json.dumps(header)))}

    return apply


def with_text(text):
    return lambda members: members | {"header.npy": npy(np.array(text))}


def with_array(name, array):
    content = array if isinstance(array, bytes) else npy(array)
    return lambda members: members | {f"{name}.npy": content}


def without(name):
    return lambda members: {key: members[key] for key in members if key != f"{name}.npy"}


def also(name, array):
    """Return a change that adds an array, and the header's mention of it."""

    def apply(members):
        members = with_header(lambda header: header["arrays"].append(name))(members)
        return members | {f"{name}.npy": npy(array)}

    return apply


def setting(name, value):
    def change(header):
        *parents, leaf = name.split(".")
        target = header["config"]
        for parent in parents:
            target = target[parent]
        target[leaf] = value

    return with_header(change)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("unpickled"),))


F = np.float32
NAN_KERNEL = np.full((D, 5), np.nan, F)
OBJECTS = np.array([Bomb()] * K * Z, dtype=object).reshape(K, Z)
STRUCTURED = np.zeros((K, Z), dtype=[("a", F), ("b", F)])
DEEP = "[" * 100_000

MEMBERS = {
    # numbers that assign every row to cluster 0
    "NaN in a kernel": with_array("params/encoder_0/kernel", NAN_KERNEL),
    "NaN in a bias": with_array("params/encoder_1/bias", np.array([0, np.nan], F)),
    "infinite centroids": with_array("centroids", np.full((K, Z), np.inf, F)),
    "one infinite centroid": with_array("centroids", np.array([[0, 0], [1, 1], [0, -np.inf]], F)),
    "NaN in the shift": with_array("scaling/shift", np.full(D, np.nan)),
    "infinite factor": with_array("scaling/factor", np.full(D, np.inf)),
    # other dtypes
    "text": with_array("centroids", np.full((K, Z), "1.5")),
    "bytes": with_array("centroids", np.full((K, Z), b"1.5")),
    "objects": with_array("centroids", OBJECTS),
    "objects in the header": with_array("header", np.array(Bomb(), dtype=object)),
    "objects in extra": with_array("extra/labels_", OBJECTS),
    "text in extra": with_array("extra/labels_", np.array(["a", "b"])),
    "a record in extra": with_array("extra/labels_", STRUCTURED),
    "complex numbers in extra": with_array("extra/labels_", np.zeros(4, complex)),
    "dates in extra": with_array("extra/labels_", np.zeros(4, "M8[s]")),
    "a structured array": with_array("centroids", STRUCTURED),
    "complex numbers": with_array("centroids", np.zeros((K, Z), np.complex64)),
    "integers": with_array("centroids", np.zeros((K, Z), np.int32)),
    "booleans": with_array("centroids", np.zeros((K, Z), bool)),
    "double precision": with_array("centroids", np.zeros((K, Z))),
    "half precision": with_array("params/encoder_0/kernel", np.zeros((D, 5), np.float16)),
    "swapped bytes": with_array("centroids", np.zeros((K, Z), ">f4")),
    "durations": with_array("scaling/shift", np.zeros(D, "m8[s]")),
    "raw bytes": with_array("centroids", np.zeros((K, Z), "V4")),
    "integers in the scaling": with_array("scaling/factor", np.ones(D, np.int64)),
    "a subarray": with_array("centroids", declared(descr="(2,)f4")),
    "no dtype": with_array("centroids", declared(descr="nonsense")),
    # other shapes
    "another shape": with_array("centroids", np.zeros((K + 1, Z), F)),
    "another rank": with_array("centroids", np.zeros(K * Z, F)),
    "a number": with_array("scaling/shift", np.float64(0)),
    "no columns": with_array("scaling/shift", np.zeros(0)),
    "a transposed kernel": with_array("params/encoder_0/kernel", np.zeros((5, D), F)),
    "less data than declared": with_array("centroids", declared(data=b"\0" * 23)),
    "more data than declared": with_array("centroids", declared(data=b"\0" * 25)),
    "a negative size": with_array("centroids", declared(shape="(-3, -2)")),
    "a size of 2**31": with_array("centroids", declared(shape=f"({2**31}, 2)")),
    "a size of 2**62": with_array("centroids", declared(shape=f"({2**62}, 4)", data=b"")),
    "a size of 2**70": with_array("centroids", declared(shape=f"({2**70}, 0)", data=b"")),
    "a truth value as size": with_array("centroids", declared(shape="(True, 6)")),
    "a text as size": with_array("centroids", declared(shape="('3', 2)")),
    "a hundred dimensions": with_array("centroids", declared(shape=f"({'1,' * 100})")),
    # .npy headers
    "no .npy file": with_array("centroids", b"PK\3\4"),
    "an empty .npy file": with_array("centroids", b""),
    "an unknown version": with_array("centroids", npy_of("{}", version=(9, 9))),
    "a header that is no literal": with_array("centroids", npy_of("__import__('os').abort()")),
    "a header of brackets": with_array("centroids", npy_of("(" * 9000)),
    "a header of minus signs": with_array("centroids", npy_of("-" * 9000 + "1")),
    "a header of powers": with_array("centroids", npy_of("1**" * 3000 + "1")),
    "a long header": with_array("centroids", npy_of(" " * 2**22, version=(2, 0))),
    "a header that lacks keys": with_array("centroids", npy_of("{'descr': '<f4'}")),
    # too few or too many
    "no header": without("header"),
    "no centroids": without("centroids"),
    "no extra array": without("extra/labels_"),
    "no bias": without("params/encoder_0/bias"),
    "one more array": with_array("more", np.zeros(3)),
    "one more array that is mentioned": also("more", np.zeros(3)),
    "one more layer": also("params/encoder_2/kernel", np.zeros((2, 2), F)),
    "one more leaf": also("params/encoder_0/scale", np.zeros(5, F)),
    "a layer of another name": also("params/__class__/kernel", np.zeros((2, 2), F)),
    "a path upwards": also("../../elsewhere", np.zeros(3)),
    "an absolute path": also("/tmp/elsewhere", np.zeros(3)),
    "a half path": also("params/encoder_0", np.zeros(3, F)),
    "a file of another kind": lambda members: members | {"run.sh": b"touch unpickled"},
    # JSON
    "no JSON": with_text("{"),
    "an empty header": with_text(""),
    "null": with_text("null"),
    "a list": with_text("[]"),
    "deeply nested lists": with_text(DEEP + "]" * len(DEEP)),
    "deeply nested objects": with_text('{"a":' * 50_000),
    "a long integer": with_text(f'{{"format": {"9" * 5000}}}'),
    "numbers for a header": with_array("header", np.arange(3)),
    "a list of texts for a header": with_array("header", np.array(["{}", "{}"])),
    "bytes for a header": with_array("header", np.array(b"{}")),
    "another format": with_header(lambda header: header.update(format="jdec model 2")),
    "a format that is a list": with_header(lambda header: header.update(format=["jdec model 1"])),
    "no config": with_header(lambda header: {**header, "config": None}),
    "a config that is a list": with_header(lambda header: header.update(config=[1])),
    "extra that is a list": with_header(lambda header: header.update(extra=[1])),
    "arrays that are a text": with_header(lambda header: header.update(arrays="centroids")),
    "arrays that are numbers": with_header(lambda header: header.update(arrays=[1, 2])),
    "arrays that are lists": with_header(lambda header: header.update(arrays=[[1], {}])),
    "names that are numbers": with_header(lambda header: header.update(feature_names=[1] * D)),
    "too few names": with_header(lambda header: header.update(feature_names=["a"])),
    "names that are a number": with_header(lambda header: header.update(feature_names=7)),
    # settings
    "clusters without end": setting("n_clusters", 10**300),
    "negative clusters": setting("n_clusters", -1),
    "clusters of 2**63": setting("n_clusters", 2**63),
    "a width of 2**63": setting("network.hidden_dims", [2**63]),
    "a million layers": setting("network.hidden_dims", [5] * 10**6),
    "layers of another type": setting("network.hidden_dims", "5"),
    "layers of lists": setting("network.hidden_dims", [[5]]),
    "a latent width of 0": setting("network.latent_dim", 0),
    "a latent width of 2**40": setting("network.latent_dim", 2**40),
    "alpha of 10**400": setting("clustering.alpha", 10**400),
    "alpha as text": setting("clustering.alpha", "1"),
    "alpha as an object": setting("clustering.alpha", {"a": 1}),
    "alpha that is not finite": setting("clustering.alpha", float("inf")),
    "no number": setting("clustering.alpha", float("nan")),
    "an unknown setting": setting("__class__", "Config"),
    "an unknown precision": setting("network.precision", "float1"),
    "another part": setting("network", 3),
    "an optimizer of another type": setting("pretrain.optimizer", [1]),
}


def content_of(change):
    return lambda path, members: path.write_bytes(change(path.read_bytes()))


def twice(path, members):
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in [*members.items(), ("centroids.npy", members["centroids.npy"])]:
            archive.writestr(name, content)


def overlapping(path, members):
    """Have the table of contents lead to one member from two names."""
    write(path, members)
    content = bytearray(path.read_bytes())
    first = content.index(b"PK\1\2")
    second = content.index(b"PK\1\2", first + 1)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    path.write_bytes(content)


def table(offset, value, size):
    """Return a change of the first entry of the table of contents."""

    def change(content):
        start = content.index(b"PK\1\2") + offset
        return content[:start] + value.to_bytes(size, "little") + content[start + size :]

    return content_of(change)


ARCHIVES = {
    "nothing": content_of(lambda content: b""),
    "text": content_of(lambda content: b"no model"),
    "an array": content_of(lambda content: npy(np.zeros(3))),
    "a pickle": content_of(lambda content: npy(OBJECTS)),
    "the first half": content_of(lambda content: content[: len(content) // 2]),
    "a byte less": content_of(lambda content: content[:-1]),
    "the end alone": content_of(lambda content: content[-22:]),
    "zeros within": content_of(lambda content: content[:200] + bytes(200) + content[400:]),
    "a flipped bit": content_of(lambda content: content[:300] + b"\x40" + content[301:]),
    "a byte order mark": content_of(lambda content: content[:40] + content[41:]),
    "compressed": lambda path, members: write(path, members, zipfile.ZIP_DEFLATED),
    "compressed by bzip2": lambda path, members: write(path, members, zipfile.ZIP_BZIP2),
    "compressed by LZMA": lambda path, members: write(path, members, zipfile.ZIP_LZMA),
    "a name twice": twice,
    "members that overlap": overlapping,
    "an encrypted member": table(8, 1, 2),
    "another method": table(10, 99, 2),
    "another checksum": table(16, 0, 4),
    "a size of 4 GB": table(24, 2**32 - 2, 4),
    "two sizes of 4 GB": table(20, (2**32 - 2) * (2**32 + 1), 8),
    "a place beyond the end": table(42, 2**31, 4),
    "a long name": table(28, 2**16 - 1, 2),
    "a long extra field": table(30, 2**16 - 1, 2),
    "an empty archive": lambda path, members: write(path, {}),
}


def check_refused(path):
    with pytest.raises(ValueError, match="is damaged or not a jdec model: ") as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"model: {path} is damaged")
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))
    return message


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model.npz"


@pytest.mark.parametrize("name", MEMBERS)
def test_contents_are_refused_in_one_line(path, name):
    write(path, MEMBERS[name](saved(path)))
    check_refused(path)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_are_refused_in_one_line(path, name):
    members = saved(path)
    ARCHIVES[name](path, members)
    check_refused(path)
    assert list(path.parent.iterdir()) == [path]


def test_what_is_changed_here_is_a_good_model(path):
    members = saved(path)
    for change in (lambda members: members, with_header(lambda header: None)):
        write(path, change(members))
        model, extra = load_model(path)
        assert model.config == make_model().config
        assert type(model.centroids) is np.ndarray
        assert extra["why"] == "tol"
        assert extra["labels_"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("params.encoder_0.kernel", NAN_KERNEL),
        ("params.encoder_1.bias", np.array([0, np.inf], F)),
        ("centroids", np.full((K, Z), np.nan, F)),
        ("scaling.shift", np.full(D, np.nan)),
        ("scaling.factor", np.full(D, -np.inf)),
        ("centroids", np.zeros((K, Z))),
        ("centroids", np.zeros((K + 1, Z), F)),
        ("centroids", np.zeros((K, Z), complex)),
        ("centroids", np.full((K, Z), "a")),
        ("params.encoder_0.kernel", np.zeros((D, 5), np.int32)),
        ("params.encoder_0.bias", np.zeros(4, F)),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(path, name, array):
    model = make_model()
    part, *rest = name.split(".")
    if part == "params":
        layer, leaf = rest
        params = {**model.params, layer: {**model.params[layer], leaf: array}}
        model = model._replace(params=params)
    elif part == "scaling":
        model = model._replace(scaling=model.scaling._replace(**{rest[0]: array}))
    else:
        model = model._replace(centroids=array)
    with pytest.raises(ValueError, match=f"^model: .* in {name}, got") as caught:
        save_model(path, model)
    assert "\n" not in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize(
    "extra",
    [
        {"a": np.array(["text"])},
        {"a": np.array([None])},
        {"a": np.zeros(3, complex)},
        {"a": object()},
        {"a": {1, 2}},
        {"a": [np.zeros(3)]},
    ],
)
def test_what_is_neither_numbers_nor_json_is_not_saved_with_it(path, extra):
    with pytest.raises(ValueError, match=r"^model: expected .*, got") as caught:
        save_model(path, make_model(), extra)
    assert "\n" not in str(caught.value)
    assert not path.exists()


# Memory.


def text_header(text):
    # Zeros of a text array are an empty text.
    return lambda members: {"header.npy": npy(np.array(text))}


def zeros(path, members):
    write(path, members | {"centroids.npy": npy(np.zeros(2**26))}, zipfile.ZIP_DEFLATED)


def many_members(path, members):
    """Write a table of contents of nearly 200 000 entries, all of one member."""
    content = b"PK\3\4" + bytes(22) + struct.pack("<HH", 1, 0) + b"a"
    entry = bytearray(b"PK\1\2" + bytes(42) + b"a")
    entry[28:30] = struct.pack("<H", 1)
    entries = bytes(entry) * (9 * 2**20 // len(entry))
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0, 0, len(entries), len(content), 0)
    path.write_bytes(content + entries + end)


def member_of(change):
    return lambda path, members: write(path, change(members))


LARGE = {
    "zeros, compressed": zeros,
    "a large table of contents": many_members,
    "objects": member_of(text_header("[" + '{"":{"":{"":{"":0}}}},' * (9 * 2**20 // 88) + "0]")),
    "lists": member_of(text_header("[" + "[]," * (9 * 2**20 // 12) + "0]")),
    "numbers": member_of(text_header("[" + "1e5," * (9 * 2**20 // 16) + "0]")),
    "settings": member_of(setting("network.hidden_dims", [3] * (2**20 // 2))),
    "names": member_of(with_header(lambda header: header.update(feature_names=["a"] * 400_000))),
    "a declared array": member_of(with_array("centroids", declared(shape=f"({2**31}, 2)"))),
    "a declared size": table(24, 2**32 - 2, 4),
    "a .npy header": member_of(with_array("centroids", npy_of(" " * 9 * 2**20, version=(2, 0)))),
}


def status(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are known on Linux")
@pytest.mark.parametrize("name", LARGE)
def test_refusing_takes_little_memory(path, name):
    LARGE[name](path, saved(path))
    assert path.stat().st_size <= 10 * 2**20
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    check_refused(path)
    assert status("VmHWM") - before < MAX_MEMORY
