"""Settings of the whole suite: strict promotion, and annotations checked at run time."""

import contextlib
import gc
import importlib
import itertools
import tempfile
from pathlib import Path

import jax
import jaxtyping
import platformdirs
import pytest
import quick
from hypothesis import settings

CHECKED = (
    *("core", "baselines.spectral", "trainer.batch", "trainer.members", "trainer.memory"),
    *("trainer.pretraining", "trainer.processes", "trainer.programs"),
    *("trainer.rows", "trainer.run", "trainer.scaling", "trainer.self_training"),
)

# For its checks, which skops imports as well, scikit-learn 1.6 asks for this variable where
# array_api_compat is installed, which anndata needs. SciPy reads it too, and is imported before.
importlib.import_module("sklearn.base")
with pytest.MonkeyPatch.context() as _patch:
    _patch.setenv("SCIPY_ARRAY_API", "1")
    importlib.import_module("sklearn.utils.estimator_checks")

# Files of settings hold no doctests, and have one name in several folders.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

settings.register_profile("jdec", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile("jdec")

# Tracing makes many objects, and each full collection visits all of the suite's.
gc.set_threshold(20_000, 20, 50)

# An implicit conversion or an accidental broadcast in jdec is an error.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Rows and members can then be sharded over devices; what is not sharded runs on the first.
jax.config.update("jax_num_cpu_devices", 8)


# Shapes and dtypes in the annotations of these modules are checked at every call, from their first
# import on, hence here; ints pass for floats, as everywhere in Python.
jaxtyping.install_import_hook(
    [f"jdec.{module}" for module in CHECKED],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)


@pytest.fixture(scope="session")
def programs():
    """The folder of compiled programs, shared by all tests of a worker and their processes."""
    return jax.config.jax_compilation_cache_dir


@pytest.fixture(scope="module")
def full_compilation():
    """Compile all of a module as users do."""
    with quick.full_compilation():
        yield


@pytest.fixture
def full_compilation_here():
    """Compile one test as users do."""
    with quick.full_compilation():
        yield


@pytest.fixture
def in_place(place, tmp_path, monkeypatch):
    """Work in the folder of a module, and hide the data of whoever runs the tests."""
    monkeypatch.chdir(place)
    monkeypatch.delenv("JDEC_DATA_DIR", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)


@pytest.fixture
def unchecked():
    """Leave bad arguments to the library's own checks, as outside of the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


_session = contextlib.ExitStack()


def pytest_sessionstart():
    """Optimise little, and compile equal programs of different tests once: it takes longest."""
    folder = _session.enter_context(tempfile.TemporaryDirectory())
    _session.enter_context(quick.quick_compilation(folder))


def pytest_sessionfinish():
    _session.close()


# Each compiled program holds memory mappings, of which a process may have 65 530 on Linux; XLA
# crashes beyond. So programs are forgotten long before, which also keeps memory low.
_MAX_MAPPINGS = 12_000
_TESTS_BETWEEN_CHECKS = 40
_MAPPINGS = Path("/proc/self/maps")
_done = itertools.count(1)


def pytest_runtest_logfinish():
    if next(_done) % _TESTS_BETWEEN_CHECKS:
        return
    if not _MAPPINGS.exists() or _MAPPINGS.read_bytes().count(b"\n") > _MAX_MAPPINGS:
        jax.clear_caches()
        gc.collect()
