import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import pytest
import quick
import scipy.sparse
from sklearn.datasets import make_blobs

from jdec.cli import arguments, commands, main
from jdec.estimator import DEC
from jdec.metrics import clustering_scores
from jdec.trainer.config import Config, read_config
from jdec.trainer.fit import fit
from jdec.trainer.model import assign
from jdec.trainer.model_file import load_model
from jdec.trainer.presets import preset_config

COMMANDS = ["fit", "sweep", "predict", "evaluate", "bench", "datasets", "info"]
SETTINGS = [
    *("--network.hidden-dims", "8", "--network.latent-dim", "2"),
    *("--pretrain.finetune-steps", "40", "--pretrain.batch-size", "32"),
    *("--kmeans.n-init", "2", "--kmeans.overclustering-factors", "1", "--kmeans.select", "inertia"),
    *("--clustering.batch-size", "32", "--clustering.tol", "0"),
    *("--clustering.update-interval", "10", "--clustering.max-intervals", "3"),
]
SAVING = ["--checkpoint-seconds", "0"]
FIT = ["--n-clusters", "3", "--image-shape", "4", "4", *SETTINGS, *SAVING]
CONFIG = preset_config("fast", n_clusters=3, n_rows=90, image_shape=(4, 4)).replace(
    {
        "network.hidden_dims": [8],
        "network.latent_dim": 2,
        "pretrain.finetune_steps": 40,
        "pretrain.batch_size": 32,
        "kmeans.n_init": 2,
        "kmeans.overclustering_factors": (1,),
        "kmeans.select": "inertia",
        "clustering.batch_size": 32,
        "clustering.tol": 0.0,
        "clustering.update_interval": 10,
        "clustering.max_intervals": 3,
    }
)
X, Y = make_blobs(90, n_features=16, centers=3, random_state=0)
X = X.astype(np.float32)
FILES = [
    *("centroids.npy", "checkpoints", "config.json", "embedding.npy", "embedding.png"),
    *("history.jsonl", "history.png", "labels.npy", "metrics.json", "model.npz", "run.json"),
    *("soft_assignment.npy", "top_samples.png"),
]
ARRAYS = [name for name in FILES if name.endswith(".npy")]

pytestmark = pytest.mark.usefixtures("in_place")


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """Return a folder of files to work on, none of which any test changes, and a finished run."""
    folder = tmp_path_factory.mktemp("place")
    np.save(folder / "x.npy", X)
    np.savez(folder / "xy.npz", x=X, y=Y)
    np.save(folder / "narrow.npy", X[:, :15])
    table = np.column_stack([X, Y])
    header = ",".join([*(f"pixel{i}" for i in range(16)), "label"])
    np.savetxt(folder / "xy.csv", table, "%.17g", ",", header=header, comments="")
    broken = X.copy()
    broken[7, 1] = np.nan
    np.savetxt(folder / "nan.csv", broken, delimiter=",")
    (folder / "corrupt.npz").write_bytes((folder / "xy.npz").read_bytes()[:200])
    (folder / "file").write_text("a file")
    (folder / "empty").mkdir()
    (folder / "broken.json").write_text('{"n_clusters": 3, "clustering": {"alpha": -1}}')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "xy.npz", "--out", "run", "--quiet", *FIT]) == 0
    (folder / "broken_run").mkdir()
    (folder / "broken_run" / "model.npz").write_bytes(
        (folder / "run" / "model.npz").read_bytes()[:-100]
    )
    return folder


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.is_file() and path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


# jdec fit.


def test_every_file_is_written(place):
    assert names("run") == FILES
    assert all(path.stat().st_size > 0 for path in Path("run").iterdir())


