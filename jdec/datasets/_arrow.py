"""Tables in files of Parquet and Arrow."""

import collections
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdec._archives import unpacked_limit
from jdec._files import Table, reading
from jdec._host_arrays import empty_on_host
from jdec._io import parse_json
from jdec.datasets._arrow_files import open_table
from jdec.datasets._roles import LARGEST_EXACT, Choice, as_text, choose_roles, way_out

_LOGGER = logging.getLogger("jdec")
_BLOCK_BYTES = 2**20  # of rows read at a time: Arrow holds several times as many
_OBJECT_BYTES = 64  # that a label or an identifier takes in memory, about
# Of text while it is read: in its page, in Arrow's dictionary and in Python.
_COPIES_OF_TEXT = 4


class _Feature(NamedTuple):
    """A column of numbers, or of lists of as many numbers in every row."""

    name: str
    kind: Any  # of Arrow
    is_list: bool
    columns: slice  # of the rows

    @property
    def width(self) -> int:
        return self.columns.stop - self.columns.start

    @property
    def names(self) -> list[str]:
        return [f"{self.name}[{i}]" for i in range(self.width)] if self.is_list else [self.name]


def read_arrow(path: Path, choice: Choice) -> Table:
    """Read a file of Parquet or Arrow, the features in the dtype that holds them all.

    A column of lists has a feature for each of their entries. Columns that are neither features,
    label nor ids are not read. A row index that pandas has marked is not a feature.
    """
    file: Any = open_table(path)
    types = file.types
    with reading(path, file.expected):
        names = [str(name) for name in file.schema.names]
        indices = _pandas_indices(path, file.schema.metadata or {}, names)
    roles = choose_roles(path, names, choice, skip=indices)
    kinds = [
        field.type.value_type if types.is_dictionary(field.type) else field.type
        for field in file.schema
    ]
    features: dict[int, _Feature] = {}
    end = 0
    for place in roles.features:
        name, kind, width = names[place], kinds[place], 1
        if is_list := _is_list(kind, types):
            width, kind = _list_width(file, name, kind, types), kind.value_type
        features[place] = _Feature(name, kind, is_list, slice(end, end + width))
        end += width
    dtype = np.result_type(*(_dtype(path, feature, types) for feature in features.values()))
    others = [place for place in (roles.label, roles.id) if place is not None]
    texts = [names[place] for place in others if _is_text(kinds[place], types)]
    _check_size(file, end, len(others), dtype, copies=_COPIES_OF_TEXT if texts else 1)
    x, columns = _read(file, names, features, others, texts, dtype)
    return Table(
        x,
        None if roles.label is None else np.fromiter(columns[roles.label], object),
        None if roles.label is None else names[roles.label],
        tuple(name for feature in features.values() for name in feature.names),
        None if roles.id is None else _ids(path, names[roles.id], columns[roles.id]),
    )


def read_arrow_folder(path: Path, files: Sequence[Path], choice: Choice) -> Table:
    """Read files of the same columns as one table, in the order of their names."""
    tables = [read_arrow(file, choice) for file in files]
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


