"""What the refresh of P and a clustering step cost against N, K and D, and the exponents.

    python -m benchmarks.bench_scaling
    python -m benchmarks.bench_scaling --series targets       # or refresh, step
    JAX_NUM_CPU_DEVICES=8 python -m benchmarks.bench_scaling --devices 1 2 4 8

Synthetic rows, float32, after warm-up, the median of the repeats. Three costs: *targets* is P and
the labels from embeddings that are there (Z = 10), *refresh* the same with the encoder before it,
*step* one mini-batch step of 256 rows out of a dispatch of many. N runs from 10³ to 10⁷, K from 2
to 1024, D from 16 to 4096, one at a time. So that 10⁷ rows fit 16 GB the encoder is
D-128-128-256-10, with D = 64 where D is not what varies; rows are drawn on the device, block by
block.

An exponent is the slope of a line through log cost over log size, by least squares. The smallest
sizes measure what a call costs in any case, so the line goes through the sizes whose cost is at
least ten times that of the smallest one; where fewer than three are, as for a cost that does not
grow, it goes through all. The record says which sizes were used.

With ``--devices`` rows are sharded over devices: the same rows on each number of them (strong
scaling) and the same rows a device (weak scaling). Devices that JAX makes of one CPU share its
cores: they show what sharding costs and cannot be faster.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from benchmarks.records import append_record
from jdec.bench.timing import Timing, time_jitted
from jdec.core.dec import DECState
from jdec.core.functional import soft_assignment, target_distribution
from jdec.trainer.config import Config
from jdec.trainer.programs import Plan, build_network, init_state, refresh, train
from jdec.trainer.sharding import RowSharding, data_mesh, replicate

_LATENT_DIM, _N_STEPS = 10, 20
_BLOCK_SIZE = 2**17
_DEFAULTS = {"N": 10_000, "K": 10, "D": 64}
#: How many times the cost of the smallest size counts as clear of what a call costs in any case.
ABOVE_OVERHEAD = 10.0


class Sizes(NamedTuple):
    """Of one measurement."""

    n_rows: int
    n_clusters: int
    n_features: int


class Fit(NamedTuple):
    """A line through log cost over log size: cost = factor · size^exponent."""

    exponent: float
    factor: float
    first: int  # the sizes that it goes through
    last: int
    n_points: int


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", nargs="+", choices=list(COSTS), default=list(COSTS))
    parser.add_argument("--most-rows", type=int, default=10_000_000)
    parser.add_argument("--devices", nargs="+", type=int, help="measure these alone")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="small sizes, nothing recorded")
    arguments = parser.parse_args()
    repeats = 2 if arguments.smoke else arguments.repeats
    if arguments.devices:
        sizes = {"rows_strong": 4000, "rows_weak": 2000}
        if not arguments.smoke:
            sizes = {"rows_strong": 2**18, "rows_weak": 2**16}
        figures = measure_devices(arguments.devices, **sizes, repeats=repeats)
        append_record("devices", figures, smoke=arguments.smoke)
        return
    for name in arguments.series:
        for variable in SERIES[name][: 1 if arguments.smoke else None]:
            values = sweep(variable, arguments.most_rows)[: 2 if arguments.smoke else None]
            figures = measure_series(name, variable, values, repeats=repeats)
            append_record("scaling", figures, smoke=arguments.smoke)


def sweep(variable: str, most_rows: int) -> list[int]:
    """Return the sizes over which a variable runs.

    Examples:
        >>> sweep("N", 10_000)
        [1000, 3162, 10000]
    """
    if variable == "N":
        return [n for n in (round(10 ** (i / 2)) for i in range(6, 15)) if n <= most_rows]
    return [2**i for i in (range(1, 11) if variable == "K" else range(4, 13))]


def measure_series(
    name: str, variable: str, values: Sequence[int], *, repeats: int
) -> dict[str, Any]:
    """Measure a cost over one variable, all others held, and fit the exponent."""
    fixed = dict(_DEFAULTS)
    if name == "targets" and variable == "K":
        # Enough rows that the cost of a call is small at any K.
        fixed["N"] = 100_000
    timings = []
    for value in values:
        sizes = {**fixed, variable: value}
        timing = COSTS[name](Sizes(sizes["N"], sizes["K"], sizes["D"]), repeats)
        timings.append(timing)
        print(f"{name}: {variable} = {value}: {timing.median:.3g} s", flush=True)
    unit = _N_STEPS if name == "step" else 1
    seconds = [timing.median / unit for timing in timings]
    return {
        "cost": name,
        "variable": variable,
        "fixed": {key: size for key, size in fixed.items() if key != variable},
        "sizes": list(values),
        "seconds": [float(f"{value:.4g}") for value in seconds],
        "fit": fit_exponent(values, seconds)._asdict(),
        "timings": [timing.to_dict() for timing in timings],
    }


def fit_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> Fit:
    """Fit cost = factor · size^exponent where the cost is clear of overhead.

    Examples:
        >>> fit = fit_exponent([1, 10, 100, 1000, 10_000], [1.1, 1.2, 11.0, 110.0, 1100.0])
        >>> round(fit.exponent, 3), fit.first, fit.last
        (1.0, 100, 10000)
    """
    x, y = np.asarray(sizes, np.float64), np.asarray(seconds, np.float64)
    used = y >= ABOVE_OVERHEAD * y[0]
    if used.sum() < 3:
        used[:] = True
    exponent, intercept = np.polyfit(np.log(x[used]), np.log(y[used]), 1)
    return Fit(
        exponent=float(exponent),
        factor=float(np.exp(intercept)),
        first=int(x[used][0]),
        last=int(x[used][-1]),
        n_points=int(used.sum()),
    )


def time_targets(sizes: Sizes, repeats: int) -> Timing:
    """Time Eqs. 1 and 3 and the labels on embeddings of all rows."""

    def targets(z: Float[Array, "N Z"], centroids: Float[Array, "K Z"]) -> tuple[Any, Any]:
        q = soft_assignment(z, centroids)
        return target_distribution(q), q.argmax(axis=1)

    z = draw_rows(sizes.n_rows, _LATENT_DIM)
    return time_jitted(
        jax.jit(targets), z, draw_rows(sizes.n_clusters, _LATENT_DIM), repeats=repeats
    )


def time_refresh(sizes: Sizes, repeats: int, mesh: Mesh | None = None) -> Timing:
    """Time the refresh of P as a fit runs it, encoder and all."""
    state, labels, x, static = _start(sizes, mesh)
    return time_jitted(
        refresh,
        *(state.params, labels, x),
        static=static,
        repeats=repeats,
        carry=lambda result, args: (args[0], result[0].labels, args[2]),
    )


def time_steps(sizes: Sizes, repeats: int, mesh: Mesh | None = None) -> Timing:
    """Time a dispatch of mini-batch steps on KL(P‖Q)."""
    state, labels, x, static = _start(sizes, mesh)
    targets, _ = refresh(state.params, labels, x, **static)
    return time_jitted(
        train,
        *(replicate(jax.random.key(0), mesh), state, targets, x),
        static=static,
        repeats=repeats,
        carry=lambda result, args: (args[0], result[0], *args[2:]),
    )


def measure_devices(
    n_devices: Sequence[int], *, rows_strong: int, rows_weak: int, repeats: int
) -> dict[str, Any]:
    """Time refresh and step on some devices: the same rows (strong), the same a device (weak)."""
    points = []
    for kind, n in itertools.product(("strong", "weak"), n_devices):
        sizes = Sizes(rows_strong if kind == "strong" else rows_weak * n, 10, 64)
        mesh = data_mesh(n) if n > 1 else None
        refreshed, stepped = time_refresh(sizes, repeats, mesh), time_steps(sizes, repeats, mesh)
        points.append(
            {
                "kind": kind,
                "n_devices": n,
                "n_rows": sizes.n_rows,
                "refresh_seconds": float(f"{refreshed.median:.4g}"),
                "step_seconds": float(f"{stepped.median / _N_STEPS:.4g}"),
                "timings": [refreshed.to_dict(), stepped.to_dict()],
            }
        )
        print(f"{kind}: {n} devices: refresh {refreshed.median:.3g} s", flush=True)
    return {"points": points}


def draw_rows(n_rows: int, n_features: int) -> Float[Array, "N D"]:
    """Draw rows on the device; block by block, as the generator needs room of its own."""

    def block(index: Array) -> Float[Array, "B D"]:
        key = jax.random.fold_in(jax.random.key(0), index)
        return jax.random.normal(key, (min(n_rows, _BLOCK_SIZE), n_features))

    n_blocks = -(-n_rows // _BLOCK_SIZE)
    draw = jax.jit(
        lambda: jax.lax.map(block, jnp.arange(n_blocks)).reshape(-1, n_features)[:n_rows]
    )
    return jax.block_until_ready(draw())


def _start(sizes: Sizes, mesh: Mesh | None) -> tuple[DECState, Array, Array, dict[str, Any]]:
    """Return a state, labels, rows, and the static arguments of refresh and step."""
    config = Config(n_clusters=sizes.n_clusters).replace(
        {
            "network.hidden_dims": [128, 128, 256],
            "network.latent_dim": _LATENT_DIM,
            "clustering.update_interval": _N_STEPS,
            "clustering.optimizer": {"name": "sgd", "learning_rate": 0.01},
        }
    )
    plan = Plan(config, build_network(config), RowSharding(sizes.n_rows, mesh))
    x = draw_rows(sizes.n_rows, sizes.n_features)
    params = plan.network.init(jax.random.key(0), sizes.n_features)
    centroids = draw_rows(sizes.n_clusters, _LATENT_DIM)
    if mesh is not None:
        x = plan.rows.put(np.asarray(x))
        params, centroids = replicate((params, centroids), mesh)
    labels = plan.rows.put(np.full(sizes.n_rows, -1, np.int32))
    return init_state(params, centroids, plan=plan), labels, x, {"plan": plan}


#: Name of each cost to what times it, and the variables that it runs over.
COSTS: dict[str, Callable[[Sizes, int], Timing]] = {
    "targets": time_targets,
    "refresh": time_refresh,
    "step": time_steps,
}
SERIES = {"targets": "NK", "refresh": "NKD", "step": "NKD"}


if __name__ == "__main__":
    main()
