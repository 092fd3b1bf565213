"""The pictures of benchmarks/README.md, each drawn from the records alone."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.records import RESULTS, read_records
from benchmarks.tables import Record, newest, platform_of
from jdec.plotting import save_figure

# Distinct also with impaired colour vision: Petroff 2021, arXiv:2107.02270.
_COLOURS = ("#3f90da", "#bd1f01", "#ffa90e", "#832db6", "#717581", "#a96b59")
_MARKERS = "os^Dvx"
_WIDTH = 8.2


def draw_all(folder: Path = RESULTS) -> list[Path]:
    """Draw what there are records of, one picture a device; return the files."""
    written = []
    rooflines: dict[str, list[Record]] = {}
    for record in newest(read_records("roofline"), "precision", "dims"):
        rooflines.setdefault(platform_of(record), []).append(record)
    for platform, records in rooflines.items():
        written.append(folder / f"roofline_{platform}.png")
        save_figure(draw_roofline(records), written[-1])
    scalings: dict[str, list[Record]] = {}
    for record in newest(read_records("scaling"), "cost", "variable"):
        scalings.setdefault(platform_of(record), []).append(record)
    for platform, records in scalings.items():
        written.append(folder / f"scaling_{platform}.png")
        save_figure(draw_scaling(records), written[-1])
    return written


def draw_roofline(records: list[Record]) -> Figure:
    """Draw each phase's rate over its arithmetic intensity, below what the machine could do.

    Args:
        records: Of ``roofline``, one a precision; points grow with the batch.

    Returns:
        A figure of one panel a precision.
    """
    figure = Figure(figsize=(_WIDTH, 4.6), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(records), sharex=True, sharey=True, squeeze=False)[0]
    for ax, record in zip(panels, records, strict=True):
        points = [point for point in record["points"] if point["intensity"] is not None]
        peak = float(np.median([point["peak_gflops"] for point in points]))
        bandwidth = float(np.median([point["bandwidth_gbytes"] for point in points]))
        intensities = [point["intensity"] for point in points] + [peak / bandwidth]
        x = np.geomspace(min(intensities) / 2, max(intensities) * 2, 200)
        ax.plot(x, np.minimum(peak, bandwidth * x), color="0.2", lw=1.5)
        style: dict[str, Any] = {"size": 8, "color": "0.2", "va": "bottom", "ha": "right"}
        ax.text(x[-1], peak * 1.03, f"peak {peak:.0f} GFLOP/s, triad {bandwidth:.0f} GB/s", **style)
        for index, phase in enumerate(dict.fromkeys(point["phase"] for point in points)):
            mine = [point for point in points if point["phase"] == phase]
            sizes = np.array([point["batch_size"] for point in mine])
            ax.scatter(
                [point["intensity"] for point in mine],
                [point["gflops"] for point in mine],
                s=20 + 12 * np.log2(sizes / 256),
                color=_COLOURS[index],
                marker=_MARKERS[index],
                label=phase,
                alpha=0.85,
                linewidths=0,
            )
        ax.set(xscale="log", yscale="log", title=record["precision"], xlabel="FLOP/byte")
        _tidy(ax)
    panels[0].set_ylabel("GFLOP/s")
    panels[0].set_ylim(top=1.4 * panels[0].get_ylim()[1])
    marks, names = panels[0].get_legend_handles_labels()
    figure.legend(marks, names, ncols=len(names), frameon=False, loc="outside lower center")
    figure.suptitle(f"{_roofline_finding(records)}\nlarger marks: larger batches", weight="bold")
    return figure


def _roofline_finding(records: list[Record]) -> str:
    points = [(point, record["precision"]) for record in records for point in record["points"]]
    shares = [point["share_of_peak"] for point, _ in points]
    best, precision = points[int(np.argmax(shares))]
    return (
        f"{min(shares):.0%} to {max(shares):.0%} of the float32 peak; most in {best['phase']}, "
        f"{best['batch_size']} rows, {precision}"
    )


def draw_scaling(records: list[Record]) -> Figure:
    """Draw each cost over N, K and D in double logarithm, with the fitted lines.

    Args:
        records: Of ``scaling``, one a cost and variable.

    Returns:
        A figure of one panel a variable.
    """
    variables = [name for name in "NKD" if any(name == record["variable"] for record in records)]
    costs = list(dict.fromkeys(record["cost"] for record in records))
    figure = Figure(figsize=(_WIDTH, 3.8), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(variables), squeeze=False)[0]
    for ax, variable in zip(panels, variables, strict=True):
        for record in records:
            if record["variable"] != variable:
                continue
            index, fit = costs.index(record["cost"]), record["fit"]
            label = f"{record['cost']}: {variable}$^{{{fit['exponent']:.2f}}}$"
            style: dict[str, Any] = {"color": _COLOURS[index], "ls": "", "ms": 5}
            sizes = np.asarray(record["sizes"], np.float64)
            ax.plot(sizes, record["seconds"], marker=_MARKERS[index], label=label, **style)
            fitted = sizes[(sizes >= fit["first"]) & (sizes <= fit["last"])]
            line = fit["factor"] * fitted ** fit["exponent"]
            ax.plot(fitted, line, color=_COLOURS[index], lw=1.2)
        ax.set(xscale="log", yscale="log", xlabel=variable)
        ax.legend(fontsize=8, frameon=False)
        _tidy(ax)
    panels[0].set_ylabel("seconds")
    figure.suptitle(_scaling_finding(records), weight="bold")
    return figure


def _scaling_finding(records: list[Record]) -> str:
    exponents = {
        record["variable"]: record["fit"]["exponent"]
        for record in records
        if record["cost"] == "targets"
    }
    if not exponents:
        return "Cost over size, with fitted lines"
    powers = " · ".join(f"{name}$^{{{value:.2f}}}$" for name, value in exponents.items())
    return f"P from embeddings costs {powers}; lines where they were fitted"


def _tidy(ax: Any) -> None:
    ax.grid(color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
