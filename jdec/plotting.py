"""Pictures of an embedding, a training history, the clearest members of clusters, and a sweep.

The only module that imports matplotlib, and that through its object-oriented interface: no pyplot,
so no backend is chosen and no figure stays open behind the caller's back. It is imported when the
first picture is drawn, whatever backend the environment names.
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

from jdec import _checks
from jdec._io import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Distinct also with impaired colour vision: Petroff 2021, arXiv:2107.02270.
_TEN_COLOURS = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"]
_TEN_COLOURS += ["#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"]
_DPI, _WIDTH = 110, 8.2  # 902 pixels
_GAP = 0.06  # between two samples, in units of their height
_MOST_NUMBERS, _MOST_NAMES, _MOST_ROWS = 60, 40, 30  # more than these cannot be read


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
    """Draw an embedding in two dimensions, coloured by cluster and, where known, by class.

    With up to ten clusters and classes, equal colours left and right are agreement: a class has the
    colour of its best cluster. The heading counts points too far from the bulk to be in the view.

    Args:
        embedding: Rows z, [N Z]: projected on two principal components, or with Z = 1 drawn as a
            strip of random heights.
        labels: Cluster of each row, [N], integers from 0.
        y: Class of each row, [N]: indices of ``class_names``, or without these any sortable values.
        class_names: Name of each class.
        centroids: Where the clusters' numbers are written, [K Z]; by default medians of members.
        max_points: Of more rows than this a random sample is drawn, always the same.
        title: First line of the heading.

    Returns:
        A figure of one panel, or of two with ``y``.

    Raises:
        ValueError: If shapes do not match or numbers are not finite.
    """
    rows = _checks.as_float32("embedding", embedding)
    centres = rows[:0] if centroids is None else _checks.as_float32("centroids", centroids)
    if centres.shape[1] != rows.shape[1]:
        raise ValueError(f"centroids: expected width {rows.shape[1]}, got {centres.shape[1]}")
    _as_classes("labels", labels, rows, range(len(centres) or 2**31))
    classes, names = _as_classes("y", y, rows, class_names)
    _checks.check_integer("max_points", max_points)
    labels, n_clusters = np.asarray(labels), len(centres) or int(np.max(labels)) + 1
    points, axis_labels = _project(rows, np.vstack([rows, centres]))
    points, centres, numbers = points[: len(rows)], points[len(rows) :], np.arange(len(centres))
    if centroids is None:
        numbers = np.unique(labels)
        centres = np.array([np.median(points[labels == j], axis=0) for j in numbers])
    palette, class_palette = _palette(n_clusters), _palette(len(names))
    if max(n_clusters, len(names)) <= 10:
        counts = np.histogram2d(classes, labels, range(11))[0]
        class_palette = palette[linear_sum_assignment(counts, maximize=True)[1]]
    # In random order also where all are drawn: rows sorted by class would hide one another.
    shown = np.random.default_rng(0).permutation(len(rows))[:max_points]
    points = points[shown]
    low, high = _robust_limits(points)
    n_outside = int((~((low <= points) & (points <= high)).all(axis=1)).sum())
    notes = [f"{len(shown):,} of {len(rows):,} rows drawn"] * (len(shown) < len(rows))
    notes += [f"{n_outside:,} outside the view"] * (n_outside > 0)
    notes += ["× cluster centre"] * (n_clusters > _MOST_NUMBERS)
    title = title or f"Embedding of {len(rows):,} rows, latent dimensions: {rows.shape[1]}"
    figure = _new_figure(_WIDTH, 6.2 if y is None else 5.0, title, notes)
    panels = figure.subplots(1, 1 if y is None else 2, sharex=True, sharey=True, squeeze=False)[0]
    size, alpha = np.clip([600, 30] / np.sqrt(len(shown)), [5, 0.4], [30, 0.9])
    for ax, colours in zip(panels, (palette[labels], class_palette[classes]), strict=False):
        ax.scatter(*points.T, size, colours[shown], alpha=alpha, linewidths=0, rasterized=True)
        ax.set(xlabel=axis_labels[0], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set(title=f"by cluster ({n_clusters})", ylabel=axis_labels[1])
    if n_clusters > _MOST_NUMBERS:
        panels[0].plot(*centres.T, "kx", markersize=4)
    else:
        for number, centre in zip(numbers, centres, strict=True):
            box = {"boxstyle": "circle,pad=0.2", "fc": "white", "ec": palette[number]}
            style: dict[str, Any] = {"size": 9 if n_clusters <= 20 else 7, "clip_on": True}
            panels[0].text(*centre, str(number), ha="center", va="center", bbox=box, **style)
    if y is not None:
        panels[1].set_title(f"by class ({len(names)})")
    if y is not None and len(names) <= _MOST_NAMES:
        from matplotlib.lines import Line2D

        dots = [Line2D([], [], ls="", marker="o", color=c) for c in class_palette[: len(names)]]
        texts = [f" {name}" for name in names]  # a label that begins with _ might be left out
        n_lines = -(-len(texts) * (max(map(len, texts)) + 5) // 110)
        style = {"ncols": -(-len(texts) // n_lines), "fontsize": 8, "frameon": False}
        figure.legend(dots, texts, loc="outside lower center", title="class", **style)
    return figure


def plot_history(history: Sequence[Mapping[str, Any]], *, tol: float | None = None) -> "Figure":
    """Draw what training recorded: losses, changed labels, and scores or else cluster sizes.

    Panels without values are left out; values that are not finite are gaps, counted in the title.

    Args:
        history: Records in the order they were written, each with "phase" and "step"; others
            ("loss", "label_change", "cluster_sizes", "acc", "nmi", "ari") may be absent or None.
        tol: Share of changed labels at which clustering stops, drawn as a dashed line.

    Returns:
        A figure of up to four panels.

    Raises:
        ValueError: If there is no record, or one without phase or step.
    """
    if tol is not None:
        _checks.check_positive("tol", tol)
    if not history or any(r.get("phase") is None or r.get("step") is None for r in history):
        raise ValueError("history: expected at least one record, each with phase and step")
    clustering = [record for record in history if record["phase"] == "clustering"]
    pretraining = [record for record in history if record["phase"] != "clustering"]
    losses, phases, end = [], [], 0
    for phase, group in itertools.groupby(pretraining, lambda record: record["phase"]):
        start, records = end, list(group)
        end += records[-1]["step"]
        losses += _series(records, "loss", start)
        phases.append((str(phase), start, end))
    scores = [line for key in ("acc", "nmi", "ari") for line in _series(clustering, key)]
    panels: dict[tuple[str, str], list[Any]] = {
        ("Pretraining", "reconstruction loss"): losses,
        ("Clustering loss", "KL(p ‖ q)"): _series(clustering, "loss"),
        ("Changed labels", "share of rows"): _series(clustering, "label_change"),
        ("Agreement with the classes", "score"): scores,
        ("Cluster sizes", "rows"): [] if scores else _series(clustering, "cluster_sizes"),
    }
    panels = {names: lines for names, lines in panels.items() if lines}
    # A last panel without a neighbour spans both columns.
    mosaic: list[Any] = [[i, min(i + 1, len(panels) - 1)] for i in range(0, len(panels), 2)]
    heading = "Training history" + ": no values" * (not panels)
    figure = _new_figure(_WIDTH, 0.5 + 3.0 * max(1, len(mosaic)), heading)
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes = figure.subplot_mosaic(mosaic).values() if panels else []
    for ax, ((title, ylabel), lines) in zip(axes, panels.items(), strict=True):
        ax.set_prop_cycle(color=_TEN_COLOURS[: 1 if title == "Pretraining" else 10])
        for name, steps, values in lines:
            ax.plot(steps, values, "o-" if len(steps) <= 40 else "-", label=name, markersize=3)
        drawn = np.concatenate([values for _, _, values in lines])
        n_bad = int(np.isnan(drawn).sum())
        ax.set(xlabel="step", ylabel=ylabel, title=title + f" ({n_bad} not finite)" * (n_bad > 0))
        if title in ("Pretraining", "Changed labels"):
            least = min(drawn[drawn > 0], default=0)
            scale = {"linthresh": least or tol or 1e-4} if (drawn <= 0).any() else {}
            ax.set_yscale("symlog" if scale else "log", **scale)  # "log" would drop zeros
        if title == "Pretraining":
            for index, (phase, start, end) in enumerate(phases):
                ax.axvspan(start, end, color="0.93" if index % 2 else "1", zorder=0, lw=0)
                style: dict[str, Any] = {"size": 8, "color": "0.3", "ha": "center", "va": "top"}
                style["rotation"] = 90 if end - start < 0.18 * phases[-1][2] else 0
                ax.text((start + end) / 2, 0.98, phase, transform=ax.get_xaxis_transform(), **style)
        if title == "Changed labels" and tol is not None:
            ax.axhline(tol, color="0.3", ls="--", lw=1, label=f"tol = {tol:g}")
            ax.legend(handles=ax.lines[-1:], fontsize=8, frameon=False)
        if ylabel in ("score", "rows"):
            ax.set_ylim(min([0, *drawn]), 1.02 if ylabel == "score" else None)
            ax.legend(fontsize=8, ncols=2 if len(lines) > 3 else 1)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def plot_top_samples(
    images: Any, q: Any, *, n_per_cluster: int = 10, y: Any = None, class_names: Any = None
) -> "Figure":
    """Draw the images that each cluster is surest of, one row of the picture per cluster.

    Args:
        images: [N H W] grey or [N H W 3] colour; the range of the whole data set is black to white.
        q: Soft assignment, [N K]; an image belongs to the cluster of its greatest entry.
        n_per_cluster: Most images of one cluster.
        y: Class of each image, [N], as in :func:`plot_embedding`: adds the commonest class of each
            cluster, and a red frame around images of another.
        class_names: Name of each class.

    Returns:
        A figure with the first 30 clusters from the top, q descending from the left.

    Raises:
        ValueError: If shapes do not match or numbers are not finite.

    Examples:
        >>> figure = plot_top_samples(np.eye(3).reshape(3, 1, 3), [[0.6, 0.4], [0.9, 0.1], [0, 1]])
        >>> [int(image.get_array().argmax()) for image in figure.axes[0].images]
        [1, 0, 2]

    Source: Xie et al. 2016, Fig. 3.
    """
    images, q = np.asarray(images), _checks.as_float32("q", q)
    is_numeric = images.dtype.kind in "fiub" or images.dtype.name == "bfloat16"
    if not is_numeric or 0 in images.shape or images.shape[3:] not in ((), (3,)) or images.ndim < 3:
        got = f"{images.dtype} {images.shape}"
        raise ValueError(f"images: expected numbers [N H W] or [N H W 3], got {got}")
    _checks.check_finite_rows("images", images.reshape(len(images), -1))
    _checks.check_same_length("q", q, "images", images)
    _checks.check_integer("n_per_cluster", n_per_cluster)
    classes, names = _as_classes("y", y, q, class_names)
    labels, members = q.argmax(axis=1), []
    for cluster in range(min(q.shape[1], _MOST_ROWS)):
        rows = np.flatnonzero(labels == cluster)
        members.append(rows[np.argsort(-q[rows, cluster], kind="stable")])
    n_columns = min(n_per_cluster, max(map(len, members)) or 1)
    notes = [f"first {_MOST_ROWS} of {q.shape[1]} clusters"] * (q.shape[1] > _MOST_ROWS)
    notes += ["red frame: not the commonest class of the cluster"] * (y is not None)
    # Lengths within the picture are in units of the height of an image.
    width = images.shape[2] / images.shape[1]
    right, bottom = n_columns * (width + _GAP), len(members) * (1 + _GAP)
    inches = float(np.clip(6.3 / right, 0.36, 0.8))
    title = "Members of each cluster with the highest soft assignment q"
    figure = _new_figure(max(_WIDTH, 1.9 + right * inches), 1.2 + bottom * inches, title, notes)
    from matplotlib.patches import Rectangle

    ax = figure.subplots()
    low, high = float(images.min()), float(images.max())
    row_names = [f"cluster {cluster} ({len(rows):,})" for cluster, rows in enumerate(members)]
    for cluster, rows in enumerate(members):
        top, counts = cluster * (1 + _GAP), np.bincount(classes[rows], minlength=1)
        common = counts.argmax()
        if len(rows) == 0:
            ax.text(0, top + 0.5, "empty", va="center", color="0.4", style="italic")
        elif y is not None:
            row_names[cluster] += f"\n{names[common]}: {counts[common] / len(rows):.0%}"
        for column, row in enumerate(rows[:n_columns]):
            left = column * (width + _GAP)
            pixels = (images[row].astype(np.float64) - low) / ((high - low) or 1.0)
            ax.imshow(pixels, "gray", vmin=0, vmax=1, extent=(left, left + width, top + 1, top))
            if classes[row] != common:
                ax.add_patch(Rectangle((left, top), width, 1, fill=False, ec="red", lw=2, zorder=3))
    ax.set(xlim=(-_GAP, right), ylim=(bottom, -_GAP), aspect="equal")
    ax.set_yticks(np.arange(len(members)) * (1 + _GAP) + 0.5, row_names, fontsize=8)
    ranks = np.arange(n_columns)
    ax.set_xticks(ranks * (width + _GAP) + width / 2, [str(rank + 1) for rank in ranks])
    ax.set_xlabel("rank within the cluster, highest q first")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure


def plot_sweep(settings: Sequence[Mapping[str, Any]], axis: str) -> "Figure":
    """Draw what is known without labels about each setting of a sweep, along one of its axes.

    Points are means over seeds and bars their standard deviations; settings that differ in another
    axis as well are lines of their own.

    Args:
        settings: Rows of :class:`jdec.selection.sweep.SweepResult`'s ``settings``.
        axis: ``n_clusters``, ``alpha`` or ``learning_rate``.

    Returns:
        A figure of a panel for each criterion: agreement between seeds, silhouette,
        generalizability, and the KL divergence where all have the same number of clusters.

    Raises:
        ValueError: If there are no settings, or none has a value along the axis.
    """
    if not settings or axis not in settings[0]:
        raise ValueError(f"axis: expected one that the settings have, got {axis!r}")
    titles = {
        "agreement": "Agreement between seeds (ARI)",
        "silhouette": "Silhouette",
        "generalizability": "G = training loss / held-out loss",
        "divergence": "KL(p ‖ q) at the end",
    }
    if axis == "n_clusters":
        del titles["divergence"]
    panels = [n for n in titles if any(np.isfinite(row.get(n, np.nan)) for row in settings)]
    others = [a for a in ("n_clusters", "alpha", "learning_rate") if a != axis]
    names = {"n_clusters": "number of clusters k", "alpha": "α", "learning_rate": "learning rate"}
    short = {"n_clusters": "k", "alpha": "α", "learning_rate": "rate"}
    lines: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in settings:
        lines.setdefault(tuple(row[other] for other in others), []).append(row)
    n_seeds = max(int(row["n_seeds"]) for row in settings)
    columns = 2 if len(panels) > 1 else 1
    n_rows = -(-max(1, len(panels)) // columns)
    seeds = f"{n_seeds} seed" + "s" * (n_seeds > 1)
    heading = f"Choosing the {names[axis]} without labels: mean ± std of {seeds}"
    figure = _new_figure(_WIDTH, 0.5 + 2.9 * n_rows, heading)
    from matplotlib.ticker import MaxNLocator

    for index, name in enumerate(panels):
        ax = figure.add_subplot(n_rows, columns, index + 1)
        ax.set_prop_cycle(color=_TEN_COLOURS)
        for setting, rows in lines.items():
            label = ", ".join(f"{short[o]} {v:g}" for o, v in zip(others, setting, strict=True))
            spread = np.nan_to_num([row[f"{name}_std"] for row in rows])
            ax.errorbar(
                [row[axis] for row in rows],
                [row[name] for row in rows],
                spread,
                fmt="o-",
                markersize=4,
                capsize=2,
                linewidth=1.2,
                label=label,
            )
        ax.set(xlabel=names[axis], title=titles[name])
        if axis == "n_clusters":
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            ax.set_xscale("log")
        if index == 0 and len(lines) > 1:
            ax.legend(fontsize=8)
        ax.grid(axis="y", color="0.9", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all: what was at ``path`` stays until the end.

    Args:
        figure: What to write.
        path: A file, in a folder that exists.

    Raises:
        OSError: If the file cannot be written.
    """
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=_DPI)


