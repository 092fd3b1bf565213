import errno
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import quick
from sklearn.datasets import load_digits

from jdec.trainer.checkpoint import Checkpoints
from jdec.trainer.config import Config
from jdec.trainer.fit import fit

X, Y = (array[:200] for array in load_digits(return_X_y=True))
CONFIG = Config(10).replace(
    {
        "network.hidden_dims": [16],
        "network.latent_dim": 5,
        "pretrain.layerwise_steps": 2,
        "pretrain.finetune_steps": 10,
        "pretrain.batch_size": 64,
        "pretrain.finetune_corruption_rate": 0.1,
        "pretrain.optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum_warmup_steps": 9},
        "kmeans.n_init": 2,
        "clustering.batch_size": 64,
        "clustering.update_interval": 5,
        "clustering.max_intervals": 4,
        "clustering.tol": 0.0,
        "clustering.optimizer.learning_rate": 1e-3,
    }
)
N_PRETRAINING = 2 + 2 + 10  # records
N_RECORDS = N_PRETRAINING + 1 + 4


def same_bits(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.asarray(a).dtype == np.asarray(b).dtype
        and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in leaves
    )


def arrays(result):
    model = result.model
    return [model.scaling, model.params, model.centroids, *result[1:6]]


def timeless(history):
    return [{name: r[name] for name in r if name != "seconds"} for r in history]


def check_same_result(result, unbroken):
    assert same_bits(arrays(result), arrays(unbroken))
    assert timeless(result.history) == timeless(unbroken.history)
    assert result.stop_reason == unbroken.stop_reason
    assert result.n_intervals == unbroken.n_intervals
    seconds = [record["seconds"] for record in result.history]
    assert seconds == sorted(seconds)


def run(workdir=None, **kwargs):
    shared = {"key": jax.random.key(3), "x": X, "config": CONFIG, "y": Y, "checkpoint_seconds": 0}
    kwargs = shared | kwargs
    return fit(workdir=workdir, **kwargs)


def snapshot(folder):
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in sorted(folder.rglob("*"))
    }


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def newest_of(folder):
    return max((folder / "checkpoints").iterdir())


class StopError(BaseException):
    """Ends a run, as an interrupt does; an Exception of a callback would not."""


def stop_at(n_records):
    """Return a callback that interrupts the run when it has made so many records."""
    seen = []

    def callback(record):
        seen.append(record)
        if len(seen) == n_records:
            raise StopError

    return callback


def interrupted(workdir, n_records, **kwargs):
    with pytest.raises(StopError):
        run(workdir, callbacks=[stop_at(n_records)], **kwargs)
    return workdir


@pytest.fixture(scope="module")
def unbroken():
    return run()


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    """Return a folder interrupted in clustering: copy it before changing it."""
    return interrupted(tmp_path_factory.mktemp("half") / "run", N_PRETRAINING + 4)


# A workdir changes nothing, and tells all.


