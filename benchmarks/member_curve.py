"""What a member of a population costs: what ``bench_step --parts population`` measures."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.roofline import (
    N_ROWS,
    make_rows,
    time_clustering,
    time_pretraining,
    time_refresh,
)
from benchmarks.timing import Timing, time_jitted
from jdec.core.autoencoder import encoder_params
from jdec.trainer.build import AS_CONFIGURED, BLOCK_SIZE, Stage
from jdec.trainer.config import Config
from jdec.trainer.members import (
    Layout,
    init_members,
    init_members_stage,
    pretrain_members,
    start_members,
    train_members,
)

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
    static: dict[str, Any] = {"config": config, "layout": Layout(None, vectorized)}
    params = init_members(keys, x, **static)
    pretrain = time_jitted(
        pretrain_members,
        keys,
        init_members_stage(params, x, stage=stage, **static),
        jnp.int32(0),
        x,
        static={**static, "stage": stage, "n_steps": stage.n_steps},
        repeats=repeats,
        carry=lambda result, args: (args[0], result[0], *args[2:]),
    )
    shape = (n_members, config.n_clusters, config.network.latent_dim)
    centroids = jax.random.normal(jax.random.key(1), shape)
    states = start_members(encoder_params(params), centroids, AS_CONFIGURED, x, **static)
    interval = time_jitted(
        train_members,
        keys,
        AS_CONFIGURED,
        states,
        x,
        static=static,
        repeats=repeats,
        carry=lambda result, args: (*args[:2], result[0], args[3]),
    )
    return pretrain, interval


def _ms(seconds: float) -> float:
    return float(f"{1e3 * seconds:.4g}")


def _ratio(timing: Timing, n_members: int, plain: float) -> float:
    return round(timing.median / n_members / plain, 3)