def test_the_files_agree_with_each_other(place):
    labels, q, embedding, centroids = (
        np.load(f"run/{name}.npy", allow_pickle=False)
        for name in ("labels", "soft_assignment", "embedding", "centroids")
    )
    np.testing.assert_array_equal(labels, q.argmax(axis=1))
    model, extra = load_model("run/model.npz")
    np.testing.assert_array_equal(model.centroids, centroids)
    np.testing.assert_array_equal(extra["labels_"], labels)
    for one, other in zip(assign(model, X), (embedding, q), strict=True):
        assert one.tobytes() == other.tobytes()
    assert read_config("run/config.json") == model.config == CONFIG
    history = lines("run/history.jsonl")
    assert history == extra["history_"]
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["cluster_sizes"] == np.bincount(labels, minlength=3).tolist()
    assert metrics["scores"]["DEC"] == clustering_scores(Y, labels)
    assert metrics["scores"]["DEC"]["acc"] == history[-1]["acc"]
    assert metrics["n_intervals"] == history[-1]["interval"] == 3
    assert (metrics["dataset"], metrics["recipe"], metrics["seed"]) == ("xy", "preset fast", 0)
    assert (metrics["n_rows"], metrics["n_features"], metrics["n_clusters"]) == (90, 16, 3)
    assert {"loading", "pretraining", "kmeans", "clustering"} <= set(metrics["seconds"])
    record = json.loads(Path("run/run.json").read_text())
    assert record["config"] == CONFIG.to_dict()
    assert (record["data"]["shape"], record["key"][-2:]) == ([90, 16], [0, 0])


def test_it_is_the_function_fit(place):
    result = fit(jax.random.key(0), X, CONFIG)
    assert result.embedding.tobytes() == np.load("run/embedding.npy").tobytes()
    np.testing.assert_array_equal(result.labels, np.load("run/labels.npy"))


def test_the_model_is_that_of_an_estimator(place):
    estimator = DEC.load("run/model.npz")
    np.testing.assert_array_equal(estimator.labels_, np.load("run/labels.npy"))
    assert estimator.predict_proba(X).tobytes() == np.load("run/soft_assignment.npy").tobytes()
    assert estimator.n_iter_ == 3


@pytest.mark.parametrize("data", ["x.npy", "xy.csv"])
def test_files_of_other_kinds_give_the_same(tmp_path, data):
    out = tmp_path / "run"
    assert main(["fit", data, "--out", str(out), "--quiet", *FIT]) == 0
    assert names(out) == FILES
    for name in ARRAYS:
        assert (out / name).read_bytes() == Path("run", name).read_bytes()
    scores = json.loads((out / "metrics.json").read_text())["scores"]
    assert (scores is None) == (data == "x.npy")


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csc_array], ids=["dense", "sparse"])
def test_rows_that_are_streamed_give_the_same(tmp_path, make, capsys):
    data = tmp_path / ("rows.npy" if make is np.asarray else "rows.npz")
    (np.save if make is np.asarray else scipy.sparse.save_npz)(data, make(X))
    out = tmp_path / "run"
    assert main(["fit", str(data), "--out", str(out), "--rows", "stream", *FIT]) == 0
    # A sparse matrix has no pictures, though its rows are told to be some.
    assert names(out) == [name for name in FILES if make is np.asarray or "samples" not in name]
    np.testing.assert_array_equal(np.load(out / "labels.npy"), np.load("run/labels.npy"))
    for name in ("embedding", "soft_assignment"):
        found, expected = np.load(out / f"{name}.npy"), np.load(f"run/{name}.npy")
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert json.loads((out / "metrics.json").read_text())["rows"] == "stream"
    capsys.readouterr()
    assert main(["predict", str(out), str(data)]) == 0
    expected = "".join(f"{label}\n" for label in np.load("run/labels.npy"))
    assert capsys.readouterr().out == expected


def test_a_start_found_on_a_sample_is_told(tmp_path, capsys):
    out, sample = tmp_path / "run", ["--kmeans.max-rows", "50", "--clustering.warmup-steps", "5"]
    assert main(["fit", "xy.npz", "--out", str(out), *FIT, *sample]) == 0
    assert "start    found on a sample of 50 rows" in capsys.readouterr().out
    assert json.loads((out / "metrics.json").read_text())["start_rows"] == 50


def test_k_means_on_rows_that_are_streamed_is_left_out(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["fit", "xy.npz", "--out", str(out), "--rows", "stream", *FIT]) == 0
    assert "k-means on the input: left out, as the rows were streamed" in capsys.readouterr().out
    scores = json.loads((out / "metrics.json").read_text())["scores"]
    assert list(scores) == ["AE + k-means", "DEC initialisation", "DEC"]


