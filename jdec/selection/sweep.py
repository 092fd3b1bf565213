"""Populations over a grid of settings and seeds: tables, a choice without labels, a consensus."""

import contextlib
import csv
import io
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jdec._checks import (
    as_rows,
    check_choice,
    check_fraction,
    check_integer,
    check_positive,
    check_seed,
    shown,
)
from jdec._environment import environment
from jdec._io import atomic_write, read_json, write_json, write_json_lines
from jdec.datasets import Dataset
from jdec.metrics import clustering_scores
from jdec.plotting import default_style, plot_sweep, save_figure
from jdec.selection.criteria import (
    agreement_with_others,
    consensus,
    generalizability,
    sampled_silhouette,
)
from jdec.trainer.config import Config
from jdec.trainer.model import assign, save_model
from jdec.trainer.population import PopulationResult, fit_population
from jdec.trainer.sharding import Mesh
from jdec.trainer.workdir import check_no_other_files, check_same_run, fingerprint, sampled_digest

#: Criteria that need no classes, and whether the greatest value is the best.
CRITERIA = {"agreement": True, "silhouette": True, "divergence": False}
#: What a setting is made of, as a member's row of the table names it.
AXES = ("n_clusters", "alpha", "learning_rate")

_SHARE_HELD_OUT = 0.2
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

    Examples:
        >>> Grid((0, 1), (5, 6), (1.0,), (1e-3,)).members()[:2]
        [(0, 5, 1.0, 0.001), (1, 5, 1.0, 0.001)]
    """

    seeds: tuple[int, ...]
    n_clusters: tuple[int, ...]
    alphas: tuple[float, ...]
    learning_rates: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse an empty grid, the same value twice, and values out of range."""
        for name, values in vars(self).items():
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
        n_members = math.prod(map(len, vars(self).values()))
        if n_members > _MAX_MEMBERS:
            raise ValueError(
                f"seeds, n_clusters, alphas, learning_rates: expected at most {_MAX_MEMBERS} "
                f"combinations, got {n_members}"
            )

    def members(self) -> list[tuple[int, int, float, float]]:
        """Return seed, K, α and learning rate of all members, those of a setting together."""
        settings = product(self.n_clusters, self.alphas, self.learning_rates)
        return [(seed, *setting) for setting in settings for seed in self.seeds]


class SweepResult(NamedTuple):
    """What :func:`run_sweep` found."""

    population: PopulationResult
    members: list[dict[str, Any]]  # a row of the table for each
    settings: list[dict[str, Any]]  # mean and standard deviation over the seeds of each
    best: int  # member, by the criterion
    criterion: str
    labels: Int[np.ndarray, "N"]  # of the best member, for all rows
    consensus_labels: Int[np.ndarray, "N"]  # of the best member's setting, over its seeds
    consensus_scores: dict[str, float] | None
    seconds: dict[str, float]


