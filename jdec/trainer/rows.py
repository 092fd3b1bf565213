"""Where rows come from and lie: of this process, scaled, on the devices."""

import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float

from jdec._checks import check_choice, check_rank
from jdec._columns import identifier_columns
from jdec._environment import free_device_bytes
from jdec._rows import DataWarning, IdentifierWarning
from jdec._sources import RowSource, SparseRows, as_source
from jdec.trainer.config import Config
from jdec.trainer.fingerprint import rows_digest
from jdec.trainer.processes import allgather, is_primary
from jdec.trainer.run import Run
from jdec.trainer.scaling import Scaling, column_statistics, column_warnings, fit_scaling
from jdec.trainer.sharding import Mesh, RowSharding, concatenate_rows
from jdec.trainer.streamed_rows import BLOCK_SIZE, JoinedRows, StreamedRows

#: Where rows are while a run trains on them; ``auto`` streams what the device has no room for.
PLACEMENTS = ("auto", "device", "stream")


class Data(NamedTuple):
    """Rows of this process, and how all rows lie."""

    rows: RowSource
    sharding: RowSharding
    feature_names: tuple[str, ...] | None = None
    of_all: Any = None  # those of all processes, unchecked, where there are several

    def stream(self, scaling: Scaling) -> StreamedRows:
        """Return the scaled rows of all processes, to be read where they are asked for."""
        return StreamedRows(self.rows if self.of_all is None else self.of_all, scaling)

    def put(self, scaling: Scaling) -> Float[Array, "M D"]:
        """Scale the rows and put them onto the devices."""
        first_row = self.sharding.local().start
        return self.sharding.put(scaling.apply(self.rows, first_row=first_row))


def own_rows(
    name: str, x: Any, mesh: Mesh | None = None, columns: tuple[str, ...] | None = None
) -> Data:
    """Return the rows of this process, checked."""
    if mesh is None or jax.process_count() == 1:
        every = as_source(name, x, columns=columns)
        return Data(every, RowSharding(len(every), mesh), columns)
    if scipy.sparse.issparse(x):
        x = scipy.sparse.csr_array(x)
    elif not isinstance(x, np.ndarray):
        x = np.asarray(x)
    check_rank(name, x, 2)
    sharding = RowSharding(x.shape[0], mesh)
    mine = sharding.local()
    rows: RowSource = np.zeros((0, x.shape[1]), np.float32)
    if mine.start < mine.stop:  # there may be more devices than rows
        rows = as_source(name, x[mine], first_row=mine.start, columns=columns)
    of_all = SparseRows(x) if scipy.sparse.issparse(x) else x
    return Data(rows, sharding, columns, of_all)


def streams(placement: Any, data: Data, config: Config) -> bool:
    """Whether the rows stay on the host: as ``placement`` says, or by what memory is free."""
    check_choice("rows", placement, PLACEMENTS)
    if placement == "stream" and data.of_all is not None and data.of_all.dtype.kind not in "iuf":
        raise ValueError(
            "x: expected integers or floats, to be streamed to several processes, got dtype "
            f"{data.of_all.dtype}"
        )
    free = free_device_bytes()
    if placement != "auto" or free is None or data.of_all is not None:
        return placement == "stream"
    (n_rows, n_features), is_cpu = data.rows.shape, jax.default_backend() == "cpu"
    # On a CPU the scaled rows are there twice while they are put; and P and Q are of their number.
    n_bytes = 4 * n_rows * ((2 if is_cpu else 1) * n_features + 2 * config.n_clusters)
    return n_bytes > free * (1 if is_cpu else data.sharding.n_shards)


def digest_rows(data: Data) -> str:
    """Return a digest of all rows, however processes share them."""
    parts = allgather(rows_digest(data.rows, data.sharding.local().start))
    return "".join(f"{part:016x}" for part in parts.sum(axis=0))


def scale_rows(data: Data, config: Config) -> Scaling:
    """Find the scaling of all rows, and warn of columns that are hardly measurements."""
    rows, names = data.rows, data.feature_names
    statistics = column_statistics(rows, allgather)
    scaling = fit_scaling(rows, config.scaling, scale=config.scale, statistics=statistics)
    ends = [(end - scaling.shift) * scaling.factor for end in (statistics.low, statistics.high)]
    if np.abs(ends).max() > np.finfo(np.float32).max:
        first_row = data.sharding.local().start
        for start in range(0, len(rows), BLOCK_SIZE):  # the block that has it raises
            scaling.apply(rows[start : start + BLOCK_SIZE], first_row=first_row + start)
    if is_primary():
        for line in column_warnings(statistics, scaling, rows.dtype, names):
            warnings.warn(line, DataWarning, stacklevel=3)
        for column in identifier_columns(rows, names):
            warnings.warn(
                f"column {column if names is None else repr(column)} seems to number the rows and "
                "not to measure them; leave it out if so",
                IdentifierWarning,
                stacklevel=3,
            )
    return scaling


def add_rows(run: Run, n_rows: int, others: Data, scaling: Scaling) -> tuple[Any, int]:
    """Return the first rows of a run and others together, and how many they are."""
    n_all = n_rows + others.sharding.n_rows
    if isinstance(run.x, StreamedRows):
        return JoinedRows(run.x, n_rows, others.stream(scaling)), n_all
    of_run = RowSharding(n_rows, run.plan.rows.mesh)
    return concatenate_rows(run.x, of_run, others.put(scaling), others.sharding)[0], n_all
