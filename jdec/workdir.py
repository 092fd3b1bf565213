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
