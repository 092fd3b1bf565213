"""What each piece of preset ``fast`` gives: accuracy with that piece left out.

    python -m benchmarks.bench_ablation --seeds 0-2
    python -m benchmarks.bench_ablation --sets digits scrna --seeds 0

Fits that differ only after pretraining share the pretrained network, as ``fit`` does with
``autoencoder_params``; whole and part are then compared on the same start. Labels only score.
"""

from typing import Any

import jax
import numpy as np

from benchmarks.suite import run_on_sets
from jdec.datasets import Dataset
from jdec.metrics import clustering_accuracy
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.presets import preset_config

WHOLE = "fast"
_PLAIN_IMAGES = {
    f"augmentation.{name}": 0.0 for name in ("max_shift", "max_rotation", "max_zoom", "max_shear")
}
#: Piece to the settings that leave it out.
PIECES: dict[str, dict[str, Any]] = {
    WHOLE: {},
    "no self-training": {"clustering.max_intervals": 0},
    "no warm-up": {"clustering.warmup_steps": 0},
    "no vote": {"graph.n_votes": 1},
    "K eigenvectors alone": {"graph.eigenvectors": (1.0,)},
    "no diffusion": {"graph.diffusion_times": (0.0,)},
    "γ = 1": {"graph.resolution": 1.0},
    "graph of the other space": {},
    "k-means on the embedding": {"kmeans.select": "inertia"},
    "no masking": {"pretrain.finetune_corruption_rate": 0.0},
    "constant learning rate": {"pretrain.optimizer.schedule": "constant"},
    "no affine variants": _PLAIN_IMAGES,
    "500-500-2000-10": {"network.hidden_dims": (500, 500, 2000)},
}


def main() -> None:
    """Run the benchmark."""
    run_on_sets("ablation", __doc__, leave_out)


def leave_out(dataset: Dataset, seed: int, smoke: bool) -> dict[str, dict[str, Any]]:
    """Return the accuracy of start and end without each piece."""
    shape: Any = {"n_clusters": len(set(np.asarray(dataset.y).tolist())), "n_rows": len(dataset.x)}
    whole = preset_config("fast", image_shape=dataset.image_shape, **shape)
    if smoke:
        few = {"pretrain.finetune_steps": 20, "clustering.max_intervals": 1, "graph.n_init": 1}
        whole = whole.replace({**few, "network.hidden_dims": (8,), "graph.kmeans_restarts": 2})
    found: dict[str, dict[str, float]] = {}
    pretrained: dict[Any, Any] = {}
    for piece in PIECES:
        config = whole.replace(_without(piece, whole))
        if piece != WHOLE and config == whole:  # as variants where rows are no images
            continue
        stage = (config.network, config.pretrain, config.augmentation)
        result = fit(
            jax.random.key(seed), dataset.x, config, autoencoder_params=pretrained.get(stage)
        )
        pretrained.setdefault(stage, result.autoencoder_params)
        found[piece] = {
            "start": round(clustering_accuracy(dataset.y, result.initial.labels), 4),
            "end": round(clustering_accuracy(dataset.y, result.labels), 4),
        }
    return {"acc": found}


def _without(piece: str, whole: Config) -> dict[str, Any]:
    if piece == "graph of the other space":
        return {"graph.space": "embedding" if whole.graph.space == "data" else "data"}
    return PIECES[piece]


if __name__ == "__main__":
    main()
