"""Every setting of a run as frozen dataclasses: documented, defaulted and validated here alone."""

import dataclasses
import json
import math
import typing
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from jdec import _checks as checks
from jdec._io import parse_json, read_json
from jdec.core.augmentation import Augmentation
from jdec.core.optimizers import OPTIMIZERS, check_weight_decay

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
        checks.check_choice("optimizer.name", self.name, OPTIMIZERS)
        zero = ("momentum_warmup_steps", "weight_decay")
        _check_fields(self, may_be_0=zero, fractions=("momentum",))
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
        _check_fields(self)
        for name in ("hidden_dims", "channels", "kernel_sizes"):
            depth = len(getattr(self, name))
            if depth >= _MAX_LAYERS:
                raise ValueError(f"{name}: expected fewer than {_MAX_LAYERS} layers, got {depth}")
        if not self.channels or len(self.channels) != len(self.kernel_sizes):
            raise ValueError(
                "kernel_sizes: expected one for each of channels, at least one; got "
                f"{self.kernel_sizes} for channels {self.channels}"
            )
        for pair in pairwise((*self.hidden_dims, self.latent_dim)):
            if math.prod(pair) > _INT32:
                raise ValueError(
                    f"hidden_dims: expected layers of at most {_INT32} weights, "
                    f"got {pair[0]} x {pair[1]}"
                )


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
        _check_fields(
            self,
            may_be_0=("layerwise_steps", "finetune_steps"),
            fractions=("corruption_rate", "finetune_corruption_rate"),
        )


@dataclass(frozen=True)
class KMeansConfig:
    """Initial centroids: k-means on the embeddings.

    Attributes:
        overclustering_factors: Sub-clusters per cluster, which Ward linkage then merges; 1 is plain
            k-means. Each value is tried, with n_init restarts each.
        n_init: Restarts.
        max_iter: Maximum number of iterations of a restart.
        tol: Movement of the centroids, relative to the variance, that ends a restart.
        select: Which partition to start from: inertia: the minimum; kl: the maximum of KL(P||Q),
            which is what self-training has to learn from; modularity: the majority of those of
            highest modularity on the graph of nearest neighbours; see ``graph``.
        max_rows: Of more rows, a sample of so many, or of n_clusters, is partitioned and trained on
            in the warm-up; the others begin with their nearest centroid.
    """

    overclustering_factors: tuple[int, ...] = (1,)
    n_init: int = 20
    max_iter: int = 300
    tol: float = 1e-4
    select: Literal["inertia", "kl", "modularity"] = "inertia"
    max_rows: int = 1_000_000

    def __post_init__(self) -> None:
        """Validate the fields."""
        _check_fields(self, may_be_0=("tol",))
        checks.check_integer("n_init", self.n_init, maximum=_MAX_RESTARTS)
        factors = self.overclustering_factors
        _check_count("overclustering_factors", factors)
        if self.select == "modularity" and factors != (1,):
            raise ValueError(
                f"overclustering_factors: expected 1 for select=modularity, got {factors}; "
                "graph.subclusters is what it merges"
            )


@dataclass(frozen=True)
class GraphConfig:
    """Graph of nearest neighbours, and its spectral partitions; for kmeans.select=modularity.

    Attributes:
        space: What neighbours are found in and partitioned: data (principal components of the
            scaled rows) or embedding (as pretrained).
        n_components: Principal components of data; rows of fewer columns are taken as they are.
        n_neighbors: Nearest neighbours of a row.
        max_rows: Of more rows, a sample of so many has neighbours, among themselves.
        subclusters: Sub-clusters of k-means per cluster, at most 1000 in all, which are merged.
        eigenvectors: Their numbers per cluster to be tried, in merging sub-clusters.
        diffusion_times: To be tried, steps of a random walk: the longer, the less the eigenvectors
            of small eigenvalues count; 0 counts all alike.
        n_init: Clusterings into sub-clusters; each is merged with each number of eigenvectors and
            each diffusion time.
        kmeans_restarts: Partitions by plain k-means, which are candidates as well.
        resolution: γ of the modularity: smaller values ask less for clusters of equal size.
        n_votes: Number of partitions, those of highest modularity that differ, whose majority gives
            each row its cluster; 1 takes the best.
    """

    space: Literal["data", "embedding"] = "embedding"
    n_components: int = 50
    n_neighbors: int = 15
    max_rows: int = 100_000
    subclusters: int = 40
    eigenvectors: tuple[float, ...] = (1.5, 2.0)
    diffusion_times: tuple[float, ...] = (2.0, 8.0)
    n_init: int = 20
    kmeans_restarts: int = 50
    resolution: float = 0.85
    n_votes: int = 5

    def __post_init__(self) -> None:
        """Validate the fields."""
        _check_fields(self, may_be_0=("diffusion_times", "resolution"))
        for name in ("eigenvectors", "diffusion_times"):
            _check_count(name, getattr(self, name))