def run_sweep(
    key: Key[Array, ""],
    dataset: Dataset,
    config: Config,
    grid: Grid,
    *,
    criterion: str = "agreement",
    held_out: float | None = None,
    members_at_once: int | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> SweepResult:
    """Fit a population over a grid, describe its members, and choose one without labels.

    Args:
        key: Typed random key of the consensus; members have the keys of their seeds.
        dataset: Rows; its classes, if any, are used for scores in the table alone.
        config: What all members have in common.
        grid: What they differ in.
        criterion: ``agreement`` (with the other seeds of the setting), ``silhouette`` (in the
            space of the scaled rows, which all members share) or
            ``divergence`` (least KL; among equal K). With one seed, agreement means silhouette.
        held_out: Share of the rows kept from training to measure generalizability; by default a
            fifth where the grid has several K, else none.
        members_at_once: As in :func:`jdec.fit_population`.
        mesh: As in :func:`jdec.fit_population`.
        progress: Show progress bars on stderr.

    Returns:
        A :class:`SweepResult`.

    Raises:
        ValueError: For bad input.

    Source: Xie et al. 2016, sections 5.2 and 5.3.
    """
    check_choice("criterion", criterion, CRITERIA)
    if held_out is None:
        held_out = _SHARE_HELD_OUT if len(grid.n_clusters) > 1 else 0.0
    check_fraction("held_out", held_out)
    if criterion == "agreement" and len(grid.seeds) == 1:
        criterion = "silhouette"
    if criterion == "divergence" and len(grid.n_clusters) > 1:
        raise ValueError(
            "criterion: the divergence of different numbers of clusters cannot be compared; "
            "expected agreement or silhouette"
        )
    rows = as_rows("x", dataset.x, columns=dataset.feature_names)
    # Which rows are held out is the same for all members and all sweeps of this data.
    order = np.random.default_rng(0).permutation(len(rows))
    n_held_out = int(held_out * len(rows))
    training = np.sort(order[n_held_out:])
    validation = rows[np.sort(order[:n_held_out])]
    seeds, ks, alphas, rates = zip(*grid.members(), strict=True)
    # A key for each seed and not for each member, of which there may be thousands.
    keys = jnp.stack([jax.random.key(seed) for seed in grid.seeds])
    population = fit_population(
        keys[np.array([grid.seeds.index(seed) for seed in seeds])],
        rows[training] if n_held_out else rows,
        config,
        n_clusters=ks,
        alphas=alphas,
        learning_rates=rates,
        feature_names=dataset.feature_names,
        members_at_once=members_at_once,
        mesh=mesh,
        progress=progress,
    )
    began = time.perf_counter()
    members = _describe(population, grid, rows, training, validation, dataset.y)
    seconds = population.seconds | {"criteria": time.perf_counter() - began}
    settings = _summarise(members)
    best = _choose(members, criterion)

    began = time.perf_counter()
    siblings = [
        i
        for i, member in enumerate(members)
        if all(member[axis] == members[best][axis] for axis in AXES)
        and np.isfinite(population.divergence[i])
    ]
    n_clusters = members[best]["n_clusters"]
    q = np.stack([assign(population.member(i), rows)[1] for i in siblings])
    joint = np.asarray(consensus(key, q, n_clusters).labels)
    seconds["consensus"] = time.perf_counter() - began
    return SweepResult(
        population=population,
        members=members,
        settings=settings,
        best=best,
        criterion=criterion,
        labels=q[siblings.index(best)].argmax(axis=1).astype(np.int32),
        consensus_labels=joint,
        consensus_scores=None if dataset.y is None else clustering_scores(dataset.y, joint),
        seconds=seconds,
    )


def _describe(
    population: PopulationResult,
    grid: Grid,
    rows: Float[np.ndarray, "N D"],
    training: Int[np.ndarray, "T"],
    validation: Float[np.ndarray, "V D"],
    y: Int[np.ndarray, "N"] | None,
) -> list[dict[str, Any]]:
    """Make a row of the table for each member."""
    n_seeds = len(grid.seeds)
    table: list[dict[str, Any]] = []
    sample = rows[np.random.default_rng(0).permutation(training)[:2000]]
    # One space for all partitions: in a member's own embedding its own clusters are tight.
    space = population.scaling.apply(sample)
    for index, (seed, k, alpha, rate) in enumerate(grid.members()):
        if index % n_seeds == 0:
            agreement = agreement_with_others(population.labels[index : index + n_seeds])
        model = population.member(index)
        finite = bool(np.isfinite(population.divergence[index]))
        silhouette = np.nan
        if finite:
            silhouette = sampled_silhouette(space, assign(model, sample)[1].argmax(axis=1))
        member: dict[str, Any] = {
            "seed": seed,
            "n_clusters": k,
            "alpha": alpha,
            "learning_rate": rate,
            "divergence": float(population.divergence[index]),
            "silhouette": silhouette,
            "agreement": float(agreement[index % n_seeds]) if finite else np.nan,
            "n_intervals": int(population.n_intervals[index]),
            "n_empty": int(k - len(np.unique(population.labels[index]))),
        }
        if len(validation):
            member["generalizability"] = (
                generalizability(model, rows[training], validation) if finite else np.nan
            )
        if y is not None:
            member |= clustering_scores(y[training], population.labels[index])
        table.append(member)
    return table


def _summarise(members: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average over the seeds of each setting."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for member in members:
        groups.setdefault(tuple(member[axis] for axis in AXES), []).append(member)
    names = [name for name in members[0] if name not in ("seed", *AXES)]
    settings = []
    for setting, group in groups.items():
        row: dict[str, Any] = {**dict(zip(AXES, setting, strict=True)), "n_seeds": len(group)}
        for name in names:
            values = np.array([member[name] for member in group], float)
            row[name] = float(values.mean())
            row[f"{name}_std"] = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        settings.append(row)
    return settings


def _choose(members: Sequence[dict[str, Any]], criterion: str) -> int:
    """Return the member whose criterion is best; one that broke is never chosen."""
    sign = 1 if CRITERIA[criterion] else -1
    values = np.array([sign * member[criterion] for member in members], float)
    if np.isnan(values).all():
        raise ValueError(f"criterion: {criterion} could not be computed for any member")
    return int(np.nanargmax(values))


@contextlib.contextmanager
def begin_sweep(
    out: Path,
    key: Key[Array, ""],
    dataset: Dataset,
    config: Config,
    grid: Grid,
    *,
    criterion: str,
    held_out: float | None,
) -> Iterator[bool]:
    """Leave a record in a folder of what it is a sweep of, or refuse one that is taken.

    A sweep that was killed starts again in its own folder. If it is refused before it began, the
    folder is left as it was.

    Args:
        out: The folder, locked by the caller.
        key: As for :func:`run_sweep`, and so the rest.
        dataset: Rows.
        config: What all members have in common.
        grid: What they differ in.
        criterion: What to choose by.
        held_out: Share of the rows that is kept from training.

    Yields:
        Whether the same sweep had begun there before.

    Raises:
        ValueError: If the folder holds a finished sweep, another run, or files of the user's that
            are called like results; or a file cannot be written.
    """
    record = out / "run.json"
    check_no_other_files(out)
    if (out / "sweep.json").exists():
        raise ValueError(f"out: a finished sweep exists already in {out}; choose another folder")
    data = {
        "shape": list(dataset.x.shape),
        "digest": sampled_digest(dataset.x),
        "sweep": [*map(list, vars(grid).values()), criterion, held_out],
    }
    mine = fingerprint(key, config, data)
    is_again = record.exists()
    if is_again:
        if _is_of_a_fit(record):
            raise ValueError(f"out: {out} holds a run of jdec fit; choose another folder")
        check_same_run(record, mine, resume=True)
    try:
        write_json(record, mine)
        yield is_again
    except OSError as error:
        raise ValueError(
            f"out: cannot write {error.filename}: {error.strerror}; the same command starts the "
            "sweep again"
        ) from error
    except ValueError:
        if not is_again:
            record.unlink(missing_ok=True)
        raise


def _is_of_a_fit(record: Path) -> bool:
    try:
        return "sweep" not in read_json(record)["data"]
    except (OSError, ValueError, TypeError, KeyError):  # damaged, as check_same_run will say
        return False


def write_sweep(
    out: Path, dataset: Dataset, config: Config, result: SweepResult, about: dict[str, Any]
) -> dict[str, Any]:
    """Write tables, the best member's model and labels, the consensus, and a picture.

    Each file is written whole or not at all.

    Args:
        out: The folder; made if need be.
        dataset: Of the sweep.
        config: What the members have in common.
        result: From :func:`run_sweep`.
        about: More to put into sweep.json.

    Returns:
        The content of sweep.json.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("members", result.members), ("settings", result.settings)):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        # An empty cell is what other programs read as missing.
        writer.writerows(
            {name: None if value != value else value for name, value in row.items()} for row in rows
        )
        with atomic_write(out / f"{name}.csv") as file:
            file.write(text.getvalue().encode())
    for name, labels in (("labels", result.labels), ("consensus", result.consensus_labels)):
        with atomic_write(out / f"{name}.npy") as file:
            np.save(file, labels, allow_pickle=False)
    save_model(out / "model.npz", result.population.member(result.best))
    write_json(out / "config.json", config.to_dict())
    write_json_lines(out / "history.jsonl", result.population.history)
    axis = varied_axis(result.settings)
    if axis is not None:
        with default_style():
            save_figure(plot_sweep(result.settings, axis), out / "sweep.png")
    summary = {
        "dataset": dataset.name,
        "variant": dataset.variant,
        "note": dataset.note,
        "n_rows": len(dataset.x),
        "feature_names": None if dataset.feature_names is None else [*dataset.feature_names],
        "label_name": dataset.label_name,
        "criterion": result.criterion,
        "best": result.members[result.best],
        "consensus": result.consensus_scores,
        "members_at_once": result.population.members_at_once,
        "seconds": {name: round(value, 2) for name, value in result.seconds.items()},
        "environment": environment(),
        **about,
    }
    write_json(out / "sweep.json", summary)
    return summary


def varied_axis(settings: Sequence[dict[str, Any]]) -> str | None:
    """Return the first axis along which settings differ, if any does."""
    return next((axis for axis in AXES if len({row[axis] for row in settings}) > 1), None)


def sweep_table(settings: Sequence[dict[str, Any]]) -> str:
    """Lay out settings as text: mean ± standard deviation over seeds."""
    titles = {
        "divergence": "KL",
        "silhouette": "silhouette",
        "agreement": "agreement",
        "generalizability": "G",
        "acc": "ACC",
        "nmi": "NMI",
        "ari": "ARI",
    }
    axes = [a for a in AXES if a == "n_clusters" or len({row[a] for row in settings}) > 1]
    shown = [name for name in titles if name in settings[0]]
    short = {"n_clusters": "k", "learning_rate": "rate"}
    table = [[*(short.get(axis, axis) for axis in axes), *(titles[name] for name in shown)]]
    for row in settings:
        cells = [f"{row[axis]:g}" for axis in axes]
        for name in shown:
            spread = row[f"{name}_std"]
            cells.append(f"{row[name]:.3f}" + (f" ± {spread:.3f}" if np.isfinite(spread) else ""))
        table.append(cells)
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )
