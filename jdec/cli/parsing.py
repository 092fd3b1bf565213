"""From the command line to the arguments of a command; lists of numbers and names."""

import contextlib
import csv
import dataclasses
import io
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from jdec._checks import shown
from jdec.cli.output import UsageError

# What the arguments need of tyro, which only this module imports.
MISSING, Positional, arg = tyro.MISSING, tyro.conf.Positional, tyro.conf.arg

_MAX_VALUES = 10_000

_Command = TypeVar("_Command")


def parse(
    command: type[_Command], argv: Sequence[str], default: _Command | None = None
) -> _Command:
    """Parse the arguments of a command, whose name is ``argv[0]``, or raise a UsageError."""
    argv, errors = _join_flags(argv), io.StringIO()
    defaults: Any = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(errors):
            parsed = tyro.cli(command, args=argv[1:], prog=f"jdec {argv[0]}", **defaults)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        message = _mistake_in_a_list(command, argv) or _one_line(errors.getvalue())
        raise UsageError(f"{message}; see jdec {argv[0]} --help") from None
    given = _options(argv)
    for option, values in _lists(parsed):
        if values == () and option in given:
            raise UsageError(f"{option}: expected at least one value, got none")
    return _expand_paths(parsed, given)


def _join_flags(argv: Sequence[str]) -> list[str]:
    """Join --xla-flags with its value, which may start with dashes as an option does."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1].replace("_", "-") == "--xla-flags":
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _lists(arguments: Any, prefix: str = "--") -> Iterator[tuple[str, Any]]:
    """Yield the options that take any number of values, and their values."""
    hints = typing.get_type_hints(type(arguments))
    for entry in dataclasses.fields(arguments):
        hint, value = hints[entry.name], getattr(arguments, entry.name)
        name = prefix + entry.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from _lists(value, f"{name}.")
        elif tuple in [typing.get_origin(part) for part in (hint, *typing.get_args(hint))]:
            yield name, value


def _options(argv: Sequence[str]) -> dict[str, list[str]]:
    """Return the options of a command line, and the words after each up to the next."""
    found: dict[str, list[str]] = {}
    words: list[str] = []
    for word in argv[1:]:
        if word.startswith("-") and not re.fullmatch(r"-[\d.]+", word):
            name, equals, value = word.partition("=")
            words = [value] if equals else []
            found[name.replace("_", "-")] = words
        else:
            words.append(word)
    return found


def _mistake_in_a_list(command: type, argv: Sequence[str]) -> str | None:
    """Explain which word that is not a number was parsed as a value of a list of numbers."""
    entries = dataclasses.fields(command)
    required = [entry.name for entry in entries if entry.default is entry.default_factory]
    options = _options(argv)
    for option, _ in _lists(command(**dict.fromkeys(required, ""))):
        words = [word for word in options.get(option, ()) if not _is_number(word)]
        if words and re.fullmatch(r"[\d.,;x\[\]()]+", words[-1]):
            return f"{option}: expected numbers with spaces between, got {shown(words[-1])}"
        if words:
            return (
                f"{option} takes all values that follow it, including {shown(words[-1])}; put the "
                f"data before the options, or use --: {option} 8 8 -- {words[-1]}"
            )
    return None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _expand_paths(arguments: _Command, given: dict[str, list[str]]) -> _Command:
    """Expand ~ in paths, as in --out=~/run, where the shell does not; an empty path is invalid."""
    expanded = {}
    for name, value in vars(arguments).items():
        if isinstance(value, Path):
            option = f"--{name.replace('_', '-')}"
            if given.get(option) == [""]:  # Path("") is the current directory
                raise UsageError(f"{option}: expected a path, got an empty text")
            try:
                expanded[name] = value.expanduser()
            except RuntimeError:
                raise UsageError(f"{name}: expected a path, got {value}: no such user") from None
    return dataclasses.replace(arguments, **expanded)  # type: ignore[type-var]


def _one_line(box: str) -> str:
    # tyro draws a box, or a rule in encodings without box characters: the message is the text
    # between the title and the next rule.
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip("│╭╮╰╯ ") for line in box.splitlines()]
    message: list[str] = []
    for line in lines[1:]:
        is_rule = set(line) in ({"─"}, {"-"})
        if message and (is_rule or line.startswith("Got errors")):
            break
        if not is_rule:
            message.append(line)
    text = " ".join(" ".join(message).split())
    return text if len(text) <= 400 else f"{text[:400]}…"


def integers(name: str, text: str) -> tuple[int, ...]:
    """Parse an integer, a range or a list: ``5``, ``5-15``, ``5,7,10-12``."""
    values: list[int] = []
    for part in text.split(","):
        # Longer numbers are out of range everywhere, and slow to parse.
        match = re.fullmatch(r"\s*([0-9]{1,20})\s*(?:-\s*([0-9]{1,20})\s*)?", part)
        if not match:
            raise ValueError(f"{name}: expected integers like 5, 5-15 or 5,7,9; got {shown(text)}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"{name}: expected an increasing range, got {part.strip()!r}")
        if last - first + len(values) >= _MAX_VALUES:
            raise ValueError(f"{name}: expected at most {_MAX_VALUES} values, got {shown(text)}")
        values += range(first, last + 1)
    return tuple(values)


def numbers(name: str, text: str | None) -> tuple[float, ...]:
    """Parse a number or a list: ``1``, ``0.5,1,2``."""
    parts = [] if text is None else text.split(",")
    try:
        if any("_" in part for part in parts) or len(parts) > _MAX_VALUES:
            raise ValueError
        return tuple(map(float, parts))
    except ValueError:
        raise ValueError(f"{name}: expected numbers like 0.5,1,2; got {shown(text)}") from None


def names(name: str, text: str | None) -> tuple[str, ...]:
    """Parse a name or a list, names with a comma in quotes: ``a``, ``a,b``, ``"a,b",c``."""
    if not text:
        return () if text is None else ("",)  # a column without a name
    try:
        return tuple(next(csv.reader([text], skipinitialspace=True, strict=True)))
    except csv.Error as error:
        raise ValueError(f"{name}: expected names like a or a,b; got {shown(text)}") from error
