"""Readers of data files; each failure is a ValueError of one line that names the file."""

import array
import contextlib
import csv
import gzip
import importlib
import itertools
import logging
import math
import reprlib
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from jdec._checks import check_same_length

#: Largest dense float32 matrix, in bytes, that a sparse file may be turned into.
MAX_DENSE_BYTES = 2 * 2**30

#: Suffixes of the files that :func:`read_table` understands.
SUFFIXES = (".npy", ".npz", ".csv", ".tsv", ".parquet")

_LOGGER = logging.getLogger("jdec")
_ROW_NAMES = ("x", "X", "data")
_LABEL_NAMES = ("y", "label", "labels", "target", "class")
_MISSING = ("", "na", "n/a", "null", "none", "?")

# Bytes of an array from which on it stays on disk: a process then reads the rows it needs.
_MAPPED_FROM = 2**26


class Table(NamedTuple):
    """What a file holds, unchecked: rows, and labels where it has any."""

    x: np.ndarray
    labels: np.ndarray | None


def read_table(path: Path) -> Table:
    """Read a file by its suffix.

    Args:
        path: A ``.npy``, ``.npz`` (dense or scipy-sparse), ``.csv``, ``.tsv`` or ``.parquet`` file.

    Returns:
        Rows [N …] of any dtype, and labels [N] of any dtype or None.

    Raises:
        ValueError: If the file is a folder, empty, damaged, of another kind, or not numeric.
        ImportError: If a parquet file is given and pandas or pyarrow is not installed.

    Examples:
        >>> read_table(Path("notes.txt"))
        Traceback (most recent call last):
        ValueError: notes.txt: expected a file of type .npy, .npz, .csv, .tsv, .parquet; got '.txt'
    """
    if path.is_dir():
        raise ValueError(
            f"{path}: expected a file, got a folder; for a known data set pass its name, and the "
            "folder above as data_dir"
        )
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a file of type {', '.join(SUFFIXES)}; got {suffix!r}")
    with _reading(path, "a readable file"):
        size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path}: expected data, got an empty file")
    if suffix in (".npy", ".npz"):
        return read_numpy(path)
    if suffix == ".parquet":
        return _read_parquet(path)
    return _read_delimited(path, "\t" if suffix == ".tsv" else ",")


def read_idx(path: Path, n_dims: int) -> np.ndarray:
    """Read unsigned bytes from an idx file, gzipped or not.

    Args:
        path: The file; what it is shows in its first bytes, not in its name.
        n_dims: Number of dimensions expected: 3 for images, 1 for labels.

    Returns:
        A read-only uint8 array of the shape its header gives.

    Raises:
        ValueError: If the bytes do not fit the format, the type, the rank or the header's counts.
    """
    with _reading(path, "an intact idx file"), path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        raw = gzip.GzipFile(fileobj=file).read() if gzipped else file.read()
    magic = bytes((0, 0, 8, n_dims))
    if raw[:2] == magic[:2] and raw[3:4] == magic[3:] and raw[2] != magic[2]:
        raise ValueError(f"{path}: expected idx type 0x08 (unsigned byte), got 0x{raw[2]:02x}")
    if raw[:4] != magic:
        raise ValueError(
            f"{path}: expected the first bytes {magic.hex(' ')} (idx, {n_dims} dimension(s)), "
            f"got {raw[:4].hex(' ') or 'none'}"
        )
    header = 4 + 4 * n_dims
    if len(raw) < header:
        raise ValueError(f"{path}: expected a header of {header} bytes, got {len(raw)}")
    shape = struct.unpack(f">{n_dims}I", raw[4:header])
    if len(raw) != header + math.prod(shape):
        raise ValueError(
            f"{path}: expected {header + math.prod(shape)} bytes as its header {shape} says, "
            f"got {len(raw)}"
        )
    return np.frombuffer(raw, np.uint8)[header:].reshape(shape)


def read_numpy(path: Path) -> Table:
    """Read ``.npy``, ``.npz`` or a scipy-sparse ``.npz``; objects are never unpickled.

    Args:
        path: The file. In an archive the rows are called x, X or data or are the only matrix, and
            labels y, label, labels, target or class.

    Returns:
        Rows and labels as stored; a sparse matrix comes out dense, float32.

    Raises:
        ValueError: If the file is damaged, holds objects, is ambiguous, or too large when dense.
    """
    with _open_numpy(path) as loaded:
        if isinstance(loaded, np.ndarray):
            return Table(loaded, None)
        if {"format", "shape"} <= set(loaded.files):
            return Table(_read_sparse(path, loaded), None)
        labels = _label_column(path, loaded.files)
        names = [name for name in _ROW_NAMES if name in loaded.files]
        x = _member(path, loaded, names[0]) if names else _only_matrix(path, loaded, skip=labels)
        return Table(x, None if labels is None else _member(path, loaded, labels))


def read_member(path: Path, name: str) -> np.ndarray | None:
    """Return one array of an ``.npz`` file, or None where it has no such array."""
    with _open_numpy(path) as loaded:
        if isinstance(loaded, np.ndarray) or name not in loaded.files:
            return None
        return _member(path, loaded, name)


def encode_labels(
    name: str, labels: Any, x: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Number the classes 0 … C-1 in sorted order.

    Args:
        name: What to call the labels in an error message.
        labels: Whole numbers, booleans or text, [N] or [N 1].
        x: The rows that the labels belong to, [N …].

    Returns:
        int64 labels [N], and the names of the classes where they were text, else None.

    Raises:
        ValueError: If lengths differ, a label is missing, or labels are no classes.

    Examples:
        >>> encode_labels("y", ["b", "a", "b"], np.zeros((3, 1)))
        (array([1, 0, 1]), ('a', 'b'))
        >>> encode_labels("y", [7.0, 3.0], np.zeros((2, 1)))
        (array([1, 0]), None)
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"{name}: expected one label per row, got shape {labels.shape}")
    check_same_length(name, labels, "x", x)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    text = labels.dtype.kind == "U"
    if not text and labels.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected whole numbers or text, got dtype {labels.dtype}")
    if text:
        wrong = labels == ""
    else:
        with np.errstate(invalid="ignore"):
            wrong = ~np.isfinite(labels) | (labels != np.trunc(labels))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{name}: expected a class (whole number or text) for every row, got "
            f"{labels[row].item()!r} in row {row}; a feature needs another name"
        )
    classes, y = np.unique(labels, return_inverse=True)
    return y.astype(np.int64), tuple(classes.tolist()) if text else None


@contextlib.contextmanager
def _reading(path: Path, expected: str) -> Iterator[None]:
    # A damaged file makes zipfile, zlib, csv, NumPy and pyarrow raise a dozen unrelated types.
    try:
        yield
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        reason = reason or type(error).__name__
        raise ValueError(f"{path}: expected {expected}, got an error: {reason}") from error


@contextlib.contextmanager
def _open_numpy(path: Path) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        with _reading(path, "a readable file"):
            file = stack.enter_context(path.open("rb"))
            start = file.read(6)
        if not start.startswith((b"\x93NUMPY", b"PK")):
            # np.load takes every other file for a pickle and says so, which helps nobody.
            raise ValueError(f"{path}: expected a NumPy file, got one that starts with {start!r}")
        with _reading(path, "a NumPy file of numbers or text; objects are never unpickled"):
            file.seek(0)
            # Given a path instead, np.load would leave a damaged archive open.
            if start.startswith(b"PK") or path.stat().st_size < _MAPPED_FROM:
                loaded = np.load(file, allow_pickle=False)
            else:
                loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            stack.enter_context(loaded)
        yield loaded


def _member(path: Path, loaded: Any, name: str) -> np.ndarray:
    with _reading(path, f"numbers or text in array {name!r}; objects are never unpickled"):
        return np.asarray(loaded[name])


def _only_matrix(path: Path, loaded: Any, *, skip: str | None) -> np.ndarray:
    shapes: dict[str, tuple[int, ...]] = {}
    found: list[np.ndarray] = []
    for name in loaded.files:
        if name != skip:
            member = _member(path, loaded, name)
            shapes[name] = member.shape
            if member.ndim >= 2:
                # Two candidates are refused, so a third one need not be kept in memory.
                found = [*found[:1], member]
    if len(found) != 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "none"
        raise ValueError(
            f"{path}: expected an array named {', '.join(_ROW_NAMES)} or a single matrix, "
            f"got {listed}"
        )
    return found[0]


def _read_sparse(path: Path, loaded: Any) -> np.ndarray:
    shape = _member(path, loaded, "shape").tolist()
    expected = "a sparse matrix as scipy.sparse.save_npz writes it"
    with _reading(path, expected):
        n_bytes = 4 * math.prod(int(size) for size in shape)
    if n_bytes > MAX_DENSE_BYTES:
        raise ValueError(
            f"{path}: expected a matrix of at most {MAX_DENSE_BYTES / 2**30:.3g} GiB when dense, "
            f"got {n_bytes / 2**30:.3g} GiB for shape {tuple(shape)}; reduce the number of "
            "features first, as with sklearn.decomposition.TruncatedSVD"
        )
    with _reading(path, expected), np.errstate(over="ignore"):
        matrix = scipy.sparse.load_npz(path)
        # Indices out of range would make the conversion write outside its memory.
        if hasattr(matrix, "check_format"):
            matrix.check_format(full_check=True)
        dense = matrix.astype(np.float32).toarray()
    _LOGGER.info("%s: made dense, %.3g GiB", path, n_bytes / 2**30)
    return dense


