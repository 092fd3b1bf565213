"""Rows that stay on the host: steps and refresh beside resident rows, and whole fits of large ones.

    python -m benchmarks.bench_streaming                            # steps and refresh
    python -m benchmarks.bench_streaming --fit reuters              # 685 071 × 2000, sparse
    python -m benchmarks.bench_streaming --fit rows --memory 2      # 10⁷ × 64, memory-mapped

Steps: of `fast`, the same ones on resident and on streamed rows in turn, after warm-up; the ratio
is the median of those of neighbours in time. The dense rows are a memory-mapped file in the page
cache, 70 000 × 784; the sparse ones have the shape and density of RCV1's 2000 stems. Refresh: the
sweep over a memory-mapped file beside reading the same file, block by block, with nothing done to
it.

Whole fits are processes of their own, whose peak of resident memory is recorded. ``--memory``
limits what they can allocate (RLIMIT_DATA, in GiB): files that are mapped do not count. The rows of
``reuters`` are the 23 428 single-root documents of ``rcv1_4root.npz`` in the folder for data, on
its 2000 most frequent stems, each repeated until there are 685 071, with 15 % noise on the numbers
that are not 0; those of ``rows`` are normal clusters.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.sparse

from benchmarks.records import append_record
from jdec.core.autoencoder import encoder_params
from jdec.core.targets import DECParams
from jdec.metrics import clustering_scores
from jdec.trainer import programs, streaming
from jdec.trainer.fit import fit
from jdec.trainer.presets import preset_config
from jdec.trainer.programs import Plan, build_network, init_stage, pretraining_stages
from jdec.trainer.rows import own_rows
from jdec.trainer.scaling import fit_scaling
from jdec.trainer.sharding import RowSharding
from jdec.trainer.streamed_rows import StreamedRows

_N_REUTERS, _N_STEMS = 685_071, 2000
_DENSITY = 0.027  # of RCV1's 2000 most frequent stems


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fit", choices=list(SOURCES), help="a whole fit of these rows")
    parser.add_argument("--n-rows", type=int, help="how many of them")
    parser.add_argument("--memory", type=float, help="limit of what it may allocate, in GiB")
    parser.add_argument("--placement", choices=["auto", "device", "stream"], default="stream")
    parser.add_argument("--folder", type=Path, help="where the rows are written to")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--smoke", action="store_true", help="small sizes, nothing recorded")
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(fit_rows(arguments)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.fit:
            figures = measure_fit(arguments, Path(folder))
            append_record("streaming", figures, smoke=arguments.smoke)
            return
        for kind in ("dense", "sparse"):
            figures = measure_steps(kind, Path(folder), smoke=arguments.smoke)
            append_record("streaming", figures, smoke=arguments.smoke)
        for cold in (True, False):
            figures = measure_refresh(Path(folder), cold=cold, smoke=arguments.smoke)
            append_record("streaming", figures, smoke=arguments.smoke)


def dense_rows(folder: Path, n_rows: int, n_features: int) -> np.ndarray:
    """Write rows block by block, and return them as a memory-mapped file."""
    path = folder / "rows.npy"
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, n_features))
    for start in range(0, n_rows, 2**16):
        part = rows[start : start + 2**16]
        part[...] = np.random.default_rng(start).standard_normal(part.shape, np.float32)
    rows.flush()
    return np.load(path, mmap_mode="r")


def measure_steps(kind: str, folder: Path, *, smoke: bool) -> dict[str, Any]:
    """Compare steps of pretraining and self-training on resident and on streamed rows."""
    n_rows, n_steps, repeats = (2000, 20, 2) if smoke else (70_000, 300, 15)
    if kind == "dense":
        rows: Any = dense_rows(folder, n_rows, 784)
    else:
        shape = (n_rows, _N_STEMS)
        rows = scipy.sparse.random_array(
            shape, density=_DENSITY, format="csr", dtype=np.float32, rng=np.random.default_rng(0)
        )
    config = preset_config("fast", n_clusters=10, n_rows=n_rows)
    config = config.replace({"clustering.update_interval": n_steps})
    plan = Plan(config, build_network(config), RowSharding(n_rows))
    source = own_rows("x", rows).rows
    width = source.shape[1]
    scaling = fit_scaling(source)
    streamed = StreamedRows(source, scaling)
    resident = jax.numpy.asarray(scaling.apply(source))
    placed: dict[str, tuple[Any, Any]] = {"resident": (programs, resident)}
    placed |= {"streamed": (streaming, streamed)}
    key, found = jax.random.key(0), {}
    for phase in ("pretraining", "self-training"):
        calls = {
            name: _calls(phase, *module_and_rows, plan, key, n_steps)
            for name, module_and_rows in placed.items()
        }
        seconds = _in_turn(calls, repeats)
        rates = {name: n_steps / statistics.median(each) for name, each in seconds.items()}
        found[phase] = {
            "steps_per_second": {name: float(f"{rate:.4g}") for name, rate in rates.items()},
            "ratio": round(_ratio(seconds["resident"], seconds["streamed"]), 3),
            "seconds": {name: [round(s, 4) for s in each] for name, each in seconds.items()},
        }
    hidden = [*config.network.hidden_dims, config.network.latent_dim]
    return {"figure": "steps", "kind": kind, "shape": [n_rows, width], "network": hidden} | found


def _calls(
    phase: str, module: Any, x: Any, plan: Plan, key: Any, n_steps: int
) -> Callable[[], None]:
    """Return a function that runs some steps and waits for them."""
    params = plan.network.init(key, x.shape[1])
    if phase == "pretraining":
        stage = pretraining_stages(plan.config, plan.network)[-1]
        state = init_stage(params, plan=plan, stage=stage)
        options: Any = {"plan": plan, "stage": stage, "n_rows": plan.rows.n_rows}

        def pretrain() -> None:
            nonlocal state
            state, losses, _ = module.pretrain_steps(key, state, x, 0, n_steps=n_steps, **options)
            jax.block_until_ready((state, losses))

        return pretrain
    encoder = encoder_params(plan.network, params)
    centroids = jax.random.normal(key, (plan.config.n_clusters, plan.config.network.latent_dim))
    of_dec = programs.init_state(encoder, centroids, plan=plan)
    labels = np.full(plan.rows.n_rows, -1, np.int32)
    targets, _ = module.refresh(of_dec.params, labels, x, plan=plan)

    def train() -> None:
        nonlocal of_dec
        of_dec, losses = module.train(key, of_dec, targets, x, plan=plan)
        jax.block_until_ready((of_dec, losses))

    return train


def _ratio(seconds: list[float], of_others: list[float]) -> float:
    """Return the median of the ratios of neighbours in time: machines are slow for a while."""
    return statistics.median(a / b for a, b in zip(seconds, of_others, strict=True))


def _in_turn(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Time functions one after another, again and again, after a call of each."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def measure_refresh(folder: Path, *, cold: bool, smoke: bool) -> dict[str, Any]:
    """Compare the refresh of a memory-mapped file with reading it, by a small encoder."""
    n_rows, n_features, repeats = (4000, 64, 2) if smoke else (4_000_000, 64, 5)
    rows = dense_rows(folder, n_rows, n_features)
    config = preset_config("fast", n_clusters=4, n_rows=n_rows)
    config = config.replace({"network.hidden_dims": [], "network.latent_dim": 4})
    plan = Plan(config, build_network(config), RowSharding(n_rows))
    params = encoder_params(plan.network, plan.network.init(jax.random.key(0), n_features))
    centroids = jax.random.normal(jax.random.key(1), (4, 4))
    scaling = fit_scaling(rows)
    labels, buffer = np.full(n_rows, -1, np.int32), np.empty((2**16, n_features), np.float32)
    path, n_bytes = folder / "rows.npy", rows.nbytes
    del rows

    def mapped() -> np.ndarray:
        if cold:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return np.load(path, mmap_mode="r")

    def sweep() -> None:
        streamed = StreamedRows(mapped(), scaling)
        jax.block_until_ready(
            streaming.refresh(DECParams(params, centroids), labels, streamed, plan=plan)[0].kl
        )

    def read() -> None:
        rows = mapped()
        for start in range(0, n_rows, len(buffer)):
            part = rows[start : start + len(buffer)]
            np.copyto(buffer[: len(part)], part)

    seconds = _in_turn({"refresh": sweep, "reading": read}, repeats)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    return {
        "figure": "refresh",
        "kind": "from the disk" if cold else "in the page cache",
        "shape": [n_rows, n_features],
        "network": [4],
        "gigabytes_per_second": {
            name: float(f"{n_bytes / 1e9 / each:.3g}") for name, each in medians.items()
        },
        "ratio": round(medians["reading"] / medians["refresh"], 3),
    }


def reuters_rows(folder: Path, n_rows: int) -> tuple[Any, np.ndarray]:
    """Return rows of RCV1's shape and density and their classes, memory-mapped."""
    paths = {name: folder / f"{name}.npy" for name in ("data", "indices", "indptr", "y")}
    if not paths["y"].exists():
        source = Path(os.environ["JDEC_DATA_DIR"]) / "reuters" / "rcv1_4root.npz"
        with np.load(source, allow_pickle=False) as file:
            parts = (file["data"], file["indices"], file["indptr"])
            x, y = scipy.sparse.csr_array(parts, shape=tuple(file["shape"])), file["y"]
        frequent = np.argsort(-np.bincount(x.indices, minlength=x.shape[1]), kind="stable")
        x = scipy.sparse.csr_array(x[:, np.sort(frequent[:_N_STEMS])], dtype=np.float32)
        rng = np.random.default_rng(0)
        chosen = np.concatenate([np.arange(len(y)), rng.integers(0, len(y), n_rows)])[:n_rows]
        x, y = x[chosen], np.unique(y, return_inverse=True)[1][chosen]
        x.data *= rng.normal(1, 0.15, len(x.data)).astype(np.float32)
        for name, array in (("data", x.data), ("indices", x.indices), ("indptr", x.indptr)):
            np.save(paths[name], array)
        np.save(paths["y"], y)
    read = {name: np.load(path, mmap_mode="r") for name, path in paths.items()}
    parts = (read["data"], read["indices"], read["indptr"])
    return scipy.sparse.csr_array(parts, shape=(n_rows, _N_STEMS)), read["y"]


