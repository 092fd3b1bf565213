"""Flags of XLA, which it reads once, when JAX first asks for its devices."""

import os
import re
import subprocess
import sys

import jax

_SECONDS = 120  # to start JAX in


def set_xla_flags(flags: str) -> str:
    """Append flags to those in ``XLA_FLAGS``, before JAX uses a device; return all of them.

    XLA ends a process that gives it a flag it does not know, so another process tries them first.

    Args:
        flags: As ``--xla_gpu_enable_command_buffer=+WHILE``, with spaces between several; the
            dashes may be left out.

    Returns:
        What ``XLA_FLAGS`` is then.

    Raises:
        ValueError: If XLA does not accept them, or JAX's devices are in use already.

    Examples:
        >>> set_xla_flags("") == os.environ.get("XLA_FLAGS", "")
        True
    """
    words = [f"--{word.lstrip('-')}" for word in flags.split()]
    before = os.environ.get("XLA_FLAGS", "")
    together = " ".join([*before.split(), *words])
    if not words:
        return before
    if _is_initialized():
        raise ValueError(
            "xla_flags: expected them before JAX uses a device, got them after; use a new process"
        )
    error = _error_of(together)
    if error is not None:
        raise ValueError(
            f"xla_flags: expected flags that the XLA of JAX {jax.__version__} knows, got "
            f"{' '.join(words)}: {error}"
        )
    os.environ["XLA_FLAGS"] = together
    return together


def _is_initialized() -> bool:
    name = "jax_num_cpu_devices"
    before = jax.config.values[name]
    try:
        jax.config.update(name, before + 1)
    except RuntimeError:  # which says that it is too late
        return True
    jax.config.update(name, before)
    return False


def _error_of(flags: str) -> str | None:
    """Return XLA's own message where it does not start with some flags."""
    environment = {"XLA_FLAGS": flags, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        run = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"JAX did not start within {_SECONDS} s"
    # The first lines of a long log: errors, and the one that is fatal.
    found = re.findall(r"^[EF]\d{4} .*?\w+flags\w*\.cc:\d+\] (.*)$", run.stderr, re.MULTILINE)
    # Anything else, such as a platform that is absent, is not due to the flags.
    return found[0][:200] if run.returncode and found else None