def _read(
    file: Any,
    names: Sequence[str],
    features: Mapping[int, _Feature],
    others: Sequence[int],
    texts: Sequence[str],
    dtype: np.dtype[Any],
) -> tuple[np.ndarray, dict[int, list[Any]]]:
    path, n_rows = file.path, file.n_rows
    x = empty_on_host((n_rows, sum(feature.width for feature in features.values())), dtype)
    columns: dict[int, list[Any]] = {place: [] for place in others}
    wanted = {names[place] for place in (*features, *columns)}
    places: dict[str, list[int]] = collections.defaultdict(list)
    for place, name in enumerate(names):
        places[name].append(place)
    block = max(1, _BLOCK_BYTES // max(1, x.shape[1] * dtype.itemsize))
    end = 0
    for batch in file.batches(block, sorted(wanted), texts):
        start, end = end, end + len(batch)
        if end > n_rows:
            break
        # Columns are read by name, and several may share one.
        left = {name: iter(same) for name, same in places.items()}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            place = next(left[name])
            if place in features or place in columns:
                _check_complete(path, name, column, start)
            if place in features:
                found = _numbers(path, features[place], column, start)
                x[start:end, features[place].columns] = found
            if place in columns:
                columns[place] += _cells(path, name, column)
    if end != n_rows:
        raise ValueError(f"{path}: expected {n_rows} rows as its metadata says, got another number")
    return x, columns


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


def _is_list(kind: Any, types: Any) -> bool:
    is_long = types.is_list(kind) or types.is_large_list(kind)
    return bool(is_long or types.is_fixed_size_list(kind))


def _list_width(file: Any, name: str, kind: Any, types: Any) -> int:
    """Return how long the lists of a column are, by the type or by the first of them."""
    if types.is_fixed_size_list(kind):
        return int(kind.list_size)
    for batch in file.batches(1, [name], []):
        if len(batch):
            return len(batch.column(0)[0].as_py() or ())
    return 0


def _dtype(path: Path, feature: _Feature, types: Any) -> np.dtype[Any]:
    """Return the dtype of a column of numbers, or raise."""
    name, kind = feature.name, feature.kind
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
    file: Any, n_features: int, n_others: int, dtype: np.dtype[Any], *, copies: int
) -> None:
    path, row = file.path, n_features * dtype.itemsize + _OBJECT_BYTES * n_others
    if file.n_rows < 0:
        raise ValueError(f"{path}: expected {file.expected}, got {file.n_rows} rows")
    n_bytes, size = file.n_rows * row, path.stat().st_size
    limit = unpacked_limit(size)
    if file.largest > limit // copies:
        n_bytes, limit = file.largest, limit // copies
    if n_bytes > limit:
        raise ValueError(
            f"{path}: expected a file that unpacks to at most {limit} bytes, got "
            f"{n_bytes} from a file of {size} ({file.n_rows} rows of {n_features} "
            f"{dtype}); store larger rows as .npy"
        )


def _numbers(path: Path, feature: _Feature, column: Any, first_row: int) -> np.ndarray:
    name, n_rows = feature.name, len(column)
    if feature.is_list:
        _check_lengths(path, feature, column, first_row)
        column = column.flatten()
        if column.null_count:
            entry = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise _missing(path, name, first_row + entry // feature.width)
    with reading(path, f"numbers in column {name!r}"):
        if hasattr(column, "dictionary_decode"):
            column = column.dictionary_decode()
        values = column.to_numpy(zero_copy_only=False)
    if values.dtype.kind == "O":  # decimals
        values = values.astype(np.float64)
    values = values.reshape(n_rows, feature.width)
    if values.dtype in (np.int64, np.uint64):
        large = (values > LARGEST_EXACT) | (values < -LARGEST_EXACT)
        if large.any():
            row, entry = np.argwhere(large)[0]
            raise ValueError(
                f"{path}: expected numbers within ±2**53, beyond which float64 rounds whole "
                f"numbers, got {values[row, entry]} in column {name!r}, row {first_row + row}; "
                f"{way_out(name)}"
            )
    return values


def _check_lengths(path: Path, feature: _Feature, column: Any, first_row: int) -> None:
    if hasattr(column.type, "list_size"):
        return
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    others = lengths != feature.width
    if others.any():
        row = int(np.argmax(others))
        raise ValueError(
            f"{path}: expected lists of {feature.width} numbers in column {feature.name!r}, as the "
            f"first row has, got {lengths[row]} in row {first_row + row}; {way_out(feature.name)}"
        )


def _cells(path: Path, name: str, column: Any) -> list[Any]:
    with reading(path, f"text or numbers in column {name!r}"):
        if hasattr(column, "dictionary"):
            texts = column.dictionary.to_pylist()
            return [texts[code] for code in column.indices.to_pylist()]
        return column.to_pylist()


def _check_complete(path: Path, name: str, column: Any, first_row: int) -> None:
    if column.null_count:
        row = first_row + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise _missing(path, name, row)


def _missing(path: Path, name: str, row: int) -> ValueError:
    return ValueError(
        f"{path}: expected a value in column {name!r} in every row, got none in row {row}; "
        "fill or drop such rows first"
    )


def _ids(path: Path, name: str, ids: list[Any]) -> np.ndarray:
    if all(isinstance(value, int) and not isinstance(value, bool) for value in ids):
        return np.array(ids) if ids else np.array([], np.int64)
    return as_text(path, name, [str(value) for value in ids])
