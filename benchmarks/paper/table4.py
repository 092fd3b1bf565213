"""Table 4: classes of unequal size.

Rows of class 0 are kept with probability r_min, those of the last class with 1, linear in between.
The paper shows that DEC is fairly robust to that.

    python -m benchmarks.paper table4 --dataset mnist --preset fast --seeds 0-2

Expected: DEC more than 10 points above k-means at every r_min.
"""

from typing import Any

from benchmarks.paper.cells import Cell, Rows
from benchmarks.paper.options import Options
from benchmarks.paper.published import TABLE4
from benchmarks.paper.tables import budget, difference, find, groups, markdown, mean_and_std, notes

DATASETS = DEFAULT_DATASETS = ("mnist",)

_RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
_METHODS = ("k-means", "AE + k-means", "DEC")


def cells(options: Options) -> list[Cell]:
    """Return the cells of the table."""
    return [
        Cell(Rows(dataset, r_min=rate), method, options.preset, seed)
        for dataset in options.datasets
        for seed in options.seeds
        for rate in options.values(_RATES)
        for method in _METHODS
        if options.wants(method)
    ]


def table(records: list[dict[str, Any]]) -> str:
    """Render the table, one for each data set and preset."""
    texts = []
    for dataset, preset in groups(records, DATASETS):
        rows = []
        for rate in _RATES:
            for method in _METHODS:
                published = TABLE4[method][rate] if dataset == "mnist" else None
                found = find(records, dataset, method, preset, r_min=rate)
                rows.append(
                    [
                        f"{rate:g}",
                        method,
                        "–" if published is None else f"{published:.2f}",
                        mean_and_std(found),
                        difference(found, published),
                        str(len(found)),
                        budget(found),
                    ]
                )
        header = ["r_min", "method", "paper", "mean ± std", "difference", "n seeds", "budget"]
        texts.append(f"**{dataset}, preset `{preset}`**\n\n{markdown(header, rows)}")
        texts.append(notes(records, dataset))
    return "\n\n".join(filter(None, texts))
