"""What the figures show, read back from their artists."""

import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import colors, image
from sklearn.decomposition import PCA

from jdec.plotting import (
    default_style,
    plot_embedding,
    plot_history,
    plot_top_samples,
    save_figure,
)


def blobs(n=60, z=2, k=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    centroids = rng.normal(size=(k, z)).astype(np.float32) * 5
    return (centroids[labels] + rng.normal(size=(n, z))).astype(np.float32), labels, centroids


def drawn(ax):
    """Offsets [N 2] and colours [N 3] of the points of a panel."""
    (points,) = ax.collections
    return np.asarray(points.get_offsets()), points.get_facecolors()[:, :3]


def row_of_each_point(offsets, embedding):
    return np.array([np.flatnonzero((embedding == offset).all(axis=1))[0] for offset in offsets])


def colour_of_each_label(row_colours, labels):
    table = {}
    for label in np.unique(labels):
        (colour,) = np.unique(row_colours[labels == label], axis=0)
        table[label] = tuple(colour)
    return table


def numbers(ax):
    return {text.get_text(): text.get_position() for text in ax.texts}


class TestPlotEmbedding:
    def test_every_row_is_drawn_once_in_the_colour_of_its_cluster(self):
        z, labels, _ = blobs(k=7)
        offsets, point_colours = drawn(plot_embedding(z, labels).axes[0])
        rows = row_of_each_point(offsets, z)
        assert sorted(rows) == list(range(len(z)))
        table = colour_of_each_label(point_colours, labels[rows])
        assert len(set(table.values())) == 7

    def test_a_cluster_keeps_its_colour_when_others_are_missing(self):
        z, labels, centroids = blobs(k=5)
        tables = []
        for some in (labels >= 0, labels > 1):
            figure = plot_embedding(z[some], labels[some], centroids=centroids)
            offsets, point_colours = drawn(figure.axes[0])
            rows = row_of_each_point(offsets, z)
            tables.append(colour_of_each_label(point_colours, labels[rows]))
        assert tables[1] == {label: tables[0][label] for label in (2, 3, 4)}

    def test_a_class_has_the_colour_of_its_best_cluster(self):
        z, labels, _ = blobs(k=4)
        y = np.array(["d", "b", "a", "c"])[labels]
        y[:4] = y[3::-1]
        left, right = plot_embedding(z, labels, y=y).axes
        offsets, cluster_colours = drawn(left)
        same_offsets, class_colours = drawn(right)
        np.testing.assert_array_equal(offsets, same_offsets)
        rows = row_of_each_point(offsets, z)
        by_cluster = colour_of_each_label(cluster_colours, labels[rows])
        by_class = colour_of_each_label(class_colours, y[rows])
        assert [by_class[name] for name in "dbac"] == [by_cluster[j] for j in range(4)]

    @pytest.mark.parametrize(("k", "n_classes"), [(2, 10), (10, 2), (3, 12), (12, 3), (1, 1)])
    def test_classes_have_distinct_colours_whatever_their_number(self, k, n_classes):
        z, labels, _ = blobs(n=120, k=k)
        y = np.arange(120) % n_classes
        _, right = plot_embedding(z, labels, y=y).axes
        offsets, class_colours = drawn(right)
        table = colour_of_each_label(class_colours, y[row_of_each_point(offsets, z)])
        assert len(set(table.values())) == n_classes

    def test_numbers_are_at_the_centroids_also_of_empty_clusters(self):
        z, labels, centroids = blobs(k=4)
        labels = np.where(labels == 2, 0, labels)
        written = numbers(plot_embedding(z, labels, centroids=centroids).axes[0])
        assert list(written) == ["0", "1", "2", "3"]
        np.testing.assert_allclose(list(written.values()), centroids)

    def test_numbers_are_at_the_medians_without_centroids(self):
        z, labels, _ = blobs(k=4)
        labels = np.where(labels == 2, 0, labels)
        written = numbers(plot_embedding(z, labels).axes[0])
        assert list(written) == ["0", "1", "3"]
        np.testing.assert_allclose(written["3"], np.median(z[labels == 3], axis=0), rtol=1e-6)

    def test_more_than_two_dimensions_are_projected_on_principal_components(self):
        z, labels, centroids = blobs(z=10)
        ax = plot_embedding(z, labels, centroids=centroids).axes[0]
        pca = PCA(2, svd_solver="full").fit(z.astype(np.float64))
        offsets, _ = drawn(ax)
        order = np.lexsort(offsets.T)
        expected = pca.transform(z.astype(np.float64))
        np.testing.assert_allclose(offsets[order], expected[np.lexsort(expected.T)], atol=1e-9)
        np.testing.assert_allclose(
            list(numbers(ax).values()), pca.transform(centroids.astype(np.float64)), atol=1e-9
        )
        for label, share in zip(
            (ax.get_xlabel(), ax.get_ylabel()), pca.explained_variance_ratio_, strict=True
        ):
            assert f"{share:.1%}" in label

    def test_one_dimension_has_random_heights(self):
        z, labels, centroids = blobs(z=1)
        ax = plot_embedding(z, labels, centroids=centroids).axes[0]
        offsets, _ = drawn(ax)
        np.testing.assert_array_equal(np.sort(offsets[:, 0]), np.sort(z[:, 0]))
        assert np.abs(offsets[:, 1]).max() <= 1
        np.testing.assert_allclose([x for x, _ in numbers(ax).values()], centroids[:, 0])

    def test_a_sample_of_many_rows_is_always_the_same(self):
        z, labels, _ = blobs(n=500)
        figures = [plot_embedding(z, labels, max_points=50) for _ in range(2)]
        (offsets, point_colours), (again, _) = [drawn(figure.axes[0]) for figure in figures]
        np.testing.assert_array_equal(offsets, again)
        rows = row_of_each_point(offsets, z)
        assert len(set(rows)) == 50
        assert len(colour_of_each_label(point_colours, labels[rows])) == 3
        assert "50 of 500 rows drawn" in figures[0].get_suptitle()

    def test_equal_input_gives_equal_pixels(self, tmp_path):
        z, labels, _ = blobs(z=5)
        for name in ("a.png", "b.png"):
            save_figure(plot_embedding(z, labels, y=labels), tmp_path / name)
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

    @pytest.mark.parametrize("dimensions", [1, 2, 6])
    def test_outliers_do_not_change_the_limits(self, dimensions):
        z, labels, _ = blobs(n=400, z=dimensions)
        z[7] = 1e6
        z[8] = -1e6
        figure = plot_embedding(z, labels)
        offsets, _ = drawn(figure.axes[0])
        low, high = np.transpose([figure.axes[0].get_xlim(), figure.axes[0].get_ylim()])
        inside = ((low <= offsets) & (offsets <= high)).all(axis=1)
        assert inside.sum() == 398
        assert (high - low).max() < 100
        assert "2 outside the axes" in figure.get_suptitle()

    def test_every_point_is_inside_without_outliers(self):
        z, labels, _ = blobs(n=300)
        figure = plot_embedding(z, labels, title="mine")
        low, high = np.transpose([figure.axes[0].get_xlim(), figure.axes[0].get_ylim()])
        assert ((low < z) & (z < high)).all()
        assert figure.get_suptitle() == "mine"

    def test_an_outlying_centroid_changes_neither_limits_nor_layout(self):
        z, labels, centroids = blobs()
        far = np.vstack([centroids, [[1e5, 1e5]]])
        near = plot_embedding(z, labels, centroids=centroids)
        figure = plot_embedding(z, labels, centroids=far)
        for each in (near, figure):
            each.draw_without_rendering()
        assert figure.axes[0].get_xlim() == near.axes[0].get_xlim()
        np.testing.assert_allclose(
            figure.axes[0].get_position().bounds, near.axes[0].get_position().bounds
        )

    @pytest.mark.parametrize("n", [1, 2, 3])
    @pytest.mark.parametrize("z", [1, 2, 3, 10])
    @pytest.mark.parametrize("kind", ["random", "zero", "huge", "tiny"])
    def test_few_or_equal_rows(self, n, z, kind):
        rows = np.random.default_rng(0).normal(size=(n, z))
        scale = {"random": 1, "zero": 0, "huge": 1e37, "tiny": 1e-30}[kind]
        rows = np.full((n, z), 1e30) if kind == "huge" and n == 3 else rows * scale
        figure = plot_embedding(rows, np.arange(n), y=np.arange(n), centroids=rows)
        figure.draw_without_rendering()
        for ax in figure.axes:
            for low, high in (ax.get_xlim(), ax.get_ylim()):
                assert np.isfinite([low, high]).all()
                assert low < high

    def test_rounding_errors_of_a_flat_direction_stay_invisible(self):
        rows = np.outer(np.linspace(-1, 1, 50), np.full(5, 0.1))
        ax = plot_embedding(rows, np.zeros(50, int)).axes[0]
        assert np.ptp(drawn(ax)[0][:, 1]) == 0
        assert "0.0%" in ax.get_ylabel()

    def test_hundreds_of_clusters_and_classes_have_no_names(self):
        z, labels, centroids = blobs(n=1000, k=200)
        figure = plot_embedding(z, labels, y=labels, centroids=centroids)
        left, _ = figure.axes
        assert not left.texts
        assert not figure.legends
        (crosses,) = left.lines
        np.testing.assert_allclose(crosses.get_xydata(), centroids)
        offsets, point_colours = drawn(left)
        table = colour_of_each_label(point_colours, labels[row_of_each_point(offsets, z)])
        assert len(set(table.values())) == 200
        figure.draw_without_rendering()

    def test_the_legend_names_the_classes_that_occur_in_their_colours(self):
        z, labels, _ = blobs()
        y = np.where(labels == 0, 3, 1)
        figure = plot_embedding(z, labels, y=y, class_names=["no", "_one", "none", "5$ or 6$"])
        (legend,) = figure.legends
        assert [text.get_text().strip() for text in legend.get_texts()] == ["_one", r"5\$ or 6\$"]
        offsets, class_colours = drawn(figure.axes[1])
        table = colour_of_each_label(class_colours, y[row_of_each_point(offsets, z)])
        shown = [colors.to_rgb(handle.get_color()) for handle in legend.legend_handles]
        assert shown == [table[1], table[3]]
        figure.draw_without_rendering()

    def test_input_is_not_modified(self):
        z, labels, centroids = blobs(z=4)
        before = z.copy(), labels.copy(), centroids.copy()
        plot_embedding(z, labels, y=labels, centroids=centroids, max_points=10)
        for array, copy in zip((z, labels, centroids), before, strict=True):
            np.testing.assert_array_equal(array, copy)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"embedding": np.zeros(6)}, "embedding"),
            ({"embedding": np.full((6, 2), np.nan)}, "embedding.*NaN"),
            ({"labels": np.zeros(5, int)}, "labels"),
            ({"labels": np.zeros((6, 1), int)}, "labels"),
            ({"labels": np.zeros(6)}, "labels.*integers"),
            ({"labels": np.full(6, -1)}, "labels.*integers"),
            ({"labels": np.full(6, np.nan)}, "labels.*NaN"),
            ({"labels": np.full(6, 2), "centroids": np.zeros((2, 2))}, "labels.*from 0 to 1"),
            ({"centroids": np.zeros((2, 3))}, "centroids.*width 2"),
            ({"centroids": np.full((2, 2), np.inf)}, "centroids.*infinity"),
            ({"y": np.zeros(5, int)}, "y"),
            ({"y": np.zeros((6, 1), int)}, "y"),
            ({"y": np.full(6, np.nan)}, "y.*NaN"),
            ({"y": np.full(6, 2), "class_names": ["a", "b"]}, "y.*from 0 to 1"),
            ({"y": ["a"] * 6, "class_names": ["a"]}, "y.*integers"),
            ({"max_points": 0}, "max_points"),
        ],
    )
    def test_bad_input(self, changes, message):
        arguments = {"embedding": np.zeros((6, 2)), "labels": np.zeros(6, int)} | changes
        with pytest.raises(ValueError, match=message):
            plot_embedding(**arguments)


