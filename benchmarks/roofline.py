"""Each phase of DEC under the roofline: what ``bench_step --parts roofline`` measures."""

from typing import Any

import jax

from jdec.bench.phases import (
    Ceilings,
    products_of,
    time_clustering,
    time_pretraining,
    time_refresh,
)
from jdec.bench.timing import PEAK_SIDE, TRIAD_SIZE
from jdec.trainer.config import Config
from jdec.trainer.programs import BLOCK_SIZE, Stage


def measure_roofline(
    config: Config, batch_sizes: tuple[int, ...], *, repeats: int, smoke: bool
) -> list[dict[str, Any]]:
    """Measure every phase at every batch size; the refresh has no batch."""
    jax.clear_caches()  # what was compiled before would seem to compile in no time
    ceilings = Ceilings(*((256, 2**16) if smoke else (PEAK_SIDE, TRIAD_SIZE)))
    points = []
    for batch_size in batch_sizes:
        sized = config.replace(
            {"pretrain.batch_size": batch_size, "clustering.batch_size": batch_size}
        )
        # As many rows in a dispatch whatever the batch size, but at least two steps.
        n_steps = max(2, config.pretrain.finetune_steps * 256 // batch_size)
        n_layers = len(config.network.hidden_dims) + 1
        stages = [Stage(f"layer {i + 1}", i, n_steps) for i in range(n_layers)]
        layers = [time_pretraining(sized, stage, repeats) for stage in stages]
        work = [products_of("layer", sized, batch_size, layer) for layer in range(n_layers)]
        points.append(ceilings.point("layer-wise", batch_size, layers, work))
        finetune = [time_pretraining(sized, Stage("finetune", None, n_steps), repeats)]
        work = [products_of("finetune", sized, batch_size)]
        points.append(ceilings.point("finetune", batch_size, finetune, work))
        steps = [time_clustering(sized, n_steps, repeats)]
        work = [products_of("KL step", sized, batch_size)]
        points.append(ceilings.point("KL step", batch_size, steps, work))
    work = [products_of("refresh", config, BLOCK_SIZE)]
    points.append(ceilings.point("refresh", BLOCK_SIZE, [time_refresh(config, repeats)], work))
    return points
