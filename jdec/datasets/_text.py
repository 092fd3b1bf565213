"""Tables in text files: .csv and .tsv."""

import array
import csv
import itertools
import logging
import re
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jdec._files import LABEL_NAMES, Table, reading
from jdec._host_arrays import RowBuffer
from jdec.datasets._labels import parse_labels
from jdec.datasets._roles import LARGEST_EXACT, Choice, Roles, as_text, choose_roles, way_out

#: A line may have this many cells.
MAX_COLUMNS = 1_000_000

_MAX_VALUES = 2**17  # that are held before they are written to the array

_Records = Iterator[tuple[int, list[str]]]  # each with the number of its line

_LOGGER = logging.getLogger("jdec")
_MISSING = ("", "na", "n/a", "null", "none", "?")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas", " ": "blanks"}
_DECIMAL_COMMA = re.compile(r"\s*\"?[+-]?\d+,\d+(e[+-]?\d+)?\"?\s*", re.IGNORECASE)
_OTHER_FORMATS = {
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
    b"\x1f\x8b": "a gzipped file; unpack it",
    b"PK\x03\x04": "a zip archive or a spreadsheet; save it as CSV",
    b"PAR1": "a parquet file; name it .parquet",
    b"\x93NUMPY": "a NumPy file; name it .npy",
}


def read_text(path: Path, delimiter: str, choice: Choice) -> Table:
    """Read a table of numbers as float64; labels as :func:`parse_labels` returns them.

    Without a header, the columns are called 1, 2, ….
    """
    _check_format(path)
    records = _records(path, delimiter)
    names, named, records = _header(path, records, delimiter)
    roles = choose_roles(path, names, choice, named=named)
    chosen = set(roles.features)
    keep = [position in chosen for position in range(len(names))]
    features = [names[position] for position in roles.features]
    rows = RowBuffer(len(features), np.float64)
    values = array.array("d")  # of the rows that are not in the buffer yet
    labels: list[str] = []
    ids: list[str] = []
    stripped: dict[str, str] = {}  # one copy of each label
    for row, (line, cells) in enumerate(records):
        if len(cells) != len(names):
            raise _ragged(path, delimiter, names, cells, line, first=named and row == 0)
        if roles.label is not None:
            label = cells[roles.label]
            labels.append(stripped.setdefault(label, label.strip()))
        if roles.id is not None:
            ids.append(cells[roles.id].strip())
        if len(features) < len(names):
            cells = list(itertools.compress(cells, keep))
        try:
            values.extend(map(float, cells))
        except ValueError:
            raise _no_number(path, delimiter, features, cells, line) from None
        text = "".join(cells)
        if "_" in text or not text.isascii():
            raise _no_number(path, delimiter, features, cells, line)
        if len(values) >= _MAX_VALUES:
            rows.append(values)
            del values[:]
    rows.append(values)
    x = rows.finish()
    if x.size and max(x.max(), -x.min()) >= LARGEST_EXACT:
        _check_exact(path, _records(path, delimiter), names, roles, x)
    if roles.id is not None and "" in ids:
        raise ValueError(
            f"{path}: expected an identifier in column {names[roles.id]!r} for every row, got "
            f"none in row {ids.index('')}"
        )
    if len({*stripped.values()}) < len(stripped):
        _LOGGER.warning(
            "%s: labels that differ in the blanks around them alone are taken for the same", path
        )
    label_name = None if roles.label is None else names[roles.label]
    return Table(
        x,
        None if label_name is None else parse_labels(f"{path}: {label_name}", labels),
        label_name,
        tuple(features) if named else None,
        None if roles.id is None else as_text(path, names[roles.id], ids),
    )


def _is_number(text: str) -> bool:
    # As CSV files write numbers: float() also takes 1_000, and digits of other scripts.
    if not text.isascii() or "_" in text:
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_format(path: Path) -> None:
    with reading(path, "a readable file"), path.open("rb") as file:
        start = file.read(1024)
    found = next((what for magic, what in _OTHER_FORMATS.items() if start.startswith(magic)), None)
    if found is None and b"\0" in start:
        found = "one with zero bytes, such as UTF-16; save it as UTF-8"
    if found is not None:
        raise ValueError(f"{path}: expected UTF-8 text, got {found}")


def _lines(file: Iterable[str], delimiter: str) -> Iterator[str]:
    for line in file:
        if len(line) > MAX_COLUMNS and line.count(delimiter) >= MAX_COLUMNS:
            raise ValueError(f"a line of {line.count(delimiter) + 1} cells")
        yield line


def _records(path: Path, delimiter: str) -> _Records:
    with reading(path, "delimited UTF-8 text"), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(_lines(file, delimiter), delimiter=delimiter, strict=True)
        for cells in reader:
            if cells:
                yield reader.line_num, cells


def _check_exact(
    path: Path, records: _Records, names: list[str], roles: Roles, x: np.ndarray
) -> None:
    """Raise for whole numbers that float64 rounds, which may be identifiers, not measurements."""
    large = (np.abs(x) >= LARGEST_EXACT).any(axis=0)
    columns = [place for place, found in zip(roles.features, large, strict=True) if found]
    for line, cells in records:
        for place in columns:
            digits = cells[place].strip().lstrip("+-").lstrip("0")
            if digits.isdecimal() and (len(digits) > 16 or int(digits) > LARGEST_EXACT):
                raise ValueError(
                    f"{path}: expected numbers within ±2**53, beyond which float64 rounds whole "
                    f"numbers, got {reprlib.repr(cells[place])} in column "
                    f"{reprlib.repr(names[place])}, line {line}; {way_out(names[place])}"
                )


