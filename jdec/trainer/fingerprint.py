"""Run fingerprint: guards a work directory against a different run."""

import functools
import hashlib
import json
import re
import types
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.sparse
from jaxtyping import Array, Key, PyTree

from jdec._checks import in_a_line
from jdec._io import read_json
from jdec._sources import RowSource, SparseRows
from jdec.trainer.config import Config


def describe(part: Any) -> str:
    """Return a text for a network, function or optimizer that is the same in another process.

    Of a function it holds the name, the code and what the function closes over, so that optimizers
    that differ in a number differ in their texts.

    Examples:
        >>> describe(lambda x: 2 * x) == describe(lambda x: 3 * x)
        False
    """
    name = getattr(part, "__qualname__", None)
    if name is None:
        text = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(repr(part).split()))
        name = f"{type(part).__qualname__}({text})"[:2000]
    module = getattr(part, "__module__", type(part).__module__)
    return f"{module}.{name} #{hashlib.sha256(_inside(part, {}).encode()).hexdigest()[:16]}"


def _inside(part: Any, seen: dict[int, Any]) -> str:
    """Write out what a value is made of, each object once, without addresses."""
    if part is None or isinstance(part, bool | int | float | complex | str | bytes):
        return repr(part)
    if id(part) in seen:
        return "…"
    seen[id(part)] = part  # kept, so that no other object takes its number
    if isinstance(part, np.ndarray | np.generic | jax.Array):
        return digest(part)
    inner: Any = []
    if isinstance(part, Mapping):
        inner = [*part.keys(), *part.values()]
    elif isinstance(part, list | tuple | set | frozenset):
        inner = part
    elif isinstance(part, types.CodeType):
        # Names of globals and attributes, constants, instructions: not line numbers.
        inner = (part.co_code, part.co_names, part.co_consts)
    elif isinstance(part, functools.partial):
        inner = (part.func, part.args, part.keywords)
    elif isinstance(part, types.FunctionType):
        # A cell is empty as of a function that calls itself, not yet defined.
        filled = [cell for cell in part.__closure__ or () if cell != types.CellType()]
        cells = [cell.cell_contents for cell in filled]
        inner = (part.__code__, part.__defaults__, part.__kwdefaults__, cells)
    elif isinstance(part, types.MethodType):
        inner = (part.__func__, part.__self__)
    name = getattr(part, "__qualname__", type(part).__qualname__)
    return f"{name}({', '.join(_inside(value, seen) for value in inner)})"


def digest(tree: PyTree) -> str:
    """Return the SHA256 of the arrays of a pytree, their names, shapes and dtypes."""
    result = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        result.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        result.update(array.data)
    return result.hexdigest()


def rows_digest(rows: RowSource, first_row: int) -> np.ndarray:
    """Return a digest, uint64 [2], of the values of rows from ``first_row`` of a matrix on.

    Those of all parts of a matrix add up (modulo 2⁶⁴) to that of the whole, however processes share
    its rows.
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


def sampled_digest(x: Any) -> str:
    """Return a digest of the shape and rows of ``x``; beyond 256 MiB, of 4096 rows of it."""
    if scipy.sparse.issparse(x):
        x = SparseRows(scipy.sparse.csr_array(x))
    if not hasattr(x, "nbytes"):
        x = np.asarray(x)
    if x.nbytes > 2**28:
        x = x[np.linspace(0, len(x) - 1, 4096).astype(int)]
    values = x.parts if isinstance(x, SparseRows) else np.asarray(x)
    return digest([values, np.array(x.shape)])


# Under other ones the same run has other numbers.
_JAX_SETTINGS = ("jax_enable_x64", "jax_threefry_partitionable")


def fingerprint(key: Key[Array, ""], config: Config, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what determines a run, as plain JSON values: arrays in ``data`` by their digest."""
    return {
        "config": config.to_dict(),
        "data": {name: _plain(value) for name, value in data.items() if value is not None},
        "key": [str(jax.random.key_impl(key)), *jax.random.key_data(key).tolist()],
        "jax": {name: getattr(jax.config, name) for name in _JAX_SETTINGS},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        # A long one would make the record too large to be read.
        text = json.dumps(value)
        return list(value) if len(text) < 2**16 else hashlib.sha256(text.encode()).hexdigest()
    return value if isinstance(value, int | str) else digest(value)


def check_same_run(record: Path, mine: Mapping[str, Any], resume: bool) -> None:
    """Raise unless the fingerprint in the run.json of a work directory is ours, to be resumed."""
    workdir = record.parent
    if not resume:
        raise ValueError(
            f"workdir: {workdir} already holds a run; resume it, or choose another folder"
        )
    try:
        theirs = read_json(record)
        old, new = _by_name(theirs), _by_name(mine)
        differences = [
            f"{name}: {_cut(old.get(name))} in run.json, {_cut(new.get(name))} requested"
            for name in dict.fromkeys([*old, *new])
            if old.get(name) != new.get(name)
        ]
    except Exception as error:  # whatever a damaged file makes of its reader
        raise ValueError(f"workdir: cannot read {record}: {in_a_line(error)}") from error
    if differences:
        raise ValueError(
            f"workdir: {workdir} holds a run that differs from this one in "
            + "; ".join(map(in_a_line, differences[:50]))
        )


def _cut(value: Any) -> str:
    """Return a value as text; of a long one the end as well: there its digest stands."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:80]}…{text[-35:]}"


def _by_name(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return all values of a fingerprint by the names that messages have."""
    data = {f"data {name}": value for name, value in run["data"].items()}
    return Config.from_dict(run["config"]).flat() | data | run["jax"] | {"random key": run["key"]}


def values_to_compare(
    key: Key[Array, ""], x: Any, config: Config, more: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what all processes of a run must have in common, by name.

    Of ``more``, arrays and long tuples are compared by their digest.
    """
    return {
        **config.flat(),
        "random key": jax.random.key_data(key).tolist(),
        "shape of x": list(np.shape(x)),
        "data": sampled_digest(x)[:16],
        **{name: None if value is None else _plain(value) for name, value in more.items()},
        "JAX_ENABLE_X64": bool(jax.config.values["jax_enable_x64"]),
        "jax": jax.__version__,
        "jdec": version("jdec"),
    }
