"""Where rows come from and lie: of this process, scaled, on the devices."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Shaped

from jdec._checks import check_rank
from jdec._rows import as_rows
from jdec.trainer.config import Config
from jdec.trainer.fingerprint import rows_digest
from jdec.trainer.inputs import (
    inspect_columns,
)
from jdec.trainer.processes import (
    allgather,
)
from jdec.trainer.programs import BLOCK_SIZE
from jdec.trainer.run import Run
from jdec.trainer.scaling import Scaling
from jdec.trainer.sharding import (
    Mesh,
    RowSharding,
)


class Data(NamedTuple):
    """Rows of this process, and how all rows lie."""

    rows: Shaped[np.ndarray, "n D"]
    sharding: RowSharding
    feature_names: tuple[str, ...] | None = None

    def put(self, scaling: Scaling) -> Float[Array, "M D"]:
        """Scale the rows and put them onto the devices."""
        first_row = self.sharding.local().start
        return self.sharding.put(scaling.apply(self.rows, first_row=first_row))


def own_rows(
    name: str, x: Any, mesh: Mesh | None, columns: Sequence[str] | None
) -> tuple[Shaped[np.ndarray, "n D"], int]:
    """Return the rows of this process, and how many there are in all."""
    if mesh is None or jax.process_count() == 1:
        rows = as_rows(name, x, columns=columns)
        return rows, len(rows)
    x = np.asarray(x) if not isinstance(x, np.ndarray) else x
    check_rank(name, x, 2)
    mine = RowSharding(len(x), mesh).local()
    if mine.start >= mine.stop:  # there may be more devices than rows
        return np.zeros((0, x.shape[1]), np.float32), len(x)
    return as_rows(name, x[mine], first_row=mine.start, columns=columns), len(x)


def digest_rows(data: Data) -> str:
    """Return a digest of all rows, however processes share them."""
    parts = allgather(rows_digest(data.rows, data.sharding.local().start))
    return "".join(f"{part:016x}" for part in parts.sum(axis=0))


def scale_rows(data: Data, config: Config) -> Scaling:
    """Find the scaling of all rows, and warn of columns that are hardly measurements."""
    scaling, found = inspect_columns(data.rows, config, data.feature_names)
    for warning in found:
        warnings.warn(warning, stacklevel=3)
    return scaling


def scaled_blocks(run: Run, data: Data, scaling: Scaling) -> Iterator[Float[np.ndarray, "B D"]]:
    """Yield the scaled rows of this process, from the device where it has them all."""
    if run.plan.rows.mesh is None:
        x = np.asarray(run.x)
        for first in range(0, len(x), BLOCK_SIZE):
            yield x[first : first + BLOCK_SIZE]
        return
    # A process may have no rows, where there are more devices than rows.
    rows = data.rows if len(data.rows) else np.zeros((1, data.rows.shape[1]), np.float32)
    for first in range(0, len(rows), BLOCK_SIZE):
        yield scaling.apply(rows[first : first + BLOCK_SIZE], first_row=first)
