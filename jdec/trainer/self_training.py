"""The host loop of self-training, of a fit and of a batch of members alike.

What differs: the arrays of members have a leading axis; a fit raises when it is not finite, while a
member ends and lets the others go on; and once half of the members have finished, the others go on
in a smaller program.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdec._typing import Params
from jdec.core.dec import DECState, is_finished
from jdec.core.targets import Targets
from jdec.trainer.history import Record, Snapshot
from jdec.trainer.initialization import Start
from jdec.trainer.programs import init_state, warm_up
from jdec.trainer.run import (
    Ended,
    NotFiniteError,
    Run,
    Saved,
    check_losses,
    copy,
    mean_losses,
    placed,
    refresh_targets,
    show,
    to_host,
)


def begin(run: Run, params: Params, start: Start) -> tuple[DECState, Targets]:
    """Make the first state and targets of self-training from a partition, report and save them."""
    settings = run.plan.config.clustering
    begins = (params, start.partition.centroids)
    if not (settings.warmup_steps and settings.max_intervals):
        with run.reporter.timed("kmeans"):
            state = init_state(*begins, run.overrides, plan=run.plan)
    else:
        of_sample = start.run
        rows = (start.labels, of_sample.x)
        with run.reporter.timed("warm-up"):
            state, losses = warm_up(
                run.keys.clustering, *begins, *rows, run.overrides, plan=of_sample.plan
            )
            losses = np.asarray(losses)
        if run.members is None:
            check_losses(losses, "warm-up", 0)
        members = {} if run.members is None else {"members": run.members.tolist()}
        record: Record = {"phase": "warm-up", "step": settings.warmup_steps, **members}
        if start.run.plan.rows.n_rows < run.plan.rows.n_rows:
            record["rows"] = start.run.plan.rows.n_rows  # the sample
        record["loss"] = mean_losses(losses)
        run.reporter.report(record, Snapshot(*state.params))
    with run.reporter.timed("target refresh"):
        targets, sizes = refresh_targets(run, state.params)
        change = np.asarray(targets.label_change)
    if run.members is None and not np.isfinite(change):
        raise NotFiniteError(
            "k-means: the pretrained embedding is not finite; lower "
            "pretrain.optimizer.learning_rate"
        )
    _report(run, state, targets, None, sizes, np.ones(change.shape, bool))
    _save(run, 0, state, targets, at_end=True)
    return state, targets


def restore(run: Run, saved: Saved) -> tuple[DECState, Targets]:
    """Return the state that a checkpoint holds, and the targets that follow from it.

    P and the labels belong to the parameters and are not saved: what is saved then neither grows
    with the rows nor depends on how many devices share them.
    """
    saved_parts = (saved.tree["state"], saved.tree["label_change"])
    state, label_change = copy(placed(run, saved_parts))
    targets, _ = refresh_targets(run, state.params)
    return state, targets._replace(label_change=label_change)


def _save(run: Run, step: int, state: DECState, targets: Targets, *, at_end: bool) -> None:
    tree = {**run.kept, "state": state, "label_change": targets.label_change}
    if run.roster.ended is not None:
        tree["ended"] = run.roster.ended
    run.save("clustering", step, tree, run.roster.about(), at_end)


def self_train(run: Run, state: DECState, targets: Targets) -> tuple[Run, DECState, Targets]:
    """Run intervals until the labels settle, from :func:`begin` or :func:`restore` on.

    Returns the run, whose roster has the members that finished early, and the last state and
    targets of the fit or of the other members. Raises NotFiniteError if the loss, a weight or an
    embedding of a fit becomes NaN or infinite.
    """
    settings = run.plan.config.clustering
    limits: Any = {"tol": settings.tol, "max_intervals": settings.max_intervals}
    done = int(np.max(np.asarray(state.interval)))
    title, total = f"clustering{run.title}", settings.max_intervals
    with run.reporter.bar(title, total, "interval", initial=done) as bar:
        while True:
            finished = is_finished(
                np.asarray(state.interval), np.asarray(targets.label_change), **limits
            )
            if np.all(finished):
                _save(run, done, state, targets, at_end=True)
                return run, state, targets
            if run.members is not None and 2 * np.sum(~finished) <= len(finished):
                run, state, targets = _retire(run, state, targets, finished)
                finished = np.zeros(len(run.roster.left), bool)
            state, targets, loss, sizes = _interval(run, state, targets, finished, done)
            done += 1
            _report(run, state, targets, loss, sizes, ~np.asarray(finished))
            show(bar, loss=loss, changed=np.asarray(targets.label_change).tolist())
            bar.update(1)
            _save(run, done, state, targets, at_end=False)


def _interval(
    run: Run, state: DECState, targets: Targets, finished: Any, done: int
) -> tuple[DECState, Targets, Any, Any]:
    """Train and refresh once; returns the mean loss and the sizes of the clusters as well."""
    n_steps = run.plan.config.clustering.update_interval
    before = targets.label_change
    with run.reporter.timed("clustering"):
        state, losses = run.programs.train(
            run.keys.clustering, state, targets, run.x, run.overrides, plan=run.plan
        )
        losses = np.asarray(losses)
    if run.members is None:
        check_losses(losses, "clustering", done * n_steps)
    labels, targets = targets.labels, None  # type: ignore[assignment]  # P makes room for the next
    with run.reporter.timed("target refresh"):
        targets, sizes = refresh_targets(run, state.params, labels)
        label_change = np.asarray(targets.label_change)
    if run.members is not None:
        # Nothing changes in those that have finished, whose last change is to be told.
        targets = targets._replace(label_change=jnp.where(finished, before, label_change))
    elif not np.isfinite(label_change):
        raise NotFiniteError(
            f"clustering: weights or embedding are not finite after step {(done + 1) * n_steps}; "
            "lower clustering.optimizer.learning_rate"
        )
    return state, targets, mean_losses(losses), sizes


def _retire(
    run: Run, state: DECState, targets: Targets, finished: Any
) -> tuple[Run, DECState, Targets]:
    """Put the members that have finished into the roster; the others go on by themselves."""
    gone, left = np.flatnonzero(finished), np.flatnonzero(~finished)
    roster = run.roster.retire(gone, _ended(state, targets))
    members = np.asarray(run.members)[left]

    def take(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[left], tree)

    parts: Any = {"keys": take(run.keys), "overrides": take(run.overrides)}
    smaller = replace(run, members=members, roster=roster, **parts)
    return smaller, take(state), take(targets)


def _ended(state: DECState, targets: Targets) -> Ended:
    parts: Any = (state.params, state.interval, targets.label_change, targets.kl)
    return to_host(Ended(*parts))


def finish(run: Run, state: DECState, targets: Targets) -> Ended:
    """Return what is kept of all members of a batch, in their order."""
    n_left = len(np.asarray(state.interval))
    roster = run.roster.retire(np.arange(n_left), _ended(state, targets))
    back = np.argsort(roster.order)
    return jax.tree.map(lambda leaf: leaf[back], roster.ended)


def _report(
    run: Run, state: DECState, targets: Targets, loss: Any, sizes: Any, running: Any
) -> None:
    interval = int(np.max(np.asarray(state.interval)))
    change = np.asarray(targets.label_change)
    record: Record = {
        "phase": "clustering",
        "interval": interval,
        "step": interval * run.plan.config.clustering.update_interval,
    }
    values = {
        "loss": loss,
        "kl": np.asarray(targets.kl).tolist(),
        "label_change": change.tolist() if interval else None,
        "cluster_sizes": np.asarray(sizes).tolist(),
    }
    if run.members is not None:  # those that had not finished before
        record["members"] = run.members[running].tolist()
        chosen = np.flatnonzero(running)
        values = {
            name: None if value is None else [value[i] for i in chosen]
            for name, value in values.items()
        }
    record |= values
    record |= run.describe(targets.labels)
    params, centroids = state.params
    embedding = partial(_embedding, run, params)
    run.reporter.report(record, Snapshot(params, centroids, embedding))


def _embedding(run: Run, params: Params) -> np.ndarray:
    return run.fetch(run.programs.embed(params, run.x, plan=run.plan))
