"""``jdec predict`` and ``jdec evaluate``: commands on the model of a finished run."""

import csv
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdec._io import atomic_write
from jdec.cli.arguments import Evaluate, Predict
from jdec.cli.fit_commands import check_platform, load_data
from jdec.cli.report import score_table
from jdec.datasets import Dataset
from jdec.datasets._arrow_files import write_parquet
from jdec.metrics import clustering_scores
from jdec.trainer.model import assign
from jdec.trainer.model_file import load_model
from jdec.trainer.workdir import RESULT_FILES

_BLOCK = 2**16  # rows written at once


def run_predict(arguments: Predict) -> None:
    """Run ``jdec predict``."""
    if arguments.out is not None:
        _check_output(arguments.out, arguments)
    dataset, q = _assign(arguments)
    labels = q.argmax(axis=1).astype(np.int32)
    parts = [slice(start, start + _BLOCK) for start in range(0, len(labels), _BLOCK)]
    if arguments.out is None:
        for part in parts:
            print("\n".join(map(str, labels[part].tolist())))
        return
    columns = (_columns(dataset, labels, q, part) for part in parts)
    with atomic_write(arguments.out) as file:
        if arguments.out.suffix == ".npy":
            np.save(file, labels, allow_pickle=False)
        elif arguments.out.suffix == ".parquet":
            write_parquet(arguments.out, file, columns)
        else:
            for number, some in enumerate(columns):
                file.write(_lines(some, with_header=number == 0).encode())
    print(f"{len(labels)} labels written to {arguments.out}")


def run_evaluate(arguments: Evaluate) -> None:
    """Run ``jdec evaluate``."""
    dataset, q = _assign(arguments)
    print(score_table({"DEC": clustering_scores(dataset.y, q.argmax(axis=1))}))


def _assign(arguments: Predict | Evaluate) -> tuple[Dataset, np.ndarray]:
    check_platform()
    run = arguments.run
    path = run / "model.npz" if run.is_dir() else run
    if run.is_dir() and not path.exists():
        raise ValueError(f"{run}: expected a finished run, got a folder without model.npz")
    model = load_model(path)[0]
    dataset = load_data(arguments)
    if isinstance(arguments, Evaluate) and dataset.y is None:
        raise ValueError(f"{arguments.data}: expected classes to compare with, got none")
    return dataset, assign(model, dataset.x, feature_names=dataset.feature_names)[1]


def _check_output(out: Path, arguments: Predict) -> None:
    """Raise, before any work, if ``out`` cannot be written or must not be overwritten."""
    if out.suffix not in (".npy", ".csv", ".parquet"):
        raise ValueError(f"out: expected a name that ends in .npy, .csv or .parquet, got {out}")
    if out.is_dir():
        raise ValueError(f"out: expected a file, got the folder {out}")
    data = Path(os.path.expanduser(arguments.data))  # noqa: PTH111 (no error without a home)
    for path in (data, arguments.run, arguments.run / "model.npz"):
        if out.exists() and path.exists() and out.samefile(path):
            raise ValueError(f"out: expected another file than {path}, which is read")
    beside = [out.parent / name for name in ("run.json", "sweep.json", "model.npz")]
    if out.name in RESULT_FILES and any(path.exists() for path in beside):
        raise ValueError(f"out: {out} is a result of the run there; choose another name")
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ValueError(f"out: {error.strerror}: '{out}'; expected a writable folder") from error


def _columns(dataset: Dataset, labels: np.ndarray, q: np.ndarray, part: slice) -> dict[str, Any]:
    """Return identifiers, labels and their probabilities of some rows."""
    columns: dict[str, Any] = {}
    if dataset.ids is not None:
        columns["id"] = dataset.ids[part].tolist()
    return columns | {"label": labels[part], "probability": q[part].max(axis=1)}


def _lines(columns: Mapping[str, Any], *, with_header: bool) -> str:
    """Return lines of a CSV table."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if with_header:
        writer.writerow(columns)
    probabilities = [f"{p:.6f}" for p in columns["probability"]]
    writer.writerows(zip(*({**columns, "probability": probabilities}).values(), strict=True))
    return text.getvalue()
