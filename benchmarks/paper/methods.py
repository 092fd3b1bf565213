"""The methods of Tables 2 and 3: each takes a laboratory and a cell, and returns labels."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.cluster import KMeans

from benchmarks.paper.cells import Cell, Laboratory, Outcome
from jdec.baselines import LDMGI, SEC
from jdec.baselines.spectral import nearest_neighbors
from jdec.core.kmeans import kmeans

#: Restarts of k-means, as in the paper.
RESTARTS = 20
_NEIGHBORS = 5

#: Method to the name and the nine values of the hyper-parameter that the paper's protocol sweeps.
SWEEPS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "DEC": ("update_interval", tuple(10 * 2**i for i in range(9))),
    "LDMGI": ("regularization", tuple(10.0**i for i in range(-8, 9, 2))),
    "SEC": ("mu", tuple(10.0**i for i in range(-8, 9, 2))),
}


def sweep(method: str) -> tuple[str, tuple[float, ...]]:
    """Return the hyper-parameter of a method, with or without ``AE +``, and its nine values."""
    return SWEEPS.get(method.removeprefix("AE + "), ("", ()))


def _kmeans_scikit_learn(laboratory: Laboratory, cell: Cell, *, embed: bool) -> Outcome:
    rows = _rows(laboratory, cell, embed)
    n_clusters = laboratory.config(cell).n_clusters
    model = KMeans(n_clusters, n_init=RESTARTS, random_state=cell.seed).fit(rows)
    return Outcome(model.labels_, {"inertia": float(model.inertia_)})


def _kmeans_jdec(laboratory: Laboratory, cell: Cell, *, embed: bool) -> Outcome:
    rows = jnp.asarray(_rows(laboratory, cell, embed))
    compiled = jax.jit(kmeans, static_argnames=("n_clusters", "n_init"))
    n_clusters = laboratory.config(cell).n_clusters
    result = compiled(jax.random.key(cell.seed), rows, n_clusters, n_init=RESTARTS)
    return Outcome(np.asarray(result.labels), {"inertia": float(result.inertia)})


def _spectral(
    laboratory: Laboratory, cell: Cell, *, estimator: type[LDMGI] | type[SEC], embed: bool
) -> Outcome:
    rows = _rows(laboratory, cell, embed)
    setting: dict[str, Any] = dict([cell.setting]) if cell.setting else {}
    n_clusters = laboratory.config(cell).n_clusters
    model = estimator(n_clusters, n_neighbors=_NEIGHBORS, random_state=cell.seed, **setting)
    model.fit(rows, neighbors=_neighbors(laboratory, cell, rows, embed))
    return Outcome(model.labels_, {"estimator": model.get_params()})


def _neighbors(laboratory: Laboratory, cell: Cell, rows: np.ndarray, embed: bool) -> np.ndarray:
    """Find the neighbours, shared by all values of the sweep, or read them from the cache."""
    basis = Cell(cell.rows, "AE" if embed else "raw", cell.preset, cell.seed if embed else 0)
    path = laboratory.out / "neighbors" / f"{laboratory.identity(basis)}.npy"
    if path.exists():
        return np.load(path)
    neighbors = nearest_neighbors(rows, _NEIGHBORS + 1)  # the row itself counted
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npy")
    np.save(temporary, neighbors)
    temporary.replace(path)
    return neighbors


def _dec(laboratory: Laboratory, cell: Cell) -> Outcome:
    result = laboratory.fit(cell)
    config = laboratory.config(cell)
    pretrained = laboratory.pretrained(cell.rows, cell.preset, cell.seed)
    return Outcome(
        result.labels,
        {
            "stop_reason": result.stop_reason,
            "n_intervals": result.n_intervals,
            "steps": result.n_intervals * config.clustering.update_interval,
            "label_changes": [r["label_change"] for r in result.history if "label_change" in r],
            "seconds_by_phase": {
                name: round(value, 2)
                for name, value in (pretrained.seconds | result.seconds).items()
            },
        },
    )


def _initialisation(laboratory: Laboratory, cell: Cell) -> Outcome:
    result = laboratory.pretrained(cell.rows, cell.preset, cell.seed)
    return Outcome(np.asarray(result.initial.labels))


def _rows(laboratory: Laboratory, cell: Cell, embed: bool) -> np.ndarray:
    if embed:
        return laboratory.pretrained(cell.rows, cell.preset, cell.seed).embedding
    return laboratory.scaled(cell.rows, cell.preset)


#: Name in records and tables to the function that runs it.
METHODS: Mapping[str, Callable[[Laboratory, Cell], Outcome]] = {
    "k-means": partial(_kmeans_jdec, embed=False),
    "k-means (scikit-learn)": partial(_kmeans_scikit_learn, embed=False),
    "LDMGI": partial(_spectral, estimator=LDMGI, embed=False),
    "SEC": partial(_spectral, estimator=SEC, embed=False),
    "AE + k-means": partial(_kmeans_jdec, embed=True),
    "AE + k-means (scikit-learn)": partial(_kmeans_scikit_learn, embed=True),
    "AE + LDMGI": partial(_spectral, estimator=LDMGI, embed=True),
    "AE + SEC": partial(_spectral, estimator=SEC, embed=True),
    "DEC initialisation": _initialisation,
    "DEC, encoder frozen": _dec,
    "DEC": _dec,
}
