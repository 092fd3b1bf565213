"""The shell: the whole of DEC on real data, with compilation, progress, checkpoints and guards."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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
from jdec._io import write_json, write_json_lines
from jdec._typing import Params
from jdec.core.autoencoder import init_params
from jdec.core.dec import DECState, is_finished
from jdec.core.kmeans import KMeansResult
from jdec.core.pretraining import PretrainState
from jdec.metrics import clustering_scores
from jdec.trainer.build import (
    Rows,
    Stage,
    build_network,
    build_pretraining,
    cluster_steps,
    init_stage,
    is_finite,
    pretrain_steps,
    pretraining_stages,
    refresh,
    split_run_key,
    start_clustering,
)
from jdec.trainer.checkpoint import Checkpoints
from jdec.trainer.config import Config
from jdec.trainer.inputs import (
    check_arrays,
    check_callbacks,
    check_config,
    check_image_shape,
    check_same_columns,
    look_at_columns,
)
from jdec.trainer.model import Model, assign
from jdec.trainer.progress import Record, Reporter, chunks
from jdec.trainer.sharding import (
    DATA,
    Mesh,
    arrays_from_first_process,
    check_mesh,
    check_processes_agree,
    concatenate_rows,
    fetch_rows,
    from_each_process,
    is_first_process,
    join_rows,
    local_rows,
    over_processes,
    replicate,
    shard_rows,
)
from jdec.trainer.workdir import (
    check_no_other_files,
    check_same_run,
    digest,
    explained_writing,
    fingerprint,
    lock_folder,
    rows_digest,
    sampled_digest,
)


class FitResult(NamedTuple):
    """What :func:`fit` found."""

    model: Model
    labels: Int[np.ndarray, "N"]  # argmax of the soft assignment
    soft_assignment: Float[np.ndarray, "N K"]
    embedding: Float[np.ndarray, "N Z"]
    autoencoder_params: Params  # of encoder and decoder, after pretraining
    initial: KMeansResult  # k-means on the pretrained embedding, where clustering started
    history: list[Record]
    stop_reason: str  # "tol" or "max_intervals"
    n_intervals: int
    seconds: dict[str, float]  # by phase, over all sessions of a resumed run


class DivergenceError(FloatingPointError):
    """Training left the finite numbers."""


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
    workdir: str | Path | None = None,
    resume: bool = False,
    mesh: Mesh | None = None,
    callbacks: Sequence[Callable[[Record], None]] = (),
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
            ``autoencoder_params``; pretraining is left out.
        workdir: Folder for checkpoints, config.json and history.jsonl.
        resume: Go on with what ``workdir`` holds; starts afresh if it holds nothing yet, and on
            any number of devices.
        mesh: From :func:`jdec.trainer.data_mesh`: spreads the rows over devices. With several processes,
            each calls this function with the same arguments and trains on its own rows of ``x``
            alone, which may be a memory-mapped file. Of the others it reads what it takes to
            compare the processes: all up to 256 MB, some 4000 of a larger ``x``.
        callbacks: Called with each record of the history as it is made.
        progress: Show progress bars on stderr.

    Returns:
        A :class:`FitResult`.

    Raises:
        ValueError: For bad input, a ``workdir`` that holds another run or is in use, or processes
            that differ in their arguments.
        DivergenceError: If a loss or an embedding becomes NaN or infinite.

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
        check_mesh(mesh, DATA)
        callbacks = check_callbacks(callbacks)
        check_flag("resume", resume)
        check_flag("progress", progress)
        folder = None if workdir is None else as_path("workdir", workdir)
        feature_names = check_feature_names(feature_names, x)
        own_rows = rows, n_rows = _own_rows("x", x, mesh, feature_names)
        check_n_clusters(config.n_clusters, n_rows)
        labels = None if y is None else as_labels("y", y)
        if labels is not None and len(labels) != n_rows:
            raise ValueError(f"y: expected as many entries as x has ({n_rows}), got {len(labels)}")
        if n_train is not None:
            check_integer("n_train", n_train)
            if n_train > n_rows:
                raise ValueError(f"n_train: expected at most the {n_rows} rows of x, got {n_train}")
        check_image_shape(config, rows.shape[1])
        others = None
        if unlabeled is not None:
            others = _own_rows("unlabeled", unlabeled, mesh, column_names(unlabeled))
            check_same_columns(feature_names, rows, unlabeled, others[0])
        run = _Run(
            key,
            own_rows,
            config,
            y=labels,
            feature_names=feature_names,
            n_train=n_train,
            unlabeled=others,
            mesh=mesh,
            reporter=Reporter(callbacks, progress=progress and is_first_process()),
        )
        if autoencoder_params is not None:
            run.start_from(autoencoder_params)
    if jax.process_count() > 1:
        check_processes_agree(run.values_to_compare(x, unlabeled, resume))
    with ExitStack() as stack:
        if folder is not None:
            run.open_workdir(folder, resume, stack)
        run.prepare()
        return run.to_the_end()


def _own_rows(
    name: str, x: Any, mesh: Mesh | None, columns: Sequence[str] | None
) -> tuple[Shaped[np.ndarray, "n D"], int]:
    """Return the rows that this process holds, and how many there are in all."""
    if mesh is None or jax.process_count() == 1:
        rows = as_rows(name, x, columns=columns)
        return rows, len(rows)
    x = np.asarray(x) if not isinstance(x, np.ndarray) else x
    check_rank(name, x, 2)
    mine = local_rows(len(x), mesh)
    if mine.start >= mine.stop:  # there may be more devices than rows
        return np.zeros((0, x.shape[1]), np.float32), len(x)
    return as_rows(name, x[mine], first_row=mine.start, columns=columns), len(x)


@contextmanager
def raised_everywhere() -> Iterator[None]:
    """Have all processes refuse what one does: the others would wait for it."""
    reason = None
    try:
        yield
    except ValueError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error)
    for refusal in from_each_process(reason):
        if refusal is not None:
            raise ValueError(refusal)


class _Run:
    """A fit on its way; everything that is not a pure function happens here."""

    def __init__(
        self,
        key: Key[Array, ""],
        own_rows: tuple[Shaped[np.ndarray, "n D"], int],
        config: Config,
        *,
        y: np.ndarray | None,
        feature_names: tuple[str, ...] | None,
        n_train: int | None,
        unlabeled: tuple[Shaped[np.ndarray, "m D"], int] | None,
        mesh: Mesh | None,
        reporter: Reporter,
    ) -> None:
        self.key, self.config, self.y, self.mesh = key, config, y, mesh
        self.reporter, self.feature_names = reporter, feature_names
        self.rows, self.n_rows = own_rows
        self.layout = Rows() if mesh is None else Rows(self.n_rows, mesh)
        self.unlabeled = unlabeled
        self.n_pretrain_rows = self.n_rows
        if config.pretrain.rows == "train" and n_train is not None:
            self.n_pretrain_rows = n_train
        self.pretrained: Params | None = None
        self.network = build_network(config, self.rows.shape[1])
        self.workdir: Path | None = None
        self.checkpoints: Checkpoints | None = None
        self.n_saved = 0
        self.keys = split_run_key(key)

    def prepare(self) -> None:
        """Scale the rows, tell what is odd about them, and put them onto the devices."""
        self.scaling, told = look_at_columns(
            self.rows, self.config, self.feature_names, over_parts=over_processes
        )
        self.x = self._on_devices(self.rows, self.n_rows)
        for warning in told:
            warnings.warn(warning, stacklevel=3)

    def _on_devices(self, rows: Shaped[np.ndarray, "n D"], n_rows: int) -> Float[Array, "M D"]:
        first_row = local_rows(n_rows, self.mesh).start
        return shard_rows(self.scaling.apply(rows, first_row=first_row), n_rows, self.mesh)

    def values_to_compare(self, x: Any, unlabeled: Any, resume: bool) -> dict[str, Any]:
        """Return what all processes of a run must have in common, by name."""
        names = self.feature_names
        return {
            **self.config.flat(),
            "random key": jax.random.key_data(self.key).tolist(),
            "shape of x": list(np.shape(x)),
            "data": sampled_digest(x)[:16],
            "unlabeled": None if unlabeled is None else sampled_digest(unlabeled)[:16],
            "classes y": None if self.y is None else digest(self.y)[:16],
            "pretraining rows": self.n_pretrain_rows,
            "autoencoder_params": None if self.pretrained is None else digest(self.pretrained),
            "feature_names": None if names is None else digest(np.array(names)),
            "resume": resume,
            "devices": 1 if self.mesh is None else self.mesh.size,
            "JAX_ENABLE_X64": bool(jax.config.values["jax_enable_x64"]),
            "jax": jax.__version__,
            "jdec": version("jdec"),
        }

    def start_from(self, params: Params) -> None:
        """Take pretrained parameters, if they are those of this network."""
        wanted = jax.eval_shape(lambda key: init_params(key, self.network), self.keys.init)
        check_arrays("autoencoder_params", params, wanted)
        self.pretrained = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)

    # Work directory -----------------------------------------------------------------------------

    def open_workdir(self, workdir: Path, resume: bool, stack: ExitStack) -> None:
        """Make the folder ready, or refuse it before anything in it is changed."""
        data = {
            "shape": [self.n_rows, self.rows.shape[1]],
            "digest": self._digest(self.rows, self.n_rows),
            "pretraining rows": self.n_pretrain_rows,
            "unlabeled": None if self.unlabeled is None else self._digest(*self.unlabeled),
            "autoencoder_params": self.pretrained,
            "feature_names": self.feature_names,
        }
        mine = fingerprint(self.key, self.config, data)
        workdir = workdir.expanduser()
        with raised_everywhere():
            if not is_first_process():
                return
            check_no_other_files(workdir)
            stack.enter_context(lock_folder(workdir))
            record = workdir / "run.json"
            if record.exists():
                check_same_run(record, mine, resume)
            with explained_writing():
                write_json(record, mine)  # first: what is beside it is then known to be ours
                write_json(workdir / "config.json", self.config.to_dict())
            self.checkpoints = Checkpoints(workdir / "checkpoints")
            self.workdir = workdir

    def _digest(self, rows: Float[np.ndarray, "n D"], n_rows: int) -> str:
        first_row = local_rows(n_rows, self.mesh).start
        parts = over_processes(rows_digest(rows, first_row))
        return "".join(f"{part:016x}" for part in parts.sum(axis=0))

    def _restore(self) -> tuple[str, int, Any]:
        """Return the phase, its step and its arrays to go on from."""
        restored = None
        with raised_everywhere():
            if self.checkpoints is not None:
                restored = self.checkpoints.latest(self._template)
        found = None if restored is None else [restored.step, restored.metadata]
        found = from_each_process(found)[0]
        if found is None:
            return "", 0, None
        self.n_saved, metadata = found
        self.reporter.history = metadata["history"]
        self.reporter.seconds = metadata["seconds"]
        if restored is None:
            template = self._template(metadata)
            tree = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
        else:
            tree = jax.tree.map(jnp.asarray, restored.tree)
        return metadata["phase"], metadata["step"], arrays_from_first_process(tree)

    def _template(self, metadata: dict[str, Any]) -> Any:
        """Return the form of what is saved, as the programs that make it have it."""
        params = self.pretrained
        if params is None:
            params = jax.eval_shape(lambda key: init_params(key, self.network), self.keys.init)
        if metadata["phase"] != "clustering":
            stage = next(s for s in pretraining_stages(self.config) if s.name == metadata["phase"])
            algorithm = build_pretraining(self.config, self.rows.shape[1], stage)
            return jax.eval_shape(algorithm.init, params)
        start = partial(start_clustering, config=self.config, rows=self.layout)
        initial, state = jax.eval_shape(start, self.keys.kmeans, params, self.x)
        return self._clustering_tree(params, initial, state)

    def _clustering_tree(self, params: Params, initial: KMeansResult, state: DECState) -> Any:
        # P and the labels belong to the parameters and are left out: what is kept then neither
        # grows with the rows nor depends on how many devices share them.
        kept = state._asdict()
        del kept["targets"], kept["labels"]
        return {"autoencoder": params, "initial": initial, "state": kept}

    def _complete_state(self, kept: dict[str, Any]) -> DECState:
        kept = replicate(kept, self.mesh)
        shape = (len(self.rows), self.config.n_clusters)
        state = DECState(
            targets=shard_rows(np.zeros(shape, np.float32), self.n_rows, self.mesh),
            labels=shard_rows(np.zeros(shape[0], np.int32), self.n_rows, self.mesh),
            **kept,
        )
        label_change = jnp.copy(state.label_change)
        state, _ = refresh(_copy(state), self.x, config=self.config, rows=self.layout)
        return state._replace(label_change=label_change)

    def _save(self, phase: str, step: int, tree: Any) -> None:
        if self.checkpoints is None or self.workdir is None:
            return
        self.n_saved += 1
        metadata = {
            "phase": phase,
            "step": step,
            "history": self.reporter.history,
            "seconds": self.reporter.seconds,
        }
        with explained_writing():
            self.checkpoints.save(self.n_saved, tree, metadata)
            write_json_lines(self.workdir / "history.jsonl", self.reporter.history)

    # Phases -------------------------------------------------------------------------------------

    def to_the_end(self) -> FitResult:
        """Run every phase that is still to do."""
        phase, step, tree = self._restore()
        if phase == "clustering":
            params, initial = tree["autoencoder"], tree["initial"]
            state = self._complete_state(tree["state"])
        else:
            params = self._pretrain(phase, step, tree)
            initial, state = self._initialise(params)
            self._save("clustering", 0, self._clustering_tree(params, initial, state))
        state = self._self_train(params, initial, state)
        return self._result(params, initial, state)

    def _pretrain(self, phase: str, step: int, tree: PretrainState | None) -> Params:
        if self.pretrained is not None:
            return replicate(self.pretrained, self.mesh)
        x, n_rows = self._pretraining_rows()
        params = init_params(self.keys.init, self.network) if tree is None else tree.params
        stages = pretraining_stages(self.config)
        names = [stage.name for stage in stages]
        for index in range(names.index(phase) if phase else 0, len(stages)):
            stage = stages[index]
            if stage.name == phase and tree is not None:
                state, first_step = tree, step
            else:
                common = {"config": self.config, "n_features": self.network.dims[0]}
                state, first_step = init_stage(params, stage=stage, **common), 0
            state = _copy(replicate(state, self.mesh))
            params = self._pretrain_stage(index, stage, state, first_step, x, n_rows)
        return params

    def _pretraining_rows(self) -> tuple[Float[Array, "M D"], int]:
        """Return the rows of pretraining, and how many they are."""
        if self.unlabeled is None:
            return self.x, self.n_pretrain_rows
        n_rows, (rows, n_others) = self.n_pretrain_rows, self.unlabeled
        others = self._on_devices(rows, n_others)
        joined = concatenate_rows(self.x, n_rows, others, n_others, self.mesh)
        return joined, n_rows + n_others

    def _pretrain_stage(
        self,
        index: int,
        stage: Stage,
        state: PretrainState,
        first_step: int,
        x: Float[Array, "M D"],
        n_rows: int,
    ) -> Params:
        key = jax.random.fold_in(self.keys.pretraining, index)
        phase = f"pretraining, {stage.name}"
        with self.reporter.bar(phase, stage.n_steps, "step", initial=first_step) as bar:
            for start, n_steps in chunks(stage.n_steps, first_step):
                with self.reporter.timed("pretraining"):
                    state, losses = pretrain_steps(
                        key,
                        state,
                        x,
                        start,
                        config=self.config,
                        stage=stage,
                        n_steps=n_steps,
                        n_rows=n_rows,
                        mesh=self.mesh,
                    )
                    loss = _mean_loss(losses, phase, start)
                    if not is_finite(state.params):
                        raise DivergenceError(
                            f"{phase}: the weights became NaN or infinite between steps "
                            f"{start + 1} and {start + n_steps}; lower "
                            "pretrain.optimizer.learning_rate or scale the data"
                        )
                self.reporter.report({"phase": stage.name, "step": start + n_steps, "loss": loss})
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update(n_steps)
                self._save(stage.name, start + n_steps, state)
        return state.params

    def _initialise(self, params: Params) -> tuple[KMeansResult, DECState]:
        with self.reporter.timed("kmeans"):
            initial, state = start_clustering(
                self.keys.kmeans, params, self.x, config=self.config, rows=self.layout
            )
            label_change = float(state.label_change)
        if not np.isfinite(label_change):
            raise DivergenceError(
                "k-means: the pretrained embedding is not finite; lower "
                "pretrain.optimizer.learning_rate"
            )
        labels = fetch_rows(state.labels, self.n_rows)
        self._report_clustering(state, None, np.bincount(labels, minlength=len(state.centroids)))
        return initial, state

    def _self_train(self, params: Params, initial: KMeansResult, state: DECState) -> DECState:
        settings = self.config.clustering
        done = int(state.interval)
        state = _copy(state)
        most = settings.max_intervals
        with self.reporter.bar("clustering", most, "interval", initial=done) as bar:
            while not is_finished(state, tol=settings.tol, max_intervals=most):
                with self.reporter.timed("clustering"):
                    state, losses = cluster_steps(
                        self.keys.clustering, state, self.x, config=self.config, rows=self.layout
                    )
                    loss = _mean_loss(losses, "clustering", done * settings.update_interval)
                with self.reporter.timed("target refresh"):
                    state, sizes = refresh(state, self.x, config=self.config, rows=self.layout)
                    label_change = float(state.label_change)
                done += 1
                if not np.isfinite(label_change):
                    raise DivergenceError(
                        f"clustering: weights or embedding are not finite after step "
                        f"{done * settings.update_interval}; lower "
                        "clustering.optimizer.learning_rate"
                    )
                self._report_clustering(state, loss, sizes)
                bar.set_postfix(loss=f"{loss:.4f}", changed=f"{label_change:.2%}", refresh=False)
                bar.update(1)
                self._save("clustering", done, self._clustering_tree(params, initial, state))
        return state

    def _result(self, params: Params, initial: KMeansResult, state: DECState) -> FitResult:
        # Plain arrays: device arrays would keep a device's memory, and are not for every pickle.
        params, initial = _to_host(params), _to_host(initial)
        encoder, centroids = _to_host((state.params, state.centroids))
        model = Model(self.scaling, encoder, centroids, self.config, self.feature_names)
        # A process may have no rows, where there are more devices than rows.
        own_rows = self.rows if len(self.rows) else np.zeros((1, self.rows.shape[1]), np.float32)
        embedding, q = (
            join_rows(part[: len(self.rows)], self.n_rows, self.mesh)
            for part in assign(model, own_rows)
        )
        labels = q.argmax(axis=1).astype(np.int32)
        _warn_of_empty_clusters(labels, np.asarray(centroids))
        settled = int(state.interval) > 0 and float(state.label_change) < self.config.clustering.tol
        if self.workdir is not None:
            with explained_writing():
                write_json_lines(self.workdir / "history.jsonl", self.reporter.history)
        return FitResult(
            model=model,
            labels=labels,
            soft_assignment=q,
            embedding=embedding,
            autoencoder_params=params,
            initial=initial,
            history=self.reporter.history,
            stop_reason="tol" if settled else "max_intervals",
            n_intervals=int(state.interval),
            seconds=self.reporter.seconds,
        )

    def _report_clustering(self, state: DECState, loss: float | None, sizes: Any) -> None:
        interval = int(state.interval)
        record: Record = {
            "phase": "clustering",
            "interval": interval,
            "step": interval * self.config.clustering.update_interval,
            "loss": loss,
            "label_change": float(state.label_change) if interval else None,
            "cluster_sizes": np.asarray(sizes).tolist(),
        }
        if self.y is not None:
            record |= clustering_scores(self.y, fetch_rows(state.labels, self.n_rows))
        self.reporter.report(record)


def _to_host(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.array(leaf), tree)


def _copy(tree: Any) -> Any:
    """Return a copy to donate: donation deletes the arrays it is given."""
    return jax.tree.map(jnp.copy, tree)


def _mean_loss(losses: Any, phase: str, first_step: int) -> float:
    losses = np.asarray(losses)
    broken = ~np.isfinite(losses)
    if broken.any():
        step = first_step + int(np.argmax(broken)) + 1
        raise DivergenceError(
            f"{phase}: the loss became {losses[broken][0]} at step {step}; lower the learning rate "
            "or scale the data"
        )
    return float(losses.mean(dtype=np.float64))


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
            stacklevel=5,
        )
    distances = np.linalg.norm(centroids[:, None] - centroids[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    spread = float(np.linalg.norm(centroids - centroids.mean(axis=0), axis=1).mean())
    collapsed = np.flatnonzero((distances <= 1e-3 * spread).any(axis=1) & (sizes > 0)).tolist()
    if len(collapsed) > 1:
        warnings.warn(
            f"clusters {_listed(collapsed)} have collapsed onto the same centroid",
            EmptyClusterWarning,
            stacklevel=5,
        )


def _listed(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:20]))
    return shown + (f" and {len(indices) - 20} more" if len(indices) > 20 else "")
