import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from jdec._environment import free_device_bytes, free_host_bytes

MEMINFO = "MemTotal:       2000 kB\nMemFree:         500 kB\nMemAvailable:    1000 kB\n"
GROUP = Path("/sys/fs/cgroup")


@pytest.fixture
def system(monkeypatch):
    """Files of another system."""
    files = {}

    def read_text(path, *_, **__):
        if str(path) not in files:
            raise FileNotFoundError(str(path))
        return files[str(path)]

    monkeypatch.setattr(Path, "read_text", read_text)
    return files


def limited(limit, used, cache):
    return {
        str(GROUP / "memory.max"): f"{limit}\n",
        str(GROUP / "memory.current"): f"{used}\n",
        str(GROUP / "memory.stat"): f"anon 5\ninactive_file {cache}\nactive_file 7\n",
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads files of Linux")
def test_this_systems_memory_is_known():
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < free_host_bytes() <= total


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),  # not Linux
        ({"/proc/meminfo": ""}, None),
        ({"/proc/meminfo": "MemTotal: 2000 kB\n"}, None),
        ({"/proc/meminfo": "MemAvailable: much\n"}, None),
        ({"/proc/meminfo": MEMINFO}, 1_024_000),
        ({"/proc/meminfo": MEMINFO} | limited("max", 5, 0), 1_024_000),
        ({"/proc/meminfo": MEMINFO} | limited(900_000, 500_000, 100_000), 500_000),
        ({"/proc/meminfo": MEMINFO} | limited(9_000_000, 500_000, 0), 1_024_000),
        (limited(900_000, 500_000, 0), 400_000),
        ({str(GROUP / "memory.max"): "900000"}, None),
    ],
)
def test_the_minimum_of_available_memory_and_quota(system, files, expected):
    system.update(files)
    assert free_host_bytes() == expected


def test_a_cpu_has_the_memory_of_its_host(system, monkeypatch):
    system["/proc/meminfo"] = MEMINFO
    device = SimpleNamespace(platform="cpu", memory_stats=lambda: None)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert free_device_bytes() == 1_024_000
    system.clear()
    assert free_device_bytes() is None


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        ({"bytes_limit": 1000, "bytes_in_use": 300}, 700),
        ({"bytes_limit": 1000}, 1000),
        ({"bytes_in_use": 300}, None),
        ({}, None),
        (None, None),
    ],
)
def test_an_accelerator_reports_its_memory(monkeypatch, statistics, expected):
    device = SimpleNamespace(platform="gpu", memory_stats=lambda: statistics)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert free_device_bytes() == expected
