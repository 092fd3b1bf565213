"""Every setting of a run as frozen, validated dataclasses, and the two presets as data."""

import dataclasses
import json
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from jdec._checks import (
    check_choice,
    check_flag,
    check_fraction,
    check_integer,
    check_non_negative,
    check_positive,
    shown,
)
from jdec._environment import free_device_bytes
from jdec._io import parse_json, read_json
from jdec.core.augmentation import Augmentation
from jdec.core.autoencoder import INITIALIZERS, PRECISIONS
from jdec.core.training import BATCH_ORDERS, OPTIMIZERS, SCHEDULES
from jdec.trainer.scaling import SCALINGS

_MAX_LAYERS = 100
_MAX_RESTARTS = 10**6  # each has a key and a result in memory
_INT32 = 2**31 - 1


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer of one phase.

    Attributes:
        name: sgd or adam.
        learning_rate: Base (constant, step) or peak (cosine, one_cycle) learning rate.
        schedule: constant, step, cosine or one_cycle.
        decay_every: Steps between the decays of the step schedule.
        decay_rate: Factor of each decay.
        momentum: Momentum of SGD.
        momentum_warmup_steps: Steps over which momentum rises linearly from 0.
        bias_multiplier: Factor on the learning rate of biases.
        weight_decay: Decoupled weight decay of the weights.
    """

    name: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "constant"
    decay_every: int = 20_000
    decay_rate: float = 0.1
    momentum: float = 0.9
    momentum_warmup_steps: int = 0
    bias_multiplier: float = 1.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_choice("optimizer.name", self.name, OPTIMIZERS)
        _check_float(self, "learning_rate", check_positive)
        check_choice("schedule", self.schedule, SCHEDULES)
        _check_count(self, "decay_every")
        _check_float(self, "decay_rate", check_positive)
        _check_float(self, "momentum", check_fraction)
        _check_count(self, "momentum_warmup_steps", minimum=0)
        _check_float(self, "bias_multiplier", check_positive)
        _check_float(self, "weight_decay", check_non_negative)


@dataclass(frozen=True)
class NetworkConfig:
    """The autoencoder.

    Attributes:
        hidden_dims: Widths between the data and the embedding.
        latent_dim: Z, width of the embedding.
        initializer: fan_in_uniform: U(±1/√fan_in); normal: N(0, 0.01²), the authors'.
        precision: float32, also on accelerators; tensorfloat32, where a GPU has it; bfloat16:
            products in bfloat16, with parameters, distances and sums in float32.
    """

    hidden_dims: tuple[int, ...] = (500, 500, 2000)
    latent_dim: int = 10
    initializer: Literal["fan_in_uniform", "normal"] = "fan_in_uniform"
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        object.__setattr__(self, "hidden_dims", _integers("hidden_dims", self.hidden_dims))
        _check_count(self, "latent_dim")
        if len(self.hidden_dims) >= _MAX_LAYERS:
            raise ValueError(
                f"hidden_dims: expected fewer than {_MAX_LAYERS} layers, "
                f"got {len(self.hidden_dims)}"
            )
        for pair in pairwise((*self.hidden_dims, self.latent_dim)):
            if math.prod(pair) > _INT32:
                raise ValueError(
                    f"hidden_dims: expected layers of at most {_INT32} weights, "
                    f"got {pair[0]} x {pair[1]}"
                )
        check_choice("initializer", self.initializer, INITIALIZERS)
        check_choice("precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class PretrainConfig:
    """Pretraining of the autoencoder.

    Attributes:
        layerwise_steps: Steps of each layer in the greedy stage; 0 leaves the stage out.
        finetune_steps: Steps of the end-to-end stage; 0 leaves the stage out.
        batch_size: Rows in a mini-batch.
        batch_order: random (with replacement) or sequential (in order, cyclic).
        corruption_rate: Masking noise of the greedy stage, on layer inputs and codes.
        corrupt_data: Whether the greedy stage masks the data itself for the first layer as well.
        finetune_corruption_rate: Masking noise on the data in the end-to-end stage.
        loss_scale: Factor on the mean squared error; the authors' code has 0.5.
        rows: all, or only the training split where the data set has one.
        optimizer: Of both stages; each layer and the end-to-end stage start it afresh.
    """

    layerwise_steps: int = 0
    finetune_steps: int = 4000
    batch_size: int = 256
    batch_order: Literal["random", "sequential"] = "random"
    corruption_rate: float = 0.2
    corrupt_data: bool = False
    finetune_corruption_rate: float = 0.0
    loss_scale: float = 1.0
    rows: Literal["all", "train"] = "all"
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig("adam", 1e-3, "one_cycle")
    )

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _check_count(self, "layerwise_steps", minimum=0)
        _check_count(self, "finetune_steps", minimum=0)
        _check_count(self, "batch_size")
        check_choice("batch_order", self.batch_order, BATCH_ORDERS)
        _check_float(self, "corruption_rate", check_fraction)
        _check_float(self, "finetune_corruption_rate", check_fraction)
        _check_float(self, "loss_scale", check_positive)
        check_choice("rows", self.rows, ("all", "train"))
        _check_flag(self, "corrupt_data")
        _check_part("optimizer", self.optimizer, OptimizerConfig)


@dataclass(frozen=True)
class KMeansConfig:
    """Initial centroids: k-means on the embeddings.

    Attributes:
        oversampling: Pieces for each cluster that k-means finds and Ward linkage then merges; 1 is
            plain k-means. Each value is tried, with n_init restarts each.
        n_init: Restarts.
        max_iter: Most iterations of a restart.
        tol: Movement of the centroids, relative to the variance, that ends a restart.
        select: Which restart to start from: inertia: the least; divergence: the greatest KL(P||Q),
            which is what self-training has to learn from.
    """

    oversampling: tuple[int, ...] = (1,)
    n_init: int = 20
    max_iter: int = 300
    tol: float = 1e-4
    select: Literal["inertia", "divergence"] = "inertia"

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        object.__setattr__(self, "oversampling", _integers("oversampling", self.oversampling))
        if not 0 < len(self.oversampling) <= _MAX_LAYERS:
            raise ValueError(
                f"oversampling: expected at least one value and at most {_MAX_LAYERS}, "
                f"got {len(self.oversampling) or 'none'}"
            )
        _check_count(self, "n_init", maximum=_MAX_RESTARTS)
        _check_count(self, "max_iter")
        _check_float(self, "tol", check_non_negative)
        check_choice("select", self.select, ("inertia", "divergence"))


@dataclass(frozen=True)
class ClusteringConfig:
    """Self-training on the auxiliary target distribution.

    Attributes:
        alpha: Degrees of freedom of Student's t kernel.
        tol: Stop when fewer than this share of the labels change.
        update_interval: Mini-batch steps between refreshes of P.
        max_intervals: Stop after this many in any case; 0 keeps the k-means result.
        batch_size: Rows in a mini-batch.
        batch_order: random (with replacement) or sequential (in order, cyclic).
        corruption_rate: Masking noise on the mini-batches; P and labels come from clean rows.
        freeze_encoder: Train the centroids alone.
        reset_optimizer: Fresh optimizer state at every refresh, as the authors' code.
        optimizer: Of encoder and centroids; cosine and one_cycle span max_intervals.
    """

    alpha: float = 1.0
    tol: float = 1e-3
    update_interval: int = 160
    max_intervals: int = 100
    batch_size: int = 256
    batch_order: Literal["random", "sequential"] = "random"
    corruption_rate: float = 0.0
    freeze_encoder: bool = False
    reset_optimizer: bool = False
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("adam", 1e-4))

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _check_float(self, "alpha", check_positive)
        _check_float(self, "tol", check_non_negative)
        _check_count(self, "update_interval")
        _check_count(self, "max_intervals", minimum=0)
        _check_count(self, "batch_size")
        check_choice("batch_order", self.batch_order, BATCH_ORDERS)
        _check_float(self, "corruption_rate", check_fraction)
        _check_flag(self, "freeze_encoder")
        _check_flag(self, "reset_optimizer")
        _check_part("optimizer", self.optimizer, OptimizerConfig)
        if self.update_interval * self.max_intervals > _INT32:  # steps are counted in int32
            raise ValueError(
                f"max_intervals: expected at most {_INT32} steps in all, got {self.max_intervals} "
                f"intervals of {self.update_interval}"
            )


@dataclass(frozen=True)
class Config:
    """All that determines a run, together with the data and the random key.

    Attributes:
        n_clusters: K.
        scaling: rms (divide all by the root mean square), standard (each column), minmax (all to
            0..1), or none.
        scale: Factor on the scaled data.
        image_shape: (height, width) or (height, width, channels) of rows that are images.
        augmentation: Random variants of images, drawn anew whenever they are in a mini-batch. P and
            labels come from the images as they are.
        network: The autoencoder.
        pretrain: Its pretraining.
        kmeans: The initial centroids.
        clustering: Self-training.
    """

    n_clusters: int
    scaling: Literal["rms", "standard", "minmax", "none"] = "rms"
    scale: float = 1.0
    image_shape: tuple[int, ...] | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    kmeans: KMeansConfig = field(default_factory=KMeansConfig)
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _check_count(self, "n_clusters")
        check_choice("scaling", self.scaling, SCALINGS)
        _check_float(self, "scale", check_positive)
        _check_part("augmentation", self.augmentation, Augmentation)
        for name in vars(self.augmentation):
            _check_float(self.augmentation, name, check_non_negative)
        _check_part("network", self.network, NetworkConfig)
        _check_part("pretrain", self.pretrain, PretrainConfig)
        _check_part("kmeans", self.kmeans, KMeansConfig)
        _check_part("clustering", self.clustering, ClusteringConfig)
        if self.image_shape is not None:
            object.__setattr__(self, "image_shape", _integers("image_shape", self.image_shape))
            if len(self.image_shape) not in (2, 3):
                raise ValueError(
                    "image_shape: expected (height, width) or (height, width, channels), "
                    f"got {self.image_shape}"
                )
        if self.augmentation and self.image_shape is None:
            raise ValueError("augmentation: expected image_shape as well, to know what to move")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as nested dictionaries of plain JSON values."""
        return json.loads(self.to_json())

    def flat(self) -> dict[str, Any]:
        """Return the settings by their dotted names."""
        return _flatten(self.to_dict())

    def to_json(self) -> str:
        """Return the settings as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read settings from nested dictionaries; fields left out take their defaults.

        Args:
            values: As :meth:`to_dict` gives.

        Returns:
            The validated configuration.

        Raises:
            ValueError: For an unknown or missing field, or a value out of range.

        Examples:
            >>> config = Config(n_clusters=3, scaling="none")
            >>> Config.from_dict(config.to_dict()) == config
            True
            >>> Config.from_dict({"n_cluster": 3})
            Traceback (most recent call last):
            ValueError: unknown config field 'n_cluster'; known: n_clusters, scaling, scale, ...
        """
        return _from_dict(cls, values, prefix="")

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read settings from JSON text.

        Raises:
            ValueError: If the text is not JSON, or as :meth:`from_dict`.
        """
        if not isinstance(text, str | bytes | bytearray):
            raise ValueError(f"config: expected JSON text, got {shown(text)}")
        try:
            values = parse_json(text)
        except ValueError as error:
            raise ValueError(f"config: {error}") from error
        return cls.from_dict(_as_object(values))

    def replace(self, fields: Mapping[str, Any]) -> Self:
        """Return a copy with some fields changed; nested ones are named with dots.

        Args:
            fields: Dotted name to new value.

        Returns:
            The validated copy.

        Raises:
            ValueError: For an unknown field or a value out of range.

        Examples:
            >>> Config(n_clusters=3).replace({"clustering.alpha": 2.0}).clustering.alpha
            2.0
        """
        if not isinstance(fields, Mapping):
            raise ValueError(f"config: expected fields by name, got {shown(fields)}")
        values = self.to_dict()
        for name, value in fields.items():
            *parents, leaf = name.split(".") if isinstance(name, str) else [name]
            target: Any = values
            for parent in parents:
                inner = target.get(parent)
                if not isinstance(inner, Mapping):
                    raise ValueError(f"unknown config field {shown(name)}")
                # A copy, since an earlier value may be the caller's.
                target[parent] = target = dict(inner)
            if leaf not in target:
                raise ValueError(f"unknown config field {shown(name)}")
            target[leaf] = value
        return self.from_dict(values)

    def differences(self, other: "Config") -> list[str]:
        """Return a line for each field that differs: ``name: this value, that value``."""
        mine, theirs = self.flat(), other.flat()
        return [
            f"{name}: {mine[name]!r} against {theirs.get(name)!r}"
            for name in mine
            if mine[name] != theirs.get(name)
        ]


def _check_float(config: Any, name: str, check: Callable[[str, Any], None]) -> None:
    """Refuse a number that is out of range, also once it is a float32 as all arithmetic here."""
    value = getattr(config, name)
    check(name, value)
    limits = np.finfo(np.float32)
    number = float(value)
    if number and not float(limits.tiny) <= abs(number) <= float(limits.max):
        raise ValueError(
            f"{name}: expected 0 or a number from {limits.tiny:.3g} to {limits.max:.3g} (float32), "
            f"got {shown(value)}"
        )
    check(name, float(np.float32(number)))
    if type(value) not in (int, float):  # NumPy's numbers become Python's
        object.__setattr__(config, name, number)


def _check_count(config: Any, name: str, *, minimum: int = 1, maximum: int = _INT32) -> None:
    value = getattr(config, name)
    check_integer(name, value, minimum=minimum, maximum=maximum)
    object.__setattr__(config, name, int(value))


def _check_flag(config: Any, name: str) -> None:
    value = getattr(config, name)
    check_flag(name, value)
    object.__setattr__(config, name, bool(value))


def _integers(name: str, values: Any) -> tuple[int, ...]:
    is_list = isinstance(values, Sequence) and not isinstance(values, str | bytes)
    if not is_list and not (isinstance(values, np.ndarray) and values.ndim):
        raise ValueError(f"{name}: expected a list of integers, got {shown(values)}")
    for value in values:
        check_integer(name, value)
    return tuple(map(int, values))


def _check_part(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{name}: expected a {kind.__name__}, got {shown(value)}")


def _as_object(values: Any) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"config: expected a JSON object, got {type(values).__name__}")
    return values


def check_memory(config: Config, n_rows: int, n_features: int, n_devices: int = 1) -> None:
    """Refuse settings that take more memory than there is, whatever else a run needs.

    Args:
        config: The settings.
        n_rows: N.
        n_features: D.
        n_devices: Over which the rows are spread.

    Raises:
        ValueError: Names what takes the most.

    Examples:
        >>> check_memory(Config(n_clusters=3), n_rows=1000, n_features=10)
        >>> check_memory(Config(n_clusters=10**9), n_rows=10**9, n_features=10)
        Traceback (most recent call last):
        ValueError: n_clusters × rows: expected settings that take at most ... GiB, ...
    """
    free = free_device_bytes()
    if free is None:
        return
    dims = (n_features, *config.network.hidden_dims, config.network.latent_dim)
    n_weights = 2 * sum(math.prod(pair) for pair in pairwise(dims))
    trains = config.pretrain.finetune_steps or config.pretrain.layerwise_steps
    batch_size = max(
        config.pretrain.batch_size if trains else 1,
        config.clustering.batch_size if config.clustering.max_intervals else 1,
    )
    restarts = config.kmeans.n_init * config.n_clusters * config.network.latent_dim
    numbers = {
        "network.hidden_dims": n_weights * (2 if trains else 1),  # with gradients
        "batch_size × network.hidden_dims": batch_size * sum(dims),
        "n_clusters × rows": config.n_clusters * (2 * n_rows // n_devices),  # Q and P
        "kmeans.n_init × n_clusters": restarts,
    }
    needed = 4 * sum(numbers.values())
    if needed > free:
        raise ValueError(
            f"{max(numbers, key=lambda name: numbers[name])}: expected settings that take at most "
            f"{free / 2**30:.3g} GiB, which are free, got some that take {needed / 2**30:.3g} GiB "
            "and more"
        )


def read_config(path: str | Path) -> Config:
    """Read a configuration from a JSON file.

    Raises:
        ValueError: If the file cannot be read or does not hold a configuration.
    """
    try:
        return Config.from_dict(_as_object(read_json(path)))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"config: cannot read {path}: {reason}") from error


def _from_dict(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    if not isinstance(values, Mapping):
        raise ValueError(f"{prefix[:-1] or 'config'}: expected an object, got {shown(values)}")
    fields = {entry.name: entry for entry in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    known: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise ValueError(
                f"unknown config field {shown(f'{prefix}{name}')}; known: {', '.join(fields)}"
            )
        if dataclasses.is_dataclass(hints[name]):
            value = _from_dict(hints[name], value, f"{prefix}{name}.")
        known[name] = value
    try:
        return cls(**known)
    except TypeError as error:
        raise ValueError(f"config: {prefix or 'top level'}: {error}") from error


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


@dataclass(frozen=True)
class Budget:
    """Number of steps that grows with the data: ``epochs`` passes, within bounds."""

    epochs: float
    at_least: int
    at_most: int

    def steps(self, n_rows: int, batch_size: int) -> int:
        """Return the number of steps for N rows."""
        steps = math.ceil(self.epochs * n_rows / batch_size)
        return min(max(steps, self.at_least), self.at_most)


@dataclass(frozen=True)
class Preset:
    """A recipe: settings, and the few that follow from the data.

    Attributes:
        fields: Dotted field names and their values.
        by_dataset: More fields for data sets of these names.
        budgets: Dotted names of step counts that adapt to N.
        image_fields: More fields where rows are images of at least 16 pixels a side; smaller ones
            do not bear being moved.
    """

    fields: Mapping[str, Any]
    by_dataset: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    image_fields: Mapping[str, Any] = field(default_factory=dict)


_SMALLEST_IMAGE = 16
_AUTHORS_SGD = {"name": "sgd", "momentum": 0.9}
# Gentler steps, and no one oversampling that suits it.
_SPARSE_TEXT = {
    "pretrain.optimizer.learning_rate": 3e-4,
    "kmeans.oversampling": (1, 2, 3, 4, 6),
    "kmeans.n_init": 4,
    "clustering.optimizer": {**_AUTHORS_SGD, "learning_rate": 0.01},
}

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
            "stl10": {"scaling": "none", "clustering.update_interval": 40},
            "cifar10": {"scaling": "none", "clustering.update_interval": 40},
            "reuters": {
                "scaling": "none",
                "scale": math.sqrt(2000),
                "clustering.update_interval": 20,
            },
            "reuters10k": {
                "scaling": "none",
                "scale": math.sqrt(2000),
                "clustering.update_interval": 20,
            },
        },
    ),
    "fast": Preset(
        fields={
            "pretrain.finetune_corruption_rate": 0.2,
            "pretrain.optimizer": {"name": "adam", "learning_rate": 1e-3, "schedule": "one_cycle"},
            "kmeans.oversampling": (6,),
            "kmeans.n_init": 5,
            "kmeans.max_iter": 60,
            "kmeans.select": "divergence",
            "clustering.max_intervals": 15,
            "clustering.optimizer": {"name": "adam", "learning_rate": 1e-4},
        },
        budgets={
            "pretrain.finetune_steps": Budget(epochs=15, at_least=2000, at_most=4000),
            "clustering.update_interval": Budget(epochs=1, at_least=30, at_most=300),
        },
        by_dataset={
            "reuters10k": {**_SPARSE_TEXT, "pretrain.finetune_steps": 1000},
            "reuters": _SPARSE_TEXT,  # 1000 steps would not see each of its rows once
        },
        image_fields={
            "augmentation": {
                "max_shift": 2.0,
                "max_rotation": 10.0,
                "max_zoom": 0.1,
                "max_shear": 0.1,
            }
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
        dataset: Name of the data set, for constants of its own.
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
    config = Config(n_clusters=n_clusters, image_shape=image_shape)
    if config.image_shape is not None and min(config.image_shape[:2]) >= _SMALLEST_IMAGE:
        fields |= recipe.image_fields
    config = config.replace(fields)
    steps = {}
    for name, budget in recipe.budgets.items():
        if name in fields:
            continue
        phase = config.pretrain if name.startswith("pretrain.") else config.clustering
        steps[name] = budget.steps(n_rows, phase.batch_size)
    return config.replace(steps)
