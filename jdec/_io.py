"""Files: written whole and durably or not at all, and read only after a look at their size.

What comes from outside is not trusted: JSON may be nested until the parser gives up, an archive of
some megabytes may unpack to gigabytes, an array may hold objects. All of it is a ValueError here.
"""

import contextlib
import errno
import glob
import json
import math
import os
import secrets
import sys
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: An archive may unpack to this many bytes whatever its size, and else to so many times its size.
MIN_UNPACKED_LIMIT = 2**27
MAX_UNPACKED_RATIO = 24

#: A JSON file may have this many bytes; parsed, it takes up to 40 times as much.
MAX_JSON_SIZE = 2**22

_TEMPORARY = ".tmp"
_LOCKED_BYTE = 2**30


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``, and rename it there once all is on disk.

    File and folder are synced, so that a power cut leaves the old content or the new one. What a
    process that was killed has left of the same file is removed.

    Args:
        path: Final name; its folder must exist.
        mode: ``wb`` or ``w`` (UTF-8).

    Yields:
        The open file.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(f"{folder}/a.txt", "w") as file:
        ...         _ = file.write("whole")
        ...     Path(f"{folder}/a.txt").read_text()
        'whole'
    """
    path = Path(path).expanduser()
    temporary = path
    try:
        handle, temporary = _open_temporary(path)
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
            temporary.unlink(missing_ok=True)
        # The temporary file is nothing that the caller knows of.
        if isinstance(error, OSError) and error.filename in (None, temporary, str(temporary)):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise
    sync_folder(path.parent)


def _open_temporary(path: Path) -> tuple[int, Path]:
    """Create a file beside a path, and lock it, which tells it from what a killed process left."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            handle = os.open(temporary, flags, 0o666)
        except FileExistsError:
            continue
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(path)) from None
        try:
            is_ours = try_lock(handle)
        except OSError:  # the file system knows no locks
            return handle, temporary
        # Another writer may have taken it for left over before it was locked.
        if is_ours and temporary.exists():
            return handle, temporary
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder reach the disk, where the system can do that."""
    with contextlib.suppress(OSError):  # Windows, and some network file systems
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def try_lock(handle: int) -> bool:
    """Lock an open file for as long as it is open, unless it is locked already.

    Args:
        handle: Its file descriptor. A file opened twice can be locked once, whoever opened it.

    Returns:
        Whether the lock was had.

    Raises:
        OSError: If the file system knows no locks.
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
    """Delete what :func:`atomic_write` left of files of these names when it was killed.

    Args:
        folder: Where to look.
        patterns: Names, or patterns of them as the shell has them.
    """
    for pattern in patterns:
        for path in folder.glob(f".{pattern}.*{_TEMPORARY}"):
            # One that is locked is being written; where there are no locks, none can be told.
            with contextlib.suppress(OSError):
                handle = os.open(path, os.O_RDWR)
                try:
                    if try_lock(handle):
                        path.unlink()
                finally:
                    os.close(handle)


def write_json(path: str | Path, values: Any) -> None:
    """Write JSON, whole or not at all; numbers that are not finite become null.

    Raises:
        OSError: If the file cannot be written.
    """
    with atomic_write(path, "w") as file:
        file.write(json.dumps(_finite(values), indent=2, allow_nan=False) + "\n")


