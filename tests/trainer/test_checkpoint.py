import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdec.core.optimizers import apply_gradients, make_optimizer
from jdec.trainer.checkpoint import Checkpoints


class State(NamedTuple):
    params: Any
    opt_state: Any
    labels: Any
    done: Any
    ratio: Any


@cache
def make_tree(seed=0):
    """Return all that a run may have in its state, NaN and -0.0 included."""
    rng = np.random.default_rng(seed)
    params = {
        "encoder_0": {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)},
        "encoder_1": {"kernel": rng.normal(size=(4, 2)), "bias": [np.nan, -0.0]},
    }
    params = jax.tree.map(jnp.float32, params, is_leaf=lambda leaf: isinstance(leaf, list))
    optimizers = [
        make_optimizer("adam", 1e-3, n_steps=9, schedule="one_cycle", weight_decay=0.1),
        make_optimizer("sgd", 0.1, n_steps=9, momentum_warmup_steps=5, bias_multiplier=2.0),
    ]
    states = []
    for tx in optimizers:
        updates = jax.tree.map(np.ones_like, params)
        states.append(jax.jit(partial(apply_gradients, tx))(updates, tx.init(params), params)[1])
    return {
        "autoencoder": params,
        "state": State(
            params,
            states,
            jnp.asarray(rng.integers(0, 9, 7), jnp.int32),
            jnp.bool_(True),
            jnp.float32(np.inf),
        ),
        "nothing": None,
        "tuple": (jnp.int32(seed), ()),
    }


def template(metadata):
    """Return zeros in the form of make_tree."""
    return jax.tree.map(jnp.zeros_like, make_tree())


def metadata(step):
    return {
        "phase": "clustering",
        "step": step,
        "history": [{"loss": 0.1 * i, "label_change": None, "sizes": [i, 3]} for i in range(step)],
        "seconds": {"pretraining": 1 / 3},
    }


def same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    return all(
        np.asarray(a).dtype == np.asarray(b).dtype
        and np.asarray(a).shape == np.asarray(b).shape
        and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def numbers(folder):
    return sorted(int(path.stem) for path in folder.iterdir())


def latest(folder):
    return Checkpoints(folder).latest(template)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a folder of two checkpoints: copy it before breaking it."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(folder)
    for step in (1, 2):
        checkpoints.save(step, make_tree(step), metadata(step))
    return folder


@pytest.mark.parametrize("as_text", [True, False])
def test_state_and_metadata_come_back_bit_for_bit(tmp_path, as_text):
    folder = str(tmp_path / "new" / "folder") if as_text else tmp_path / "new" / "folder"
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest(template) is None
    checkpoints.save(3, make_tree(3), metadata(3))
    restored = checkpoints.latest(template)
    for found in (restored, latest(folder)):
        assert (found.step, found.metadata) == (3, metadata(3))
        assert same_bits(found.tree, make_tree(3))
        assert not same_bits(found.tree, make_tree(4))
        assert isinstance(found.tree["state"], State)


DTYPES = ("float64", "float32", "float16", "int64", "int32", "uint32", "uint8", "bool", "complex64")


@pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)])
def test_every_dtype_comes_back(tmp_path, dtype, shape):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"a": array, "turned": array.T}, {})
    tree = checkpoints.latest(lambda _: {"a": array, "turned": array.T}).tree
    assert same_bits(tree, {"a": array, "turned": array.T})


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_typed_keys_come_back(tmp_path, impl):
    keys = jax.random.split(jax.random.key(2**31, impl=impl), 3)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"key": keys[0], "keys": keys}, {})
    tree = checkpoints.latest(lambda _: {"key": keys[1], "keys": keys}).tree
    assert tree["keys"].dtype == keys.dtype
    assert (tree["key"] == keys[0]).all()
    assert (tree["keys"] == keys).all()


def test_a_template_may_be_of_shapes_alone(tmp_path):
    key = jax.random.key(3)
    tree = {"w": jnp.ones(2, jnp.bfloat16), "key": key, "n": jnp.int32(1)}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, tree, {})
    restored = checkpoints.latest(lambda _: jax.eval_shape(lambda: tree)).tree
    assert (restored.pop("key") == tree.pop("key")).all()
    assert same_bits(restored, tree)


