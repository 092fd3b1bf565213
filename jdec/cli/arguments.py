"""The arguments of each command, and how the command line becomes them."""

import contextlib
import csv
import dataclasses
import io
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from jdec._checks import shown
from jdec.core.augmentation import Augmentation
from jdec.trainer.config import (
    ClusteringConfig,
    Config,
    KMeansConfig,
    NetworkConfig,
    PretrainConfig,
    preset_config,
)

_MAX_VALUES = 10_000

_Command = TypeVar("_Command")
_Data = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
_Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


@dataclass(frozen=True)
class Fit:
    """Cluster a data set, and leave labels, model, metrics and pictures in a folder.

    Defaults below are those of the preset for 10 000 rows (--preset paper --help
    shows the other's). Numbers of steps adapt to the number of rows, and images
    have settings of their own: config.json in the results tells what was used.

    Attributes:
        data: Name of a data set (see jdec datasets), or a .npy, .npz, .csv, .tsv or .parquet file.
        n_clusters: Number of clusters; by default the number of classes a named data set is known
            to have.
        preset: fast (minutes on a CPU) or paper (the authors' constants: hours on a CPU).
        config: A config.json to take all settings from, in place of a preset.
        seed: Seed of the random key.
        label: Column of the classes, which training never sees; none: a column called label, class,
            target or y is a feature like any other.
        id: Column that names the rows: no feature, and the first column of a table of labels.
        drop: Columns to leave out: one, or a list (a,b,c).
        out: Folder for the results; by default runs/NAME.
        resume: Go on with an interrupted run in that folder.
        data_dir: Folder to look for named data sets in first.
        quiet: No progress bars, no table.
        devices: Spread the rows over this many devices.
        coordinator: HOST:PORT of process 0, where several processes share a run.
        num_processes: How many they are.
        process_id: Which one this is, from 0.
        distributed: One of several processes on a cluster that JAX knows (SLURM, TPU pods, Open
            MPI, Kubernetes), from which it learns the three settings above.
        scaling: rms (divide all by the root mean square), standard (each column), minmax (all to
            0..1), or none.
        scale: Factor on the scaled data.
        image_shape: Height and width (and channels) of rows that are images.
        augmentation: Random variants of images in mini-batches.
        network: The autoencoder.
        pretrain: Its pretraining.
        kmeans: The initial centroids.
        clustering: Self-training.
    """

    data: _Data
    n_clusters: int | None = None
    preset: Literal["fast", "paper"] = "fast"
    config: Path | None = None
    seed: int = 0
    label: str | None = None
    id: str | None = None
    drop: str | None = None
    out: Path | None = None
    resume: bool = False
    data_dir: Path | None = None
    quiet: bool = False
    devices: int | None = None
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    distributed: bool = False
    scaling: Literal["rms", "standard", "minmax", "none"] = "rms"
    scale: float = 1.0
    image_shape: tuple[int, ...] | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    kmeans: KMeansConfig = field(default_factory=KMeansConfig)
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)


@dataclass(frozen=True)
class Sweep:
    """Cluster a data set many times at once, and choose a fit without labels.

    Attributes:
        data: Name of a data set (see jdec datasets), or a .npy, .npz, .csv, .tsv or .parquet file.
        seeds: A number of seeds (16: from 0 to 15), a range (0-15), or a list (0,2,5).
        n_clusters: A number of clusters, a range (5-15), or a list; by default the number of
            classes a named data set is known to have. With several, a fifth of the rows is held
            out to measure generalizability.
        alphas: Degrees of freedom of the soft assignment: one, or a list (0.5,1,2).
        learning_rates: Learning rates of the clustering phase: one, or a list (1e-4,1e-3); by
            default as configured.
        select: What to choose by: agreement (with the other seeds of the setting), silhouette, or
            divergence (least KL; for one number of clusters).
        held_out: Share of the rows to hold out.
        preset: fast or paper.
        config: A config.json to take all settings from, in place of a preset.
        members_at_once: How many fits run side by side; by default as many as memory has room for.
        devices: Spread the fits over this many devices.
        label: Column of the classes, which training never sees; none: a column called label, class,
            target or y is a feature like any other.
        id: Column that names the rows, which is no feature.
        drop: Columns to leave out: one, or a list (a,b,c).
        image_shape: Height and width (and channels) of rows that are images.
        out: Folder for the results; by default runs/NAME-sweep.
        data_dir: Folder to look for named data sets in first.
        quiet: No progress bars, no table.
    """

    data: _Data
    seeds: str = "8"
    n_clusters: str | None = None
    alphas: str | None = None
    learning_rates: str | None = None
    select: Literal["agreement", "silhouette", "divergence"] = "agreement"
    held_out: float | None = None
    preset: Literal["fast", "paper"] = "fast"
    config: Path | None = None
    members_at_once: int | None = None
    devices: int | None = None
    label: str | None = None
    id: str | None = None
    drop: str | None = None
    image_shape: tuple[int, ...] | None = None
    out: Path | None = None
    data_dir: Path | None = None
    quiet: bool = False


