"""``jdec fit`` and ``jdec sweep``: commands that train."""

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax

from jdec._checks import check_seed
from jdec.cli.arguments import Fit, Sweep
from jdec.cli.inputs import (
    base_config,
    check_platform,
    data_lines,
    headline,
    load_data,
    recipe,
    scoring_key,
)
from jdec.cli.parsing import MISSING, integers, numbers, parse
from jdec.cli.report import fit_summary, sweep_summary
from jdec.cli.results import score_methods, write_results
from jdec.cli.sweep_results import begin_sweep, write_sweep
from jdec.selection.grid import Grid
from jdec.selection.sweep import run_sweep
from jdec.trainer.compilation import CompilationClock
from jdec.trainer.config import Config, read_config
from jdec.trainer.distributed import initialize_distributed
from jdec.trainer.fit import fit
from jdec.trainer.memory import check_memory
from jdec.trainer.presets import preset_config
from jdec.trainer.processes import is_primary
from jdec.trainer.sharding import Mesh, data_mesh, member_mesh
from jdec.trainer.workdir import explained_writing, lock_folder


def run_fit(argv: Sequence[str]) -> int:
    """Run ``jdec fit``: parse once to load the data, then again with the preset for them."""
    began = time.perf_counter()
    clock = CompilationClock()
    first = parse(Fit, argv, default=_typical_fit(argv) if {"-h", "--help"} & {*argv} else None)
    check_seed("seed", first.seed)
    base = None if first.config is None else read_config(first.config)
    mesh = _mesh(first)
    dataset = load_data(first, base)
    base = base_config(first, dataset, first.n_clusters, base)
    arguments = parse(Fit, argv, default=_with_config(first, base))
    names = [name for name in vars(base) if name != "n_clusters"]
    settings = {name: getattr(arguments, name) for name in names}
    config = Config(n_clusters=base.n_clusters, **settings)
    check_memory(config, len(dataset.x), dataset.x.shape[1], 1 if mesh is None else mesh.size)
    out = arguments.out or Path("runs") / dataset.name
    writes = is_primary()
    say = print if writes and not arguments.quiet else lambda line: None
    what = f", {config.n_clusters} clusters; {recipe(arguments)}, seed {arguments.seed}"
    for line in [headline(dataset, what, mesh), *data_lines(dataset, config)]:
        say(line)
    loaded = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if jax.process_count() == 1:  # else fit() reports to all processes what the first finds
            stack.enter_context(lock_folder(out))
        result = fit(
            jax.random.key(arguments.seed),
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
        result.seconds["loading"] = loaded - began
        if dataset.y is not None:
            scores = score_methods(scoring_key(arguments.seed), dataset, config, result)
            result.seconds["baselines"] = time.perf_counter() - fitted
        about = {
            "recipe": recipe(arguments),
            "seed": arguments.seed,
            "compilation": clock.as_record(),
        }
        with explained_writing():
            metrics = write_results(out, dataset, config, result, scores=scores, about=about)
    say(fit_summary(out, config, metrics, time.perf_counter() - began))
    return 0


def _typical_fit(argv: Sequence[str]) -> Fit:
    """Return the arguments whose defaults ``--help`` shows, before any data set is read."""
    preset: Literal["fast", "paper"] = "fast"
    if {"paper", "--preset=paper"} & set(argv):
        preset = "paper"
    config = preset_config(preset, n_clusters=10, n_rows=10_000)
    return _with_config(Fit(data=MISSING, preset=preset), config)


def _with_config(arguments: Fit, config: Config) -> Fit:
    return Fit(**{**vars(arguments), **vars(config), "n_clusters": arguments.n_clusters})


def _mesh(arguments: Fit) -> Mesh | None:
    """Initialise JAX, with the other processes of the run if there are any; return the mesh."""
    several = (arguments.coordinator, arguments.num_processes, arguments.process_id)
    distributed = arguments.distributed or any(value is not None for value in several)
    if distributed:
        initialize_distributed(*several)
    check_platform()
    return data_mesh(arguments.devices) if distributed or arguments.devices is not None else None


def run_sweep_command(arguments: Sweep) -> int:
    """Run ``jdec sweep``."""
    began = time.perf_counter()
    clock = CompilationClock()
    seeds = _seeds(arguments.seeds)
    ks = None if arguments.n_clusters is None else integers("n_clusters", arguments.n_clusters)
    alphas = numbers("alphas", arguments.alphas)
    rates = numbers("learning_rates", arguments.learning_rates)
    base = None if arguments.config is None else read_config(arguments.config)
    check_platform()
    mesh = None if arguments.devices is None else member_mesh(arguments.devices)
    dataset = load_data(arguments, base)
    config = base_config(arguments, dataset, max(ks) if ks else None, base)
    if arguments.image_shape is not None:
        config = config.replace({"image_shape": arguments.image_shape})
    grid = Grid(
        seeds,
        ks or (config.n_clusters,),
        alphas or (config.clustering.alpha,),
        rates or (config.clustering.optimizer.learning_rate,),
        arguments.held_out,
    )
    check_memory(config, len(dataset.x), dataset.x.shape[1])
    out = arguments.out or Path("runs") / f"{dataset.name}-sweep"
    say = print if not arguments.quiet else lambda line: None
    n_members = len(grid.members())
    key = scoring_key(seeds[0])
    with (
        lock_folder(out),
        begin_sweep(
            out, key, dataset, config, grid, criterion=arguments.select, resume=arguments.resume
        ) as workdir,
    ):
        what = f"; {n_members} fits ({len(seeds)} seeds × {n_members // len(seeds)} settings)"
        what += f"; {recipe(arguments)}"
        for line in [headline(dataset, what, mesh), *data_lines(dataset, config)]:
            say(line)
        result = run_sweep(
            key,
            dataset.x,
            config,
            grid,
            y=dataset.y,
            feature_names=dataset.feature_names,
            criterion=arguments.select,
            members_at_once=arguments.members_at_once,
            workdir=workdir,
            resume=True,
            mesh=mesh,
            progress=not arguments.quiet and sys.stderr is not None,
        )
        about = {"recipe": recipe(arguments), "compilation": clock.as_record()}
        summary = write_sweep(out, dataset, config, result, about)
    say(sweep_summary(out, result, summary, time.perf_counter() - began))
    return 0


def _seeds(text: str) -> tuple[int, ...]:
    """Parse seeds: a single number is how many, from 0."""
    seeds = integers("seeds", text)
    if not text.strip().isdecimal():
        return seeds
    return integers("seeds", f"0-{seeds[0] - 1}") if seeds[0] else ()
