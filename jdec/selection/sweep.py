"""Fits over a grid of settings and seeds: tables, a choice without labels, a consensus."""

import math
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import groupby, product
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jdec import _checks as checks
from jdec._columns import check_feature_names
from jdec._rows import as_labels
from jdec._sources import as_source
from jdec.metrics import clustering_scores
from jdec.selection.criteria import consensus, generalizability, mean_ari, sampled_silhouette
from jdec.trainer.config import Config
from jdec.trainer.model import assign
from jdec.trainer.population import fit_population
from jdec.trainer.results import PopulationResult

#: What a setting is made of, as a member's row of the table names it.
AXES = ("n_clusters", "alpha", "learning_rate")

#: Criteria that need no classes, and whether the max is the best.
CRITERIA = {"agreement": True, "silhouette": True, "kl": False}

#: K, α and learning rate of a line of the table.
setting_of = itemgetter(*AXES)

_SILHOUETTE_ROWS = 2000
_MAX_MEMBERS = 100_000


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
            checks.check_seed("seeds", seed)
        for n_clusters in self.n_clusters:
            checks.check_integer("n_clusters", n_clusters)
        limits = np.finfo(np.float32)
        for name in ("alphas", "learning_rates"):
            for value in getattr(self, name):
                checks.check_positive(name, value)
                if not float(limits.tiny) <= value <= float(limits.max):
                    raise ValueError(
                        f"{name}: expected numbers from {limits.tiny:.3g} to {limits.max:.3g} "
                        f"(float32), got {checks.shown(value)}"
                    )
        if held_out is not None:
            checks.check_fraction("held_out", held_out)
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
            share = 0.2 if len(self.n_clusters) > 1 else 0.0
        return int(share * n_rows)


class SweepResult(NamedTuple):
    """What :func:`run_sweep` found."""

    population: PopulationResult
    members: list[dict[str, Any]]  # one line of the table each
    settings: list[dict[str, Any]]  # mean and standard deviation over the seeds of each
    best: int  # member, by the criterion
    criterion: str
    labels: Int[np.ndarray, "N"]  # of the best member, for all rows
    consensus_labels: Int[np.ndarray, "N"]  # of the best member's setting, over its seeds
    consensus_scores: dict[str, float] | None
    seconds: dict[str, float]


def run_sweep(
    key: Key[Array, ""],
    x: Any,
    config: Config,
    grid: Grid,
    *,
    y: Any = None,
    feature_names: Sequence[str] | None = None,
    criterion: str = "agreement",
    **options: Any,
) -> SweepResult:
    """Fit a population over a grid, describe its members, and choose one without labels.

    Args:
        key: Typed random key of the consensus; members have the keys of their seeds.
        x: Rows, [N D], numeric and finite.
        config: What all members have in common.
        grid: What they differ in.
        y: Classes, [N], only for scores in the table.
        feature_names: Names of the columns of ``x``; those of a data frame by default.
        criterion: ``agreement`` (mean ARI with the other seeds of the setting), ``silhouette`` (in
            the space of the scaled rows, which all members share) or ``kl`` (the min is the best;
            for one K). With one seed, agreement means silhouette.
        options: Other arguments of :func:`jdec.fit_population`, such as ``members_at_once``,
            ``workdir``, ``resume``, ``mesh`` and ``progress``.

    Returns:
        A :class:`SweepResult`.

    Raises:
        ValueError: For bad input.

    Source: Xie et al. 2016, sections 5.2 and 5.3.
    """
    criterion = _check_criterion(criterion, grid)
    feature_names = check_feature_names(feature_names, x)
    # Members have all rows on the device, and are compared there: dense.
    rows = as_source("x", x, columns=feature_names)[:]
    if y is not None:
        y = as_labels("y", y)
        checks.check_same_length("y", y, "x", rows)
    training, validation = _split(grid, len(rows))
    x_training, x_validation = rows[training] if len(validation) else rows, rows[validation]
    seeds, ks, alphas, rates = zip(*grid.members(), strict=True)
    # A key for each seed and not for each member, of which there may be thousands.
    keys = jnp.stack([jax.random.key(seed) for seed in grid.seeds])
    population = fit_population(
        keys[np.array([grid.seeds.index(seed) for seed in seeds])],
        x_training,
        config,
        n_clusters=ks,
        alphas=alphas,
        learning_rates=rates,
        feature_names=feature_names,
        **options,
    )
    began = time.perf_counter()
    y_training = None if y is None else y[training]
    members = _describe(population, grid, x_training, x_validation, y_training)
    best = _best(members, criterion)
    described = time.perf_counter()
    setting = setting_of(members[best])
    alike = [i for i, member in enumerate(members) if setting_of(member) == setting]
    siblings = [i for i in alike if np.isfinite(members[i]["kl"])]
    q = np.stack([assign(population.member(i), rows)[1] for i in siblings])
    joint = np.asarray(consensus(key, q, members[best]["n_clusters"]).labels)
    consensus_seconds = time.perf_counter() - described
    return SweepResult(
        population=population,
        members=members,
        settings=_summarise(members),
        best=best,
        criterion=criterion,
        labels=q[siblings.index(best)].argmax(axis=1).astype(np.int32),
        consensus_labels=joint,
        consensus_scores=None if y is None else clustering_scores(y, joint),
        seconds=population.seconds
        | {"criteria": described - began, "consensus": consensus_seconds},
    )