def test_the_settings_of_an_earlier_run_give_the_same(tmp_path):
    out = tmp_path / "again"
    assert main(["fit", "xy.npz", "--config", "run/config.json", "--out", str(out)]) == 0
    for name in [*ARRAYS, "config.json", "run.json"]:
        assert (out / name).read_bytes() == Path("run", name).read_bytes()
    recipe = json.loads((out / "metrics.json").read_text())["recipe"]
    assert recipe == f"settings of {Path('run/config.json')}"


def test_options_override_the_settings_of_an_earlier_run(tmp_path):
    command = ["fit", "xy.npz", "--config", "run/config.json", "--n-clusters", "2"]
    changes = ["--clustering.max-intervals", "0", "--kmeans.n-init", "1"]
    assert main([*command, *changes, "--out", str(tmp_path), "--quiet"]) == 0
    expected = CONFIG.replace({"n_clusters": 2, "clustering.max_intervals": 0, "kmeans.n_init": 1})
    assert read_config(tmp_path / "config.json") == expected


def test_the_seed_decides(tmp_path):
    command = ["fit", "xy.npz", "--seed", "5", "--out", str(tmp_path), "--quiet", *FIT]
    assert main(command) == 0
    assert (tmp_path / "embedding.npy").read_bytes() != Path("run/embedding.npy").read_bytes()
    assert json.loads((tmp_path / "run.json").read_text())["key"][-2:] == [0, 5]
    assert json.loads((tmp_path / "metrics.json").read_text())["seed"] == 5


def test_what_is_shown(tmp_path, capfd):
    out = tmp_path / "run"
    assert main(["fit", "xy.npz", "--out", str(out), *FIT]) == 0
    shown = capfd.readouterr()
    assert shown.out.startswith("xy: 90 rows, 16 features, 3 clusters; preset fast, seed 0; ")
    scores = json.loads((out / "metrics.json").read_text())["scores"]
    for name, score in scores.items():
        row = [f"{score[kind]:.3f}" for kind in ("acc", "nmi", "ari")]
        assert re.search(rf"^{re.escape(name)} +{' +'.join(row)}$", shown.out, re.MULTILINE)
    assert "ACC    NMI    ARI" in shown.out
    sizes = np.bincount(np.load(out / "labels.npy"), minlength=3)
    assert f"sizes    {', '.join(map(str, sizes))}\n" in shown.out
    assert "stopped  after 3 intervals, reached max_intervals; " in shown.out
    assert f"files    {out}: {', '.join(n for n in FILES if n != 'checkpoints')}" in shown.out
    assert "seconds  pretraining " in shown.out
    assert re.search(r"; total \d+\.\d s \(\d+\.\d s compiling(, \d+ cache hits)?\)\n", shown.out)
    legend = shown.out.split("ARI\n")[1].split("sizes")[0].splitlines()[-3:]
    assert legend == [
        "(k-means: on the input, best of 5 restarts;",
        "AE + k-means: on the pretrained embedding, best of 2 restarts;",
        "DEC initialisation: k-means on the same embedding, best of 2 restarts)",
    ]
    for phase in ("pretraining, finetune: 100%", "clustering: 100%"):
        assert phase in shown.err
    # A run without classes has no table.
    assert main(["fit", "x.npy", "--out", str(tmp_path / "other"), *FIT]) == 0
    assert "ACC" not in capfd.readouterr().out


def test_quiet_is_quiet(tmp_path, capfd):
    assert main(["fit", "xy.npz", "--out", str(tmp_path), "--quiet", *FIT]) == 0
    assert capfd.readouterr() == ("", "")


def test_results_go_to_runs_by_default(tmp_path, monkeypatch):
    shutil.copy("xy.npz", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "xy.npz", "--quiet", *FIT]) == 0
    assert names("runs/xy") == FILES


