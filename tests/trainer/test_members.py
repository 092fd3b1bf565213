"""Checkpoints of populations: members that are killed and resumed end with the same bits."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import quick
from sklearn.datasets import make_blobs

from jdec.trainer import fit_population, member_mesh
from jdec.trainer.config import Config

# Groups that overlap, so that labels go on changing, and with each key for a time of its own.
X, _ = make_blobs(75, n_features=6, centers=4, cluster_std=3.0, random_state=0)
CONFIG = Config(4).replace(
    {
        "network.hidden_dims": [8],
        "network.latent_dim": 3,
        "pretrain.layerwise_steps": 2,
        "pretrain.finetune_steps": 5,
        "pretrain.batch_size": 16,
        "kmeans.n_init": 2,
        "clustering.batch_size": 16,
        "clustering.update_interval": 5,
        "clustering.max_intervals": 6,
        "clustering.tol": 0.03,
        "clustering.optimizer.learning_rate": 1e-2,
    }
)
# Five members of four keys; the second one breaks.
KEYS = jax.random.split(jax.random.key(0), 8)[np.array([0, 1, 4, 6, 0])]
TRAITS = {"n_clusters": [4, 3, 4, 4, 3], "learning_rates": [1e-2, 1e30, 1e-2, 1e-2, 3e-2]}
ARRAYS = ("params", "centroids", "labels", "soft_assignment", "initial_labels", "kl")

pytestmark = pytest.mark.filterwarnings("ignore:members 1 of 5 became NaN:RuntimeWarning")


class StopError(BaseException):
    """Ends a run, as an interrupt does."""


def population(workdir=None, *, members_at_once=None, **kwargs):
    shared = {"members_at_once": members_at_once, "workdir": workdir, "checkpoint_seconds": 0}
    arguments = TRAITS | shared | kwargs
    return fit_population(KEYS, X, CONFIG, **arguments)


def same_bits(one, other):
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def timeless(history):
    return json.dumps([{name: r[name] for name in r if name != "seconds"} for r in history])


def check_same(found, expected):
    for name in (*ARRAYS, "label_change", "n_intervals", "members_at_once"):
        assert same_bits(getattr(found, name), getattr(expected, name)), name
    assert timeless(found.history) == timeless(expected.history)


@pytest.fixture(scope="module")
def unbroken():
    """Return the populations that no one interrupts, by the size of their batches."""
    return functools.cache(lambda size: population(members_at_once=size))


def stop_at(n_records):
    seen = []

    def stop(record):
        seen.append(record)
        if len(seen) == n_records:
            raise StopError

    return stop


def test_what_is_interrupted_here_has_all_there_is(unbroken):
    one = unbroken(None)
    assert one.members_at_once == 5
    clustering = [record for record in one.history if record["phase"] == "clustering"]
    assert np.isnan(one.kl).tolist() == [False, True, False, False, False]
    # First one has ended beside the others, then half of them are left behind.
    left = [len(record["members"]) for record in clustering]
    assert left[:2] == [5, 5]
    assert {4, 2} & set(left)
    assert left[-1] < 3
    assert [r["phase"] for r in one.history[:5]] == [*["layer 1"] * 2, *["layer 2"] * 2, "finetune"]
    assert [len(record["members"]) for record in one.history[:9]] == [4] * 9


@pytest.mark.parametrize("members_at_once", [None, 2])
def test_a_workdir_does_not_change_the_result(tmp_path, unbroken, members_at_once):
    found = population(tmp_path, members_at_once=members_at_once)
    check_same(found, unbroken(members_at_once))
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert len(lines) == len(found.history)
    folders = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    if members_at_once is None:
        assert len(folders) == 2
    else:
        assert folders == ["batch-0", "batch-1", "batch-2"]
    # All is done: nothing is left to do.
    seen = []
    again = population(tmp_path, resume=True, callbacks=[seen.append])
    check_same(again, found)
    assert seen == []


@pytest.mark.parametrize("members_at_once", [None, 2])
def test_an_interrupted_population_ends_with_the_same_bits(tmp_path, unbroken, members_at_once):
    """After every third of its records, those of all batches among them."""
    expected = unbroken(members_at_once)
    for n_records in range(1, len(expected.history) + 1, 3):
        folder = tmp_path / str(n_records)
        with pytest.raises(StopError):
            population(folder, members_at_once=members_at_once, callbacks=[stop_at(n_records)])
        seen = []
        # The size of the batches is that of before.
        found = population(folder, resume=True, callbacks=[seen.append])
        check_same(found, expected)
        assert len(seen) == len(expected.history) - n_records + 1


def test_a_population_may_be_interrupted_many_times(tmp_path, unbroken):
    expected = unbroken(None)
    for number in range(len(expected.history) // 2):
        with pytest.raises(StopError):
            population(tmp_path, resume=number > 0, callbacks=[stop_at(3)])
    check_same(population(tmp_path, resume=True), expected)


def test_devices_may_be_others_after_a_resume(tmp_path, unbroken):
    expected = unbroken(None)
    with pytest.raises(StopError):
        population(tmp_path, callbacks=[stop_at(12)])
    found = population(tmp_path, resume=True, mesh=member_mesh(2))
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.soft_assignment, expected.soft_assignment, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        ({"n_clusters": [4, 3, 4, 4, 4]}, "in data members: '[0-9a-f]+' in run.json, '[0-9a-f]+'"),
        ({"learning_rates": None}, "in data members: "),
        ({"alphas": [1.0] * 5}, "in data members: "),
        ({"resume": False}, "already holds a run; resume it, or choose another folder"),
    ],
)
def test_a_workdir_belongs_to_its_members(tmp_path, change, needed):
    with pytest.raises(StopError):
        population(tmp_path, callbacks=[stop_at(1)])
    with pytest.raises(ValueError, match=needed):
        population(tmp_path, **{"resume": True} | change)


def test_snapshots_have_an_axis_of_members(unbroken):
    seen = []

    def keep(record, snapshot):
        parts = snapshot.params, snapshot.centroids, snapshot.embeddings
        seen.append((record, *parts))

    found = population(callbacks=[keep])
    check_same(found, unbroken(None))
    record, params, centroids, embeddings = seen[0]
    assert params["encoder_0"]["kernel"].shape == (4, 6, 8)
    assert (centroids, embeddings) == (None, None)
    record, params, centroids, embeddings = next(part for part in seen if part[3] is not None)
    assert record["members"] == [0, 4, 1, 2, 3]
    assert (centroids.shape, embeddings.shape) == ((5, 4, 3), (5, 75, 3))
    # The last ones to end are the result.
    _, params, centroids, _ = seen[-1]
    last = seen[-1][0]["members"][-1]
    assert any(same_bits(part, found.centroids[last]) for part in centroids)


SCRIPT = """
import sys, time, warnings
sys.path[:0] = sys.argv[3:]
from test_members import population

def slowly(record):
    time.sleep(0.1)

warnings.simplefilter("ignore")
size = int(sys.argv[2]) or None
population(sys.argv[1], members_at_once=size, resume=True, callbacks=[slowly])
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
@pytest.mark.parametrize("members_at_once", [None, 2])
def test_a_population_can_be_killed_at_any_moment(tmp_path, unbroken, members_at_once):
    """Twice in one folder, at random moments."""
    expected = unbroken(members_at_once)
    folder, tests = tmp_path / "run", Path(__file__).parent
    size = str(members_at_once or 0)
    command = [sys.executable, "-c", SCRIPT, str(folder), size, str(tests), str(tests.parent)]
    environment = quick.environment(jax.config.jax_compilation_cache_dir, **quick.READ_ONLY)
    for _ in range(2):
        before = {path.stat().st_mtime_ns for path in folder.rglob("*.npz")}
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            while process.poll() is None:
                if {path.stat().st_mtime_ns for path in folder.rglob("*.npz")} - before:
                    break
                time.sleep(0.02)
            time.sleep(np.random.default_rng().uniform(0, 1.5))
            process.kill()
            assert process.wait(120) in (0, -signal.SIGKILL), process.stderr.read()
    check_same(population(folder, resume=True), expected)
