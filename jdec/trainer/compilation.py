"""Persistent compilation cache and compile-time statistics."""

import hashlib
import logging
import os
import platform
import tempfile
import warnings
from pathlib import Path
from typing import Any

import jax
import platformdirs

_LOGGER = logging.getLogger(__name__)

# What JAX calls these events; see jax.monitoring.
_COMPILED = "/jax/core/compile/backend_compile_duration"
_FOUND = "/jax/compilation_cache/cache_hits"


def keep_programs(folder: str | Path | None = None) -> Path | None:
    """Enable JAX's persistent compilation cache, so that the same command starts sooner next time.

    JAX's own settings have precedence: ``JAX_COMPILATION_CACHE_DIR`` names another folder, and
    ``JAX_ENABLE_COMPILATION_CACHE=false`` turns it off. What is in the cache is run: the default
    folder is not used, with a warning, if it belongs to another user or others can write to it;
    of a folder that was named there is a warning alone. Where nothing can be written, as on a full
    disk, programs are compiled again and nothing is said, since nothing is lost.

    Args:
        folder: Where; by default a folder in the user's cache, another one for each kind of
            processor: machines that share a home may differ, and a program compiled for a newer
            one can end in an illegal instruction.

    Returns:
        The folder in use, or None where the cache is off or the folder cannot be written to.

    Examples:
        >>> keep_programs(__file__) is None  # no folder
        True
    """
    if not jax.config.values["jax_enable_compilation_cache"]:
        return None
    # JAX warns of each program that it can neither write nor read.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    by_jax = jax.config.values["jax_compilation_cache_dir"]
    path = Path(by_jax or folder or _default_folder()).expanduser()
    if by_jax is None or "://" not in by_jax:  # which is no folder of this machine
        if not _can_be_written(path):
            _LOGGER.info("compiled programs cannot be kept in %s", path)
            return None
        if _is_open_to_others(path):
            told = f"{path} belongs to another user, or others can write to it"
            if by_jax is None and folder is None:
                warnings.warn(
                    f"compiled programs are not kept: {told}; remove it, or name another folder in "
                    "JAX_COMPILATION_CACHE_DIR",
                    stacklevel=2,
                )
                return None
            warnings.warn(f"{told}; the compiled programs in it are run", stacklevel=2)
        if by_jax is None:
            jax.config.update("jax_compilation_cache_dir", str(path))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # The many small programs add up.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    return path


def _default_folder() -> Path:
    return platformdirs.user_cache_path("jdec") / f"programs-{_processor()}"


def _processor() -> str:
    """Name the instructions that this machine has, which JAX's keys leave out."""
    known = platform.machine() + platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    # "flags" on x86, "Features" on ARM; the same for every core of most machines.
    known += "".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))
    return f"{platform.machine() or 'cpu'}-{hashlib.sha256(known.encode()).hexdigest()[:8]}"


def _can_be_written(path: Path) -> bool:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"0")
    except OSError:
        return False
    return True


def _is_open_to_others(path: Path) -> bool:
    if not hasattr(os, "getuid"):
        return False
    found = path.stat()
    return found.st_uid != os.getuid() or bool(found.st_mode & 0o022)


class CompilationClock:
    """Counts programs and the seconds spent on compiling them, or on reading them from disk.

    Examples:
        >>> clock = CompilationClock()
        >>> _ = jax.jit(lambda x: 3 * x)(jax.numpy.ones(7))
        >>> clock.n_programs > 0, clock.seconds > 0
        (True, True)
    """

    def __init__(self) -> None:
        self.n_programs = 0
        self.n_found = 0
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._count)
        jax.monitoring.register_event_listener(self._count_found)

    def as_record(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "seconds": round(self.seconds, 2),
            "programs": self.n_programs,
            "kept from before": self.n_found,
        }

    def _count(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILED:
            self.n_programs += 1
            self.seconds += duration_secs

    def _count_found(self, event: str, **_: Any) -> None:
        if event == _FOUND:
            self.n_found += 1
