"""The benchmarks run, in smoke size, and the tables in the READMEs are those of the records."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import quick

from benchmarks import figures, records
from benchmarks.bench_peers import ratios, run_once, strongest_ratio
from benchmarks.bench_scaling import fit_exponent, measure_devices, sweep
from benchmarks.peers import PEERS, STRONGEST, Task, alternatives, jdec_runs
from benchmarks.peers import __main__ as worker
from benchmarks.suite import name_of_set
from benchmarks.tables import TABLES

ROOT = Path(__file__).parent.parent


def run(*arguments: str, programs: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=quick.environment(programs),
    )


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder that tables and pictures take for that of the records."""
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    return tmp_path


def keep(folder: Path, kept: list[dict]) -> None:
    for record in kept:
        with (folder / f"2026-01-01_cpu_{record['what']}.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "figures_there", "tables"),
    [
        (["bench_kmeans"], {"time_ratio", "inertia_ratio"}, ["kmeans"]),
        (
            ["bench_step", "--parts", "shares"],
            {"pretrain_share_of_peak", "cluster_share_of_peak"},
            ["step"],
        ),
        (["bench_step", "--parts", "roofline"], {"precision", "points"}, ["roofline"]),
        (["bench_step", "--parts", "population"], {"points"}, ["population"]),
        (["bench_quality", "digits"], {"scores", "wall_seconds", "peak_memory_mb"}, ["quality"]),
        (
            ["bench_quality", "--suite", "--sets", "digits", "--methods", "jdec fast", "k-means"],
            {"dataset", "shape", "n_clusters", "seed", "methods"},
            ["suite"],
        ),
        (["bench_criterion", "--sets", "digits", "--seeds", "0"], {"acc", "vote"}, ["criterion"]),
        (["bench_ablation", "--sets", "digits", "--seeds", "0"], {"dataset", "acc"}, ["ablation"]),
        (["bench_fit"], {"seconds_to", "phases", "compiling"}, ["time_to_quality"]),
        (["bench_scaling", "--series", "targets"], {"sizes", "seconds", "fit"}, ["scaling"]),
        (["bench_streaming"], {"figure", "shape", "network"}, ["streaming"]),
        (["bench_streaming", "--fit", "rows"], {"peak_resident_gib", "scores"}, ["streaming"]),
        (["bench_peers", "--groups", "steps"], {"peers", "ratios"}, []),
        (["kill_campaign"], {"kills", "kills_by_phase", "same_bits", "failures"}, ["kills"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_smoke_run_prints_records_and_keeps_none(
    arguments, figures_there, tables, results, programs
):
    before = sorted((ROOT / "benchmarks" / "results").iterdir())
    process = run(f"benchmarks.{arguments[0]}", *arguments[1:], "--smoke", programs=programs)
    assert process.returncode == 0, process.stderr
    found = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    assert found
    for record in found:
        assert figures_there | {"date", "commit", "machine", "environment"} <= record.keys()
    assert sorted((ROOT / "benchmarks" / "results").iterdir()) == before
    keep(results, found)
    for name in tables:
        assert "not run" not in TABLES[name]()
        assert len({line.count("|") for line in TABLES[name]().splitlines() if "|" in line}) == 1
    if found[0]["what"] == "peers":
        for peer, figures_of_peer in found[0]["peers"].items():
            assert figures_of_peer.get("rounds") or figures_of_peer["absent"], peer


def test_the_tables_of_the_readmes_are_rendered_from_the_records():
    result = run("benchmarks", "report", "--check")
    assert result.returncode == 0, result.stdout + result.stderr


def test_tables_without_records_say_so(results):
    for name in (
        "suite",
        "roofline",
        "population",
        "time_to_quality",
        "scaling",
        "devices",
        "peers",
        "bench",
    ):
        assert "not run" in TABLES[name]()
    assert figures.draw_all(results) == []


def test_of_each_method_of_the_suite_the_newest_figures_count(results):
    def record(seed, **methods):
        scores = {"acc": 0, "nmi": 0, "ari": 0}
        found = {
            name: {"scores": scores | {"acc": acc}, "seconds": 3.0} for name, acc in methods.items()
        }
        shape = {"dataset": "moons", "shape": [100, 2], "n_clusters": 2, "seed": seed}
        about = {"what": "suite", "date": "2026-01-01", "commit": "", "versions": {}}
        machine = {"processor": "made up", "cores": 2}
        about |= {"machine": machine, "environment": {"device": "cpu: cpu"}}
        return about | shape | {"methods": found}

    keep(results, [record(1, EVoC=0.6), record(0, EVoC=0.5, **{"k-means": 0.3})])
    keep(results, [record(0, **{"k-means": 0.4})])
    row = TABLES["suite"]().splitlines()[-1]
    assert "0.550 ± 0.071 / 0.000, 3 s |" in row
    assert "0.400 / 0.000, 3 s (1 of 2 seeds) |" in row
    assert "| 0, 1 |" in row


def test_records_of_machines_are_columns_side_by_side(results):
    record = {"date": "2026-01-01", "machine": {"cores": 2, "processor": "made up"}, "steps": []}
    record |= {"peak_gflops": 10.0, "bandwidth_gbytes": 5.0}
    record["environment"] = {"device": "cpu: cpu", "n_devices": 1, "jdec": "1", "jax": "2"}
    record["environment"] |= {"python": "3"}
    record["options"] = {"precision": "float32", "scan_unroll": 1, "xla_flags": "", "quick": False}
    other = record | {"date": "2026-01-02", "machine": {"cores": 4, "processor": "other"}}
    members = {"members": 1, "pretraining_steps_per_second": 2.0, "interval_steps_per_second": 4.0}
    other["options"] = record["options"] | {"parts": ["steps"]}
    (results / "b_bench.json").write_text(json.dumps(record))
    alone = {"parts": ["members"]} | record["options"]
    apart = other | {
        "members": {"points": [members], "left_out": []},
        "options": alone,
        "date": "2026-01-03",
        "peak_gflops": 11.0,
    }
    (results / "c_bench.json").write_text(json.dumps(apart))
    (results / "a_bench.json").write_text(json.dumps(other))
    lines = TABLES["bench"]().splitlines()
    assert lines[0] == "|  | 2 × made up | 4 × other |"
    assert "| date | 2026-01-01 | 2026-01-03 |" in lines
    assert "| members 1: steps/s (each) | – | pretraining 2.00 (2.00), KL 4.00 (4.00) |" in lines


def test_a_set_is_a_name_or_a_file(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.ones((3, 2), np.float32), y=np.arange(3))
    for name in ("digits", "iris", str(tmp_path / "mine.npz")):
        assert name_of_set(name) == name
    with pytest.raises(argparse.ArgumentTypeError, match="expected a file or one of digits"):
        name_of_set(str(tmp_path / "yours.npz"))


# Scaling -----------------------------------------------------------------------------------------


def test_the_exponent_is_fitted_above_the_overhead_alone():
    sizes = sweep("N", 10_000_000)
    overhead, per_row = 1e-3, 1e-7
    fit = fit_exponent(sizes, [overhead + per_row * n for n in sizes])
    assert fit.exponent == pytest.approx(1, abs=0.05)
    assert fit.first == 316_228  # where the cost is ten times that of 1000 rows
    assert fit.last == 10_000_000
    assert fit.factor * 1e7**fit.exponent == pytest.approx(1, rel=0.1)


def test_a_flat_cost_has_exponent_zero_over_all_sizes():
    fit = fit_exponent([10, 100, 1000], [2.0, 2.1, 2.0])
    assert fit.exponent == pytest.approx(0, abs=0.02)
    assert (fit.first, fit.last, fit.n_points) == (10, 1000, 3)


@pytest.mark.slow
def test_devices_are_compared_at_equal_rows_and_at_equal_rows_a_device(results):
    count = min(2, jax.device_count())
    measured = measure_devices([count], rows_strong=60, rows_weak=50, repeats=1)
    rows = [(point["kind"], point["n_devices"], point["n_rows"]) for point in measured["points"]]
    assert rows == [("strong", count, 60), ("weak", count, 50 * count)]
    keep(results, [records.append_record("devices", measured, smoke=True, quiet=True)])
    assert f"| strong | {count} | 60 |" in TABLES["devices"]()


def test_pictures_say_what_they_show(results):
    point = {"phase": "refresh", "batch_size": 2048, "intensity": 20.0, "gflops": 80.0}
    point |= {"peak_gflops": 100.0, "bandwidth_gbytes": 10.0, "share_of_peak": 0.8}
    environment = {"environment": {"device": "cpu: cpu"}, "dims": [4, 2]}
    roofline = {"what": "roofline", "precision": "float32", "points": [point], **environment}
    sizes = [10, 100, 1000]
    scaling = {"what": "scaling", "cost": "targets", "variable": "K", "sizes": sizes}
    scaling |= {"seconds": [0.1, 1.0, 10.0], "fit": fit_exponent(sizes, [0.1, 1, 10])._asdict()}
    keep(results, [roofline, scaling | environment])
    assert [path.name for path in figures.draw_all(results)] == [
        "roofline_cpu.png",
        "scaling_cpu.png",
    ]
    title = figures.draw_roofline([roofline]).get_suptitle()
    assert "80%" in title
    assert "2048 rows" in title
    assert "{1.00}" in figures.draw_scaling([scaling]).get_suptitle()


# Peers -------------------------------------------------------------------------------------------


def rounds(*seconds: float) -> dict:
    one = [{"pretrain_step": [s], "cluster_step": [s], "refresh": [s]} for s in seconds]
    return {"rounds": [{**figures_of_round, "versions": {"x": "1"}} for figures_of_round in one]}


def test_ratios_are_medians_over_rounds_and_the_faster_loop_is_the_strongest():
    runs = {"jdec": rounds(1, 2, 1), STRONGEST[0]: rounds(3, 4, 5), STRONGEST[1]: rounds(2, 3, 2)}
    runs["gone"] = {"absent": "ModuleNotFoundError: no gone"}
    found = ratios(runs, ("pretrain_step",))
    assert found == {
        STRONGEST[0]: {"pretrain_step": 3.0},
        STRONGEST[1]: {"pretrain_step": 2.0},
    }
    assert strongest_ratio({"ratios": found}, "pretrain_step") == 2.0
    assert strongest_ratio({"ratios": {}}, "pretrain_step") is None
    assert ratios({"jdec": {"absent": "failed"}, "other": rounds(1)}, ("pretrain_step",)) == {}


def test_the_table_of_peers_lists_the_absent_with_the_reason(results):
    runs = {"jdec": rounds(1.0), STRONGEST[0]: rounds(2.0), "Keras on JAX": {"absent": "no keras"}}
    record = {
        "group": "steps",
        "dataset": "mnist",
        "rounds": 1,
        "task": {"threads": 2, "n_rows": 70_000, "update_interval": 140},
        "peers": runs,
        "ratios": ratios(runs, ("pretrain_step", "cluster_step", "refresh")),
    }
    keep(results, [records.append_record("peers", record, smoke=True, quiet=True)])
    table = TABLES["peers"]()
    assert "| Keras on JAX | absent: no keras |" in table
    assert "to jdec: pretraining step 2.00, clustering step 2.00" in table
    assert "**fit**" in table  # of which nothing was run


def test_a_peer_that_cannot_be_imported_is_absent(monkeypatch, tmp_path, capsys):
    monkeypatch.delattr("os.sched_setaffinity", raising=False)
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.umap_hdbscan", raising=False)
    task_file = tmp_path / "task.json"
    task_file.write_text(json.dumps(Task("", "digits", 0, (64, 10)).to_dict()))
    worker.main("alternatives", "UMAP + HDBSCAN", str(task_file))
    assert json.loads(capsys.readouterr().out)["absent"].startswith("ModuleNotFoundError")


def test_a_peer_that_fails_is_absent_with_its_last_words(tmp_path):
    task_file = tmp_path / "task.json"
    task_file.write_text('{"dims": []}')
    name = "k-means"
    figures_of_peer = run_once("alternatives", name, PEERS["alternatives"][name], task_file, 1)
    assert figures_of_peer["absent"].startswith("failed: TypeError")


@pytest.mark.slow
def test_whole_fits_of_peers_are_scored(tmp_path):
    task = Task("", "digits", 300, (64, 8, 4), n_init=1, pretrain_epochs=1, cluster_epochs=1)
    for fitted in (alternatives.k_means(task), jdec_runs.fit_equal_steps(task)):
        assert fitted["seconds"] > 0
        assert 0 < fitted["scores"]["acc"] <= 1
        assert fitted["noise"] == 0
        assert np.isfinite(fitted["scores"]["ari"])