def test_a_single_array_is_a_tree(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, np.arange(3), {})
    assert checkpoints.latest(lambda _: np.arange(3)).tree.tolist() == [0, 1, 2]


def test_the_template_is_asked_with_the_metadata(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"w": np.ones(3, np.float32)}, {"width": 3, "phase": "a"})
    asked = []

    def make(metadata):
        asked.append(metadata)
        return {"w": jnp.zeros(metadata["width"])}

    assert checkpoints.latest(make).tree["w"].tolist() == [1, 1, 1]
    assert asked == [{"width": 3, "phase": "a"}]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(tmp_path, keep):
    checkpoints = Checkpoints(tmp_path, keep=keep)
    for step in range(1, 6):
        checkpoints.save(step, {"w": np.full(2, step, np.float32)}, {})
    assert checkpoints.latest(lambda _: {"w": jnp.zeros(2)}).tree["w"].tolist() == [5, 5]
    assert numbers(tmp_path) == list(range(6 - keep, 6))


def test_two_are_kept_by_default(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in range(1, 5):
        checkpoints.save(step, {"w": np.zeros(2, np.float32)}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000003.npz", "00000004.npz"]


def test_saving_goes_on_after_a_restart(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest(template).step == 2
    checkpoints.save(3, make_tree(3), metadata(3))
    assert same_bits(latest(folder).tree, make_tree(3))
    assert numbers(folder) == [2, 3]


def test_what_is_saved_is_what_was_there_when_it_was_saved(tmp_path):
    n = 2**20
    donated, mutated = jnp.arange(n, dtype=jnp.float32), np.arange(n, dtype=np.float32)
    history = [{"loss": 1.0}]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"donated": donated, "mutated": mutated}, {"history": history})
    history.append({"loss": 3.0})
    jax.jit(lambda x: -x - 1, donate_argnums=0)(donated).block_until_ready()
    assert donated.is_deleted()
    mutated[:] = -7
    restored = checkpoints.latest(
        lambda _: {"donated": jnp.zeros(n), "mutated": np.zeros(n, np.float32)}
    )
    for name in ("donated", "mutated"):
        np.testing.assert_array_equal(restored.tree[name], np.arange(n, dtype=np.float32))
    assert restored.metadata == {"history": [{"loss": 1.0}]}


def test_a_checkpoint_is_on_disk_when_it_is_saved(tmp_path, monkeypatch):
    """Of file and folder, both before the next line is run; nothing is left to a thread."""
    synced = []
    fsync = os.fsync

    def spy(handle):
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    if not Path("/proc/self/fd").exists():
        pytest.skip("names of open files are known on Linux")
    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(os, "fsync", spy)
    threads = threading.active_count()
    checkpoints.save(1, {"w": np.zeros(3)}, {})
    assert threading.active_count() == threads
    file, folder = synced
    assert file.name.startswith(".00000001.npz.")
    assert folder == tmp_path


def test_threads_do_not_get_in_each_others_way(tmp_path):
    found = {}

    def work(number):
        checkpoints = Checkpoints(tmp_path / str(number))
        for step in range(1, 20):
            checkpoints.save(step, {"w": np.full(500, number, np.float32)}, {"step": step})
        found[number] = checkpoints.latest(lambda _: {"w": jnp.zeros(500)})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(6):
        assert (found[number].step, found[number].metadata) == (19, {"step": 19})
        assert (found[number].tree["w"] == number).all()
        assert numbers(tmp_path / str(number)) == [18, 19]


# Interrupted.


@pytest.fixture
def interruptible():
    """Let SIGINT interrupt, also where the tests run as a background job and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_interrupt_leaves_whole_files(saved, tmp_path, monkeypatch, call):
    folder = shutil.copytree(saved, tmp_path / "copy")
    place = os if call == "fsync" else Path
    function = getattr(place, call)

    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return function(*args, **kwargs)

    checkpoints = Checkpoints(folder)
    with monkeypatch.context() as patch:
        patch.setattr(place, call, interrupted)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(3, make_tree(3), metadata(3))
    assert numbers(folder) == [1, 2]
    assert latest(folder).step == 2
    checkpoints.save(3, make_tree(3), metadata(3))
    assert same_bits(latest(folder).tree, make_tree(3))


ENDLESS = """
import signal, sys
from pathlib import Path
import numpy as np
from jdec.trainer.checkpoint import Checkpoints

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job ignores
checkpoints = Checkpoints(sys.argv[1])
for step in range(1, 10**6):
    checkpoints.save(step, {"w": np.full(300_000, step, np.float32)}, {"step": step})
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_leaves_whole_files(tmp_path, number):
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path)], stderr=subprocess.PIPE
    ) as process:
        # The second, or a later one: on a busy machine it may have come and gone in between.
        while process.poll() is None and not any(tmp_path.glob("*[2-9].npz")):
            time.sleep(0.01)
        time.sleep(np.random.default_rng(int(number)).uniform(0, 0.2))
        process.send_signal(number)
        process.wait(60)
    # What is there under a final name is whole.
    for path in tmp_path.glob("*.npz"):
        with np.load(path) as stored:
            assert len({*stored["['w']"]}) == 1
    checkpoints = Checkpoints(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".npz"]
    restored = checkpoints.latest(lambda _: {"w": jnp.zeros(300_000)})
    assert (restored.tree["w"] == restored.metadata["step"]).all()
    assert restored.step == restored.metadata["step"] >= 2


