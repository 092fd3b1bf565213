"""The command line."""

from jdec.cli.entry import main as main

__all__ = ["main"]
