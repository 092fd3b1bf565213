"""Several processes on the loopback interface, as they would run on several machines."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import quick
from sklearn.datasets import load_digits

from jdec.cli import main

# 2 processes of 2 devices share 203 rows: neither is a multiple of the other.
N_ROWS = 203
SETTINGS = [
    *("--n-clusters", "5", "--network.hidden-dims", "12", "--network.latent-dim", "4"),
    *("--pretrain.finetune-steps", "40", "--pretrain.batch-size", "30"),
    *("--pretrain.optimizer.name", "sgd", "--pretrain.optimizer.learning-rate", "0.05"),
    *("--kmeans.n-init", "3", "--kmeans.overclustering-factors", "1", "--kmeans.select", "inertia"),
    *("--clustering.update-interval", "25", "--clustering.batch-size", "32"),
    *("--clustering.optimizer.name", "sgd", "--clustering.optimizer.learning-rate", "0.01"),
    *("--clustering.tol", "0", "--clustering.warmup-steps", "0", "--checkpoint-seconds", "0"),
]
GRAPH = [
    *("--kmeans.select", "modularity", "--graph.n-init", "2", "--graph.kmeans-restarts", "3"),
    *("--clustering.warmup-steps", "30", "--clustering.max-intervals", "4"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    np.save(folder / "rows.npy", load_digits(n_class=5).data[:N_ROWS].astype(np.float32))
    return folder


def start(folder, *options, data="rows.npy"):
    """Start ``jdec fit`` on two devices in a separate process."""
    environment = quick.environment(folder / "programs", JAX_NUM_CPU_DEVICES="2")
    command = [sys.executable, "-m", "jdec", "fit", data, *SETTINGS, *options, "--quiet"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )


def fit_here(folder, capfd, *options):
    """Run ``jdec fit`` on one device of this process; return its exit code and its errors."""
    with contextlib.chdir(folder):
        code = main(["fit", "rows.npy", *SETTINGS, *options, "--quiet"])
    return code, capfd.readouterr().err


def start_two(folder, *options, second=(), data=("rows.npy", "rows.npy")):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", *options]
    return [
        start(folder, *shared, "--process-id", "0", data=data[0]),
        start(folder, *shared, *second, "--process-id", "1", data=data[1]),
    ]


def end(process, timeout=300):
    _, errors = process.communicate(timeout=timeout)
    return process.returncode, errors.decode()


def results(folder, out):
    return [np.load(folder / out / f"{name}.npy") for name in ("labels", "soft_assignment")]


@pytest.fixture(scope="module")
def alone(folder):
    """One process with one device."""
    with contextlib.chdir(folder):
        assert main(["fit", "rows.npy", *SETTINGS, *GRAPH, "--out", "alone", "--quiet"]) == 0
    return results(folder, "alone")


@pytest.mark.parametrize("rows", ["device", "stream"])
def test_two_processes_find_what_one_does(folder, alone, rows):
    out = f"runs/{rows}"
    processes = start_two(folder, *GRAPH, "--rows", rows, "--out", out)
    for code, errors in [end(process) for process in processes]:
        assert code == 0, errors
    labels, q = results(folder, out)
    assert np.array_equal(labels, alone[0])
    assert np.abs(q - alone[1]).max() < 1e-5
    assert len(labels) == N_ROWS
    metrics = json.loads((folder / out / "metrics.json").read_text())
    assert metrics["environment"]["n_devices"] == 4
    assert metrics["rows"] == rows


def test_a_killed_process_ends_the_other(folder, capfd):
    processes = start_two(folder, "--clustering.max-intervals", "4000", "--out", "killed")
    history = folder / "killed" / "history.jsonl"
    while not (history.exists() and '"clustering"' in history.read_text()):
        assert processes[0].poll() is None, end(processes[0])
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    code, errors = end(processes[0])
    assert time.monotonic() - killed < 60
    one_line(code, errors, "another process of this run has stopped", "--resume")
    end(processes[1])
    # The checkpoint belongs to 4000 intervals: the folder of another run is not overwritten.
    code, errors = fit_here(
        folder, capfd, "--clustering.max-intervals", "4", "--out", "killed", "--resume"
    )
    assert code == 1
    assert "max_intervals" in errors


def test_when_process_0_is_killed_the_other_reports_it_in_a_line(folder, capfd):
    """JAX usually kills it by a signal; its parent reports the reason."""
    processes = start_two(folder, "--clustering.max-intervals", "4000", "--out", "headless")
    history = folder / "headless" / "history.jsonl"
    while not (history.exists() and '"clustering"' in history.read_text()):
        assert processes[0].poll() is None, end(processes[0])
        time.sleep(0.05)
    processes[0].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    code, errors = end(processes[1])
    assert time.monotonic() - killed < 60
    one_line(code, errors, "another process of this run has stopped", "--resume")
    end(processes[0])
    # Its child has ended with it: the folder is free.
    code, errors = fit_here(folder, capfd, "--clustering.max-intervals", "4", "--out", "headless")
    one_line(code, errors, "already holds a run")


def test_processes_that_differ_report_it_before_any_work(folder):
    second = ["--seed", "7", "--clustering.tol", "0.5", "--scaling", "standard"]
    second += ["--clustering.update-interval", "7"]
    processes = start_two(folder, "--out", "differing", second=second)
    needed = ("clustering.tol: 0.5 against 0", "update_interval: 7 against 25", "random key")
    for code, errors in [end(process) for process in processes]:
        one_line(code, errors, "process 1 differs from process 0 in scaling", *needed)
    assert not (folder / "differing").exists()


def test_different_rows_are_reported_by_all(folder):
    rows = np.load(folder / "rows.npy")
    rows[-1, 0] += 1
    np.save(folder / "others.npy", rows)
    processes = start_two(folder, "--out", "mixed", data=("rows.npy", "others.npy"))
    for code, errors in [end(process) for process in processes]:
        one_line(code, errors, "process 1 differs from process 0 in data")
    assert not (folder / "mixed").exists()


def one_line(code, errors, *needed):
    assert code == 1, errors
    lines = [line for line in errors.splitlines() if line.startswith("jdec: ")]
    assert len(lines) == 1, errors
    assert "Traceback" not in errors
    assert "***" not in errors  # of a stack dump
    assert all(text in lines[0] for text in needed), errors


def test_a_run_resumes_with_another_number_of_processes(folder, alone, capfd):
    """Interrupted with two processes, resumed by one: ends like a run that was not interrupted."""
    processes = start_two(folder, *GRAPH, "--out", "moved")
    history = folder / "moved" / "history.jsonl"
    while not history.exists():
        assert processes[0].poll() is None, end(processes[0])
        time.sleep(0.02)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        end(process)
    code, errors = fit_here(folder, capfd, *GRAPH, "--out", "moved", "--resume")
    assert code == 0, errors
    labels, q = results(folder, "moved")
    assert np.array_equal(labels, alone[0])
    assert np.abs(q - alone[1]).max() < 1e-5


INVALID_ROWS = """
import sys
import jax, numpy as np
from jdec import Config, fit
from jdec.trainer import data_mesh, initialize_distributed
initialize_distributed("127.0.0.1:{port}", 2, int(sys.argv[1]), timeout=40)
x = np.ones((9, 3), np.float32)
x[7, 1] = np.nan
try:
    fit(jax.random.key(0), x, Config(2), mesh=data_mesh())
except ValueError as error:
    print(error)
"""


def test_rows_that_are_invalid_on_one_process_raise_on_all(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        code = INVALID_ROWS.format(port=probe.getsockname()[1])
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(process)],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    for process in processes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert output.splitlines()[-1].startswith("x: expected finite numbers, got NaN in row 7,")


def test_a_coordinator_out_of_reach_is_one_line():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import time\n"
        "from jdec.trainer.distributed import initialize_distributed\n"
        "began = time.monotonic()\n"
        f"try: initialize_distributed('127.0.0.1:{port}', 2, 1, timeout=2)\n"
        "finally: print(time.monotonic() - began)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode != 0
    assert float(run.stdout) < 40
    assert f"could not reach process 0 at 127.0.0.1:{port}" in run.stderr
