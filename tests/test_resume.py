import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jdec.checkpoint import Checkpoints
from jdec.config import Config
from jdec.fit import fit

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


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation():
    """Optimise little: compilation takes longest. Processes started here do the same."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


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
    kwargs = {"key": jax.random.key(3), "x": X, "config": CONFIG, "y": Y} | kwargs
    return fit(workdir=workdir, **kwargs)


def snapshot(folder):
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in sorted(folder.rglob("*"))
    }


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class StopError(Exception):
    pass


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
    assert record["key"] == [0, 3]
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
        assert "targets" not in tree["state"]
        assert "labels" not in tree["state"]
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


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import jax
import numpy as np
from jdec import Config, fit

folder, phase, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
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
fit(jax.random.key(3), data["x"], config, y=data["y"], workdir=folder / "run", callbacks=[callback])
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
@pytest.mark.parametrize(("phase", "how"), [("finetune", "itself"), ("clustering", "other")])
def test_a_killed_process_can_be_resumed(tmp_path, unbroken, phase, how):
    (tmp_path / "settings.json").write_text(CONFIG.to_json())
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), phase, how]
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        while how == "other" and process.poll() is None and not (tmp_path / "at_work").exists():
            time.sleep(0.01)
        if how == "other":
            process.kill()
        assert process.wait(120) == -signal.SIGKILL, process.stderr.read()
    folder = tmp_path / "run"
    assert any(path.name.isdigit() for path in (folder / "checkpoints").iterdir())
    seen = []
    result = run(folder, resume=True, callbacks=[seen.append])
    check_same_result(result, unbroken)
    # It did go on, and not start again.
    n_before = N_PRETRAINING - 10 + 4 if phase == "finetune" else N_PRETRAINING + 4
    assert N_RECORDS - n_before <= len(seen) < N_RECORDS - n_before + 4
    assert lines(folder / "history.jsonl") == result.history


# Damage.


@pytest.mark.parametrize("n_records", [10, N_PRETRAINING + 3])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path, unbroken, caplog, n_records
):
    folder = interrupted(tmp_path / "run", n_records)
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    for path in (newest / "state" / "d").iterdir():
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="jdec"):
        result = run(folder, resume=True)
    check_same_result(result, unbroken)
    messages = [r.getMessage() for r in caplog.records if r.name.startswith("jdec")]
    assert len(messages) == 1
    assert f"checkpoint {newest} is damaged and is not used" in messages[0]


def test_a_history_that_was_altered_is_not_believed(tmp_path, unbroken, half_done, caplog):
    folder = shutil.copytree(half_done, tmp_path / "run")
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    path = newest / "metadata" / "metadata"
    path.write_text(path.read_text().replace('"loss": 0.', '"loss": 1.'))
    with caplog.at_level(logging.WARNING, logger="jdec"):
        check_same_result(run(folder, resume=True), unbroken)
    assert str(newest) in caplog.text


def test_with_all_checkpoints_damaged_nothing_is_run(tmp_path, half_done):
    folder = shutil.copytree(half_done, tmp_path / "run")
    for path in (folder / "checkpoints").glob("*/metadata/metadata"):
        path.write_text("{")
    with pytest.raises(ValueError, match="expected a readable checkpoint in") as caught:
        run(folder, resume=True)
    assert str(folder) in str(caught.value)


def test_half_written_checkpoints_are_passed_over(tmp_path, unbroken, half_done):
    folder = shutil.copytree(half_done, tmp_path / "run")
    newest = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    newest.rename(newest.with_name(f"{newest.name}.orbax-checkpoint-tmp"))
    check_same_result(run(folder, resume=True), unbroken)


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
    assert all(" against " in part for part in told)


def test_both_values_are_told(half_done):
    refused(half_done, "clustering.alpha: 1.0 against 2.0", resume=True, config=NEW_CONFIG)
    refused(half_done, "key: [0, 3] against [0, 4]", resume=True, key=jax.random.key(4))
    needed = "data shape: [200, 64] against [150, 64]"
    refused(half_done, needed, resume=True, x=X[:150], y=None)


def test_another_training_split_is_refused(tmp_path):
    config = CONFIG.replace({"pretrain.rows": "train"})
    interrupted(tmp_path, 3, config=config, n_train=100)
    needed = "data pretraining rows: 100 against 150"
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
    refused(folder, "expected run.json beside the checkpoints", resume=resume)


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
    with pytest.raises(ValueError, match="workdir: expected a folder") as caught:
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
