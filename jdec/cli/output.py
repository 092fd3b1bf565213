"""Standard output and standard error: encodings, flushing, warnings and errors as single lines."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any


class UsageError(Exception):
    """The command line is invalid."""


def replace_unencodable() -> None:
    """Print characters that the encoding of a stream lacks as question marks."""
    for stream in (sys.stdout, sys.stderr):
        strict = ("strict", "surrogateescape", "surrogatepass")
        if isinstance(stream, io.TextIOWrapper) and stream.errors in strict:
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def flushed_output() -> Iterator[None]:
    """Flush the output, or fail, before the command ends."""
    try:
        try:
            yield
        finally:
            _flush()
    except OSError:
        try:
            _flush()
        except OSError:
            # At exit Python would flush again, fail, and print its own message.
            with contextlib.suppress(AttributeError, OSError):  # not a file
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Print the library's warnings and log messages as single lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("jdec: %(message)s"))
    logger, others = logging.getLogger("jdec"), logging.getLogger("matplotlib")
    logger.addHandler(handler)
    level = others.level
    others.setLevel(logging.ERROR)  # else it logs its font cache
    logged: list[str] = []

    def remember(record: logging.LogRecord) -> bool:
        logged.append(record.getMessage())
        return True

    handler.addFilter(remember)

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        from jdec._rows import IdentifierWarning  # imports JAX, which a warning comes after

        # The reader of a table logs the same, with the options of the command.
        if issubclass(category, IdentifierWarning) and any("number the rows" in s for s in logged):
            return
        print_error(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            yield
        finally:
            logger.removeHandler(handler)
            others.setLevel(level)


def print_error(message: str) -> None:
    """Print one line to standard error."""
    if sys.stderr is not None:  # print() would use standard output
        print(f"jdec: {' '.join(message.split())}", file=sys.stderr)
