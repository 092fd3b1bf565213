"""The suite of bench_quality: jdec beside what one would pick instead, on several data sets.

Each method runs as a process from cold: importing and loading are in its seconds. Programs that JAX
and Numba keep on disk are there from a start before, which is not timed. Labels only score.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import sklearn.datasets

from benchmarks.bench_peers import run_once, write_task
from benchmarks.peers import PEERS, Task
from benchmarks.records import append_record, parse_seeds
from jdec.datasets import Dataset, load_dataset

JDEC = "jdec fast"
#: Method to its group of peers; jdec is not a peer, but the whole command.
METHODS = {
    JDEC: "",
    "k-means": "alternatives",
    "PCA + k-means": "alternatives",
    "UMAP + k-means": "alternatives",
    "UMAP + HDBSCAN": "alternatives",
    "EVoC": "alternatives",
    "ClustPy DEC": "fit",
}
#: ClustPy's DEC takes an hour for more rows.
MAX_CLUSTPY_ROWS = 15_000


@dataclass(frozen=True)
class File:
    """A data set that jdec does not know by name."""

    path: str  # in the folder for data
    read: Callable[[Path], tuple[np.ndarray, np.ndarray]]


def read_cells(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read counts, log-normalised to 10 000 a cell as is usual, and cell types."""
    import h5py

    with h5py.File(path) as file:
        counts, y = np.asarray(file["X"], np.float64), np.asarray(file["Y"])
    return np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)).astype(np.float32), y


def read_texts(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read embeddings of sentences, float16, and their topics."""
    with np.load(path, allow_pickle=False) as file:
        return file["x"].astype(np.float32), file["y"]


FILES = {
    "scrna": File("scrna/10X_PBMC_top2000.h5", read_cells),
    "searchsnippets": File("text/searchsnippets_minilm.npz", read_texts),
}
#: On these the recipe of ``fast`` may be chosen.
SETS = ("digits", "pendigits", "mnist", "fashion_mnist", "reuters10k", *FILES)
#: So few rows that a network has little to learn from; of scikit-learn, and not chosen on.
TINY = ("iris", "wine", "breast_cancer")


def name_of_set(text: str) -> str:
    """Return the name of a data set of the suite, or the path of a file with rows and classes."""
    if text not in (*SETS, *TINY) and not Path(text).is_file():
        raise argparse.ArgumentTypeError(
            f"expected a file or one of {', '.join((*SETS, *TINY))}; got {text}"
        )
    return text


def run_suite(
    names: Sequence[str],
    seeds: Sequence[int],
    methods: Sequence[str],
    measure: Callable[..., dict[str, Any]],
    options: list[str],
    *,
    smoke: bool,
) -> None:
    """Run methods on data sets, and record each data set and seed.

    ``measure`` is that of :mod:`benchmarks.bench_quality`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # All of them before any work, since one may be missing.
        for name, data in [(name, _data(name, folder)) for name in names]:
            dataset = load_dataset(data)
            shape, n_clusters = dataset.x.shape, len(set(np.asarray(dataset.y).tolist()))
            for seed in seeds:
                task = Task("", data, 300 if smoke else 0, (shape[1], 500, 500, 2000, 10))
                found: dict[str, dict[str, Any]] = {}
                for method in methods:
                    if method == JDEC:
                        more = [*options, "--n-clusters", str(n_clusters)]
                        if seed == seeds[0] and not smoke:
                            measure(data, "fast", seed, more, folder)
                        found[method] = _of_command(measure(data, "fast", seed, more, folder))
                    elif method != "ClustPy DEC" or shape[0] <= MAX_CLUSTPY_ROWS:
                        found[method] = _of_peer(method, task, n_clusters, seed, folder)
                    outcome = found.get(method, {"absent": "not run: too many rows"})
                    print(f"{name}, seed {seed}, {method}: {outcome}", file=sys.stderr)
                label = Path(name).stem  # of files
                figures = {"dataset": label, "shape": shape, "n_clusters": n_clusters, "seed": seed}
                append_record("suite", figures | {"methods": found}, smoke=smoke)


def run_on_sets(
    what: str,
    description: str | None,
    measure: Callable[[Dataset, int, bool], dict[str, Any]],
) -> None:
    """Parse ``--sets``, ``--seeds`` and ``--smoke``; measure and record each set and seed."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--seeds", type=parse_seeds, default=[0, 1, 2])
    parser.add_argument("--smoke", action="store_true", help="a short run, nothing recorded")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.sets:
            dataset = load_set(name, Path(folder))
            for seed in arguments.seeds:
                figures = measure(dataset, seed, arguments.smoke)
                jax.clear_caches()  # of hundreds of programs, which XLA would hold until it crashes
                print(f"{name}, seed {seed}: {figures}", file=sys.stderr)
                figures = {"dataset": name, "seed": seed, **figures}
                append_record(what, figures, smoke=arguments.smoke)


def load_set(name: str, folder: Path) -> Dataset:
    """Load a data set of the suite; one that jdec does not know is written to a folder first."""
    return load_dataset(_data(name, folder))


def _data(name: str, folder: Path) -> str:
    """Return what jdec loads the data set by: its name, or a file made here."""
    if name in TINY:
        x, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
        return _written(folder / f"{name}.npz", x.astype(np.float32), y)
    if name not in FILES:  # one that jdec knows, or a path
        return name
    source = Path(os.environ.get("JDEC_DATA_DIR", "")) / FILES[name].path
    if not source.is_file():
        raise SystemExit(f"{name}: expected {FILES[name].path} in $JDEC_DATA_DIR, got no such file")
    return _written(folder / f"{name}.npz", *FILES[name].read(source))


def _written(path: Path, x: np.ndarray, y: np.ndarray) -> str:
    np.savez(path, x=x, y=y)
    return str(path)


def _of_command(figures: dict[str, Any]) -> dict[str, Any]:
    names = ("stop_reason", "n_intervals")
    return {
        "scores": figures["scores"]["DEC"],
        "start": figures["scores"]["DEC initialisation"],
        "seconds": figures["wall_seconds"],
        "n_found": figures["n_found"],
        "compilation": figures["compilation"],
        **{name: figures[name] for name in names},
    }


def _of_peer(method: str, task: Task, n_clusters: int, seed: int, folder: Path) -> dict[str, Any]:
    group = METHODS[method]
    values = task.to_dict() | {"n_clusters": n_clusters, "seed": seed, "n_init": 10}
    task_file = write_task(Task.from_dict(values), folder)
    began = time.perf_counter()
    figures = run_once(group, method, PEERS[group][method], task_file, task.threads)
    seconds = round(time.perf_counter() - began, 2)
    if "absent" in figures:
        return figures
    kept = ("scores", "n_found", "noise", "versions")
    return {"seconds": seconds, **{name: figures[name] for name in kept}}
