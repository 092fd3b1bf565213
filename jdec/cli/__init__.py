"""The command line."""

from jdec.cli.commands import main as main

__all__ = ["main"]
