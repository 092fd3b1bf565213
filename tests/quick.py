"""Compiling sooner, where what a program computes is tested and not how it was optimised."""

import contextlib
import os
from functools import cache

import jax
from jax._src import compiler

# Options of XLA for CPUs, beside those of jax_disable_most_optimizations; they halve the time.
_OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}

_get_compile_options = compiler.get_compile_options


@cache
def _options():
    """Return the options that this XLA knows: it ends a process that is given others."""
    known = {}
    for name, value in _OPTIONS.items():
        with contextlib.suppress(Exception):
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
            known[name] = value
    return known


@contextlib.contextmanager
def quick_compilation(folder):
    """Optimise little, and keep what is compiled in a folder."""
    new = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    old = {name: jax.config._read(name) for name in new}
    options, get_compile_options = _options(), compiler.get_compile_options

    def with_options(*args, env_options_overrides=None, **kwargs):
        overrides = options | (env_options_overrides or {})
        return get_compile_options(*args, env_options_overrides=overrides, **kwargs)

    compiler.get_compile_options = with_options
    try:
        _update(new)
        yield
    finally:
        _update(old)
        compiler.get_compile_options = get_compile_options


@contextlib.contextmanager
def full_compilation():
    """Optimise as users' programs are, within :func:`quick_compilation`."""
    new = {"jax_disable_most_optimizations": False, "jax_compilation_cache_dir": None}
    old = {name: jax.config._read(name) for name in new}
    get_compile_options = compiler.get_compile_options
    jax.clear_caches()
    try:
        compiler.get_compile_options = _get_compile_options
        _update(new)
        yield
    finally:
        _update(old)
        compiler.get_compile_options = get_compile_options
        jax.clear_caches()


@contextlib.contextmanager
def programs_not_kept():
    """Read the programs in the folder of :func:`quick_compilation`, and add none to it."""
    name = "jax_persistent_cache_min_compile_time_secs"
    old = jax.config._read(name)
    jax.config.update(name, 1e9)
    try:
        yield
    finally:
        jax.config.update(name, old)


@contextlib.contextmanager
def float64():
    """Compute in float64 within; jax.enable_x64 is not in all versions of JAX."""
    old = jax.config._read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", old)


def _update(settings):
    for name, value in settings.items():
        jax.config.update(name, value)
    compiler.compilation_cache.reset_cache()


#: Of a process that may be killed while it writes: it reads programs, and adds none.
READ_ONLY = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"}


def environment(folder=None, **more):
    """Return environment variables with which another process does the same."""
    flags = [f"--{name}={str(value).lower()}" for name, value in _options().items()]
    kept = {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return (
        os.environ
        | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        | {"XLA_FLAGS": " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()}
        | ({} if folder is None else kept)
        | more
    )
