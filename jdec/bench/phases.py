"""Each phase of DEC by itself: the time of its steps, and its place under the roofline."""

import itertools
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdec.bench.timing import Timing, cost, measure_bandwidth, measure_peak, time_jitted
from jdec.core.autoencoder import network_shapes
from jdec.core.dec import DECState
from jdec.core.pretraining import PretrainState
from jdec.core.targets import Targets
from jdec.trainer.config import Config
from jdec.trainer.programs import (
    BLOCK_SIZE,
    Plan,
    Stage,
    build_network,
    init_stage,
    init_state,
    pretrain_steps,
    refresh,
    train,
)
from jdec.trainer.sharding import RowSharding

#: Of the data that steps gather from.
N_ROWS, N_FEATURES = 8192, 784


def dims_of(config: Config) -> tuple[int, ...]:
    """Return the widths of the encoder."""
    return (N_FEATURES, *config.network.hidden_dims, config.network.latent_dim)


def make_rows(n_rows: int) -> jax.Array:
    """Draw rows in the range of scaled images."""
    rows = np.random.default_rng(0).uniform(0, 2, (n_rows, N_FEATURES))
    return jnp.asarray(rows.astype(np.float32))


def make_plan(config: Config, n_rows: int, unroll: int = 1) -> Plan:
    """Return the plan of a fit of some rows on one device."""
    return Plan(config, build_network(config), RowSharding(n_rows), unroll=unroll)


def pretraining_state(plan: Plan, stage: Stage) -> PretrainState:
    """Return the state that a stage of pretraining starts with."""
    return init_stage(_draw_params(plan), plan=plan, stage=stage)


def no_labels(n_rows: int) -> jax.Array:
    """Return the labels before the first refresh."""
    return jnp.full(n_rows, -1, jnp.int32)


def clustering_state(plan: Plan, x: jax.Array) -> tuple[DECState, Targets]:
    """Return the state and targets that self-training starts with."""
    params = _draw_params(plan)
    # What a step costs does not depend on where the centroids are.
    centroids = jax.jit(plan.network.encode)(params, x[: plan.config.n_clusters])
    state = init_state(params, centroids, plan=plan)
    targets, _ = refresh(state.params, no_labels(len(x)), x, plan=plan)
    return state, targets


def _draw_params(plan: Plan) -> Any:
    # By NumPy: the random numbers of init_params would be compiled anew for each network.
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.03 * rng.normal(size=leaf.shape), leaf.dtype),
        network_shapes(plan.network, N_FEATURES).params,
    )


def products_of(phase: str, config: Config, n_rows: int, layer: int = 0) -> int:
    """Return the FLOPs of the products of the layers, in a step on some rows or in a refresh.

    Examples:
        >>> config = Config(n_clusters=2).replace(
        ...     {"network.hidden_dims": [], "network.latent_dim": 1})
        >>> products_of("refresh", config, 1) == 2 * 784
        True
    """
    weights = [a * b for a, b in itertools.pairwise(dims_of(config))]
    first, all_of_them = 2 * n_rows * weights[0], 2 * n_rows * sum(weights)
    if phase == "refresh":
        return all_of_them
    if phase == "KL step":
        return 3 * all_of_them - first
    if phase == "finetune":
        return 6 * all_of_them - first
    # One layer there and back, after the layers below it; its input is given, as the data is.
    return 2 * n_rows * (sum(weights[:layer]) + 5 * weights[layer])


