"""jdec against other ways to do the same: on the same data, with the same threads, in turns.

    pip install 'jdec[bench]'
    python -m benchmarks.bench_peers                         # all groups, MNIST
    python -m benchmarks.bench_peers --groups steps          # or fit, alternatives
    python -m benchmarks.bench_peers --groups fit --rows 10000

Group ``steps``: seconds of a pretraining step and of a clustering step, the latter with its share
of the refresh of P from all rows; network 784-500-500-2000-10, SGD with momentum 0.9, batch 256.
Opponents are loops written by hand in PyTorch (on resident tensors, eager and compiled: the faster
of the two counts as the strongest; and with a DataLoader) and a plain DEC in Keras 3 on two
backends. Group ``fit``: a whole fit from loading to labels at equal steps, against ClustPy's DEC,
Adam in both. Group ``alternatives``: preset ``fast`` against what a user would pick instead, time
and scores. Compiling counts in whole fits, importing does not.

Each peer runs in a process of its own, one after another, in rounds that go there and back. A ratio
is the median over rounds of seconds of the peer by seconds of jdec in the same round. A peer that
cannot be imported or fails is recorded as absent, with the reason. CPU alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.peers import JDEC, PEERS, STRONGEST, Peer, Task
from benchmarks.peers.fits import load_rows, scaled
from benchmarks.records import append_record

#: What is compared in each group, in seconds.
FIGURES = {
    "steps": ("pretrain_step", "cluster_step", "refresh"),
    "fit": ("seconds",),
    "alternatives": ("seconds",),
}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--groups", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--rows", type=int, default=0, help="leading rows alone; 0 for all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5, help="of each step loop in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, nargs=2, default=[15, 15], metavar=("PRE", "KL"))
    parser.add_argument("--smoke", action="store_true", help="small sizes, nothing recorded")
    arguments = parser.parse_args()
    # The record names the device that the peers ran on.
    jax.config.update("jax_platforms", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        task = make_task(Path(folder), arguments)
        for group in arguments.groups:
            rounds = 1 if arguments.smoke else arguments.rounds
            runs = run_rounds(group, task, rounds, Path(folder))
            figures = {
                "group": group,
                "dataset": task.dataset,
                "rounds": rounds,
                "task": {name: v for name, v in task.to_dict().items() if name != "rows_file"},
                "peers": runs,
                "ratios": ratios(runs, FIGURES[group]),
            }
            append_record("peers", figures, smoke=arguments.smoke)


def make_task(folder: Path, arguments: argparse.Namespace) -> Task:
    """Write the rows that the step loops share, and return the task."""
    hidden_dims: tuple[int, ...] = (500, 500, 2000)
    data, n_rows, sizes = arguments.data, arguments.rows, {"repeats": arguments.repeats}
    sizes |= {"pretrain_epochs": arguments.epochs[0], "cluster_epochs": arguments.epochs[1]}
    if arguments.smoke:
        data, n_rows, hidden_dims = "digits", 600, (16,)
        sizes = {"repeats": 1, "pretrain_steps": 2, "update_interval": 2, "n_init": 1}
        sizes |= {"pretrain_epochs": 1, "cluster_epochs": 1}
    task = Task(str(folder / "rows.npy"), data, n_rows, (), threads=arguments.threads)
    dataset = load_rows(task)
    np.save(task.rows_file, scaled(dataset.x))
    dims = (dataset.x.shape[1], *hidden_dims, 10)
    values = task.to_dict() | {"dims": dims, "n_rows": len(dataset.x), **sizes}
    if dataset.y is not None:
        values["n_clusters"] = len(np.unique(dataset.y))
    return Task.from_dict(values)


def run_rounds(group: str, task: Task, rounds: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Run each peer of a group once a round; of each, its figures of all rounds in lists."""
    task_file = write_task(task, folder)
    peers = PEERS[group]
    runs: dict[str, dict[str, Any]] = {name: {"rounds": []} for name in peers}
    for index in range(rounds):
        for name in list(peers)[:: 1 if index % 2 == 0 else -1]:
            if "absent" in runs[name]:
                continue
            figures = run_once(group, name, peers[name], task_file, task.threads)
            if "absent" in figures:
                runs[name] = figures
                print(f"{name}: absent: {figures['absent']}", file=sys.stderr)
            else:
                runs[name]["rounds"].append(figures)
                print(f"{name}: round {index + 1} of {rounds} done", file=sys.stderr)
    return runs


def write_task(task: Task, folder: Path) -> Path:
    """Write a task for the processes of peers; return its file."""
    task_file = folder / "task.json"
    task_file.write_text(json.dumps(task.to_dict()))
    return task_file


def run_once(group: str, name: str, peer: Peer, task_file: Path, threads: int) -> dict[str, Any]:
    """Run a peer in a fresh process; return its figures, or why there are none."""
    environment = os.environ | {variable: str(threads) for variable in _THREADS}
    environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", **peer.environment}
    command = [sys.executable, "-m", "benchmarks.peers", group, name, str(task_file)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    if run.returncode:
        lines = run.stderr.strip().splitlines() or [f"exit status {run.returncode}"]
        return {"absent": f"failed: {lines[-1]}"}
    figures: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return figures


def ratios(
    runs: dict[str, dict[str, Any]], figures: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """How many times the seconds of jdec each peer takes, as the median over rounds.

    Examples:
        >>> runs = {"jdec": {"rounds": [{"seconds": 2.0}]}, "other": {"rounds": [{"seconds": 5.0}]}}
        >>> ratios(runs, ("seconds",))
        {'other': {'seconds': 2.5}}
    """
    if "absent" in runs[JDEC]:
        return {}
    ours = runs[JDEC]["rounds"]
    found: dict[str, dict[str, float]] = {}
    for name, run in runs.items():
        if name == JDEC or "absent" in run:
            continue
        found[name] = {
            figure: round(
                statistics.median(
                    median_of(theirs[figure]) / median_of(mine[figure])
                    for theirs, mine in zip(run["rounds"], ours, strict=True)
                ),
                3,
            )
            for figure in figures
        }
    return found


def strongest_ratio(record: dict[str, Any], figure: str) -> float | None:
    """Return the ratio to the fastest of the loops on resident tensors."""
    found = [record["ratios"][name][figure] for name in STRONGEST if name in record["ratios"]]
    return min(found, default=None)


def median_of(values: float | list[float]) -> float:
    """Return the median of repeats, or the one number that there is."""
    return statistics.median(values) if isinstance(values, list) else values


if __name__ == "__main__":
    main()
