import functools
import json
import logging
import shutil
import signal
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdec.checkpoint import Checkpoints
from jdec.training import make_optimizer


class State(NamedTuple):
    params: Any
    opt_state: Any
    labels: Any
    done: Any
    ratio: Any


@functools.cache
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
        updates = jax.tree.map(jnp.ones_like, params)
        states.append(tx.update(updates, tx.init(params), params)[1])
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
    return sorted(int(path.name) for path in folder.iterdir())


def latest(folder):
    with Checkpoints(folder) as checkpoints:
        return checkpoints.latest(template)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a folder of two checkpoints: copy it before breaking it."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    with Checkpoints(folder) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_tree(step), metadata(step))
    return folder


@pytest.mark.parametrize("as_text", [True, False])
def test_state_and_metadata_come_back_bit_for_bit(tmp_path, as_text):
    folder = str(tmp_path / "new" / "folder") if as_text else tmp_path / "new" / "folder"
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest(template) is None
        checkpoints.save(3, make_tree(3), metadata(3))
        restored = checkpoints.latest(template)
    for found in (restored, latest(folder)):
        assert (found.step, found.metadata) == (3, metadata(3))
        assert same_bits(found.tree, make_tree(3))
        assert not same_bits(found.tree, make_tree(4))
        assert isinstance(found.tree["state"], State)


def test_typed_keys_are_kept_as_data(tmp_path):
    key = jax.random.key_data(jax.random.key(2**31))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"key": key}, {})
        restored = checkpoints.latest(lambda _: {"key": jnp.zeros_like(key)})
    assert restored.tree["key"].tolist() == key.tolist()


