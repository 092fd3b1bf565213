"""Table 2: accuracy of every method on every data set.

The paper shows that DEC outperforms k-means, LDMGI and SEC on images and text, mostly because it
trains the encoder ("DEC, encoder frozen"). It reports the best of nine values of each
hyper-parameter; here that is one column, and mean ± std over seeds at the default another.

    python -m benchmarks.paper table2 --dataset mnist reuters10k --preset fast --seeds 0-4
    python -m benchmarks.paper table2 --dataset mnist --preset paper --seeds 0 --no-sweeps

Expected: DEC above its initialisation, both above k-means, in the mean.
"""

from typing import Any

from benchmarks.paper.cells import Cell
from benchmarks.paper.options import Options
from benchmarks.paper.published import TABLE2
from benchmarks.paper.tables import method_tables

DATASETS = ("mnist", "stl10", "cifar10", "reuters10k", "reuters")
DEFAULT_DATASETS = ("mnist", "reuters10k")

_ONCE = ("k-means (scikit-learn)", "LDMGI", "SEC")
_METHODS = ("k-means", "DEC initialisation", "DEC, encoder frozen", "DEC", *_ONCE)


def cells(options: Options) -> list[Cell]:
    """Return the cells of the table."""
    return options.cells(_METHODS, once=_ONCE)


def table(records: list[dict[str, Any]]) -> str:
    """Render the table, one for each data set and preset."""
    return method_tables(records, _METHODS, DATASETS, TABLE2)
