"""Work directories: whose they are, what they are a run of, and who is at work in them."""

import contextlib
import datetime
import errno
import hashlib
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from jdec._checks import as_path
from jdec._io import in_a_line, read_json, remove_temporaries, try_lock
from jdec.trainer.config import Config

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
    of a run that was killed are removed. A lock does not outlive its process.

    Args:
        path: The folder. A thread that holds it may take it once more.

    Raises:
        ValueError: If another holds it (says who), or it is no folder that can be written to.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, lock_folder(folder):
        ...     with lock_folder(folder):
        ...         print("the same thread")
        the same thread
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
            logger.warning(
                "%s cannot be locked (%s): see to it that no other run uses it",
                path.parent,
                error.strerror,
            )
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


def check_no_other_files(folder: str | Path, record: str = "run.json") -> None:
    """Refuse a folder whose files are not of a run, but have names that a run writes to.

    Args:
        folder: Where results are to go; need not exist.
        record: The file that every run leaves there first.

    Raises:
        ValueError: Names the files.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "labels.npy").touch()
        ...     check_no_other_files(folder)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: workdir: /... holds labels.npy but no run.json, so they are not of a run ...
    """
    folder = as_path("workdir", folder)
    found = [name for name in RESULT_FILES if os.path.lexists(folder / name)]
    if found and record not in found:
        raise ValueError(
            f"workdir: {folder} holds {', '.join(found)} but no {record}, so they are not of a run "
            "and would be overwritten; choose another folder"
        )


@contextlib.contextmanager
def explained_writing() -> Iterator[None]:
    """Turn a failure to write into one line that says how to go on.

    Raises:
        ValueError: For an OSError within.
    """
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


def digest(tree: PyTree) -> str:
    """Return the SHA256 of the arrays of a pytree, their names, shapes and dtypes.

    Examples:
        >>> digest(np.zeros(2)) == digest(np.zeros(2)), digest(np.zeros(2)) == digest(np.zeros(3))
        (True, False)
    """
    result = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        result.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        result.update(array.data)
    return result.hexdigest()


def rows_digest(rows: np.ndarray, first_row: int) -> np.ndarray:
    """Return a digest of a part of a matrix; those of all parts add up to that of the whole.

    However rows are shared out among processes, the sum (modulo 2⁶⁴) is the same.

    Args:
        rows: Rows of any real dtype, [n D]; only their values matter.
        first_row: Index of the first of them in the whole.

    Returns:
        Two numbers, uint64 [2].

    Examples:
        >>> x = np.arange(6, dtype=np.float32).reshape(3, 2)
        >>> parts = rows_digest(x[:1], 0) + rows_digest(x[1:], 1)
        >>> np.array_equal(parts, rows_digest(x, 0))
        True
    """
    weights = np.random.default_rng(0).integers(1, 2**63, (rows.shape[1], 2), np.uint64) * 2 + 1
    total = np.zeros(2, np.uint64)
    for start in range(0, len(rows), 4096):
        block = np.ascontiguousarray(rows[start : start + 4096], np.float64).view(np.uint64)
        block = block ^ (block >> np.uint64(32))  # numbers of few digits have zeros at their end
        # The constants of SplitMix64, so that rows in another order give another sum.
        index = np.arange(len(block), dtype=np.uint64) + np.uint64(first_row + start + 1)
        mixed = index * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = mixed ^ (mixed >> np.uint64(27))
        values = block @ weights
        total += ((values ^ (values >> np.uint64(31))) * (mixed | np.uint64(1))[:, None]).sum(0)
    return total


def sampled_digest(x: Any, *, max_bytes: int = 2**28, n_sample: int = 4096) -> str:
    """Return a digest of rows, [N D]; of a large ``x``, of its shape and a sample of its rows.

    Args:
        x: Anything with rows, as a memory-mapped file; bad values are not looked for.
        max_bytes: Up to this size all rows count.
        n_sample: How many, evenly over all, count beyond it.

    Examples:
        >>> x = np.arange(6.0).reshape(3, 2)
        >>> sampled_digest(x) == sampled_digest(x.copy()), sampled_digest(x) == sampled_digest(-x)
        (True, False)
    """
    if not hasattr(x, "nbytes"):
        x = np.asarray(x)
    if x.nbytes > max_bytes:
        x = x[np.linspace(0, len(x) - 1, n_sample).astype(int)]
    return digest([np.asarray(x), np.array(np.shape(x))])


def fingerprint(key: Key[Array, ""], config: Config, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what determines a run, as plain JSON values.

    Args:
        key: Typed random key of the run.
        config: Its configuration.
        data: Name to plain value, or to arrays that are replaced by their digest.

    Returns:
        ``{"config": …, "data": …, "key": …, "jax": …}``.
    """
    return {
        "config": config.to_dict(),
        "data": {name: _plain(value) for name, value in data.items() if value is not None},
        "key": [str(jax.random.key_impl(key)), *jax.random.key_data(key).tolist()],
        # Under other ones the same run has other numbers.
        "jax": {
            name: getattr(jax.config, name)
            for name in ("jax_enable_x64", "jax_threefry_partitionable")
        },
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        # A long one would make the record too large to be read.
        text = json.dumps(value)
        return list(value) if len(text) < 2**16 else hashlib.sha256(text.encode()).hexdigest()
    return value if isinstance(value, int | str) else digest(value)


def check_same_run(record: Path, mine: Mapping[str, Any], resume: bool) -> None:
    """Refuse a work directory that holds another run.

    Args:
        record: Its run.json.
        mine: From :func:`fingerprint`.
        resume: Whether going on with it was asked for.

    Raises:
        ValueError: If not, or if the two runs differ: says in what.
    """
    workdir = record.parent
    if not resume:
        raise ValueError(
            f"workdir: {workdir} already holds a run; resume it, or choose another folder"
        )
    try:
        theirs = read_json(record)
        differences = Config.from_dict(theirs["config"]).differences(
            Config.from_dict(mine["config"])
        )
        for part, title in (("data", "data "), ("jax", "")):
            differences += [
                f"{title}{name}: {theirs[part].get(name)} against {mine[part].get(name)}"
                for name in dict.fromkeys([*theirs[part], *mine[part]])
                if theirs[part].get(name) != mine[part].get(name)
            ]
        if theirs["key"] != mine["key"]:
            differences.append(f"random key: {theirs['key']} against {mine['key']}")
    except Exception as error:  # whatever a damaged file makes of its reader
        raise ValueError(f"workdir: cannot read {record}: {in_a_line(error)}") from error
    if differences:
        raise ValueError(
            f"workdir: {workdir} holds a run that differs from this one in "
            + "; ".join(map(in_a_line, differences[:50]))
        )