def pretraining(phase, steps=(10, 20, 30), loss=1.0):
    return [{"phase": phase, "step": s, "loss": loss / s, "seconds": 1.0} for s in steps]


def clustering(n=4, k=3, scores=False):
    records = []
    for i in range(n):
        record = {"phase": "clustering", "step": 5 * i, "interval": i, "seconds": 1.0}
        record["loss"] = None if i == 0 else 1.0 / i
        record["kl"] = 2.0 / (i + 1)
        record["label_change"] = None if i == 0 else 0.1**i
        record["cluster_sizes"] = [10 * j + i for j in range(k)]
        if scores:
            record |= {"acc": 0.7 + 0.01 * i, "nmi": 0.6 + 0.01 * i, "ari": 0.5 + 0.01 * i}
        records.append(record)
    return records


def panels(figure):
    figure.draw_without_rendering()
    return {ax.get_title(): ax for ax in figure.axes}


class TestPlotHistory:
    def test_pretraining_runs_over_cumulative_steps(self):
        history = (
            pretraining("layer 1") + pretraining("layer 2", (15, 25)) + pretraining("finetune")
        )
        ax = panels(plot_history(history))["Pretraining"]
        steps = [list(line.get_xdata()) for line in ax.lines]
        assert steps == [[10, 20, 30], [45, 55], [65, 75, 85]]
        np.testing.assert_allclose(ax.lines[1].get_ydata(), [1 / 15, 1 / 25])
        assert ax.get_yscale() == "log"
        centres = {text.get_text(): text.get_position()[0] for text in ax.texts}
        assert centres == {"layer 1": 15, "layer 2": 42.5, "finetune": 70}
        spans = [
            tuple(patch.get_extents().transformed(ax.transData.inverted()).intervalx)
            for patch in ax.patches
        ]
        np.testing.assert_allclose(spans, [(0, 30), (30, 55), (55, 85)])

    def test_clustering_panels_hold_the_records(self):
        found = panels(plot_history(clustering(scores=True), tol=0.02))
        assert list(found) == ["Clustering loss", "Changed labels", "Agreement with the classes"]
        kl, loss = found["Clustering loss"].lines
        np.testing.assert_allclose(kl.get_xydata(), [(0, 2), (5, 1), (10, 2 / 3), (15, 1 / 2)])
        np.testing.assert_allclose(loss.get_xydata(), [(5, 1), (10, 1 / 2), (15, 1 / 3)])
        assert [line.get_label() for line in (kl, loss)] == ["all rows, P renewed", "mini-batches"]
        change, tol = found["Changed labels"].lines
        np.testing.assert_allclose(change.get_xydata(), [(5, 0.1), (10, 0.01), (15, 0.001)])
        assert found["Changed labels"].get_yscale() == "log"
        assert list(tol.get_ydata()) == [0.02, 0.02]
        assert tol.get_linestyle() == "--"
        scores = found["Agreement with the classes"].lines
        np.testing.assert_allclose(scores[0].get_ydata(), [0.7, 0.71, 0.72, 0.73])
        np.testing.assert_allclose(scores[1].get_ydata(), [0.6, 0.61, 0.62, 0.63])
        np.testing.assert_allclose(scores[2].get_ydata(), [0.5, 0.51, 0.52, 0.53])
        assert [line.get_label() for line in scores] == ["ACC 0.730", "NMI 0.630", "ARI 0.530"]
        assert all(ax.get_xlabel() and ax.get_ylabel() for ax in found.values())

    def test_cluster_sizes_stand_in_for_scores(self):
        ax = panels(plot_history(clustering(k=3)))["Cluster sizes"]
        assert [list(line.get_ydata()) for line in ax.lines] == [
            [0, 1, 2, 3],
            [10, 11, 12, 13],
            [20, 21, 22, 23],
        ]
        assert [line.get_label() for line in ax.lines] == ["cluster 0", "cluster 1", "cluster 2"]

    def test_sizes_of_many_clusters_are_summarised(self):
        ax = panels(plot_history(clustering(k=201)))["Cluster sizes"]
        assert {line.get_label(): line.get_ydata()[0] for line in ax.lines} == {
            "largest": 2000,
            "median": 1000,
            "smallest": 0,
        }

    def test_no_changed_label_stays_visible(self):
        history = clustering(n=5)
        history[-1]["label_change"] = 0.0
        ax = panels(plot_history(history))["Changed labels"]
        assert ax.lines[0].get_ydata()[-1] == 0
        assert ax.get_yscale() == "symlog"
        assert ax.get_ylim()[0] == 0 < ax.get_ylim()[1]
        assert not ax.lines[0].get_clip_on()  # or the marker at 0 would be cut

    def test_values_that_are_not_finite_are_gaps_and_counted(self):
        history = pretraining("finetune")
        history[1]["loss"] = float("nan")
        history[2]["loss"] = float("inf")
        (ax,) = plot_history(history).axes
        assert ax.get_title() == "Pretraining (2 not finite)"
        assert list(np.isnan(ax.lines[0].get_ydata())) == [False, True, True]

    @pytest.mark.parametrize(
        ("history", "titles"),
        [
            (pretraining("finetune", (10,)), ["Pretraining"]),
            (pretraining("finetune", (10,), loss=0.0), ["Pretraining"]),
            ([{"phase": "warm-up", "step": 300, "loss": 0.2}], []),
            (clustering(n=1), ["Clustering loss", "Cluster sizes"]),
            (clustering(n=1, k=1), ["Clustering loss", "Cluster sizes"]),
            (clustering(n=1, scores=True), ["Clustering loss", "Agreement with the classes"]),
            (
                pretraining("layer 1") + clustering(n=100, k=12),
                ["Pretraining", "Clustering loss", "Changed labels", "Cluster sizes"],
            ),
            ([{"phase": "finetune", "step": 0, "loss": None}], []),
            ([{"phase": "clustering", "step": 5, "loss": 0.5}], ["Clustering loss"]),
            (pretraining("finetune", loss=float("nan")), ["Pretraining (3 not finite)"]),
            (
                [{"phase": "clustering", "step": 0, "acc": float("nan"), "label_change": -np.inf}],
                ["Changed labels (1 not finite)", "Agreement with the classes (1 not finite)"],
            ),
            ([{"phase": "clustering", "step": 5, "label_change": 0.0}], ["Changed labels"]),
        ],
    )
    def test_any_part_may_be_missing(self, history, titles):
        assert list(panels(plot_history(history, tol=0.001))) == titles

    def test_steps_are_whole_numbers_also_of_a_single_record(self):
        for ax in panels(plot_history(clustering(n=2)[1:])).values():
            assert all(tick == int(tick) for tick in ax.get_xticks())

    @pytest.mark.parametrize(
        "history", [[], [{"step": 1, "loss": 1.0}], [{"phase": "finetune", "loss": 1.0}]]
    )
    def test_bad_history(self, history):
        with pytest.raises(ValueError, match="history"):
            plot_history(history)

    @pytest.mark.parametrize("tol", [0, -1, float("nan")])
    def test_bad_tol(self, tol):
        with pytest.raises(ValueError, match="tol"):
            plot_history(clustering(), tol=tol)


