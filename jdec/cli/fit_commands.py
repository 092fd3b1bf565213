"""``jdec fit``; and the data and settings of all commands."""

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from jdec._checks import check_seed
from jdec.cli.arguments import Evaluate, Fit, Predict, Sweep
from jdec.cli.parsing import MISSING, names, parse
from jdec.cli.report import fit_summary, introduction
from jdec.cli.results import score_methods, seed_keys, write_results
from jdec.datasets import Dataset, dataset_table, load_dataset
from jdec.trainer.compilation import CompilationClock
from jdec.trainer.config import Config, read_config
from jdec.trainer.distributed import initialize_distributed
from jdec.trainer.fit import fit
from jdec.trainer.memory import check_memory
from jdec.trainer.presets import preset_config
from jdec.trainer.processes import is_primary
from jdec.trainer.sharding import Mesh, data_mesh
from jdec.trainer.workdir import explained_writing, lock_folder


def run_fit(argv: Sequence[str]) -> None:
    """Run ``jdec fit``: parse once to load the data, then again with the preset for them."""
    began, clock = time.perf_counter(), CompilationClock()
    first = parse(Fit, argv, default=_typical_fit(argv) if {"-h", "--help"} & {*argv} else None)
    check_seed("seed", first.seed)
    given = None if first.config is None else read_config(first.config)
    announce(first)
    mesh = _mesh(first)
    dataset = load_data(first, given)
    base = base_config(first, dataset, first.n_clusters, given)
    arguments = parse(Fit, argv, default=_with_config(first, base))
    settings = {name: getattr(arguments, name) for name in vars(base) if name != "n_clusters"}
    config = replace(base, **settings)
    n_rows, n_features = dataset.x.shape
    # Of rows that are streamed, P is on the host.
    n_on_device = 0 if arguments.rows == "stream" else n_rows
    check_memory(config, n_on_device, n_features, 1 if mesh is None else mesh.size)
    out = arguments.out or Path("runs") / dataset.name
    say = print if is_primary() and not arguments.quiet else lambda line: None
    recipe = recipe_of(arguments)
    what = f", {config.n_clusters} clusters; {recipe}, seed {arguments.seed}"
    say(introduction(dataset, config, what, mesh))
    loaded = time.perf_counter()
    key, scoring_key = seed_keys(np.uint32(arguments.seed))
    with contextlib.ExitStack() as stack:
        if jax.process_count() == 1:  # else fit() reports to all processes what the first finds
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
            checkpoint_seconds=arguments.checkpoint_seconds,
            mesh=mesh,
            rows=arguments.rows,
            progress=not arguments.quiet and sys.stderr is not None,
        )
        if not is_primary():
            return
        stack.enter_context(lock_folder(out))
        fitted = time.perf_counter()
        scores = None
        result.seconds["loading"] = loaded - began
        if dataset.y is not None:
            scores = score_methods(scoring_key, dataset, config, result)
            result.seconds["baselines"] = time.perf_counter() - fitted
        about = {"recipe": recipe, "seed": arguments.seed, "compilation": clock.as_record()}
        with explained_writing():
            metrics = write_results(out, dataset, config, result, scores=scores, about=about)
    say(fit_summary(out, config, metrics, time.perf_counter() - began))


def _typical_fit(argv: Sequence[str]) -> Fit:
    """Return the arguments whose defaults ``--help`` shows, before any data set is read."""
    is_paper = "paper" in argv or "--preset=paper" in argv
    preset: Literal["fast", "paper"] = "paper" if is_paper else "fast"
    config = preset_config(preset, n_clusters=10, n_rows=10_000)
    return _with_config(Fit(data=MISSING, preset=preset), config)


def _with_config(arguments: Fit, config: Config) -> Fit:
    return replace(arguments, **vars(config) | {"n_clusters": arguments.n_clusters})


def _mesh(arguments: Fit) -> Mesh | None:
    """Initialise JAX, with the other processes of the run if there are any; return the mesh."""
    several = (arguments.coordinator, arguments.num_processes, arguments.process_id)
    distributed = arguments.distributed or any(value is not None for value in several)
    if distributed:
        initialize_distributed(*several)
    check_platform()
    return data_mesh(arguments.devices) if distributed or arguments.devices is not None else None


def check_platform() -> None:
    """Raise unless JAX finds the devices that JAX_PLATFORMS asks for."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter, without a message, for cuda
        requested = jax.config.values["jax_platforms"]
        reason = f": {error}" if str(error) else ""
        raise ValueError(
            f"JAX_PLATFORMS: expected a platform available here, as cpu, got {requested!r}; unset "
            f"it to let JAX choose, or install JAX for that platform{reason[:200]}"
        ) from error


def announce(arguments: Fit | Sweep) -> None:
    """Say at a terminal what happens first: reading data and starting devices may take a while."""
    is_first = getattr(arguments, "process_id", None) in (None, 0)
    if is_first and not arguments.quiet and sys.stderr is not None and sys.stderr.isatty():
        print(f"reading {arguments.data}", file=sys.stderr, flush=True)


def load_data(arguments: Fit | Sweep | Predict | Evaluate, config: Config | None = None) -> Dataset:
    """Load the data set; the rows of a file have the image shape of ``config`` by default."""
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


def base_config(
    arguments: Fit | Sweep, dataset: Dataset, n_clusters: int | None, config: Config | None
) -> Config:
    """Return the configuration of ``--config``, or else of the preset."""
    if config is not None:
        return config if n_clusters is None else config.replace({"n_clusters": n_clusters})
    if n_clusters is None:
        known = {row.name: row.shape[2] for row in dataset_table(arguments.data_dir)}
        n_clusters = known.get(arguments.data)
    if n_clusters is None:
        raise ValueError(
            f"{arguments.data}: expected --n-clusters; only named data sets have a default"
        )
    return preset_config(
        arguments.preset,
        n_clusters=n_clusters,
        n_rows=dataset.x.shape[0],
        dataset=dataset.name if arguments.data == dataset.name else "",
        image_shape=dataset.image_shape,
    )


def recipe_of(arguments: Fit | Sweep) -> str:
    """Return the origin of the settings: a preset or a file."""
    preset, path = arguments.preset, arguments.config
    return f"preset {preset}" if path is None else f"settings of {path}"
