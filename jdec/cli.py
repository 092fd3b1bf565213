"""The command line: ``jdec fit``, ``predict``, ``evaluate``, ``datasets`` and ``info``."""

import contextlib
import io
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import numpy as np
import pooch
import tyro
from tyro.conf import Positional

from jdec._atomic import atomic_write
from jdec._checks import check_seed
from jdec.augmentation import Augmentation
from jdec.compilation import CompilationClock, keep_programs
from jdec.config import (
    PRESETS,
    ClusteringConfig,
    Config,
    KMeansConfig,
    NetworkConfig,
    PretrainConfig,
    preset_config,
    read_config,
)
from jdec.datasets import Dataset, dataset_table, download_dataset, load_dataset
from jdec.fit import DivergenceError, fit
from jdec.metrics import clustering_scores
from jdec.model import Model, assign, load_model
from jdec.results import BASELINE_RESTARTS, environment, score_methods, write_results
from jdec.sharding import Mesh, connect, data_mesh, is_first_process

_Command = TypeVar("_Command")


@dataclass(frozen=True)
class Fit:
    """Cluster a data set, and leave labels, model, metrics and pictures in a folder.

    Attributes:
        data: Name of a data set (see jdec datasets), or a .npy, .npz, .csv, .tsv or .parquet file.
        n_clusters: Number of clusters; by default the number of classes a named data set is known
            to have.
        preset: fast (minutes on a CPU) or paper (the authors' constants: hours on a CPU).
        config: A config.json to take all settings from, in place of a preset.
        seed: Seed of the random key.
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

    data: Positional[str]
    n_clusters: int | None = None
    preset: Literal["fast", "paper"] = "fast"
    config: Path | None = None
    seed: int = 0
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
class Predict:
    """Assign rows to the clusters of a finished run.

    Attributes:
        run: Folder of the run, or its model.npz.
        data: Name of a data set, or a file.
        out: Where to write: .npy (labels) or .csv (label and its probability); by default one
            label a line to standard output.
        data_dir: Folder to look for named data sets in first.
    """

    run: Positional[Path]
    data: Positional[str]
    out: Path | None = None
    data_dir: Path | None = None


@dataclass(frozen=True)
class Evaluate:
    """Compare the clusters of a finished run with the classes of a data set.

    Attributes:
        run: Folder of the run, or its model.npz.
        data: Name of a data set, or a file with a label column.
        data_dir: Folder to look for named data sets in first.
    """

    run: Positional[Path]
    data: Positional[str]
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; by default those of the process.

    Returns:
        The exit code: 0, 1 for a failure, 2 for a wrong command line, 130 when interrupted. A
        failure is one line on standard error.
    """
    if argv is None:  # as a process of its own
        keep_programs()
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"jdec {environment()['jdec']}")
        return 0
    if argv[0] not in _COMMANDS:
        return _fail(f"unknown command {argv[0]!r}; expected one of {', '.join(_COMMANDS)}", 2)
    command, run = _COMMANDS[argv[0]]
    try:
        with _plain_warnings():
            return run(_parse(command, argv)) if command is not Fit else run_fit(argv)
    except _UsageError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command with --resume goes on", 130)
    except BrokenPipeError:
        # Whoever read our output has had enough; that is not a failure to report.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError, MemoryError, DivergenceError) as error:
        return _stop(str(error) or type(error).__name__)
    except jax.errors.JaxRuntimeError as error:
        return _stop(_explain(str(error)))


