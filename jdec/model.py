"""A trained model: assigns rows to clusters, and is kept in one file without pickles."""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from jdec._io import atomic_write
from jdec._checks import as_rows
from jdec._typing import Params
from jdec.autoencoder import encoder_dims
from jdec.build import BLOCK_SIZE, assign_block
from jdec.config import Config
from jdec.scaling import Scaling

_FORMAT = "jdec model 1"


class Model(NamedTuple):
    """What assigns rows to clusters."""

    scaling: Scaling
    params: Params  # of the encoder, after the clustering phase
    centroids: Float[Array, "K Z"]
    config: Config


def assign(model: Model, x: Any) -> tuple[Float[np.ndarray, "N Z"], Float[np.ndarray, "N K"]]:
    """Embed rows and assign them to clusters, block by block.

    Blocks have one size whatever N is: nothing is compiled anew for another N, and a row's result
    does not depend on the rows around it.

    Args:
        model: From :func:`jdec.fit` or :func:`load_model`.
        x: Unscaled rows, [N D], numeric and finite.

    Returns:
        Embeddings [N Z] and the soft assignment [N K].

    Raises:
        ValueError: For bad input, or rows of another width than the model's.

    Source: Xie et al. 2016, Eq. 1.
    """
    x = as_rows("x", x)
    embeddings, assignments = [], []
    for start in range(0, len(x), BLOCK_SIZE):
        block = model.scaling.apply(x[start : start + BLOCK_SIZE])
        padded = np.zeros((BLOCK_SIZE, x.shape[1]), np.float32)
        padded[: len(block)] = block
        z, q = assign_block(model.params, model.centroids, padded, config=model.config)
        embeddings.append(np.asarray(z)[: len(block)])
        assignments.append(np.asarray(q)[: len(block)])
    return np.concatenate(embeddings), np.concatenate(assignments)


def save_model(path: str | Path, model: Model, extra: Mapping[str, Any] | None = None) -> None:
    """Write a model to one .npz file, whole or not at all.

    Args:
        path: File name; its folder must exist.
        model: What to write.
        extra: More to keep with it: arrays, or JSON values.

    Raises:
        ValueError: If the file cannot be written.
    """
    arrays: dict[str, Any] = {
        "scaling/shift": model.scaling.shift,
        "scaling/factor": model.scaling.factor,
        "centroids": model.centroids,
    }
    for layer, leaves in model.params.items():
        for name, leaf in leaves.items():
            arrays[f"params/{layer}/{name}"] = leaf
    values = {}
    for name, value in (extra or {}).items():
        if isinstance(value, np.ndarray):
            arrays[f"extra/{name}"] = value
        else:
            values[name] = value
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    header = {
        "format": _FORMAT,
        "config": model.config.to_dict(),
        "extra": values,
        "arrays": list(arrays),
    }
    try:
        with atomic_write(path) as file:
            np.savez(file, header=np.array(json.dumps(header)), **arrays)
    except OSError as error:
        raise ValueError(f"model: cannot write {path}: {error.strerror}") from error


def load_model(path: str | Path) -> tuple[Model, dict[str, Any]]:
    """Read a model from a file that :func:`save_model` wrote.

    Args:
        path: The .npz file.

    Returns:
        The model, and what was kept with it.

    Raises:
        ValueError: If the file is missing, damaged, or not a model.
    """
    path = Path(path)
    try:
        # Opened here, since np.load leaves a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        header = json.loads(str(arrays.pop("header")))
        if header["format"] != _FORMAT:
            raise ValueError(f"format {header['format']!r}, expected {_FORMAT!r}")
        if sorted(header["arrays"]) != sorted(arrays):
            missing = sorted(set(header["arrays"]) ^ set(arrays))
            raise ValueError(f"arrays missing or surplus: {', '.join(missing)}")
        params: dict[str, dict[str, Any]] = {}
        extra = dict(header["extra"])
        for name, array in arrays.items():
            kind, *rest = name.split("/")
            if kind == "params":
                params.setdefault(rest[0], {})[rest[1]] = array
            elif kind == "extra":
                extra[rest[0]] = array
        model = Model(
            scaling=Scaling(arrays["scaling/shift"], arrays["scaling/factor"]),
            params=params,
            centroids=arrays["centroids"],
            config=Config.from_dict(header["config"]),
        )
        _check_dims(model)
    except FileNotFoundError:
        raise ValueError(f"model: no file {path}; fit one first") from None
    except Exception as error:  # whatever a damaged file makes of its reader
        raise ValueError(f"model: {path} is damaged or not a jdec model: {error}") from error
    return model, extra


def _check_dims(model: Model) -> None:
    network = model.config.network
    expected = (len(model.scaling.shift), *network.hidden_dims, network.latent_dim)
    dims = encoder_dims(model.params)
    if dims != expected:
        raise ValueError(f"expected layers of widths {expected}, got {dims}")
    for layer, widths in enumerate(pairwise(dims)):
        shapes = {name: leaf.shape for name, leaf in model.params[f"encoder_{layer}"].items()}
        if shapes != {"kernel": widths, "bias": widths[1:]}:
            raise ValueError(
                f"expected kernel {widths} and bias {widths[1:]} in layer {layer}, got {shapes}"
            )
    if model.scaling.factor.shape != model.scaling.shift.shape:
        raise ValueError(
            f"expected scaling factors of shape {model.scaling.shift.shape}, "
            f"got {model.scaling.factor.shape}"
        )
    if model.centroids.shape != (model.config.n_clusters, network.latent_dim):
        raise ValueError(
            f"expected centroids of shape {(model.config.n_clusters, network.latent_dim)}, "
            f"got {model.centroids.shape}"
        )
