"""A trained model: assigns rows to clusters, and is kept in one file without pickles."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Shaped

from jdec._checks import (
    as_path,
    as_rows,
    check_feature_names,
    column_names,
    names_to_compare,
    shown,
)
from jdec._io import atomic_write, in_a_line, parse_json, read_npz
from jdec._typing import Params
from jdec.trainer.build import BLOCK_SIZE, assign_block
from jdec.trainer.config import Config
from jdec.trainer.scaling import Scaling

_FORMAT = "jdec model 1"


class Model(NamedTuple):
    """What assigns rows to clusters."""

    scaling: Scaling
    params: Params  # of the encoder, after the clustering phase
    centroids: Float[np.ndarray, "K Z"]
    config: Config
    feature_names: tuple[str, ...] | None = None  # of the columns it was trained on, if they had


def check_finite(model: Model) -> None:
    """Raise unless all numbers of a model are finite: a broken one would assign rows all the same.

    Raises:
        ValueError: Names the first array that holds NaN or infinity.
    """
    arrays = {"centroids": model.centroids, "scaling": model.scaling, "params": model.params}
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        values = np.asarray(leaf)
        # Compared, since not every dtype of a damaged model has an isfinite.
        if not (np.abs(values) < np.inf).all():
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(f"model: expected finite numbers in {name}, got NaN or infinity")


def align_columns(
    model: Model, feature_names: Sequence[str] | None, x: Shaped[np.ndarray, "N D"]
) -> Shaped[np.ndarray, "N D"]:
    """Return rows with their columns in the order that a model was trained on.

    Args:
        model: With or without names.
        feature_names: Of the columns of ``x``, or None where they are not known.
        x: Rows, [N D].

    Returns:
        ``x`` itself where the order is that of the model, or either has no names. Numbers from 0
        on are the places of columns without names, and mean nothing to one with names.

    Raises:
        ValueError: If the names are others than the model's.
    """
    names = names_to_compare(model.feature_names, feature_names)
    if names is None or names[0] == names[1]:
        return x
    mine, theirs = names
    missing = [repr(name) for name in dict.fromkeys(mine) if name not in theirs]
    unexpected = [repr(name) for name in dict.fromkeys(theirs) if name not in mine]
    if missing or unexpected:
        parts = (("missing", missing), ("unexpected", unexpected))
        told = "; ".join(f"{what}: {_few(names)}" for what, names in parts if names)
        raise ValueError(
            f"x: expected the columns that the model was trained on, {_few(list(mine))}; {told}"
        )
    if len(set(mine)) < len(mine) or len(mine) != len(theirs):
        raise ValueError(
            "x: expected the columns in the order that the model was trained on, since some share "
            f"a name: {_few(list(mine))}"
        )
    position = {name: index for index, name in enumerate(theirs)}
    return x[:, [position[name] for name in mine]]


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def assign(
    model: Model, x: Any, *, feature_names: Sequence[str] | None = None
) -> tuple[Float[np.ndarray, "N Z"], Float[np.ndarray, "N K"]]:
    """Embed rows and assign them to clusters, block by block.

    Blocks have one size whatever N is: nothing is compiled anew for another N, and a row's result
    does not depend on the rows around it.

    Args:
        model: From :func:`jdec.fit` or :func:`load_model`.
        x: Unscaled rows, [N D], numeric and finite.
        feature_names: Names of the columns of ``x``; those of a data frame by default. Where the
            model has names as well, columns in another order are put into the model's.

    Returns:
        Embeddings [N Z] and the soft assignment [N K].

    Raises:
        ValueError: For bad input, rows of another width or other columns than the model's, rows
            whose embedding is not finite, or a model with NaN.

    Source: Xie et al. 2016, Eq. 1.
    """
    if not isinstance(model, Model):
        raise ValueError(f"model: expected a jdec.Model, got {type(model).__name__}")
    names = check_feature_names(feature_names, x)
    check_form(model)
    check_finite(model)
    rows = as_rows("x", x, columns=names)
    x = align_columns(model, names or column_names(x, numbers=True), rows)
    params, centroids = jax.device_put((model.params, model.centroids))  # once for all blocks
    embeddings, assignments = [], []
    for start in range(0, len(x), BLOCK_SIZE):
        block = model.scaling.apply(x[start : start + BLOCK_SIZE], first_row=start)
        padded = np.zeros((BLOCK_SIZE, x.shape[1]), np.float32)
        padded[: len(block)] = block
        z, q = assign_block(params, centroids, padded, config=model.config)
        z, q = np.asarray(z)[: len(block)], np.asarray(q)[: len(block)]
        broken = ~(np.isfinite(z).all(axis=1) & np.isfinite(q).all(axis=1))
        if broken.any():
            raise ValueError(
                f"x: the embedding of row {start + int(np.argmax(broken))} is not finite; it is "
                "far from the rows that the model was trained on"
            )
        embeddings.append(z)
        assignments.append(q)
    return np.concatenate(embeddings), np.concatenate(assignments)


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
    if not isinstance(model, Model):
        raise ValueError(f"model: expected a jdec.Model, got {type(model).__name__}")
    path = as_path("path", path)
    if path.is_dir():
        raise ValueError(f"model: cannot write {path}: it is a folder")
    check_form(model)
    check_finite(model)
    if extra is not None and not isinstance(extra, Mapping):
        raise ValueError(f"extra: expected arrays or JSON values by name, got {shown(extra)}")
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
            np.savez(file, header=np.array(text), **arrays)
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
    path = as_path("path", path)
    try:
        arrays = read_npz(path, compressed=False)
        header = _read_header(arrays.pop("header", None))
        model = _assemble(header, arrays)
    except FileNotFoundError:
        raise ValueError(f"model: no file {path}; fit one first") from None
    except Exception as error:  # whatever a damaged file makes of its reader
        raise ValueError(
            f"model: {path} is damaged or not a jdec model: {in_a_line(error)}"
        ) from error
    kept = {name: array for name, array in arrays.items() if name.startswith("extra/")}
    return model, header["extra"] | {name.removeprefix("extra/"): kept[name] for name in kept}


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


def _assemble(header: Mapping[str, Any], arrays: Mapping[str, Any]) -> Model:
    """Make a model of its parts, if all of them are there and fit together."""
    expected, got = set(header["arrays"]), set(arrays)
    if expected != got:
        raise ValueError(
            f"missing arrays: {', '.join(sorted(expected - got)) or 'none'}; "
            f"unexpected arrays: {', '.join(sorted(got - expected)) or 'none'}"
        )
    params: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf" or not array.dtype.isnative:
            raise ValueError(f"expected numbers in {name}, got dtype {array.dtype}")
        kind, *rest = name.split("/", 2)
        if kind == "params":
            params.setdefault(rest[0], {})[rest[1]] = array
        elif kind != "extra" and name not in ("centroids", "scaling/shift", "scaling/factor"):
            raise ValueError(f"unexpected array: {name}")
    model = Model(
        Scaling(arrays["scaling/shift"], arrays["scaling/factor"]),
        params,
        arrays["centroids"],
        Config.from_dict(header["config"]),
    )
    _check_arrays(model)
    check_finite(model)
    return model._replace(
        feature_names=check_feature_names(header.get("feature_names"), model.scaling.shift[None, :])
    )


def check_form(model: Model) -> None:
    """Raise unless the parts of a model are what they should be, and fit together.

    Raises:
        ValueError: Names the first part that is of another type or shape than the configuration
            says, or of another dtype than ours.
    """
    try:
        _check_parts(model)
        _check_arrays(model)
        check_feature_names(model.feature_names, np.empty((1, len(model.scaling.shift))))
    except ValueError as error:
        raise ValueError(f"model: {error}") from error


def _check_parts(model: Model) -> None:
    parts = {"scaling": Scaling, "params": Mapping, "config": Config}
    for name, kind in parts.items():
        part = getattr(model, name)
        if not isinstance(part, kind):
            raise ValueError(f"expected a {kind.__name__} in {name}, got {shown(part)}")
    for name, layer in model.params.items():
        if not isinstance(layer, Mapping):
            raise ValueError(f"expected arrays by name in params.{name}, got {shown(layer)}")
    if not isinstance(model.centroids, np.ndarray | jax.Array):
        raise ValueError(f"expected an array in centroids, got {shown(model.centroids)}")


def _check_arrays(model: Model) -> None:
    """Raise unless the arrays have the shapes of the configuration, and our dtypes."""
    network = model.config.network
    n_layers = len(network.hidden_dims) + 1
    if len(model.params) != n_layers:
        raise ValueError(f"expected {n_layers} layers in params, got {len(model.params)}")
    dims = (np.size(model.scaling.shift), *network.hidden_dims, network.latent_dim)
    shapes: dict[str, tuple[int, ...]] = {
        "centroids": (model.config.n_clusters, network.latent_dim)
    }
    shapes |= {"scaling.shift": dims[:1], "scaling.factor": dims[:1]}
    for layer, widths in enumerate(pairwise(dims)):
        shapes[f"params.encoder_{layer}.kernel"] = widths
        shapes[f"params.encoder_{layer}.bias"] = widths[1:]
    tree = {"centroids": model.centroids, "scaling": model.scaling, "params": model.params}
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    for name in dict.fromkeys([*shapes, *leaves]):
        if name not in leaves or name not in shapes:
            raise ValueError(f"{'missing' if name in shapes else 'unexpected'} array: {name}")
        if not isinstance(leaves[name], np.ndarray | np.generic | jax.Array):
            raise ValueError(f"expected an array in {name}, got {shown(leaves[name])}")
        if np.shape(leaves[name]) != shapes[name]:
            raise ValueError(
                f"expected shape {shapes[name]} in {name}, got {np.shape(leaves[name])}"
            )
        dtypes = ("float32", "float64") if name.startswith("scaling") else ("float32",)
        if str(leaves[name].dtype) not in dtypes:
            raise ValueError(f"expected {' or '.join(dtypes)} in {name}, got {leaves[name].dtype}")
