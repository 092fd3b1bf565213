"""Many fits as one program: seeds, α, learning rates and numbers of clusters at once.

A member has its own key, and may have its own α, learning rate and K; clusters beyond its K are
masked. The members of a batch are pretrained and self-train side by side, by the loop and programs
of a fit.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from jdec._checks import check_flag, check_integer
from jdec._columns import check_feature_names
from jdec._io import read_json, write_json
from jdec._sources import as_source
from jdec.core.dec import ExtraLossFn
from jdec.core.targets import DECParams
from jdec.trainer.batch import run_batch
from jdec.trainer.config import Config
from jdec.trainer.fingerprint import digest, fingerprint
from jdec.trainer.history import Callback, Reporter
from jdec.trainer.inputs import check_parts, check_shell
from jdec.trainer.members import Traits, as_keys, batches_of, check_ks, choose_mapping, per_member
from jdec.trainer.memory import members_that_fit
from jdec.trainer.programs import AugmentFn, Plan, assign, describe_plan, own_network
from jdec.trainer.results import PopulationResult, warn_of_broken
from jdec.trainer.rows import Data, digest_rows, scale_rows
from jdec.trainer.run import Ended
from jdec.trainer.run_folder import Journal, open_run
from jdec.trainer.scaling import Scaling
from jdec.trainer.sharding import DATA, MEMBER, Mesh, RowSharding, check_mesh
from jdec.trainer.workdir import explained_writing


def fit_population(
    keys: Key[Array, "M"] | Sequence[Key[Array, ""]],
    x: Any,
    config: Config,
    *,
    alphas: Sequence[float] | None = None,
    learning_rates: Sequence[float] | None = None,
    n_clusters: Sequence[int] | None = None,
    feature_names: Sequence[str] | None = None,
    members_at_once: int | None = None,
    vectorized: bool | None = None,
    network: Any = None,
    extra_loss: ExtraLossFn | None = None,
    augment: AugmentFn | None = None,
    tx: Mapping[str, optax.GradientTransformation] | None = None,
    workdir: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    mesh: Mesh | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = False,
) -> PopulationResult:
    """Fit many members to the same rows at once.

    Member i is what :func:`jdec.fit` makes of ``keys[i]`` and the configuration with the i-th α,
    learning rate and K, up to rounding. Members are trained in batches that fit in memory;
    those of equal key in the same batch share their pretraining.

    Args:
        keys: Typed random keys, one a member.
        x: Rows, [N D], numeric and finite.
        config: What all members have in common.
        alphas: Degrees of freedom α of each member; by default as configured.
        learning_rates: Learning rate of the clustering phase of each member; by default as
            configured.
        n_clusters: K of each member; by default as configured.
        feature_names: As in :func:`jdec.fit`.
        members_at_once: Size of the batches; by default as many members as fit in memory.
        vectorized: Whether a device trains its members all at once, by ``jax.vmap``, or one after
            another within the program, by ``jax.lax.map``. By default the former, except for large
            networks on a CPU, which has no use for wider products and loses its caches.
        network: As in :func:`jdec.fit`.
        extra_loss: As in :func:`jdec.fit`.
        augment: As in :func:`jdec.fit`.
        tx: As in :func:`jdec.fit`.
        workdir: Folder for checkpoints, config.json and history.jsonl.
        resume: As in :func:`jdec.fit`; with the batches of before, where ``members_at_once`` is not
            given.
        checkpoint_seconds: As in :func:`jdec.fit`.
        mesh: From :func:`jdec.trainer.member_mesh`: shards members over devices, and rows too where
            it has ``data_devices``; or from :func:`jdec.trainer.data_mesh`: rows alone.
        callbacks: As in :func:`jdec.fit`; the arrays of a snapshot have an axis of members.
        progress: Show progress bars on stderr.

    Returns:
        A :class:`PopulationResult`.

    Raises:
        ValueError: For bad input, no members, or lists of other lengths than ``keys``.
        NotFiniteError: If no member stays finite. One that does not lets the others go on: a
            warning names it, and its ``kl`` is NaN.

    Examples:
        >>> config = Config(n_clusters=2).replace({
        ...     "network.hidden_dims": [8], "network.latent_dim": 2, "pretrain.finetune_steps": 20,
        ...     "clustering.update_interval": 5, "clustering.max_intervals": 2})
        >>> x = np.array([[0.0, 0.1], [0.1, 0.0], [5.0, 5.1], [5.1, 5.0]])
        >>> result = fit_population(jax.random.split(jax.random.key(0), 3), x, config)
        >>> result.labels.shape
        (3, 4)

    Source: Xie et al. 2016, section 3; members by ``jax.vmap``.
    """
    keys = as_keys(keys)
    callbacks, folder = check_shell(
        config, callbacks, workdir, resume, checkpoint_seconds, progress
    )
    check_mesh(mesh, (MEMBER,), (DATA,), (MEMBER, DATA))
    feature_names = check_feature_names(feature_names, x)
    rows = as_source("x", x, columns=feature_names)
    n_members = len(keys)
    traits = Traits(
        keys,
        per_member("alphas", alphas, n_members),
        per_member("learning_rates", learning_rates, n_members),
        check_ks(config, n_clusters, n_members, len(rows)),
    )
    if members_at_once is not None:
        check_integer("members_at_once", members_at_once)
    if vectorized is not None:
        check_flag("vectorized", vectorized)
    if mesh is not None and jax.process_count() > 1:
        raise ValueError("mesh: a population needs all its devices in one process")
    if learning_rates is not None and tx is not None and "clustering" in tx:
        raise ValueError("learning_rates: expected none with an optimizer of clustering in tx")
    config = config.replace({"n_clusters": int(traits.n_clusters.max())})
    network, hooks = check_parts(config, rows.shape[1], network, tx, extra_loss, augment)
    mapping = choose_mapping(network, rows.shape[1], mesh, vectorized)
    data = Data(rows, RowSharding(len(rows), mesh), feature_names)
    plan = Plan(config, network, data.sharding, hooks, mapping)
    reporter = Reporter(callbacks, progress=progress)
    with ExitStack() as stack:
        if folder is not None:
            record = {
                "shape": list(rows.shape),
                "digest": digest_rows(data),
                "feature_names": feature_names,
                "members": digest([np.asarray(part) for part in traits.plain()]),
                **describe_plan(plan),
            }
            mine = fingerprint(keys[0], config, record)
            folder = open_run(folder, mine, config, resume, stack)
        scaling = scale_rows(data, config)
        x = data.put(scaling)
        members_at_once = _batch_size(folder, members_at_once, plan, x, traits)
        parts, batches = [], batches_of(traits.keys, members_at_once)
        for index, members in enumerate(batches):
            name = f"checkpoints/batch-{index}" if len(batches) > 1 else "checkpoints"
            journal = Journal(folder, reporter, name, seconds=checkpoint_seconds)
            parts.append(run_batch(plan, traits, members, x, reporter, journal))
    back = np.argsort(np.concatenate(batches))
    ended, initial_labels = jax.tree.map(lambda *leaves: np.concatenate(leaves)[back], *parts)
    warn_of_broken(ended.kl)
    return _result(
        plan, traits, ended, initial_labels, x, scaling, reporter, feature_names, members_at_once
    )


def _batch_size(
    folder: Path | None, given: int | None, plan: Plan, x: Float[Array, "N D"], traits: Traits
) -> int:
    """Return the size of the batches: as given, as before, or as many as fit in memory."""
    record = None if folder is None else folder / "run.json"
    found = {} if record is None else read_json(record)
    size = given or found.get("members_at_once")
    if not isinstance(size, int) or size < 1:
        size = members_that_fit(plan, x, len(traits.keys))
    if record is not None:
        with explained_writing():
            write_json(record, found | {"members_at_once": size})
    return size


def _result(
    plan: Plan,
    traits: Traits,
    ended: Ended,
    initial_labels: Int[np.ndarray, "M N"],
    x: Float[Array, "N D"],
    scaling: Scaling,
    reporter: Reporter,
    feature_names: tuple[str, ...] | None,
    members_at_once: int,
) -> PopulationResult:
    config, n_members = plan.config, len(traits.keys)
    alphas, rates = traits.alphas, traits.learning_rates
    if alphas is None:
        alphas = np.full(n_members, config.clustering.alpha)
    if rates is None:
        rates = np.full(n_members, config.clustering.optimizer.learning_rate)
    shape = (n_members, plan.rows.n_rows, config.n_clusters)
    result = PopulationResult(
        scaling=scaling,
        params=ended.params.encoder,
        centroids=np.asarray(ended.params.centroids),
        config=config,
        alphas=alphas,
        learning_rates=rates,
        n_clusters=traits.n_clusters,
        labels=np.zeros(shape[:2], np.int32),
        soft_assignment=np.zeros(shape, np.float32),
        initial_labels=initial_labels,
        kl=ended.kl,
        label_change=ended.label_change,
        n_intervals=ended.interval,
        history=reporter.history,
        seconds=reporter.seconds,
        members_at_once=members_at_once,
        feature_names=feature_names,
        network=own_network(plan),
        has_decoder=plan.keeps_decoder,
    )
    with reporter.timed("assignment"):
        of_fit = replace(plan, members=None)
        for index, (k, kl) in enumerate(zip(traits.n_clusters, ended.kl, strict=True)):
            q, member = result.soft_assignment[index], result.member(index)
            if np.isfinite(kl):
                arrays: Any = (member.params, member.centroids)
                alpha = np.float32(member.config.clustering.alpha)
                found = assign(DECParams(*arrays), x, alpha, plan=of_fit)[1]
                q[:, :k] = plan.rows.fetch(found)
            else:
                q[:, :k] = np.nan
            result.labels[index] = q[:, :k].argmax(axis=1)
    return result