@dataclass(frozen=True)
class ClusteringConfig:
    """Self-training on the auxiliary target distribution.

    Attributes:
        alpha: Degrees of freedom of Student's t kernel.
        tol: Stop when fewer than this share of the labels change.
        update_interval: Mini-batch steps between refreshes of P.
        max_intervals: Stop after this many in any case; 0 keeps the initialisation and
            leaves the warm-up out.
        batch_size: Rows in a mini-batch.
        batch_order: random (with replacement) or sequential (in order, cyclic).
        corruption_rate: Masking noise on the mini-batches; P and labels come from clean rows.
        reconstruction_weight: Factor γ on the mean squared error of the reconstruction, which is
            then added to the KL (IDEC, Guo et al. 2017); the decoder is trained on and saved.
        freeze_encoder: Train the centroids alone.
        reset_optimizer: Fresh optimizer state at every refresh, as the authors' code.
        optimizer: Of encoder and centroids; cosine and one_cycle span max_intervals.
        warmup_steps: Steps before the first refresh with P the initial partition, one-hot, because
            the nearest centroid may assign rows otherwise than the partition did; 0 disables them.
        warmup_optimizer: Of these steps.
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
    warmup_steps: int = 0
    warmup_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        """Validate the fields."""
        _check_fields(
            self,
            may_be_0=("tol", "max_intervals", "reconstruction_weight", "warmup_steps"),
            fractions=("corruption_rate",),
        )
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
        graph: The graph of nearest neighbours that they may follow.
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
    graph: GraphConfig = field(default_factory=GraphConfig)
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)

    def __post_init__(self) -> None:
        """Validate the fields."""
        _check_fields(self)
        _check_fields(self.augmentation, may_be_0=vars(self.augmentation))
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
            raise ValueError(f"config: expected JSON text, got {checks.shown(text)}")
        try:
            values = parse_json(text)
        except ValueError as error:
            raise ValueError(f"config: {error}") from error
        return cls.from_dict(_as_object(values))

    def replace(self, fields: Mapping[str, Any]) -> Self:
        """Return a copy with some fields changed; nested ones are named with dots.

        Raises:
            ValueError: For an unknown field or a value out of range.

        Examples:
            >>> Config(n_clusters=3).replace({"clustering.alpha": 2.0}).clustering.alpha
            2.0
        """
        if not isinstance(fields, Mapping):
            raise ValueError(f"config: expected fields by name, got {checks.shown(fields)}")
        values = self.to_dict()
        for name, value in fields.items():
            *parents, leaf = name.split(".") if isinstance(name, str) else [name]
            target: Any = values
            for parent in parents:
                inner = target.get(parent)
                # A copy, since an earlier value may be the caller's.
                target[parent] = target = dict(inner) if isinstance(inner, Mapping) else {}
            if leaf not in target:
                raise ValueError(f"unknown config field {checks.shown(name)}")
            target[leaf] = value
        return self.from_dict(values)


_Check = Callable[[str, Any], None]
_CHECKS: dict[Any, _Check] = {
    bool: checks.check_flag,
    float: checks.check_positive,
    int: checks.check_integer,
}
_CHECKS_WITH_0: dict[Any, _Check] = {
    float: checks.check_non_negative,
    int: partial(checks.check_integer, minimum=0),
}


def _check_fields(
    section: Any, *, may_be_0: Container[str] = (), fractions: Container[str] = ()
) -> None:
    """Validate all fields by their types; numbers are to be above 0 where nothing else is said.

    NumPy's values become Python's, and lists tuples.
    """
    for name, kind in typing.get_type_hints(type(section)).items():
        value = getattr(section, name)
        if typing.get_origin(kind) is Literal:
            checks.check_choice(name, value, typing.get_args(kind))
        elif typing.get_origin(kind) is tuple:
            if float in typing.get_args(kind):
                check = (_CHECKS_WITH_0 if name in may_be_0 else _CHECKS)[float]
                values: tuple[float, ...] = _floats(name, value, check)
            else:
                values = _integers(name, value)
            object.__setattr__(section, name, values)
        elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
            checks.check_kind(name, value, kind)
        elif kind in _CHECKS:
            check = (_CHECKS_WITH_0 if name in may_be_0 else _CHECKS)[kind]
            if name in fractions:
                check = checks.check_fraction
            check(name, value)
            if kind is float:
                _check_float32(name, value, check)
            if type(value) not in _CHECKS:
                object.__setattr__(section, name, kind(value))


def _check_float32(name: str, value: Any, check: _Check) -> None:
    """Validate a number as the float32 that it is in all arithmetic here."""
    limits = np.finfo(np.float32)
    number = float(value)
    if number and not float(limits.tiny) <= abs(number) <= float(limits.max):
        raise ValueError(
            f"{name}: expected 0 or a number from {limits.tiny:.3g} to {limits.max:.3g} (float32), "
            f"got {checks.shown(value)}"
        )
    check(name, float(np.float32(number)))


def _check_count(name: str, values: tuple[float, ...]) -> None:
    if not 0 < len(values) <= _MAX_LAYERS:
        raise ValueError(
            f"{name}: expected at least one value and at most {_MAX_LAYERS}, "
            f"got {len(values) or 'none'}"
        )


def _integers(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, Sequence | np.ndarray):  # an iterator is empty the second time
        raise ValueError(f"{name}: expected a list of integers, got {checks.shown(values)}")
    return checks.as_integers(name, values)


def _floats(name: str, values: Any, check: _Check) -> tuple[float, ...]:
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str | bytes):
        raise ValueError(f"{name}: expected a list of numbers, got {checks.shown(values)}")
    for value in values:
        check(name, value)
        _check_float32(name, value, check)
    return tuple(float(value) for value in values)


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
        raise ValueError(
            f"{prefix[:-1] or 'config'}: expected an object, got {checks.shown(values)}"
        )
    hints = typing.get_type_hints(cls)
    known: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            unknown = checks.shown(f"{prefix}{name}")
            raise ValueError(f"unknown config field {unknown}; known: {', '.join(hints)}")
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
        is_part = isinstance(value, dict)
        flat |= _flatten(value, f"{prefix}{name}.") if is_part else {prefix + name: value}
    return flat
