import csv
import json

import jax
import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import silhouette_score

from jdec.cli.arguments import integers, numbers
from jdec.cli.commands import main
from jdec.datasets import Dataset
from jdec.metrics import clustering_accuracy
from jdec.plotting import plot_sweep
from jdec.selection.sweep import Grid, run_sweep, sweep_table, varied_axis
from jdec.trainer.config import Config
from jdec.trainer.model import assign, load_model

pytestmark = pytest.mark.usefixtures("quick_compilation")

X, Y = make_blobs(120, n_features=5, centers=3, random_state=0)
DATASET = Dataset(X.astype(np.float32), Y, "blobs")
CONFIG = Config(3).replace(
    {
        "network.hidden_dims": [8],
        "network.latent_dim": 2,
        "pretrain.finetune_steps": 20,
        "pretrain.batch_size": 16,
        "kmeans.n_init": 2,
        "clustering.batch_size": 16,
        "clustering.update_interval": 5,
        "clustering.max_intervals": 2,
    }
)


def sweep(grid=None, **kwargs):
    grid = grid or Grid((0, 1, 2), (3,), (1.0,), (1e-3,))
    return run_sweep(jax.random.key(0), DATASET, CONFIG, grid, **kwargs)


@pytest.fixture(scope="module")
def over_k():
    return sweep(Grid((0, 1), (2, 3), (1.0,), (1e-3,)))


def test_every_member_is_a_row_of_the_table(over_k):
    assert [(row["seed"], row["n_clusters"]) for row in over_k.members] == [
        *((0, 2), (1, 2), (0, 3), (1, 3))
    ]
    for i, row in enumerate(over_k.members):
        assert row["divergence"] == pytest.approx(float(over_k.population.divergence[i]))
        assert row["acc"] == pytest.approx(
            clustering_accuracy(held_in(Y), over_k.population.labels[i])
        )


def held_in(rows, share=0.2):
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[np.sort(order[int(share * len(rows)) :])]


def test_rows_are_held_out_where_k_is_to_be_chosen(over_k):
    assert over_k.population.labels.shape == (4, 96)
    assert len(over_k.labels) == len(over_k.consensus_labels) == 120
    assert all(np.isfinite(row["generalizability"]) for row in over_k.members)


def test_settings_are_means_over_seeds(over_k):
    for setting, pair in zip(
        over_k.settings, (over_k.members[:2], over_k.members[2:]), strict=True
    ):
        values = [row["silhouette"] for row in pair]
        assert setting["silhouette"] == pytest.approx(np.mean(values))
        assert setting["silhouette_std"] == pytest.approx(np.std(values, ddof=1))
        assert setting["n_seeds"] == 2


def test_silhouettes_of_all_members_are_taken_in_the_space_of_the_scaled_rows(over_k):
    population = over_k.population
    space = population.scaling.apply(held_in(DATASET.x))
    for row, labels in zip(over_k.members, population.labels, strict=True):
        assert row["silhouette"] == pytest.approx(silhouette_score(space, labels), abs=1e-6)


def test_a_member_that_broke_is_not_chosen_and_takes_no_part_in_the_consensus():
    with pytest.warns(RuntimeWarning, match="left the finite numbers"):
        result = sweep(Grid((0, 1), (3,), (1.0,), (1e-3, 1e38)))
    assert np.isfinite([row["silhouette"] for row in result.members]).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert result.best < 2


def test_the_best_has_the_best_criterion():
    for criterion, best in (("agreement", max), ("silhouette", max), ("divergence", min)):
        result = sweep(criterion=criterion)
        values = [row[criterion] for row in result.members]
        assert values[result.best] == best(values)


def test_classes_change_no_choice():
    """Labels score the table: with others, or none, the same member is chosen."""
    others = Dataset(DATASET.x, np.zeros_like(Y), "blobs")
    none = Dataset(DATASET.x, None, "blobs")
    grid = Grid((0, 1, 2), (3,), (1.0,), (1e-3,))
    results = [
        run_sweep(jax.random.key(0), dataset, CONFIG, grid) for dataset in (DATASET, others, none)
    ]
    assert len({result.best for result in results}) == 1
    for result in results[1:]:
        assert np.array_equal(result.labels, results[0].labels)
        assert np.array_equal(result.consensus_labels, results[0].consensus_labels)
    assert "acc" not in results[2].members[0]
    assert results[2].consensus_scores is None


