"""Work directories: files of other programs in them, locks, and failures to write."""

import contextlib
import datetime
import errno
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from jdec._checks import as_path
from jdec._io import read_json, remove_temporaries, try_lock

logger = logging.getLogger(__name__)

#: Every name under which a command leaves something in its folder.
RESULT_FILES = (
    *("run.json", "config.json", "checkpoints", "history.jsonl", "metrics.json", "model.npz"),
    *("labels.npy", "soft_assignment.npy", "embedding.npy", "centroids.npy", "consensus.npy"),
    *("embedding.png", "history.png", "top_samples.png", "sweep.png"),
    *("sweep.json", "members.csv", "settings.csv"),
)

_LOCK = ".jdec.lock"
# Process, thread and folder: a thread may take again what it holds, as a command and its fit do.
_held: set[tuple[int, int, str]] = set()


@contextlib.contextmanager
def lock_folder(path: str | Path) -> Iterator[None]:
    """Keep every other process and thread that asks out of a folder.

    The folder is made if need be, and goes again if nothing was put into it. Half-written results
    of a run that was killed are removed. A lock does not outlive its process, and a thread that
    holds it may take it once more.
    """
    folder = as_path("workdir", path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"workdir: expected a folder, got the file {folder}")
    holder = (os.getpid(), threading.get_ident(), os.path.realpath(folder))
    if holder in _held:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_folder(folder))
            stack.enter_context(_lock(folder))
            remove_temporaries(folder, RESULT_FILES)
        except OSError as error:
            raise ValueError(
                f"workdir: expected a folder that can be written to, got {folder}: {error.strerror}"
            ) from error
        _held.add(holder)
        stack.callback(_held.discard, holder)
        yield


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for place in missing:
            with contextlib.suppress(OSError):  # it is no longer empty, or was never made
                place.rmdir()


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    path = folder / _LOCK
    handle = _acquire(path)
    try:
        yield
    finally:
        # While it is locked: whoever has opened this file and locks it next finds it gone.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _acquire(path: Path) -> int:
    """Return an open lock file that is ours."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            is_ours = try_lock(handle)
        except OSError as error:
            message = "%s cannot be locked (%s): see to it that no other run uses it"
            logger.warning(message, path.parent, error.strerror)
            return handle
        if not is_ours:
            os.close(handle)
            raise ValueError(
                f"workdir: {path.parent} is in use by {_holder(path)}; wait for it to end, or "
                "choose another folder"
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        os.close(handle)
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
    }
    with contextlib.suppress(OSError):  # the lock holds on a full disk as well
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(about).encode())
    return handle


def _holder(path: Path) -> str:
    try:
        about = read_json(path, max_size=1000)
        return f"process {about['pid']} on {about['host']} since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it has only just begun
        return "another process"


def check_no_other_files(folder: str | Path) -> None:
    """Raise for a folder with files of names that a run writes to, and no record of a run."""
    folder = as_path("workdir", folder)
    found = [name for name in RESULT_FILES if os.path.lexists(folder / name)]
    if found and "run.json" not in found:
        raise ValueError(
            f"workdir: {folder} holds {', '.join(found)} but no run.json, so they are not of a run "
            "and would be overwritten; choose another folder"
        )


@contextlib.contextmanager
def explained_writing() -> Iterator[None]:
    """Turn an OSError within into a ValueError of one line that says how to go on."""
    try:
        yield
    except OSError as error:
        what = " checkpoint" if str(error.filename).endswith(".npz") else ""
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            todo = "what was there before still is; make room, then resume"
        elif error.errno == errno.ENOENT:
            todo = "its folder was removed"
        else:
            todo = "resume once it can be written to"
        raise ValueError(
            f"workdir: cannot write{what} {error.filename}: {error.strerror}; {todo}"
        ) from error
