"""Writes the output directory of ``jdec fit``: arrays, metrics, figures and the model."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jdec._environment import environment
from jdec._io import atomic_write, write_json
from jdec._rows import as_rows
from jdec.core.autoencoder import encoder_params
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
from jdec.trainer.model import assign, network_of
from jdec.trainer.model_file import save_model

#: Restarts of the baseline k-means on the input.
BASELINE_RESTARTS = 5


def score_methods(
    key: Key[Array, ""], dataset: Dataset, config: Config, result: FitResult
) -> dict[str, dict[str, float]]:
    """Score k-means on the input and on the pretrained embedding, the initialisation, and DEC.

    Args:
        key: Typed random key of the baselines.
        dataset: With classes.
        config: Of the run: number of clusters and settings of k-means.
        result: Of the run.

    Returns:
        Name of the method to ``{"acc", "nmi", "ari"}``.
    """
    settings = config.kmeans

    def partition(key: Key[Array, ""], x: Any, n_init: int) -> Any:
        compiled = jax.jit(kmeans, static_argnames=("n_clusters", "n_init", "max_iter"))
        return compiled(
            key,
            jnp.asarray(x),
            config.n_clusters,
            n_init=n_init,
            max_iter=settings.max_iter,
            tol=settings.tol,
        ).labels

    input_key, embedding_key = jax.random.split(key)
    scaled = result.model.scaling.apply(as_rows("x", dataset.x))
    pretrained = _pretrained_embedding(dataset, result)
    labels = {
        "k-means": partition(input_key, scaled, BASELINE_RESTARTS),
        "AE + k-means": partition(embedding_key, pretrained, settings.n_init),
        "DEC initialisation": result.initial.labels,
        "DEC": result.labels,
    }
    return {name: clustering_scores(dataset.y, each) for name, each in labels.items()}


def _pretrained_embedding(dataset: Dataset, result: FitResult) -> Float[np.ndarray, "N Z"]:
    """Embed the rows by the encoder as it was before self-training."""
    model, params = result.model, result.autoencoder_params
    if not model.has_decoder:
        params = encoder_params(network_of(model), params)
    names = dataset.feature_names
    return assign(model._replace(params=params), dataset.x, feature_names=names)[0]


def dataset_record(dataset: Dataset) -> dict[str, Any]:
    """Return what metrics.json and sweep.json say about the data set."""
    names = dataset.feature_names
    return {
        "dataset": dataset.name,
        "variant": dataset.variant,
        "note": dataset.note,
        "n_rows": len(dataset.x),
        "n_features": dataset.x.shape[1],
        "feature_names": None if names is None else [*names],
        "label_name": dataset.label_name,
    }


def save_arrays(out: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to .npy files, each of them atomically."""
    for name, array in arrays.items():
        with atomic_write(out / f"{name}.npy") as file:
            np.save(file, array, allow_pickle=False)


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return seconds by phase, as they are recorded."""
    return {name: round(value, 2) for name, value in seconds.items()}


def write_results(
    out: Path,
    dataset: Dataset,
    config: Config,
    result: FitResult,
    *,
    scores: Mapping[str, Any] | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write labels, soft assignment, embedding, centroids, model, metrics and figures atomically.

    Args:
        out: An existing folder.
        dataset: The rows, for figures.
        config: Of the run.
        result: Of the run.
        scores: From :func:`score_methods`, or None without classes.
        about: More entries of metrics.json.

    Returns:
        The content of metrics.json.
    """
    arrays = {
        "labels": result.labels,
        "soft_assignment": result.soft_assignment,
        "embedding": result.embedding,
        "centroids": np.asarray(result.model.centroids),
    }
    save_arrays(out, arrays)
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
    seconds = {**result.seconds, "figures": time.perf_counter() - began}
    metrics = {
        **dataset_record(dataset),
        "n_clusters": config.n_clusters,
        "cluster_sizes": np.bincount(result.labels, minlength=config.n_clusters).tolist(),
        "stop_reason": result.stop_reason,
        "n_intervals": result.n_intervals,
        "label_change": result.history[-1]["label_change"],
        "scores": dict(scores) if scores is not None else None,
        "seconds": rounded(seconds),
        "environment": environment(),
        **about,
    }
    write_json(out / "metrics.json", metrics)
    return metrics


def _draw(out: Path, dataset: Dataset, config: Config, result: FitResult) -> None:
    figure = plot_embedding(
        result.embedding,
        result.labels,
        y=dataset.y,
        class_names=dataset.class_names,
        centroids=np.asarray(result.model.centroids),
    )
    save_figure(figure, out / "embedding.png")
    figure = plot_history(result.history, tol=config.clustering.tol or None)
    save_figure(figure, out / "history.png")
    if config.image_shape is not None and len(config.image_shape) in (2, 3):
        images = dataset.x.reshape(-1, *config.image_shape)
        if images.ndim == 4 and images.shape[-1] == 1:
            images = images[..., 0]
        if images.ndim == 3 or images.shape[-1] == 3:
            figure = plot_top_samples(
                images, result.soft_assignment, y=dataset.y, class_names=dataset.class_names
            )
            save_figure(figure, out / "top_samples.png")
