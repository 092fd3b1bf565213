"""``python -m jdec`` is the command line."""

import sys

from jdec.cli import main

if __name__ == "__main__":
    sys.exit(main())
