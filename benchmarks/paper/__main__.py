"""Run an experiment of the paper, or render the tables.

    python -m benchmarks.paper table2 --dataset mnist --preset fast --seeds 0-4
    python -m benchmarks.paper report

Cells that have a record are not run again, so rerun an interrupted command to continue.
"""

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.__main__ import write_pages
from benchmarks.paper.cells import Laboratory, MissingDataError
from benchmarks.paper.methods import METHODS
from benchmarks.paper.options import Options
from benchmarks.paper.report import EXPERIMENTS
from benchmarks.records import RESULTS, parse_seeds
from jdec.plotting import save_figure


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", choices=[*EXPERIMENTS, "report"], help="what to run")
    parser.add_argument("--dataset", nargs="+", metavar="NAME", help="data sets")
    parser.add_argument("--preset", choices=["fast", "paper"], default="fast")
    parser.add_argument("--seeds", type=parse_seeds, default=[0], help="0-4 or 0,2,5")
    parser.add_argument("--methods", nargs="+", default=[], choices=list(METHODS), metavar="NAME")
    parser.add_argument("--no-sweeps", action="store_true", help="default settings only")
    parser.add_argument("--smoke", action="store_true", help="small and quick, nothing recorded")
    parser.add_argument("--data-dir", help="folder that is searched first for data sets")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/paper"), help="folder of caches and pictures"
    )
    arguments = parser.parse_args(argv)
    if arguments.name == "report":
        write_pages()
        return 0
    module = importlib.import_module(f"benchmarks.paper.{arguments.name}")
    datasets = arguments.dataset or (["digits"] if arguments.smoke else module.DEFAULT_DATASETS)
    options = Options(
        tuple(datasets),
        arguments.preset,
        arguments.seeds,
        not arguments.no_sweeps,
        tuple(arguments.methods),
        arguments.smoke,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    laboratory = Laboratory(arguments.out, smoke=arguments.smoke, data_dir=arguments.data_dir)
    methods = {**METHODS, **getattr(module, "METHODS", {})}
    if hasattr(module, "cells"):  # else its picture is all
        laboratory.run(module.cells(options), methods)
    if not hasattr(module, "draw"):
        return 0
    try:
        figures = module.draw(laboratory, options, laboratory.all_records())
    except MissingDataError as error:
        print(error, file=sys.stderr)
        return 1
    for dataset, figure in figures.items():
        name = f"paper_{arguments.name}_{dataset}_{arguments.preset}.png"
        path = (arguments.out if arguments.smoke else RESULTS) / name
        save_figure(figure, path)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
