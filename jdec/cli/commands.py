"""The command line: ``jdec fit``, ``sweep``, ``predict``, ``evaluate``, ``datasets``, ``info``."""

import contextlib
import csv
import io
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import platformdirs

from jdec._checks import IdentifierWarning, check_seed
from jdec._environment import environment
from jdec._io import atomic_write
from jdec.cli.arguments import (
    Datasets,
    Evaluate,
    Fit,
    Info,
    Predict,
    Sweep,
    UsageError,
    integers,
    names,
    numbers,
    parse,
    typical_fit,
    with_config,
)
from jdec.cli.report import data_lines, fit_summary, recipe, score_table, sweep_summary
from jdec.cli.results import score_methods, write_results
from jdec.cli.supervision import accept_supervision, supervise, wants_supervision
from jdec.datasets import Dataset, dataset_table, download_dataset, load_dataset
from jdec.metrics import clustering_scores
from jdec.selection.sweep import Grid, begin_sweep, run_sweep, write_sweep
from jdec.trainer.compilation import CompilationClock, keep_programs
from jdec.trainer.config import PRESETS, Config, check_memory, preset_config, read_config
from jdec.trainer.distributed import connect
from jdec.trainer.fit import DivergenceError, fit
from jdec.trainer.model import Model, assign, load_model
from jdec.trainer.sharding import Mesh, data_mesh, is_first_process, member_mesh
from jdec.trainer.workdir import RESULT_FILES, explained_writing, lock_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; by default those of the process.

    Returns:
        The exit code: 0, 1 for a failure, 2 for a wrong command line, 130 when interrupted. A
        failure is one line on standard error.
    """
    _let_streams_replace()
    is_process = argv is None
    argv = list(sys.argv[1:] if argv is None else argv)
    if is_process:
        if wants_supervision(argv):
            code, line = supervise(argv)
            return _fail(line, code) if line else code
        accept_supervision()
    command: type = object
    try:
        with _plain_warnings(), _flushed_output():
            if not argv or argv[0] in ("-h", "--help"):
                print(_usage())
                return 0 if argv else 2
            if argv[0] == "--version":
                print(f"jdec {version('jdec')}")
                return 0
            if argv[0] not in _COMMANDS:
                known = ", ".join(_COMMANDS)
                raise UsageError(f"unknown command {argv[0]!r}; expected one of {known}")
            command, run = _COMMANDS[argv[0]]
            if is_process and command in (Fit, Sweep, Predict, Evaluate):
                keep_programs()
            return run_fit(argv) if command is Fit else run(parse(command, argv))
    except UsageError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        more = {
            Fit: "; the same command with --resume goes on",
            Sweep: "; the same command starts it again",
        }
        return _fail(f"interrupted{more.get(command, '')}", 130)
    except BrokenPipeError:
        return 0  # whoever read our output has had enough; that is not a failure to report
    except (ValueError, OSError, ImportError, MemoryError, DivergenceError) as error:
        return _stop(str(error) or type(error).__name__)
    except jax.errors.JaxRuntimeError as error:
        return _stop(_explain(str(error)))


def run_fit(argv: list[str]) -> int:
    """Run ``jdec fit``: parse once for the data, then again with the preset's values for them."""
    began = time.perf_counter()
    clock = CompilationClock()
    first = parse(Fit, argv, default=typical_fit(argv) if {"-h", "--help"} & {*argv} else None)
    check_seed("seed", first.seed)
    base = None if first.config is None else read_config(first.config)
    mesh = _mesh(first)
    dataset = _load_data(first, base)
    base = _base_config(first, dataset, first.n_clusters, base)
    arguments = parse(Fit, argv, default=with_config(first, base))
    config = _as_config(arguments, base.n_clusters)
    check_memory(config, len(dataset.x), dataset.x.shape[1], 1 if mesh is None else mesh.size)
    out = arguments.out or Path("runs") / dataset.name
    writes = is_first_process()
    say: Callable[[str], None] = print if writes and not arguments.quiet else lambda line: None
    say(
        f"{dataset.name}{f' ({dataset.variant})' if dataset.variant else ''}: "
        f"{len(dataset.x)} rows, {dataset.x.shape[1]} features, "
        f"{config.n_clusters} clusters; {recipe(arguments)}, seed {arguments.seed}; "
        f"{environment()['device']}{f' × {mesh.size}' if mesh else ''}"
    )
    for line in data_lines(dataset, config):
        say(line)
    loaded = time.perf_counter()
    key = jax.random.key(arguments.seed)
    with contextlib.ExitStack() as stack:
        if jax.process_count() == 1:  # of several, fit() tells all what the first one finds
            stack.enter_context(lock_folder(out))
        result = fit(
            key,
            dataset.x,
            config,
            y=dataset.y,
            feature_names=dataset.feature_names,
            n_train=dataset.n_train,
            unlabeled=dataset.unlabeled,
            workdir=out,
            resume=arguments.resume,
            mesh=mesh,
            progress=not arguments.quiet and sys.stderr is not None,
        )
        if not writes:
            return 0
        stack.enter_context(lock_folder(out))
        fitted = time.perf_counter()
        scores = None
        if dataset.y is not None:
            scores = score_methods(jax.random.fold_in(key, 1), dataset, config, result)
        result.seconds["loading"] = loaded - began
        if scores is not None:
            result.seconds["k-means on the input"] = time.perf_counter() - fitted
        about = {
            "recipe": recipe(arguments),
            "seed": arguments.seed,
            "compilation": clock.as_record(),
        }
        with explained_writing():
            metrics = write_results(out, dataset, config, result, scores=scores, about=about)
    say(fit_summary(out, config, metrics, time.perf_counter() - began))
    return 0