@contextlib.contextmanager
def default_style() -> Iterator[None]:
    """Draw and write figures in Matplotlib's own style, whatever a matplotlibrc file asks for.

    One that asks for TeX would need an installation of it, and letters that no font here has are
    drawn as boxes without a word for each.
    """
    _import_matplotlib()
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def _import_matplotlib() -> None:
    # Matplotlib cannot be imported while MPLBACKEND names a backend that it does not know, as a
    # notebook's does in an environment of its own. No figure here depends on a backend.
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", "")
    try:
        import matplotlib
    finally:
        if backend:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend  # for pyplot, where the caller uses it


def _new_figure(width: float, height: float, title: str, notes: Sequence[str] = ()) -> "Figure":
    _import_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    figure.suptitle("\n".join([title, "; ".join(notes)]).strip(), weight="bold")
    return figure


def _as_classes(name: str, values: Any, rows: Any, names: Any) -> tuple[np.ndarray, list[str]]:
    """Class of each row as an index, and the names of those that occur; None is a single class."""
    values = np.zeros(len(rows), int) if values is None else np.asarray(values)
    _checks.check_rank(name, values, 1)
    _checks.check_same_length(name, values, "the data", rows)
    if values.dtype.kind == "f":
        _checks.check_finite_rows(name, values.reshape(-1, 1))
    found, codes = np.unique(values, return_inverse=True)
    is_index = found.dtype.kind in "iu" and found[0] >= 0
    if names is not None and not (is_index and found[-1] < len(names)):
        raise ValueError(f"{name}: expected integers from 0 to {len(names) - 1}, got {found}")
    texts = [str(value if names is None else names[value]) for value in found]
    texts = [text if len(text) <= 24 else f"{text[:23]}…" for text in texts]
    return codes, [text.replace("$", r"\$") for text in texts]  # $ would begin a formula


