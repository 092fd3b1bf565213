"""The recipes, as data: settings by dotted name, and the few that follow from the data."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jdec._checks import check_choice, check_integer, shown
from jdec.trainer.config import Config


class StepBudget(NamedTuple):
    """Number of steps that grows with the data: ``epochs`` passes, within bounds."""

    epochs: float
    min_steps: int
    max_steps: int

    def steps(self, n_rows: int, batch_size: int) -> int:
        """Return the number of steps for N rows."""
        steps = math.ceil(self.epochs * n_rows / batch_size)
        return min(max(steps, self.min_steps), self.max_steps)


class Preset(NamedTuple):
    """A recipe: settings by dotted name, and the few that follow from the data."""

    fields: Mapping[str, Any]
    by_dataset: Mapping[str, Mapping[str, Any]] = {}  # more, by the name of the data set
    budgets: Mapping[str, StepBudget] = {}  # step counts that adapt to N
    image_fields: Mapping[str, Any] = {}  # more, where rows are images that are large enough
    image_budgets: Mapping[str, StepBudget] = {}  # in place of those above


_MIN_IMAGE_SIDE = 16  # smaller images change too much when moved
_AUTHORS_SGD = {"name": "sgd", "momentum": 0.9}
_AUTHORS_PICTURES = {"scaling": "none", "clustering.update_interval": 40}
_AUTHORS_TEXT = {"scaling": "none", "scale": math.sqrt(2000), "clustering.update_interval": 20}

#: ``paper``: the constants of the authors' code. ``fast``: minutes on a CPU.
PRESETS: Mapping[str, Preset] = {
    "paper": Preset(
        fields={
            "network.initializer": "normal",
            "pretrain.layerwise_steps": 50_000,
            "pretrain.finetune_steps": 100_000,
            "pretrain.batch_order": "sequential",
            "pretrain.corruption_rate": 0.2,
            "pretrain.loss_scale": 0.5,
            "pretrain.rows": "train",
            "pretrain.optimizer": {
                **_AUTHORS_SGD,
                "learning_rate": 0.1,
                "schedule": "step",
                "decay_every": 20_000,
                "momentum_warmup_steps": 1000,
                "bias_multiplier": 2.0,
            },
            "clustering.update_interval": 160,
            "clustering.max_intervals": 200,
            "clustering.batch_order": "sequential",
            "clustering.reset_optimizer": True,
            "clustering.optimizer": {**_AUTHORS_SGD, "learning_rate": 0.01},
        },
        by_dataset={
            "mnist": {"scaling": "none", "scale": 0.02},
            "stl10": _AUTHORS_PICTURES,
            "cifar10": _AUTHORS_PICTURES,
            "reuters": _AUTHORS_TEXT,
            "reuters10k": _AUTHORS_TEXT,
        },
    ),
    "fast": Preset(
        fields={
            "network.hidden_dims": (128, 128, 512),
            "pretrain.finetune_corruption_rate": 0.2,
            "pretrain.optimizer": {"name": "adam", "learning_rate": 1e-3, "schedule": "one_cycle"},
            "kmeans.max_iter": 60,
            "kmeans.select": "modularity",
            "kmeans.max_rows": 100_000,
            "graph.space": "data",
            "clustering.max_intervals": 15,
            "clustering.optimizer": {"name": "adam", "learning_rate": 1e-4},
        },
        budgets={
            "pretrain.finetune_steps": StepBudget(epochs=2, min_steps=1000, max_steps=6000),
            "clustering.update_interval": StepBudget(epochs=1, min_steps=30, max_steps=300),
            "clustering.warmup_steps": StepBudget(epochs=2, min_steps=300, max_steps=600),
        },
        image_fields={
            "augmentation.max_shift": 2.0,
            "augmentation.max_rotation": 10.0,
            "augmentation.max_zoom": 0.1,
            "augmentation.max_shear": 0.1,
            # Random variants teach the embedding what pixels do not show.
            "graph.space": "embedding",
            # The bottleneck has removed the noise that diffusion would.
            "graph.eigenvectors": (1.5,),
            "graph.diffusion_times": (0.0,),
            "network.hidden_dims": (256, 256, 512),
        },
        image_budgets={
            "pretrain.finetune_steps": StepBudget(epochs=22, min_steps=2000, max_steps=6000),
        },
    ),
}


def preset_config(
    preset: str,
    *,
    n_clusters: int,
    n_rows: int,
    dataset: str = "",
    image_shape: tuple[int, ...] | None = None,
) -> Config:
    """Return the configuration that a preset gives for a data set.

    Args:
        preset: ``paper`` or ``fast``.
        n_clusters: K.
        n_rows: N, to which step counts of ``fast`` adapt.
        dataset: Name of the data set, for constants that only it has.
        image_shape: Where rows are images.

    Returns:
        The configuration.

    Raises:
        ValueError: For an unknown preset or a number out of range.

    Examples:
        >>> preset_config("paper", n_clusters=10, n_rows=70_000, dataset="mnist").scale
        0.02

    Source: Xie et al. 2016, section 4.3, and the authors' code.
    """
    check_choice("preset", preset, PRESETS)
    check_integer("n_rows", n_rows, maximum=2**63 - 1)
    if not isinstance(dataset, str):
        raise ValueError(f"dataset: expected a name, got {shown(dataset)}")
    recipe = PRESETS[preset]
    fields = {**recipe.fields, **recipe.by_dataset.get(dataset, {})}
    budgets = {**recipe.budgets}
    config = Config(n_clusters=n_clusters, image_shape=image_shape)
    if config.image_shape is not None and min(config.image_shape[:2]) >= _MIN_IMAGE_SIDE:
        fields |= recipe.image_fields
        budgets |= recipe.image_budgets
    config = config.replace(fields)
    for name, budget in budgets.items():
        phase = config.pretrain if name.startswith("pretrain.") else config.clustering
        fields.setdefault(name, budget.steps(n_rows, phase.batch_size))
    return config.replace(fields)
