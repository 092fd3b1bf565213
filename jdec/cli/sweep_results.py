"""Writes the output directory of ``jdec sweep``: tables, the selected model, labels, a figure."""

import contextlib
import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtyping import Array, Key

from jdec._environment import environment
from jdec._io import atomic_write, read_json, write_json, write_json_lines
from jdec.cli.results import dataset_record, rounded, save_arrays
from jdec.cli.sweep_report import varied_axis
from jdec.datasets import Dataset
from jdec.selection.sweep import Grid, SweepResult
from jdec.trainer.config import Config
from jdec.trainer.fingerprint import check_same_run, fingerprint, sampled_digest
from jdec.trainer.model_file import save_model
from jdec.trainer.workdir import check_no_other_files


@contextlib.contextmanager
def begin_sweep(
    out: Path,
    key: Key[Array, ""],
    dataset: Dataset,
    config: Config,
    grid: Grid,
    criterion: str,
    resume: bool,
) -> Iterator[Path]:
    """Record in a locked folder what it is a sweep of, or raise if the folder is taken.

    After invalid arguments a folder is left unchanged. The folder for checkpoints, which is
    yielded, is removed once the sweep is complete.
    """
    record, workdir = out / "run.json", out / "checkpoints"
    check_no_other_files(out)
    if (out / "sweep.json").exists():
        raise ValueError(f"out: a finished sweep exists already in {out}; choose another folder")
    *axes, held_out = vars(grid).values()
    data = {
        "shape": list(dataset.x.shape),
        "digest": sampled_digest(dataset.x),
        "sweep": [*map(list, axes), criterion, held_out],
    }
    mine = fingerprint(key, config, data)
    is_again = record.exists()
    if is_again:
        if _is_of_a_fit(record):
            raise ValueError(f"out: {out} holds a run of jdec fit; choose another folder")
        check_same_run(record, mine, resume)
    try:
        write_json(record, mine)
        yield workdir
    except OSError as error:
        raise ValueError(
            f"out: cannot write {error.filename}: {error.strerror}; rerun with --resume to continue"
        ) from error
    except ValueError:
        if not (is_again or workdir.exists()):
            record.unlink(missing_ok=True)
        raise
    shutil.rmtree(workdir, ignore_errors=True)


def _is_of_a_fit(record: Path) -> bool:
    try:
        return "sweep" not in read_json(record)["data"]
    except (OSError, ValueError, TypeError, KeyError):  # damaged: check_same_run reports it
        return False


def write_sweep(
    out: Path, dataset: Dataset, config: Config, result: SweepResult, about: dict[str, Any]
) -> dict[str, Any]:
    """Write all results and sweep.json (with all in ``about``); return the last."""
    for name, rows in (("members", result.members), ("settings", result.settings)):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        # Other programs read an empty cell as missing; NaN alone differs from itself.
        writer.writerows({key: v if v == v else None for key, v in row.items()} for row in rows)
        with atomic_write(out / f"{name}.csv") as file:
            file.write(text.getvalue().encode())
    save_arrays(out, labels=result.labels, consensus=result.consensus_labels)
    save_model(out / "model.npz", result.population.member(result.best))
    write_json(out / "config.json", config.to_dict())
    write_json_lines(out / "history.jsonl", result.population.history)
    axis = varied_axis(result.settings)
    if axis is not None:
        from jdec import plotting  # slow to import

        with plotting.default_style():
            plotting.save_figure(plotting.plot_sweep(result.settings, axis), out / "sweep.png")
    summary = {
        **dataset_record(dataset),
        "criterion": result.criterion,
        "best": result.members[result.best],
        "consensus": result.consensus_scores,
        "members_at_once": result.population.members_at_once,
        "seconds": rounded(result.seconds),
        "environment": environment(),
        **about,
    }
    write_json(out / "sweep.json", summary)
    return summary
