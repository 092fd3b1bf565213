"""Compiled programs: kept on disk for the next start, and the time that making them takes."""

import os
from pathlib import Path
from typing import Any

import jax
import platformdirs

# What JAX calls these events; see jax.monitoring.
_COMPILED = "/jax/core/compile/backend_compile_duration"
_FOUND = "/jax/compilation_cache/cache_hits"


def keep_programs(folder: Path | None = None) -> Path | None:
    """Keep compiled programs on disk, so that the same command starts sooner the next time.

    JAX's own settings have precedence: ``JAX_COMPILATION_CACHE_DIR`` names another folder, and
    ``JAX_ENABLE_COMPILATION_CACHE=false`` turns it off.

    Args:
        folder: Where; by default a folder in the user's cache.

    Returns:
        The folder in use, or None where the cache is off or the folder cannot be written to.
    """
    if not jax.config.values["jax_enable_compilation_cache"]:
        return None
    if jax.config.values["jax_compilation_cache_dir"] is None:
        folder = folder or platformdirs.user_cache_path("jdec") / "programs"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # The many small programs add up.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    return Path(jax.config.values["jax_compilation_cache_dir"])


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
