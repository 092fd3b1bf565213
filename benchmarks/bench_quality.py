"""Accuracy, wall time and memory of the whole ``jdec fit`` command, over seeds.

    python -m benchmarks.bench_quality digits --seeds 0-4
    python -m benchmarks.bench_quality mnist --seeds 0-2
    python -m benchmarks.bench_quality reuters10k --seeds 0-2
    python -m benchmarks.bench_quality digits --second-start
    python -m benchmarks.bench_quality digits --seeds 0-2 -- --network.precision bfloat16
    python -m benchmarks.bench_quality --suite --seeds 0-2   # beside UMAP, k-means and others

Each fit is a separate process with a cold start: importing, compiling (with an empty compilation
cache), loading, the baselines (k-means on the input, AE + k-means), and drawing are all in its
seconds. With --second-start the same command runs once more, with the cache of the first. Labels
only score the result.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.records import append_record, parse_seeds
from benchmarks.suite import METHODS, SETS, name_of_set, run_suite


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="?", default="digits")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--seeds", type=parse_seeds, default=[0])
    parser.add_argument("--second-start", action="store_true", help="time a second start as well")
    parser.add_argument("--suite", action="store_true", help="several data sets and methods")
    parser.add_argument("--sets", nargs="+", type=name_of_set, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--smoke", action="store_true", help="a few steps, nothing recorded")
    parser.epilog = "What stands after -- are options of jdec fit."
    own, options = sys.argv[1:], []
    if "--" in own:
        end = own.index("--")
        own, options = own[:end], own[end + 1 :]
    arguments = parser.parse_args(own)
    if arguments.smoke:
        options += ["--network.hidden-dims", "16", "--pretrain.finetune-steps", "20"]
        options += ["--clustering.max-intervals", "2"]
    if arguments.suite:
        seeds, methods = arguments.seeds, arguments.methods
        run_suite(arguments.sets, seeds, methods, measure, options, smoke=arguments.smoke)
        return
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as programs:
            fits = [
                measure(arguments.data, arguments.preset, seed, options, Path(programs))
                for _ in range(2 if arguments.second_start else 1)
            ]
        append_record("quality", fits[0], smoke=arguments.smoke)
        if arguments.second_start:
            names = ("dataset", "preset", "options", "seed")
            starts = [{name: fit[name] for name in ("wall_seconds", "compilation")} for fit in fits]
            figures = {name: fits[0][name] for name in names} | {"starts": starts}
            append_record("start", figures, smoke=arguments.smoke)


def measure(
    data: str, preset: str, seed: int, options: list[str], programs: Path
) -> dict[str, Any]:
    """Fit once in a fresh process; return its metrics, wall seconds and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "jdec", "fit", data, "--preset", preset]
        command += ["--seed", str(seed), "--out", str(out), "--quiet", *options]
        began = time.perf_counter()
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(programs)}
        process = subprocess.Popen(command, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        if status:
            raise SystemExit(f"{' '.join(command)} failed")
        metrics = json.loads((out / "metrics.json").read_text())
        config = json.loads((out / "config.json").read_text())
    return {
        "dataset": data,
        "note": metrics["note"],
        "preset": preset,
        "options": options,
        "seed": seed,
        "n_clusters": metrics["n_clusters"],
        "n_found": sum(size > 0 for size in metrics["cluster_sizes"]),
        "scores": metrics["scores"],
        "stop_reason": metrics["stop_reason"],
        "n_intervals": metrics["n_intervals"],
        "seconds": metrics["seconds"],
        "compilation": metrics["compilation"],
        "wall_seconds": round(wall, 2),
        "peak_memory_mb": round(usage.ru_maxrss / 1024),
        "config": config,
    }


if __name__ == "__main__":
    main()
