"""The experiments of the paper run in smoke size, resume, and are reported."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.paper import __main__ as paper
from benchmarks.paper import fig4, fig6, table2, table3, table4
from benchmarks.paper.cells import Cell, Laboratory, Outcome, Rows, split_rows
from benchmarks.paper.methods import METHODS, SWEEPS
from benchmarks.paper.options import Options
from benchmarks.paper.report import EXPERIMENTS, TABLES
from jdec.datasets import Dataset, load_dataset
from jdec.trainer.fit import fit

ROOT = Path(__file__).parent.parent
DEC = Cell(Rows("digits"), "DEC", "fast", 0)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Return a folder that all smoke runs share, as a user's would."""
    return tmp_path_factory.mktemp("paper")


def records_of(folder):
    return [
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


# Smoke runs.


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_in_smoke_size_and_is_not_run_twice(name, out, capsys):
    results = sorted((ROOT / "benchmarks" / "results").iterdir())
    assert paper.main([name, "--smoke", "--out", str(out)]) == 0
    pictures = [Path(line) for line in capsys.readouterr().out.splitlines() if "png" in line]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in pictures)
    assert bool(pictures) is name.startswith("fig")
    before = records_of(out)
    assert not name.startswith("table") or before
    for record in before:
        assert set(record["scores"]) == {"acc", "nmi", "ari"}
        assert {"commit", "environment", "config", "seconds", "seed", "variant"} <= record.keys()
    if name.startswith("table"):
        assert paper.main([name, "--smoke", "--out", str(out)]) == 0
        assert records_of(out) == before
    assert sorted((ROOT / "benchmarks" / "results").iterdir()) == results