def test_what_others_left_is_not_cleared_away(tmp_path):
    names = (".notes.tmp", ".00000001.txt.abc.tmp", "00000001.npz.tmp", "notes.npz", "2024.npz")
    for name in names:
        (tmp_path / name).write_text("kept")
    (tmp_path / ".00000001.npz.abc.tmp").write_text("half")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest(template) is None
    checkpoints.save(1, {}, {})
    assert {path.name for path in tmp_path.iterdir()} == {*names, "00000001.npz"}


# No room.


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
@pytest.mark.parametrize("room", [0, 1, 100, 1000, 3000, 8000, 2**20])
def test_a_full_disk_leaves_what_was_there(saved, tmp_path, room):
    import resource

    folder = shutil.copytree(saved, tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    checkpoints = Checkpoints(folder)
    tree = {**make_tree(3), "more": np.zeros(10**6)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            checkpoints.save(3, tree, metadata(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(folder / "00000003.npz")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    checkpoints.save(3, make_tree(3), metadata(3))
    assert latest(folder).step == 3


def test_a_removed_folder_is_made_again(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    checkpoints = Checkpoints(folder)
    shutil.rmtree(folder)
    checkpoints.save(3, make_tree(3), metadata(3))
    assert latest(folder).step == 3


def test_a_folder_removed_with_all_around_it_is_an_error(saved, tmp_path):
    (tmp_path / "run").mkdir()
    folder = shutil.copytree(saved, tmp_path / "run" / "checkpoints")
    checkpoints = Checkpoints(folder)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(FileNotFoundError) as caught:
        checkpoints.save(3, make_tree(3), metadata(3))
    assert caught.value.filename in (str(folder), folder)
    assert list(tmp_path.iterdir()) == []


# Damage.


def flip(position):
    def damage(path):
        content = bytearray(path.read_bytes())
        content[int(position * (len(content) - 1))] ^= 0x10
        path.write_bytes(content)

    return damage


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rewrite(change):
    """Return a damage that alters the members of the archive, whose checksums then are right."""

    def damage(path):
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in change(members).items():
                archive.writestr(name, content)

    return damage


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def with_header(change):
    def damage(members):
        header = np.load(io.BytesIO(members["header.npy"])).tobytes()
        changed = change(header.decode()).encode()
        assert changed != header
        return members | {"header.npy": npy(np.frombuffer(changed, np.uint8))}

    return rewrite(damage)


W = "['autoencoder']['encoder_0']['kernel'].npy"
DAMAGES = {
    "first byte": flip(0),
    "a byte": flip(0.4),
    "truncated": truncate,
    "emptied": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "text": lambda path: path.write_text("checkpoint"),
    "an array": lambda path: path.write_bytes(npy(np.zeros(3))),
    "another archive": rewrite(lambda members: {"a.npy": npy(np.zeros(3))}),
    "no array": rewrite(lambda members: {}),
    "no header": rewrite(lambda members: {n: members[n] for n in members if n != "header.npy"}),
    "no digest": rewrite(lambda members: {n: members[n] for n in members if n != "sha256.npy"}),
    "an array less": rewrite(lambda members: {n: members[n] for n in members if n != W}),
    "an array more": rewrite(lambda members: members | {"more.npy": npy(np.zeros(3))}),
    "another value": rewrite(lambda members: members | {W: npy(np.zeros((3, 4), np.float32))}),
    "another dtype": rewrite(
        lambda members: members | {W: npy(np.load(io.BytesIO(members[W])).view(np.int32))}
    ),
    "another shape": rewrite(
        lambda members: members | {W: npy(np.load(io.BytesIO(members[W])).reshape(4, 3))}
    ),
    "another digest": rewrite(lambda members: members | {"sha256.npy": npy(np.zeros(32, "u1"))}),
    "a digest of another kind": rewrite(lambda members: members | {"sha256.npy": npy("abc")}),
    "another history": with_header(lambda text: text.replace("0.1", "0.7")),
    "no JSON": with_header(lambda text: text[:-1]),
    "nested JSON": with_header(lambda text: "[" * 10**5),
    "objects": rewrite(lambda members: members | {W: npy(np.array([{}, {}], dtype=object))}),
}


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.name.startswith("jdec")]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(saved, tmp_path, caplog, how):
    folder = shutil.copytree(saved, tmp_path / "copy")
    DAMAGES[how](folder / "00000002.npz")
    restored = latest(folder)
    assert (restored.step, restored.metadata) == (1, metadata(1))
    assert same_bits(restored.tree, make_tree(1))
    (message,) = warnings_of(caplog)
    assert f"checkpoint {folder / '00000002.npz'} is damaged and is not used: " in message
    assert "\n" not in message
    assert len(message) < 500 + len(str(tmp_path))
    # It is gone, and the next save takes its number.
    assert numbers(folder) == [1]
    checkpoints = Checkpoints(folder)
    checkpoints.save(2, make_tree(5), metadata(5))
    assert same_bits(latest(folder).tree, make_tree(5))


def test_every_byte_that_matters_is_covered(saved, tmp_path, caplog):
    """Whichever bit is flipped, either nothing is lost or the checkpoint before is used."""
    folder = shutil.copytree(saved, tmp_path / "copy")
    path = folder / "00000002.npz"
    content = path.read_bytes()
    refusals = 0
    for position in range(0, len(content), 151):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        restored = latest(folder)
        assert restored.metadata == metadata(restored.step), position
        assert same_bits(restored.tree, make_tree(restored.step)), position
        refusals += restored.step == 1
    assert refusals > 0.8 * len(range(0, len(content), 151))
    assert len(warnings_of(caplog)) == refusals


def test_a_checkpoint_put_in_the_place_of_another_is_whole(saved, tmp_path, caplog):
    folder = shutil.copytree(saved, tmp_path / "copy")
    shutil.copy(folder / "00000001.npz", folder / "00000002.npz")
    restored = latest(folder)
    assert same_bits(restored.tree, make_tree(1))
    assert restored.metadata == metadata(1)
    assert warnings_of(caplog) == []


def test_older_damage_is_not_looked_at(saved, tmp_path, caplog):
    folder = shutil.copytree(saved, tmp_path / "copy")
    truncate(folder / "00000001.npz")
    assert latest(folder).step == 2
    assert numbers(folder) == [1, 2]
    assert warnings_of(caplog) == []


def test_all_damaged_is_an_error_that_deletes_nothing(saved, tmp_path, caplog):
    folder = shutil.copytree(saved, tmp_path / "copy")
    for path in folder.iterdir():
        truncate(path)
    with pytest.raises(ValueError, match=r"got only damaged ones \(2, 1\)") as caught:
        latest(folder)
    assert str(folder) in str(caught.value)
    assert len(warnings_of(caplog)) == 2
    assert numbers(folder) == [1, 2]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read_is_not_taken_for_damaged(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    (folder / "00000002.npz").chmod(0)
    with pytest.raises(ValueError, match=r"cannot read checkpoint .*: Permission denied"):
        latest(folder)
    assert numbers(folder) == [1, 2]


def test_a_folder_by_the_name_of_a_checkpoint_is_not_taken_for_damaged(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    (folder / "00000003.npz").mkdir()
    with pytest.raises(ValueError, match=r"cannot read checkpoint .*: Is a directory"):
        latest(folder)
    assert numbers(folder) == [1, 2, 3]


# What is no damage: nothing is skipped, and nothing deleted.


def with_leaf(**changes):
    tree = make_tree()
    return {**tree, "autoencoder": {**tree["autoencoder"], "encoder_1": changes}}


OTHERS = {
    "another structure": ({"w": jnp.zeros(2)}, "['w']"),
    "a leaf less": (with_leaf(kernel=jnp.zeros((4, 2))), "['bias']"),
    "a leaf more": (
        with_leaf(kernel=jnp.zeros((4, 2)), bias=jnp.zeros(2), scale=jnp.zeros(2)),
        "['scale'], got nothing",
    ),
    "another shape": (
        with_leaf(kernel=jnp.zeros((2, 4)), bias=jnp.zeros(2)),
        "expected float32 (2, 4) in ['autoencoder']['encoder_1']['kernel'], got float32 (4, 2)",
    ),
    "another dtype": (
        with_leaf(kernel=np.zeros((4, 2)), bias=jnp.zeros(2)),
        "expected float64 (4, 2) in ['autoencoder']['encoder_1']['kernel'], got float32 (4, 2)",
    ),
    "a dtype of as many bytes": (
        with_leaf(kernel=jnp.zeros((4, 2), jnp.int32), bias=jnp.zeros(2)),
        "expected int32 (4, 2)",
    ),
    "a key": (
        with_leaf(kernel=jax.random.key(0), bias=jnp.zeros(2)),
        "expected key<fry> (2,)",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_template_of_another_form_is_refused(saved, tmp_path, caplog, name):
    folder = shutil.copytree(saved, tmp_path / "copy")
    tree, needed = OTHERS[name]
    with pytest.raises(ValueError, match=r"00000002\.npz is of another program") as caught:
        Checkpoints(folder).latest(lambda _: tree)
    assert needed in str(caught.value)
    assert "\n" not in str(caught.value)
    assert warnings_of(caplog) == []
    assert numbers(folder) == [1, 2]


@pytest.mark.parametrize("error", [KeyError("phase"), TypeError("shape"), ZeroDivisionError()])
def test_a_programming_error_is_not_taken_for_damage(saved, tmp_path, caplog, error):
    folder = shutil.copytree(saved, tmp_path / "copy")

    def broken(metadata):
        raise error

    with pytest.raises(type(error)) as caught:
        Checkpoints(folder).latest(broken)
    assert caught.value is error
    assert warnings_of(caplog) == []
    assert numbers(folder) == [1, 2]


def test_a_value_that_is_no_json_is_not_saved(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    with pytest.raises(TypeError):
        Checkpoints(folder).save(3, make_tree(3), {"phase": object()})
    assert numbers(folder) == [1, 2]


# Places.


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ValueError, match="expected a folder that can be written to") as caught:
        Checkpoints(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    def touch(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", touch)
    with pytest.raises(ValueError, match=r"can be written to, got .*: Permission denied"):
        Checkpoints(tmp_path)


def test_nothing_is_left_of_the_writing_test(tmp_path):
    Checkpoints(tmp_path / "a")
    assert list((tmp_path / "a").iterdir()) == []
