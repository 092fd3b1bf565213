"""The command line: the table of commands, and how each of them ends."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import jax
import platformdirs

from jdec._environment import environment
from jdec.cli.arguments import Datasets, Evaluate, Fit, Info, Predict, Sweep
from jdec.cli.fit_commands import check_platform, run_fit, run_sweep_command
from jdec.cli.model_commands import run_evaluate, run_predict
from jdec.cli.output import flushed_output, plain_warnings, print_error, replace_unencodable
from jdec.cli.parsing import UsageError, parse
from jdec.cli.supervision import RESTART, accept_supervision
from jdec.datasets import dataset_table, download_dataset
from jdec.trainer.compilation import enable_compilation_cache
from jdec.trainer.presets import PRESETS
from jdec.trainer.run import NotFiniteError


def run_datasets(arguments: Datasets) -> None:
    """Run ``jdec datasets``."""
    if arguments.download is not None:
        folder = download_dataset(arguments.download, data_dir=arguments.data_dir, progress=True)
        print(f"{arguments.download}: in {folder}")
        return
    rows = dataset_table(arguments.data_dir)
    width = max(len(row.name) for row in rows)
    for row in rows:
        n_rows, n_features, n_classes = row.shape
        where = "not here"
        if row.built_in:
            where = "comes with scikit-learn"
        elif row.path is not None:
            where = str(row.path) + (f" ({row.variant})" if row.variant else "")
        elif row.downloadable:
            where += f"; jdec datasets --download {row.name}"
        print(
            f"{row.name:{width}}  {n_rows:>7} x {n_features:<5} {n_classes:>3} classes  {where}\n"
            f"{'':{width}}  {row.description}"
        )


def run_info(arguments: Info) -> None:
    """Run ``jdec info``."""
    del arguments
    check_platform()
    values = environment() | {
        "devices": ", ".join(map(str, jax.devices())),
        "data": os.environ.get("JDEC_DATA_DIR") or "(JDEC_DATA_DIR is not set)",
        "data cache": platformdirs.user_cache_path("jdec"),
        "presets": ", ".join(PRESETS),
    }
    for name, value in values.items():
        print(f"{name:12} {value}")


_COMMANDS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "fit": (Fit, run_fit),
    "sweep": (Sweep, run_sweep_command),
    "predict": (Predict, run_predict),
    "evaluate": (Evaluate, run_evaluate),
    "datasets": (Datasets, run_datasets),
    "info": (Info, run_info),
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
    except (ValueError, OSError, ImportError, MemoryError, NotFiniteError) as error:
        return _stop(str(error) or type(error).__name__)
    except jax.errors.JaxRuntimeError as error:
        return _stop(_explain(str(error)))


def _run(argv: list[str], is_process: bool) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0 if argv else 2
    name = argv[0]
    if name == "--version":
        print(f"jdec {version('jdec')}")
        return 0
    if name not in _COMMANDS:
        raise UsageError(f"unknown command {name!r}; expected one of {', '.join(_COMMANDS)}")
    arguments, command = _COMMANDS[name]
    if is_process and arguments not in (Datasets, Info):
        enable_compilation_cache()
    command(argv if arguments is Fit else parse(arguments, argv))
    return 0


def _usage() -> str:
    lines = ["usage: jdec COMMAND …   (options: jdec COMMAND --help)", ""]
    for name, (command, _) in _COMMANDS.items():
        lines.append(f"  {name:9} {(command.__doc__ or '').splitlines()[0]}")
    return "\n".join([*lines, "", "  jdec fit digits --out runs/digits"])


def _explain(message: str) -> str:
    """Return an error of the runtime as one line, with what to do."""
    first = message.strip().splitlines()[0]
    if "RESOURCE_EXHAUSTED" in message or "out of memory" in message.lower():
        return (
            "out of memory on the device; use smaller batches, a smaller network, --devices, or "
            f"fewer members at once ({first[:200]})"
        )
    return f"{RESTART} ({first[:200]})" if jax.process_count() > 1 else f"JAX: {first[:300]}"


def _stop(message: str) -> int:
    print_error(message)
    if jax.distributed.is_initialized():
        # A regular exit would wait for processes that wait for this one.
        sys.stderr.flush()
        os._exit(1)
    return 1