def run_fit(argv: list[str]) -> int:
    """Run ``jdec fit``: parse once for the data, then again with the preset's values for them."""
    began = time.perf_counter()
    clock = CompilationClock()
    first = _parse(Fit, argv)
    check_seed("seed", first.seed)
    mesh = _mesh(first)
    dataset = load_dataset(first.data, data_dir=first.data_dir)
    if first.image_shape is not None:
        dataset = Dataset(**{**vars(dataset), "image_shape": first.image_shape})
    base = _base_config(first, dataset)
    arguments = _parse(Fit, argv, default=_with_config(first, base))
    config = _as_config(arguments, base.n_clusters)
    out = arguments.out or Path("runs") / dataset.name
    writes = is_first_process()
    say: Callable[[str], None] = print if writes and not arguments.quiet else lambda line: None
    say(
        f"{dataset.name}{f' ({dataset.variant})' if dataset.variant else ''}: "
        f"{len(dataset.x)} rows, {dataset.x.shape[1]} features, "
        f"{config.n_clusters} clusters; {_recipe(arguments)}, seed {arguments.seed}; "
        f"{environment()['device']}{f' × {mesh.size}' if mesh else ''}"
    )
    if dataset.note:
        say(f"note: {dataset.note}")
    loaded = time.perf_counter()
    key = jax.random.key(arguments.seed)
    result = fit(
        key,
        dataset.x,
        config,
        y=dataset.y,
        n_train=dataset.n_train,
        unlabeled=dataset.unlabeled,
        workdir=out,
        resume=arguments.resume,
        mesh=mesh,
        progress=not arguments.quiet,
    )
    if not writes:
        return 0
    fitted = time.perf_counter()
    scores = None
    if dataset.y is not None:
        scores = score_methods(jax.random.fold_in(key, 1), dataset, config, result)
    result.seconds["loading"] = loaded - began
    if scores is not None:
        result.seconds["k-means on the input"] = time.perf_counter() - fitted
    about = {
        "recipe": _recipe(arguments),
        "seed": arguments.seed,
        "compilation": {
            "seconds": round(clock.seconds, 2),
            "programs": clock.n_programs,
            "kept from before": clock.n_found,
        },
    }
    metrics = write_results(out, dataset, config, result, scores=scores, about=about)
    say(_summary(out, config, metrics, time.perf_counter() - began))
    return 0


def _mesh(arguments: Fit) -> Mesh | None:
    """Join the other processes, if there are any, and return the devices to use."""
    several = (arguments.coordinator, arguments.num_processes, arguments.process_id)
    if arguments.distributed or any(value is not None for value in several):
        connect(*several)
        return data_mesh(arguments.devices)
    return None if arguments.devices is None else data_mesh(arguments.devices)


def run_predict(arguments: Predict) -> int:
    """Run ``jdec predict``."""
    if arguments.out is not None and arguments.out.suffix not in (".npy", ".csv"):
        raise ValueError(f"out: expected a name that ends in .npy or .csv, got {arguments.out}")
    _, q = assign(
        _load_run(arguments.run), load_dataset(arguments.data, data_dir=arguments.data_dir).x
    )
    labels = q.argmax(axis=1).astype(np.int32)
    if arguments.out is None:
        sys.stdout.writelines(f"{label}\n" for label in labels)
        return 0
    with atomic_write(arguments.out) as file:
        if arguments.out.suffix == ".npy":
            np.save(file, labels, allow_pickle=False)
        else:
            table = np.column_stack([labels, q.max(axis=1)])
            np.savetxt(
                file,
                table,
                fmt=("%d", "%.6f"),
                delimiter=",",
                header="label,probability",
                comments="",
            )
    print(f"{len(labels)} labels written to {arguments.out}")
    return 0


def run_evaluate(arguments: Evaluate) -> int:
    """Run ``jdec evaluate``."""
    model = _load_run(arguments.run)
    dataset = load_dataset(arguments.data, data_dir=arguments.data_dir)
    if dataset.y is None:
        raise ValueError(f"{arguments.data}: expected classes to compare with, got none")
    _, q = assign(model, dataset.x)
    print(_score_table({"DEC": clustering_scores(dataset.y, q.argmax(axis=1))}))
    return 0


