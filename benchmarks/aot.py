"""Every program of a fit, compiled for an H100 and a TPU v5e that need not be there.

    pip install ".[aot-tpu]"         # or aot-gpu, preferably in an environment of its own
    python -m benchmarks.aot --target v5e
    python -m benchmarks.aot --target h100 --programs "train/fast*" --smoke

The compilers are the real ones, on whatever machine this is; nothing is run. Counted in the HLO
that they return: kernels, by what they do, of the whole program and of one step of its scan; the
bytes that these read and write; collectives; pixels that are gathered one by one; the memory that
the compiler asks for. Loops that end when something has converged count with their limit.

Times are estimates. Of an H100: the longest of a launch, the bytes at the bandwidth of its memory
and the products at its float32 peak, summed over the kernels, one after another. Of a v5e: the
cycles that the compiler expects of each kernel; of gathers, for which it expects nothing, the
instructions that it schedules for each slice. Copies beside the computation count as hidden, and
what travels between devices costs what it reads and writes. Without a device no tiles are tuned.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
from jax.experimental import topologies

from benchmarks.aot_programs import CASES, N_FEATURES, Case, n_steps, traced
from benchmarks.hlo import Cost, Instruction, Program
from benchmarks.records import append_record

H100 = Path(__file__).parent / "devices" / "h100.txtpb"

#: A kernel takes at least so long, as it has to be started: seconds.
LAUNCH = 2e-6
#: Of an H100 SXM: bytes and float32 operations a second.
BANDWIDTH, PEAK = 3.35e12, 67e12
#: Of a v5e: cycles and bytes a second, and the cycles that its compiler schedules for each slice
#: that is gathered: 13.3 instructions of the loop over single pixels as over whole rows.
FREQUENCY, TPU_BANDWIDTH, CYCLES_A_SLICE = 1.5e9, 819e9, 13.3


def h100_seconds(_: Instruction, cost: Cost) -> float:
    """Estimate how long a kernel takes on an H100."""
    return max(LAUNCH, cost.n_bytes / BANDWIDTH, cost.flops / PEAK)


def v5e_seconds(kernel: Instruction, cost: Cost) -> float:
    """Estimate how long a kernel takes on a v5e."""
    if kernel.cycles is not None:
        return kernel.cycles / FREQUENCY
    if cost.slices:
        return cost.slices * CYCLES_A_SLICE / FREQUENCY + cost.n_bytes / TPU_BANDWIDTH
    return 0.0


class Target(NamedTuple):
    """A device to compile for."""

    module: str  # that has the compiler
    package: str
    extra: str  # that installs it
    platform: str  # as JAX lowers for it
    backend: str  # as JAX calls it
    devices: Callable[[int], Any]  # of so many
    seconds: Callable[[Instruction, Cost], float]


def _h100s(n_devices: int) -> list[Any]:
    config, topology = H100.read_text(), f"1x1x{n_devices}"
    described = topologies.get_topology_desc(
        "h100", "cuda", target_config=config, topology=topology
    )
    return list(described.devices)


def _v5es(_: int) -> list[Any]:
    # It would look for the machine that it is part of.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    described = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    return list(described.devices)


TARGETS = {
    "h100": Target(
        "jax_cuda13_plugin", "jax-cuda13-plugin", "aot-gpu", "cuda", "gpu", _h100s, h100_seconds
    ),
    "v5e": Target("libtpu", "libtpu", "aot-tpu", "tpu", "tpu", _v5es, v5e_seconds),
}


def missing(name: str) -> str | None:
    """Say what has to be installed to compile for a target, if anything."""
    target = TARGETS[name]
    if importlib.util.find_spec(target.module) is not None:
        return None
    return f'{name}: {target.package} is not installed; pip install ".[{target.extra}]"'


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--programs", nargs="+", default=["*"], help="names or patterns of them")
    parser.add_argument("--list", action="store_true", help="only print the names")
    parser.add_argument("--hlo", type=Path, help="folder for the compiled programs, as text")
    parser.add_argument("--smoke", action="store_true", help="nothing recorded")
    given = parser.parse_args(arguments)
    cases = [case for case in CASES if any(fnmatch(case.name, one) for one in given.programs)]
    if not cases:
        parser.error("--programs: no such program; --list prints their names")
    if given.list:
        print("\n".join(case.name for case in cases))
        return 0
    if lacking := [line for line in map(missing, given.target) if line]:
        print("\n".join(lacking), file=sys.stderr)
        return 1
    if not jax.config.jax_platforms:  # type: ignore[attr-defined]
        jax.config.update("jax_platforms", "cpu")  # a plugin looks for its device otherwise
    for name in given.target:
        for case in cases:
            figures, text = measure(name, case)
            append_record("aot", figures, smoke=given.smoke)
            if given.hlo:
                given.hlo.mkdir(parents=True, exist_ok=True)
                file = re.sub(r"[^\w]+", "_", f"{name}_{case.name}")
                (given.hlo / f"{file}.txt").write_text(text)
    return 0


@contextmanager
def _as_on(backend: str) -> Iterator[None]:
    """Have jdec choose as it does on an accelerator: members and restarts side by side."""
    with mock.patch.object(jax, "default_backend", return_value=backend):
        yield


def measure(name: str, case: Case) -> tuple[dict[str, Any], str]:
    """Compile the program of a case for a target; return what is in it, and its HLO."""
    target = TARGETS[name]
    devices = target.devices(case.n_devices)
    with _as_on(target.backend):
        lowered = traced(case, devices).lower(lowering_platforms=(target.platform,))
    began = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - began
    text = compiled.as_text()
    program, memory = Program(text, target.seconds), compiled.memory_analysis()
    rows = 4 * N_FEATURES * case.n_rows // (1 if case.n_members else case.n_devices)
    steps = n_steps(case)
    step = program.step(steps) if steps > 1 else None
    figures = {
        "target": name,
        "program": case.name,
        **dict(zip(("members", "devices", "rows"), case[2:], strict=True)),
        "compiler": f"{target.package} {importlib.metadata.version(target.package)}",
        "compile_seconds": round(seconds, 1),
        "bytes": {
            "rows": rows,
            "arguments": memory.argument_size_in_bytes,
            "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
        },
        "as_large_as_rows": program.count_larger(rows),
        "whole": {**told(program.cost), "at_most": program.cost.is_bound},
        "step": None if step is None else {"n_steps": steps, **told(step)},
    }
    return figures, text


def told(cost: Cost) -> dict[str, Any]:
    """Return a cost as JSON values."""
    return {
        "kernels": cost.n_kernels,
        "kinds": dict(cost.kernels.most_common()),
        "collectives": dict(cost.collectives),
        "pixels": cost.pixels,
        "bytes": round(cost.n_bytes),
        "flops": round(cost.flops),
        "estimated_us": round(1e6 * cost.seconds, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