def test_a_named_data_set_has_its_shape_and_classes(tmp_path, monkeypatch):
    seen = []

    def stop(key, x, config, **kwargs):
        seen.append((x.shape, config))
        raise ValueError("far enough")

    monkeypatch.setattr("jdec.cli.fit_commands.fit", stop)
    assert main(["fit", "digits", "--out", str(tmp_path / "a")]) == 1
    assert main(["fit", "digits", "--out", str(tmp_path / "b"), "--preset", "paper"]) == 1
    for (shape, config), preset in zip(seen, ("fast", "paper"), strict=True):
        assert shape == (1797, 64)
        assert config == preset_config(
            preset, n_clusters=10, n_rows=1797, dataset="digits", image_shape=(8, 8)
        )


@pytest.mark.filterwarnings("always::jdec.trainer.EmptyClusterWarning")
def test_warnings_are_single_lines(tmp_path, capsys):
    np.save(tmp_path / "same.npy", np.repeat(X[:2], 45, axis=0))
    command = ["fit", str(tmp_path / "same.npy"), "--out", str(tmp_path / "run"), "--quiet", *FIT]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(r"jdec: warning: 1 of 3 clusters are empty: \d; .*\n", shown.err)


def test_an_interrupted_run_is_resumed(tmp_path, capsys):
    # As a run that ended before the results were written.
    out = tmp_path / "run"
    shutil.copytree("run", out)
    for name in FILES:
        if name not in ("checkpoints", "run.json"):
            (out / name).unlink()
    assert main(["fit", "xy.npz", "--out", str(out), "--resume", "--quiet", *FIT]) == 0
    assert names(out) == FILES
    for name in ARRAYS:
        assert (out / name).read_bytes() == Path("run", name).read_bytes()
    assert lines(out / "history.jsonl") == lines("run/history.jsonl")


def test_a_damaged_checkpoint_is_reported_in_one_line(tmp_path, capfd):
    out = tmp_path / "run"
    shutil.copytree("run", out)
    newest = max((out / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-10])
    assert main(["fit", "xy.npz", "--out", str(out), "--resume", "--quiet", *FIT]) == 0
    shown = capfd.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert shown.err.startswith(f"jdec: checkpoint {newest} is damaged and is not used: ")
    for name in ARRAYS:
        assert (out / name).read_bytes() == Path("run", name).read_bytes()


# jdec predict.


@pytest.mark.parametrize("run", ["run", "run/model.npz"])
@pytest.mark.parametrize("data", ["x.npy", "xy.npz", "xy.csv"])
def test_predict_writes_a_label_a_line(capfd, run, data):
    assert main(["predict", run, data]) == 0
    shown = capfd.readouterr()
    assert shown.err == ""
    assert [int(line) for line in shown.out.splitlines()] == np.load("run/labels.npy").tolist()


def test_predict_writes_npy(tmp_path, capsys):
    out = tmp_path / "labels.npy"
    assert main(["predict", "run", "x.npy", "--out", str(out)]) == 0
    assert capsys.readouterr() == (f"90 labels written to {out}\n", "")
    labels = np.load(out, allow_pickle=False)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, np.load("run/labels.npy"))
    assert names(tmp_path) == ["labels.npy"]


def test_predict_writes_csv(tmp_path):
    out = tmp_path / "labels.csv"
    assert main(["predict", "run", "x.npy", "--out", str(out)]) == 0
    assert out.read_text().splitlines()[0] == "label,probability"
    labels, probabilities = np.loadtxt(out, delimiter=",", skiprows=1).T
    np.testing.assert_array_equal(labels, np.load("run/labels.npy"))
    q = np.load("run/soft_assignment.npy")
    np.testing.assert_allclose(probabilities, q.max(axis=1), atol=1e-6)


def test_predict_writes_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra jdec[parquet]")
    out = tmp_path / "labels.parquet"
    assert main(["predict", "run", "x.npy", "--out", str(out)]) == 0
    table = parquet.read_table(out)
    assert table.column_names == ["label", "probability"]
    np.testing.assert_array_equal(table["label"], np.load("run/labels.npy"))
    q = np.load("run/soft_assignment.npy")
    np.testing.assert_array_equal(table["probability"], q.max(axis=1))


def test_predict_takes_new_rows(tmp_path, capsys):
    np.save(tmp_path / "new.npy", X[[80, 3]])
    assert main(["predict", "run", str(tmp_path / "new.npy")]) == 0
    labels = np.load("run/labels.npy")
    assert capsys.readouterr().out == f"{labels[80]}\n{labels[3]}\n"


