"""Many fits as one program: seeds, α, learning rates and numbers of clusters at once.

A member has its own key, and may have its own α, learning rate and K; clusters beyond its K are
masked. The members of a batch are pretrained and self-train side by side, by the loop and programs
of a fit.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from jdec._checks import (
    as_path,
    as_rows,
    as_tuple,
    check_feature_names,
    check_flag,
    check_float32,
    check_integer,
    check_n_clusters,
    is_key,
    shown,
)
from jdec._io import read_json, write_json
from jdec._typing import Params
from jdec.core.autoencoder import Autoencoder, count_params, network_shapes
from jdec.core.dec import ExtraLossFn
from jdec.trainer.config import Config
from jdec.trainer.fingerprint import digest, fingerprint, rows_digest
from jdec.trainer.history import Callback, Record, Reporter
from jdec.trainer.inputs import (
    check_callbacks,
    check_config,
    check_hooks,
    check_image_shape,
    check_network,
    inspect_columns,
)
from jdec.trainer.loop import finish, pretrain, restore, self_train, start, template
from jdec.trainer.memory import members_that_fit
from jdec.trainer.model import Model, assign_scaled
from jdec.trainer.programs import (
    BLOCK_SIZE,
    AugmentFn,
    MemberMapping,
    MemberOverrides,
    Plan,
    RunKeys,
    describe_plan,
    own_network,
    partition,
    split_run_key,
)
from jdec.trainer.run import Ended, NotFiniteError, Roster, Run
from jdec.trainer.run_folder import Journal, open_run
from jdec.trainer.scaling import Scaling
from jdec.trainer.sharding import DATA, MEMBER, Mesh, RowSharding, check_mesh
from jdec.trainer.workdir import explained_writing

# A CPU takes small members side by side, as each operation is too little work for it. Members with
# more parameters than this would evict each other from its caches, and go one after another.
_MAX_PARAMETERS_SIDE_BY_SIDE = 2**18


class PopulationResult(NamedTuple):
    """What :func:`fit_population` found; arrays of M members."""

    scaling: Scaling
    params: Params  # of the encoders, each leaf [M …]
    centroids: Float[np.ndarray, "M K Z"]  # those beyond a member's own K mean nothing
    config: Config  # its K is the maximum over members
    alphas: Float[np.ndarray, "M"]
    learning_rates: Float[np.ndarray, "M"]  # of the clustering phase
    n_clusters: Int[np.ndarray, "M"]
    labels: Int[np.ndarray, "M N"]
    soft_assignment: Float[np.ndarray, "M N K"]  # 0 beyond a member's own K
    initial_labels: Int[np.ndarray, "M N"]  # DEC initialisation
    kl: Float[np.ndarray, "M"]  # mean KL(P‖Q) over all rows at the end; NaN if it broke
    label_change: Float[np.ndarray, "M"]  # in the last interval
    n_intervals: Int[np.ndarray, "M"]
    history: list[Record]
    seconds: dict[str, float]
    members_at_once: int
    feature_names: tuple[str, ...] | None = None
    network: Autoencoder | None = None  # None: the built-in one of the configuration
    has_decoder: bool = False

    def member(self, index: int) -> Model:
        """Return one member as a model."""
        n_clusters = int(self.n_clusters[index])
        config = self.config.replace(
            {
                "n_clusters": n_clusters,
                "clustering.alpha": float(self.alphas[index]),
                "clustering.optimizer.learning_rate": float(self.learning_rates[index]),
            }
        )
        params = jax.tree.map(lambda leaf: leaf[index], self.params)
        centroids = self.centroids[index, :n_clusters]
        return Model(
            self.scaling,
            params,
            centroids,
            config,
            self.feature_names,
            self.network,
            self.has_decoder,
        )


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
    keys = _as_keys(keys)
    check_config(config)
    callbacks = check_callbacks(callbacks)
    check_flag("progress", progress)
    check_flag("resume", resume)
    check_mesh(mesh, (MEMBER,), (DATA,), (MEMBER, DATA))
    folder = None if workdir is None else as_path("workdir", workdir)
    feature_names = check_feature_names(feature_names, x)
    rows = as_rows("x", x, columns=feature_names)
    check_image_shape(config, rows.shape[1])
    n_members = len(keys)
    traits = _Traits(
        keys,
        _per_member("alphas", alphas, n_members),
        _per_member("learning_rates", learning_rates, n_members),
        _check_ks(config, n_clusters, n_members, len(rows)),
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
    network = check_network(network, config, rows.shape[1])
    hooks = check_hooks(network, config, rows.shape[1], tx, extra_loss, augment)
    mapping = _choose_mapping(network, rows.shape[1], mesh, vectorized)
    plan = Plan(config, network, RowSharding(len(rows), mesh), hooks, mapping)
    reporter = Reporter(callbacks, progress=progress)
    with ExitStack() as stack:
        if folder is not None:
            record = {
                "shape": list(rows.shape),
                "digest": "".join(f"{part:016x}" for part in rows_digest(rows, 0)),
                "feature_names": feature_names,
                "members": digest([np.asarray(part) for part in traits.plain()]),
                **describe_plan(plan),
            }
            mine = fingerprint(keys[0], config, record)
            folder = open_run(folder, mine, config, resume, stack)
        scaling, found = inspect_columns(rows, config, feature_names)
        for warning in found:
            warnings.warn(warning, stacklevel=2)
        x = plan.rows.put(scaling.apply(rows))
        members_at_once = _batch_size(folder, members_at_once, plan, x, traits)
        parts, batches = [], _batches(traits.keys, members_at_once)
        for index, members in enumerate(batches):
            name = f"checkpoints/batch-{index}" if len(batches) > 1 else "checkpoints"
            journal = Journal(folder, reporter, name)
            parts.append(_run_batch(plan, traits, members, x, reporter, journal))
    back = np.argsort(np.concatenate(batches))
    ended, initial_labels = jax.tree.map(lambda *leaves: np.concatenate(leaves)[back], *parts)
    _warn_of_broken(ended.kl)
    return _result(
        plan, traits, ended, initial_labels, x, scaling, reporter, feature_names, members_at_once
    )


class _Traits(NamedTuple):
    """What the members differ in."""

    keys: Key[Array, "M"]
    alphas: Float[np.ndarray, "M"] | None
    learning_rates: Float[np.ndarray, "M"] | None
    n_clusters: Int[np.ndarray, "M"]

    def plain(self) -> list[Any]:
        """Return arrays that tell one population from another."""
        given = [part for part in self[1:] if part is not None]
        return [jax.random.key_data(self.keys), *given]

    def overrides(self, members: Int[np.ndarray, "m"], max_clusters: int) -> MemberOverrides:
        """Return the settings that differ among some members."""
        mask = None
        if (self.n_clusters != max_clusters).any():
            clusters = np.arange(max_clusters)
            mask = jnp.asarray(clusters[None, :] < self.n_clusters[members, None])

        def chosen(values: Float[np.ndarray, "M"] | None) -> Any:
            return None if values is None else jnp.asarray(values[members], jnp.float32)

        return MemberOverrides(chosen(self.alphas), chosen(self.learning_rates), mask)


def _as_keys(keys: Any) -> Key[Array, "M"]:
    expected = "typed random keys in one dimension, as of jax.random.split(jax.random.key(0), 8)"
    if isinstance(keys, list | tuple):
        if not keys:
            raise ValueError("keys: expected at least one random key, got none")
        if not all(is_key(key) for key in keys):
            kinds = ", ".join(sorted({type(key).__name__ for key in keys if not is_key(key)}))
            raise ValueError(f"keys: expected {expected}; got a list with {kinds}")
        if len({(key.dtype, key.shape) for key in keys}) > 1:
            raise ValueError(f"keys: expected {expected}; got a list with keys of several kinds")
        keys = jnp.stack(keys)
    if not is_key(keys) or keys.ndim != 1:
        is_array = hasattr(keys, "dtype") and hasattr(keys, "shape")
        got = f"{keys.dtype} of shape {keys.shape}" if is_array else type(keys).__name__
        raise ValueError(f"keys: expected {expected}; got {got}")
    if not len(keys):
        raise ValueError("keys: expected at least one random key, got none")
    return keys


def _one_for_each(name: str, values: Any, n_members: int) -> tuple[Any, ...]:
    expected = f"{name}: expected one for each of {n_members} keys"
    try:
        values = as_tuple(name, values, "numbers")
    except ValueError as error:
        advice = "one value for all members is a setting of config"
        raise ValueError(f"{expected}, got {shown(values)}; {advice}") from error
    if len(values) != n_members:
        raise ValueError(f"{expected}, got {len(values)}")
    return values


def _group_keys(keys: Key[Array, "M"]) -> Int[np.ndarray, "M"]:
    """Number the distinct keys by the first member of each."""
    bits = np.asarray(jax.random.key_data(keys))
    _, first, group = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group.reshape(-1)]


def _per_member(
    name: str, values: Sequence[float] | None, n_members: int
) -> Float[np.ndarray, "M"] | None:
    if values is None:
        return None
    values = _one_for_each(name, values, n_members)
    for value in values:
        check_float32(name, value)
    return np.array(list(map(float, values)))


def _check_ks(
    config: Config, n_clusters: Sequence[int] | None, n_members: int, n_rows: int
) -> Int[np.ndarray, "M"]:
    if n_clusters is None:
        check_n_clusters(config.n_clusters, n_rows)
        return np.full(n_members, config.n_clusters)
    n_clusters = _one_for_each("n_clusters", n_clusters, n_members)
    for k in n_clusters:
        check_n_clusters(k, n_rows)
    return np.array(n_clusters, int)


def _choose_mapping(
    network: Autoencoder, n_features: int, mesh: Mesh | None, vectorized: bool | None
) -> MemberMapping:
    """Return the faster way for members of so many parameters, or the one asked for."""
    if vectorized is None:
        n_parameters = count_params(network_shapes(network, n_features).params)
        is_cpu = jax.default_backend() == "cpu"
        vectorized = not is_cpu or n_parameters <= _MAX_PARAMETERS_SIDE_BY_SIDE
    return MemberMapping(mesh, vectorized)


def _batch_size(
    folder: Path | None, given: int | None, plan: Plan, x: Float[Array, "N D"], traits: _Traits
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


def _batches(keys: Key[Array, "M"], size: int) -> list[Int[np.ndarray, "m"]]:
    """Share members out among batches, those of equal key together, to be pretrained once."""
    order = np.argsort(_group_keys(keys), kind="stable")
    return [order[first : first + size] for first in range(0, len(order), size)]


def _run_batch(
    plan: Plan,
    traits: _Traits,
    members: Int[np.ndarray, "m"],
    x: Float[Array, "N D"],
    reporter: Reporter,
    journal: Journal,
) -> tuple[Ended, Int[np.ndarray, "m N"]]:
    """Train some of the members side by side."""
    keys: RunKeys = jax.vmap(split_run_key)(traits.keys[members])
    _, first, of_member = np.unique(
        _group_keys(traits.keys[members]), return_index=True, return_inverse=True
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
        state, targets = start(run, params, centroids)
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
    for k in np.unique(n_clusters).tolist():
        chosen = np.flatnonzero(n_clusters == k)
        items = (run.keys.kmeans, params, MemberOverrides(run.overrides.alpha))
        key, part, overrides = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], items)
        of_k = replace(plan, config=plan.config.replace({"n_clusters": k}))
        found = partition(key, part, run.x, overrides, plan=of_k)
        centroids[chosen, :k] = found.centroids
        labels[chosen] = found.labels
    return jnp.asarray(centroids), labels


def _result(
    plan: Plan,
    traits: _Traits,
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
        centroids=ended.params.centroids,
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
        rows = np.asarray(x)[: plan.rows.n_rows]
        blocks = [rows[first : first + BLOCK_SIZE] for first in range(0, len(rows), BLOCK_SIZE)]
        for index, (k, kl) in enumerate(zip(traits.n_clusters, ended.kl, strict=True)):
            q = result.soft_assignment[index]
            q[:, :k] = assign_scaled(result.member(index), blocks)[1] if np.isfinite(kl) else np.nan
            result.labels[index] = q[:, :k].argmax(axis=1)
    return result


def _warn_of_broken(kl: Float[np.ndarray, "M"]) -> None:
    broken = np.flatnonzero(~np.isfinite(kl)).tolist()
    if len(broken) == len(kl):
        raise NotFiniteError(
            "population: no member stayed finite; lower the learning rates or scale the data"
        )
    if broken:
        warnings.warn(
            f"members {', '.join(map(str, broken[:20]))} of {len(kl)} became NaN or infinite; "
            "lower their learning rate",
            RuntimeWarning,
            stacklevel=3,
        )
