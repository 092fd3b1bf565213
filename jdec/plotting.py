"""Figures, the only module that imports Matplotlib: on first use, and without pyplot.

So no backend is chosen and no figure stays open.
"""

import contextlib
import itertools
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA

from jdec._checks import check_integer, check_positive, check_rank, check_same_length
from jdec._io import atomic_write
from jdec._rows import as_float32, check_finite_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Distinct for colour-blind readers as well: Petroff 2021, arXiv:2107.02270.
_TEN_COLOURS = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"]
_TEN_COLOURS += ["#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"]
_DPI, _WIDTH = 110, 8.2  # 902 pixels
_GAP = 0.06  # between two samples, in image heights
_MAX_NUMBERS, _MAX_NAMES, _MAX_CLUSTERS = 60, 40, 30  # limits of legibility
_AXES = {"n_clusters": "K", "alpha": "α", "learning_rate": "learning rate"}
_CRITERIA = {
    "agreement": "Agreement between seeds (ARI)",
    "silhouette": "Silhouette",
    "generalizability": "G = training loss / held-out loss",
    "kl": "Final KL(P ‖ Q)",
}


def plot_embedding(
    embedding: Any,
    labels: Any,
    *,
    y: Any = None,
    class_names: Any = None,
    centroids: Any = None,
    max_points: int = 10_000,
    title: str | None = None,
) -> "Figure":
    """Draw an embedding in two dimensions, coloured by cluster and optionally by class.

    With up to ten clusters and classes, a class has the colour of its best-matching cluster. The
    heading counts the points outside the axes limits, which exclude outliers.

    Args:
        embedding: Rows z, [N Z], projected onto two principal components where Z > 2.
        labels: Cluster of each row, [N], integers from 0.
        y: Class of each row, [N]: indices into ``class_names``, else any sortable values.
        class_names: Name of each class.
        centroids: Positions of the cluster numbers, [K Z]; by default the medians of the members.
        max_points: Of more rows a fixed random sample of this size is drawn.
        title: First line of the heading.

    Returns:
        A figure of one panel, or of two with ``y``.

    Raises:
        ValueError: If shapes do not match or numbers are not finite.
    """
    rows = as_float32("embedding", embedding)
    centres = rows[:0] if centroids is None else as_float32("centroids", centroids)
    if centres.shape[1] != rows.shape[1]:
        raise ValueError(f"centroids: expected width {rows.shape[1]}, got {centres.shape[1]}")
    _as_classes("labels", labels, rows, range(len(centres) or 2**31))
    classes, names = _as_classes("y", y, rows, class_names)
    check_integer("max_points", max_points)
    labels, n_clusters = np.asarray(labels), len(centres) or int(np.max(labels)) + 1
    points, axis_labels = _project(rows, np.vstack([rows, centres]))
    points, centres = np.split(points, [len(rows)])
    kept = np.random.default_rng(0).permutation(len(rows))[:max_points]  # mixes the classes
    low, high = _robust_limits(points[kept])
    n_outside = int(np.any((points < low) | (points > high), axis=1)[kept].sum())
    notes = [f"{len(kept):,} of {len(rows):,} rows drawn"] * (len(kept) < len(rows))
    notes += [f"{n_outside:,} outside the axes"] * (n_outside > 0)
    notes += ["× cluster centre"] * (n_clusters > _MAX_NUMBERS)
    title = title or f"Embedding of {len(rows):,} rows, latent dimensions: {rows.shape[1]}"
    figure = _new_figure(_WIDTH, 6.2 if y is None else 5.0, title, notes)
    palette, class_palette = _palettes(labels, classes, max(n_clusters, len(names)))
    panels = figure.subplots(1, 1 if y is None else 2, sharex=True, sharey=True, squeeze=False)[0]
    panels[0].set(title=f"by cluster ({n_clusters})", ylabel=axis_labels[1])
    size, alpha = np.clip([600, 30] / np.sqrt(len(kept)), [5, 0.4], [30, 0.9])
    for ax, colours in zip(panels, (palette[labels], class_palette[classes]), strict=False):
        ax.scatter(*points[kept].T, size, colours[kept], alpha=alpha, linewidths=0, rasterized=True)
        ax.set(xlabel=axis_labels[0], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        ax.spines[["top", "right"]].set_visible(False)
    _mark_clusters(panels[0], points, labels, centres, palette)
    if y is not None:
        _name_classes(panels[1], names, class_palette)
    return figure


def plot_history(history: Sequence[Mapping[str, Any]], *, tol: float | None = None) -> "Figure":
    """Draw the training history: losses, changed labels, and scores or else cluster sizes.

    Panels without values are omitted; values that are not finite are gaps, counted in the title.

    Args:
        history: Records in the order they were written, each with "phase" and "step"; others
            ("loss", "kl", "label_change", "cluster_sizes", "acc", "nmi", "ari") may be absent or
            None.
        tol: Fraction of changed labels at which self-training stops, drawn as a dashed line.

    Returns:
        A figure of up to four panels.

    Raises:
        ValueError: If there is no record, or one without phase or step.
    """
    if tol is not None:
        check_positive("tol", tol)
    if not history or any(r.get("phase") is None or r.get("step") is None for r in history):
        raise ValueError("history: expected at least one record, each with phase and step")
    clustering = [record for record in history if record["phase"] == "clustering"]
    losses, phases, end = [], [], 0
    others = [record for record in history if record["phase"] not in ("clustering", "warm-up")]
    for phase, group in itertools.groupby(others, lambda record: record["phase"]):
        start, records = end, list(group)
        end += records[-1]["step"]
        losses += _series(records, "loss", start)
        phases.append((str(phase), start, end))
    scores = [line for key in ("acc", "nmi", "ari") for line in _series(clustering, key)]
    # From the first refresh on, where the mini-batches have no loss yet.
    named = {"kl": "all rows, P renewed", "loss": "mini-batches"}
    kl = [(named[key], *line[1:]) for key in named for line in _series(clustering, key)]
    panels: dict[tuple[str, str], list[Any]] = {
        ("Pretraining", "reconstruction loss"): losses,
        ("Clustering loss", "KL(P ‖ Q)"): kl,
        ("Changed labels", "fraction of rows"): _series(clustering, "label_change"),
        ("Agreement with the classes", "score"): scores,
        ("Cluster sizes", "rows"): [] if scores else _series(clustering, "cluster_sizes"),
    }
    panels = {names: lines for names, lines in panels.items() if lines}
    # An odd last panel spans both columns.
    mosaic: list[Any] = [[i, min(i + 1, len(panels) - 1)] for i in range(0, len(panels), 2)]
    height = 0.5 + 3.0 * max(1, len(mosaic))
    figure = _new_figure(_WIDTH, height, "Training history" + ": no values" * (not panels))
    axes = figure.subplot_mosaic(mosaic).values() if panels else []
    for ax, ((title, ylabel), lines) in zip(axes, panels.items(), strict=True):
        _draw_series(ax, title, ylabel, lines, tol)
        for index, (phase, start, end) in enumerate(phases if title == "Pretraining" else []):
            ax.axvspan(start, end, color="0.93" if index % 2 else "1", zorder=0, lw=0)
            style: dict[str, Any] = {"size": 8, "color": "0.3", "ha": "center", "va": "top"}
            style["rotation"] = 90 if end - start < 0.18 * phases[-1][2] else 0
            ax.text((start + end) / 2, 0.98, phase, transform=ax.get_xaxis_transform(), **style)
    return figure


def plot_top_samples(
    images: Any, q: Any, *, n_per_cluster: int = 10, y: Any = None, class_names: Any = None
) -> "Figure":
    """Draw the images with the highest soft assignment to each cluster, one row per cluster.

    Args:
        images: [N H W] grey or [N H W 3] colour; black to white is the range of the data set.
        q: Soft assignment, [N K]; an image belongs to the cluster of its largest entry.
        n_per_cluster: Maximum number of images per cluster.
        y: Class of each image, [N], as in :func:`plot_embedding`: adds the majority class of each
            cluster, and a red frame around images of other classes.
        class_names: Name of each class.

    Returns:
        A figure of the first 30 clusters from top to bottom, q descending from left to right.

    Raises:
        ValueError: If shapes do not match or numbers are not finite.

    Examples:
        >>> figure = plot_top_samples(np.eye(3).reshape(3, 1, 3), [[0.6, 0.4], [0.9, 0.1], [0, 1]])
        >>> [int(image.get_array().argmax()) for image in figure.axes[0].images]
        [1, 0, 2]

    Source: Xie et al. 2016, Fig. 3.
    """
    images, q = np.asarray(images), as_float32("q", q)
    is_numeric = images.dtype.kind in "fiub" or images.dtype.name == "bfloat16"
    if not is_numeric or 0 in images.shape or images.shape[3:] not in ((), (3,)) or images.ndim < 3:
        got = f"{images.dtype} {images.shape}"
        raise ValueError(f"images: expected numbers [N H W] or [N H W 3], got {got}")
    check_finite_rows("images", images.reshape(len(images), -1))
    check_same_length("q", q, "images", images)
    check_integer("n_per_cluster", n_per_cluster)
    classes, names = _as_classes("y", y, q, class_names)
    labels, members = q.argmax(axis=1), []
    for cluster in range(min(q.shape[1], _MAX_CLUSTERS)):
        rows = np.flatnonzero(labels == cluster)
        members.append(rows[np.argsort(-q[rows, cluster], kind="stable")])
    n_columns = min(n_per_cluster, max(map(len, members)) or 1)
    notes = [f"first {_MAX_CLUSTERS} of {q.shape[1]} clusters"] * (q.shape[1] > _MAX_CLUSTERS)
    notes += ["red frame: not the majority class of the cluster"] * (y is not None)
    right = n_columns * (images.shape[2] / images.shape[1] + _GAP)  # in units of image heights
    inches = float(np.clip(6.3 / right, 0.36, 0.8))
    size = max(_WIDTH, 1.9 + right * inches), 1.2 + len(members) * (1 + _GAP) * inches
    figure = _new_figure(*size, "Samples with the highest soft assignment to each cluster", notes)
    _draw_samples(figure.subplots(), images, members, n_columns, classes, names * (y is not None))
    return figure


def plot_sweep(settings: Sequence[Mapping[str, Any]], axis: str) -> "Figure":
    """Draw the label-free criteria of each setting of a sweep along one of its axes.

    Points are means over seeds, bars their standard deviations, lines the values of other axes.

    Args:
        settings: ``settings`` of a :class:`jdec.selection.sweep.SweepResult`.
        axis: ``n_clusters``, ``alpha`` or ``learning_rate``.

    Returns:
        A figure with a panel for each criterion: agreement between seeds, silhouette,
        generalizability, and KL, which is not comparable between numbers of clusters.

    Raises:
        ValueError: If there are no settings, or none has a value along the axis.
    """
    if not settings or axis not in settings[0]:
        raise ValueError(f"axis: expected one that the settings have, got {axis!r}")
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in settings:
        label = ", ".join(f"{_AXES[name]} {row[name]:g}" for name in _AXES if name != axis)
        lines.setdefault(label, []).append(row)
    n_seeds = max(int(row["n_seeds"]) for row in settings)
    names = [n for n in _CRITERIA if any(np.isfinite(row.get(n, np.nan)) for row in settings)]
    names = [name for name in names if (axis, name) != ("n_clusters", "kl")]
    n_columns = 2 if len(names) > 1 else 1
    n_rows = -(-max(1, len(names)) // n_columns)
    heading = f"Choosing {_AXES[axis]} without labels: mean ± std of {n_seeds} seed"
    figure = _new_figure(_WIDTH, 0.5 + 2.9 * n_rows, heading + "s" * (n_seeds > 1))
    for index, name in enumerate(names):
        ax = figure.add_subplot(n_rows, n_columns, index + 1)
        ax.set_prop_cycle(color=_TEN_COLOURS)
        for label, rows in lines.items():
            x, means, stds = ([row[key] for row in rows] for key in (axis, name, f"{name}_std"))
            ax.errorbar(x, means, np.nan_to_num(stds), fmt="o-", ms=4, capsize=2, label=label)
        ax.set(xlabel=_AXES[axis], title=_CRITERIA[name])
        if axis == "n_clusters":
            ax.locator_params("x", integer=True)
        else:
            ax.set_xscale("log")
        if index == 0 and len(lines) > 1:
            ax.legend(fontsize=8)
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure as PNG, atomically: an existing file is replaced only at the end.

    Args:
        figure: The figure.
        path: A file in an existing folder.

    Raises:
        OSError: If the file cannot be written.
    """
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=_DPI)


@contextlib.contextmanager
def default_style() -> Iterator[None]:
    """Use Matplotlib's default style, ignoring matplotlibrc files, for figures made within.

    Such a file may require TeX. Glyphs that the font lacks are drawn as boxes without a warning.
    """
    matplotlib = _import_matplotlib()
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def _import_matplotlib() -> Any:
    # The import fails if MPLBACKEND names an unknown backend, for example a notebook kernel's. No
    # figure here depends on a backend.
    backend = "" if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", "")
    try:
        import matplotlib
    finally:
        if backend:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend  # for the caller's pyplot
    return matplotlib


def _new_figure(width: float, height: float, title: str, notes: Sequence[str] = ()) -> "Figure":
    _import_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    figure.suptitle("\n".join([title, "; ".join(notes)]).strip(), weight="bold")
    return figure


def _mark_clusters(ax: Any, points: Any, labels: Any, centres: Any, palette: np.ndarray) -> None:
    """Write the number of each cluster at its centre, by default the median of its points."""
    numbers = np.arange(len(centres)) if len(centres) else np.unique(labels)
    if not len(centres):
        centres = np.array([np.median(points[labels == j], axis=0) for j in numbers])
    if len(numbers) > _MAX_NUMBERS:
        ax.plot(*centres.T, "kx", markersize=4)
        return
    for number, centre in zip(numbers, centres, strict=True):
        box = {"boxstyle": "circle,pad=0.2", "fc": "white", "ec": palette[number]}
        style: dict[str, Any] = {"size": 9 if len(numbers) <= 20 else 7, "clip_on": True}
        ax.text(*centre, str(number), ha="center", va="center", bbox=box, **style)


def _name_classes(ax: Any, names: list[str], palette: np.ndarray) -> None:
    ax.set_title(f"by class ({len(names)})")
    if len(names) > _MAX_NAMES:
        return
    from matplotlib.lines import Line2D

    dots = [Line2D([], [], ls="", marker="o", color=c) for c in palette[: len(names)]]
    texts = [f" {name}" for name in names]  # Matplotlib skips labels that begin with _
    n_lines = -(-len(texts) * (max(map(len, texts)) + 5) // 110)
    style: dict[str, Any] = {"ncols": -(-len(texts) // n_lines), "fontsize": 8, "frameon": False}
    ax.figure.legend(dots, texts, loc="outside lower center", title="class", **style)


def _draw_series(ax: Any, title: str, ylabel: str, lines: list[Any], tol: float | None) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    ax.set_prop_cycle(color=_TEN_COLOURS[: 1 if title == "Pretraining" else 10])
    for name, steps, values in lines:
        ax.plot(steps, values, "o-" if len(steps) <= 40 else "-", label=name, markersize=3)
    drawn = np.concatenate([values for _, _, values in lines])
    n_bad = int(np.isnan(drawn).sum())
    ax.set(xlabel="step", ylabel=ylabel, title=title + f" ({n_bad} not finite)" * (n_bad > 0))
    if title in ("Pretraining", "Changed labels"):
        smallest = min(drawn[drawn > 0], default=0)
        scale = {"linthresh": smallest or tol or 1e-4} if (drawn <= 0).any() else {}
        ax.set_yscale("symlog" if scale else "log", **scale)  # "log" would drop zeros
        if scale:
            ax.set_ylim(bottom=0)
            for line in ax.lines:
                line.set_clip_on(False)
    if title == "Changed labels" and tol is not None:
        ax.axhline(tol, color="0.3", ls="--", lw=1, label=f"tol = {tol:g}")
        ax.legend(handles=ax.lines[-1:], fontsize=8, frameon=False)
    if title == "Clustering loss" and len(lines) > 1:
        ax.legend(fontsize=8, frameon=False)
    if ylabel in ("score", "rows"):
        ax.set_ylim(min([0, *drawn]), 1.02 if ylabel == "score" else None)
        ax.legend(fontsize=8, ncols=2 if len(lines) > 3 else 1)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_samples(
    ax: Any, images: Any, members: list[Any], n_columns: int, classes: Any, names: list[str]
) -> None:
    """Draw the first members of each cluster in a line; the unit of length is an image's height."""
    from matplotlib.patches import Rectangle

    width = images.shape[2] / images.shape[1]
    low, high = float(images.min()), float(images.max())
    tick_labels = [f"cluster {cluster} ({len(rows):,})" for cluster, rows in enumerate(members)]
    for cluster, rows in enumerate(members):
        top, counts = cluster * (1 + _GAP), np.bincount(classes[rows], minlength=1)
        majority = counts.argmax()
        if len(rows) == 0:
            ax.text(0, top + 0.5, "empty", va="center", color="0.4", style="italic")
        elif names:
            tick_labels[cluster] += f"\n{names[majority]}: {counts[majority] / len(rows):.0%}"
        for column, row in enumerate(rows[:n_columns]):
            left = column * (width + _GAP)
            pixels = (images[row].astype(np.float64) - low) / ((high - low) or 1.0)
            ax.imshow(pixels, "gray", vmin=0, vmax=1, extent=(left, left + width, top + 1, top))
            if classes[row] != majority:
                ax.add_patch(Rectangle((left, top), width, 1, fill=False, ec="red", lw=2, zorder=3))
    right, bottom = n_columns * (width + _GAP), len(members) * (1 + _GAP)
    ax.set(xlim=(-_GAP, right), ylim=(bottom, -_GAP), aspect="equal")
    ax.set_yticks(np.arange(len(members)) * (1 + _GAP) + 0.5, tick_labels, fontsize=8)
    ax.set_xticks(np.arange(n_columns) * (width + _GAP) + width / 2, range(1, n_columns + 1))
    ax.set_xlabel("rank within the cluster, highest q first")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _as_classes(name: str, values: Any, rows: Any, names: Any) -> tuple[np.ndarray, list[str]]:
    """Return class indices and the names of the classes that occur; None is a single class."""
    values = np.zeros(len(rows), int) if values is None else np.asarray(values)
    check_rank(name, values, 1)
    check_same_length(name, values, "the data", rows)
    if values.dtype.kind == "f":
        check_finite_rows(name, values.reshape(-1, 1))
    found, codes = np.unique(values, return_inverse=True)
    is_index = found.dtype.kind in "iu" and found[0] >= 0
    if names is not None and not (is_index and found[-1] < len(names)):
        raise ValueError(f"{name}: expected integers from 0 to {len(names) - 1}, got {found}")
    texts = [str(value if names is None else names[value]) for value in found]
    texts = [text if len(text) <= 24 else f"{text[:23]}…" for text in texts]
    return codes, [text.replace("$", r"\$") for text in texts]  # $ begins a formula


def _project(rows: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Project points [M Z] to [M 2] by the PCA of the rows; return them and the axis labels."""
    rows, points = rows.astype(np.float64), points.astype(np.float64)  # float32 squares overflow
    if rows.shape[1] == 1:
        heights = np.random.default_rng(0).uniform(-1, 1, points.shape)
        return np.hstack([points, heights]), ["latent dimension 1", "random height (no meaning)"]
    if rows.shape[1] == 2:
        return points, ["latent dimension 1", "latent dimension 2"]
    if (rows == rows[0]).all():
        return np.zeros((len(points), 2)), ["PC 1 (no variance)", "PC 2 (no variance)"]
    pca = PCA(2, svd_solver="full").fit(rows)
    shares = pca.explained_variance_ratio_
    labels = [f"PC {axis} ({share:.1%} of variance)" for axis, share in enumerate(shares, 1)]
    # Otherwise rounding errors along a flat direction would fill the axis.
    return pca.transform(points) * (shares > 1e-12), labels


def _robust_limits(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits of each axis, without points far outside percentiles 1 to 99."""
    low, high = np.percentile(points, [1, 99], axis=0)
    reach = np.where(high > low, (high - low) / 2, np.inf)
    near = np.where((low - reach <= points) & (points <= high + reach), points, np.nan)
    low, high = np.nanmin(near, axis=0), np.nanmax(near, axis=0)
    margin, size = 0.06 * (high - low), np.maximum(np.abs(low), np.abs(high))
    margin = np.where(margin > 1e-7 * size, margin, np.maximum(0.5, size / 10))
    return low - margin, high + margin


def _palettes(labels: Any, classes: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours of clusters and classes, [max(n, 10) 4], n the larger number of them."""
    from matplotlib.colors import hsv_to_rgb, to_rgba_array

    if n <= 10:
        palette = to_rgba_array(_TEN_COLOURS)
        counts = np.histogram2d(classes, labels, range(11))[0]
        return palette, palette[linear_sum_assignment(counts, maximize=True)[1]]
    # Steps by the golden ratio separate the hues of consecutive numbers for any n.
    index = np.arange(n)
    tones = np.array([(0.85, 0.9), (0.55, 0.75), (1.0, 0.6)])[index % 3]
    palette = to_rgba_array(hsv_to_rgb(np.column_stack([index * 0.618034 % 1, tones])))
    return palette, palette


def _series(records: Sequence[Mapping[str, Any]], key: str, start: int = 0) -> list[Any]:
    """Return lines (name, steps, values) of a key over the records that have a value for it."""
    there = [record for record in records if record.get(key) is not None]
    steps = np.array([start + record["step"] for record in there])
    values = np.array([record[key] for record in there], dtype=np.float64)
    values[~np.isfinite(values)] = np.nan
    if values.ndim == 1:
        return [(f"{key.upper()} {value:.3f}", steps, values) for value in values[-1:]]
    if values.shape[1] <= 10:
        return [(f"cluster {j}", steps, column) for j, column in enumerate(values.T)]
    columns = np.percentile(values, [100, 50, 0], axis=1)
    return list(zip(("largest", "median", "smallest"), [steps] * 3, columns, strict=True))