# The other commands.


def test_evaluate_shows_the_scores(capsys):
    assert main(["evaluate", "run", "xy.npz"]) == 0
    scores = clustering_scores(Y, np.load("run/labels.npy"))
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.splitlines()[1].split() == [
        "DEC",
        *(f"{scores[kind]:.3f}" for kind in ("acc", "nmi", "ari")),
    ]


def test_datasets_are_listed(tmp_path, capsys):
    np.savez(tmp_path / "reuters10k.npz", x=np.eye(3), y=[0, 1, 2])
    assert main(["datasets", "--data-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    names = ("digits", "mnist", "fashion_mnist", "pendigits", "stl10", "cifar10")
    names += ("reuters", "reuters10k")
    for name in names:
        assert re.search(rf"^{name} +\d+ x \d+ +\d+ classes  ", shown, re.MULTILINE)
    assert "comes with scikit-learn" in shown
    assert "not here; jdec datasets --download mnist" in shown
    assert f"{tmp_path / 'reuters10k.npz'} (sample)\n" in shown
    assert all(len(line) < 100 + len(str(tmp_path)) for line in shown.splitlines())


def test_info_shows_versions_devices_and_folders(capsys, monkeypatch):
    monkeypatch.setenv("JDEC_DATA_DIR", "some/folder")
    assert main(["info"]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["jdec"] == version("jdec")
    assert shown["jax"] == version("jax")
    assert shown["data"].startswith(("some/folder", "cache"))
    assert shown["presets"] == "paper, fast"


def test_info_shows_the_data_folder(capsys, monkeypatch):
    monkeypatch.setenv("JDEC_DATA_DIR", "some/folder")
    main(["info"])
    assert re.search(r"^data +some/folder$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    "options", [[], ["--preset", "fast"], ["--preset=paper"], ["--preset", "paper"]]
)
def test_help_shows_the_defaults_of_the_preset(capsys, options):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "digits", *options, "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    preset = "paper" if "paper" in "".join(options) else "fast"
    config = preset_config(preset, n_clusters=2, n_rows=10_000)
    for option, value in (
        ("--pretrain.finetune-steps INT", config.pretrain.finetune_steps),
        (
            "--kmeans.overclustering-factors [INT [INT ...]]",
            config.kmeans.overclustering_factors[0],
        ),
        ("--clustering.optimizer.learning-rate FLOAT", config.clustering.optimizer.learning_rate),
    ):
        _, rest = shown.split(f"{option} ")
        assert rest.split("(default: ")[1].split(")")[0] == str(value)


@pytest.mark.parametrize("argv", [["--help"], ["-h"]])
def test_help_lists_the_commands(capsys, argv):
    assert main(argv) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z]", shown.out, re.MULTILINE)


def test_the_help_says_what_the_commands_say():
    for command in commands.COMMANDS.values():
        doc = getattr(arguments, command.arguments).__doc__
        assert command.summary == doc.splitlines()[0]


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("from jdec.cli import main; main(['--help'])", ["jax", "numpy", "tyro"]),
        ("from jdec.cli import main; main(['fat'])", ["jax", "numpy", "tyro"]),
        ("import jdec.cli.fit_commands", ["sklearn", "matplotlib", "pandas", "pyarrow", "tqdm"]),
        ("import jdec.cli.model_commands", ["sklearn", "matplotlib", "pandas", "pyarrow", "tqdm"]),
    ],
)
def test_only_what_is_used_is_imported(code, absent):
    """A library that takes a second to import is imported by what needs it."""
    code += f"; import sys; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_a_fit_compiles_few_programs_and_none_twice(tmp_path):
    """Preset fast, with what is printed about it."""
    steps = ["--pretrain.finetune-steps", "40", "--clustering.max-intervals", "2"]
    out = tmp_path / "run"
    done = process("fit", "digits", "--out", str(out), *steps, "--clustering.tol", "0")
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "metrics.json").read_text())["compilation"]["programs"] <= 13


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_a_person_is_told_at_once_what_happens(tmp_path):
    """At a terminal; elsewhere a failure is one line and nothing else."""
    terminal, end = os.openpty()
    command = [*MODULE, "fit", "digits", "--out", str(tmp_path / "run")]
    with subprocess.Popen(
        command, stderr=end, stdout=subprocess.DEVNULL, env=quick.environment()
    ) as started:
        os.close(end)
        shown = b""
        while b"\n" not in shown:
            shown += os.read(terminal, 1)
        started.kill()
    os.close(terminal)
    assert shown == b"reading digits\r\n"


