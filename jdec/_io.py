"""Atomic file writes (temporary file + rename), locks, and JSON that is not trusted."""

import contextlib
import errno
import glob
import json
import math
import os
import secrets
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: A JSON file may have this many bytes; parsed, it takes up to 40 times as much.
MAX_JSON_SIZE = 2**22

_TEMPORARY = ".tmp"
_LOCKED_BYTE = 2**30


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``, and rename it there once all is on disk.

    File and folder are synced, so that a power cut leaves the old content or the new one. Temporary
    files that killed processes left of the same file are removed. Text is written as UTF-8.
    """
    path = Path(path).expanduser()
    temporary = path
    try:
        while True:
            # Named before it is made: an interrupt may arrive as soon as it is there.
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
            handle = _create_locked(temporary)
            if handle is not None:
                break
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            remove_temporaries(path.parent, [glob.escape(path.name)])
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform != "win32":  # while it is locked; there an open file keeps its name
                temporary.replace(path)
        if sys.platform == "win32":
            temporary.replace(path)
    except BaseException as error:
        if temporary != path:
            with contextlib.suppress(OSError):  # it was never made
                temporary.unlink()
        # The caller does not know of the temporary file.
        if isinstance(error, OSError) and error.filename in (None, temporary, str(temporary)):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise
    with contextlib.suppress(OSError):  # Windows, and some network file systems
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _create_locked(path: Path) -> int | None:
    """Create a file and lock it: those of killed processes are not locked. None if it is taken."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags, 0o666)
    except FileExistsError:
        return None
    try:
        is_ours = try_lock(handle)
    except OSError:  # the file system has no locks
        return handle
    # Before it was locked, another writer may have removed it as left over.
    if is_ours and path.exists():
        return handle
    os.close(handle)
    return None


def try_lock(handle: int) -> bool:
    """Lock an open file until it is closed; return False if it is locked already.

    A file opened twice can be locked once, even by the same process. Raises an OSError where the
    file system has no locks.
    """
    try:
        if sys.platform == "win32":
            # Beyond the content, which others may read.
            os.lseek(handle, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def remove_temporaries(folder: Path, patterns: Collection[str]) -> None:
    """Delete what killed processes left of :func:`atomic_write` to names of these glob patterns."""
    for pattern in patterns:
        for path in folder.glob(f".{pattern}.*{_TEMPORARY}"):
            # A locked one is being written; without locks, there is no way to know.
            with contextlib.suppress(OSError), path.open("r+b", buffering=0) as file:
                if try_lock(file.fileno()):
                    path.unlink()


def write_json(path: str | Path, values: Any) -> None:
    """Write JSON atomically; numbers that are not finite become null."""
    with atomic_write(path, "w") as file:
        file.write(json.dumps(_finite(values), indent=2, allow_nan=False) + "\n")


def write_json_lines(path: str | Path, records: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, as :func:`write_json`."""
    with atomic_write(path, "w") as file:
        file.writelines(json.dumps(_finite(record), allow_nan=False) + "\n" for record in records)


def _finite(values: Any) -> Any:
    # NaN and infinity are Python's extension of JSON, which most other readers reject.
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, Mapping):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return values


def parse_json(text: str) -> Any:
    """Read JSON text; whatever is wrong with it is a ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("expected JSON, got text that is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"expected JSON, got an error: {error}") from error


def read_json(path: str | Path, *, max_size: int = MAX_JSON_SIZE) -> Any:
    """Read a JSON file of at most ``max_size`` bytes."""
    with open_file(Path(path).expanduser()) as file:
        content = file.read(max_size + 1)
    if len(content) > max_size:
        raise ValueError(f"expected JSON of at most {max_size} bytes, got more")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"expected JSON in UTF-8, got an error: {error}") from error
    return parse_json(text)


def open_file(path: Path) -> IO[bytes]:
    """Open a file to read bytes from, or raise a ValueError where it is a pipe."""
    if path.is_fifo():  # which may wait forever for who writes into it
        raise ValueError("expected a file, got a pipe")
    return path.open("rb")