def test_a_workdir_does_not_change_the_result(tmp_path, unbroken):
    result = run(tmp_path / "new" / "run")
    check_same_result(result, unbroken)
    folder = tmp_path / "new" / "run"
    names = ["checkpoints", "config.json", "history.jsonl", "run.json"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert Config.from_json((folder / "config.json").read_text()) == CONFIG
    assert lines(folder / "history.jsonl") == result.history
    record = json.loads((folder / "run.json").read_text())
    assert record["config"] == CONFIG.to_dict()
    assert sorted(record["data"]) == ["digest", "pretraining rows", "shape"]
    assert record["data"]["shape"] == [200, 64]
    assert len(bytes.fromhex(record["data"]["digest"])) == 16
    assert record["key"] == ["threefry2x32", 0, 3]
    assert record["jax"]["jax_enable_x64"] is False
    assert len(list((folder / "checkpoints").iterdir())) == 2


def test_what_follows_from_the_rest_is_not_kept(tmp_path, monkeypatch):
    """P would be most of a checkpoint where there are many rows."""
    saved = []
    save = Checkpoints.save

    def spy(self, step, tree, metadata):
        saved.append((metadata["phase"], tree))
        save(self, step, tree, metadata)

    monkeypatch.setattr(Checkpoints, "save", spy)
    run(tmp_path)
    trees = [tree for phase, tree in saved if phase == "clustering"]
    assert len(trees) == 1 + 4
    for tree in trees:
        assert tree["state"]._fields == ("params", "opt_state", "interval")
        assert not [leaf for leaf in jax.tree.leaves(tree["state"]) if 200 in np.shape(leaf)]
        assert not [leaf for leaf in jax.tree.leaves(tree) if np.shape(leaf) == (200, 10)]


def test_resume_starts_afresh_where_there_is_nothing(tmp_path, unbroken):
    check_same_result(run(tmp_path / "run", resume=True), unbroken)


# Interrupted anywhere, resumed: the same bits.


@pytest.mark.parametrize(
    "n_records",
    [
        1,  # before the first checkpoint is on disk
        2,  # the last step of a layer
        3,  # the first of the next
        5,
        N_PRETRAINING,
        N_PRETRAINING + 1,  # k-means
        N_PRETRAINING + 2,
        N_RECORDS - 1,
        N_RECORDS,
    ],
)
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, unbroken, n_records):
    folder = interrupted(tmp_path / "run", n_records)
    seen = []
    result = run(folder, resume=True, callbacks=[seen.append])
    check_same_result(result, unbroken)
    assert 0 < len(seen) <= N_RECORDS - n_records + 1
    assert seen == result.history[-len(seen) :]
    assert lines(folder / "history.jsonl") == result.history


def test_a_run_may_be_interrupted_many_times(tmp_path, unbroken):
    folder = tmp_path / "run"
    interrupted(folder, 3)
    for n_records in (4, 7, 6):
        interrupted(folder, n_records, resume=True)
    result = run(folder, resume=True)
    check_same_result(result, unbroken)
    assert result.seconds["pretraining"] > 0


def test_a_finished_run_can_be_resumed(tmp_path, unbroken):
    run(tmp_path)
    seen = []
    result = run(tmp_path, resume=True, callbacks=[seen.append])
    check_same_result(result, unbroken)
    assert seen == []


def test_a_run_whose_labels_have_settled_is_over_when_resumed(tmp_path):
    """P and labels are made anew, and how many of these changed is that of the run."""
    config = CONFIG.replace({"clustering.tol": 0.5})
    before = run(tmp_path, config=config)
    assert (before.stop_reason, before.n_intervals) == ("tol", 1)
    after = run(tmp_path, config=config, resume=True)
    check_same_result(after, before)


def test_only_scores_depend_on_whether_there_are_classes(tmp_path, unbroken):
    folder = interrupted(tmp_path, N_PRETRAINING + 3)
    result = run(folder, resume=True, y=None)
    assert same_bits(arrays(result), arrays(unbroken))
    assert "acc" not in result.history[-1]


def environment(**more):
    """Return variables with which a process compiles as this one does, and shares its programs."""
    return quick.environment(jax.config.jax_compilation_cache_dir, **more)


def test_checkpoints_are_written_at_the_ends_of_stages_and_by_time(tmp_path, unbroken):
    """Two layers, the whole network, the partition and self-training end with one each."""
    for seconds, number in ((30, 5), (1e-9, N_RECORDS), (0, N_RECORDS)):
        folder = tmp_path / str(seconds)
        check_same_result(run(folder, checkpoint_seconds=seconds), unbroken)
        assert newest_of(folder).name == f"{number:08d}.npz"
        assert len(lines(folder / "history.jsonl")) == N_RECORDS
        again = run(folder, checkpoint_seconds=seconds, resume=True)
        check_same_result(again, unbroken)
        assert newest_of(folder).name == f"{number:08d}.npz"