def test_an_interrupted_experiment_continues(tmp_path):
    calls = []

    def method(laboratory, cell):
        calls.append(cell.seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return Outcome(np.zeros(300, int))

    cells = [Cell(Rows("digits"), "k-means", "fast", seed) for seed in range(4)]
    with pytest.raises(KeyboardInterrupt):
        Laboratory(tmp_path, smoke=True).run(cells, {"k-means": method})
    assert len(records_of(tmp_path)) == 2
    records = Laboratory(tmp_path, smoke=True).run(cells, {"k-means": method})
    assert calls == [0, 1, 2, 2, 3]
    assert [record["seed"] for record in records] == [0, 1, 2, 3]
    assert records == records_of(tmp_path)


@pytest.mark.slow
def test_a_killed_command_continues(tmp_path):
    command = [sys.executable, "-m", "benchmarks.paper", "table2", "--smoke", "--out"]
    command += [str(tmp_path), "--methods", "k-means", "SEC"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not records_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = records_of(tmp_path)
    assert before
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    after = records_of(tmp_path)
    assert after[: len(before)] == before
    assert len({record["cell"] for record in after}) == len(after) == 4


def test_missing_data_is_recorded_by_file_and_the_rest_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("JDEC_DATA_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = ["table2", "--smoke", "--out", str(tmp_path), "--methods", "k-means"]
    assert paper.main([*arguments, "--dataset", "stl10", "digits"]) == 0
    missing, *run = records_of(tmp_path)
    assert missing["missing"] == "stl10: train_X.bin not found"
    assert str(tmp_path) not in json.dumps(missing["missing"])
    assert [record["dataset"] for record in run] == ["digits"]
    text = table2.table(records_of(tmp_path))
    assert "Not run: stl10: train_X.bin not found." in text


# Cells.


def test_dec_from_the_shared_pretraining_equals_a_separate_fit(tmp_path):
    laboratory = Laboratory(tmp_path, smoke=True)
    result = laboratory.fit(DEC)
    alone = fit(jax.random.key(0), laboratory.data(DEC.rows).x, laboratory.config(DEC))
    assert result.soft_assignment.tobytes() == alone.soft_assignment.tobytes()
    assert np.asarray(result.model.centroids).tobytes() == alone.model.centroids.tobytes()


def test_pretraining_is_shared_by_what_it_does_not_depend_on(tmp_path):
    laboratory = Laboratory(tmp_path, smoke=True)
    for cell in (
        DEC,
        dataclasses.replace(DEC, method="DEC, encoder frozen"),
        dataclasses.replace(DEC, setting=("update_interval", 20)),
        dataclasses.replace(DEC, setting=("n_clusters", 3)),
    ):
        laboratory.fit(cell)
    assert len(list((tmp_path / "pretrained").iterdir())) == 1
    laboratory.pretrained(DEC.rows, "fast", 1)
    assert len(list((tmp_path / "pretrained").iterdir())) == 2


def test_a_cell_is_known_by_what_determines_it(tmp_path, monkeypatch):
    laboratory = Laboratory(tmp_path, smoke=True)
    others = [
        dataclasses.replace(DEC, seed=1),
        dataclasses.replace(DEC, preset="paper"),
        dataclasses.replace(DEC, method="DEC initialisation"),
        dataclasses.replace(DEC, setting=("update_interval", 20)),
        dataclasses.replace(DEC, rows=Rows("digits", r_min=0.5)),
        dataclasses.replace(DEC, rows=Rows("digits", split="train")),
    ]
    assert len({laboratory.identity(cell) for cell in [DEC, *others]}) == 1 + len(others)
    path = tmp_path / "named.npz"
    digits = load_dataset("digits")
    images = digits.x.reshape(-1, 8, 8).astype(np.uint8)
    np.savez(path, x=images, y=digits.y)
    named = dataclasses.replace(DEC, rows=Rows(str(path)))
    assert laboratory.identity(named) == laboratory.identity(DEC)
    np.savez(path, x=images + 1, y=digits.y)
    changed = Laboratory(tmp_path, smoke=True)
    assert changed.identity(named) != laboratory.identity(DEC)


def test_methods_on_raw_rows_are_not_rerun_after_a_change_of_the_network(tmp_path, monkeypatch):
    cells = [dataclasses.replace(DEC, method=name) for name in ("k-means", "AE + k-means", "DEC")]
    laboratory = Laboratory(tmp_path, smoke=True)
    before = [laboratory.identity(cell) for cell in cells]
    base = laboratory.base_config
    for field, same in [
        ("pretrain.finetune_steps", [True, False, False]),
        ("clustering.alpha", [True, True, False]),
        ("scale", [False, False, False]),
    ]:
        changed = {field: 2}
        monkeypatch.setattr(
            laboratory, "base_config", lambda *rows, c=changed: base(*rows).replace(c)
        )
        after = [laboratory.identity(cell) for cell in cells]
        assert [a == b for a, b in zip(before, after, strict=True)] == same


def test_the_sweep_keeps_the_number_of_steps(tmp_path):
    laboratory = Laboratory(tmp_path)
    base = laboratory.config(DEC).clustering
    steps = base.update_interval * base.max_intervals
    for value in SWEEPS["DEC"][1]:
        swept = laboratory.config(dataclasses.replace(DEC, setting=("update_interval", value)))
        assert swept.clustering.update_interval == value
        assert 0 <= swept.clustering.max_intervals * value - steps < value


def test_the_hyper_parameters_are_those_of_the_paper():
    assert SWEEPS["DEC"][1] == (10, 20, 40, 80, 160, 320, 640, 1280, 2560)
    assert all(len(values) == 9 for _, values in SWEEPS.values())


def test_validation_rows_are_disjoint_from_training_rows():
    for n_train in (None, 7):
        data = Dataset(np.zeros((10, 2), np.float32), np.zeros(10, int), "zeros", n_train=n_train)
        train, validation = split_rows(data)
        assert sorted([*train, *validation]) == list(range(10))
        assert len(train) == (n_train or 8)


def test_options_give_the_cells_of_a_table():
    options = Options(("digits",), "fast", (3, 4))
    cells = table3.cells(options)
    counts = {
        name: sum(cell.method == name for cell in cells)
        for name in ("AE + k-means", "AE + LDMGI", "AE + SEC", "DEC")
    }
    assert counts == {"AE + k-means": 2, "AE + LDMGI": 10, "AE + SEC": 10, "DEC": 11}
    assert all(cell.seed == 3 for cell in cells if cell.setting)
    assert len(cells) == len(set(cells))
    restricted = dataclasses.replace(options, methods=("DEC",), sweeps=False)
    assert {cell.method for cell in table3.cells(restricted)} == {"DEC"}
    assert len(table4.cells(options)) == 5 * 3 * 2
    assert {cell.setting[1] for cell in fig6.cells(options)} == set(range(3, 16))
    assert {cell.method for cell in table2.cells(options)} <= set(METHODS)


# Figure 4.


def test_gradient_magnitudes_are_those_of_equation_4():
    generator = np.random.default_rng(0)
    z, centroids = generator.normal(size=(30, 3)), generator.normal(size=(4, 3))
    q, magnitudes = fig4.gradient_magnitudes(z.astype(np.float32), centroids.astype(np.float32))
    difference = z[:, None] - centroids
    kernel = 1 / (1 + (difference**2).sum(-1))
    expected_q = kernel / kernel.sum(1, keepdims=True)
    weight = expected_q**2 / expected_q.sum(0)
    p = weight / weight.sum(1, keepdims=True)
    gradient = 2 * ((kernel * (p - expected_q))[:, :, None] * difference).sum(1)
    np.testing.assert_allclose(q, expected_q, rtol=1e-5)
    np.testing.assert_allclose(magnitudes, np.linalg.norm(gradient, axis=1), rtol=1e-4, atol=1e-6)


# Tables.


def record(method, acc, seed=0, **changes):
    """Return a record as a run would leave it."""
    config = Laboratory(Path(), smoke=False).base_config(Rows("digits"), "fast").to_dict()
    made = {
        "cell": f"{method}{acc}{seed}",
        **Cell(Rows("mnist"), method, "fast", seed).describe(),
        "variant": "",
        "note": "",
        "scores": {"acc": acc, "nmi": acc, "ari": acc},
        "seconds": 12.3,
        "config": config,
    }
    return made | changes


def row_of(text, *starts):
    """Return the cells of the row that starts so."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[: len(starts)] == list(starts):
            return cells
    raise AssertionError(f"no row {starts} in {text}")


def test_a_table_says_what_was_measured_and_what_was_not():
    steps = record("DEC", 0.8)["config"]["pretrain"]["finetune_steps"]
    records = [
        record("DEC", 0.80, 0, steps=100),
        record("DEC", 0.90, 1, steps=200),
        record("DEC", 0.95, setting={"update_interval": 40}, steps=10),
        record("DEC", 0.91, setting={"update_interval": 80}, steps=10),
        record("k-means", 0.5),
    ]
    text = table2.table(records)
    assert row_of(text, "DEC") == [
        "DEC",
        "84.30",
        "95.00 (update_interval 40, 2 of 9 tried)",
        "85.00 ± 7.07",
        "+0.70",
        "2",
        f"{steps} + 150 steps",
        "12",
    ]
    assert row_of(text, "k-means")[2:6] == ["–", "50.00", "-3.49", "1"]
    assert row_of(text, "SEC") == [
        *("SEC", "80.37", "not run", "not run", "–", "0", "–", "–"),
    ]
    # Data sets of which nothing was run are there as well.
    assert "**stl10, preset `fast`**" in text


def test_of_one_seed_the_newest_record_counts():
    text = table2.table([record("DEC", 0.7, steps=1), record("DEC", 0.8, steps=1)])
    assert row_of(text, "DEC")[3] == "80.00"


def test_numbers_of_a_sample_say_so():
    note = "rebuilt from a public sample"
    changes = {"dataset": "reuters10k", "variant": "sample", "note": note}
    text = table2.table([record("DEC", 0.7, steps=1, **changes)])
    assert f"Variant `sample`: {note}" in text


def test_other_subsets_and_presets_are_kept_apart():
    records = [record("DEC", 0.1, r_min=0.5, steps=1), record("DEC", 0.2, preset="paper", steps=1)]
    text = table4.table(records)
    assert row_of(text, "0.5", "DEC")[3:6] == ["10.00", "-72.68", "1"]
    fast, paper_part = table2.table(records).split("**mnist, preset `paper`**")
    assert row_of(fast, "DEC")[3] == "not run"
    assert row_of(paper_part, "DEC")[3] == "20.00"


def test_classes_that_share_a_cluster_are_named():
    homes = [0, 1, 2, 3, 4, 5, 6, 7, 8, 4]
    changes = {
        "split": "train",
        "setting": {"n_clusters": 9},
        "generalizability": 0.9,
        "cluster_of_class": homes,
    }
    text = fig6.table([record("DEC, by number of clusters", 0.8, **changes)])
    assert row_of(text, "9") == ["9", "0.8000", "0.900", "4+9", "1"]


@pytest.mark.parametrize("name", TABLES)
def test_every_table_renders_without_records(name):
    module = importlib.import_module(f"benchmarks.paper.{name.removeprefix('paper_')}")
    assert "not run" in module.table([])