def _label_column(path: Path, names: Sequence[str]) -> str | None:
    found = [name for name in names if name.lower() in _LABEL_NAMES]
    if len(found) > 1:
        raise ValueError(f"{path}: expected at most one label column, got {', '.join(found)}")
    return found[0] if found else None


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    with (
        _reading(path, "delimited UTF-8 text"),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        for cells in reader:
            if cells:
                yield reader.line_num, cells


def _read_delimited(path: Path, delimiter: str) -> Table:
    records = _records(path, delimiter)
    first = next(records, None)
    if first is None:
        raise ValueError(f"{path}: expected rows, got blank lines only")
    names, rows, label = [cell.strip() for cell in first[1]], records, None
    if _is_header(names):
        label = _label_column(path, names)
        if "" in names:
            raise ValueError(
                f"{path}: expected a name for every column, got none for column "
                f"{names.index('') + 1}; a saved row index must be left out"
            )
    else:
        if len(names) > 1 and names == [str(column) for column in range(len(names))]:
            _LOGGER.warning("%s: the first line reads 0, 1, 2, …; taken for a row of data", path)
        names = [str(column) for column in range(1, len(names) + 1)]
        rows = itertools.chain([first], records)
    features = [name for name in names if name != label]
    # Python floats would take four times the memory of the matrix.
    values, labels, n_rows = array.array("d"), [], 0
    for line, cells in rows:
        if len(cells) != len(names):
            raise ValueError(
                f"{path}: expected {len(names)} cells, got {len(cells)} in line {line}"
            )
        if label is not None:
            labels.append(cells.pop(names.index(label)).strip())
        try:
            values.extend(map(float, cells))
        except ValueError:
            raise _not_a_number(path, features, cells, f"line {line}") from None
        n_rows += 1
    x = np.asarray(values).reshape(n_rows, len(features))
    return Table(x, None if label is None else _parse_labels(labels))


def _is_header(cells: Sequence[str]) -> bool:
    numeric = [_is_number(cell) for cell in cells]
    others = {cell.lower() for cell, number in zip(cells, numeric, strict=True) if not number}
    # Numbers beside nothing but missing values are a row of data, which would be lost in silence.
    return bool(others) and not (any(numeric) and others <= set(_MISSING))


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _not_a_number(
    path: Path, names: Sequence[str], values: Sequence[Any], where: str
) -> ValueError:
    column, value = next(
        (name, value) for name, value in zip(names, values, strict=True) if not _is_number(value)
    )
    shown = " ".join(reprlib.repr(value).split())
    hint = "; a saved row index must be left out" if where == "line 1" and value == "" else ""
    return ValueError(
        f"{path}: expected a number in column {column!r}, got {shown} in {where}{hint}"
    )


def _parse_labels(labels: list[str]) -> np.ndarray:
    text = np.array(labels, dtype=str)
    for dtype in (np.int64, np.float64):
        with contextlib.suppress(ValueError, OverflowError):
            return text.astype(dtype)
    return text


def _read_parquet(path: Path) -> Table:
    try:
        import pandas

        importlib.import_module("pyarrow")
    except ImportError as error:
        raise ImportError(
            f'{path}: reading parquet needs pandas and pyarrow: pip install "jdec[parquet]"'
        ) from error
    with _reading(path, "an intact parquet file"):
        frame = pandas.read_parquet(path)
    names = [str(name) for name in frame.columns]
    label = _label_column(path, names)
    features = [column for column, name in enumerate(names) if name != label]
    x = np.empty((len(frame), len(features)), np.float32)
    for target, column in enumerate(features):
        x[:, target] = _numeric_column(path, names[column], frame.iloc[:, column])
    if label is None:
        return Table(x, None)
    labels = frame.iloc[:, names.index(label)]
    missing = labels.isna().to_numpy()
    if missing.any():
        row = int(np.argmax(missing))
        raise ValueError(f"{path}: expected a label in column {label!r}, got none in row {row}")
    if labels.dtype.kind in "fiub":
        return Table(x, labels.to_numpy(dtype=labels.dtype.kind.replace("b", "i") + "8"))
    return Table(x, _parse_labels([str(value) for value in labels]))


def _numeric_column(path: Path, name: str, series: Any) -> np.ndarray:
    with np.errstate(over="ignore"):
        if series.dtype.kind in "fiub":
            return series.to_numpy(dtype=np.float32, na_value=np.nan)
        values = series.to_numpy(dtype=object)
        for row, value in enumerate(values):
            if not _is_number(value):
                raise _not_a_number(path, [name], [value], f"row {row}")
        return values.astype(np.float32)
