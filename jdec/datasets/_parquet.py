"""Tables in parquet files, read and written: the only module that imports pyarrow."""

import collections
import importlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdec._archives import unpacked_limit
from jdec._files import Table, reading
from jdec._host_arrays import empty_on_host
from jdec._io import parse_json
from jdec.datasets._roles import LARGEST_EXACT, Choice, Roles, as_text, choose_roles, way_out

_LOGGER = logging.getLogger("jdec")
_BLOCK_BYTES = 2**20  # of rows read at a time: Arrow holds several times as many
_OBJECT_BYTES = 64  # that a label or an identifier takes in memory, about
# Of text while it is read: in its page, in Arrow's dictionary and in Python.
_COPIES_OF_TEXT = 4


def read_parquet(path: Path, choice: Choice) -> Table:
    """Read a parquet file, the features in the narrowest dtype that holds them all.

    Columns that are neither features, label nor ids are not read. A row index that pandas has
    marked is not a feature.
    """
    pyarrow, parquet = _pyarrow(path)
    with reading(path, "an intact parquet file"):
        file = parquet.ParquetFile(path)
    with file:
        with reading(path, "an intact parquet file"):
            schema = file.schema_arrow
            names = [str(name) for name in schema.names]
            indices = _pandas_indices(path, schema.metadata or {}, names)
        roles = choose_roles(path, names, choice, skip=indices)
        types = pyarrow.types
        kinds = [
            field.type.value_type if types.is_dictionary(field.type) else field.type
            for field in schema
        ]
        features = [(names[place], kinds[place]) for place in roles.features]
        dtype = np.result_type(*(_dtype(path, name, kind, types) for name, kind in features))
        others = [place for place in (roles.label, roles.id) if place is not None]
        texts = [place for place in others if _is_text(kinds[place], types)]
        _check_size(path, file.metadata, roles, dtype, copies=_COPIES_OF_TEXT if texts else 1)
        with reading(path, "an intact parquet file"):
            # As codes: a repeated text is then held once.
            file = parquet.ParquetFile(
                path, metadata=file.metadata, read_dictionary=[names[place] for place in texts]
            )
        with file:
            x, columns = _read(path, file, names, roles, dtype)
    return Table(
        x,
        None if roles.label is None else np.fromiter(columns[roles.label], object),
        None if roles.label is None else names[roles.label],
        tuple(names[place] for place in roles.features),
        None if roles.id is None else _ids(path, names[roles.id], columns[roles.id]),
    )


def read_parquet_folder(path: Path, files: Sequence[Path], choice: Choice) -> Table:
    """Read parquet files of the same columns as one table, in the order of their names."""
    tables = [read_parquet(file, choice) for file in files]
    first = tables[0]
    for file, table in zip(files, tables, strict=True):
        pairs = zip(_columns(first), _columns(table), strict=True)
        if different := [
            f"{mine} in {files[0].name}, {theirs}" for mine, theirs in pairs if mine != theirs
        ]:
            raise ValueError(
                f"{file}: expected the columns of the other files in {path}: {different[0][:300]}"
            )
    n_rows = sum(len(table.x) for table in tables)
    x = empty_on_host((n_rows, first.x.shape[1]), np.result_type(*(t.x.dtype for t in tables)))
    end = 0
    for table in tables:
        start, end = end, end + len(table.x)
        x[start:end] = table.x
    labels: Any = None if first.labels is None else [table.labels for table in tables]
    ids: Any = None if first.ids is None else [table.ids for table in tables]
    joined = [parts and np.concatenate(parts) for parts in (labels, ids)]
    return first._replace(x=x, labels=joined[0], ids=joined[1])


def _columns(table: Table) -> list[str]:
    """Name what must be the same in all files of a folder."""
    roles = {"label": table.label_name, "id": None if table.ids is None else "one"}
    named = [f"{role} {name!r}" for role, name in roles.items()]
    return [*named, ", ".join(table.feature_names or ())]