@dataclass(frozen=True)
class Predict:
    """Assign rows to the clusters of a finished run.

    Attributes:
        run: Folder of the run, or its model.npz.
        data: Name of a data set, or a file.
        out: Where to write: .npy (labels) or .csv (label and its probability); by default one
            label a line to standard output.
        label: Column of classes, which is left out; none: a column called label, class, target or y
            is a feature like any other.
        id: Column that names the rows: no feature, and the first column of a .csv.
        drop: Columns to leave out: one, or a list (a,b,c).
        image_shape: Height and width (and channels) of rows that are images.
        data_dir: Folder to look for named data sets in first.
    """

    run: _Run
    data: _Data
    out: Path | None = None
    label: str | None = None
    id: str | None = None
    drop: str | None = None
    image_shape: tuple[int, ...] | None = None
    data_dir: Path | None = None


@dataclass(frozen=True)
class Evaluate:
    """Compare the clusters of a finished run with the classes of a data set.

    Attributes:
        run: Folder of the run, or its model.npz.
        data: Name of a data set, or a file with a label column.
        label: Column of the classes; by default one called label, class, target or y.
        id: Column that names the rows, which is no feature.
        drop: Columns to leave out: one, or a list (a,b,c).
        image_shape: Height and width (and channels) of rows that are images.
        data_dir: Folder to look for named data sets in first.
    """

    run: _Run
    data: _Data
    label: str | None = None
    id: str | None = None
    drop: str | None = None
    image_shape: tuple[int, ...] | None = None
    data_dir: Path | None = None


@dataclass(frozen=True)
class Datasets:
    """List the data sets known by name, or download one.

    Attributes:
        download: Fetch the files of this data set from their public source.
        data_dir: Folder to look in and to download to.
    """

    download: str | None = None
    data_dir: Path | None = None


@dataclass(frozen=True)
class Info:
    """Show versions, devices and folders."""


def typical_fit(argv: Sequence[str]) -> Fit:
    """Return the arguments whose defaults ``--help`` shows, before any data set is read."""
    preset: Literal["fast", "paper"] = "fast"
    if {"paper", "--preset=paper"} & set(argv):
        preset = "paper"
    config = preset_config(preset, n_clusters=10, n_rows=10_000)
    return with_config(Fit(data=tyro.MISSING, preset=preset), config)


def with_config(arguments: Fit, config: Config) -> Fit:
    """Return the arguments with all settings of a configuration."""
    fields = {name: value for name, value in vars(config).items() if name != "n_clusters"}
    return replace(arguments, **fields)


class UsageError(Exception):
    """The command line cannot be understood."""