@pytest.mark.parametrize("n_records", [3, 9, N_PRETRAINING + 3, N_RECORDS])
def test_what_came_after_the_last_checkpoint_is_done_again(tmp_path, unbroken, n_records):
    folder = interrupted(tmp_path / "run", n_records, checkpoint_seconds=1000)
    check_same_result(run(folder, resume=True, checkpoint_seconds=1000), unbroken)


@pytest.mark.parametrize("seconds", [-1, float("nan"), "30", None])
def test_seconds_between_checkpoints_are_checked_first(tmp_path, seconds):
    with pytest.raises(ValueError, match="checkpoint_seconds: "):
        run(tmp_path / "run", checkpoint_seconds=seconds)
    assert not (tmp_path / "run").exists()


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import jax
import numpy as np
from jdec import Config, fit

folder, (phase, how, rows) = Path(sys.argv[1]), sys.argv[2:]
config = Config.from_json((folder / "settings.json").read_text())
seen = []

def callback(record):
    if record["phase"] == phase:
        seen.append(record)
    # Several checkpoints of the phase are on their way to the disk by then.
    if len(seen) == 4 and not (folder / "at_work").exists():
        (folder / "at_work").touch()
        if how == "itself":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

data = np.load(folder / "data.npz")
options = {"y": data["y"], "rows": rows, "callbacks": [callback], "checkpoint_seconds": 0}
fit(jax.random.key(3), data["x"], config, workdir=folder / "run", **options)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
@pytest.mark.parametrize(
    ("phase", "how", "rows"),
    [
        ("finetune", "itself", "device"),
        ("clustering", "other", "device"),
        ("clustering", "itself", "stream"),
    ],
)
def test_a_killed_process_can_be_resumed(tmp_path, unbroken, phase, how, rows):
    (tmp_path / "settings.json").write_text(CONFIG.to_json())
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), phase, how, rows]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment(**quick.READ_ONLY)
    ) as process:
        while how == "other" and process.poll() is None and not (tmp_path / "at_work").exists():
            time.sleep(0.01)
        if how == "other":
            process.kill()
        assert process.wait(120) == -signal.SIGKILL, process.stderr.read()
    folder = tmp_path / "run"
    assert any(path.suffix == ".npz" for path in (folder / "checkpoints").iterdir())
    seen = []
    result = run(folder, resume=True, rows=rows, callbacks=[seen.append])
    check_same_result(result, unbroken if rows == "device" else run(rows=rows))
    # It did go on, and not start again.
    n_before = N_PRETRAINING - 10 + 4 if phase == "finetune" else N_PRETRAINING + 4
    assert N_RECORDS - n_before <= len(seen) < N_RECORDS - n_before + 4
    assert lines(folder / "history.jsonl") == result.history


X64 = """
import sys
from pathlib import Path
import jax
import numpy as np
from jdec import Config, fit

folder = Path(sys.argv[1])
config = Config.from_json((folder / "settings.json").read_text())
x = np.load(folder / "x.npy")

def run(name, n_records=None, **kwargs):
    seen = []
    def callback(record):
        seen.append(record)
        if len(seen) == n_records:
            raise KeyboardInterrupt
    options = {"workdir": folder / name, "callbacks": [callback], "checkpoint_seconds": 0}
    return fit(jax.random.key(3), x, config, **options, **kwargs)

whole = run("whole")
assert jax.config.jax_enable_x64
for n_records in (3, 9, 17):  # in a layer, in the end-to-end stage, while clustering
    try:
        run(f"run {n_records}", n_records)
    except KeyboardInterrupt:
        pass
    resumed = run(f"run {n_records}", resume=True)
    for one, other in zip(jax.tree.leaves(whole[:5]), jax.tree.leaves(resumed[:5]), strict=True):
        if not isinstance(one, str | int | float):
            assert np.asarray(one).dtype == np.asarray(other).dtype
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
"""


