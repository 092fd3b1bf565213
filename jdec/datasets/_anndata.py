"""Annotated matrices in .h5ad files: the only module that imports anndata."""

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from jdec._archives import unpacked_limit
from jdec._files import MAX_SPARSE_COLUMNS, Table, reading
from jdec._sources import as_source, copy_stored, is_stored
from jdec.datasets._roles import Choice, as_text, choose_roles, default_label

_PARTS = ("X", "obs", "var")


def read_anndata(path: Path, choice: Choice) -> Table:
    """Read ``X``, dense or sparse; the label is a column of ``obs``, and the ids its index.

    The features are called as the index of ``var``. Nothing else is read.
    """
    x, obs, genes = _read(path)
    columns = [str(name) for name in obs.columns]
    if choice.label is None:
        found = default_label(path, columns, range(len(columns)))
        choice = choice._replace(label="" if found is None else columns[found])
    names, n_genes = [*genes, *columns], len(genes)
    roles = choose_roles(path, names, choice, skip=range(n_genes, len(names)))
    for option, place in (("label", roles.label), ("id", roles.id)):
        if place is not None and place < n_genes:
            raise ValueError(
                f"{path}: {option}: expected a column of obs, {', '.join(columns) or 'if any'}; "
                f"got {names[place]!r}, a column of X"
            )
    if scipy.sparse.issparse(x):
        x = as_source(str(path), x, columns=genes).matrix  # type: ignore[attr-defined]
    if len(roles.features) < n_genes:
        x = x[:, np.array(roles.features)]
    label_name = None if roles.label is None else names[roles.label]
    id_name = "obs_names" if roles.id is None else names[roles.id]
    ids = obs.index if roles.id is None else obs[id_name]
    return Table(
        x,
        None if label_name is None else obs[label_name].to_numpy(object),
        label_name,
        tuple(genes[place] for place in roles.features),
        as_text(path, id_name, [str(value) for value in ids]),
    )


def _read(path: Path) -> tuple[Any, Any, list[str]]:
    """Return the matrix, what is known of its rows, and the names of its columns."""
    try:
        parts = ("anndata", "anndata.io", "h5py")
        _, anndata, h5py = (importlib.import_module(name) for name in parts)
    except ImportError as error:
        raise ImportError(f'{path}: .h5ad needs anndata: pip install "jdec[anndata]"') from error
    with (
        reading(path, "an intact .h5ad file"),
        warnings.catch_warnings(action="ignore"),  # of older files
        h5py.File(path) as file,
    ):
        if missing := [name for name in _PARTS if name not in file]:
            raise ValueError(f"it has no {', '.join(missing)}")
        _check_size(path, file, h5py)
        obs, var = anndata.read_elem(file["obs"]), anndata.read_elem(file["var"])
        x = file["X"]
        x = copy_stored(x) if is_stored(x) else anndata.read_elem(x)
        genes = [str(name) for name in var.index]
        if x.shape != (len(obs), len(genes)):
            raise ValueError(f"X has the shape {x.shape}, of {len(obs)} rows in obs")
        if scipy.sparse.issparse(x) and x.shape[1] > MAX_SPARSE_COLUMNS:
            raise ValueError(f"X has {x.shape[1]} columns, more than {MAX_SPARSE_COLUMNS}")
    return x, obs, genes


def _check_size(path: Path, file: Any, h5py: Any) -> None:
    n_bytes = 0

    def add(_: str, item: Any) -> None:
        nonlocal n_bytes
        n_bytes += item.nbytes if isinstance(item, h5py.Dataset) else 0

    for name in _PARTS:
        add(name, file[name])
        if isinstance(file[name], h5py.Group):
            file[name].visititems(add)
    size = path.stat().st_size
    if n_bytes > unpacked_limit(size):
        raise ValueError(f"it unpacks to {n_bytes} bytes from {size}")
