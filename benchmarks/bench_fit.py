"""Time to quality: seconds until a fit first reaches given accuracies, and where they go.

    python -m benchmarks.bench_fit --seeds 0-4
    python -m benchmarks.bench_fit --data fashion_mnist --seeds 0-2
    python -m benchmarks.bench_fit --preset paper --seeds 0

Each fit is a process of its own, so that compiling counts. Seconds run by the clock from the start
of loading; starting Python and importing are in the wall time alone. The accuracy is looked at
where a fit looks at its labels anyway: after the k-means that self-training starts from, and at the
end of each interval. Labels only score, which takes some hundredths of a second each time. Tracing,
lowering and compiling are added up from what JAX reports of itself; most of it is within the
phases, that of the first parameters and of the last assignment is beside them.

The refresh of P is timed again by itself after the fit, warm, as the median of some; times the
number of intervals and by the seconds of the whole clustering phase this is its share.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.records import append_record, parse_seeds
from jdec.bench.fits import time_to
from jdec.bench.timing import seconds_of
from jdec.core.targets import DECParams
from jdec.datasets import load_dataset
from jdec.metrics import clustering_accuracy
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.history import Record
from jdec.trainer.presets import preset_config
from jdec.trainer.programs import Plan, build_network, refresh
from jdec.trainer.results import FitResult
from jdec.trainer.sharding import RowSharding

LEVELS = (0.80, 0.85, 0.90, 0.95)
#: What JAX calls the parts of compiling.
_COMPILING = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}


def main() -> None:
    """Run the benchmark, or one fit of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--seeds", type=parse_seeds, default=[0])
    parser.add_argument("--levels", nargs="+", type=float, default=LEVELS)
    parser.add_argument("--repeats", type=int, default=5, help="of the refresh by itself")
    parser.add_argument("--smoke", action="store_true", help="a few steps, nothing recorded")
    parser.add_argument("--one", type=int, metavar="SEED", help="fit here, print the figures")
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measure(arguments, arguments.one)))
        return
    data = "digits" if arguments.smoke else arguments.data
    for seed in arguments.seeds:
        command = [sys.executable, "-m", "benchmarks.bench_fit", "--one", str(seed)]
        command += ["--data", data, "--preset", arguments.preset]
        command += ["--repeats", str(arguments.repeats), "--levels", *map(str, arguments.levels)]
        command += ["--smoke"] * arguments.smoke
        began = time.perf_counter()
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures = json.loads(run.stdout.splitlines()[-1])
        figures["wall_seconds"] = round(time.perf_counter() - began, 2)
        append_record("fit", figures, smoke=arguments.smoke)


def measure(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Fit once, and return when it reached which accuracy and where the seconds went."""
    compiling = dict.fromkeys(_COMPILING.values(), 0.0)
    timeline: list[tuple[float, float | None]] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event in _COMPILING:
            compiling[_COMPILING[event]] += duration_secs

    def note(record: Record) -> None:
        timeline.append((time.perf_counter() - began, record.get("acc")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    began = time.perf_counter()
    dataset = load_dataset(arguments.data)
    loading = time.perf_counter() - began
    if dataset.y is None:
        raise SystemExit(f"{arguments.data}: expected classes, to know when a fit is good")
    config = preset_config(
        arguments.preset,
        n_clusters=len(np.unique(dataset.y)),
        n_rows=len(dataset.x),
        dataset=dataset.name,
        image_shape=dataset.image_shape,
    )
    if arguments.smoke:
        fields = {"network.hidden_dims": [16], "pretrain.finetune_steps": 20}
        config = config.replace({**fields, "clustering.max_intervals": 2})
    result = fit(
        jax.random.key(seed),
        dataset.x,
        config,
        y=dataset.y,
        n_train=dataset.n_train,
        unlabeled=dataset.unlabeled,
        callbacks=[note],
    )
    seconds = time.perf_counter() - began
    compiling_in_fit = {name: round(value, 3) for name, value in compiling.items()}
    in_clustering = sum(result.seconds.get(name, 0.0) for name in ("clustering", "target refresh"))
    refresh_seconds = time_refresh(result, dataset.x, config, arguments.repeats)
    return {
        "dataset": dataset.name,
        "note": dataset.note,
        "preset": arguments.preset,
        "seed": seed,
        "acc": clustering_accuracy(dataset.y, result.labels),
        "seconds": round(seconds, 3),
        "seconds_to": time_to(timeline, arguments.levels),
        "phases": {
            name: round(value, 3) for name, value in {"loading": loading, **result.seconds}.items()
        },
        "compiling": compiling_in_fit,
        "n_intervals": result.n_intervals,
        "refresh_seconds": [round(value, 5) for value in refresh_seconds],
        "refresh_share": round(
            result.n_intervals * statistics.median(refresh_seconds) / in_clustering, 4
        ),
        "config": config.to_dict(),
    }


def time_refresh(result: FitResult, x: np.ndarray, config: Config, repeats: int) -> list[float]:
    """Time the refresh of P over all rows, with what the fit ended with, after warm-up."""
    rows = jnp.asarray(result.model.scaling.apply(x))
    plan = Plan(config, build_network(config), RowSharding(len(rows)))
    held: Any = DECParams(result.model.params, jnp.asarray(result.model.centroids))
    held = jax.tree.map(jnp.asarray, held)
    labels = jnp.asarray(result.labels)

    def once() -> Any:
        return refresh(held, labels, rows, plan=plan)

    return [seconds_of(once) for _ in range(repeats + 1)][1:]


if __name__ == "__main__":
    main()
