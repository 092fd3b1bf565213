"""Writing files so that nothing half-written ever stands under a final name."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``, and rename it there once all has been written.

    Args:
        path: Final name; its folder must exist.
        mode: ``wb`` or ``w``.

    Yields:
        The open file.

    Examples:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(f"{folder}/a.txt", "w") as file:
        ...         _ = file.write("whole")
        ...     Path(f"{folder}/a.txt").read_text()
        'whole'
    """
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"
        )
    except OSError as error:  # it names the temporary file, of which the caller knows nothing
        raise type(error)(error.errno, error.strerror, str(path)) from None
    try:
        with os.fdopen(handle, mode) as file:
            yield file
        # mkstemp's files are private; a result is as readable as any other file of the user's.
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | Path, values: Any) -> None:
    """Write JSON, whole or not at all."""
    with atomic_write(path, "w") as file:
        file.write(json.dumps(values, indent=2) + "\n")


def write_json_lines(path: str | Path, records: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, all lines or none."""
    with atomic_write(path, "w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