def measure_steps(
    configs: Mapping[str, Config],
    *,
    side: int,
    triad: int,
    precision: str,
    n_rows: int,
    n_steps: int,
    repeats: int,
    unroll: int = 1,
    note: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Measure the peak and the bandwidth, and the steps of some recipes between.

    Args:
        configs: Recipes by name; without any, only the device is measured.
        side: Of the matrices whose product gives the peak.
        triad: Numbers in each array for the bandwidth.
        precision: Of the products.
        n_rows: Of the data that steps gather from.
        n_steps: Steps in a call.
        repeats: Calls that are timed.
        unroll: Of the loops over steps.
        note: Called with what is measured next.

    Returns:
        JSON values: the median of peak and bandwidth, and of each phase the time of a step and its
        share of the peak around it.
    """
    note("peak and bandwidth")
    jax.clear_caches()  # what was compiled before would seem to compile in no time
    ceilings, steps = Ceilings(side, triad, precision), []
    common: dict[str, Any] = {"n_rows": n_rows}
    stage = Stage("finetune", None, n_steps)
    for name, config in configs.items():
        looped = common | {"unroll": unroll}
        pieces: dict[str, Callable[[], Piece]] = {
            "finetune": partial(time_pretraining, config, stage, repeats, **looped),
            "KL step": partial(time_clustering, config, n_steps, repeats, **looped),
            "refresh": partial(time_refresh, config, repeats, **common),
        }
        for phase, time_piece in pieces.items():
            note(f"{name}, {phase}")
            size = min(n_rows, BLOCK_SIZE) if phase == "refresh" else config.pretrain.batch_size
            work = [products_of(phase, config, size)]
            point = ceilings.point(phase, size, [time_piece()], work)
            steps.append({"preset": name, "dims": dims_of(config), **point})
    peaks, bandwidths = zip(*ceilings.measured, strict=True)
    return {
        "precision": precision,
        "peak_gflops": _rounded(statistics.median(peaks) / 1e9),
        "bandwidth_gbytes": _rounded(statistics.median(bandwidths) / 1e9),
        "product_side": side,
        "triad_size": triad,
        "steps": steps,
    }


class Piece:
    """A timing of many steps, and what XLA counts in one of them."""

    def __init__(self, timing: Timing, n_steps: float, one_step: Any) -> None:
        self.timing, self.n_steps = timing, n_steps
        self.flops, self.bytes_accessed = cost(one_step.compile())


class Ceilings:
    """What the machine can do, measured again after each phase: before is after the last one."""

    def __init__(self, side: int, size: int, precision: str = "float32") -> None:
        self.side, self.size, self.precision = side, size, precision
        self.measured = [self._measure()]

    def point(
        self, phase: str, batch_size: int, pieces: list[Piece], work: list[int]
    ) -> dict[str, Any]:
        """Place a phase under the roofline: the mean over its pieces."""
        self.measured.append(self._measure())
        peak, bandwidth = np.mean(self.measured[-2:], axis=0)
        seconds = sum(piece.timing.median / piece.n_steps for piece in pieces)
        iqr = sum(piece.timing.iqr / piece.n_steps for piece in pieces)
        counted = [piece.bytes_accessed for piece in pieces]
        flops = float(sum(work))
        n_bytes = None if None in counted else float(sum(counted))  # type: ignore[arg-type]
        rate = None if n_bytes is None else n_bytes / seconds
        return {
            "phase": phase,
            "batch_size": batch_size,
            "step_ms": _rounded(1e3 * seconds / len(pieces)),
            "step_iqr_ms": _rounded(1e3 * iqr / len(pieces)),
            "flops": flops / len(pieces),
            "xla_flops": [piece.flops for piece in pieces],
            "bytes": None if n_bytes is None else n_bytes / len(pieces),
            "intensity": None if n_bytes is None else _rounded(flops / n_bytes),
            "gflops": _rounded(flops / seconds / 1e9),
            "gbytes": None if rate is None else _rounded(rate / 1e9),
            "peak_gflops": _rounded(peak / 1e9),
            "bandwidth_gbytes": _rounded(bandwidth / 1e9),
            "share_of_peak": _rounded(flops / seconds / peak),
            "share_of_bandwidth": None if rate is None else _rounded(rate / bandwidth),
            "steps_a_dispatch": pieces[0].n_steps,
            "timings": [piece.timing.to_dict() for piece in pieces],
        }

    def _measure(self) -> tuple[float, float]:
        return measure_peak(self.side, precision=self.precision), measure_bandwidth(self.size)


def time_pretraining(
    config: Config, stage: Stage, repeats: int, *, n_rows: int = N_ROWS, unroll: int = 1
) -> Piece:
    """Time the steps of one stage of pretraining."""
    n_batch = config.pretrain.batch_size

    def arguments(n_rows: int) -> tuple[Any, ...]:
        state = pretraining_state(make_plan(config, n_rows), stage)
        return jax.random.key(0), state, make_rows(n_rows), jnp.int32(0)

    static: dict[str, Any] = {"plan": make_plan(config, n_rows, unroll), "stage": stage}
    # XLA counts all the data as read by the step that gathers from it; here that is one batch.
    one_step = pretrain_steps.trace(*arguments(n_batch), **static, n_rows=n_batch, n_steps=1)
    timing = time_jitted(
        pretrain_steps,
        *arguments(n_rows),
        static={**static, "n_rows": n_rows, "n_steps": stage.n_steps},
        repeats=repeats,
        carry=lambda result, args: (args[0], result[0], *args[2:]),
    )
    return Piece(timing, stage.n_steps, one_step.lower())


def time_clustering(
    config: Config, n_steps: int, repeats: int, *, n_rows: int = N_ROWS, unroll: int = 1
) -> Piece:
    """Time the steps of an interval of the clustering phase."""

    def arguments(plan: Plan) -> tuple[Any, ...]:
        x = make_rows(plan.rows.n_rows)
        return jax.random.key(0), *clustering_state(plan, x), x

    many, one = (config.replace({"clustering.update_interval": number}) for number in (n_steps, 1))
    batch = make_plan(one, config.clustering.batch_size)
    one_step = train.trace(*arguments(batch), plan=batch)
    plan = make_plan(many, n_rows, unroll)
    timing = time_jitted(
        train,
        *arguments(plan),
        static={"plan": plan},
        repeats=repeats,
        carry=lambda result, args: (args[0], result[0], *args[2:]),
    )
    return Piece(timing, n_steps, one_step.lower())


def time_refresh(config: Config, repeats: int, *, n_rows: int = N_ROWS) -> Piece:
    """Time a refresh of P; its unit is a block of rows, which XLA counts without a loop."""
    plan, block = make_plan(config, n_rows), make_plan(config, min(n_rows, BLOCK_SIZE))
    x = make_rows(n_rows)
    state, targets = clustering_state(plan, x)
    labels = no_labels(block.rows.n_rows)
    one_block = refresh.trace(state.params, labels, x[: len(labels)], plan=block)
    timing = time_jitted(
        refresh,
        *(state.params, targets.labels, x),
        static={"plan": plan},
        repeats=repeats,
        carry=lambda result, args: (args[0], result[0].labels, args[2]),
    )
    return Piece(timing, n_rows / len(labels), one_block.lower())


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
