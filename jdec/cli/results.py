"""Writes the output directory of ``jdec fit``: arrays, metrics, figures and the model."""

import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float, Int, Key

from jdec._environment import environment
from jdec._io import atomic_write, write_json
from jdec._sources import as_source
from jdec._typing import Params
from jdec.core.autoencoder import Autoencoder, encoder_params
from jdec.core.kmeans import kmeans
from jdec.core.targets import embed_in_blocks
from jdec.datasets import Dataset
from jdec.metrics import clustering_scores
from jdec.trainer.config import Config
from jdec.trainer.fit import FitResult
from jdec.trainer.model import assign, network_of
from jdec.trainer.model_file import save_model

#: Restarts of the baseline k-means on the input.
BASELINE_RESTARTS = 5


@jax.jit
def seed_keys(seed: Any) -> tuple[Key[Array, ""], Key[Array, ""]]:
    """Return the key of a seed, and one for what follows its fits: baselines, consensus."""
    key = jax.random.key(seed)
    # fit() splits the key, and the children of a threefry key are the images of the counters 0, 1,
    # …: fold_in(key, 1) is split(key, 4)[1]. No split gets as far as this counter.
    return key, jax.random.fold_in(key, 2**32 - 1)


def score_methods(
    key: Key[Array, ""], dataset: Dataset, config: Config, result: FitResult
) -> dict[str, dict[str, float]]:
    """Score k-means on the input and on the pretrained embedding, the initialisation, and DEC.

    Rows that were streamed are too many for k-means on the input, which is then left out.
    """
    model, network = result.model, network_of(result.model)
    params = encoder_params(network, result.autoencoder_params)
    if result.placement == "device":  # which has room for all rows
        scaled = model.scaling.apply(as_source("x", dataset.x))
        labels = _baselines(key, scaled, params, config=config, network=network)
    else:
        trained = result.autoencoder_params if model.has_decoder else params
        before = model._replace(params=trained)
        pretrained, _ = assign(before, dataset.x, feature_names=dataset.feature_names)
        labels = _baselines(key, pretrained, config=config)
    labels = {name: labels[name] for name in ("k-means", "AE + k-means") if name in labels}
    labels |= {"DEC initialisation": result.initial.labels, "DEC": result.labels}
    return {name: clustering_scores(dataset.y, each) for name, each in labels.items()}


@partial(jax.jit, static_argnames=("config", "network"))
def _baselines(
    key: Key[Array, ""],
    points: Float[Array, "N D"],
    params: Params = None,
    *,
    config: Config,
    network: Autoencoder | None = None,
) -> dict[str, Int[Array, "N"]]:
    """Partition scaled rows and their embeddings, or embeddings alone where no network is given."""
    input_key, embedding_key = jax.random.split(key)
    settings, found = config.kmeans, {}
    limits: Any = {"max_iter": settings.max_iter, "tol": settings.tol}
    if network is not None:
        baseline = kmeans(input_key, points, config.n_clusters, n_init=BASELINE_RESTARTS, **limits)
        found["k-means"] = baseline.labels
        points = embed_in_blocks(network.encode, params, points)
    embedded = kmeans(embedding_key, points, config.n_clusters, n_init=settings.n_init, **limits)
    return found | {"AE + k-means": embedded.labels}


def dataset_record(dataset: Dataset) -> dict[str, Any]:
    """Return what metrics.json and sweep.json say about the data set."""
    names = dataset.feature_names
    return {
        "dataset": dataset.name,
        "variant": dataset.variant,
        "note": dataset.note,
        "n_rows": dataset.x.shape[0],
        "n_features": dataset.x.shape[1],
        "feature_names": None if names is None else [*names],
        "label_name": dataset.label_name,
    }


def save_arrays(out: Path, **arrays: np.ndarray) -> None:
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
    """Write arrays, model, figures and metrics.json (with all in ``about``); return the last."""
    save_arrays(
        out,
        labels=result.labels,
        soft_assignment=result.soft_assignment,
        embedding=result.embedding,
        centroids=np.asarray(result.model.centroids),
    )
    extra = {
        "labels_": result.labels,
        "embedding_": result.embedding,
        "n_iter_": result.n_intervals,
        "stop_reason_": result.stop_reason,
        "history_": result.history,
    }
    save_model(out / "model.npz", result.model, extra)
    began = time.perf_counter()
    from jdec import plotting  # slow to import

    with plotting.default_style():
        for name, figure in _figures(dataset, config, result):
            plotting.save_figure(figure, out / f"{name}.png")
    metrics = {
        **dataset_record(dataset),
        "n_clusters": config.n_clusters,
        "cluster_sizes": np.bincount(result.labels, minlength=config.n_clusters).tolist(),
        "rows": result.placement,
        "start_rows": next((record["rows"] for record in result.history if "rows" in record), None),
        "stop_reason": result.stop_reason,
        "n_intervals": result.n_intervals,
        "label_change": result.history[-1]["label_change"],
        "scores": scores,
        "seconds": rounded(result.seconds | {"figures": time.perf_counter() - began}),
        "environment": environment(),
        **about,
    }
    write_json(out / "metrics.json", metrics)
    return metrics


def _figures(dataset: Dataset, config: Config, result: FitResult) -> Iterator[tuple[str, Any]]:
    from jdec import plotting

    classes: dict[str, Any] = {"y": dataset.y, "class_names": dataset.class_names}
    embedding, labels, centroids = result.embedding, result.labels, result.model.centroids
    shown: dict[str, Any] = {"centroids": np.asarray(centroids), **classes}
    yield "embedding", plotting.plot_embedding(embedding, labels, **shown)
    yield "history", plotting.plot_history(result.history, tol=config.clustering.tol or None)
    shape = config.image_shape or ()
    if len(shape) == 3 and shape[-1] == 1:
        shape = shape[:2]
    is_picture = len(shape) == 2 or (len(shape) == 3 and shape[-1] == 3)
    if is_picture and not scipy.sparse.issparse(dataset.x):
        images = dataset.x.reshape(-1, *shape)
        figure = plotting.plot_top_samples(images, result.soft_assignment, **classes)
        yield "top_samples", figure