def write_parquet(path: Path, file: Any, parts: Iterable[Mapping[str, Any]]) -> None:
    """Write columns, some rows at a time, to an open file of the name ``path``."""
    pyarrow, parquet = _pyarrow(path)
    writer = None
    for part in parts:
        table = pyarrow.table(dict(part))
        writer = writer or parquet.ParquetWriter(file, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(f'{path}: parquet needs pyarrow: pip install "jdec[parquet]"') from error


def _read(
    path: Path, file: Any, names: Sequence[str], roles: Roles, dtype: np.dtype[Any]
) -> tuple[np.ndarray, dict[int, list[Any]]]:
    n_rows = file.metadata.num_rows
    x = empty_on_host((n_rows, len(roles.features)), dtype)
    targets = {place: target for target, place in enumerate(roles.features)}
    columns: dict[int, list[Any]] = {
        place: [] for place in (roles.label, roles.id) if place is not None
    }
    wanted = {names[place] for place in (*targets, *columns)}
    places: dict[str, list[int]] = collections.defaultdict(list)
    for place, name in enumerate(names):
        places[name].append(place)
    block = max(1, _BLOCK_BYTES // (len(roles.features) * dtype.itemsize))
    end = 0
    for batch in _batches(path, file, block, sorted(wanted)):
        start, end = end, end + len(batch)
        if end > n_rows:
            break
        # Columns are read by name, and several may share one.
        left = {name: iter(same) for name, same in places.items()}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            place = next(left[name])
            if place in targets or place in columns:
                _check_complete(path, name, column, start)
            if place in targets:
                x[start:end, targets[place]] = _numbers(path, name, column, start)
            if place in columns:
                columns[place] += _cells(path, name, column)
    if end != n_rows:
        raise ValueError(f"{path}: expected {n_rows} rows as its metadata says, got another number")
    return x, columns


def _batches(path: Path, file: Any, block: int, columns: Sequence[str]) -> Iterator[Any]:
    with reading(path, "an intact parquet file"):
        yield from file.iter_batches(block, columns=columns)


def _pandas_indices(path: Path, metadata: Mapping[bytes, bytes], names: Sequence[str]) -> list[int]:
    """Find the columns that pandas has marked as the row index."""
    described = parse_json(metadata.get(b"pandas", b"{}").decode())
    indices = described.get("index_columns") if isinstance(described, dict) else None
    if not isinstance(indices, list):
        return []
    found = [place for place, name in enumerate(names) if name in indices]
    if found:
        left_out = ", ".join(names[place] for place in found)
        _LOGGER.info("%s: left out, as the row index of pandas: %s", path, left_out)
    return found


def _is_text(kind: Any, types: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _dtype(path: Path, name: str, kind: Any, types: Any) -> np.dtype[Any]:
    """Return the dtype of a column of numbers, or raise."""
    if types.is_boolean(kind):
        return np.dtype(np.uint8)
    if types.is_decimal(kind):
        return np.dtype(np.float64)
    if types.is_integer(kind) or types.is_floating(kind):
        return np.dtype(kind.to_pandas_dtype())
    what = "text" if _is_text(kind, types) or types.is_string_view(kind) else str(kind)
    what = "missing values only" if types.is_null(kind) else what
    what = "times" if types.is_temporal(kind) else what
    raise ValueError(
        f"{path}: expected numbers in column {name!r}, got {what} ({kind}); {way_out(name)}"
    )


def _check_size(
    path: Path, metadata: Any, roles: Roles, dtype: np.dtype[Any], *, copies: int
) -> None:
    row = len(roles.features) * dtype.itemsize
    row += _OBJECT_BYTES * ((roles.label is not None) + (roles.id is not None))
    if metadata.num_rows < 0:
        raise ValueError(f"{path}: expected an intact parquet file, got {metadata.num_rows} rows")
    n_bytes, size = metadata.num_rows * row, path.stat().st_size
    limit = unpacked_limit(size)
    with reading(path, "an intact parquet file"):
        # Of row groups only: damaged metadata of a column can crash the process.
        for group in range(metadata.num_row_groups):
            n_packed = metadata.row_group(group).total_byte_size
            if n_packed > limit // copies:
                n_bytes, limit = n_packed, limit // copies
                break
    if n_bytes > limit:
        raise ValueError(
            f"{path}: expected a file that unpacks to at most {limit} bytes, got "
            f"{n_bytes} from a file of {size} ({metadata.num_rows} rows of {len(roles.features)} "
            f"{dtype}); store larger rows as .npy"
        )


def _numbers(path: Path, name: str, column: Any, first_row: int) -> np.ndarray:
    with reading(path, f"numbers in column {name!r}"):
        if hasattr(column, "dictionary_decode"):
            column = column.dictionary_decode()
        values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "O":  # decimals
        return values.astype(np.float64)
    if values.dtype in (np.int64, np.uint64):
        large = (values > LARGEST_EXACT) | (values < -LARGEST_EXACT)
        if large.any():
            row = int(np.argmax(large))
            raise ValueError(
                f"{path}: expected numbers within ±2**53, beyond which float64 rounds whole "
                f"numbers, got {values[row]} in column {name!r}, row {first_row + row}; "
                f"{way_out(name)}"
            )
    return values


def _cells(path: Path, name: str, column: Any) -> list[Any]:
    with reading(path, f"text or numbers in column {name!r}"):
        if hasattr(column, "dictionary"):
            texts = column.dictionary.to_pylist()
            return [texts[code] for code in column.indices.to_pylist()]
        return column.to_pylist()


def _check_complete(path: Path, name: str, column: Any, first_row: int) -> None:
    if column.null_count:
        row = first_row + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise ValueError(
            f"{path}: expected a value in column {name!r} in every row, got none in row {row}; "
            "fill or drop such rows first"
        )


def _ids(path: Path, name: str, ids: list[Any]) -> np.ndarray:
    if all(isinstance(value, int) and not isinstance(value, bool) for value in ids):
        return np.array(ids) if ids else np.array([], np.int64)
    return as_text(path, name, [str(value) for value in ids])
