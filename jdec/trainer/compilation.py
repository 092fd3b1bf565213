"""Persistent compilation cache and compile-time statistics."""

import contextlib
import hashlib
import logging
import os
import platform
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import platformdirs

_LOGGER = logging.getLogger(__name__)

# Names of events of jax.monitoring.
_COMPILED = "/jax/core/compile/backend_compile_duration"
_CACHE_HIT = "/jax/compilation_cache/cache_hits"


def enable_compilation_cache(folder: str | Path | None = None) -> Path | None:
    """Enable JAX's persistent compilation cache.

    JAX's own settings take precedence: ``JAX_COMPILATION_CACHE_DIR`` names another folder, and
    ``JAX_ENABLE_COMPILATION_CACHE=false`` disables the cache. Cached programs are executed: if the
    folder belongs to another user or others can write to it, there is a warning, and the default
    one is not used. If it is not writable, as on a full disk, programs are silently compiled again.

    Args:
        folder: Location of the cache; by default in the user's cache directory, one per processor
            type: a program compiled for another can fail with an illegal instruction.

    Returns:
        The folder in use, or None if the cache is disabled or the folder is not writable.

    Examples:
        >>> folder = enable_compilation_cache(__file__)  # not a folder
        >>> folder is None or folder == Path(jax.config.values["jax_compilation_cache_dir"])
        True
    """
    if not jax.config.values["jax_enable_compilation_cache"]:
        return None
    # JAX warns about each program that it cannot read or write.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    by_jax = jax.config.values["jax_compilation_cache_dir"]
    path = Path(by_jax or folder or _default_folder()).expanduser()
    if by_jax is None or "://" not in by_jax:  # a URL is not a local folder
        if not _can_be_written(path):
            _LOGGER.info("compilation cache: cannot write to %s", path)
            return None
        if _is_open_to_others(path):
            reason = f"{path} belongs to another user, or others can write to it"
            if by_jax is None and folder is None:
                warnings.warn(
                    f"compilation cache disabled: {reason}; remove it, or set another folder in "
                    "JAX_COMPILATION_CACHE_DIR",
                    stacklevel=2,
                )
                return None
            warnings.warn(f"{reason}; the programs in it are executed", stacklevel=2)
        if by_jax is None:
            jax.config.update("jax_compilation_cache_dir", str(path))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # JAX's default leaves out the many small programs, which add up.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    return path


def _default_folder() -> Path:
    """Return a folder for this instruction set, which JAX's cache keys do not contain."""
    known = platform.machine() + platform.processor()
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    # "flags" on x86, "Features" on ARM; equal for all cores of most machines.
    known += "".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))
    digest = hashlib.sha256(known.encode()).hexdigest()[:8]
    name = f"programs-{platform.machine() or 'cpu'}-{digest}"
    return platformdirs.user_cache_path("jdec") / name


def _can_be_written(path: Path) -> bool:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"0")
    except OSError:
        return False
    return True


def _is_open_to_others(path: Path) -> bool:
    found = path.stat()
    return hasattr(os, "getuid") and (found.st_uid != os.getuid() or bool(found.st_mode & 0o022))


class CompilationClock:
    """Counts compiled programs, cache hits, and the seconds spent on both."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._count)
        jax.monitoring.register_event_listener(self._count)

    def as_record(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        counts = {"programs": self.counts[_COMPILED], "cache_hits": self.counts[_CACHE_HIT]}
        return {"seconds": round(self.seconds, 2), **counts}

    def _count(self, event: str, duration_secs: Any = 0.0, **_: Any) -> None:
        self.counts[event] += 1
        if event == _COMPILED:
            self.seconds += duration_secs
