"""What a member of a population costs: what ``bench_step --parts population`` measures."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.roofline import (
    N_FEATURES,
    N_ROWS,
    make_rows,
    time_clustering,
    time_pretraining,
    time_refresh,
)
from benchmarks.timing import Timing, time_jitted
from jdec.core.dec import DECState
from jdec.core.targets import Targets
from jdec.trainer.config import Config
from jdec.trainer.programs import (
    BLOCK_SIZE,
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

#: Steps of a member in a dispatch; a fit of preset ``fast`` has 200 and more.
_STEPS = 50


def measure_population(
    config: Config, members: Sequence[int], *, repeats: int, vectorized: bool
) -> list[dict[str, Any]]:
    """Time populations of some sizes, and the plain run before and after each of them."""
    config = config.replace({"clustering.tol": 0.0})  # so that no member settles
    n_steps = min(_STEPS, config.pretrain.finetune_steps)
    points = []
    for n_members in members:
        stage = Stage("finetune", None, n_steps)
        before = _time_plain(config, stage, repeats)
        pretrain, interval = _time_members(config, stage, n_members, repeats, vectorized)
        after = _time_plain(config, stage, repeats)
        one_pretrain, one_interval = (sum(pair) / 2 for pair in zip(before, after, strict=True))
        points.append(
            {
                "members": n_members,
                "steps_a_dispatch": n_steps,
                "n_rows": N_ROWS,
                "block_size": BLOCK_SIZE,
                "pretrain_member_step_ms": _ms(pretrain.median / n_members / n_steps),
                "pretrain_plain_step_ms": _ms(one_pretrain / n_steps),
                "pretrain_ratio": _ratio(pretrain, n_members, one_pretrain),
                "interval_member_ms": _ms(interval.median / n_members),
                "interval_plain_ms": _ms(one_interval),
                "interval_ratio": _ratio(interval, n_members, one_interval),
                "timings": [pretrain.to_dict(), interval.to_dict()],
            }
        )
        print(f"{n_members} members: {points[-1]['pretrain_ratio']} of a plain step", flush=True)
    return points


def _time_plain(config: Config, stage: Stage, repeats: int) -> tuple[float, float]:
    """Time the same for one run: steps of fine-tuning, and an interval."""
    pretrain = time_pretraining(config, stage, repeats).timing.median
    cluster = time_clustering(config, stage.n_steps, repeats).timing.median
    return pretrain, cluster + time_refresh(config, repeats).timing.median


def _time_members(
    config: Config, stage: Stage, n_members: int, repeats: int, vectorized: bool
) -> tuple[Timing, Timing]:
    """Time a dispatch of fine-tuning steps, and an interval of as many steps with its refresh."""
    x = make_rows(N_ROWS)
    keys = jax.random.split(jax.random.key(0), n_members)
    config = config.replace({"clustering.update_interval": stage.n_steps})
    members = MemberMapping(None, vectorized)
    plan = Plan(config, build_network(config), RowSharding(N_ROWS), members=members)
    params, _ = init_params(keys, plan=plan, n_features=N_FEATURES)
    options: dict[str, Any] = {"stage": stage, "n_steps": stage.n_steps, "n_rows": N_ROWS}
    pretrain = time_jitted(
        pretrain_steps,
        *(keys, init_stage(params, plan=plan, stage=stage), x, jnp.int32(0)),
        static={"plan": plan, **options},
        repeats=repeats,
        carry=lambda result, args: (args[0], result[0], *args[2:]),
    )
    shape = (n_members, config.n_clusters, config.network.latent_dim)
    state = init_state(params, jax.random.normal(jax.random.key(1), shape), plan=plan)
    labels = jnp.full((n_members, N_ROWS), -1, jnp.int32)
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


def _ms(seconds: float) -> float:
    return float(f"{1e3 * seconds:.4g}")


def _ratio(timing: Timing, n_members: int, plain: float) -> float:
    return round(timing.median / n_members / plain, 3)