def test_a_run_in_double_precision_can_be_resumed_and_is_another_one(tmp_path):
    (tmp_path / "settings.json").write_text(CONFIG.to_json())
    np.save(tmp_path / "x.npy", X)
    command = [sys.executable, "-c", X64, str(tmp_path)]
    more = {"JAX_ENABLE_X64": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment(**more))
    assert (done.returncode, done.stderr) == (0, "")
    refused(tmp_path / "whole", "jax_enable_x64: True in run.json, False requested", resume=True)


# Damage.


@pytest.mark.parametrize("n_records", [10, N_PRETRAINING + 3])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path, unbroken, caplog, n_records
):
    folder = interrupted(tmp_path / "run", n_records)
    newest = newest_of(folder)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="jdec"):
        result = run(folder, resume=True)
    check_same_result(result, unbroken)
    messages = [r.getMessage() for r in caplog.records if r.name.startswith("jdec")]
    assert len(messages) == 1
    assert f"checkpoint {newest} is damaged and is not used" in messages[0]


@pytest.mark.parametrize("which", range(2))
@pytest.mark.parametrize("n_records", [4, N_PRETRAINING, N_PRETRAINING + 1, N_RECORDS])
def test_whichever_checkpoint_is_damaged_the_run_ends_with_the_same_bits(
    tmp_path, unbroken, caplog, n_records, which
):
    folder = interrupted(tmp_path / "run", n_records)
    path = sorted((folder / "checkpoints").iterdir())[which]
    path.write_bytes(path.read_bytes()[:-100])
    check_same_result(run(folder, resume=True), unbroken)
    messages = [r.getMessage() for r in caplog.records if r.name.startswith("jdec")]
    assert len(messages) == which  # the older one is not looked at
    assert all(str(path) in message for message in messages)


def test_with_all_checkpoints_damaged_nothing_is_run(tmp_path, half_done):
    folder = shutil.copytree(half_done, tmp_path / "run")
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(b"")
    before = snapshot(folder)
    with pytest.raises(ValueError, match="expected a readable checkpoint in") as caught:
        run(folder, resume=True)
    assert str(folder) in str(caught.value)
    assert snapshot(folder).keys() == before.keys()


def test_what_a_killed_run_left_half_written_is_removed(tmp_path, unbroken, half_done):
    folder = shutil.copytree(half_done, tmp_path / "run")
    left = [
        folder / name
        for name in (
            *(".run.json.abc123.tmp", ".history.jsonl.abc123.tmp", ".labels.npy.abc123.tmp"),
            *(".model.npz.abc123.tmp", "checkpoints/.00000099.npz.abc123.tmp"),
        )
    ]
    kept = [folder / name for name in (".notes.tmp", ".mine.npy.abc123.tmp", "labels.tmp")]
    for path in left + kept:
        path.write_text("half")
    check_same_result(run(folder, resume=True), unbroken)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


