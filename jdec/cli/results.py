"""What ``jdec fit`` leaves behind: arrays, metrics, pictures and the model, in one folder."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jdec._checks import as_rows
from jdec._environment import environment
from jdec._io import atomic_write, write_json
from jdec.core.kmeans import kmeans
from jdec.datasets import Dataset
from jdec.metrics import clustering_scores
from jdec.plotting import (
    default_style,
    plot_embedding,
    plot_history,
    plot_top_samples,
    save_figure,
)
from jdec.trainer.config import Config
from jdec.trainer.fit import FitResult
from jdec.trainer.model import save_model
from jdec.trainer.scaling import fit_scaling

#: Restarts of the k-means on the input that DEC is compared with.
BASELINE_RESTARTS = 5


def score_methods(
    key: Key[Array, ""], dataset: Dataset, config: Config, result: FitResult
) -> dict[str, dict[str, float]]:
    """Score k-means on the input, k-means on the pretrained embedding, and DEC.

    Args:
        key: Typed random key of the k-means on the input.
        dataset: With classes.
        config: Of the run, whose scaling and number of clusters the baseline shares.
        result: Of the run.

    Returns:
        Name of the method to ``{"acc", "nmi", "ari"}``.
    """
    rows = as_rows("x", dataset.x)
    x = jnp.asarray(fit_scaling(rows, config.scaling, scale=config.scale).apply(rows))
    compiled = jax.jit(kmeans, static_argnames=("n_clusters", "n_init", "max_iter"))
    baseline = compiled(key, x, config.n_clusters, n_init=BASELINE_RESTARTS)
    return {
        "k-means": clustering_scores(dataset.y, baseline.labels),
        "AE + k-means": clustering_scores(dataset.y, result.initial.labels),
        "DEC": clustering_scores(dataset.y, result.labels),
    }


def write_results(
    out: Path,
    dataset: Dataset,
    config: Config,
    result: FitResult,
    *,
    scores: Mapping[str, Any] | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write labels, soft assignment, embedding, centroids, model, metrics and pictures.

    Each file is written whole or not at all.

    Args:
        out: An existing folder.
        dataset: The rows, for pictures.
        config: Of the run.
        result: Of the run.
        scores: From :func:`score_methods`, or None without classes.
        about: More to put into metrics.json.

    Returns:
        The content of metrics.json.
    """
    arrays = {
        "labels": result.labels,
        "soft_assignment": result.soft_assignment,
        "embedding": result.embedding,
        "centroids": np.asarray(result.model.centroids),
    }
    for name, array in arrays.items():
        with atomic_write(out / f"{name}.npy") as file:
            np.save(file, array, allow_pickle=False)
    extra = {
        "labels_": result.labels,
        "embedding_": result.embedding,
        "n_iter_": result.n_intervals,
        "stop_reason_": result.stop_reason,
        "history_": result.history,
    }
    save_model(out / "model.npz", result.model, extra)
    began = time.perf_counter()
    with default_style():
        _draw(out, dataset, config, result)
    seconds = {**result.seconds, "pictures": time.perf_counter() - began}
    metrics = {
        "dataset": dataset.name,
        "variant": dataset.variant,
        "note": dataset.note,
        "n_rows": len(dataset.x),
        "n_features": dataset.x.shape[1],
        "feature_names": None if dataset.feature_names is None else [*dataset.feature_names],
        "label_name": dataset.label_name,
        "n_clusters": config.n_clusters,
        "cluster_sizes": np.bincount(result.labels, minlength=config.n_clusters).tolist(),
        "stop_reason": result.stop_reason,
        "n_intervals": result.n_intervals,
        "label_change": result.history[-1]["label_change"],
        "scores": dict(scores) if scores is not None else None,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "environment": environment(),
        **about,
    }
    write_json(out / "metrics.json", metrics)
    return metrics


def _draw(out: Path, dataset: Dataset, config: Config, result: FitResult) -> None:
    save_figure(
        plot_embedding(
            result.embedding,
            result.labels,
            y=dataset.y,
            class_names=dataset.class_names,
            centroids=np.asarray(result.model.centroids),
        ),
        out / "embedding.png",
    )
    tol = config.clustering.tol or None
    save_figure(plot_history(result.history, tol=tol), out / "history.png")
    if config.image_shape is not None and len(config.image_shape) in (2, 3):
        images = dataset.x.reshape(-1, *config.image_shape)
        if images.ndim == 4 and images.shape[-1] == 1:
            images = images[..., 0]
        if images.ndim == 3 or images.shape[-1] == 3:
            figure = plot_top_samples(
                images, result.soft_assignment, y=dataset.y, class_names=dataset.class_names
            )
            save_figure(figure, out / "top_samples.png")
