"""A process of several under a parent, which says in a line what ended it.

JAX ends a process by a signal, with a stack dump, when process 0 of its run is gone; nothing within
that process can prevent it. So the command of such a process runs in a child, whose low-level
messages go to a file, and the parent turns its end into an exit code and one line.
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
from typing import Any

_MARK = "JDEC_SUPERVISED"
_LOG_TAIL = 2**16  # bytes
_OPTIONS = ("--coordinator", "--num-processes", "--process-id", "--distributed")


def wants_supervision(argv: Sequence[str]) -> bool:
    """Whether a command line is that of a process of several, and no child of ours yet.

    Examples:
        >>> wants_supervision(["fit", "x.npy", "--coordinator", "host:1234"])
        True
        >>> wants_supervision(["fit", "x.npy"])
        False
    """
    names = {argument.partition("=")[0].replace("_", "-") for argument in argv}
    return os.name == "posix" and _MARK not in os.environ and bool(names & {*_OPTIONS})


def supervise(argv: Sequence[str]) -> tuple[int, str]:
    """Run a command line in a child, and hand signals on to it.

    Args:
        argv: Arguments of ``jdec``.

    Returns:
        The child's exit code and an empty text; 1 and what to say, if a signal ended it.
    """
    lifeline, held = os.pipe()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as stack:
        child = subprocess.Popen(
            [sys.executable, "-m", "jdec", *argv],
            stderr=log,
            pass_fds=(lifeline, stderr),
            env=os.environ | {_MARK: f"{lifeline},{stderr}"},
            process_group=0,  # Ctrl-C then reaches it once, through its parent
        )
        os.close(lifeline)
        os.close(stderr)
        stack.callback(os.close, held)

        def hand_on(number: int, frame: FrameType | None) -> None:
            del frame
            child.send_signal(number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            stack.callback(signal.signal, number, signal.signal(number, hand_on))
        code = child.wait()
        if code >= 0:
            return code, ""
        if -code in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            return 128 - code, ""
        log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL))
        reason = _reason(log.read().decode(errors="replace"))
    name = signal.Signals(-code).name
    return 1, (
        "another process of this run has stopped, or cannot be reached; once all are started "
        f"again, --resume goes on ({name}{f': {reason}' if reason else ''})"
    )


def accept_supervision() -> None:
    """In a child: write to the parent's stderr, and end when the parent does."""
    mark = os.environ.pop(_MARK, None)
    if mark is None:
        return
    lifeline, stderr = map(int, mark.split(","))
    stream: Any = os.fdopen(stderr, "w", buffering=1, errors="backslashreplace")
    sys.stderr = stream

    def watch() -> None:
        os.read(lifeline, 1)  # nothing is ever written: it returns when the parent has gone
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _reason(log: str) -> str:
    """Return the message of the last error in a log of JAX's runtime."""
    found = re.findall(r"^[EF]\d{4} .*?\] (.*)$", log, re.MULTILINE)
    fatal = re.findall(r"^F\d{4} .*?\] (.*)$", log, re.MULTILINE)
    message = " ".join((fatal or found or [""])[-1].split())
    return message.partition(". ")[0][:200]
