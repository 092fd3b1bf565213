"""``jdec sweep``."""

import sys
import time
from pathlib import Path

import numpy as np

from jdec.cli.arguments import Sweep
from jdec.cli.fit_commands import announce, base_config, check_platform, load_data, recipe_of
from jdec.cli.parsing import integers, numbers
from jdec.cli.report import introduction
from jdec.cli.results import seed_keys
from jdec.cli.sweep_report import sweep_summary
from jdec.cli.sweep_results import begin_sweep, write_sweep
from jdec.selection.sweep import Grid, run_sweep
from jdec.trainer.compilation import CompilationClock
from jdec.trainer.config import read_config
from jdec.trainer.memory import check_memory
from jdec.trainer.sharding import member_mesh
from jdec.trainer.workdir import lock_folder


def run_sweep_command(arguments: Sweep) -> None:
    """Run ``jdec sweep``."""
    began, clock = time.perf_counter(), CompilationClock()
    seeds = _seeds(arguments.seeds)
    ks = None if arguments.n_clusters is None else integers("n_clusters", arguments.n_clusters)
    alphas = numbers("alphas", arguments.alphas)
    rates = numbers("learning_rates", arguments.learning_rates)
    given = None if arguments.config is None else read_config(arguments.config)
    check_platform()
    mesh = None if arguments.devices is None else member_mesh(arguments.devices)
    announce(arguments)
    dataset = load_data(arguments, given)
    config = base_config(arguments, dataset, max(ks) if ks else None, given)
    if arguments.image_shape is not None:
        config = config.replace({"image_shape": arguments.image_shape})
    grid = Grid(
        seeds,
        ks or (config.n_clusters,),
        alphas or (config.clustering.alpha,),
        rates or (config.clustering.optimizer.learning_rate,),
        arguments.held_out,
    )
    check_memory(config, dataset.x.shape[0], dataset.x.shape[1])
    out = arguments.out or Path("runs") / f"{dataset.name}-sweep"
    say = print if not arguments.quiet else lambda line: None
    _, key = seed_keys(np.uint32(seeds[0]))
    criterion, recipe = arguments.select, recipe_of(arguments)
    started = begin_sweep(out, key, dataset, config, grid, criterion, arguments.resume)
    with lock_folder(out), started as workdir:
        n_members = len(grid.members())
        amounts = f"{n_members} fits ({len(seeds)} seeds × {n_members // len(seeds)} settings)"
        say(introduction(dataset, config, f"; {amounts}; {recipe}", mesh))
        result = run_sweep(
            key,
            dataset.x,
            config,
            grid,
            y=dataset.y,
            feature_names=dataset.feature_names,
            criterion=criterion,
            members_at_once=arguments.members_at_once,
            workdir=workdir,
            resume=True,
            checkpoint_seconds=arguments.checkpoint_seconds,
            mesh=mesh,
            progress=not arguments.quiet and sys.stderr is not None,
        )
        about = {"recipe": recipe, "compilation": clock.as_record()}
        summary = write_sweep(out, dataset, config, result, about)
    say(sweep_summary(out, result, summary, time.perf_counter() - began))


def _seeds(text: str) -> tuple[int, ...]:
    """Parse seeds: a single number is how many, from 0."""
    seeds = integers("seeds", text)
    if not text.strip().isdecimal():
        return seeds
    return integers("seeds", f"0-{seeds[0] - 1}") if seeds[0] else ()
