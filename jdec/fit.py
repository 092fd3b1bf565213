"""The shell: the whole of DEC on real data, with compilation, progress, checkpoints and guards."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jdec._io import write_json, write_json_lines
from jdec._checks import as_rows, check_integer, check_n_clusters, check_rank
from jdec._typing import Params
from jdec.autoencoder import encoder_params, init_params
from jdec.build import (
    Rows,
    Stage,
    build_clustering,
    build_network,
    build_pretraining,
    cluster_steps,
    pretrain_steps,
    pretraining_stages,
    refresh,
    split_run_key,
    start_clustering,
)
from jdec.checkpoint import Checkpoints
from jdec.config import Config
from jdec.dec import DECState, init_state, is_finished
from jdec.kmeans import KMeansResult
from jdec.metrics import clustering_scores
from jdec.model import Model, assign
from jdec.pretrain import PretrainState
from jdec.progress import Record, Reporter, chunks
from jdec.scaling import fit_scaling
from jdec.sharding import (
    Mesh,
    arrays_from_first_process,
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
from jdec.workdir import check_same_run, fingerprint, rows_digest


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
        n_train: Number of leading rows that are the training split, for ``pretrain.rows="train"``.
        unlabeled: More rows, [M D], for pretraining alone.
        autoencoder_params: Parameters of encoder and decoder to start from, as another result's
            ``autoencoder_params``; pretraining is left out.
        workdir: Folder for checkpoints, config.json and history.jsonl.
        resume: Go on with what ``workdir`` holds; starts afresh if it holds nothing yet, and on
            any number of devices.
        mesh: From :func:`jdec.data_mesh`: spreads the rows over devices. With several processes,
            each calls this function and reads its own rows of ``x`` alone, which may be a
            memory-mapped file.
        callbacks: Called with each record of the history as it is made.
        progress: Show progress bars on stderr.

    Returns:
        A :class:`FitResult`.

    Raises:
        ValueError: For bad input, or a ``workdir`` that holds another run.
        DivergenceError: If a loss or an embedding becomes NaN or infinite.

    Examples:
        >>> from jdec.config import Config
        >>> config = Config(n_clusters=2).replace({
        ...     "network.hidden_dims": [8], "network.latent_dim": 2, "pretrain.finetune_steps": 20,
        ...     "clustering.update_interval": 5, "clustering.max_intervals": 2})
        >>> x = np.array([[0.0, 0.1], [0.1, 0.0], [5.0, 5.1], [5.1, 5.0]])
        >>> result = fit(jax.random.key(0), x, config)
        >>> result.labels[0] == result.labels[1] != result.labels[2]
        np.True_

    Source: Xie et al. 2016, section 3.
    """
    rows, n_rows = _own_rows("x", x, mesh)
    check_n_clusters(config.n_clusters, n_rows)
    if y is not None:
        y = np.asarray(y)
        check_rank("y", y, 1)
        if len(y) != n_rows:
            raise ValueError(f"y: expected as many entries as x has ({n_rows}), got {len(y)}")
    if n_train is not None:
        check_integer("n_train", n_train)
        if n_train > n_rows:
            raise ValueError(f"n_train: expected at most the {n_rows} rows of x, got {n_train}")
    if config.image_shape is not None and np.prod(config.image_shape) != rows.shape[1]:
        raise ValueError(
            f"image_shape: expected {rows.shape[1]} entries as x has columns, "
            f"got {config.image_shape}"
        )
    others = None
    if unlabeled is not None:
        others = _own_rows("unlabeled", unlabeled, mesh)
        if others[0].shape[1] != rows.shape[1]:
            raise ValueError(
                f"unlabeled: expected {rows.shape[1]} columns as x has, got {others[0].shape[1]}"
            )
    with ExitStack() as stack:
        run = _Run(
            key,
            (rows, n_rows),
            config,
            y=y,
            n_train=n_train,
            unlabeled=others,
            mesh=mesh,
            reporter=Reporter(callbacks, progress=progress and is_first_process()),
        )
        if autoencoder_params is not None:
            run.start_from(autoencoder_params)
        if workdir is not None:
            run.open_workdir(Path(workdir), resume, stack)
        return run.to_the_end()


def _own_rows(name: str, x: Any, mesh: Mesh | None) -> tuple[Float[np.ndarray, "n D"], int]:
    """Return the rows that this process holds, and how many there are in all."""
    if mesh is None or jax.process_count() == 1:
        rows = as_rows(name, x)
        return rows, len(rows)
    check_rank(name, x, 2)
    mine = local_rows(len(x), mesh)
    rows, reason = np.zeros((0, np.shape(x)[1]), np.float32), None
    if mine.start < mine.stop:  # there may be more devices than rows
        try:
            rows = as_rows(name, x[mine], first_row=mine.start)
        except ValueError as error:
            reason = str(error)
    # What one process refuses all do: the others would wait for it.
    for refusal in from_each_process(reason):
        if refusal is not None:
            raise ValueError(refusal)
    return rows, len(x)