def marked_images(n, height=2, width=3):
    """Image i is i / (n - 1) all over, so that an image identifies its row."""
    return np.broadcast_to(np.arange(float(n))[:, None, None], (n, height, width))


def grid(figure, n):
    """Indices of the images, from top to bottom and left to right."""
    figure.draw_without_rendering()
    cells = {}
    for drawn_image in figure.axes[0].images:
        left, _, _, top = drawn_image.get_extent()
        index = float(np.asarray(drawn_image.get_array()).flat[0]) * max(n - 1, 1)
        cells.setdefault(round(top, 6), []).append((left, round(index)))
    return [[index for _, index in sorted(cells[top])] for top in sorted(cells)]


def row_names(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


class TestPlotTopSamples:
    def test_rows_hold_the_highest_members_in_descending_order(self):
        q = np.array(
            [[0.6, 0.4], [0.1, 0.9], [0.9, 0.1], [0.45, 0.55], [0.7, 0.3], [0.2, 0.8], [0.51, 0.49]]
        )
        figure = plot_top_samples(marked_images(7), q, n_per_cluster=3)
        assert grid(figure, 7) == [[2, 4, 0], [1, 5, 3]]
        assert row_names(figure) == ["cluster 0 (4)", "cluster 1 (3)"]

    def test_order_agrees_with_a_plain_sort_on_random_input(self):
        q = np.random.default_rng(0).dirichlet(np.ones(5), size=200).astype(np.float32)
        figure = plot_top_samples(marked_images(200, 1, 1), q, n_per_cluster=8)
        expected = [
            sorted(np.flatnonzero(q.argmax(1) == j), key=lambda i, j=j: -q[i, j])[:8]
            for j in range(5)
        ]
        assert grid(figure, 200) == expected

    def test_ties_keep_the_order_of_the_rows(self):
        q = np.where(np.arange(400) % 2, 0.9, 0.8)[:, None]
        figure = plot_top_samples(marked_images(400), q, n_per_cluster=202)
        assert grid(figure, 400) == [[*range(1, 400, 2), 0, 2]]

    def test_empty_clusters_are_marked(self):
        q = np.eye(4)[[0, 0, 3]]
        figure = plot_top_samples(marked_images(3), q)
        assert grid(figure, 3) == [[0, 1], [2]]
        assert row_names(figure)[1:3] == ["cluster 1 (0)", "cluster 2 (0)"]
        words = figure.axes[0].texts
        assert [text.get_text() for text in words] == ["empty", "empty"]
        ticks = figure.axes[0].get_yticks()
        np.testing.assert_allclose([text.get_position()[1] for text in words], ticks[1:3])

    def test_only_the_first_thirty_clusters_are_drawn(self):
        figure = plot_top_samples(marked_images(200), np.eye(200), n_per_cluster=2)
        assert grid(figure, 200) == [[j] for j in range(30)]
        assert "first 30 of 200 clusters" in figure.get_suptitle()

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
    def test_brightness_is_that_of_the_data_set(self, dtype):
        images = np.array([[[10, 20]], [[20, 30]], [[30, 50]]], dtype=dtype)
        figure = plot_top_samples(images, np.ones((3, 1)))
        pixels = [np.asarray(drawn_image.get_array()) for drawn_image in figure.axes[0].images]
        np.testing.assert_allclose(pixels, (images.astype(float) - 10) / 40)
        assert {drawn_image.get_clim() for drawn_image in figure.axes[0].images} == {(0, 1)}

    @pytest.mark.parametrize("dtype", [np.uint8, np.float32])
    def test_colour_images_keep_their_channels(self, dtype):
        images = np.zeros((2, 4, 4, 3), dtype)
        images[0, ..., 0] = 200
        images[1, ..., 2] = 100
        first, second = plot_top_samples(images, [[1.0], [0.5]]).axes[0].images
        np.testing.assert_allclose(np.asarray(first.get_array())[0, 0], [1, 0, 0])
        np.testing.assert_allclose(np.asarray(second.get_array())[0, 0], [0, 0, 0.5])

    def test_images_keep_their_shape(self):
        figure = plot_top_samples(marked_images(4, height=10, width=25), np.ones((4, 1)))
        figure.draw_without_rendering()
        for drawn_image in figure.axes[0].images:
            left, right, bottom, top = drawn_image.get_extent()
            assert (right - left) / (bottom - top) == pytest.approx(2.5)
        assert figure.axes[0].get_aspect() == 1

    def test_frames_mark_images_outside_the_majority_class(self):
        q = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
        figure = plot_top_samples(
            marked_images(4), q, y=[1, 0, 1, 0], class_names=["cat", "dog"], n_per_cluster=5
        )
        assert row_names(figure) == ["cluster 0 (3)\ndog: 67%", "cluster 1 (1)\ncat: 100%"]
        (frame,) = figure.axes[0].patches
        left, right, bottom, top = figure.axes[0].images[1].get_extent()
        assert frame.get_bbox().bounds == pytest.approx((left, top, right - left, bottom - top))

    def test_no_frames_without_classes(self):
        assert not plot_top_samples(marked_images(5), np.ones((5, 1))).axes[0].patches

    @pytest.mark.parametrize(
        "images", [np.zeros((1, 1, 1)), np.zeros((1, 50, 1)), np.ones((1, 1, 50, 3))]
    )
    def test_a_single_constant_image(self, images, tmp_path):
        save_figure(plot_top_samples(images, [[1.0]], y=["a"]), tmp_path / "one.png")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"images": np.zeros((4, 9))}, "images"),
            ({"images": np.zeros((4, 3, 3, 4))}, "images"),
            ({"images": np.zeros((0, 3, 3)), "q": np.zeros((0, 2))}, "q"),
            ({"images": np.zeros((4, 0, 3))}, "images"),
            ({"images": np.full((4, 3, 3), np.nan)}, "images.*NaN"),
            ({"images": np.full((4, 3, 3), "a")}, "images.*numbers"),
            ({"q": np.ones((3, 2))}, "q.*images"),
            ({"q": np.ones(4)}, "q"),
            ({"q": np.full((4, 2), np.nan)}, "q.*NaN"),
            ({"y": [0, 1]}, "y"),
            ({"n_per_cluster": 0}, "n_per_cluster"),
        ],
    )
    def test_bad_input(self, changes, message):
        arguments = {"images": np.zeros((4, 3, 3)), "q": np.ones((4, 2))} | changes
        with pytest.raises(ValueError, match=message):
            plot_top_samples(**arguments)