def _header(path: Path, records: _Records, delimiter: str) -> tuple[list[str], bool, _Records]:
    """Return the names of the columns, whether the file has them, and the records of data."""
    first = next(records, None)
    if first is None:
        raise ValueError(f"{path}: expected rows, got blank lines only")
    names = [cell.strip() for cell in first[1]]
    if re.fullmatch(r"sep=.?", delimiter.join(names).rstrip(), re.IGNORECASE):
        raise ValueError(
            f"{path}: expected a header or numbers, got {delimiter.join(names)!r} in line 1; "
            "delete this line, which gives Excel the separator, and separate the cells by "
            f"{_SEPARATORS[delimiter]}"
        )
    if names[0].startswith("#"):
        # numpy.savetxt puts this mark before a header.
        names[0] = names[0].lstrip("#").strip()
        second = next(records, (0, []))
        fits = len(second[1]) == len(names)
        if not fits or not _is_header(names) or second[1][0].startswith("#"):
            raise ValueError(
                f"{path}: expected a header or numbers, got a line that begins with '#'; comment "
                "lines ('#') must go"
            )
        return names, True, itertools.chain([second], records)
    if _is_header(names):
        numbers = [name for name in names if _is_number(name)]
        if numbers and not _names_a_label(names):
            _LOGGER.warning(
                "%s: the first line is taken for the names of the columns, though it holds "
                "numbers (%s); if it is a row of data, put a line of names above it",
                *(path, ", ".join(numbers[:3])),
            )
        return names, True, records
    if len(names) > 1 and set(names) == {str(column) for column in range(len(names))}:
        # As pandas names columns without names, in any order.
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        _LOGGER.warning(
            "%s: the first line (%s) is taken for a row of data, though it holds each number from "
            "0 to %d once; if it is a header, delete it or give the columns names",
            *(path, shown, len(names) - 1),
        )
    numbered = [str(column) for column in range(1, len(names) + 1)]
    return numbered, False, itertools.chain([first], records)


def _is_header(cells: list[str]) -> bool:
    if cells[0] == "" and cells[1:] == [str(column) for column in range(len(cells) - 1)]:
        return len(cells) > 2  # pandas' names of unnamed columns, after those of the row index
    others = [cell for cell in cells if not _is_number(cell)]
    if len(others) == len(cells) or not others:
        return bool(others)
    if _names_a_label(others):
        return True
    # Numbers beside text: names such as those of wavelengths rise. Anything else, also a row with
    # missing values, is data, which would be lost silently.
    numbers = [float(cell) for cell in cells if _is_number(cell)]
    rising = all(first < second for first, second in itertools.pairwise(numbers))
    several = len(numbers) > 1 or numbers == [0]
    return rising and several and not all(cell.lower() in _MISSING for cell in others)


def _names_a_label(cells: Iterable[str]) -> bool:
    return any(cell.lower() in LABEL_NAMES for cell in cells)


def _ragged(
    path: Path, delimiter: str, names: list[str], cells: list[str], line: int, *, first: bool
) -> ValueError:
    hint = _hint(delimiter, cells)
    if not hint and first:
        hint = (
            "; a first column without a name (row names as R writes them) needs one"
            if 1 < len(names) == len(cells) - 1
            else "; a title above the header must go"
        )
    return ValueError(f"{path}: expected {len(names)} cells, got {len(cells)} in line {line}{hint}")


def _no_number(
    path: Path, delimiter: str, names: list[str], cells: list[str], line: int
) -> ValueError:
    column, value = next(
        (name, cell) for name, cell in zip(names, cells, strict=True) if not _is_number(cell)
    )
    hint = _hint(delimiter, cells)
    if not hint and value.strip().lower() in _MISSING:
        hint = "; fill or drop such rows first"
    shown = " ".join(reprlib.repr(value).split())
    return ValueError(
        f"{path}: expected a number in column {reprlib.repr(column)}, got {shown} in line {line}"
        f"{hint or f'; {way_out(column)}'}"
    )


def _hint(delimiter: str, cells: list[str]) -> str:
    """Return what seems wrong with a line that is not a row of numbers, or an empty text."""
    if cells[0].startswith("#") and not cells[0].startswith(("#N/A", "#DIV", "#VALUE", "#REF")):
        return "; comment lines ('#') must go"
    line = delimiter.join(cells)
    for mark, name in _SEPARATORS.items():
        parts = line.split(mark) if mark != " " else line.split()
        n_numbers = sum(1 for part in parts if _is_number(part) or _DECIMAL_COMMA.fullmatch(part))
        certain = n_numbers >= len(parts) / 2 if mark in ";\t|" else n_numbers > len(parts) / 2
        if mark == delimiter or len(parts) < 2 or (mark == "," and len(cells) > 1) or not certain:
            continue
        commas = mark != "," and any(map(_DECIMAL_COMMA.fullmatch, parts))
        return (
            f"; the separators seem to be {name}{', with decimal commas' if commas else ''}: "
            f"separate the cells by {_SEPARATORS[delimiter]}"
            f"{', with decimal points' if commas else ''}"
        )
    if any(map(_DECIMAL_COMMA.fullmatch, cells)):
        return "; write a decimal comma as a point, and no commas between thousands"
    return ""