def run_datasets(arguments: Datasets) -> int:
    """Run ``jdec datasets``."""
    if arguments.download is not None:
        folder = download_dataset(arguments.download, data_dir=arguments.data_dir, progress=True)
        print(f"{arguments.download}: in {folder}")
        return 0
    rows = dataset_table(arguments.data_dir)
    width = max(len(row.name) for row in rows)
    for row in rows:
        n_rows, n_features, n_classes = row.shape
        if row.built_in:
            where = "comes with scikit-learn"
        elif row.path is not None:
            where = str(row.path) + (f" ({row.variant})" if row.variant else "")
        elif row.downloadable:
            where = f"not here; jdec datasets --download {row.name}"
        else:
            where = "not here"
        print(
            f"{row.name:{width}}  {n_rows:>7} x {n_features:<5} {n_classes:>3} classes  {where}\n"
            f"{'':{width}}  {row.description}"
        )
    return 0


def run_info(arguments: Info) -> int:
    """Run ``jdec info``."""
    del arguments
    for name, value in environment().items():
        print(f"{name:12} {value}")
    print(f"{'devices':12} {', '.join(map(str, jax.devices()))}")
    print(f"{'data':12} {os.environ.get('JDEC_DATA_DIR') or '(JDEC_DATA_DIR is not set)'}")
    print(f"{'data cache':12} {pooch.os_cache('jdec')}")
    print(f"{'presets':12} {', '.join(PRESETS)}")
    return 0


_COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "fit": (Fit, run_fit),
    "predict": (Predict, run_predict),
    "evaluate": (Evaluate, run_evaluate),
    "datasets": (Datasets, run_datasets),
    "info": (Info, run_info),
}


def _usage() -> str:
    lines = ["usage: jdec COMMAND …   (jdec COMMAND --help tells more)", ""]
    for name, (command, _) in _COMMANDS.items():
        lines.append(f"  {name:9} {(command.__doc__ or '').splitlines()[0]}")
    return "\n".join([*lines, "", "  jdec fit digits --out runs/digits"])


# Parsing -----------------------------------------------------------------------------------------


class _UsageError(Exception):
    """The command line cannot be understood."""


def _parse(
    command: type[_Command], argv: Sequence[str], default: _Command | None = None
) -> _Command:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            arguments: Any = {"args": list(argv[1:]), "prog": f"jdec {argv[0]}"}
            if default is not None:
                arguments["default"] = default
            return tyro.cli(command, **arguments)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise _UsageError(_one_line(errors.getvalue(), argv[0])) from None


def _one_line(box: str, command: str) -> str:
    # tyro draws a box: the text up to its first rule is the message.
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip("│╭╮╰╯ ") for line in box.splitlines()]
    message: list[str] = []
    for line in lines[1:]:
        if line.startswith("──") or line.startswith("Got errors"):
            break
        message.append(line)
    return f"{' '.join(' '.join(message).split())}; see jdec {command} --help"


def _base_config(arguments: Fit, dataset: Dataset) -> Config:
    n_clusters = arguments.n_clusters
    if arguments.config is not None:
        config = read_config(arguments.config)
        return config if n_clusters is None else config.replace({"n_clusters": n_clusters})
    if n_clusters is None:
        known = {row.name: row.shape[2] for row in dataset_table(arguments.data_dir)}
        n_clusters = known.get(arguments.data)
    if n_clusters is None:
        raise ValueError(
            f"{arguments.data}: expected --n-clusters, since the number of clusters of a file of "
            "your own is not known"
        )
    return preset_config(
        arguments.preset,
        n_clusters=n_clusters,
        n_rows=len(dataset.x),
        dataset=dataset.name if arguments.data == dataset.name else "",
        image_shape=dataset.image_shape,
    )


def _with_config(arguments: Fit, config: Config) -> Fit:
    fields = {name: value for name, value in vars(config).items() if name != "n_clusters"}
    return replace(arguments, **fields)


