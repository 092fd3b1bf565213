"""The entry point; the process that only supervises another one does not import JAX."""

import sys
from collections.abc import Sequence

from jdec.cli.supervision import supervise, wants_supervision


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, by default the arguments of the process; return the exit code.

    It is 0, 1 for a failure, 2 for an invalid command line, 130 when interrupted. A failure is one
    line on standard error.
    """
    if argv is None and wants_supervision(sys.argv[1:]):
        return supervise(sys.argv[1:])
    from jdec.cli.commands import run

    return run(argv)