def write_json_lines(path: str | Path, records: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, all lines or none; as :func:`write_json`."""
    with atomic_write(path, "w") as file:
        file.writelines(json.dumps(_finite(record), allow_nan=False) + "\n" for record in records)


def _finite(values: Any) -> Any:
    # NaN and infinity are Python's extension of JSON, which most other readers refuse.
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, Mapping):
        return {name: _finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return values


def parse_json(text: str) -> Any:
    """Read JSON text.

    Raises:
        ValueError: If it is none, is nested too deeply, or holds an integer of thousands of digits.

    Examples:
        >>> parse_json('{"k": 3}')
        {'k': 3}
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("expected JSON, got text that is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"expected JSON, got an error: {error}") from error


def read_json(path: str | Path, *, max_size: int = MAX_JSON_SIZE) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        max_size: Bytes that it may have.

    Raises:
        ValueError: As :func:`parse_json`, or if the file is no UTF-8 text or too large.
        OSError: If it cannot be read.
    """
    with _open_file(Path(path).expanduser()) as file:
        content = file.read(max_size + 1)
    if len(content) > max_size:
        raise ValueError(f"expected JSON of at most {max_size} bytes, got more")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"expected JSON in UTF-8, got an error: {error}") from error
    return parse_json(text)


def _open_file(path: Path) -> IO[bytes]:
    if path.is_fifo():  # which may wait forever for who writes into it
        raise ValueError("expected a file, got a pipe")
    return path.open("rb")


def in_a_line(value: object, limit: int = 300) -> str:
    r"""Return what foreign text or an exception says, cut to a line for an error message.

    Examples:
        >>> in_a_line("two\n  lines"), in_a_line(KeyError()), in_a_line("long" * 9, 6)
        ('two lines', 'KeyError', 'longlo…')
    """
    text = " ".join(str(value).split()) or type(value).__name__
    return text if len(text) <= limit else f"{text[:limit]}…"


# Archives ----------------------------------------------------------------------------------------


class ArrayHeader(NamedTuple):
    """What an archive declares of one of its arrays."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    n_bytes: int


def unpacked_limit(size: int) -> int:
    """Return how many bytes a compressed file of ``size`` bytes may unpack to.

    Examples:
        >>> unpacked_limit(1000) == 2**27, unpacked_limit(10**8)
        (True, 2400000000)
    """
    return max(MIN_UNPACKED_LIMIT, MAX_UNPACKED_RATIO * size)


def npz_headers(path: Path, *, compressed: bool = True) -> dict[str, ArrayHeader]:
    """Read what an .npz archive declares of its arrays, and refuse what it must not hold.

    Args:
        path: The archive.
        compressed: Whether its arrays may be compressed. If not, they cannot be larger than the
            file; if so, together at most :func:`unpacked_limit`.

    Returns:
        Name to shape, dtype and bytes.

    Raises:
        ValueError: If the file is no archive of arrays, an array holds objects, a header does not
            fit its data, or the sizes are beyond the limit.
        OSError: If it cannot be read.
    """
    headers: dict[str, ArrayHeader] = {}
    size = path.stat().st_size
    limit = unpacked_limit(size) if compressed else size
    with _archive(path) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > limit:
            raise ValueError(
                f"expected an archive that unpacks to at most {limit} bytes, "
                f"got {total} from a file of {size}; store a larger array as .npy"
            )
        end = 0
        for member in sorted(members, key=lambda member: member.header_offset):
            if member.header_offset < end:
                raise ValueError(f"expected arrays apart, got {member.filename!r} within another")
            end = member.header_offset + len(member.filename) + member.compress_size
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename or name in headers:
                raise ValueError(f"expected arrays of different names, got {member.filename!r}")
            if not compressed and member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"expected arrays that are not compressed, got {name!r}")
            headers[name] = _read_header(archive, member)
    return headers


def read_npz(
    path: Path, names: Collection[str] | None = None, *, compressed: bool = True
) -> dict[str, np.ndarray]:
    """Read arrays of an .npz archive, once its headers have been looked at.

    Args:
        path: The archive.
        names: Which arrays; all by default. One that is not there is left out.
        compressed: As in :func:`npz_headers`.

    Returns:
        Name to array.

    Raises:
        ValueError: As :func:`npz_headers`, or if the data is damaged.
        OSError: If it cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/a.npz", x=np.arange(3))
        ...     read_npz(Path(folder, "a.npz"))
        {'x': array([0, 1, 2])}
    """
    headers = npz_headers(path, compressed=compressed)
    wanted = [name for name in headers if names is None or name in names]
    arrays = {}
    with _archive(path) as archive:
        for name in wanted:
            with archive.open(f"{name}.npy") as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> ArrayHeader:
    name = member.filename.removesuffix(".npy")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"expected an array in {name!r}, got format version {version}")
        # Version 3 differs from 2 in the encoding of field names alone, and those are refused.
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
        start = file.tell()
    if dtype.hasobject:
        raise ValueError(f"expected numbers or text in {name!r}, got objects; none are unpickled")
    if dtype.names is not None or dtype.kind not in "biufcSUmM":
        raise ValueError(f"expected numbers or text in {name!r}, got dtype {dtype}")
    n_bytes = math.prod(int(size) for size in shape) * dtype.itemsize
    if any(size < 0 for size in shape) or start + n_bytes != member.file_size:
        raise ValueError(
            f"expected {n_bytes} bytes in {name!r} as its header says, "
            f"got {member.file_size - start}"
        )
    return ArrayHeader(tuple(shape), dtype, n_bytes)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    # A damaged archive makes zipfile, zlib and NumPy raise a dozen unrelated types.
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_open_file(path))
        try:
            yield stack.enter_context(zipfile.ZipFile(file))
        except ValueError:
            raise
        except Exception as error:
            # Data that leads to a place before the beginning of the file is an OSError as well.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            raise ValueError(
                f"expected an intact archive, got an error: {in_a_line(error)}"
            ) from error