def cluster_rows(folder: Path, n_rows: int) -> tuple[Any, np.ndarray]:
    """Return normal clusters of 64 numbers a row, memory-mapped, and which row is of which."""
    path, of_rows = folder / "x.npy", folder / "y.npy"
    if not of_rows.exists():
        centers = np.random.default_rng(0).normal(0, 1, (10, 64)).astype(np.float32)
        x = np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, 64))
        y = np.lib.format.open_memmap(of_rows, "w+", np.int8, (n_rows,))
        for start in range(0, n_rows, 2**16):
            rng, part = np.random.default_rng(start), x[start : start + 2**16]
            y[start : start + 2**16] = rng.integers(0, 10, len(part))
            part[...] = centers[y[start : start + 2**16]]
            part += rng.standard_normal(part.shape, np.float32)
    return np.load(path, mmap_mode="r"), np.load(of_rows, mmap_mode="r")


#: Rows to what makes or reads them, how many there are, and the number of clusters.
SOURCES: dict[str, tuple[Callable[[Path, int], tuple[Any, np.ndarray]], int, int]] = {
    "reuters": (reuters_rows, _N_REUTERS, 4),
    "rows": (cluster_rows, 10_000_000, 10),
}


def measure_fit(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fit rows in a process of its own, perhaps with little memory."""
    make, n_rows, _ = SOURCES[arguments.fit]
    n_rows = 3000 if arguments.smoke else arguments.n_rows or n_rows
    make(folder, n_rows)
    command = [sys.executable, "-m", "benchmarks.bench_streaming", "--worker"]
    command += ["--fit", arguments.fit, "--n-rows", str(n_rows), "--folder", str(folder)]
    command += ["--placement", arguments.placement, *(["--smoke"] if arguments.smoke else [])]
    if arguments.memory:
        command += ["--memory", str(arguments.memory)]
    began = time.perf_counter()
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1]) | {
        "process_seconds": round(time.perf_counter() - began, 1)
    }


def fit_rows(arguments: argparse.Namespace) -> dict[str, Any]:
    """Fit the rows of a folder, and return what it took."""
    unlimited = resource.getrlimit(resource.RLIMIT_DATA)
    if arguments.memory:
        limit = int(arguments.memory * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, unlimited[1]))
    read, _, n_clusters = SOURCES[arguments.fit]
    x, y = read(arguments.folder, arguments.n_rows)
    config = preset_config("fast", n_clusters=n_clusters, n_rows=arguments.n_rows)
    if arguments.fit == "rows":
        config = config.replace(
            {
                "network.hidden_dims": [128, 128, 256],
                "pretrain.finetune_steps": 1000,
                "clustering.max_intervals": 3,
            }
        )
    if arguments.smoke:
        config = config.replace({"pretrain.finetune_steps": 20, "graph.n_init": 1})
    result = fit(jax.random.key(0), x, config, rows=arguments.placement)
    resource.setrlimit(resource.RLIMIT_DATA, unlimited)  # scoring is no part of the fit
    y = np.asarray(y)
    scores = clustering_scores(y, result.labels)
    status = Path("/proc/self/status").read_text()
    sizes = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if "kB" in line}
    return {
        "figure": "fit",
        "rows": arguments.fit,
        "placement": arguments.placement,
        "shape": list(x.shape),
        "gigabytes": round(_n_bytes(x) / 1e9, 3),
        "memory_limit_gib": arguments.memory,
        "peak_resident_gib": round(int(sizes["VmHWM"]) / 2**20, 3),
        "resident_gib_at_the_end": {
            name: round(int(sizes[name]) / 2**20, 3) for name in ("RssAnon", "RssFile")
        },
        "scores": {name: round(value, 4) for name, value in scores.items()},
        "start": round(clustering_scores(y, result.initial.labels)["acc"], 4),
        "n_intervals": result.n_intervals,
        "seconds": {name: round(value, 1) for name, value in result.seconds.items()},
    }


def _n_bytes(x: Any) -> int:
    parts = (x.data, x.indices, x.indptr) if scipy.sparse.issparse(x) else (x,)
    return sum(part.nbytes for part in parts)


if __name__ == "__main__":
    main()
