"""Records, snapshots, callbacks, timings and the cut of a stage into calls."""

import io
import sys
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdec.trainer.history import Reporter, Snapshot, chunks, takes_snapshot

SNAPSHOT = Snapshot({"w": jnp.arange(3.0)}, jnp.ones((2, 1)), lambda: jnp.zeros((4, 1)))


@given(n_steps=st.integers(0, 10**6), data=st.data())
def test_chunks_cover_a_stage_in_few_lengths(n_steps, data):
    first_step = data.draw(st.integers(0, n_steps))
    cut = list(chunks(n_steps, first_step))
    ends = [first_step]
    for start, size in cut:
        assert start == ends[-1]
        ends.append(start + size)
    assert ends[-1] == n_steps
    # A program is compiled for each length: a full one, and what is left at the end.
    assert len({size for _, size in cut[:-1]}) <= 1
    assert all(0 < size <= 2000 for _, size in cut)
    assert len(list(chunks(n_steps))) <= max(20, -(-n_steps // 2000))


def test_a_resumed_stage_keeps_the_length_of_its_calls():
    whole = list(chunks(60))
    assert {size for _, size in whole} == {3}
    assert list(chunks(60, first_step=30)) == whole[10:]
    assert list(chunks(60, first_step=60)) == []


def test_records_have_the_seconds_so_far_and_reach_every_callback_in_order():
    seen = []
    reporter = Reporter([seen.append, lambda record, snapshot: seen.append(snapshot)])
    reporter.seconds = {"pretraining": 1.25, "kmeans": 0.5}
    reporter.report({"phase": "finetune"}, SNAPSHOT)
    assert seen == [{"phase": "finetune", "seconds": 1.75}, SNAPSHOT]
    assert reporter.history == seen[:1]


def test_seconds_of_a_phase_add_up():
    reporter = Reporter()
    for _ in range(2):
        with reporter.timed("kmeans"):
            pass
    assert [*reporter.seconds] == ["kmeans"]
    assert 0 < reporter.seconds["kmeans"] < 1


def test_a_callback_that_raises_is_named_and_the_others_are_called():
    seen = []

    def broken(record):
        raise KeyError("acc")

    class Odd:
        def __call__(self, record):
            raise OSError("disk full")

    reporter = Reporter([broken, Odd(), seen.append])
    with pytest.warns(RuntimeWarning) as caught:
        reporter.report({"phase": "clustering"}, SNAPSHOT)
    assert [str(warning.message) for warning in caught] == [
        "callback broken raised KeyError: 'acc'; the fit continues",
        "callback Odd raised OSError: disk full; the fit continues",
    ]
    assert seen == reporter.history


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_callback_can_end_a_fit(error):
    def stop(record):
        raise error

    reporter = Reporter([stop])
    with pytest.raises(error):
        reporter.report({"phase": "clustering"}, SNAPSHOT)
    assert len(reporter.history) == 1


def two(record, snapshot):
    pass


@pytest.mark.parametrize(
    ("callback", "expected"),
    [
        (two, True),
        (partial(two, snapshot=None), False),
        (partial(two, None), False),
        (lambda record, snapshot=None: None, False),
        (lambda record, *more: None, False),
        (lambda *both: None, False),
        (lambda record, *, key=None: None, False),
        ([].append, False),
        (print, False),
        (dict, False),
    ],
)
def test_a_second_argument_is_the_snapshot_if_it_has_no_default(callback, expected):
    assert takes_snapshot(callback) is expected


def test_a_snapshot_holds_arrays_of_its_own():
    params = SNAPSHOT.params
    assert type(params["w"]) is type(SNAPSHOT.centroids) is type(SNAPSHOT.embeddings) is np.ndarray
    params["w"][:] = -1
    np.testing.assert_array_equal(SNAPSHOT.params["w"], [0, 1, 2])
    assert (SNAPSHOT.centroids.shape, SNAPSHOT.embeddings.shape) == ((2, 1), (4, 1))


def test_a_snapshot_of_pretraining_has_no_clusters():
    snapshot = Snapshot({"w": jnp.ones(2)})
    assert snapshot.centroids is None
    assert snapshot.embeddings is None


def test_embeddings_are_computed_when_they_are_read():
    calls = []
    snapshot = Snapshot({}, jnp.ones((1, 1)), lambda: calls.append(1) or jnp.zeros((4, 1)))
    Reporter([lambda record, snapshot: snapshot.centroids]).report({}, snapshot)
    assert calls == []
    assert snapshot.embeddings.shape == (4, 1)
    assert calls == [1]


@pytest.mark.parametrize("progress", [True, False])
def test_progress_bars_are_shown_on_stderr_if_asked_for(progress, monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with Reporter(progress=progress).bar("pretraining", 4, "step", initial=2) as bar:
        bar.update(2)
    assert ("pretraining: 100%" in stderr.getvalue()) is progress
