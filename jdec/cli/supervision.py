"""Supervises a process of a multi-process run, and reports in one line why it ended.

When process 0 is gone, JAX kills the other processes by a signal, with a stack dump, and they
cannot prevent it. So the command runs in a child process whose low-level messages go to a file, and
the parent turns its end into an exit code and one line.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from types import FrameType

#: What to do when another process of a run is gone.
RESTART = (
    "another process of this run has stopped or cannot be reached; restart all processes with "
    "--resume"
)

_MARK = "JDEC_SUPERVISED"
_LOG_TAIL = 2**16  # bytes
_OPTIONS = ("--coordinator", "--num-processes", "--process-id", "--distributed")


def wants_supervision(argv: Sequence[str]) -> bool:
    """Whether a command line is that of a multi-process run and is not supervised yet."""
    names = {argument.partition("=")[0].replace("_", "-") for argument in argv}
    return os.name == "posix" and _MARK not in os.environ and not names.isdisjoint(_OPTIONS)


def supervise(argv: Sequence[str]) -> int:
    """Run a command line in a child process, forward signals to it, and return its exit code.

    If a signal ended it that was not forwarded, that is printed, and the code is 1.
    """
    lifeline, held = os.pipe()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as stack:
        child = subprocess.Popen(
            [sys.executable, "-m", "jdec", *argv],
            stderr=log,
            pass_fds=(lifeline, stderr),
            env=os.environ | {_MARK: f"{lifeline},{stderr}"},
            process_group=0,  # so that Ctrl-C reaches it once, through its parent
        )
        os.close(lifeline)
        os.close(stderr)
        stack.callback(os.close, held)

        def forward(number: int, _: FrameType | None) -> None:
            child.send_signal(number)

        forwarded = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in forwarded:
            stack.callback(signal.signal, number, signal.signal(number, forward))
        code = child.wait()
        if code >= 0:
            return code
        if -code in forwarded:
            return 128 - code
        log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL))
        reason = _reason(log.read().decode(errors="replace"))
    from jdec.cli.output import print_error  # which imports JAX

    name = signal.Signals(-code).name
    print_error(f"{RESTART} ({name}{f': {reason}' if reason else ''})")
    return 1


def accept_supervision() -> None:
    """In the child: write to the parent's stderr, and exit when the parent does."""
    mark = os.environ.pop(_MARK, None)
    if mark is None:
        return
    lifeline, stderr = map(int, mark.split(","))
    sys.stderr = os.fdopen(stderr, "w", buffering=1, errors="backslashreplace")

    def watch() -> None:
        os.read(lifeline, 1)  # nothing is ever written: returns when the parent is gone
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _reason(log: str) -> str:
    """Return the message of the last error in a log of JAX's runtime."""
    fatal, others = (re.findall(rf"^{kind}\d{{4}} .*?\] (.*)$", log, re.MULTILINE) for kind in "FE")
    message = " ".join((fatal or others or [""])[-1].split())
    return message.partition(". ")[0][:200]
