"""The grid of a sweep: seeds, numbers of clusters, α and learning rates."""

import math
from dataclasses import astuple, dataclass
from itertools import product

import numpy as np

from jdec._checks import check_fraction, check_integer, check_positive, check_seed, shown

#: What a setting is made of, as a member's row of the table names it.
AXES = ("n_clusters", "alpha", "learning_rate")

_DEFAULT_HELD_OUT = 0.2
_MAX_MEMBERS = 100_000
_FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True)
class Grid:
    """Every combination of these values is a setting, and every setting runs with every seed.

    Attributes:
        seeds: Seeds of the random keys.
        n_clusters: Numbers of clusters.
        alphas: Degrees of freedom α.
        learning_rates: Learning rates of the clustering phase.
        held_out: Share of the rows that no member is trained on, to measure generalizability; None
            means a fifth with several numbers of clusters, else 0.

    Examples:
        >>> Grid((0, 1), (5, 6), (1.0,), (1e-3,)).members()[:2]
        [(0, 5, 1.0, 0.001), (1, 5, 1.0, 0.001)]
    """

    seeds: tuple[int, ...]
    n_clusters: tuple[int, ...]
    alphas: tuple[float, ...]
    learning_rates: tuple[float, ...]
    held_out: float | None = None

    def __post_init__(self) -> None:
        """Validate the fields."""
        *axes, held_out = astuple(self)
        for name, values in zip(vars(self), axes, strict=False):
            if not values:
                raise ValueError(f"{name}: expected at least one value, got none")
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: expected different values, got {values}")
        for seed in self.seeds:
            check_seed("seeds", seed)
        for n_clusters in self.n_clusters:
            check_integer("n_clusters", n_clusters)
        for name in ("alphas", "learning_rates"):
            for value in getattr(self, name):
                check_positive(name, value)
                if not float(_FLOAT32.tiny) <= value <= float(_FLOAT32.max):
                    raise ValueError(
                        f"{name}: expected numbers from {_FLOAT32.tiny:.3g} to {_FLOAT32.max:.3g} "
                        f"(float32), got {shown(value)}"
                    )
        if held_out is not None:
            check_fraction("held_out", held_out)
        n_members = math.prod(map(len, axes))
        if n_members > _MAX_MEMBERS:
            raise ValueError(
                f"seeds, n_clusters, alphas, learning_rates: expected at most {_MAX_MEMBERS} "
                f"combinations, got {n_members}"
            )

    def members(self) -> list[tuple[int, int, float, float]]:
        """Return seed, K, α and learning rate of all members, those of a setting together."""
        settings = product(self.n_clusters, self.alphas, self.learning_rates)
        return [(seed, *setting) for setting in settings for seed in self.seeds]

    def n_held_out(self, n_rows: int) -> int:
        """Return how many of ``n_rows`` rows no member is trained on."""
        share = self.held_out
        if share is None:
            share = _DEFAULT_HELD_OUT if len(self.n_clusters) > 1 else 0.0
        return int(share * n_rows)
