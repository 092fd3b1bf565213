"""The persistent compilation cache: its folder, permissions and warnings."""

import os
import platform
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import platformdirs
import pytest

from jdec.trainer.compilation import CompilationClock, enable_compilation_cache

SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
posix = pytest.mark.skipif(os.name != "posix", reason="owners and modes of POSIX")


@pytest.fixture(autouse=True)
def default(tmp_path, monkeypatch):
    """Return the default folder."""
    old = {name: jax.config.values[name] for name in SETTINGS}
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    jax.config.update("jax_compilation_cache_dir", None)
    folder = enable_compilation_cache()
    jax.config.update("jax_compilation_cache_dir", None)
    folder.rmdir()
    yield folder
    for name, value in old.items():
        jax.config.update(name, value)


def in_use():
    return jax.config.values["jax_compilation_cache_dir"]


def test_the_default_folder_is_made_for_its_owner_alone(default):
    assert enable_compilation_cache() == default == Path(in_use())
    if os.name == "posix":
        assert default.stat().st_mode & 0o077 == 0


def test_machines_with_different_instruction_sets_have_different_folders(default, monkeypatch):
    text = "flags : sse avx avx512f"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    folders = {enable_compilation_cache(): text}
    jax.config.update("jax_compilation_cache_dir", None)
    text = "flags : sse avx"
    folders[enable_compilation_cache()] = text
    assert len(folders | {default: ""}) == 3
    assert {folder.parent for folder in folders} == {default.parent}


def test_another_folder_is_used_if_given(tmp_path, default, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert enable_compilation_cache("~/elsewhere") == tmp_path / "elsewhere" == Path(in_use())
    assert not default.exists()


def test_the_setting_of_jax_takes_precedence(tmp_path, default):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    tmp_path.chmod(0o700)
    assert enable_compilation_cache() == enable_compilation_cache(tmp_path / "other") == tmp_path
    assert not default.exists()
    jax.config.update("jax_compilation_cache_dir", "gs://bucket/programs")
    assert enable_compilation_cache() is not None


def test_it_can_be_disabled(default):
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert enable_compilation_cache() is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert not default.exists()


@pytest.mark.parametrize("where", ["a file in the way", "below a file", "a folder of the system"])
def test_an_unwritable_folder_disables_the_cache_silently(default, where):
    default.parent.mkdir(parents=True, exist_ok=True)
    if where == "a file in the way":
        default.write_text("")
    elif where == "below a file":
        default.parent.rmdir()
        default.parent.write_text("")
    elif Path("/proc").exists():
        default.symlink_to("/proc")  # not even root can write there
    else:
        pytest.skip("no such folder")
    assert enable_compilation_cache() is None
    assert enable_compilation_cache(default) is None
    assert in_use() is None


@posix
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_default_folder_that_others_can_write_to_is_not_used(default, mode):
    default.mkdir(parents=True)
    default.chmod(mode)
    with pytest.warns(UserWarning, match=str(default)) as caught:
        assert enable_compilation_cache() is None
    assert len(caught) == 1
    assert in_use() is None


@posix
@pytest.mark.skipif(os.name == "posix" and os.getuid() != 0, reason="needs root to give it away")
def test_a_default_folder_of_another_user_is_not_used(default):
    default.mkdir(parents=True, mode=0o700)
    os.chown(default, 12345, -1)
    with pytest.warns(UserWarning, match="belongs to another user"):
        assert enable_compilation_cache() is None
    assert in_use() is None


@posix
@pytest.mark.parametrize("by_jax", [True, False])
def test_a_named_folder_that_others_can_write_to_is_used_with_a_warning(tmp_path, by_jax):
    tmp_path.chmod(0o777)
    if by_jax:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    with pytest.warns(UserWarning, match="can write to it") as caught:
        assert enable_compilation_cache(None if by_jax else tmp_path) == tmp_path == Path(in_use())
    assert len(caught) == 1


def test_an_unwritable_cache_is_silent(default):
    enable_compilation_cache()
    for verb in ("reading", "writing"):
        warnings.warn(f"Error {verb} persistent compilation cache entry for 'jit_f'", stacklevel=1)


@posix
def test_a_full_disk_is_silent(tmp_path):
    """As a limit on the size of files, which is there once the folder was found to be good."""
    code = (
        "import resource, sys, jax, jdec;"
        "folder = jdec.trainer.enable_compilation_cache(sys.argv[1]);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY));"
        "print(folder, jax.jit(lambda x: x + 1)(1.0))"
    )
    folder = tmp_path / "programs"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env=os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(folder), "2.0"]
    assert done.stderr == ""
    assert not any(path.stat().st_size for path in folder.iterdir())


def test_the_clock_counts_programs():
    clock = CompilationClock()
    jax.jit(lambda x: 5 * x)(jax.numpy.ones(3)).block_until_ready()
    record = clock.as_record()
    assert record["programs"] >= 1
    assert record["seconds"] >= 0
    assert record["cache_hits"] >= 0
