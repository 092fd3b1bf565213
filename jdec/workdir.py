"""What a work directory is a run of: its data, configuration and key, and whether they are ours."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from jdec.config import Config


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
        rows: Float32 rows, [n D].
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
        block = np.ascontiguousarray(rows[start : start + 4096], np.float32).view(np.uint32)
        # The constants of SplitMix64, so that rows in another order give another sum.
        index = np.arange(len(block), dtype=np.uint64) + np.uint64(first_row + start + 1)
        mixed = index * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = mixed ^ (mixed >> np.uint64(27))
        values = block.astype(np.uint64) @ weights
        total += ((values ^ (values >> np.uint64(31))) * (mixed | np.uint64(1))[:, None]).sum(0)
    return total


def fingerprint(key: Key[Array, ""], config: Config, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what determines a run, as plain JSON values.

    Args:
        key: Typed random key of the run.
        config: Its configuration.
        data: Name to plain value, or to arrays that are replaced by their digest.

    Returns:
        ``{"config": …, "data": …, "key": …}``.
    """
    return {
        "config": config.to_dict(),
        "data": {
            name: value if isinstance(value, int | str | list) else digest(value)
            for name, value in data.items()
            if value is not None
        },
        "key": jax.random.key_data(key).tolist(),
    }


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
        theirs = json.loads(record.read_text())
        differences = Config.from_dict(theirs["config"]).differences(
            Config.from_dict(mine["config"])
        )
        differences += [
            f"data {name}: {theirs['data'].get(name)} against {mine['data'].get(name)}"
            for name in dict.fromkeys([*theirs["data"], *mine["data"]])
            if theirs["data"].get(name) != mine["data"].get(name)
        ]
        if theirs["key"] != mine["key"]:
            differences.append(f"random key: {theirs['key']} against {mine['key']}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"workdir: cannot read {record}: {error}") from error
    if differences:
        raise ValueError(
            f"workdir: {workdir} holds a run that differs from this one in "
            + "; ".join(differences)
        )
