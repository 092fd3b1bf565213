"""Roles of the columns of a table: classes, identifiers, features."""

import collections
import difflib
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdec._archives import unpacked_limit
from jdec._checks import as_tuple, shown
from jdec._files import LABEL_NAMES

#: float64 rounds larger whole numbers.
LARGEST_EXACT = 2**53

_MAX_NAMES_SHOWN = 20
_SHOWN = reprlib.Repr()
_SHOWN.maxstring = 60


class Choice(NamedTuple):
    """The roles that the user gives to columns of a file."""

    label: str | None = None  # None for one of LABEL_NAMES, empty for none
    id: str | None = None
    drop: tuple[str, ...] = ()


class Roles(NamedTuple):
    """Positions of the columns by role."""

    features: tuple[int, ...]
    label: int | None
    id: int | None


def as_choice(label: Any, id: Any, drop: Any) -> Choice:
    """Return the options of :func:`jdec.datasets.load_dataset` as a choice.

    Examples:
        >>> as_choice("none", None, ["town"])
        Choice(label='', id=None, drop=('town',))
    """
    if isinstance(drop, str):
        drop = (drop,)
    drop = as_tuple("drop", drop, "names of columns")
    for option, name in (("label", label), ("id", id), *(("drop", name) for name in drop)):
        if not isinstance(name, str) and (name is not None or option == "drop"):
            raise ValueError(f"{option}: expected the name of a column (text), got {shown(name)}")
    label = "" if label == "none" else label
    named = collections.Counter(name for name in (label or None, id, *drop) if name is not None)
    for name, count in named.items():
        if count > 1:
            raise ValueError(
                f"label, id, drop: expected each column once, got {shown(name)} {count} times"
            )
    return Choice(label, id, drop)


def choose_roles(
    path: Path, names: list[str], choice: Choice, *, named: bool = True, skip: Sequence[int] = ()
) -> Roles:
    """Assign a role to each column of a table; to those at the positions ``skip`` only if chosen.

    Where the file does not name its columns (``named``), there are no classes unless chosen.

    Examples:
        >>> choose_roles(Path("a.csv"), ["a", "label", "b"], Choice())
        Roles(features=(0, 2), label=1, id=None)
    """
    places = {name: position for position, name in enumerate(names)}
    counts = collections.Counter(names)

    def position_of(option: str, name: str) -> int:
        if counts[name] == 1:
            return places[name]
        if name in places:
            raise ValueError(
                f"{path}: {option}: expected a column that is there once, got {shown(name)}, "
                f"which is there {counts[name]} times"
            )
        close = difflib.get_close_matches(name, places, n=1)
        raise ValueError(
            f"{path}: {option}: expected one of the columns {_listed(names)}; got {shown(name)}"
            f"{f'; did you mean {close[0]!r}?' if close else ''}"
        )

    id = None if choice.id is None else position_of("id", choice.id)
    dropped = [position_of("drop", name) for name in choice.drop]
    rest = {*range(len(names))} - {id, *skip, *dropped}
    label = None
    if choice.label:
        label = position_of("label", choice.label)
    elif choice.label is None and named:
        label = default_label(path, names, sorted(rest))
    features = sorted(rest - {label})
    for position in features:
        name = names[position]
        if not name.strip() or name.startswith(("Unnamed: ", "__index_level_")):
            what = _SHOWN.repr(name) if name.strip() else f"{position + 1} without a name"
            raise ValueError(
                f"{path}: expected measurements, got column {what}, as a saved row index is "
                f"called; {way_out(name)}"
            )
    if not features:
        raise ValueError(
            f"{path}: expected a column of numbers to cluster by, got 0 feature(s): "
            f"{_listed(names)} and none left"
        )
    return Roles(tuple(features), label, id)


def as_text(path: Path, name: str, ids: list[str]) -> np.ndarray:
    """Return identifiers as an array of text, whose entries all take the size of the longest."""
    longest = max(map(len, ids), default=0)
    if 4 * longest * len(ids) > unpacked_limit(path.stat().st_size):
        raise ValueError(
            f"{path}: expected short identifiers in column {_SHOWN.repr(name)}, got one of "
            f"{longest} characters"
        )
    return np.array(ids, dtype=str)


def way_out(name: str) -> str:
    """Return how to leave a column out, or to give it another role than a feature's."""
    return (
        f"leave it out (--drop {_argument(name)}, in Python drop=[{_SHOWN.repr(name)}]), or say "
        "what else it is by --id, --label"
    )


def _argument(name: str) -> str:
    if "," in name and len(name) <= _SHOWN.maxstring:
        return f"""'"{name}"'"""  # a comma alone separates names
    plain = name.isascii() and name.replace("_", "").replace(".", "").replace("-", "").isalnum()
    return name if plain and len(name) <= _SHOWN.maxstring else _SHOWN.repr(name)


def default_label(path: Path, names: Sequence[str], places: Sequence[int]) -> int | None:
    """Return which of some columns has a name of :data:`LABEL_NAMES`, or raise if several have."""
    found = [place for place in places if names[place].lower() in LABEL_NAMES]
    if len(found) > 1:
        raise ValueError(
            f"{path}: expected at most one label column, got "
            f"{', '.join(names[place] for place in found)}; say which it is: "
            f"--label {names[found[-1]]} (label={names[found[-1]]!r}), or none of them: "
            "--label none (label='none')"
        )
    if not found:
        return None
    name = names[found[0]]
    if name.lower() == "y" and any(other.lower() == "x" for other in names):
        raise ValueError(
            f"{path}: expected the role of column {name!r}, as beside a column 'x' it may be a "
            f"coordinate or the classes; say --label {name} (label={name!r}) if it holds the "
            "classes, --label none (label='none') if it is a feature"
        )
    return found[0]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(_SHOWN.repr(name) for name in names[:_MAX_NAMES_SHOWN])
    rest = len(names) - _MAX_NAMES_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown
