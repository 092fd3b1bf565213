import csv
import json

import jax
import numpy as np
import pytest
from sklearn.datasets import make_blobs

from jdec.cli import main
from jdec.cli.sweep_report import sweep_table, varied_axis
from jdec.plotting import plot_sweep
from jdec.selection import Grid, run_sweep
from jdec.trainer.config import Config
from jdec.trainer.model import assign
from jdec.trainer.model_file import load_model

X, Y = make_blobs(120, n_features=5, centers=3, random_state=0)
X = X.astype(np.float32)
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


@pytest.fixture(scope="module")
def over_k():
    return run_sweep(jax.random.key(9), X, CONFIG, Grid((0, 1), (2, 3), (1.0,), (1e-3,)), y=Y)


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


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("blobs.npz", x=X, y=Y)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    return tmp_path


def test_the_command_leaves_tables_model_labels_and_picture(files, capsys):
    options = ["--config", "config.json", "--seeds", "2", "--alphas", "0.5,1"]
    assert main(["sweep", "blobs.npz", *options]) == 0
    out = files / "runs" / "blobs-sweep"
    printed = capsys.readouterr().out
    assert "4 fits (2 seeds × 2 settings)" in printed
    assert "classes are not used for the selection" in printed
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
    assert np.array_equal(assign(model, X)[1].argmax(1), labels)
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
        (["--devices", "99"], "devices: only 8 are available, got 99"),
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
