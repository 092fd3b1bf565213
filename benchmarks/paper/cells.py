"""A cell is one method on one data set with one seed and one setting: run once, then cached.

Tables and figures consist of cells and share them. A cell is identified by a digest of its rows,
method, seed and settings, not by a name, so a changed recipe is a new cell. Pretraining is shared
in the same way. Labels only score the result.
"""

import dataclasses
import functools
import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.records import append_record, read_records
from jdec.datasets import Dataset, imbalanced_subset, load_dataset
from jdec.metrics import clustering_scores
from jdec.trainer.config import Config
from jdec.trainer.fingerprint import digest
from jdec.trainer.fit import fit
from jdec.trainer.presets import preset_config
from jdec.trainer.results import FitResult
from jdec.trainer.scaling import fit_scaling

#: Rows that a smoke run keeps of a data set.
SMOKE_ROWS = 300


@dataclasses.dataclass(frozen=True)
class Rows:
    """Which rows: a data set, or a part of it.

    Attributes:
        dataset: Name for :func:`jdec.load_dataset`.
        r_min: Of an imbalanced subset (Table 4), or None.
        split: ``all``, or ``train`` for the rows that Figure 6 trains on.
    """

    dataset: str
    r_min: float | None = None
    split: str = "all"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        rows: Which rows.
        method: A key of :data:`benchmarks.paper.methods.METHODS`.
        preset: Recipe of scaling, autoencoder and DEC.
        seed: Of everything random.
        setting: The hyper-parameter that is not at its default, and its value.
    """

    rows: Rows
    method: str
    preset: str
    seed: int
    setting: tuple[str, float] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the cell as plain JSON values."""
        return {
            **dataclasses.asdict(self.rows),
            "method": self.method,
            "preset": self.preset,
            "seed": self.seed,
            "setting": dict([self.setting]) if self.setting else {},
        }

    def __str__(self) -> str:
        """Return one line for people."""
        parts = [self.rows.dataset, self.method, self.preset, f"seed {self.seed}"]
        if self.rows.r_min is not None:
            parts.insert(1, f"r_min {self.rows.r_min:g}")
        if self.rows.split != "all":
            parts.insert(1, f"{self.rows.split} split")
        if self.setting:
            parts.append("{} = {:g}".format(*self.setting))
        return ", ".join(parts)


class MissingDataError(Exception):
    """The files of a data set are not there."""


