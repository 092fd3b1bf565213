"""A fit: validate, place, resume, loop, result."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from jdec._checks import check_key, check_n_clusters
from jdec._columns import check_feature_names, column_names
from jdec._typing import Params
from jdec.core.autoencoder import network_shapes
from jdec.core.dec import ExtraLossFn
from jdec.metrics import clustering_scores
from jdec.trainer.config import Config
from jdec.trainer.fingerprint import fingerprint, sampled_digest, values_to_compare
from jdec.trainer.history import Callback, Reporter
from jdec.trainer.initialization import initialize, partition_shapes
from jdec.trainer.inputs import (
    check_arrays,
    check_classes,
    check_n_train,
    check_parts,
    check_same_columns,
    check_shell,
)
from jdec.trainer.model import Model
from jdec.trainer.pretraining import pretrain
from jdec.trainer.processes import check_processes_agree, is_primary, raised_everywhere
from jdec.trainer.programs import (
    AugmentFn,
    Plan,
    describe_plan,
    own_network,
    split_run_key,
)
from jdec.trainer.results import FitResult, warn_of_empty_clusters
from jdec.trainer.rows import (
    Data,
    add_rows,
    digest_rows,
    own_rows,
    scale_rows,
    streams,
)
from jdec.trainer.run import Run, Saved, to_host
from jdec.trainer.run_folder import Journal, open_run, template
from jdec.trainer.scaling import Scaling
from jdec.trainer.self_training import begin, restore, self_train
from jdec.trainer.sharding import DATA, Mesh, check_mesh, replicate
from jdec.trainer.streamed_rows import StreamedRows


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
    checkpoint_seconds: float = 30.0,
    mesh: Mesh | None = None,
    rows: str = "auto",
    callbacks: Sequence[Callback] = (),
    progress: bool = False,
) -> FitResult:
    """Pretrain, initialise by k-means and self-train: Deep Embedded Clustering from rows to labels.

    With a ``workdir``, there is a checkpoint at the end of each stage, and within it by time; a run
    that was interrupted and is called again with ``resume`` ends with the same bits as one that was
    not.

    Args:
        key: Typed random key; with the data and the configuration it determines the result.
        x: Rows, [N D], numeric and finite: an array, a memory-mapped file, a data frame, a matrix
            of h5py or zarr, which is copied to a file that is read faster, or a sparse matrix of
            SciPy, which is not made dense as a whole if its rows are streamed.
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
        checkpoint_seconds: How long after a checkpoint the next is written within a stage; 0 writes
            one at each record of the history.
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
        rows: Where the rows are: ``device``: all of them on the device, as float32; ``stream``: on
            the host or in their file, of which mini-batches and blocks are sent to the device; the
            result is the same up to rounding. ``auto`` streams what the device has no room for.
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
        check_mesh(mesh, (DATA,))
        callbacks, folder = check_shell(
            config, callbacks, workdir, resume, checkpoint_seconds, progress
        )
        feature_names = check_feature_names(feature_names, x)
        data = own_rows("x", x, mesh, feature_names)
        source, n_rows = data.rows, data.sharding.n_rows
        check_n_clusters(config.n_clusters, n_rows)
        labels = check_classes(y, n_rows)
        n_train = check_n_train(config, n_train, n_rows)
        network, hooks = check_parts(config, source.shape[1], network, tx, extra_loss, augment)
        others = None
        if unlabeled is not None:
            others = own_rows("unlabeled", unlabeled, mesh, column_names(unlabeled))
            check_same_columns(feature_names, source, unlabeled, others.rows)
        plan = Plan(config, network, data.sharding, hooks)
        is_streamed = streams(rows, data, config)
        if autoencoder_params is not None:
            shapes = network_shapes(network, source.shape[1]).params
            check_arrays("autoencoder_params", autoencoder_params, shapes)
            as_float32 = partial(jnp.asarray, dtype=jnp.float32)
            autoencoder_params = jax.tree.map(as_float32, autoencoder_params)
    more_than_settings: dict[str, Any] = {}
    if folder is not None or jax.process_count() > 1:
        more_than_settings = {
            "pretraining rows": n_train,
            "autoencoder_params": autoencoder_params,
            "feature_names": feature_names,
            **describe_plan(plan),
        }
    if jax.process_count() > 1:
        compared = {
            **more_than_settings,
            "unlabeled": None if unlabeled is None else sampled_digest(unlabeled)[:16],
            "classes y": labels,
            "resume": resume,
            "devices": 1 if mesh is None else mesh.size,
        }
        check_processes_agree(values_to_compare(key, x, config, compared))
    reporter = Reporter(callbacks, progress=progress and is_primary())
    with ExitStack() as stack:
        if folder is not None:
            record = {
                "shape": [n_rows, source.shape[1]],
                "digest": digest_rows(data),
                "unlabeled": None if others is None else digest_rows(others),
                **more_than_settings,
            }
            folder = open_run(folder, fingerprint(key, config, record), config, resume, stack)
        scaling = scale_rows(data, config)
        journal = Journal(folder, reporter, seconds=checkpoint_seconds)
        run = Run(
            plan,
            split_run_key(key),
            data.stream(scaling) if is_streamed else data.put(scaling),
            reporter,
            save=journal.save,
            describe=lambda found: (
                {} if labels is None else clustering_scores(labels, run.fetch(found))
            ),
        )
        result = _run(run, journal, data, scaling, autoencoder_params, n_train, others)
        journal.write_history()
        return result


def _run(
    run: Run,
    journal: Journal,
    data: Data,
    scaling: Scaling,
    pretrained: Params | None,
    n_train: int,
    others: Data | None,
) -> FitResult:
    """Run every phase that is still to do."""
    plan = run.plan
    shapes = pretrained
    if shapes is None:
        shapes = network_shapes(plan.network, run.x.shape[1]).params
    kept = {"autoencoder": shapes, "initial": partition_shapes(run)}
    saved = journal.restore(lambda phase, about: template(run, phase, about, shapes, kept))
    if saved is not None and saved.phase == "clustering":
        run.kept = {name: saved.tree[name] for name in kept}
        state, targets = restore(run, saved)
    else:
        params = _pretrained(run, saved, pretrained, n_train, scaling, others)
        with run.reporter.timed("kmeans"):
            start = initialize(run, params)
        run.kept = {"autoencoder": params, "initial": start.partition}
        state, targets = begin(run, params, start)
        del start
    run, state, targets = self_train(run, state, targets)
    # Plain arrays: device arrays would keep a device's memory, and are not for every pickle.
    params, initial, (encoder, centroids) = to_host((*run.kept.values(), state.params))
    form = (plan.config, data.feature_names, own_network(plan), plan.keeps_decoder)
    model = Model(scaling, encoder, centroids, *form)
    alpha = np.float32(plan.config.clustering.alpha)
    parts = run.programs.assign(state.params, run.x, alpha, plan=plan)
    embedding, q = map(run.fetch, parts)
    labels = q.argmax(axis=1).astype(np.int32)
    warn_of_empty_clusters(labels, np.asarray(centroids))
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
        placement="stream" if isinstance(run.x, StreamedRows) else "device",
    )


def _pretrained(
    run: Run,
    saved: Saved | None,
    pretrained: Params | None,
    n_train: int,
    scaling: Scaling,
    others: Data | None,
) -> Params:
    mesh = run.plan.rows.mesh
    if pretrained is not None:
        return replicate(pretrained, mesh)
    rows = (run.x, n_train)
    if others is not None:
        rows = add_rows(run, n_train, others, scaling)
    return pretrain(run, rows=rows, saved=saved)