# No room, or no place.


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
@pytest.mark.parametrize("room", [0, 300, 1500, 3000, 8000, 12_000, 25_000])
def test_a_full_disk_is_one_line_and_the_run_can_be_resumed(tmp_path, unbroken, caplog, room):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with (
            quick.programs_not_kept(),  # they would be cut off, and other tests read them
            pytest.raises(ValueError, match=r"workdir: cannot write .*: File too lar") as caught,
        ):
            run(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    message = str(caught.value)
    assert "make room, then resume" in message
    assert "\n" not in message
    assert [r for r in caplog.records if r.name != "jax"] == []
    check_same_result(run(tmp_path / "run", resume=True), unbroken)


def test_no_space_left_is_said_as_it_is(tmp_path, unbroken, half_done, monkeypatch):
    folder = shutil.copytree(half_done, tmp_path / "run")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def stop(record):
        monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(ValueError, match=r"cannot write checkpoint .*: No space left on device"):
        run(folder, resume=True, callbacks=[stop])
    monkeypatch.undo()
    check_same_result(run(folder, resume=True), unbroken)


@pytest.mark.parametrize("removed", ["checkpoints", "."])
def test_a_folder_removed_during_a_run(tmp_path, unbroken, removed):
    folder = tmp_path / "run"

    def remove(record):
        if record["phase"] == "clustering" and record["interval"] == 1:
            shutil.rmtree(folder / removed)

    if removed == "checkpoints":
        check_same_result(run(folder, callbacks=[remove]), unbroken)
        assert len(list((folder / "checkpoints").iterdir())) == 2
        return
    with pytest.raises(
        ValueError, match=r"cannot write .*: No such file or directory; its folder was"
    ):
        run(folder, callbacks=[remove])
    assert not folder.exists()


# One run at a time.


def test_a_second_run_in_the_same_folder_is_refused_at_once(tmp_path, unbroken):
    """By another thread; it says who is at work there."""
    folder = tmp_path / "run"
    refusals = []

    def second(record):
        for resume in (True, False):
            thread = threading.Thread(target=attempt, args=(resume,))
            thread.start()
            thread.join(60)

    def attempt(resume):
        before = snapshot(folder)
        with pytest.raises(ValueError, match="is in use by") as caught:
            run(folder, resume=resume)
        assert snapshot(folder) == before
        refusals.append(str(caught.value))

    check_same_result(run(folder, callbacks=[second]), unbroken)
    assert len(refusals) == 2 * N_RECORDS
    for refusal in refusals:
        assert f"workdir: {folder} is in use by process {os.getpid()} on " in refusal
        assert "\n" not in refusal
    check_same_result(run(folder, resume=True), unbroken)


def test_fits_in_several_threads_keep_apart(tmp_path, unbroken):
    results = {}

    def work(number):
        results[number] = run(tmp_path / str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for number in range(4):
        check_same_result(results[number], unbroken)


# Refusals: what differs is said, and nothing is touched.


def refused(folder, *needed, **kwargs):
    before = snapshot(folder)
    with pytest.raises(ValueError, match="workdir: ") as caught:
        run(folder, **kwargs)
    message = str(caught.value)
    for text in (str(folder), *needed):
        assert text in message
    assert snapshot(folder) == before
    return message


def test_an_existing_run_is_not_resumed_silently(half_done):
    refused(half_done, "already holds a run; resume it, or choose another folder")


def changed_rows():
    x = X.copy()
    x[100, 3] += 1
    return x


NEW_CONFIG = CONFIG.replace({"clustering.alpha": 2.0, "network.latent_dim": 4})
OTHERS = {
    "config": ({"config": NEW_CONFIG}, ["network.latent_dim", "clustering.alpha"]),
    "a value": ({"x": changed_rows()}, ["data digest"]),
    "order": ({"x": X[::-1]}, ["data digest"]),
    "rows": (
        {"x": X[:150], "y": Y[:150]},
        ["data shape", "data digest", "data pretraining rows"],
    ),
    "columns": ({"x": X[:, :60]}, ["data shape", "data digest"]),
    "key": ({"key": jax.random.key(4)}, ["random key"]),
    "names of columns": (
        {"feature_names": [f"pixel {number}" for number in range(64)]},
        ["data feature_names"],
    ),
    "kind of key": ({"key": jax.random.key(3, impl="rbg")}, ["random key"]),
    "all": (
        {"key": jax.random.key(4), "x": X * 2, "config": CONFIG.replace({"scale": 2.0})},
        ["scale", "data digest", "random key"],
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused_with_what_differs(half_done, name):
    change, differences = OTHERS[name]
    message = refused(half_done, resume=True, **change)
    told = message.split("differs from this one in ")[1].split("; ")
    assert [part.split(":")[0] for part in told] == differences
    assert all(re.search(r": .* in run\.json, .*( requested|…)$", part) for part in told)


def test_both_values_are_told(half_done):
    refused(
        half_done,
        "clustering.alpha: 1.0 in run.json, 2.0 requested",
        resume=True,
        config=NEW_CONFIG,
    )
    refused(
        half_done,
        "key: ['threefry2x32', 0, 3] in run.json, ['threefry2x32', 0, 4] requested",
        resume=True,
        key=jax.random.key(4),
    )
    needed = "data shape: [200, 64] in run.json, [150, 64] requested"
    refused(half_done, needed, resume=True, x=X[:150], y=None)


def test_another_training_split_is_refused(tmp_path):
    config = CONFIG.replace({"pretrain.rows": "train"})
    interrupted(tmp_path, 3, config=config, n_train=100)
    needed = "data pretraining rows: 100 in run.json, 150 requested"
    refused(tmp_path, needed, resume=True, config=config, n_train=150)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": {"n_clusters": 10}}', "3"])
def test_an_unreadable_record_is_named(tmp_path, half_done, text):
    folder = shutil.copytree(half_done, tmp_path / "run")
    (folder / "run.json").write_text(text)
    refused(folder, f"cannot read {folder / 'run.json'}", resume=True)


@pytest.mark.parametrize("resume", [True, False])
def test_checkpoints_of_an_unknown_run_are_not_used(tmp_path, half_done, resume):
    folder = shutil.copytree(half_done, tmp_path / "run")
    (folder / "run.json").unlink()
    refused(folder, "holds config.json, checkpoints, history.jsonl but no run.json", resume=resume)


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("name", ["labels.npy", "config.json"])
def test_a_file_of_the_users_own_is_not_overwritten(tmp_path, name, resume):
    (tmp_path / name).write_text("mine")
    refused(tmp_path, f"holds {name} but no run.json", "would be overwritten", resume=resume)


HOSTILE = {
    "nested": "[" * 10**5,
    "nested objects": '{"config":' * 10**5,
    "a long integer": '{"config": ' + "9" * 5000 + "}",
    "a long setting": '{"config": {"n_clusters": 1' + "0" * 300 + '}, "data": {}, "jax": {}}',
    "another setting": '{"config": {"n_clusters": "many"}, "data": {}, "jax": {}, "key": []}',
    "data of another type": '{"config": {"n_clusters": 10}, "data": [], "jax": {}, "key": []}',
    "null": "null",
    "not UTF-8": b"\xff\xfe{",
    "zeros": bytes(100),
    "a large file": "[" + "[]," * 2**21 + "0]",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_is_refused_in_one_line(tmp_path, half_done, name):
    folder = shutil.copytree(half_done, tmp_path / "run")
    content = HOSTILE[name]
    (folder / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refused(folder, f"cannot read {folder / 'run.json'}", resume=True)
    assert "\n" not in message
    assert len(message) < 1000


def test_bad_input_leaves_the_folder_alone(tmp_path):
    with pytest.raises(ValueError, match="n_clusters"):
        run(tmp_path / "run", x=X[:5], y=None)
    with pytest.raises(ValueError, match="NaN in row 0"):
        run(tmp_path / "run", x=np.full((20, 3), np.nan), y=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below", "taken"])
def test_a_workdir_that_cannot_be_a_folder_is_refused(tmp_path, place, resume):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "checkpoints").write_text("kept as well")
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=r"workdir: .*(expected a folder|no run\.json)") as caught:
        run(tmp_path / place, resume=resume)
    assert str(tmp_path / place) in str(caught.value)
    assert snapshot(tmp_path) == before


def test_other_files_in_the_folder_are_left_alone(tmp_path, unbroken):
    (tmp_path / "notes.txt").write_text("kept")
    check_same_result(run(tmp_path), unbroken)
    assert (tmp_path / "notes.txt").read_text() == "kept"


def test_the_folder_may_be_given_as_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StopError):
        run("some/run", callbacks=[stop_at(2)])
    assert Path("some/run/run.json").exists()