class Laboratory:
    """Loads, pretrains and runs, each once; caches the results in a folder.

    Args:
        out: Folder for work directories, caches and pictures.
        smoke: Few rows, small network, few steps; records stay in ``out``.
        data_dir: Folder that is searched first for data sets.
    """

    def __init__(self, out: Path, *, smoke: bool = False, data_dir: str | None = None) -> None:
        self.out, self.smoke, self.data_dir = out, smoke, data_dir
        self.records = {record["cell"]: record for record in self.all_records() if "cell" in record}
        # Methods get the cell, so the last few of everything are cached.
        self.data = functools.lru_cache(maxsize=2)(self._data)
        self.data_digest = functools.lru_cache(maxsize=64)(self._data_digest)
        self.scaled = functools.lru_cache(maxsize=1)(self._scaled)
        self.pretrained = functools.lru_cache(maxsize=1)(self._pretrained)

    # Rows and settings --------------------------------------------------------------------------

    def _data(self, rows: Rows) -> Dataset:
        try:
            dataset = load_dataset(rows.dataset, data_dir=self.data_dir)
        except FileNotFoundError as error:
            # Without the folders, which differ between machines.
            raise MissingDataError(str(error).split(" not found in ")[0] + " not found") from error
        if self.smoke:
            dataset = _subset(dataset, np.arange(min(SMOKE_ROWS, len(dataset.x))))
        if rows.r_min is not None:
            dataset = imbalanced_subset(dataset, rows.r_min, seed=0)
        if rows.split != "all":
            train, validation = split_rows(dataset)
            dataset = _subset(dataset, train if rows.split == "train" else validation)
        return dataset

    def _data_digest(self, rows: Rows) -> str:
        dataset = self.data(rows)
        parts = [dataset.x] if dataset.unlabeled is None else [dataset.x, dataset.unlabeled]
        # Equal numbers are equal rows, whatever their dtype in a file.
        return digest([x if x.dtype == np.float64 else x.astype(np.float32) for x in parts])

    def _scaled(self, rows: Rows, preset: str) -> np.ndarray:
        dataset = self.data(rows)
        config = self.base_config(rows, preset)
        return fit_scaling(dataset.x, config.scaling, scale=config.scale).apply(dataset.x)

    def base_config(self, rows: Rows, preset: str) -> Config:
        """Return the preset's settings for some rows."""
        dataset = self.data(rows)
        if dataset.y is None:
            raise ValueError(f"{rows.dataset}: expected a data set with classes to score by")
        config = preset_config(
            preset,
            n_clusters=int(dataset.y.max()) + 1,
            n_rows=len(dataset.x),
            dataset=rows.dataset,
            image_shape=dataset.image_shape,
        )
        if self.smoke:
            layerwise = min(config.pretrain.layerwise_steps, 5)
            config = config.replace(
                {
                    "network.hidden_dims": [16],
                    "network.latent_dim": 4,
                    "pretrain.layerwise_steps": layerwise,
                    "pretrain.finetune_steps": 40,
                    "clustering.update_interval": 10,
                    "clustering.max_intervals": 2,
                }
            )
        return config

    def config(self, cell: Cell) -> Config:
        """Return the settings of a cell."""
        config = self.base_config(cell.rows, cell.preset)
        if cell.method == "DEC, encoder frozen":
            config = config.replace({"clustering.freeze_encoder": True})
        if cell.setting is None or not cell.method.startswith("DEC"):
            return config
        name, value = cell.setting
        if name != "update_interval":
            return config.replace({name: int(value)})
        # The same number of steps in total as at the default, unless it converges earlier.
        steps = config.clustering.update_interval * config.clustering.max_intervals
        return config.replace(
            {
                "clustering.update_interval": int(value),
                "clustering.max_intervals": math.ceil(steps / value),
            }
        )

    # Runs ---------------------------------------------------------------------------------------

    def _pretrained(self, rows: Rows, preset: str, seed: int) -> FitResult:
        """Pretrain, or load the pretrained result; includes embedding and DEC initialisation."""
        dataset = self.data(rows)
        config = self.base_config(rows, preset).replace({"clustering.max_intervals": 0})
        name = self._digest(rows, {"config": config.to_dict(), "seed": seed})
        return fit(
            jax.random.key(seed),
            dataset.x,
            config,
            n_train=dataset.n_train,
            unlabeled=dataset.unlabeled,
            workdir=self.out / "pretrained" / name,
            resume=True,
        )

    def fit(self, cell: Cell, *, y: Any = None) -> FitResult:
        """Run DEC from the shared pretraining: bit-identical to a separate fit."""
        dataset = self.data(cell.rows)
        pretrained = self.pretrained(cell.rows, cell.preset, cell.seed)
        return fit(
            jax.random.key(cell.seed),
            dataset.x,
            self.config(cell),
            y=y,
            n_train=dataset.n_train,
            autoencoder_params=pretrained.autoencoder_params,
            workdir=self.out / "runs" / self.identity(cell),
            resume=True,
        )

    def identity(self, cell: Cell) -> str:
        """Return the digest of everything that determines a cell's result."""
        description = cell.describe()
        del description["dataset"], description["preset"]  # replaced by rows and settings
        config = self.config(cell).to_dict()
        # Only the settings that the method uses.
        if not cell.method.startswith("DEC"):
            del config["clustering"], config["kmeans"]
        if not cell.method.startswith(("DEC", "AE")):
            config = {name: config[name] for name in ("n_clusters", "scaling", "scale")}
        return self._digest(cell.rows, {**description, "config": config})

    def _digest(self, rows: Rows, values: Mapping[str, Any]) -> str:
        text = json.dumps([self.data_digest(rows), values], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def run(
        self, cells: Iterable[Cell], methods: Mapping[str, Callable[..., "Outcome"]]
    ) -> list[dict[str, Any]]:
        """Run the cells that have no record yet, and append their records.

        Args:
            cells: Cells to run.
            methods: Name of each method to ``run(laboratory, cell) -> Outcome``.

        Returns:
            The records of all cells, in order; those of missing data sets have ``missing``.
        """
        return [self._run_one(cell, methods[cell.method]) for cell in cells]

    def _run_one(self, cell: Cell, method: Callable[..., "Outcome"]) -> dict[str, Any]:
        try:
            identity = self.identity(cell)
        except MissingDataError as error:
            print(f"{cell}: {error}")
            return self._append({**cell.describe(), "missing": str(error)})
        if identity in self.records:
            return self.records[identity]
        dataset = self.data(cell.rows)
        began = time.perf_counter()
        outcome = method(self, cell)
        seconds = time.perf_counter() - began
        scores = clustering_scores(dataset.y, outcome.labels)
        print(f"{cell}: ACC {scores['acc']:.4f}, {seconds:.0f} s", flush=True)
        record = {
            "cell": identity,
            **cell.describe(),
            "variant": dataset.variant,
            "note": dataset.note,
            "n_rows": len(dataset.x),
            "scores": {name: round(float(value), 5) for name, value in scores.items()},
            "seconds": round(seconds, 2),
            **outcome.figures,
            "config": self.config(cell).to_dict(),
        }
        record = self._append(record)
        shutil.rmtree(self.out / "runs" / identity, ignore_errors=True)
        return record

    # Records ------------------------------------------------------------------------------------

    def all_records(self) -> list[dict[str, Any]]:
        """Return the records of all runs, oldest first."""
        return read_records("paper", self.out if self.smoke else None)

    def _append(self, record: dict[str, Any]) -> dict[str, Any]:
        folder = self.out if self.smoke else None
        record = append_record("paper", record, folder=folder, quiet=True)
        if "cell" in record:
            self.records[record["cell"]] = record
        return record


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of a method: labels [N], and more figures for the record."""

    labels: np.ndarray
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)


def split_rows(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the training and validation rows of Figure 6.

    The training split of the data set if it has one, else four fifths drawn with seed 0.
    """
    n_rows = len(dataset.x)
    if dataset.n_train is not None and dataset.n_train < n_rows:
        return np.arange(dataset.n_train), np.arange(dataset.n_train, n_rows)
    order = np.random.default_rng(0).permutation(n_rows)
    n_train = 4 * n_rows // 5
    return np.sort(order[:n_train]), np.sort(order[n_train:])


def _subset(dataset: Dataset, rows: np.ndarray) -> Dataset:
    n_train = None if dataset.n_train is None else int((rows < dataset.n_train).sum())
    y = None if dataset.y is None else dataset.y[rows]
    return dataclasses.replace(dataset, x=dataset.x[rows], y=y, n_train=n_train)
