"""Render tables and pictures of README.md and benchmarks/README.md from the records in results/.

python -m benchmarks report
python -m benchmarks report --check      # only say whether the tables are up to date
"""

import argparse
import re
import sys
from pathlib import Path

from benchmarks import figures
from benchmarks.tables import TABLES

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=["report"])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if outdated")
    arguments = parser.parse_args()
    outdated = write_pages(check=arguments.check)
    if not arguments.check:
        figures.draw_all()
    return 1 if arguments.check and outdated else 0


def write_pages(*, check: bool = False) -> list[Path]:
    """Render the pages that are out of date, or only name them; return them."""
    outdated = [page for page in PAGES if render(page.read_text()) != page.read_text()]
    for page in outdated:
        if not check:
            page.write_text(render(page.read_text()))
        print(f"{page.relative_to(ROOT)}: {'outdated' if check else 'written'}")
    return outdated


def render(text: str) -> str:
    """Fill each ``<!-- table: NAME -->`` of a page."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"<!-- table: {name} -->\n{TABLES[name]()}\n<!-- end: {name} -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end: \1 -->", fill, text, flags=re.DOTALL)


if __name__ == "__main__":
    sys.exit(main())
