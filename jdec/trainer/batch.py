"""One batch of members: pretrained, partitioned and trained side by side."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jdec.core.autoencoder import network_shapes
from jdec.trainer.history import Reporter
from jdec.trainer.initialization import initialize
from jdec.trainer.members import Traits, group_keys
from jdec.trainer.pretraining import pretrain
from jdec.trainer.programs import Plan, RunKeys, split_run_key
from jdec.trainer.run import Ended, Roster, Run
from jdec.trainer.run_folder import Journal, template
from jdec.trainer.self_training import begin, finish, restore, self_train


def run_batch(
    plan: Plan,
    traits: Traits,
    members: Int[np.ndarray, "m"],
    x: Float[Array, "N D"],
    reporter: Reporter,
    journal: Journal,
) -> tuple[Ended, Int[np.ndarray, "m n"]]:
    """Train some of the members side by side."""
    keys: RunKeys = jax.vmap(split_run_key)(traits.keys[members])
    _, first, of_member = np.unique(
        group_keys(traits.keys[members]), return_index=True, return_inverse=True
    )
    run = Run(
        plan,
        keys,
        x,
        reporter,
        overrides=traits.overrides(members, plan.config.n_clusters),
        members=members,
        save=journal.save,
        roster=Roster(np.arange(len(members))),
    )
    # One member of each distinct key.
    distinct = replace(
        run, keys=jax.tree.map(lambda leaf: leaf[first], keys), members=members[first]
    )
    shapes = network_shapes(plan.network, x.shape[1]).params
    labels: Any = jax.ShapeDtypeStruct((len(members), plan.rows.n_rows), np.int32)
    kept = {"initial_labels": labels}

    def form(phase: str, about: dict[str, Any]) -> Any:
        return template(run if phase == "clustering" else distinct, phase, about, shapes, kept)

    saved = journal.restore(form)
    if saved is not None and saved.phase == "clustering":
        run = _restored(run, saved.tree, saved.about)
        state, targets = restore(run, saved)
    else:
        params = pretrain(distinct, saved=saved)
        params = jax.tree.map(lambda leaf: leaf[of_member], params)
        with reporter.timed("kmeans"):
            start = initialize(run, params, traits.n_clusters[members])
        run.kept = {"initial_labels": start.partition.labels}
        state, targets = begin(run, params, start)
        del params, start
    run, state, targets = self_train(run, state, targets)
    return finish(run, state, targets), np.asarray(run.kept["initial_labels"])


def _restored(run: Run, tree: dict[str, Any], about: dict[str, Any]) -> Run:
    """Return a run with the members that a checkpoint has left, and those that had finished."""
    left = np.array(about["left"], int)
    ended = jax.tree.map(np.asarray, tree["ended"]) if about["ended"] else None

    def take(part: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[left], part)

    return replace(
        run,
        keys=take(run.keys),
        overrides=take(run.overrides),
        members=np.asarray(run.members)[left],
        roster=Roster(left, np.array(about["ended"], int), ended),
        kept={"initial_labels": tree["initial_labels"]},
    )
