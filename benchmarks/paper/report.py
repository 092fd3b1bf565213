"""The tables of the paper, rendered from the records."""

import importlib
from collections.abc import Callable
from functools import partial

from benchmarks.records import read_records

#: Names of the experiments: each is a module of this package.
EXPERIMENTS = ("table2", "table3", "table4", "fig2", "fig3", "fig4", "fig5", "fig6")


def render(name: str) -> str:
    """Render the table of an experiment."""
    text: str = importlib.import_module(f"benchmarks.paper.{name}").table(read_records("paper"))
    return text


#: Name of each table in a page to what renders it.
TABLES: dict[str, Callable[[], str]] = {
    f"paper_{name}": partial(render, name)
    for name in EXPERIMENTS
    if name not in ("fig3", "fig4", "fig5")
}
