"""The arguments of each command."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from jdec.cli.parsing import Positional, arg
from jdec.core.augmentation import Augmentation
from jdec.trainer.config import (
    ClusteringConfig,
    GraphConfig,
    KMeansConfig,
    NetworkConfig,
    PretrainConfig,
)

_Preset = Literal["fast", "paper"]
_Data = Annotated[
    str,
    Positional,
    arg(
        metavar="DATA",
        help="Name of a data set (see jdec datasets), or a .npy, .npz, .csv, .tsv, .parquet, "
        ".arrow, .feather or .h5ad file.",
    ),
]
_Run = Annotated[
    Path, Positional, arg(metavar="RUN", help="Directory of the run, or its model.npz.")
]
_Config = Annotated[
    Path | None, arg(help="A config.json to read all settings from, instead of a preset.")
]
_Label = Annotated[
    str | None,
    arg(
        help="Column of the classes, only used for scores; by default one called label, class, "
        "target or y. With none such a column is a feature."
    ),
]
_Id = Annotated[
    str | None,
    arg(help="Column of row identifiers: not a feature; the first column of a CSV output."),
]
_Drop = Annotated[str | None, arg(help="Columns to drop: one, or a list (a,b,c).")]
_ImageShape = Annotated[
    tuple[int, ...] | None, arg(help="Height and width (and channels) of rows that are images.")
]
_DataDir = Annotated[Path | None, arg(help="Directory that is searched first for named data sets.")]
_Quiet = Annotated[bool, arg(help="No progress bars, no table.")]


@dataclass(frozen=True)
class Fit:
    """Cluster a data set; write labels, model, metrics and figures to a directory.

    Defaults below are those of the preset for 10 000 rows (for the other preset: --preset paper
    --help). The number of steps depends on the number of rows, and images have their own settings:
    config.json in the results holds those used.

    Attributes:
        n_clusters: Number of clusters; by default the number of classes of a named data set.
        preset: fast (minutes on a CPU) or paper (the authors' constants: hours on a CPU).
        seed: Seed of the random key.
        out: Output directory; by default runs/NAME.
        resume: Resume an interrupted run in the output directory.
        checkpoint_seconds: How long after a checkpoint the next is written, within a stage.
        devices: Shard the rows over this many devices.
        rows: device (all of them on the device), stream (on the host or in their file, and sent
            to the device a few at a time), or auto: stream what the device has no room for.
        coordinator: HOST:PORT of process 0 of a multi-process run.
        num_processes: Number of processes.
        process_id: Index of this process, from 0.
        distributed: Multi-process run on a cluster that JAX detects (SLURM, TPU pods, Open MPI,
            Kubernetes); replaces the three options above.
        scaling: rms (divide by the root mean square), standard (per column), minmax (all to 0..1),
            or none.
        scale: Factor on the scaled data.
        augmentation: Random affine variants of images in mini-batches.
        network: The autoencoder.
        pretrain: Pretraining.
        kmeans: The initial centroids.
        clustering: Self-training.
    """

    data: _Data
    n_clusters: int | None = None
    preset: _Preset = "fast"
    config: _Config = None
    seed: int = 0
    label: _Label = None
    id: _Id = None
    drop: _Drop = None
    out: Path | None = None
    resume: bool = False
    checkpoint_seconds: float = 30.0
    data_dir: _DataDir = None
    quiet: _Quiet = False
    devices: int | None = None
    rows: Literal["auto", "device", "stream"] = "auto"
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    distributed: bool = False
    scaling: Literal["rms", "standard", "minmax", "none"] = "rms"
    scale: float = 1.0
    image_shape: _ImageShape = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    kmeans: KMeansConfig = field(default_factory=KMeansConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)


@dataclass(frozen=True)
class Sweep:
    """Cluster a data set many times at once, and select a fit without labels.

    Attributes:
        seeds: A number of seeds (16: from 0 to 15), a range (0-15), or a list (0,2,5).
        n_clusters: A number of clusters, a range (5-15), or a list; by default the number of
            classes of a named data set. With several, a fifth of the rows is held out to measure
            generalizability.
        alphas: Degrees of freedom of the soft assignment: one, or a list (0.5,1,2).
        learning_rates: Learning rates of the clustering phase: one, or a list (1e-4,1e-3); by
            default as configured.
        select: Criterion: agreement (with the other seeds of the setting), silhouette, or kl (min
            KL(P||Q); for a single number of clusters).
        held_out: Share of the rows to hold out.
        preset: fast or paper.
        members_at_once: Number of fits that run side by side; by default as many as fit in memory.
        devices: Distribute the fits over this many devices.
        resume: Resume the interrupted sweep in the output directory.
        checkpoint_seconds: How long after a checkpoint the next is written, within a stage.
        out: Output directory; by default runs/NAME-sweep.
    """

    data: _Data
    seeds: str = "8"
    n_clusters: str | None = None
    alphas: str | None = None
    learning_rates: str | None = None
    select: Literal["agreement", "silhouette", "kl"] = "agreement"
    held_out: float | None = None
    preset: _Preset = "fast"
    config: _Config = None
    members_at_once: int | None = None
    devices: int | None = None
    label: _Label = None
    id: _Id = None
    drop: _Drop = None
    image_shape: _ImageShape = None
    resume: bool = False
    checkpoint_seconds: float = 30.0
    out: Path | None = None
    data_dir: _DataDir = None
    quiet: _Quiet = False


@dataclass(frozen=True)
class Predict:
    """Assign rows to the clusters of a finished run.

    Attributes:
        out: Output file: .npy (labels), .csv or .parquet (labels and their probabilities); by
            default one label per line on standard output.
    """

    run: _Run
    data: _Data
    out: Path | None = None
    label: _Label = None
    id: _Id = None
    drop: _Drop = None
    image_shape: _ImageShape = None
    data_dir: _DataDir = None


@dataclass(frozen=True)
class Evaluate:
    """Compare the clusters of a finished run with the classes of a data set."""

    run: _Run
    data: _Data
    label: _Label = None
    id: _Id = None
    drop: _Drop = None
    image_shape: _ImageShape = None
    data_dir: _DataDir = None


@dataclass(frozen=True)
class Bench:
    """Measure this machine: peak, bandwidth, steps, members at once, time to accuracy.

    Attributes:
        out: New file for the record; by default runs/DATE_DEVICE_bench.json.
        parts: What to measure beside the device: steps (of each phase), members (1 to 64 at once),
            fits (of mnist where it is found, else of digits): one, or a list.
        precision: Precision of the products.
        xla_flags: Flags for XLA, with spaces between several, beside those in XLA_FLAGS, such as
            --xla_gpu_enable_command_buffer=+WHILE.
        scan_unroll: Number of steps that a compiled loop runs as one, in steps and members.
        seeds: Number of seeds that are fitted warm, after the first of them cold.
        quick: Small sizes, to see that it runs; the figures mean nothing.
    """

    out: Path | None = None
    parts: str = "steps,members,fits"
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    xla_flags: str = ""
    scan_unroll: int = 1
    seeds: int = 1
    quick: bool = False
    data_dir: _DataDir = None
    quiet: _Quiet = False


@dataclass(frozen=True)
class Datasets:
    """List the named data sets, or download one.

    Attributes:
        download: Download this data set from its public source.
    """

    download: str | None = None
    data_dir: _DataDir = None


@dataclass(frozen=True)
class Info:
    """Show versions, devices and directories."""