def _as_config(arguments: Fit, n_clusters: int) -> Config:
    names = [name for name in Config.__dataclass_fields__ if name != "n_clusters"]
    return Config(n_clusters=n_clusters, **{name: getattr(arguments, name) for name in names})


def _load_run(run: Path) -> Model:
    path = run / "model.npz" if run.is_dir() else run
    if run.is_dir() and not path.exists():
        raise ValueError(f"{run}: expected a finished run, got a folder without model.npz")
    return load_model(path)[0]


# Output ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show the library's warnings and messages as single lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("jdec: %(message)s"))
    logger = logging.getLogger("jdec")
    logger.addHandler(handler)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(
            f"jdec: warning: {message}", file=sys.stderr
        )
        try:
            yield
        finally:
            logger.removeHandler(handler)


def _explain(message: str) -> str:
    """Say in a line what a failure of the runtime means for the user."""
    first = message.strip().splitlines()[0]
    if "RESOURCE_EXHAUSTED" in message or "out of memory" in message.lower():
        return (
            "out of memory on the device; smaller batches, a smaller network, --devices, or fewer "
            f"members at once take less ({first[:200]})"
        )
    if jax.process_count() > 1:
        return (
            "another process of this run has stopped, or cannot be reached; once all are started "
            f"again, --resume goes on ({first[:200]})"
        )
    return f"JAX: {first[:300]}"


def _stop(message: str) -> int:
    code = _fail(message)
    if jax.distributed.is_initialized():
        # Leaving in good order would wait for processes that wait for this one.
        sys.stderr.flush()
        os._exit(code)
    return code


def _fail(message: str, code: int = 1) -> int:
    print(f"jdec: {' '.join(message.split())}", file=sys.stderr)
    return code


def _recipe(arguments: Fit) -> str:
    if arguments.config is not None:
        return f"settings of {arguments.config}"
    return f"preset {arguments.preset}"


def _score_table(scores: dict[str, dict[str, float]]) -> str:
    width = max(len(name) for name in scores)
    lines = [f"{'':{width}}    ACC    NMI    ARI"]
    lines += [
        f"{name:{width}}  " + "  ".join(f"{score[kind]:.3f}" for kind in ("acc", "nmi", "ari"))
        for name, score in scores.items()
    ]
    return "\n".join(lines)


def _start(config: Config) -> str:
    if config.kmeans.oversampling == (1,):
        return f"AE + k-means: best of {config.kmeans.n_init} restarts)"
    factors = "/".join(map(str, config.kmeans.oversampling))
    return f"AE + k-means: into {factors} pieces a cluster, merged by Ward linkage)"


def _summary(out: Path, config: Config, metrics: dict[str, Any], total: float) -> str:
    sizes = metrics["cluster_sizes"]
    shown = ", ".join(map(str, sizes[:20])) + (", …" if len(sizes) > 20 else "")
    reasons = {
        "tol": "few enough labels changed",
        "max_intervals": "all intervals used",
    }
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in metrics["seconds"].items())
    lines = [""]
    if metrics["scores"] is not None:
        lines += [_score_table(metrics["scores"]), ""]
        lines += [f"(k-means: on the input, best of {BASELINE_RESTARTS} restarts;", _start(config)]
    changed = metrics["label_change"]
    lines += [
        f"sizes    {shown}",
        f"stopped  after {metrics['n_intervals']} intervals, {reasons[metrics['stop_reason']]}"
        + (f" ({changed:.2%} in the last)" if changed is not None else ""),
        f"seconds  {seconds}; {total:.1f} in all, {_compiling(metrics['compilation'])}",
        f"files    {out}: {', '.join(_result_files(out))}",
    ]
    return "\n".join(lines)


def _compiling(compilation: dict[str, Any]) -> str:
    kept = compilation["kept from before"]
    return f"{compilation['seconds']:.1f} of them compiling" + (
        f" ({kept} programs kept from before)" if kept else ""
    )


def _result_files(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.is_file() and path.name[0] != ".")
