"""Runs killed at random moments, resumed, and compared bit by bit with one that was not.

    python -m benchmarks.kill_campaign --kills 100

A tiny fit is killed by SIGKILL in all of its phases and resumed until it is done; so are fits that
stream their rows or are in double precision, several in the threads of one process, whole commands
from their first import on, ``predict`` and ``sweep``. Then the disk is full at 20 sizes, every file
of an interrupted run is damaged in turn, and second runs are let loose on a folder in use. After
each kill all files under their final names must be whole, after the next run nothing half-written
may be left, and the results must have the bits of the run that was left alone. All but the whole
commands are forked from one process that has imported everything, which spares most of a start.
"""

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.records import append_record
from jdec.cli.commands import run as jdec
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.model_file import load_model

#: Kills, in percent of those asked for; sizes of a disk, damages a file, second runs.
SHARES = {
    "fit": 35,
    "streamed fit": 20,
    "fit in double precision": 10,
    "threads": 10,
    "predict": 10,
    "sweep": 15,
    "commands": 10,
}
SIZES = {"full disk": 20, "damage": 4, "second run": 5}

NETWORK = "--network.hidden-dims 32 --network.latent-dim 5 --pretrain.batch-size 64"
FIT = (
    f"--n-clusters 4 {NETWORK} --pretrain.layerwise-steps 40 --pretrain.finetune-steps 2000 "
    "--kmeans.n-init 20 --kmeans.overclustering-factors 1 --kmeans.select inertia "
    "--clustering.batch-size 64 --clustering.update-interval 20 --clustering.max-intervals 12 "
    "--clustering.tol 0 --checkpoint-seconds 0"
).split()
PHASES = ("start", "layer 1", "layer 2", "finetune", "kmeans", "clustering", "results")

# JAX has not started its threads in this process, and must not before the last fork.
context = multiprocessing.get_context("fork")


# Processes ---------------------------------------------------------------------------------------


