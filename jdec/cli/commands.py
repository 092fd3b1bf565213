"""The command line: the table of commands, and how each of them ends.

What a command needs is imported when it runs: the help of all of them needs next to nothing.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NamedTuple

from jdec.cli.output import (
    UsageError,
    flushed_output,
    plain_warnings,
    print_error,
    replace_unencodable,
)
from jdec.cli.supervision import RESTART, accept_supervision


class Command(NamedTuple):
    """A command: what it does, and where its function and its arguments are."""

    summary: str  # the first line of its help
    module: str  # of jdec.cli
    function: str
    arguments: str  # a class of jdec.cli.arguments
    compiles: bool = True


COMMANDS = {
    "fit": Command(
        "Cluster a data set; write labels, model, metrics and figures to a directory.",
        *("fit_commands", "run_fit", "Fit"),
    ),
    "sweep": Command(
        "Cluster a data set many times at once, and select a fit without labels.",
        *("sweep_commands", "run_sweep_command", "Sweep"),
    ),
    "predict": Command(
        "Assign rows to the clusters of a finished run.",
        *("model_commands", "run_predict", "Predict"),
    ),
    "evaluate": Command(
        "Compare the clusters of a finished run with the classes of a data set.",
        *("model_commands", "run_evaluate", "Evaluate"),
    ),
    "bench": Command(
        "Measure this machine: peak, bandwidth, steps, members at once, time to accuracy.",
        *("bench_command", "run_bench", "Bench", False),  # what it compiles is timed
    ),
    "datasets": Command(
        "List the named data sets, or download one.",
        *("info_commands", "run_datasets", "Datasets", False),
    ),
    "info": Command(
        "Show versions, devices and directories.",
        *("info_commands", "run_info", "Info", False),
    ),
}
_AFTER_INTERRUPT = dict.fromkeys(("fit", "sweep"), "; rerun with --resume to continue")


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command, by default that of the process, as :func:`jdec.cli.main` does."""
    replace_unencodable()
    is_process = argv is None
    argv = list(sys.argv[1:] if argv is None else argv)
    if is_process:
        accept_supervision()
    try:
        with plain_warnings(), flushed_output():
            return _run(argv, is_process)
    except UsageError as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt:
        print_error(f"interrupted{_AFTER_INTERRUPT.get(next(iter(argv), ''), '')}")
        return 130
    except BrokenPipeError:
        return 0  # the reader of our output closed it: not an error
    except (ValueError, OSError, ImportError, MemoryError) as error:
        return _stop(str(error) or type(error).__name__)
    except Exception as error:
        import jax

        from jdec.trainer.run import NotFiniteError

        if isinstance(error, NotFiniteError):
            return _stop(str(error))
        if isinstance(error, jax.errors.JaxRuntimeError):
            return _stop(_explain(str(error), jax.process_count()))
        raise


def _run(argv: list[str], is_process: bool) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    name = argv[0]
    if name == "--version":
        print(f"jdec {version('jdec')}")
        return 0
    if name not in COMMANDS:
        raise UsageError(f"unknown command {name!r}; expected one of {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    function = getattr(importlib.import_module(f"jdec.cli.{command.module}"), command.function)
    if is_process and command.compiles:
        from jdec.trainer.compilation import enable_compilation_cache

        enable_compilation_cache()
    if name == "fit":  # which parses them twice
        function(argv)
    else:
        from jdec.cli import arguments
        from jdec.cli.parsing import parse

        function(parse(getattr(arguments, command.arguments), argv))
    return 0


def _usage() -> str:
    lines = ["usage: jdec COMMAND …   (options: jdec COMMAND --help)", ""]
    lines += [f"  {name:9} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", "  jdec fit digits --out runs/digits"])


def _explain(message: str, n_processes: int) -> str:
    """Return an error of the runtime as one line, with what to do."""
    first = message.strip().splitlines()[0]
    if "RESOURCE_EXHAUSTED" in message or "out of memory" in message.lower():
        return (
            "out of memory on the device; use smaller batches, a smaller network, --devices, or "
            f"fewer members at once ({first[:200]})"
        )
    return f"{RESTART} ({first[:200]})" if n_processes > 1 else f"JAX: {first[:300]}"


def _stop(message: str) -> int:
    print_error(message)
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        # A regular exit would wait for processes that wait for this one.
        sys.stderr.flush()
        os._exit(1)
    return 1