class TestSaveFigure:
    def test_figures_are_902_pixels_wide_on_white(self, tmp_path):
        save_figure(plot_history(clustering(scores=True)), str(tmp_path / "picture.png"))
        pixels = image.imread(tmp_path / "picture.png")
        assert pixels.shape[1] == 902
        np.testing.assert_array_equal(pixels[0, 0, :3], 1)
        assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]

    @pytest.mark.parametrize("exception", [OSError, KeyboardInterrupt])
    def test_failure_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch, exception):
        path = tmp_path / "picture.png"
        path.write_bytes(b"old")
        figure = plot_history(clustering())

        def write_half(target, **options):
            target.write(b"half")
            raise exception

        monkeypatch.setattr(figure, "savefig", write_half)
        with pytest.raises(exception):
            save_figure(figure, path)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_folder_in_the_way_leaves_no_temporary_file(self, tmp_path):
        (tmp_path / "picture.png").mkdir()
        with pytest.raises(OSError, match=r"picture\.png"):
            save_figure(plot_history(clustering()), tmp_path / "picture.png")
        assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]

    def test_a_missing_folder_is_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            save_figure(plot_history(clustering()), tmp_path / "nowhere" / "picture.png")


def test_pyplot_is_not_imported():
    code = (
        "import sys, jdec.plotting as p;"
        "p.plot_embedding([[0.0, 1.0, 2.0]], [0], y=[0]).draw_without_rendering();"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("backend", "kept"), [("nowhere", False), ("module://nowhere.inline", False), ("svg", True)]
)
def test_unknown_backends_in_the_environment_are_ignored(tmp_path, backend, kept):
    """For example that of a notebook kernel, in another environment."""
    code = (
        "import os, sys, jdec, jdec.plotting as p;"
        "assert 'matplotlib' not in sys.modules;"
        "p.save_figure(p.plot_embedding([[0.0, 1.0]], [0]), sys.argv[1]);"
        "import matplotlib;"
        "print(os.environ['MPLBACKEND'], matplotlib.get_backend(auto_select=False))"
    )
    path = tmp_path / "a.png"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=os.environ | {"MPLBACKEND": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    assert path.stat().st_size > 1000
    variable, chosen = done.stdout.split()
    assert variable == backend
    if kept:
        assert chosen == backend


def test_the_default_style_ignores_the_callers(tmp_path):
    with default_style():
        save_figure(plot_history(clustering()), tmp_path / "before.png")
    with matplotlib.rc_context({"figure.facecolor": "red", "text.usetex": True}):
        with default_style():
            save_figure(plot_history(clustering()), tmp_path / "after.png")
        assert matplotlib.rcParams["text.usetex"]
    assert (tmp_path / "after.png").read_bytes() == (tmp_path / "before.png").read_bytes()


def test_missing_glyphs_do_not_warn(tmp_path):
    with default_style():
        figure = plot_embedding(np.eye(2), [0, 1], y=["𒀀", "𒀁"])
        save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