class Process:
    """A command in a process that can be killed, and the lines that it wrote to stderr."""

    def __init__(self, function: Callable[..., Any], *args: Any, **limits: Any) -> None:
        self._errors, written = context.Pipe(duplex=False)
        self._process: ForkProcess = context.Process(
            target=_child, args=(written, limits, function, args)
        )
        self._process.start()
        written.close()

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the exit code, or None if it is still running."""
        self._process.join(seconds)
        return self._process.exitcode

    def kill(self) -> bool:
        """Return whether it was still running."""
        self._process.kill()
        self._process.join()
        return self._process.exitcode == -signal.SIGKILL

    def lines(self) -> list[str]:
        """Return what it wrote to stderr, once it has ended."""
        parts = []
        while part := os.read(self._errors.fileno(), 2**16):
            parts.append(part)
        return b"".join(parts).decode(errors="replace").splitlines()


def _child(
    written: Any, limits: dict[str, Any], function: Callable[..., Any], args: Sequence[Any]
) -> None:
    os.dup2(written.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if limits.get("x64"):
        jax.config.update("jax_enable_x64", True)
    if "file_size" in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_size"],) * 2)
    sys.exit(function(*args))


def _fit_in_threads(data: str, config: str, folders: Sequence[str]) -> int:
    """Fit in a thread for each folder; labels and embedding are left beside the folders."""
    x = np.load(data)
    done = []

    def work(folder: str) -> None:
        options: Any = {"workdir": folder, "resume": True, "checkpoint_seconds": 0}
        result = fit(jax.random.key(0), x, Config.from_json(config), **options)
        done.append((folder, result))

    threads = [threading.Thread(target=work, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for folder, result in done:
        arrays = {name: getattr(result, name) for name in RESULT_ARRAYS}
        np.savez(f"{folder}/../{Path(folder).name}.npz", **arrays)
    return 0 if len(done) == len(folders) else 1


# Files -------------------------------------------------------------------------------------------

RESULT_ARRAYS = ("labels", "soft_assignment", "embedding")


def check_whole(folder: Path) -> list[str]:
    """Return the files under a final name that are not whole."""
    broken = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name.startswith("."):
            continue
        try:
            _read(path)
        except Exception as error:
            broken.append(f"{path.name} is half-written: {error}")
    return broken


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of an .npz file."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read(path: Path) -> None:
    if path.suffix == ".npy":
        np.load(path, allow_pickle=False)
    elif path.name == "model.npz":
        load_model(path)
    elif path.suffix == ".npz":
        read_arrays(path)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".jsonl":
        [json.loads(line) for line in path.read_text().splitlines()]
    ends = {".png": b"IEND\xaeB`\x82", ".csv": b"\n"}
    if not path.read_bytes().endswith(ends.get(path.suffix, b"")):
        raise ValueError("it has no end")


def left_over(folder: Path) -> list[str]:
    """Return what should be gone once a run has ended."""
    return [f"{path.name} is left over" for path in folder.rglob(".*")]


def bits(folder: Path) -> dict[str, bytes]:
    """Return the results that two equal runs have in common, by name."""
    found = {path.name: path.read_bytes() for path in sorted(folder.glob("*.npy"))}
    model, _ = load_model(folder / "model.npz")
    for path, leaf in jax.tree_util.tree_leaves_with_path(model[:3]):
        found[f"model{jax.tree_util.keystr(path)}"] = np.asarray(leaf).tobytes()
    return found


def phase_of(folder: Path) -> str:
    """Return how far a run has got, by its files."""
    if (folder / "labels.npy").exists():
        return "results"
    history = folder / "history.jsonl"
    if (folder / "checkpoints" / "history.jsonl").exists():  # of a sweep, as long as it runs
        history = folder / "checkpoints" / "history.jsonl"
    try:
        last = json.loads(history.read_text().splitlines()[-1])
    except (OSError, IndexError):
        return "start"
    if last["phase"] == "finetune" and last["step"] == 2000:
        return "kmeans"
    return "results" if last.get("interval") == 12 else last["phase"]


# The campaign ------------------------------------------------------------------------------------


class Reference(NamedTuple):
    """A run that was left alone."""

    folder: Path
    bits: dict[str, bytes]
    seconds: float


class Campaign:
    """All parts, and what they found."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.rng = folder, np.random.default_rng(seed)
        self.data = str(folder / "x.npy")
        centres = self.rng.normal(scale=4, size=(4, 16))
        rows = centres[np.arange(300) % 4] + self.rng.normal(size=(300, 16))
        np.save(self.data, rows.astype(np.float32))
        self.failures: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.phases: collections.Counter[str] = collections.Counter()
        self.references: dict[Any, Reference] = {}
        self.n_folders = 0

    def fresh(self) -> Path:
        """Return the name of a new folder."""
        self.n_folders += 1
        return self.folder / f"run{self.n_folders}"

    def fail(self, part: str, reasons: Sequence[str]) -> None:
        """Note what should not have been."""
        for reason in reasons:
            self.failures.append(f"{part}: {reason}")
            print(f"FAILED {part}: {reason}", flush=True)

    def fit_command(self, out: Path, *more: str) -> list[str]:
        """Return the command line of the fit."""
        return ["fit", self.data, *FIT, "--out", str(out), "--quiet", *more]

    def complete(self, part: str, *args: Any, **limits: Any) -> float:
        """Run a process that must succeed, and return its seconds."""
        began = time.perf_counter()
        process = Process(*args, **limits)
        if process.wait() != 0:
            self.fail(part, [f"it ended in {process.lines()[-3:]}"])
        return time.perf_counter() - began

    def compare(self, part: str, folder: Path, reference: dict[str, bytes]) -> None:
        """Count a run that is done, and whether its results are those of the reference."""
        reasons = check_whole(folder) + left_over(folder)
        found = bits(folder)
        reasons += [f"other bits in {n}" for n in reference if found.get(n) != reference[n]]
        self.counts["runs compared"] += 1
        self.counts["same bits"] += not reasons
        self.fail(part, reasons)

    def reference(self, *more: str, x64: bool = False) -> Reference:
        """Fit twice without interruption, to know the bits and the seconds."""
        kind = (more, x64)
        if kind not in self.references:
            part, folders = "reference", [self.fresh(), self.fresh()]
            for folder in folders:
                seconds = self.complete(part, jdec, self.fit_command(folder, *more), x64=x64)
            self.references[kind] = Reference(folders[0], bits(folders[0]), seconds)
            self.compare(part, folders[1], self.references[kind].bits)
        return self.references[kind]

    def kill_at_random(self, process: Any, folder: Path, seconds: float) -> bool:
        """Kill a process at some moment, half of the times in a phase chosen beforehand."""
        if self.rng.random() < 0.5:
            time.sleep(self.rng.uniform(0, seconds))
        else:
            phase = str(self.rng.choice(PHASES[PHASES.index(phase_of(folder)) :]))
            until = time.perf_counter() + seconds
            while phase_of(folder) != phase and time.perf_counter() < until:
                time.sleep(0.001)
            time.sleep(self.rng.uniform(0, 0.05 * seconds))
        return process.kill()

    def kill_runs(
        self,
        part: str,
        kills: int,
        start: Callable[[Path, bool], Any],
        seconds: float,
        expected: dict[str, bytes],
    ) -> None:
        """Kill runs and resume them until they are done; compare each of them."""
        killed = 0
        while killed < kills:
            folder, n_before = self.fresh(), killed
            while True:
                process = start(folder, killed > n_before)
                is_left_alone = killed >= min(kills, n_before + 6)
                if not is_left_alone and self.kill_at_random(process, folder, seconds):
                    killed += 1
                    self.counts[f"kills: {part}"] += 1
                    self.phases[phase_of(folder)] += 1
                    self.fail(part, check_whole(folder))
                    self.fail(part, [line for line in process.lines() if "Trace" in line])
                    continue
                code, lines = process.wait(), process.lines()
                if code != 0:
                    self.fail(part, [f"exit code {code}: {lines[-3:]}"])
                break
            self.compare(part, folder, expected)
            shutil.rmtree(folder)

    # Parts ---------------------------------------------------------------------------------------

    def fits(self, part: str, kills: int, *more: str, x64: bool = False) -> None:
        """Fits, forked, with more options."""
        reference = self.reference(*more, x64=x64)

        def start(folder: Path, again: bool) -> Process:
            command = self.fit_command(folder, *more, *(["--resume"] if again else []))
            return Process(jdec, command, x64=x64)

        self.kill_runs(part, kills, start, reference.seconds, reference.bits)

    def commands(self, kills: int) -> None:
        """Fits from the start of the interpreter on."""
        reference = self.reference()
        start = [sys.executable, "-m", "jdec"]
        began = time.perf_counter()
        subprocess.run([*start, *self.fit_command(self.fresh())], check=True)
        seconds = time.perf_counter() - began
        for _ in range(kills):
            folder = self.fresh()
            command = [*start, *self.fit_command(folder)]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
                time.sleep(self.rng.uniform(0, seconds))
                process.kill()
                lines = (process.stderr or sys.stdin).read().splitlines()
            self.counts["kills: commands"] += process.returncode == -signal.SIGKILL
            self.phases[phase_of(folder)] += 1
            self.fail("commands", check_whole(folder) + [line for line in lines if "Trace" in line])
            self.complete("commands", jdec, self.fit_command(folder, "--resume"))
            self.compare("commands", folder, reference.bits)

    def threads(self, kills: int) -> None:
        """Several fits in the threads of one process."""
        run = self.reference().folder
        config = (run / "config.json").read_text()
        expected = {name: np.load(run / f"{name}.npy") for name in RESULT_ARRAYS}
        killed, seconds = 0, self.reference().seconds
        while killed < kills:
            group = self.fresh()
            group.mkdir()
            folders = [str(group / f"thread{number}") for number in range(3)]
            for attempt in range(4):
                began = time.perf_counter()
                process = Process(_fit_in_threads, self.data, config, folders)
                if attempt < 3:
                    time.sleep(self.rng.uniform(0, seconds))
                    if process.kill():
                        killed += 1
                        self.counts["kills: threads"] += 1
                        for folder in folders:
                            self.fail("threads", check_whole(Path(folder)))
                        continue
                if process.wait() != 0:
                    self.fail("threads", process.lines()[-3:])
                seconds = time.perf_counter() - began
                break
            for folder in folders:
                found = read_arrays(Path(f"{folder}.npz"))
                same = all(np.array_equal(found[name], expected[name]) for name in RESULT_ARRAYS)
                self.counts["runs compared"] += 1
                self.counts["same bits"] += same
                self.fail("threads", [] if same else [f"other bits in {folder}"])
                self.fail("threads", left_over(Path(folder)))

    def predictions(self, kills: int) -> None:
        """``predict --out``: the old file or the new one."""
        out = self.folder / "predicted" / "labels.npy"
        out.parent.mkdir()
        command = ["predict", str(self.reference().folder), self.data, "--out", str(out)]
        seconds = self.complete("predict", jdec, command)
        new, old = out.read_bytes(), b"old"
        for _ in range(kills):
            out.write_bytes(old)
            process = Process(jdec, command)
            time.sleep(self.rng.uniform(0, seconds))
            self.counts["kills: predict"] += process.kill()
            if out.read_bytes() not in (old, new):
                self.fail("predict", ["neither the old file nor the new one"])
            self.complete("predict", jdec, command)
            self.counts["runs compared"] += 1
            same = out.read_bytes() == new and not left_over(out.parent)
            self.counts["same bits"] += same
            self.fail("predict", [] if same else ["another file", *left_over(out.parent)])

    def sweeps(self, kills: int) -> None:
        """``sweep``: killed in training or after it, and resumed with the same bits."""

        def command(folder: Path, *more: str) -> list[str]:
            grid = ["--n-clusters", "3,4", "--seeds", "2", "--config", config]
            grid += ["--checkpoint-seconds", "0"]
            return ["sweep", self.data, *grid, "--out", str(folder), "--quiet", *more]

        def start(folder: Path, again: bool) -> Process:
            return Process(jdec, command(folder, *(["--resume"] if again else [])))

        config = str(self.reference().folder / "config.json")
        folders = [self.fresh(), self.fresh()]
        for folder in folders:
            seconds = self.complete("sweep", jdec, command(folder))
        expected = bits(folders[0])
        self.compare("sweep", folders[1], expected)
        self.kill_runs("sweep", kills, start, seconds, expected)

    def full_disk(self, n_sizes: int) -> None:
        """No file may grow beyond some size, as on a full disk; then there is room again."""
        reference = self.reference()
        files = [path for path in reference.folder.rglob("*") if path.is_file()]
        largest = max(path.stat().st_size for path in files)
        for size in np.geomspace(1, largest - 1, n_sizes).astype(int).tolist():
            folder = self.fresh()
            process = Process(jdec, self.fit_command(folder), file_size=size)
            code, lines = process.wait(), process.lines()
            self.counts["full disks"] += 1
            if code != 1 or len(lines) != 1 or "File too large" not in lines[0]:
                self.fail(f"a disk of {size} bytes", [f"exit code {code}, {lines[:5]}"])
            self.fail(f"a disk of {size} bytes", check_whole(folder))
            self.complete("full disk", jdec, self.fit_command(folder, "--resume"))
            self.compare(f"a disk of {size} bytes", folder, reference.bits)

    def damage(self, n_kinds: int) -> None:
        """Every file of an interrupted run is damaged; it goes on, or is refused in a line."""
        reference = self.reference()
        folder = self.fresh()
        while phase_of(folder) != "clustering":
            shutil.rmtree(folder, ignore_errors=True)
            process = Process(jdec, self.fit_command(folder))
            until = time.perf_counter() + 2 * reference.seconds
            while phase_of(folder) != "clustering" and time.perf_counter() < until:
                time.sleep(0.001)
            process.kill()
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        for file in sorted(files):
            for name, change in list(DAMAGES.items())[:n_kinds]:
                part = f"{file} {name}"
                copy = shutil.copytree(folder, self.fresh())
                change(copy / file)
                process = Process(jdec, self.fit_command(copy, "--resume"))
                code, lines = process.wait(), process.lines()
                self.counts["damaged files"] += 1
                if code == 0:
                    self.compare(part, copy, reference.bits)
                    expected = file.suffix == ".npz" and name != "removed"
                    if len(lines) > expected:
                        self.fail(part, lines)
                elif code != 1 or len(lines) != 1:
                    self.fail(part, [f"exit code {code}, {lines[-5:]}"])

    def second_runs(self, attempts: int) -> None:
        """A second run in the same folder is refused; the first one does not notice."""
        reference = self.reference()
        for _ in range(attempts):
            folder = self.fresh()
            first = Process(jdec, self.fit_command(folder))
            while not (folder / "checkpoints").exists():
                time.sleep(0.001)
            time.sleep(self.rng.uniform(0, 0.2 * reference.seconds))
            second = Process(jdec, self.fit_command(folder, "--resume"))
            code, lines = second.wait(), second.lines()
            if code != 1 or len(lines) != 1 or "is in use by process" not in lines[0]:
                self.fail("second run", [f"exit code {code}, {lines[-3:]}"])
            self.counts["second runs"] += 1
            if first.wait() != 0:
                self.fail("second run", first.lines()[-3:])
            self.compare("second run", folder, reference.bits)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "with a flipped bit": _flip,
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
}


