"""Versions, devices and free memory."""

import contextlib
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np


def environment() -> dict[str, Any]:
    """Return the versions and the device that a result was made with.

    Examples:
        >>> environment()["jax"] == jax.__version__
        True
    """
    device = jax.devices()[0]
    return {
        "jdec": version("jdec"),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": f"{device.platform}: {device.device_kind}",
        "n_devices": jax.device_count(),
    }


def free_host_bytes() -> int | None:
    """Return how many bytes this process can still allocate, or None if unknown."""
    found = []
    for read in (_free_memory, _free_quota, _free_address_space):
        # Where it is not Linux, or there is no limit, or no cgroup.
        with contextlib.suppress(ImportError, OSError, ValueError, StopIteration):
            found.append(read())
    return min(found, default=None)


def free_device_bytes() -> int | None:
    """Return how many bytes are free on the default device (on the host for a CPU), or None."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return free_host_bytes()
    statistics = device.memory_stats() or {}
    if "bytes_limit" not in statistics:
        return None
    return int(statistics["bytes_limit"] - statistics.get("bytes_in_use", 0))


def _free_memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])


def _free_quota() -> int:
    group = Path("/sys/fs/cgroup")
    limit = int((group / "memory.max").read_text())
    used = int((group / "memory.current").read_text())
    statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    # The page cache can be reclaimed.
    return limit - used + int(statistics.get("inactive_file", 0))


def _free_address_space() -> int:
    import resource  # not on Windows

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]  # as ulimit -v sets it
    if limit == resource.RLIM_INFINITY:
        raise ValueError("no limit")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return max(0, limit - pages * resource.getpagesize())
