"""What many members at once cost: steps and intervals of populations of some sizes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jdec.bench.phases import N_FEATURES, N_ROWS, make_rows
from jdec.bench.timing import Timing, time_jitted
from jdec.core.dec import DECState
from jdec.core.targets import Targets
from jdec.trainer.config import Config
from jdec.trainer.members import choose_mapping
from jdec.trainer.memory import members_that_fit
from jdec.trainer.programs import (
    MemberMapping,
    Plan,
    Stage,
    build_network,
    init_params,
    init_stage,
    init_state,
    pretrain_steps,
    refresh,
    train,
)
from jdec.trainer.sharding import RowSharding


def measure_members(
    config: Config,
    members: Sequence[int],
    *,
    n_steps: int,
    repeats: int,
    n_rows: int = N_ROWS,
    unroll: int = 1,
    note: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Time populations of some sizes, mapped over as :func:`jdec.fit_population` does by default.

    Args:
        config: What all members have in common.
        members: Numbers of members, in increasing order; those for which there is no memory are
            left out.
        n_steps: Steps in a call.
        repeats: Calls that are timed.
        n_rows: Of the data that steps gather from.
        unroll: Of the loops over steps.
        note: Called with what is measured next.

    Returns:
        JSON values: steps a second for each number of members, and which were left out.
    """
    config = config.replace({"clustering.tol": 0.0})  # so that no member settles
    network = build_network(config)
    mapping = choose_mapping(network, N_FEATURES, None, None)
    plan = Plan(config, network, RowSharding(n_rows), members=mapping)
    n_possible = members_that_fit(plan, make_rows(n_rows), max(members))
    stage, points = Stage("finetune", None, n_steps), []
    for n_members in members:
        if n_members > n_possible:
            continue
        note(f"{n_members} members")
        timings = time_members(
            config, stage, n_members, repeats, mapping, n_rows=n_rows, unroll=unroll
        )
        names = ("pretraining", "interval")
        points.append(
            {"members": n_members}
            | {
                f"{name}_steps_per_second": _rounded(n_members * n_steps / timing.median)
                for name, timing in zip(names, timings, strict=True)
            }
            | {"timings": [timing.to_dict() for timing in timings]}
        )
    return {
        "mapping": "side by side" if mapping.vectorized else "one after another",
        "steps_a_dispatch": n_steps,
        "n_rows": n_rows,
        "points": points,
        "left_out": [n_members for n_members in members if n_members > n_possible],
    }


def time_members(
    config: Config,
    stage: Stage,
    n_members: int,
    repeats: int,
    mapping: MemberMapping,
    *,
    n_rows: int = N_ROWS,
    unroll: int = 1,
) -> tuple[Timing, Timing]:
    """Time a dispatch of fine-tuning steps, and an interval of as many steps with its refresh."""
    x = make_rows(n_rows)
    keys = jax.random.split(jax.random.key(0), n_members)
    config = config.replace({"clustering.update_interval": stage.n_steps})
    plan = Plan(config, build_network(config), RowSharding(n_rows), members=mapping, unroll=unroll)
    params, _ = init_params(keys, plan=plan, n_features=N_FEATURES)
    options: dict[str, Any] = {"stage": stage, "n_steps": stage.n_steps, "n_rows": n_rows}
    pretrain = time_jitted(
        pretrain_steps,
        *(keys, init_stage(params, plan=plan, stage=stage), x, jnp.int32(0)),
        static={"plan": plan, **options},
        repeats=repeats,
        carry=lambda result, args: (args[0], result[0], *args[2:]),
    )
    shape = (n_members, config.n_clusters, config.network.latent_dim)
    state = init_state(params, jax.random.normal(jax.random.key(1), shape), plan=plan)
    labels = jnp.full((n_members, n_rows), -1, jnp.int32)
    targets, _ = refresh(state.params, labels, x, plan=plan)
    interval = time_jitted(
        _interval,
        *(keys, state, targets, x),
        static={"plan": plan},
        repeats=repeats,
        carry=lambda result, args: (args[0], *result, args[3]),
    )
    return pretrain, interval


@partial(jax.jit, static_argnames="plan", donate_argnames="state")
def _interval(
    keys: Any, state: DECState, targets: Targets, x: jax.Array, *, plan: Plan
) -> tuple[DECState, Targets]:
    """Train and refresh once, as one program."""
    state, _ = train(keys, state, targets, x, plan=plan)
    return state, refresh(state.params, targets.labels, x, plan=plan)[0]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
