"""``jdec bench`` as whole commands, in processes of their own; no time is asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import quick

from jdec.bench import format_record
from jdec.cli import main

ONLY_DEVICE = ["--quick", "--parts", "steps"]


def run(folder, *argv, programs=None, code=None, **environment):
    """Run ``jdec bench``, or some code, in a folder."""
    start = ["-m", "jdec", "bench"] if code is None else ["-c", code]
    variables = quick.environment(programs, **environment)
    variables.pop("JDEC_DATA_DIR", None)
    return subprocess.run(
        [sys.executable, *start, *argv],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
    )


def assert_fails_in_a_line(done, *texts):
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("jdec: ")
    assert all(text in last for text in texts), last
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_quick_record_has_all_parts(tmp_path, programs):
    done = run(tmp_path, "--quick", "--seeds", "1", "--out", "new/a.json", programs=programs)
    assert done.returncode == 0, done.stderr
    assert "less than a minute" in done.stdout.splitlines()[0]  # said before the work
    record = json.loads((tmp_path / "new" / "a.json").read_text())
    assert (record["what"], record["schema"]) == ("bench", 1)
    assert {"jdec", "jax", "python", "device"} <= record["environment"].keys()
    assert record["options"]["quick"]
    assert record["peak_gflops"] > 0
    assert record["bandwidth_gbytes"] > 0
    phases = [(point["preset"], point["phase"]) for point in record["steps"]]
    three = ("finetune", "KL step", "refresh")
    assert phases == [(preset, phase) for preset in ("fast", "paper") for phase in three]
    assert all(point["share_of_peak"] > 0 for point in record["steps"])
    assert [point["members"] for point in record["members"]["points"]] == [1, 2]
    assert record["members"]["left_out"] == []
    runs = record["fits"]["runs"]
    assert [(one["start"], one["seed"]) for one in runs] == [("cold", 0), ("warm", 0)]
    assert runs[0]["compiling"]["programs"] > runs[1]["compiling"]["programs"]
    assert runs[0]["acc"] == runs[1]["acc"]
    for one in runs:
        assert {"pretraining", "kmeans", "clustering", "other"} <= one["shares"].keys()
        assert sum(one["shares"].values()) == pytest.approx(1, abs=0.01)
    assert record["fits"]["dataset"] == "digits"
    assert format_record(record) in done.stdout
    assert all(len(line) <= 100 for line in format_record(record).splitlines())


def test_flags_and_unrolling_are_in_the_record(tmp_path, programs):
    argv = [
        "--xla-flags",
        "--xla_gpu_enable_command_buffer=+WHILE",
        "--scan-unroll",
        "2",
        "--quiet",
    ]
    for _ in range(2):  # a default name is never one that is taken
        done = run(tmp_path, *ONLY_DEVICE, *argv, programs=programs)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    first, second = sorted((tmp_path / "runs").iterdir(), key=lambda path: len(path.name))
    assert second.name == first.name.replace("_bench", "_2_bench")
    record = json.loads(first.read_text())
    assert record["options"]["xla_flags"].endswith("--xla_gpu_enable_command_buffer=+WHILE")
    assert record["options"]["scan_unroll"] == 2
    assert "fits" not in record
    assert "members" not in record


@pytest.mark.parametrize("flag", ["--xla_no_such_flag=1", "xla_cpu_ftz=maybe"])
def test_a_flag_that_xla_does_not_know_is_an_error_in_a_line(tmp_path, flag):
    done = run(tmp_path, *ONLY_DEVICE, "--xla-flags", flag)
    name = flag.lstrip("-").partition("=")[0]
    assert_fails_in_a_line(done, "xla_flags: expected flags that the XLA of JAX", f"--{name}")
    assert not list(tmp_path.iterdir())


def test_an_absent_platform_is_an_error_in_a_line(tmp_path):
    done = run(tmp_path, *ONLY_DEVICE, JAX_PLATFORMS="nonsense")
    assert_fails_in_a_line(done, "JAX_PLATFORMS: expected a platform available here", "unset it")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_too_little_memory_is_an_error_in_a_line(tmp_path, programs):
    code = (
        "import sys, resource\n"
        "from pathlib import Path\n"
        "from jdec.cli import main\n"
        # All is imported, and all threads have started, before there is a limit.
        "assert main(['bench', '--quick', '--parts', 'steps', '--quiet']) == 0\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, resource.RLIM_INFINITY))\n"
        "sys.exit(main(['bench', '--parts', 'steps', *sys.argv[1:]]))"
    )
    done = run(tmp_path, "--quiet", code=code, programs=programs, JAX_PLATFORMS="cpu")
    assert_fails_in_a_line(done, "bench: expected", "GiB of free memory", "--quick")


def test_an_existing_file_is_left_as_it_is(tmp_path):
    (tmp_path / "mine.json").write_text("mine")
    done = run(tmp_path, *ONLY_DEVICE, "--out", "mine.json")
    assert_fails_in_a_line(done, "out: expected a new file, got mine.json, which exists")
    assert (tmp_path / "mine.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--out", "mine.csv"], "out: expected a name that ends in .json, got mine.csv"),
        (["--out", "file/mine.json"], "out: "),
        (["--parts", "steps,all"], "parts: expected one of"),
        (["--parts", ""], "parts: expected"),
        (["--seeds", "0"], "seeds: expected"),
        (["--scan-unroll", "0"], "scan_unroll: expected"),
    ],
)
def test_bad_options_are_errors_in_a_line(tmp_path, monkeypatch, capsys, argv, text):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert main(["bench", "--quick", *argv]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"jdec: {text}")
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