def _check_criterion(criterion: str, grid: Grid) -> str:
    checks.check_choice("criterion", criterion, CRITERIA)
    if criterion == "kl" and len(grid.n_clusters) > 1:
        raise ValueError(
            "criterion: kl cannot be compared between numbers of clusters; expected agreement or "
            "silhouette"
        )
    return "silhouette" if criterion == "agreement" and len(grid.seeds) == 1 else criterion


def _split(grid: Grid, n_rows: int) -> tuple[Int[np.ndarray, "T"], Int[np.ndarray, "V"]]:
    """Return the indices of training and held-out rows: the same for all sweeps of the data."""
    order = np.random.default_rng(0).permutation(n_rows)
    n_held_out = grid.n_held_out(n_rows)
    return np.sort(order[n_held_out:]), np.sort(order[:n_held_out])


def _best(members: Sequence[dict[str, Any]], criterion: str) -> int:
    values = np.array([member[criterion] for member in members], float)
    if np.isnan(values).all():
        raise ValueError(f"criterion: {criterion} could not be computed for any member")
    return int(np.nanargmax(values) if CRITERIA[criterion] else np.nanargmin(values))


def _describe(
    population: PopulationResult,
    grid: Grid,
    x: Float[np.ndarray, "T D"],
    x_validation: Float[np.ndarray, "V D"],
    y: Int[np.ndarray, "T"] | None,
) -> list[dict[str, Any]]:
    """Return the line of the table for each member."""
    table: list[dict[str, Any]] = []
    sample = np.random.default_rng(0).permutation(len(x))[:_SILHOUETTE_ROWS]
    # One space for all partitions: in its own embedding every member's clusters are tight.
    space = population.scaling.apply(x[sample])
    for index, (seed, *setting) in enumerate(grid.members()):
        place = index % len(grid.seeds)
        if place == 0:
            agreement = mean_ari(population.labels[index : index + len(grid.seeds)])
        labels, kl = population.labels[index], float(population.kl[index])
        finite = bool(np.isfinite(kl))
        member: dict[str, Any] = {
            "seed": seed,
            **dict(zip(AXES, setting, strict=True)),
            "kl": kl,
            "silhouette": sampled_silhouette(space, labels[sample]) if finite else np.nan,
            "agreement": float(agreement[place]) if finite else np.nan,
            "n_intervals": int(population.n_intervals[index]),
            "n_empty": int(setting[0] - len(np.unique(labels))),
        }
        if len(x_validation):
            member["generalizability"] = (
                generalizability(population.member(index), x, x_validation) if finite else np.nan
            )
        if y is not None:
            member |= clustering_scores(y, labels)
        table.append(member)
    return table


def _summarise(members: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average over the seeds of each setting, whose members are neighbours."""
    settings = []
    for setting, group in groupby(members, setting_of):
        rows = list(group)
        row: dict[str, Any] = {**dict(zip(AXES, setting, strict=True)), "n_seeds": len(rows)}
        for name in [name for name in members[0] if name not in ("seed", *AXES)]:
            values = np.array([member[name] for member in rows], float)
            row[name] = float(values.mean())
            row[f"{name}_std"] = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        settings.append(row)
    return settings
