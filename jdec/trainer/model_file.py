"""Models in files: one each, without pickles, written whole and checked when read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdec._archives import read_npz, write_npz
from jdec._checks import as_path, in_a_line, shown
from jdec._columns import check_feature_names
from jdec._io import atomic_write, parse_json
from jdec.core.autoencoder import as_autoencoder
from jdec.trainer.config import Config
from jdec.trainer.fingerprint import describe
from jdec.trainer.model import Model, check_arrays, check_model, named_leaves, with_params
from jdec.trainer.scaling import Scaling

_FORMAT = "jdec model 1"


def save_model(path: str | Path, model: Model, extra: Mapping[str, Any] | None = None) -> None:
    """Write a model to one .npz file, whole or not at all.

    Args:
        path: File name; its folder must exist.
        model: What to write.
        extra: More to keep with it: numeric arrays, or JSON values.

    Raises:
        ValueError: If the model could not be loaded again, such as one with NaN, or the file
            cannot be written.
    """
    check_model(model)
    path = as_path("path", path)
    if path.is_dir():
        raise ValueError(f"model: cannot write {path}: it is a folder")
    if extra is not None and not isinstance(extra, Mapping):
        raise ValueError(f"extra: expected arrays or JSON values by name, got {shown(extra)}")
    arrays: dict[str, Any] = {
        "scaling/shift": model.scaling.shift,
        "scaling/factor": model.scaling.factor,
        "centroids": model.centroids,
        **named_leaves("params", model.params, "/"),
    }
    values = {}
    for name, value in (extra or {}).items():
        if not isinstance(name, str):
            raise ValueError(f"extra: expected texts for names, got {shown(name)}")
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "biuf":
                raise ValueError(
                    f"model: expected a numeric array in {name}, got dtype {value.dtype}"
                )
            arrays[f"extra/{name}"] = value
        else:
            values[name] = value
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    header = {
        "format": _FORMAT,
        "config": model.config.to_dict(),
        "feature_names": model.feature_names,
        "network": None if model.network is None else describe(model.network),
        "has_decoder": model.has_decoder,
        "extra": values,
        "arrays": list(arrays),
    }
    try:
        text = json.dumps(header)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"model: expected arrays or JSON values in extra, got an error: {error}"
        ) from error
    try:
        with atomic_write(path) as file:
            write_npz(file, {"header": np.array(text)} | arrays)
    except OSError as error:
        raise ValueError(f"model: cannot write {path}: {error.strerror}") from error


def load_model(path: str | Path, *, network: Any = None) -> tuple[Model, dict[str, Any]]:
    """Read a model from a file that :func:`save_model` wrote.

    Args:
        path: The .npz file.
        network: The autoencoder of a model that was trained with one that is not built in.

    Returns:
        The model, and what was kept with it.

    Raises:
        ValueError: If the file is missing, damaged, or not a model, or holds parameters of another
            tree or shape than those of the network.
    """
    path = as_path("path", path)
    damaged = "is damaged or not a jdec model"
    try:
        arrays = read_npz(path, compressed=False)
        header = _read_header(arrays.pop("header", None))
    except FileNotFoundError:
        raise ValueError(f"model: no file {path}; fit one first") from None
    except Exception as error:  # whatever a damaged file makes of its reader
        raise ValueError(f"model: {path} {damaged}: {in_a_line(error)}") from error
    if header.get("network") is not None and network is None:
        raise ValueError(
            f"model: {path} was trained with a network that is not built in, "
            f"{in_a_line(header['network'])[:200]}; pass it as network="
        )
    try:
        model = _assemble(header, arrays, network)
    except Exception as error:  # whatever a damaged file makes of its reader
        reason = damaged if network is None else "does not fit the network it is loaded with"
        raise ValueError(f"model: {path} {reason}: {in_a_line(error)}") from error
    kept = [name for name in arrays if name.startswith("extra/")]
    return model, header["extra"] | {name.removeprefix("extra/"): arrays[name] for name in kept}


def _read_header(array: np.ndarray | None) -> dict[str, Any]:
    if array is None or array.dtype.kind != "U" or array.ndim:
        raise ValueError("expected a text named header")
    header = parse_json(str(array))
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ValueError(f"expected a header of format {_FORMAT!r}")
    for name, kind in (("config", dict), ("extra", dict), ("arrays", list)):
        if not isinstance(header.get(name), kind):
            raise ValueError(f"expected {name} in the header, got {header.get(name)!r}")
    return header


def _assemble(header: Mapping[str, Any], arrays: Mapping[str, Any], network: Any) -> Model:
    """Make a model of its parts, if all of them are there and fit together."""
    expected, got = set(header["arrays"]), set(arrays)
    if expected != got:
        raise ValueError(
            f"missing arrays: {', '.join(sorted(expected - got)) or 'none'}; "
            f"unexpected arrays: {', '.join(sorted(got - expected)) or 'none'}"
        )
    given: dict[str, Any] = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or not array.dtype.isnative:
            raise ValueError(f"expected numbers in {name}, got dtype {array.dtype}")
        kind, _, rest = name.partition("/")
        if kind == "params":
            given[f"params.{rest.replace('/', '.')}"] = array
        elif kind != "extra" and name not in ("centroids", "scaling/shift", "scaling/factor"):
            raise ValueError(f"unexpected array: {name}")
    config = Config.from_dict(header["config"])
    if network is not None:
        network = as_autoencoder(network, arrays["scaling/shift"].size)
    model = Model(
        Scaling(arrays["scaling/shift"], arrays["scaling/factor"]),
        given,
        arrays["centroids"],
        config,
        network=network,
        has_decoder=bool(header.get("has_decoder")),
    )
    model = with_params(model, given)
    check_arrays(model)
    return model._replace(
        feature_names=check_feature_names(header.get("feature_names"), model.scaling.shift[None, :])
    )
