"""A fit: validate, place, resume, loop, result."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, Shaped

from jdec._checks import (
    as_labels,
    as_path,
    as_rows,
    check_feature_names,
    check_flag,
    check_integer,
    check_key,
    check_n_clusters,
    check_rank,
    column_names,
)
from jdec._typing import Params
from jdec.core.autoencoder import network_shapes
from jdec.core.dec import ExtraLossFn
from jdec.core.kmeans import KMeansResult
from jdec.metrics import clustering_scores
from jdec.trainer.config import Config
from jdec.trainer.fingerprint import digest, fingerprint, rows_digest, sampled_digest
from jdec.trainer.history import Callback, Record, Reporter
from jdec.trainer.inputs import (
    check_arrays,
    check_callbacks,
    check_config,
    check_hooks,
    check_image_shape,
    check_network,
    check_same_columns,
    inspect_columns,
)
from jdec.trainer.loop import pretrain, restore, self_train, start, template
from jdec.trainer.model import Model, assign_scaled
from jdec.trainer.processes import (
    allgather,
    check_processes_agree,
    is_primary,
    raised_everywhere,
)
from jdec.trainer.programs import (
    BLOCK_SIZE,
    AugmentFn,
    Plan,
    describe_plan,
    own_network,
    partition,
    split_run_key,
)
from jdec.trainer.run import Run, Saved, to_host
from jdec.trainer.run_folder import Journal, open_run
from jdec.trainer.scaling import Scaling
from jdec.trainer.sharding import (
    DATA,
    Mesh,
    RowSharding,
    check_mesh,
    concatenate_rows,
    replicate,
)


class FitResult(NamedTuple):
    """What :func:`fit` found."""

    model: Model
    labels: Int[np.ndarray, "N"]  # argmax of the soft assignment
    soft_assignment: Float[np.ndarray, "N K"]
    embedding: Float[np.ndarray, "N Z"]
    autoencoder_params: Params  # of encoder and decoder, after pretraining
    initial: KMeansResult  # DEC initialisation: where self-training started
    history: list[Record]
    stop_reason: str  # "tol" or "max_intervals"
    n_intervals: int
    seconds: dict[str, float]  # by phase, over all sessions of a resumed run


class EmptyClusterWarning(UserWarning):
    """Some clusters have no rows, or share their centroid with another."""


def fit(
    key: Key[Array, ""],
    x: Any,
    config: Config,
    *,
    y: Any = None,
    feature_names: Sequence[str] | None = None,
    n_train: int | None = None,
    unlabeled: Any = None,
    autoencoder_params: Params | None = None,
    network: Any = None,
    extra_loss: ExtraLossFn | None = None,
    augment: AugmentFn | None = None,
    tx: Mapping[str, optax.GradientTransformation] | None = None,
    workdir: str | Path | None = None,
    resume: bool = False,
    mesh: Mesh | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = False,
) -> FitResult:
    """Pretrain, initialise by k-means and self-train: Deep Embedded Clustering from rows to labels.

    With a ``workdir``, every stage and interval ends with a checkpoint there; a run that was
    interrupted and is called again with ``resume`` ends with the same bits as one that was not.

    Args:
        key: Typed random key; with the data and the configuration it determines the result.
        x: Rows, [N D], numeric and finite.
        config: All settings.
        y: Classes, [N], only to report ACC, NMI and ARI along the way; training never sees them.
        feature_names: Names of the columns of ``x``; those of a data frame by default. They are
            kept in the model, which then takes new rows in any order of the columns.
        n_train: Number of leading rows that are the training split, for ``pretrain.rows="train"``.
        unlabeled: More rows, [M D], for pretraining alone.
        autoencoder_params: Parameters of encoder and decoder to start from, as another result's
            ``autoencoder_params``; pretraining is skipped.
        workdir: Folder for checkpoints, config.json and history.jsonl.
        resume: Resume the run in ``workdir``; starts from the beginning if it holds nothing yet,
            and on any number of devices.
        network: The autoencoder, in place of the built-in one of ``config.network``: an
            :class:`jdec.Autoencoder`, or a Flax module with methods ``encode`` and ``decode``.
        extra_loss: ``extra_loss(key, params, batch) -> scalar``, added to the KL in self-training:
            ``params`` has ``encoder`` (and the decoder's parameters with it) and ``centroids``,
            ``batch`` the rows ``x`` and their targets ``p``.
        augment: ``augment(key, x [B D]) -> x [B D]``: alters the scaled rows of mini-batches, in
            both phases, after the augmentation of the settings. P and labels come from unaltered
            rows.
        tx: Optax optimizers by phase, ``pretrain`` and ``clustering``, in place of those of the
            settings.
        mesh: From :func:`jdec.trainer.data_mesh`: shards the rows over devices. With several
            processes, each calls this function with the same arguments and trains on its own rows
            of ``x``, which may be a memory-mapped file. Of the others it reads what it takes to
            compare the processes: all up to 256 MB, some 4000 of a larger ``x``.
        callbacks: Called with each record of the history, and, those of two arguments, with a
            snapshot whose ``params``, ``centroids`` and ``embeddings`` are fetched when they are
            read. One that raises is named in a warning and does not end the fit.
        progress: Show progress bars on stderr.

    Returns:
        A :class:`FitResult`.

    Raises:
        ValueError: For bad input, a network or function of another form, a ``workdir`` that
            holds another run or is in use, or processes that differ in their arguments.
        NotFiniteError: If a loss, a weight or an embedding becomes NaN or infinite.

    Examples:
        >>> from jdec.trainer.config import Config
        >>> config = Config(n_clusters=2).replace({
        ...     "network.hidden_dims": [8], "network.latent_dim": 2, "pretrain.finetune_steps": 20,
        ...     "clustering.update_interval": 5, "clustering.max_intervals": 2})
        >>> x = np.array([[0.0, 0.1], [0.1, 0.0], [5.0, 5.1], [5.1, 5.0]])
        >>> result = fit(jax.random.key(0), x, config)
        >>> result.labels[0] == result.labels[1] != result.labels[2]
        np.True_

    Source: Xie et al. 2016, section 3.
    """
    with raised_everywhere():
        check_key("key", key)
        check_config(config)
        check_mesh(mesh, (DATA,))
        callbacks = check_callbacks(callbacks)
        check_flag("resume", resume)
        check_flag("progress", progress)
        folder = None if workdir is None else as_path("workdir", workdir)
        feature_names = check_feature_names(feature_names, x)
        rows, n_rows = _own_rows("x", x, mesh, feature_names)
        data = _Data(rows, RowSharding(n_rows, mesh), feature_names)
        check_n_clusters(config.n_clusters, n_rows)
        labels = _check_labels(y, n_rows)
        n_train = _check_n_train(config, n_train, n_rows)
        check_image_shape(config, rows.shape[1])
        network = check_network(network, config, rows.shape[1])
        hooks = check_hooks(network, config, rows.shape[1], tx, extra_loss, augment)
        others = None
        if unlabeled is not None:
            more, n_more = _own_rows("unlabeled", unlabeled, mesh, column_names(unlabeled))
            check_same_columns(feature_names, rows, unlabeled, more)
            others = _Data(more, RowSharding(n_more, mesh))
        plan = Plan(config, network, data.sharding, hooks)
        if autoencoder_params is not None:
            shapes = network_shapes(network, rows.shape[1]).params
            check_arrays("autoencoder_params", autoencoder_params, shapes)
            autoencoder_params = jax.tree.map(
                lambda leaf: jnp.asarray(leaf, jnp.float32), autoencoder_params
            )
    more_than_settings = {
        "pretraining rows": n_train,
        "autoencoder_params": autoencoder_params,
        "feature_names": feature_names,
        **describe_plan(plan),
    }
    if jax.process_count() > 1:
        check_processes_agree(
            _values_to_compare(key, x, unlabeled, labels, plan, resume, more_than_settings)
        )
    reporter = Reporter(callbacks, progress=progress and is_primary())
    with ExitStack() as stack:
        if folder is not None:
            record = {
                "shape": [n_rows, rows.shape[1]],
                "digest": _digest(data),
                "unlabeled": None if others is None else _digest(others),
                **more_than_settings,
            }
            folder = open_run(folder, fingerprint(key, config, record), config, resume, stack)
        scaling = _scale(data, config)
        journal = Journal(folder, reporter)
        run = Run(
            plan,
            split_run_key(key),
            data.put(scaling),
            reporter,
            save=journal.save,
            describe=partial(_score, labels, data.sharding),
        )
        extra = None if others is None else (others.put(scaling), others.sharding)
        result = _run(run, journal, data, scaling, autoencoder_params, n_train, extra)
        journal.write_history()
        return result


class _Data(NamedTuple):
    """Rows of this process, and how all rows lie."""

    rows: Shaped[np.ndarray, "n D"]
    sharding: RowSharding
    feature_names: tuple[str, ...] | None = None

    def put(self, scaling: Scaling) -> Float[Array, "M D"]:
        """Scale the rows and put them onto the devices."""
        first_row = self.sharding.local().start
        return self.sharding.put(scaling.apply(self.rows, first_row=first_row))


def _own_rows(
    name: str, x: Any, mesh: Mesh | None, columns: Sequence[str] | None
) -> tuple[Shaped[np.ndarray, "n D"], int]:
    """Return the rows of this process, and how many there are in all."""
    if mesh is None or jax.process_count() == 1:
        rows = as_rows(name, x, columns=columns)
        return rows, len(rows)
    x = np.asarray(x) if not isinstance(x, np.ndarray) else x
    check_rank(name, x, 2)
    mine = RowSharding(len(x), mesh).local()
    if mine.start >= mine.stop:  # there may be more devices than rows
        return np.zeros((0, x.shape[1]), np.float32), len(x)
    return as_rows(name, x[mine], first_row=mine.start, columns=columns), len(x)


def _check_labels(y: Any, n_rows: int) -> np.ndarray | None:
    if y is None:
        return None
    labels = as_labels("y", y)
    if len(labels) != n_rows:
        raise ValueError(f"y: expected as many entries as x has ({n_rows}), got {len(labels)}")
    return labels


def _check_n_train(config: Config, n_train: Any, n_rows: int) -> int:
    """Return the number of rows of pretraining."""
    if n_train is None:
        return n_rows
    check_integer("n_train", n_train)
    if n_train > n_rows:
        raise ValueError(f"n_train: expected at most the {n_rows} rows of x, got {n_train}")
    return n_train if config.pretrain.rows == "train" else n_rows


def _values_to_compare(
    key: Key[Array, ""],
    x: Any,
    unlabeled: Any,
    y: np.ndarray | None,
    plan: Plan,
    resume: bool,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what all processes of a run must have in common, by name."""
    mesh = plan.rows.mesh
    return {
        **plan.config.flat(),
        "random key": jax.random.key_data(key).tolist(),
        "shape of x": list(np.shape(x)),
        "data": sampled_digest(x)[:16],
        "unlabeled": None if unlabeled is None else sampled_digest(unlabeled)[:16],
        "classes y": None if y is None else digest(y)[:16],
        **{name: _plain(value) for name, value in more.items()},
        "resume": resume,
        "devices": 1 if mesh is None else mesh.size,
        "JAX_ENABLE_X64": bool(jax.config.values["jax_enable_x64"]),
        "jax": jax.__version__,
        "jdec": version("jdec"),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return digest(np.array(value))
    return value if value is None or isinstance(value, int | str) else digest(value)


def _digest(data: _Data) -> str:
    parts = allgather(rows_digest(data.rows, data.sharding.local().start))
    return "".join(f"{part:016x}" for part in parts.sum(axis=0))


def _scale(data: _Data, config: Config) -> Scaling:
    scaling, found = inspect_columns(data.rows, config, data.feature_names, over_parts=allgather)
    for warning in found:
        warnings.warn(warning, stacklevel=3)
    return scaling


def _score(y: np.ndarray | None, sharding: RowSharding, labels: Any) -> Record:
    return {} if y is None else clustering_scores(y, sharding.fetch(labels))


def _run(
    run: Run,
    journal: Journal,
    data: _Data,
    scaling: Scaling,
    pretrained: Params | None,
    n_train: int,
    others: tuple[Any, RowSharding] | None,
) -> FitResult:
    """Run every phase that is still to do."""
    plan = run.plan
    shapes = pretrained or network_shapes(plan.network, run.x.shape[1]).params
    initial_shapes = jax.eval_shape(partial(partition, plan=plan), run.keys.kmeans, shapes, run.x)
    kept = {"autoencoder": shapes, "initial": initial_shapes}
    saved = journal.restore(lambda phase, about: template(run, phase, about, shapes, kept))
    if saved is not None and saved.phase == "clustering":
        run.kept = {name: saved.tree[name] for name in kept}
        state, targets = restore(run, saved)
    else:
        params = _pretrained(run, saved, pretrained, n_train, others)
        with run.reporter.timed("kmeans"):
            initial = jax.block_until_ready(partition(run.keys.kmeans, params, run.x, plan=plan))
        run.kept = {"autoencoder": params, "initial": initial}
        state, targets = start(run, params, initial.centroids)
    run, state, targets = self_train(run, state, targets)
    # Plain arrays: device arrays would keep a device's memory, and are not for every pickle.
    params, initial, (encoder, centroids) = to_host((*run.kept.values(), state.params))
    model = Model(
        scaling,
        encoder,
        centroids,
        plan.config,
        data.feature_names,
        own_network(plan),
        plan.keeps_decoder,
    )
    parts = assign_scaled(model, _scaled_blocks(run, data, scaling))
    embedding, q = (data.sharding.join(part[: len(data.rows)]) for part in parts)
    labels = q.argmax(axis=1).astype(np.int32)
    _warn_of_empty_clusters(labels, np.asarray(centroids))
    tol = plan.config.clustering.tol
    settled = int(state.interval) > 0 and float(targets.label_change) < tol
    return FitResult(
        model=model,
        labels=labels,
        soft_assignment=q,
        embedding=embedding,
        autoencoder_params=params,
        initial=initial,
        history=run.reporter.history,
        stop_reason="tol" if settled else "max_intervals",
        n_intervals=int(state.interval),
        seconds=run.reporter.seconds,
    )


def _pretrained(
    run: Run,
    saved: Saved | None,
    pretrained: Params | None,
    n_train: int,
    others: tuple[Any, RowSharding] | None,
) -> Params:
    mesh = run.plan.rows.mesh
    if pretrained is not None:
        return replicate(pretrained, mesh)
    rows = (run.x, n_train)
    if others is not None:
        joined, sharding = concatenate_rows(run.x, RowSharding(n_train, mesh), *others)
        rows = (joined, sharding.n_rows)
    return pretrain(run, rows=rows, saved=saved)


def _scaled_blocks(run: Run, data: _Data, scaling: Scaling) -> Iterator[Float[np.ndarray, "B D"]]:
    """Yield the scaled rows of this process, from the device where it has them all."""
    if run.plan.rows.mesh is None:
        x = np.asarray(run.x)
        for first in range(0, len(x), BLOCK_SIZE):
            yield x[first : first + BLOCK_SIZE]
        return
    # A process may have no rows, where there are more devices than rows.
    rows = data.rows if len(data.rows) else np.zeros((1, data.rows.shape[1]), np.float32)
    for first in range(0, len(rows), BLOCK_SIZE):
        yield scaling.apply(rows[first : first + BLOCK_SIZE], first_row=first)


def _warn_of_empty_clusters(
    labels: Int[np.ndarray, "N"], centroids: Float[np.ndarray, "K Z"]
) -> None:
    sizes = np.bincount(labels, minlength=len(centroids))
    empty = np.flatnonzero(sizes == 0).tolist()
    if empty:
        warnings.warn(
            f"{len(empty)} of {len(sizes)} clusters are empty: {_listed(empty)}; "
            "fewer clusters or a lower clustering learning rate may fit the data better",
            EmptyClusterWarning,
            stacklevel=4,
        )
    distances = np.linalg.norm(centroids[:, None] - centroids[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    spread = float(np.linalg.norm(centroids - centroids.mean(axis=0), axis=1).mean())
    collapsed = np.flatnonzero((distances <= 1e-3 * spread).any(axis=1) & (sizes > 0)).tolist()
    if len(collapsed) > 1:
        warnings.warn(
            f"clusters {_listed(collapsed)} have collapsed onto the same centroid",
            EmptyClusterWarning,
            stacklevel=4,
        )


def _listed(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:20]))
    return shown + (f" and {len(indices) - 20} more" if len(indices) > 20 else "")