@contextlib.contextmanager
def _quick_compilation(folder: Path) -> Iterator[None]:
    """Have the processes to come compile little, and share what they compiled."""
    settings: dict[str, Any] = {
        "jax_platforms": "cpu",
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    with contextlib.ExitStack() as stack:
        stack.callback(os.environ.update, dict(os.environ))
        for name, value in settings.items():
            os.environ[name.upper()] = str(value)
            stack.callback(os.environ.pop, name.upper())
            # JAX has read the environment of this process already.
            stack.callback(jax.config.update, name, jax.config.values[name])
            jax.config.update(name, value)
        yield


PARTS: dict[str, Callable[[Campaign, int], None]] = {
    "fit": lambda campaign, n: campaign.fits("fit", n),
    "streamed fit": lambda campaign, n: campaign.fits("streamed fit", n, "--rows", "stream"),
    "fit in double precision": lambda campaign, n: campaign.fits(
        "fit in double precision", n, x64=True
    ),
    "threads": Campaign.threads,
    "predict": Campaign.predictions,
    "sweep": Campaign.sweeps,
    "commands": Campaign.commands,
    "full disk": Campaign.full_disk,
    "damage": Campaign.damage,
    "second run": Campaign.second_runs,
}


def run(sizes: Mapping[str, int], seed: int) -> dict[str, Any]:
    """Run parts of some sizes, and return what they found."""
    with tempfile.TemporaryDirectory() as folder, _quick_compilation(Path(folder, "programs")):
        campaign = Campaign(Path(folder), seed)
        for part, size in sizes.items():
            PARTS[part](campaign, size)
            print(f"{part}: {dict(campaign.counts)}", file=sys.stderr, flush=True)
    kinds = {n: count for n, count in campaign.counts.items() if n.startswith("kills: ")}
    return {
        "kills": sum(kinds.values()),
        "kills_by_part": {name.removeprefix("kills: "): count for name, count in kinds.items()},
        "kills_by_phase": {phase: campaign.phases[phase] for phase in PHASES},
        **{
            name.replace(" ", "_"): campaign.counts[name]
            for name in ("runs compared", "same bits", "full disks", "damaged files", "second runs")
        },
        "failures": campaign.failures,
    }


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one kill, nothing recorded")
    arguments = parser.parse_args()
    began = time.perf_counter()
    sizes = {"fit": 1, "streamed fit": 1}
    if not arguments.smoke:
        sizes = {part: -(-arguments.kills * share // 100) for part, share in SHARES.items()} | SIZES
    figures = run(sizes, arguments.seed)
    figures["seconds"] = round(time.perf_counter() - began)
    append_record("kills", figures, smoke=arguments.smoke)
    return 1 if figures["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
