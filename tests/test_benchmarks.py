"""The benchmarks run, in smoke size, and the tables in the READMEs are those of the records."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("arguments", "figures"),
    [
        (["benchmarks.bench_kmeans"], {"time_ratio", "inertia_ratio"}),
        (["benchmarks.bench_step"], {"pretrain_share_of_peak", "cluster_share_of_peak"}),
        (["benchmarks.bench_quality", "digits"], {"scores", "wall_seconds", "peak_memory_mb"}),
    ],
)
def test_a_smoke_run_prints_records_and_keeps_none(arguments, figures):
    before = sorted((ROOT / "benchmarks" / "results").iterdir())
    result = run(*arguments, "--smoke")
    assert result.returncode == 0, result.stderr
    records = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert records
    for record in records:
        assert figures | {"date", "commit", "machine", "environment"} <= record.keys()
    assert sorted((ROOT / "benchmarks" / "results").iterdir()) == before


def test_the_tables_of_the_readmes_are_rendered_from_the_records():
    result = run("benchmarks", "report", "--check")
    assert result.returncode == 0, result.stdout + result.stderr