def _mesh(arguments: Fit) -> Mesh | None:
    """Join the other processes, if there are any, and return the devices to use."""
    several = (arguments.coordinator, arguments.num_processes, arguments.process_id)
    if arguments.distributed or any(value is not None for value in several):
        connect(*several)
        _check_platform()
        return data_mesh(arguments.devices)
    _check_platform()
    return None if arguments.devices is None else data_mesh(arguments.devices)


def run_sweep_command(arguments: Sweep) -> int:
    """Run ``jdec sweep``."""
    began = time.perf_counter()
    clock = CompilationClock()
    seeds = integers("seeds", arguments.seeds)
    if arguments.seeds.strip().isdecimal():
        seeds = integers("seeds", f"0-{seeds[0] - 1}") if seeds[0] else ()
    ks = None if arguments.n_clusters is None else integers("n_clusters", arguments.n_clusters)
    alphas = numbers("alphas", arguments.alphas)
    rates = numbers("learning_rates", arguments.learning_rates)
    base = None if arguments.config is None else read_config(arguments.config)
    _check_platform()
    mesh = None if arguments.devices is None else member_mesh(arguments.devices)
    dataset = _load_data(arguments, base)
    base = _base_config(arguments, dataset, max(ks) if ks else None, base)
    if arguments.image_shape is not None:
        base = base.replace({"image_shape": arguments.image_shape})
    grid = Grid(
        seeds,
        ks or (base.n_clusters,),
        alphas or (base.clustering.alpha,),
        rates or (base.clustering.optimizer.learning_rate,),
    )
    check_memory(base, len(dataset.x), dataset.x.shape[1])
    out = arguments.out or Path("runs") / f"{dataset.name}-sweep"
    say: Callable[[str], None] = (lambda line: None) if arguments.quiet else print
    n_members = len(grid.members())
    key = jax.random.key(seeds[0])
    with (
        lock_folder(out),
        begin_sweep(
            out,
            key,
            dataset,
            base,
            grid,
            criterion=arguments.select,
            held_out=arguments.held_out,
        ) as is_again,
    ):
        say(
            f"{dataset.name}{f' ({dataset.variant})' if dataset.variant else ''}: "
            f"{len(dataset.x)} rows, {dataset.x.shape[1]} features; {n_members} fits "
            f"({len(seeds)} seeds × {n_members // len(seeds)} settings); {recipe(arguments)}; "
            f"{environment()['device']}{f' × {mesh.size}' if mesh else ''}"
        )
        for line in data_lines(dataset, base):
            say(line)
        if is_again:
            say(f"{out} holds a sweep that was interrupted; it starts again")
        result = run_sweep(
            key,
            dataset,
            base,
            grid,
            criterion=arguments.select,
            held_out=arguments.held_out,
            members_at_once=arguments.members_at_once,
            mesh=mesh,
            progress=not arguments.quiet and sys.stderr is not None,
        )
        about = {"recipe": recipe(arguments), "compilation": clock.as_record()}
        summary = write_sweep(out, dataset, base, result, about)
    say(sweep_summary(out, result, summary, time.perf_counter() - began))
    return 0


def run_predict(arguments: Predict) -> int:
    """Run ``jdec predict``."""
    _check_platform()
    if arguments.out is not None:
        _check_output(arguments.out, arguments)
    model = _load_run(arguments.run)
    dataset = _load_data(arguments)
    _, q = assign(model, dataset.x, feature_names=dataset.feature_names)
    labels = q.argmax(axis=1).astype(np.int32)
    if arguments.out is None:
        print("\n".join(map(str, labels.tolist())))
        return 0
    with atomic_write(arguments.out) as file:
        if arguments.out.suffix == ".npy":
            np.save(file, labels, allow_pickle=False)
        else:
            file.write(_table(dataset, labels, q.max(axis=1)).encode())
    print(f"{len(labels)} labels written to {arguments.out}")
    return 0


def _check_output(out: Path, arguments: Predict) -> None:
    """Refuse, before any work, what cannot be written or is not to be overwritten."""
    if out.suffix not in (".npy", ".csv"):
        raise ValueError(f"out: expected a name that ends in .npy or .csv, got {out}")
    if out.is_dir():
        raise ValueError(f"out: expected a file, got the folder {out}")
    data = Path(os.path.expanduser(arguments.data))  # noqa: PTH111 (as it is, without such a home)
    inputs = (data, arguments.run, arguments.run / "model.npz")
    for path in inputs:
        if out.exists() and path.exists() and out.samefile(path):
            raise ValueError(f"out: expected another file than {path}, which is read")
    beside = [out.parent / name for name in ("run.json", "sweep.json", "model.npz")]
    if out.name in RESULT_FILES and any(path.exists() for path in beside):
        raise ValueError(f"out: {out} is a result of the run there; choose another name")
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ValueError(
            f"out: {error.strerror}: '{out}'; expected a folder that can be written to"
        ) from error


