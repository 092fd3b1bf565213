"""Checkpoints of a running fit: one file each, written whole or not at all, checked when read."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from jdec._archives import read_npz, write_npz
from jdec._checks import in_a_line
from jdec._io import atomic_write, parse_json, remove_temporaries

logger = logging.getLogger(__name__)

_FORMAT = "jdec checkpoint 1"
_PATTERN = "[0-9]*.npz"
# No path in a pytree begins with a letter.
_HEADER, _DIGEST = "header", "sha256"


class Restored(NamedTuple):
    """A checkpoint as it was saved."""

    step: int
    tree: PyTree
    metadata: dict[str, Any]


class Checkpoints:
    """The checkpoints in one directory, numbered; the newest are kept, as a damaged one may be.

    One is an .npz file of the leaves by their path in the pytree, of a header of JSON, and of a
    SHA256 over both. It is on disk when :meth:`save` returns.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoints = Checkpoints(folder)
        ...     checkpoints.save(1, {"w": np.ones(2, np.float32)}, {"phase": "finetune"})
        ...     checkpoints.latest(lambda metadata: {"w": np.zeros(2, np.float32)})
        Restored(step=1, tree={'w': array([1., 1.], dtype=float32)}, metadata={'phase': 'finetune'})
    """

    def __init__(self, directory: str | Path, *, keep: int = 2) -> None:
        self.directory = Path(directory).expanduser().absolute()
        self.keep = keep
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            remove_temporaries(self.directory, [_PATTERN])
            probe = self.directory / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ValueError(
                f"workdir: expected a folder that can be written to, got {self.directory}: "
                f"{error.strerror}"
            ) from error

    def save(self, step: int, tree: PyTree, metadata: Mapping[str, Any]) -> None:
        """Write arrays, typed random keys among them, and JSON metadata under a number.

        An OSError, as of a full disk, leaves the checkpoints before it as they are.
        """
        leaves = _named_leaves(tree)
        keys = {name: leaf for name, leaf in leaves.items() if _is_key(leaf)}
        arrays = {name: _plain(leaf) for name, leaf in leaves.items()}
        header = json.dumps(
            {
                "format": _FORMAT,
                "metadata": metadata,
                "dtypes": {name: str(leaf.dtype) for name, leaf in leaves.items()},
                "keys": {name: str(jax.random.key_impl(key)) for name, key in keys.items()},
            }
        ).encode()
        members: dict[str, Any] = {_HEADER: np.frombuffer(header, np.uint8)}
        members[_DIGEST] = _digest(header, arrays)
        # Somebody may have removed it to make room.
        self.directory.mkdir(exist_ok=True)
        with atomic_write(self._path(step)) as file:
            write_npz(file, members | arrays)
        for number in self._numbers()[self.keep :]:
            self._path(number).unlink(missing_ok=True)

    def latest(self, template: Callable[[dict[str, Any]], PyTree]) -> Restored | None:
        """Restore the newest checkpoint that is intact; None if there is none.

        A damaged one is named in a warning of the log, and the one before is tried. ``template``
        makes of its metadata a pytree of the structure, shapes and dtypes that were saved.
        """
        numbers = self._numbers()
        for index, number in enumerate(numbers):
            path = self._path(number)
            try:
                header, arrays = _read(path)
            except ValueError as error:
                reason = in_a_line(error)
                logger.warning("checkpoint %s is damaged and is not used: %s", path, reason)
                continue
            except OSError as error:
                raise ValueError(
                    f"workdir: cannot read checkpoint {path}: {error.strerror}"
                ) from error
            tree = _in_form(path, header, arrays, template(header["metadata"]))
            # The next ones to be saved take their numbers.
            for damaged in numbers[:index]:
                self._path(damaged).unlink(missing_ok=True)
            return Restored(number, tree, header["metadata"])
        if numbers:
            raise ValueError(
                f"workdir: expected a readable checkpoint in {self.directory}, got only damaged "
                f"ones ({', '.join(map(str, numbers))}); start again in another folder"
            )
        return None

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:08d}.npz"

    def _numbers(self) -> list[int]:
        """Return the numbers of all checkpoints, the newest first."""
        names = [path.stem for path in self.directory.glob(_PATTERN)]
        numbers = {int(name) for name in names if name.isdecimal()}
        return sorted((n for n in numbers if self._path(n).exists()), reverse=True)


def _in_form(
    path: Path, header: Mapping[str, Any], arrays: Mapping[str, Any], template: PyTree
) -> PyTree:
    """Put arrays into the pytree of a template, if they are those that it has."""
    wanted = _named_leaves(template)
    shapes = {name: jax.eval_shape(_data_of, leaf).shape for name, leaf in wanted.items()}
    expected = {name: f"{leaf.dtype} {shapes[name]}" for name, leaf in wanted.items()}
    got = {name: f"{header['dtypes'][name]} {array.shape}" for name, array in arrays.items()}
    if expected != got:
        name = next(n for n in [*expected, *got] if expected.get(n) != got.get(n))
        raise ValueError(
            f"workdir: checkpoint {path} is of another program: expected "
            f"{expected.get(name, 'nothing')} in {name}, got {got.get(name, 'nothing')}; "
            "start again in another folder"
        )
    leaves = [
        jax.random.wrap_key_data(arrays[name], impl=header["keys"][name])
        if name in header["keys"]
        else arrays[name].view(leaf.dtype)
        for name, leaf in wanted.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _named_leaves(tree: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data_of(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _plain(leaf: Any) -> Any:
    """Return a leaf as an array of a dtype that .npy files know."""
    array = np.asarray(_data_of(leaf))
    # bfloat16 and its like are bits to NumPy.
    return array if array.dtype.kind in "biufc" else array.view(f"u{array.dtype.itemsize}")


def _digest(header: bytes, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    digest = hashlib.sha256(header)
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return np.frombuffer(digest.digest(), np.uint8)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header and the arrays of a checkpoint, or a ValueError if it is damaged."""
    arrays = read_npz(path, compressed=False)
    if not {_HEADER, _DIGEST} <= arrays.keys():
        raise ValueError("it lacks its header or its digest")
    header, digest = arrays.pop(_HEADER).tobytes(), arrays.pop(_DIGEST)
    if not np.array_equal(digest, _digest(header, arrays)):
        raise ValueError("its content does not match the digest saved with it")
    return parse_json(header.decode()), arrays