def test_one_seed_is_chosen_by_silhouette():
    assert sweep(Grid((0,), (3,), (0.5, 1.0), (1e-3,))).criterion == "silhouette"


def test_divergences_of_several_k_are_not_compared():
    with pytest.raises(ValueError, match="cannot be compared"):
        sweep(Grid((0,), (2, 3), (1.0,), (1e-3,)), criterion="divergence")


@pytest.mark.parametrize("values", [(), (1, 1)])
def test_a_grid_has_different_values(values):
    with pytest.raises(ValueError, match="seeds: expected"):
        Grid(values, (3,), (1.0,), (1e-3,))


def test_the_table_shows_each_setting_in_a_line(over_k):
    lines = sweep_table(over_k.settings).splitlines()
    assert lines[0].split() == ["k", "KL", "silhouette", "agreement", "G", "ACC", "NMI", "ARI"]
    assert [line.split()[0] for line in lines[1:]] == ["2", "3"]
    assert lines[1].count("±") == 7


def test_the_picture_has_a_panel_for_each_criterion(over_k):
    assert varied_axis(over_k.settings) == "n_clusters"
    figure = plot_sweep(over_k.settings, "n_clusters")
    titles = [axes.get_title() for axes in figure.axes]
    assert [title.split()[0] for title in titles] == ["Agreement", "Silhouette", "G"]
    for axes, name in zip(
        figure.axes, ("agreement", "silhouette", "generalizability"), strict=True
    ):
        (line,) = (line for line in axes.lines if line.get_marker() == "o")
        assert line.get_ydata() == pytest.approx([row[name] for row in over_k.settings])
    with pytest.raises(ValueError, match="axis"):
        plot_sweep([], "alpha")


@pytest.mark.parametrize(
    ("text", "values"),
    [("5", (5,)), ("5-7", (5, 6, 7)), (" 1, 3 - 4 ", (1, 3, 4))],
)
def test_integers(text, values):
    assert integers("seeds", text) == values


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "1,,2", "0-99999"])
def test_what_is_no_integers(text):
    with pytest.raises(ValueError, match="seeds: expected"):
        integers("seeds", text)


def test_numbers():
    assert numbers("alphas", None) == ()
    assert numbers("alphas", "0.5,1e-2") == (0.5, 0.01)
    with pytest.raises(ValueError, match="alphas: expected numbers"):
        numbers("alphas", "1;2")


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("blobs.npz", x=DATASET.x, y=Y)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    return tmp_path


def test_the_command_leaves_tables_model_labels_and_picture(files, capsys):
    options = ["--config", "config.json", "--seeds", "2", "--alphas", "0.5,1"]
    assert main(["sweep", "blobs.npz", *options]) == 0
    out = files / "runs" / "blobs-sweep"
    printed = capsys.readouterr().out
    assert "4 fits (2 seeds × 2 settings)" in printed
    assert "to report, not to choose" in printed
    members = list(csv.DictReader((out / "members.csv").read_text().splitlines()))
    assert [(row["seed"], row["alpha"]) for row in members] == [
        *(("0", "0.5"), ("1", "0.5"), ("0", "1.0"), ("1", "1.0"))
    ]
    summary = json.loads((out / "sweep.json").read_text())
    assert summary["best"] in [
        {name: type(summary["best"][name])(value) for name, value in row.items()} for row in members
    ]
    model, _ = load_model(out / "model.npz")
    labels = np.load(out / "labels.npy")
    assert np.array_equal(assign(model, DATASET.x)[1].argmax(1), labels)
    assert model.config.clustering.alpha == summary["best"]["alpha"]
    assert len(np.load(out / "consensus.npy")) == 120
    assert (out / "sweep.png").stat().st_size > 5000

    assert main(["sweep", "blobs.npz", *options]) == 1  # a second time, into the same folder
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-clusters", "2-500"], "n_clusters: expected at most one cluster per row"),
        (["--seeds", "none"], "seeds: expected integers"),
        (["--alphas", "-1"], "alpha"),
        (["--devices", "99"], "devices: expected at most"),
        (["--members-at-once", "0"], "members_at_once: expected an integer >= 1"),
        (["--held-out", "1.5"], "held_out: expected a number in [0, 1)"),
        (["--config", "nowhere.json"], "nowhere.json"),
    ],
)
def test_bad_input_is_one_line(files, capsys, options, message):
    options = options if "--config" in options else [*options, "--config", "config.json"]
    assert main(["sweep", "blobs.npz", "--quiet", *options]) in (1, 2)
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert not (files / "runs").exists()