def _table(dataset: Dataset, labels: np.ndarray, probabilities: np.ndarray) -> str:
    """Lay out labels, and how probable each is, below one another."""
    columns = {
        "label": labels.tolist(),
        "probability": [f"{probability:.6f}" for probability in probabilities],
    }
    if dataset.ids is not None:
        columns = {"id": dataset.ids.tolist()} | columns
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def run_evaluate(arguments: Evaluate) -> int:
    """Run ``jdec evaluate``."""
    _check_platform()
    model = _load_run(arguments.run)
    dataset = _load_data(arguments)
    if dataset.y is None:
        raise ValueError(f"{arguments.data}: expected classes to compare with, got none")
    _, q = assign(model, dataset.x, feature_names=dataset.feature_names)
    print(score_table({"DEC": clustering_scores(dataset.y, q.argmax(axis=1))}))
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
    _check_platform()
    for name, value in environment().items():
        print(f"{name:12} {value}")
    print(f"{'devices':12} {', '.join(map(str, jax.devices()))}")
    print(f"{'data':12} {os.environ.get('JDEC_DATA_DIR') or '(JDEC_DATA_DIR is not set)'}")
    print(f"{'data cache':12} {platformdirs.user_cache_path('jdec')}")
    print(f"{'presets':12} {', '.join(PRESETS)}")
    return 0


_COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "fit": (Fit, run_fit),
    "sweep": (Sweep, run_sweep_command),
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


def _load_data(
    arguments: Fit | Sweep | Predict | Evaluate, config: Config | None = None
) -> Dataset:
    """Load what the arguments name; by default a file's rows are images as configured."""
    image_shape = arguments.image_shape
    known = {row.name for row in dataset_table(arguments.data_dir)}
    if image_shape is None and config is not None and arguments.data not in known:
        image_shape = config.image_shape
    return load_dataset(
        arguments.data,
        data_dir=arguments.data_dir,
        label=arguments.label,
        id=arguments.id,
        drop=names("drop", arguments.drop),
        image_shape=image_shape,
    )


def _base_config(
    arguments: Fit | Sweep, dataset: Dataset, n_clusters: int | None, config: Config | None
) -> Config:
    if config is not None:
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


def _as_config(arguments: Fit, n_clusters: int) -> Config:
    names = [name for name in Config.__dataclass_fields__ if name != "n_clusters"]
    return Config(n_clusters=n_clusters, **{name: getattr(arguments, name) for name in names})


def _load_run(run: Path) -> Model:
    path = run / "model.npz" if run.is_dir() else run
    if run.is_dir() and not path.exists():
        raise ValueError(f"{run}: expected a finished run, got a folder without model.npz")
    return load_model(path)[0]


def _check_platform() -> None:
    """Say in a line what is wrong where JAX_PLATFORMS asks for what is not here."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter without a word, for cuda
        asked = jax.config.values["jax_platforms"]
        reason = f": {error}" if str(error) else ""
        raise ValueError(
            f"JAX_PLATFORMS: expected what JAX can use here, as cpu, got {asked!r}; unset it to "
            f"have JAX choose, or install JAX for that platform{reason[:200]}"
        ) from error


# Output ------------------------------------------------------------------------------------------


def _let_streams_replace() -> None:
    """Show letters that the encoding of a terminal or a file lacks as question marks."""
    for stream in (sys.stdout, sys.stderr):
        strict = ("strict", "surrogateescape", "surrogatepass")
        if isinstance(stream, io.TextIOWrapper) and stream.errors in strict:
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def _flushed_output() -> Iterator[None]:
    """Have all output written, or fail, before the command ends."""
    try:
        try:
            yield
        finally:
            _flush()
    except OSError:
        try:
            _flush()
        except OSError:
            # At its end Python would write what is left, fail, and say so in words of its own.
            with contextlib.suppress(AttributeError, OSError):  # of no file
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show the library's warnings and messages as single lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("jdec: %(message)s"))
    logger, others = logging.getLogger("jdec"), logging.getLogger("matplotlib")
    logger.addHandler(handler)
    level = others.level
    others.setLevel(logging.ERROR)  # else it tells of its caches
    said: list[str] = []

    def remember(record: logging.LogRecord) -> bool:
        said.append(record.getMessage())
        return True

    handler.addFilter(remember)

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        # The reader of a table says it as well, with the options of the command.
        if issubclass(category, IdentifierWarning) and any("number the rows" in s for s in said):
            return
        _tell(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        finally:
            logger.removeHandler(handler)
            others.setLevel(level)


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
    _tell(message)
    return code


def _tell(message: str) -> None:
    if sys.stderr is not None:  # else it would go to the output
        print(f"jdec: {' '.join(message.split())}", file=sys.stderr)
