"""Cache of results that are computed from files."""

import hashlib
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import platformdirs

from jdec._io import atomic_write

_LOGGER = logging.getLogger("jdec")
_Value = TypeVar("_Value")

# A file ends with this and the digest of everything before it.
_MARK = b"jdec-blake2b\n"
_DIGEST_BYTES = 32


def cached(
    name: str,
    suffix: str,
    digests: Sequence[str],
    settings: Mapping[str, Any],
    compute: Callable[[], _Value],
    save: Callable[[IO[bytes], _Value], None],
    read: Callable[[Path], _Value],
) -> _Value:
    """Read the result of an earlier call on the same bytes and settings, else compute it.

    The bytes are those of the files that ``digests`` are of. The result is kept in the folder
    ``features`` of the user's cache, with a digest that is compared at every reading: a damaged
    file is computed again. A folder that cannot be written costs a computation each time. Both are
    logged as warnings. ``save`` must write from beginning to end.
    """
    key = "\n".join([json.dumps(settings, sort_keys=True), *digests])
    key = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    path = platformdirs.user_cache_path("jdec") / "features" / f"{name}-{key}{suffix}"
    try:
        _check(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        _LOGGER.warning("%s: damaged, computed again: %s", path, error)
    else:
        return read(path)
    result = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            hashed = _Hashed(file)
            save(cast(IO[bytes], hashed), result)
            file.write(_MARK + hashed.hash.digest())
    except OSError as error:
        _LOGGER.warning("%s: could not be cached: %s", path, error)
    else:
        _LOGGER.info("%s: cached in %s", name, path)
    return result


class _Hashed(io.RawIOBase):
    """A file that is written from beginning to end, and hashed meanwhile."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return self._file.write(data)


def _check(path: Path) -> None:
    with path.open("rb") as file:
        left = path.stat().st_size - len(_MARK) - _DIGEST_BYTES
        if left < 0:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        found = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        while block := file.read(min(left, 2**20)):
            found.update(block)
            left -= len(block)
        if left:
            raise ValueError("it is cut off")
        if file.read() != _MARK + found.digest():
            raise ValueError("its digest is not that of its content")
