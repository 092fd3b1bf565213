"""What compiles for an H100 and a TPU v5e, where there are compilers; and how it is counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from benchmarks import aot, aot_programs, records
from benchmarks.aot_programs import CASES, Case
from benchmarks.aot_tables import TABLES, by_program
from benchmarks.hlo import Cost, Program
from jdec.trainer import programs

TARGETS = [
    pytest.param(name, marks=pytest.mark.skipif(reason is not None, reason=reason or ""))
    for name, reason in ((name, aot.missing(name)) for name in aot.TARGETS)
]
PRETRAINING, TRAINING, REFRESH = map(Case, ("pretrain_steps, finetune", "train", "refresh"))
DATA_PARALLEL = TRAINING._replace(n_devices=4)


@pytest.fixture(scope="module", params=TARGETS)
def compiled(request):
    """The name of a target, and the figures of some programs, by their names."""
    names = [case.name for case in (PRETRAINING, TRAINING, REFRESH, DATA_PARALLEL)]
    command = [sys.executable, "-m", "benchmarks.aot", "--smoke", "--target", request.param]
    # In a process of its own: here JAX has begun to run, without the plugin of the target.
    process = subprocess.run(
        [*command, "--programs", *names],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert process.returncode == 0, process.stderr
    lines = [line for line in process.stdout.splitlines() if line.startswith("{")]
    return request.param, {found["program"]: found for found in map(json.loads, lines)}


@pytest.mark.parametrize("case", [PRETRAINING, TRAINING, REFRESH], ids=lambda case: case.name)
def test_no_temporary_is_as_large_as_the_rows(compiled, case):
    target, figures = compiled
    found, n_copies = figures[case.name], 0
    if target == "v5e" and case != REFRESH:
        # Once a dispatch XLA lays the rows out for the gather of a TPU, 784 columns as 896.
        n_copies = 1
    assert found["as_large_as_rows"] == n_copies
    assert found["bytes"]["temporaries"] < (0.5 + 1.2 * n_copies) * found["bytes"]["rows"]


@pytest.mark.parametrize("case", [PRETRAINING, TRAINING], ids=lambda case: case.name)
def test_no_step_gathers_single_pixels_on_a_tpu(compiled, case):
    target, figures = compiled
    if target != "v5e":
        pytest.skip("a GPU gathers them side by side")
    assert figures[case.name]["step"]["pixels"] == 0


@pytest.mark.parametrize("case", [PRETRAINING, TRAINING], ids=lambda case: case.name)
def test_a_step_has_no_more_kernels_than_its_record(compiled, case):
    target, figures = compiled
    record = by_program()[case.name][target]
    assert figures[case.name]["step"]["kernels"] <= record["step"]["kernels"]


def test_a_data_parallel_step_reduces_its_gradients_at_once(compiled):
    collectives = compiled[1][DATA_PARALLEL.name]["step"]["collectives"]
    large = {name: count for name, count in collectives.items() if name.endswith("MB")}
    # Indices and the rows of a batch are less than a megabyte.
    assert list(large.values()) == [1]
    assert all(name.startswith("all-reduce") for name in large)


# Without a compiler ------------------------------------------------------------------------------

LOOP = """HloModule made_up
%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %added = f32[] add(%a, %b)
}
%picked (rows: f32[9000,784], indices: s32[256,1]) -> f32[256,784] {
  %rows = f32[9000,784]{1,0} parameter(0)
  %indices = s32[256,1]{1,0} parameter(1)
  ROOT %chosen = f32[256,784]{1,0} gather(%rows, %indices), offset_dims={1}, slice_sizes={1,784}
}
%pixels (image: f32[256,784], index: s32[200704,2]) -> f32[200704] {
  %image = f32[256,784]{1,0} parameter(0)
  %index = s32[200704,2]{1,0} parameter(1)
  ROOT %moved = f32[200704]{0} gather(%image, %index), start_index_map={0,1}, slice_sizes={1,1}
}
%padded (weights: f32[784,500]) -> f32[784,512] {
  %weights = f32[784,500]{1,0} parameter(0)
  %zero = f32[] constant(0)
  ROOT %wider = f32[784,512]{1,0} pad(%weights, %zero), padding=0_0x0_12
}
%body (state: (s32[], f32[9000,784], s32[256,1], s32[200704,2], f32[784,500])) -> (s32[]) {
  %state = (s32[], f32[9000,784], s32[256,1], s32[200704,2], f32[784,500]) parameter(0)
  %step = s32[] get-tuple-element(%state), index=0
  %data = f32[9000,784]{1,0} get-tuple-element(%state), index=1
  %which = s32[256,1]{1,0} get-tuple-element(%state), index=2
  %where = s32[200704,2]{1,0} get-tuple-element(%state), index=3
  %kernel = f32[784,500]{1,0} get-tuple-element(%state), index=4
  %one = s32[] constant(1)
  %next = s32[] add(%step, %one)
  %batch = f32[256,784]{1,0} fusion(%data, %which), kind=kLoop, calls=%picked
  %image = f32[200704]{0} fusion(%batch, %where), kind=kLoop, calls=%pixels
  %wide = f32[784,512]{1,0} fusion(%kernel), kind=kLoop, calls=%padded
  %product = f32[256,512]{1,0} dot(%batch, %wide), lhs_contracting_dims={1}
  %total = f32[784,512]{1,0} all-reduce-start(%wide), to_apply=%sum
  %done = f32[784,512]{1,0} all-reduce-done(%total)
  ROOT %carried = (s32[]) tuple(%next)
}
%condition (state.1: (s32[])) -> pred[] {
  %state.1 = (s32[]) parameter(0)
  %step.1 = s32[] get-tuple-element(%state.1), index=0
  %last = s32[] constant(300)
  ROOT %again = pred[] compare(%step.1, %last), direction=LT
}
ENTRY %main (x: f32[9000,784], start: (s32[])) -> (s32[]) {
  %x = f32[9000,784]{1,0} parameter(0)
  %start = (s32[]) parameter(1)
  %copied = f32[9000,784]{1,0} copy(%x)
  ROOT %ran = (s32[]) while(%start), condition=%condition, body=%body
}
"""


def program(text=LOOP, seconds=lambda *_: 1.0):
    return Program(text, seconds)


def test_a_step_is_the_body_of_its_loop():
    step = program().step(300)
    expected = ["scalar", "gather", "gather", "pad", "product", "collective"]
    assert step.n_kernels == len(expected)
    assert step.kernels["gather"] == 2
    assert step.kernels["pad"] == step.kernels["product"] == 1
    assert step.collectives == {"all-reduce of 1.61 MB": 1}
    assert step.flops == 2 * 256 * 784 * 512
    assert step.pixels == 256 * 784
    assert program().step(299) is None


def test_a_loop_counts_as_often_as_it_runs():
    whole, step = program().cost, program().step(300)
    assert whole.n_kernels == 300 * step.n_kernels + 1
    assert whole.seconds == whole.n_kernels
    assert not whole.is_bound


def test_a_loop_that_ends_sooner_counts_with_its_limit():
    early = LOOP.replace(
        "ROOT %again = pred[] compare(%step.1, %last), direction=LT",
        "%more = pred[] compare(%step.1, %last), direction=LT\n"
        "  ROOT %again = pred[] and(%more, %more)",
    )
    assert program(early).cost.is_bound
    assert program(early).cost.n_kernels == program().cost.n_kernels


def test_a_gather_reads_the_rows_it_picks():
    batch, indices = 4 * 256 * 784, 4 * 256
    gathers = {}

    def seconds(kernel, cost):
        gathers[kernel.name] = cost.n_bytes
        return 1.0

    assert program(seconds=seconds).cost.n_kernels
    assert gathers["batch"] == 2 * batch + indices
    assert gathers["copied"] == 2 * 4 * 9000 * 784


def test_copies_of_the_rows_are_told():
    assert program().count_larger(4 * 9000 * 784) == 1
    assert program().count_larger(4 * 9000 * 784 + 1) == 0


def test_estimates_follow_the_slowest_part():
    kernel, none = program().computations["main"]["copied"], Cost()
    assert aot.h100_seconds(kernel, none) == aot.LAUNCH
    assert aot.h100_seconds(kernel, Cost(n_bytes=1e9, flops=1e9)) == 1e9 / aot.BANDWIDTH
    assert aot.h100_seconds(kernel, Cost(n_bytes=1e6, flops=1e9)) == 1e9 / aot.PEAK
    expected = kernel._replace(attributes='backend_config={"estimated_cycles":"1500"}')
    assert aot.v5e_seconds(expected, none) == 1500 / aot.FREQUENCY
    estimated = program(seconds=aot.v5e_seconds).step(300).seconds
    pixels = 256 * 784 * aot.CYCLES_A_SLICE / aot.FREQUENCY
    assert pixels < estimated < 1.1 * pixels


def test_what_is_not_installed_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(aot.importlib.util, "find_spec", lambda name: None)
    assert aot.main(["--target", "v5e", "--programs", "train/fast"]) == 1
    told = capsys.readouterr()
    assert told.err == 'v5e: libtpu is not installed; pip install ".[aot-tpu]"\n'
    assert not told.out


def test_programs_are_chosen_by_pattern(capsys):
    assert aot.main(["--list", "--programs", "train/fast/4*", "refresh/fast"]) == 0
    assert capsys.readouterr().out.split() == ["refresh/fast", "train/fast/4", "devices"]
    with pytest.raises(SystemExit):
        aot.main(["--programs", "nothing"])
    assert "no such program" in capsys.readouterr().err


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.n_devices == 1], ids=lambda case: case.name
)
def test_every_program_can_be_traced(case):
    traced = aot_programs.traced(case, jax.devices())
    assert traced.jaxpr.eqns


def test_every_program_of_a_fit_is_among_them():
    compiled = {
        name
        for name, part in vars(programs).items()
        if hasattr(part, "trace") and hasattr(part, "eval_shape")
    }
    # It splits one key, and nothing else.
    assert {case.program.split(",")[0] for case in CASES} == compiled - {"split_run_key"}


def test_names_tell_programs_apart():
    assert len({case.name for case in CASES}) == len(CASES)


def test_tables_show_the_newest_record_of_each_target(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    for name in TABLES:
        assert "not run" in TABLES[name]()
    step = {"kernels": 80, "kinds": {"product": 23, "pad": 2}, "estimated_us": 227.3}
    step |= {"pixels": 200704, "collectives": {}}
    whole = {"kernels": 25806, "estimated_us": 68191.2, "at_most": True}
    record = {"target": "h100", "program": "train/fast", "whole": whole, "step": step}
    record |= {"bytes": {"temporaries": 26e6}}
    other = {**record, "target": "v5e", "step": {**step, "collectives": {"all-reduce": 1}}}
    older = {**record, "step": {**step, "kernels": 90}}
    lines = [json.dumps(one) + "\n" for one in (older, record, other)]
    (tmp_path / "2026-01-01_cpu_aot.jsonl").write_text("".join(lines))
    row = TABLES["aot_steps"]().splitlines()[-1]
    assert row.startswith("| train, fast | 80 | product 23, pad 2 | 227 µs | 227 µs | 200 704 |")
    assert row.endswith("| none / all-reduce |")
    row = TABLES["aot_programs"]().splitlines()[-1]
    assert "| 0.03 GB | ≤ 25 806 | ≤ 68.2 ms |" in row


def test_the_description_of_the_h100_is_there():
    assert "H100" in Path(aot.H100).read_text()
