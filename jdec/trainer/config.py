"""Every setting of a run as frozen dataclasses: documented, defaulted and validated here alone."""

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
from jdec._io import parse_json, read_json
from jdec.core.augmentation import Augmentation
from jdec.core.networks import INITIALIZERS, PRECISIONS
from jdec.core.optimizers import OPTIMIZERS, SCHEDULES, check_weight_decay
from jdec.core.start import CRITERIA
from jdec.core.training import BATCH_ORDERS
from jdec.trainer.scaling import SCALINGS

#: Kinds of built-in networks.
NETWORKS = ("mlp", "conv")

_MAX_LAYERS = 100
_MAX_RESTARTS = 10**6  # each has a key and a result in memory
_INT32 = 2**31 - 1


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer of one phase.

    Attributes:
        name: sgd, adam, or another of optax's aliases: adamw, lion, rmsprop, ….
        learning_rate: Base (constant, step) or peak (cosine, one_cycle) learning rate.
        schedule: constant, step, cosine or one_cycle.
        decay_every: Steps between the decays of the step schedule.
        decay_rate: Factor of each decay.
        momentum: Momentum of sgd.
        momentum_warmup_steps: Steps over which momentum rises linearly from 0.
        bias_multiplier: Factor on the learning rate of biases.
        weight_decay: Decoupled weight decay of the weights; of sgd, adam and the aliases with one.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "constant"
    decay_every: int = 20_000
    decay_rate: float = 0.1
    momentum: float = 0.9
    momentum_warmup_steps: int = 0
    bias_multiplier: float = 1.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Validate the fields."""
        check_choice("optimizer.name", self.name, OPTIMIZERS)
        _check_float(self, "learning_rate", check_positive)
        check_choice("schedule", self.schedule, SCHEDULES)
        _check_count(self, "decay_every")
        _check_float(self, "decay_rate", check_positive)
        _check_float(self, "momentum", check_fraction)
        _check_count(self, "momentum_warmup_steps", minimum=0)
        _check_float(self, "bias_multiplier", check_positive)
        _check_float(self, "weight_decay", check_non_negative)
        check_weight_decay(self.name, self.weight_decay)


@dataclass(frozen=True)
class NetworkConfig:
    """The autoencoder.

    Attributes:
        kind: mlp: fully connected; conv: convolutional, for rows that are images (image_shape).
        hidden_dims: Widths between the data and the embedding, of mlp.
        channels: Channels of the convolutions, of conv; each halves height and width.
        kernel_sizes: Height and width of their kernels, one for each.
        latent_dim: Z, width of the embedding.
        initializer: fan_in_uniform: U(±1/√fan_in); normal: N(0, 0.01²), the authors'.
        precision: float32, also on accelerators; tensorfloat32, where a GPU has it; bfloat16:
            products in bfloat16, with parameters, distances and sums in float32.
    """

    kind: Literal["mlp", "conv"] = "mlp"
    hidden_dims: tuple[int, ...] = (500, 500, 2000)
    channels: tuple[int, ...] = (32, 64, 128)
    kernel_sizes: tuple[int, ...] = (5, 5, 3)
    latent_dim: int = 10
    initializer: Literal["fan_in_uniform", "normal"] = "fan_in_uniform"
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Validate the fields."""
        check_choice("kind", self.kind, NETWORKS)
        for name in ("hidden_dims", "channels", "kernel_sizes"):
            values = _integers(name, getattr(self, name))
            object.__setattr__(self, name, values)
            if len(values) >= _MAX_LAYERS:
                raise ValueError(
                    f"{name}: expected fewer than {_MAX_LAYERS} layers, got {len(values)}"
                )
        if not self.channels or len(self.channels) != len(self.kernel_sizes):
            raise ValueError(
                "kernel_sizes: expected one for each of channels, at least one; got "
                f"{self.kernel_sizes} for channels {self.channels}"
            )
        _check_count(self, "latent_dim")
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
        layerwise_steps: Steps of each layer in the greedy stage; 0 disables the stage.
        finetune_steps: Steps of the end-to-end stage; 0 disables the stage.
        batch_size: Rows in a mini-batch.
        batch_order: random (with replacement) or sequential (in order, cyclic).
        corruption_rate: Masking noise of the greedy stage, on layer inputs and codes.
        corrupt_data: Whether the greedy stage masks the data itself for the first layer as well.
        finetune_corruption_rate: Masking noise on the data in the end-to-end stage.
        loss_scale: Factor on the mean squared error; the authors' code has 0.5.
        rows: all, or only the training split where the data set has one.
        optimizer: Of both stages; each layer and the end-to-end stage start with a fresh state.
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
        """Validate the fields."""
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
        overclustering_factors: Sub-clusters per cluster, which Ward linkage then merges; 1 is plain
            k-means. Each value is tried, with n_init restarts each.
        n_init: Restarts.
        max_iter: Maximum number of iterations of a restart.
        tol: Movement of the centroids, relative to the variance, that ends a restart.
        select: Which restart to start from: inertia: the minimum; kl: the maximum of KL(P||Q),
            which is what self-training has to learn from.
    """

    overclustering_factors: tuple[int, ...] = (1,)
    n_init: int = 20
    max_iter: int = 300
    tol: float = 1e-4
    select: Literal["inertia", "kl"] = "inertia"

    def __post_init__(self) -> None:
        """Validate the fields."""
        factors = _integers("overclustering_factors", self.overclustering_factors)
        object.__setattr__(self, "overclustering_factors", factors)
        if not 0 < len(factors) <= _MAX_LAYERS:
            raise ValueError(
                f"overclustering_factors: expected at least one value and at most {_MAX_LAYERS}, "
                f"got {len(factors) or 'none'}"
            )
        _check_count(self, "n_init", maximum=_MAX_RESTARTS)
        _check_count(self, "max_iter")
        _check_float(self, "tol", check_non_negative)
        check_choice("select", self.select, CRITERIA)


@dataclass(frozen=True)
class ClusteringConfig:
    """Self-training on the auxiliary target distribution.

    Attributes:
        alpha: Degrees of freedom of Student's t kernel.
        tol: Stop when fewer than this share of the labels change.
        update_interval: Mini-batch steps between refreshes of P.
        max_intervals: Stop after this many in any case; 0 keeps the initialisation.
        batch_size: Rows in a mini-batch.
        batch_order: random (with replacement) or sequential (in order, cyclic).
        corruption_rate: Masking noise on the mini-batches; P and labels come from clean rows.
        reconstruction_weight: Factor γ on the mean squared error of the reconstruction, which is
            then added to the KL (IDEC, Guo et al. 2017); the decoder is trained on and saved.
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
    reconstruction_weight: float = 0.0
    freeze_encoder: bool = False
    reset_optimizer: bool = False
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("adam", 1e-4))

    def __post_init__(self) -> None:
        """Validate the fields."""
        _check_float(self, "alpha", check_positive)
        _check_float(self, "tol", check_non_negative)
        _check_count(self, "update_interval")
        _check_count(self, "max_intervals", minimum=0)
        _check_count(self, "batch_size")
        check_choice("batch_order", self.batch_order, BATCH_ORDERS)
        _check_float(self, "corruption_rate", check_fraction)
        _check_float(self, "reconstruction_weight", check_non_negative)
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
        augmentation: Random variants of images, drawn for every mini-batch. P and labels come from
            unaltered images.
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
        """Validate the fields."""
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
        if self.network.kind == "conv" and self.image_shape is None:
            raise ValueError("network.kind: expected image_shape as well for conv")

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


def _check_float(config: Any, name: str, check: Callable[[str, Any], None]) -> None:
    """Validate a number, also once it is a float32 as all arithmetic here."""
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
