"""The options of one invocation, and the cells they select."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from benchmarks.paper.cells import Cell, Rows
from benchmarks.paper.methods import sweep


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line of an experiment.

    Attributes:
        datasets: Names of data sets.
        preset: ``fast`` or ``paper``.
        seeds: Seeds of the default settings; sweeps use only the first.
        sweeps: Whether to run the nine values of each hyper-parameter.
        methods: Only these methods, or all where empty.
        smoke: Only the ends of each range.
    """

    datasets: Sequence[str]
    preset: str
    seeds: Sequence[int]
    sweeps: bool = True
    methods: Sequence[str] = ()
    smoke: bool = False

    def values(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return the values of a range to run."""
        return (values[0], values[-1]) if self.smoke and len(values) > 2 else values

    def wants(self, method: str) -> bool:
        """Whether a method is selected."""
        return not self.methods or method in self.methods

    def cells(self, methods: Sequence[str], *, once: Sequence[str] = ()) -> list[Cell]:
        """Return every method at its default for every seed, then the sweeps of the first seed.

        Args:
            methods: Names of methods.
            once: Methods run with the first seed only, since no pretraining varies for them.
        """
        cells = []
        for dataset in self.datasets:
            for seed in self.seeds:
                cells += [
                    Cell(Rows(dataset), method, self.preset, seed)
                    for method in methods
                    if self.wants(method) and (method not in once or seed == self.seeds[0])
                ]
        return cells + (self.sweep_cells(methods) if self.sweeps else [])

    def sweep_cells(self, methods: Sequence[str]) -> list[Cell]:
        """Return the nine values of the hyper-parameter of each method that has one."""
        return [
            Cell(Rows(dataset), method, self.preset, self.seeds[0], (sweep(method)[0], value))
            for dataset in self.datasets
            for method in methods
            if self.wants(method)
            for value in self.values(sweep(method)[1])
        ]