def _project(rows: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Points [M Z] in the plane [M 2] that suits the rows, and what its axes show."""
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
    # Rounding errors along a flat direction would otherwise be blown up to fill the axis.
    return pca.transform(points) * (shares > 1e-12), labels


def _robust_limits(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of each axis, without points far outside of percentiles 1 to 99."""
    low, high = np.percentile(points, [1, 99], axis=0)
    reach = np.where(high > low, (high - low) / 2, np.inf)
    near = np.where((low - reach <= points) & (points <= high + reach), points, np.nan)
    low, high = np.nanmin(near, axis=0), np.nanmax(near, axis=0)
    margin, size = 0.06 * (high - low), np.maximum(np.abs(low), np.abs(high))
    margin = np.where(margin > 1e-7 * size, margin, np.maximum(0.5, size / 10))
    return low - margin, high + margin


def _palette(n: int) -> np.ndarray:
    """Colours, [max(n, 10) 4]."""
    _import_matplotlib()
    from matplotlib.colors import hsv_to_rgb, to_rgba_array

    # Steps by the golden ratio keep the hues of neighbouring numbers far apart for any n.
    index = np.arange(n)
    tones = np.array([(0.85, 0.9), (0.55, 0.75), (1.0, 0.6)])[index % 3]
    many = hsv_to_rgb(np.column_stack([index * 0.618034 % 1, tones]))
    return to_rgba_array(_TEN_COLOURS if n <= 10 else many)


def _series(records: Sequence[Mapping[str, Any]], key: str, start: int = 0) -> list[Any]:
    """Lines (name, steps, values) of a key over the records that have a value of it."""
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
