"""One batch of members: pretrained, partitioned and trained side by side."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdec._typing import Params
from jdec.core.autoencoder import network_shapes
from jdec.trainer.history import Reporter
from jdec.trainer.members import Traits, group_keys
from jdec.trainer.neighbors import neighbor_graph
from jdec.trainer.pretraining import pretrain
from jdec.trainer.programs import MemberOverrides, Plan, RunKeys, partition, split_run_key
from jdec.trainer.run import Ended, Roster, Run
from jdec.trainer.run_folder import Journal, template
from jdec.trainer.self_training import finish, restore, self_train, start


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
            centroids, initial_labels = _partition(run, traits.n_clusters[members], params)
        run.kept = {"initial_labels": initial_labels}
        state, targets = start(run, params, centroids, initial_labels)
        del params
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


def _partition(
    run: Run, n_clusters: Int[np.ndarray, "m"], params: Params
) -> tuple[Float[Array, "m K Z"], Int[np.ndarray, "m N"]]:
    """Partition the embeddings, members of equal K together."""
    plan, latent_dim = run.plan, network_shapes(run.plan.network, run.x.shape[1]).latent_dim
    centroids = np.zeros((len(n_clusters), plan.config.n_clusters, latent_dim), np.float32)
    labels = np.zeros((len(n_clusters), plan.rows.n_rows), np.int32)
    graph = neighbor_graph(run, params)
    for k in np.unique(n_clusters).tolist():
        chosen = np.flatnonzero(n_clusters == k)
        items = (run.keys.kmeans, params, MemberOverrides(run.overrides.alpha))
        key, part, overrides = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], items)
        of_k = replace(plan, config=plan.config.replace({"n_clusters": k}))
        of_members = graph
        if graph.points is None and graph.neighbors is not None:
            of_members = graph._replace(neighbors=graph.neighbors[chosen])
        found = partition(key, part, run.x, overrides, of_members, plan=of_k)
        centroids[chosen, :k] = found.centroids
        labels[chosen] = found.labels
    return jnp.asarray(centroids), labels