class _Run:
    """A fit on its way; everything that is not a pure function happens here."""

    def __init__(
        self,
        key: Key[Array, ""],
        own_rows: tuple[Float[np.ndarray, "n D"], int],
        config: Config,
        *,
        y: np.ndarray | None,
        n_train: int | None,
        unlabeled: tuple[Float[np.ndarray, "m D"], int] | None,
        mesh: Mesh | None,
        reporter: Reporter,
    ) -> None:
        self.key, self.config, self.y, self.mesh = key, config, y, mesh
        self.reporter = reporter
        self.rows, self.n_rows = own_rows
        self.scaling = fit_scaling(
            self.rows, config.scaling, scale=config.scale, over_parts=over_processes
        )
        self.x = self._on_devices(self.rows, self.n_rows)
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

    def _on_devices(self, rows: Float[np.ndarray, "n D"], n_rows: int) -> Float[Array, "M D"]:
        return shard_rows(self.scaling.apply(rows), n_rows, self.mesh)

    def start_from(self, params: Params) -> None:
        """Take pretrained parameters, if they are those of this network."""
        wanted = jax.eval_shape(lambda key: init_params(key, self.network), self.keys.init)
        shapes = [
            {
                jax.tree_util.keystr(path, simple=True, separator="."): jnp.shape(leaf)
                for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            }
            for tree in (wanted, params)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"autoencoder_params: expected arrays of shapes {shapes[0]}, got {shapes[1]}"
            )
        self.pretrained = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)

    # Work directory -----------------------------------------------------------------------------

    def open_workdir(self, workdir: Path, resume: bool, stack: ExitStack) -> None:
        """Make the folder ready, or refuse it before anything in it is changed."""
        if workdir.exists() and not workdir.is_dir():
            raise ValueError(f"workdir: expected a folder, got the file {workdir}")
        data = {
            "shape": [self.n_rows, self.rows.shape[1]],
            "digest": self._digest(self.rows, self.n_rows),
            "pretraining rows": self.n_pretrain_rows,
            "unlabeled": None if self.unlabeled is None else self._digest(*self.unlabeled),
            "autoencoder_params": self.pretrained,
        }
        mine = fingerprint(self.key, self.config, data)
        if not is_first_process():
            return
        record = workdir / "run.json"
        if record.exists():
            check_same_run(record, mine, resume)
        elif any((workdir / "checkpoints").glob("[0-9]*")):
            raise ValueError(
                f"workdir: expected run.json beside the checkpoints in {workdir}, to know which "
                "run they are of; choose another folder"
            )
        self.checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints"))
        self.workdir = workdir
        write_json(record, mine)
        write_json(workdir / "config.json", self.config.to_dict())

    def _digest(self, rows: Float[np.ndarray, "n D"], n_rows: int) -> str:
        first_row = local_rows(n_rows, self.mesh).start
        parts = over_processes(rows_digest(rows, first_row))
        return "".join(f"{part:016x}" for part in parts.sum(axis=0))

    def _restore(self) -> tuple[str, int, Any]:
        """Return the phase, its step and its arrays to go on from."""
        restored = None if self.checkpoints is None else self.checkpoints.latest(self._template)
        found = None if restored is None else [restored.step, restored.metadata]
        found = from_each_process(found)[0]
        if found is None:
            return "", 0, None
        self.n_saved, metadata = found
        self.reporter.history = metadata["history"]
        self.reporter.seconds = metadata["seconds"]
        if restored is None:
            shapes = jax.eval_shape(lambda: self._template(metadata))
            tree = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        else:
            tree = jax.tree.map(jnp.asarray, restored.tree)
        return metadata["phase"], metadata["step"], arrays_from_first_process(tree)

    def _template(self, metadata: dict[str, Any]) -> Any:
        params = init_params(self.keys.init, self.network)
        if metadata["phase"] != "clustering":
            stage = next(s for s in pretraining_stages(self.config) if s.name == metadata["phase"])
            return build_pretraining(self.config, self.rows.shape[1], stage).init(params)
        n_clusters, latent_dim = self.config.n_clusters, self.config.network.latent_dim
        centroids = jnp.zeros((n_clusters, latent_dim))
        clustering = build_clustering(self.config, self.rows.shape[1])
        initial = KMeansResult(
            centroids,
            jnp.zeros(self.n_rows, jnp.int32),
            jnp.float32(0),
            jnp.int32(0),
            jnp.bool_(False),
        )
        state = init_state(encoder_params(params), centroids, self.x, clustering)
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
                algorithm = build_pretraining(self.config, self.network.dims[0], stage)
                state, first_step = jax.jit(algorithm.init)(params), 0
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
            is_finite = np.isfinite(state.label_change)
        if not is_finite:
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
                        f"clustering: the embedding is not finite after step "
                        f"{done * settings.update_interval}; lower "
                        "clustering.optimizer.learning_rate"
                    )
                self._report_clustering(state, loss, sizes)
                bar.set_postfix(loss=f"{loss:.4f}", changed=f"{label_change:.2%}", refresh=False)
                bar.update(1)
                self._save("clustering", done, self._clustering_tree(params, initial, state))
        return state

    def _result(self, params: Params, initial: KMeansResult, state: DECState) -> FitResult:
        params, initial = self._unspread(params), self._unspread(initial)
        encoder, centroids = self._unspread((state.params, state.centroids))
        model = Model(self.scaling, encoder, centroids, self.config)
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

    def _unspread(self, tree: Any) -> Any:
        """Take arrays that are on every device to the default device alone."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), tree)

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