def test_the_template_is_asked_with_the_metadata(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": np.ones(3, np.float32)}, {"width": 3, "phase": "a"})
        asked = []

        def make(metadata):
            asked.append(metadata)
            return {"w": jnp.zeros(metadata["width"])}

        assert checkpoints.latest(make).tree["w"].tolist() == [1, 1, 1]
    assert asked[0] == {"width": 3, "phase": "a"}


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(tmp_path, keep):
    with Checkpoints(tmp_path, keep=keep) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(step, {"w": np.full(2, step, np.float32)}, {})
        assert checkpoints.latest(lambda _: {"w": jnp.zeros(2)}).tree["w"].tolist() == [5, 5]
    assert numbers(tmp_path) == list(range(6 - keep, 6))


def test_two_are_kept_by_default(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 5):
            checkpoints.save(step, {"w": np.zeros(2, np.float32)}, {})
    assert numbers(tmp_path) == [3, 4]


def test_saving_goes_on_after_a_restart(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest(template).step == 2
        checkpoints.save(3, make_tree(3), metadata(3))
    assert same_bits(latest(folder).tree, make_tree(3))
    assert numbers(folder) == [2, 3]


def test_what_is_saved_is_what_was_there_when_it_was_saved(tmp_path):
    n = 2**20
    donated, mutated = jnp.arange(n, dtype=jnp.float32), np.arange(n, dtype=np.float32)
    overwrite = jax.jit(lambda x: -x - 1, donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"donated": donated, "mutated": mutated}, {})
        for _ in range(5):
            donated = overwrite(donated)
        mutated[:] = -7
        overwrite(donated).block_until_ready()
        assert donated.is_deleted()
        tree = checkpoints.latest(lambda _: {"donated": jnp.zeros(n), "mutated": jnp.zeros(n)}).tree
    for name in ("donated", "mutated"):
        np.testing.assert_array_equal(tree[name], np.arange(n, dtype=np.float32))


def test_metadata_is_that_of_the_save_too(tmp_path):
    """A history grows while the checkpoint is on its way to the disk."""
    history = [{"loss": 1.0}]
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": np.ones(2**20, np.float32)}, {"history": history})
        history[0]["loss"] = 2.0
        history.append({"loss": 3.0})
        restored = checkpoints.latest(lambda _: {"w": jnp.zeros(2**20)})
    assert restored.metadata == {"history": [{"loss": 1.0}]}


def test_leaving_waits_until_all_is_written(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": np.ones(2**20, np.float32)}, {})
    assert numbers(tmp_path) == [1]
    restored = Checkpoints(tmp_path).latest(lambda _: {"w": jnp.zeros(2**20)})
    assert restored.tree["w"].sum() == 2**20


@pytest.fixture
def interruptible():
    """Let SIGINT interrupt, also where the tests run as a background job and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits_for_the_save_in_progress(tmp_path, monkeypatch):
    """Interrupted halfway, it would leave a thread that never ends."""
    done = []
    with Checkpoints(tmp_path) as checkpoints:
        save = checkpoints._manager.save

        def interrupted(*args, **kwargs):
            signal.raise_signal(signal.SIGINT)
            save(*args, **kwargs)
            done.append(True)

        monkeypatch.setattr(checkpoints._manager, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(1, make_tree(1), metadata(1))
        assert done == [True]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert same_bits(latest(tmp_path).tree, make_tree(1))


def test_an_interrupted_save_is_cleared_away(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    half = folder / "3.orbax-checkpoint-tmp"
    shutil.copytree(folder / "2", half)
    (half / "_CHECKPOINT_METADATA").unlink()
    assert latest(folder).step == 2
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(3, make_tree(3), metadata(3))
    assert numbers(folder) == [2, 3]


# Damage.


def flip(position):
    def damage(path):
        content = bytearray(path.read_bytes())
        content[int(position * (len(content) - 1))] ^= 0x10
        path.write_bytes(content)

    return damage


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


DAMAGES = {
    "first byte": flip(0),
    "a byte": flip(0.4),
    "last byte": flip(1),
    "truncated": truncate,
    "emptied": empty,
    "deleted": lambda path: path.unlink(),
}


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.name.startswith("jdec")]


@pytest.mark.parametrize("how", DAMAGES)
def test_no_damaged_file_gives_wrong_data(saved, tmp_path, caplog, capfd, how):
    """Whichever file it is, either nothing is lost or the checkpoint before is used, and said."""
    files = [path.relative_to(saved) for path in sorted((saved / "2").rglob("*")) if path.is_file()]
    assert len(files) > 5
    refusals = 0
    for number, file in enumerate(files):
        folder = shutil.copytree(saved, tmp_path / str(number))
        DAMAGES[how](folder / file)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            restored = latest(folder)
        assert restored.metadata == metadata(restored.step), file
        assert same_bits(restored.tree, make_tree(restored.step)), file
        messages = warnings_of(caplog)
        if restored.step == 2:
            assert messages == []
            continue
        refusals += 1
        assert restored.step == 1
        assert len(messages) == 1
        assert f"checkpoint {folder / '2'} is damaged and is not used: " in messages[0]
        assert "\n" not in messages[0]
        assert len(messages[0]) < 300 + len(str(tmp_path))
        # It is gone, so that the next save may take its number.
        assert numbers(folder) == [1]
    assert refusals >= 3
    assert "Traceback" not in capfd.readouterr().err


def test_every_byte_of_the_metadata_is_covered(saved, tmp_path, caplog):
    """A digit altered in the history is still JSON: only the digest tells."""
    folder = shutil.copytree(saved, tmp_path / "copy")
    path = folder / "2" / "metadata" / "metadata"
    text = path.read_text()
    assert json.loads(text)["history"] == metadata(2)["history"]
    altered = text.replace("0.1", "0.7")
    assert altered != text
    path.write_text(altered)
    assert latest(folder).metadata == metadata(1)
    assert "does not match the digest" in warnings_of(caplog)[0]


def test_arrays_of_another_checkpoint_are_refused(saved, tmp_path, caplog):
    # Readable and of the right form, and still not what was saved.
    folder = shutil.copytree(saved, tmp_path / "copy")
    shutil.rmtree(folder / "2" / "state")
    shutil.copytree(folder / "1" / "state", folder / "2" / "state")
    restored = latest(folder)
    assert restored.step == 1
    assert same_bits(restored.tree, make_tree(1))
    assert "does not match the digest" in warnings_of(caplog)[0]


@pytest.mark.parametrize("item", ["state", "metadata", "."])
def test_a_missing_folder_is_named(saved, tmp_path, caplog, item):
    folder = shutil.copytree(saved, tmp_path / "copy")
    shutil.rmtree(folder / "2" / item)
    (folder / "2").mkdir(exist_ok=True)
    restored = latest(folder)
    assert (restored.step, restored.metadata) == (1, metadata(1))
    assert str(folder / "2") in warnings_of(caplog)[0]


def test_saving_goes_on_after_damage(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    (folder / "2" / "metadata" / "metadata").unlink()
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest(template).step == 1
        checkpoints.save(2, make_tree(5), metadata(5))
    assert numbers(folder) == [1, 2]
    assert same_bits(latest(folder).tree, make_tree(5))


def test_a_template_of_another_form_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(ValueError, match=r"got only damaged ones \(2, 1\)"),
    ):
        checkpoints.latest(lambda _: {"w": jnp.zeros(2)})


def test_all_damaged_is_an_error_that_deletes_nothing(saved, tmp_path, caplog):
    folder = shutil.copytree(saved, tmp_path / "copy")
    for number in ("1", "2"):
        truncate(folder / number / "metadata" / "metadata")
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(ValueError, match=r"got only damaged ones \(2, 1\)") as caught,
    ):
        checkpoints.latest(template)
    assert str(folder) in str(caught.value)
    assert len(warnings_of(caplog)) == 2
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
    with Checkpoints(tmp_path / "a"):
        pass
    assert list((tmp_path / "a").iterdir()) == []