def test_without_a_command_the_usage_is_shown(capsys):
    assert main([]) == 2
    assert "usage: jdec COMMAND" in capsys.readouterr().out


def test_the_version_is_shown(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jdec {version('jdec')}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert f"usage: jdec {command}" in shown.out
    if command == "fit":
        for option in ("--n-clusters", "--preset", "--seed", "--out", "--resume", "--config"):
            assert option in shown.out
        for name in _flat(Config(2).to_dict()):
            assert f"--{name.replace('_', '-')} " in shown.out.replace(",", " ")


def _flat(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif name != "n_clusters":
            yield prefix + name


# Mistakes.

MISTAKES = {
    # What the command line cannot mean: 2.
    "unknown command": (
        2,
        ["cluster", "x.npy"],
        ["unknown command 'cluster'", "fit, sweep, predict"],
    ),
    "an option for a command": (2, ["--quiet"], ["unknown command '--quiet'"]),
    "missing data": (2, ["fit", "--out", "new"], ["Missing", "see jdec fit --help"]),
    "missing arguments": (2, ["predict"], ["Missing", "see jdec predict --help"]),
    "missing argument": (2, ["evaluate", "run"], ["Missing", "see jdec evaluate --help"]),
    "unknown option": (2, ["fit", "x.npy", "--bogus", "3"], ["--bogus", "see jdec fit --help"]),
    "surplus argument": (2, ["info", "more"], ["more", "see jdec info --help"]),
    "no number": (2, ["fit", "x.npy", "--n-clusters", "ten"], ["--n-clusters", "ten"]),
    "no seed": (2, ["fit", "x.npy", "--seed", "1.5"], ["--seed", "1.5"]),
    "unknown preset": (2, ["fit", "x.npy", "--preset", "slow"], ["slow", "fast", "paper"]),
    "unknown optimizer": (
        *(2, ["fit", "x.npy", "--pretrain.optimizer.name", "sdg"]),
        ["sdg", "sgd", "adam"],
    ),
    "negative alpha": (
        *(2, ["fit", "x.npy", "--n-clusters", "3", "--clustering.alpha", "-1"]),
        ["alpha: expected a finite number > 0, got -1.0"],
    ),
    "zero learning rate": (
        *(2, ["fit", "x.npy", "--n-clusters", "3", "--clustering.optimizer.learning-rate", "0"]),
        ["learning_rate: expected a finite number > 0, got 0.0"],
    ),
    # What it means but cannot be done: 1.
    "unknown data set": (1, ["fit", "mnits"], ["expected one of digits", "did you mean 'mnist'"]),
    "missing file": (1, ["fit", "absent.npy"], ["got 'absent.npy', and no such file exists"]),
    "missing data set": (1, ["fit", "mnist"], ["not found in", "jdec datasets --download mnist"]),
    "no number of clusters": (1, ["fit", "x.npy", "--out", "new"], ["expected --n-clusters"]),
    "too many clusters": (
        *(1, ["fit", "x.npy", "--out", "new", "--n-clusters", "91"]),
        ["got n_clusters=91 for n_samples=90"],
    ),
    "rows nowhere": (2, ["fit", "x.npy", "--rows", "host"], ["host", "auto", "stream"]),
    "no clusters": (1, ["fit", "x.npy", "--n-clusters", "0"], ["expected an integer >= 1, got 0"]),
    "out is a file": (
        *(1, ["fit", "x.npy", "--n-clusters", "3", "--out", "file"]),
        ["expected a folder, got the file file"],
    ),
    "out is below a file": (
        *(1, ["fit", "x.npy", "--n-clusters", "3", "--out", "file/new"]),
        ["expected a folder that can be written to"],
    ),
    "an existing run": (
        *(1, ["fit", "xy.npz", "--out", "run", *FIT]),
        ["run already holds a run", "resume it, or choose another folder"],
    ),
    "another run": (
        *(1, ["fit", "xy.npz", "--out", "run", *FIT, "--resume", "--clustering.alpha", "2"]),
        ["differs from this one in clustering.alpha: 1.0 in run.json, 2.0 requested"],
    ),
    "another seed": (
        *(1, ["fit", "xy.npz", "--out", "run", *FIT, "--resume", "--seed", "1"]),
        ["random key: ", "0, 0] in run.json, ", "0, 1] requested"],
    ),
    "NaN": (
        *(1, ["fit", "nan.csv", "--n-clusters", "3", "--out", "new"]),
        ["nan.csv: expected finite numbers, got NaN in row 7"],
    ),
    "a corrupt file": (
        *(1, ["fit", "corrupt.npz", "--n-clusters", "3", "--out", "new"]),
        ["corrupt.npz: expected"],
    ),
    "a file that is no data": (
        *(1, ["fit", "file", "--n-clusters", "3", "--out", "new"]),
        [".npy, .npz, .csv"],
    ),
    "seed out of range": (
        *(1, ["fit", "x.npy", "--n-clusters", "3", "--out", "new", "--seed", str(2**70)]),
        ["seed: expected an integer below 2**32"],
    ),
    "negative seed": (
        *(1, ["fit", "x.npy", "--n-clusters", "3", "--out", "new", "--seed", "-1"]),
        ["seed: expected an integer >= 0, got -1"],
    ),
    "missing settings": (
        *(1, ["fit", "x.npy", "--config", "absent.json", "--out", "new"]),
        ["cannot read absent.json"],
    ),
    "broken settings": (
        *(1, ["fit", "x.npy", "--config", "broken.json", "--out", "new"]),
        ["broken.json", "alpha: expected a finite number > 0, got -1"],
    ),
    "settings that are none": (1, ["fit", "x.npy", "--config", "file"], ["file", "expected JSON"]),
    "images of another size": (
        *(1, ["fit", "x.npy", "--n-clusters", "3", "--image-shape", "5", "5", "--out", "new"]),
        ["image_shape: expected 16 entries as x has columns, got (5, 5)"],
    ),
    "augmentation without images": (
        *(1, ["fit", "x.npy", "--n-clusters", "3", "--augmentation.max-shift", "1"]),
        ["augmentation: expected image_shape as well"],
    ),
    "predict: no run": (1, ["predict", "absent", "x.npy"], ["no file absent"]),
    "predict: a folder that is no run": (
        *(1, ["predict", "empty", "x.npy"]),
        ["empty: expected a finished run, got a folder without model.npz"],
    ),
    "predict: no model": (1, ["predict", "file", "x.npy"], ["file is damaged or not a jdec model"]),
    "predict: a broken model": (
        *(1, ["predict", "broken_run", "x.npy"]),
        ["model.npz is damaged or not a jdec model"],
    ),
    "predict: missing data": (1, ["predict", "run", "absent.npy"], ["no such file exists"]),
    "predict: another width": (
        *(1, ["predict", "run", "narrow.npy"]),
        ["X has 15 features, but the model is expecting 16"],
    ),
    "predict: NaN": (1, ["predict", "run", "nan.csv"], ["got NaN in row 7"]),
    "predict: another ending": (
        *(1, ["predict", "run", "x.npy", "--out", "labels.txt"]),
        ["expected a name that ends in .npy, .csv or .parquet, got labels.txt"],
    ),
    "predict: no folder to write to": (
        *(1, ["predict", "run", "x.npy", "--out", "absent/labels.npy"]),
        ["No such file or directory: 'absent/labels.npy'"],
    ),
    "predict: below a file": (
        *(1, ["predict", "run", "x.npy", "--out", "file/labels.npy"]),
        ["Not a directory: 'file/labels.npy'"],
    ),
    "evaluate: no classes": (
        *(1, ["evaluate", "run", "x.npy"]),
        ["x.npy: expected classes to compare with, got none"],
    ),
    "evaluate: no run": (1, ["evaluate", "empty", "xy.npz"], ["expected a finished run"]),
    "evaluate: another width": (1, ["evaluate", "run", "digits"], ["X has 64 features"]),
    "datasets: unknown": (1, ["datasets", "--download", "mnits"], ["did you mean 'mnist'"]),
    "datasets: nothing to download": (
        *(1, ["datasets", "--download", "digits"]),
        ["nothing to download: it comes with scikit-learn"],
    ),
    "datasets: no folder": (
        *(1, ["datasets", "--download", "mnist", "--data-dir", "file"]),
        ["data_dir: expected a place to make"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_leave_no_files(place, capfd, name):
    code, argv, needed = MISTAKES[name]
    before = snapshot(place)
    assert main(argv) == code
    shown = capfd.readouterr()
    assert shown.err.startswith("jdec: ")
    assert shown.err.count("\n") == 1
    assert "Traceback" not in shown.out + shown.err
    for text in needed:
        assert text in shown.err
    assert len(shown.err) < 600
    assert snapshot(place) == before


def test_a_loss_that_is_not_finite_is_reported_in_one_line(tmp_path, capfd):
    rate = ["--pretrain.optimizer.learning-rate", "1e30"]
    assert main(["fit", "xy.npz", "--out", str(tmp_path / "run"), "--quiet", *FIT, *rate]) == 1
    shown = capfd.readouterr()
    assert shown.err.startswith("jdec: pretraining, finetune: the loss became ")
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "run" / "labels.npy").exists()


def test_a_failed_prediction_leaves_the_old_one(tmp_path, monkeypatch, capsys):
    out = tmp_path / "labels.npy"
    out.write_bytes(b"old")

    def save(file, array, allow_pickle):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jdec.cli.model_commands.np.save", save)
    assert main(["predict", "run", "x.npy", "--out", str(out)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert out.read_bytes() == b"old"
    assert names(tmp_path) == ["labels.npy"]


# Processes.

# A shell may have started its jobs with the signal ignored.
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from jdec.cli import arguments, commands, main
sys.exit(main())
"""
MODULE = [sys.executable, "-m", "jdec"]


def process(*argv, **kwargs):
    return subprocess.run(
        [*MODULE, *argv],
        capture_output=True,
        text=True,
        timeout=120,
        env=quick.environment(),
        **kwargs,
    )


def test_a_process_exits_with_the_code_and_a_line(place):
    before = snapshot(place)
    done = process("fit", "xy.npz", "--out", "run", *FIT)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("jdec: workdir: run already holds a run")
    assert "Traceback" not in done.stderr
    assert snapshot(place) == before


def test_the_command_is_installed():
    command = shutil.which("jdec", path=str(Path(sys.executable).parent)) or shutil.which("jdec")
    done = subprocess.run([command, "cluster"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    expected = "jdec: unknown command 'cluster'; expected one of " + ", ".join(COMMANDS)
    assert done.stderr == expected + "\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_closed_pipe_is_not_a_failure():
    with subprocess.Popen(
        [*MODULE, "datasets"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=quick.environment(),
    ) as started:
        started.stdout.close()
        assert started.stderr.read() == b""
        assert started.wait(120) == 0


@pytest.mark.skipif(os.name != "posix", reason="SIGINT of POSIX")
def test_an_interrupted_run_can_be_resumed(tmp_path, capsys):
    """Interrupted at its first checkpoint and resumed, a run ends with the same bits."""
    out = tmp_path / "run"
    command = ["fit", "xy.npz", "--out", str(out), "--quiet", *FIT]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=quick.environment(),
    ) as started:
        while started.poll() is None and not list(out.glob("checkpoints/[0-9]*")):
            time.sleep(0.005)
        started.send_signal(signal.SIGINT)
        shown = started.communicate(timeout=120)
    assert started.returncode == 130
    assert shown == ("", "jdec: interrupted; rerun with --resume to continue\n")
    assert set(names(out)) <= {"checkpoints", "config.json", "run.json", "history.jsonl"}
    assert main([*command, "--resume"]) == 0
    for name in ARRAYS:
        assert (out / name).read_bytes() == Path("run", name).read_bytes()