def parse(
    command: type[_Command], argv: Sequence[str], default: _Command | None = None
) -> _Command:
    """Turn a command line, ``argv[0]`` being the command, into its arguments.

    Raises:
        UsageError: If it cannot be understood.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            arguments: Any = {"args": list(argv[1:]), "prog": f"jdec {argv[0]}"}
            if default is not None:
                arguments["default"] = default
            parsed = tyro.cli(command, **arguments)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        message = _mistake_in_a_list(command, argv) or _one_line(errors.getvalue())
        raise UsageError(f"{message}; see jdec {argv[0]} --help") from None
    for option, values in _lists(parsed):
        if values == () and option in _options(argv):
            raise UsageError(f"{option}: expected at least one value, got none")
    for name, value in vars(parsed).items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, Path) and _options(argv).get(option) == [""]:  # would be the current
            raise UsageError(f"{option}: expected a path, got an empty text; . is this folder")
    return _with_homes(parsed)


def _lists(arguments: Any, prefix: str = "--") -> Iterator[tuple[str, Any]]:
    """Go through the options that take any number of values, and what they are set to."""
    hints = typing.get_type_hints(type(arguments))
    for entry in dataclasses.fields(arguments):
        hint, value = hints[entry.name], getattr(arguments, entry.name)
        name = prefix + entry.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from _lists(value, f"{name}.")
        elif tuple in [typing.get_origin(part) for part in (hint, *typing.get_args(hint))]:
            yield name, value


def _options(argv: Sequence[str]) -> dict[str, list[str]]:
    """Return the options of a command line, and the words after each up to the next."""
    found: dict[str, list[str]] = {}
    words: list[str] = []
    for word in argv[1:]:
        if word.startswith("-") and not re.fullmatch(r"-[\d.]+", word):
            name, equals, value = word.partition("=")
            words = [value] if equals else []
            found[name.replace("_", "-")] = words
        else:
            words.append(word)
    return found


def _mistake_in_a_list(command: type, argv: Sequence[str]) -> str | None:
    """Say what a list of numbers has taken that is none, as the data that were to follow it."""
    entries = dataclasses.fields(command)
    required = [entry.name for entry in entries if entry.default is entry.default_factory]
    options = _options(argv)
    for option, _ in _lists(command(**dict.fromkeys(required, ""))):
        words = [word for word in options.get(option, ()) if not re.fullmatch(r"[-+]?\d+", word)]
        if words and re.fullmatch(r"[\d,;x\[\]()]+", words[-1]):
            return f"{option}: expected integers with spaces between, got {shown(words[-1])}"
        if words:
            return (
                f"{option} takes all that follows it, and so {shown(words[-1])}; put the data "
                f"before the options, or -- in between: {option} 8 8 -- {words[-1]}"
            )
    return None


def _with_homes(arguments: _Command) -> _Command:
    """Replace ~ in the paths, which a shell leaves alone in --out=~/run."""
    homes = {}
    for name, value in vars(arguments).items():
        if isinstance(value, Path):
            try:
                homes[name] = value.expanduser()
            except RuntimeError:
                raise UsageError(f"{name}: expected a path, got {value}: no such user") from None
    return replace(arguments, **homes)  # type: ignore[type-var]


def _one_line(box: str) -> str:
    # tyro draws a box, or where it has no letters for it a rule: the text below its title and up
    # to the next rule is the message.
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip("│╭╮╰╯ ") for line in box.splitlines()]
    message: list[str] = []
    for line in lines[1:]:
        is_rule = set(line) in ({"─"}, {"-"})
        if message and (is_rule or line.startswith("Got errors")):
            break
        if not is_rule:
            message.append(line)
    text = " ".join(" ".join(message).split())
    return text if len(text) <= 400 else f"{text[:400]}…"


def integers(name: str, text: str) -> tuple[int, ...]:
    """Read one integer, a range or a list: ``5``, ``5-15``, ``5,7,10-12``.

    Raises:
        ValueError: If it is none of these, or of more than 10 000 values.
    """
    values: list[int] = []
    for part in text.split(","):
        # No number of more digits is one that can be used.
        match = re.fullmatch(r"\s*([0-9]{1,20})\s*(?:-\s*([0-9]{1,20})\s*)?", part)
        if not match:
            raise ValueError(f"{name}: expected integers like 5, 5-15 or 5,7,9; got {shown(text)}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{name}: expected a range that goes up, got {part.strip()!r}")
        if last - first + len(values) >= _MAX_VALUES:
            raise ValueError(f"{name}: expected at most {_MAX_VALUES} values, got {shown(text)}")
        values += range(first, last + 1)
    return tuple(values)


def numbers(name: str, text: str | None) -> tuple[float, ...]:
    """Read one number or a list: ``1``, ``0.5,1,2``.

    Raises:
        ValueError: If it is neither, or of more than 10 000 values.
    """
    parts = [] if text is None else text.split(",")
    try:
        if any("_" in part for part in parts) or len(parts) > _MAX_VALUES:
            raise ValueError
        return tuple(map(float, parts))
    except ValueError:
        raise ValueError(f"{name}: expected numbers like 0.5,1,2; got {shown(text)}") from None


def names(name: str, text: str | None) -> tuple[str, ...]:
    """Read one name or a list, those with a comma in quotes: ``a``, ``a,b``, ``"a,b",c``.

    Raises:
        ValueError: If it cannot be read so.
    """
    if not text:
        return () if text is None else ("",)  # of a column without a name
    try:
        return tuple(next(csv.reader([text], skipinitialspace=True, strict=True)))
    except csv.Error as error:
        raise ValueError(f"{name}: expected names like a or a,b; got {shown(text)}") from error
