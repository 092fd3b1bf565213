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
from jaxtyping import Array, Key, PyTree

from jdec._checks import in_a_line
from jdec._io import read_json
from jdec.trainer.config import Config


def describe(part: Any) -> str:
    """Return a text for a network, function or optimizer that is the same in another process.

    Of a function it holds the name, the code and what the function closes over, so that optimizers
    that differ in a number differ in their texts.

    Examples:
        >>> describe(digest)[:33]
        'jdec.trainer.fingerprint.digest #'
        >>> describe(lambda x: 2 * x) == describe(lambda x: 3 * x)
        False
    """
    name = getattr(part, "__qualname__", None)
    if name is None:
        text = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(repr(part).split()))
        name = f"{type(part).__qualname__}({text})"[:2000]
    module = getattr(part, "__module__", type(part).__module__)
    return f"{module}.{name} #{hashlib.sha256(_inside(part, {}).encode()).hexdigest()[:16]}"


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # as of a function that calls itself, not yet defined
        return False
    return True


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
        cells = [cell.cell_contents for cell in part.__closure__ or () if _is_filled(cell)]
        inner = (part.__code__, part.__defaults__, part.__kwdefaults__, cells)
    elif isinstance(part, types.MethodType):
        inner = (part.__func__, part.__self__)
    name = getattr(part, "__qualname__", type(part).__qualname__)
    return f"{name}({', '.join(_inside(value, seen) for value in inner)})"


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
    """Raise if a work directory holds another run.

    Args:
        record: Its run.json.
        mine: From :func:`fingerprint`.
        resume: Whether to resume it.

    Raises:
        ValueError: Without ``resume``, or if the two runs differ: lists the differences.
    """
    workdir = record.parent
    if not resume:
        raise ValueError(
            f"workdir: {workdir} already holds a run; resume it, or choose another folder"
        )
    try:
        theirs = read_json(record)
        configs = [Config.from_dict(run["config"]).flat() for run in (theirs, mine)]
        pairs: list[Any] = [
            ("", *configs),
            ("data ", theirs["data"], mine["data"]),
            ("", theirs["jax"], mine["jax"]),
            ("", {"random key": theirs["key"]}, {"random key": mine["key"]}),
        ]
        differences = [
            f"{title}{name}: {_cut(old.get(name))} in run.json, {_cut(new.get(name))} requested"
            for title, old, new in pairs
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


def values_to_compare(
    key: Key[Array, ""], x: Any, config: Config, more: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what all processes of a run must have in common, by name.

    Args:
        key: Typed random key of the run.
        x: Rows, [N D]; of a large array, a sample is compared.
        config: Its settings.
        more: Name to JSON value, tuple of texts, or arrays that are replaced by their digest.
    """
    return {
        **config.flat(),
        "random key": jax.random.key_data(key).tolist(),
        "shape of x": list(np.shape(x)),
        "data": sampled_digest(x)[:16],
        **{name: _comparable(value) for name, value in more.items()},
        "JAX_ENABLE_X64": bool(jax.config.values["jax_enable_x64"]),
        "jax": jax.__version__,
        "jdec": version("jdec"),
    }


def _comparable(value: Any) -> Any:
    if isinstance(value, tuple):
        return digest(np.array(value))
    return value if value is None or isinstance(value, int | str) else digest(value)[:16]
