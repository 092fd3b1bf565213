"""What a member of a population costs: what ``bench_step --parts population`` measures."""

from collections.abc import Sequence
from typing import Any

from jdec.bench.member_steps import time_members
from jdec.bench.phases import N_ROWS, time_clustering, time_pretraining, time_refresh
from jdec.bench.timing import Timing
from jdec.trainer.config import Config
from jdec.trainer.programs import BLOCK_SIZE, MemberMapping, Stage

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
        mapping = MemberMapping(None, vectorized)
        pretrain, interval = time_members(config, stage, n_members, repeats, mapping)
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


def _ms(seconds: float) -> float:
    return float(f"{1e3 * seconds:.4g}")


def _ratio(timing: Timing, n_members: int, plain: float) -> float:
    return round(timing.median / n_members / plain, 3)
