"""Table 3: every method on the embedding of the pretrained autoencoder.

The paper shows that the autoencoder explains much of DEC's lead over k-means, but not all, and that
it does not help LDMGI and SEC.

    python -m benchmarks.paper table3 --dataset mnist reuters10k --preset fast --seeds 0-4

Expected: DEC above AE + k-means in the mean.
"""

from typing import Any

from benchmarks.paper.cells import Cell
from benchmarks.paper.options import Options
from benchmarks.paper.published import TABLE3
from benchmarks.paper.tables import method_tables

DATASETS = ("mnist", "stl10", "cifar10", "reuters10k", "reuters")
DEFAULT_DATASETS = ("mnist", "reuters10k")

_METHODS = ("AE + k-means", "AE + LDMGI", "AE + SEC", "DEC")


def cells(options: Options) -> list[Cell]:
    """Return the cells of the table."""
    return options.cells(_METHODS, once=("AE + LDMGI", "AE + SEC"))


def table(records: list[dict[str, Any]]) -> str:
    """Render the table, one for each data set and preset."""
    return method_tables(records, _METHODS, DATASETS, TABLE3)
