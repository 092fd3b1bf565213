"""The command line: ``jdec fit``, ``sweep``, ``predict``, ``evaluate``, ``datasets``, ``info``."""

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import platformdirs

from jdec._io import atomic_write
from jdec._checks import check_seed
from jdec.arguments import (
    Datasets,
    Evaluate,
    Fit,
    Info,
    Predict,
    Sweep,
    UsageError,
    integers,
    numbers,
    parse,
    typical_fit,
    with_config,
)
from jdec.compilation import CompilationClock, keep_programs
from jdec.config import (
    PRESETS,
    Config,
    preset_config,
    read_config,
)
from jdec.datasets import Dataset, dataset_table, download_dataset, load_dataset
from jdec.fit import DivergenceError, fit
from jdec.metrics import clustering_scores
from jdec.model import Model, assign, load_model
from jdec.results import environment, score_methods, write_results
from jdec.sharding import Mesh, connect, data_mesh, is_first_process, member_mesh
from jdec.summaries import fit_summary, recipe, score_table, sweep_summary
from jdec.sweep import Grid, run_sweep, write_sweep


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
            return run(parse(command, argv)) if command is not Fit else run_fit(argv)
    except UsageError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        more = "; the same command with --resume goes on" if command is Fit else ""
        return _fail(f"interrupted{more}", 130)
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
    first = parse(Fit, argv, default=typical_fit(argv) if {"-h", "--help"} & {*argv} else None)
    check_seed("seed", first.seed)
    mesh = _mesh(first)
    dataset = load_dataset(first.data, data_dir=first.data_dir)
    if first.image_shape is not None:
        dataset = Dataset(**{**vars(dataset), "image_shape": first.image_shape})
    base = _base_config(first, dataset, first.n_clusters)
    arguments = parse(Fit, argv, default=with_config(first, base))
    config = _as_config(arguments, base.n_clusters)
    out = arguments.out or Path("runs") / dataset.name
    writes = is_first_process()
    say: Callable[[str], None] = print if writes and not arguments.quiet else lambda line: None
    say(
        f"{dataset.name}{f' ({dataset.variant})' if dataset.variant else ''}: "
        f"{len(dataset.x)} rows, {dataset.x.shape[1]} features, "
        f"{config.n_clusters} clusters; {recipe(arguments)}, seed {arguments.seed}; "
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
        "recipe": recipe(arguments),
        "seed": arguments.seed,
        "compilation": clock.as_record(),
    }
    metrics = write_results(out, dataset, config, result, scores=scores, about=about)
    say(fit_summary(out, config, metrics, time.perf_counter() - began))
    return 0


def _mesh(arguments: Fit) -> Mesh | None:
    """Join the other processes, if there are any, and return the devices to use."""
    several = (arguments.coordinator, arguments.num_processes, arguments.process_id)
    if arguments.distributed or any(value is not None for value in several):
        connect(*several)
        return data_mesh(arguments.devices)
    return None if arguments.devices is None else data_mesh(arguments.devices)


def run_sweep_command(arguments: Sweep) -> int:
    """Run ``jdec sweep``."""
    began = time.perf_counter()
    clock = CompilationClock()
    mesh = None if arguments.devices is None else member_mesh(arguments.devices)
    seeds = integers("seeds", arguments.seeds)
    if arguments.seeds.strip().isdecimal():
        seeds = tuple(range(seeds[0]))
    ks = None if arguments.n_clusters is None else integers("n_clusters", arguments.n_clusters)
    dataset = load_dataset(arguments.data, data_dir=arguments.data_dir)
    most = max(ks) if ks else None
    base = _base_config(arguments, dataset, most)
    grid = Grid(
        seeds,
        ks or (base.n_clusters,),
        numbers("alphas", arguments.alphas) or (base.clustering.alpha,),
        numbers("learning_rates", arguments.learning_rates)
        or (base.clustering.optimizer.learning_rate,),
    )
    out = arguments.out or Path("runs") / f"{dataset.name}-sweep"
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise ValueError(f"out: {out} exists already; choose another folder")
    say: Callable[[str], None] = (lambda line: None) if arguments.quiet else print
    n_members = len(grid.members())
    say(
        f"{dataset.name}{f' ({dataset.variant})' if dataset.variant else ''}: "
        f"{len(dataset.x)} rows, {dataset.x.shape[1]} features; {n_members} fits "
        f"({len(seeds)} seeds × {n_members // len(seeds)} settings); {recipe(arguments)}; "
        f"{environment()['device']}{f' × {mesh.size}' if mesh else ''}"
    )
    if dataset.note:
        say(f"note: {dataset.note}")
    result = run_sweep(
        jax.random.key(seeds[0]),
        dataset,
        base,
        grid,
        criterion=arguments.select,
        held_out=arguments.held_out,
        members_at_once=arguments.members_at_once,
        mesh=mesh,
        progress=not arguments.quiet,
    )
    about = {"recipe": recipe(arguments), "compilation": clock.as_record()}
    summary = write_sweep(out, dataset, base, result, about)
    say(sweep_summary(out, result, summary, time.perf_counter() - began))
    return 0


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


def _base_config(arguments: Fit | Sweep, dataset: Dataset, n_clusters: int | None) -> Config:
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
