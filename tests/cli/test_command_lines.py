"""What strangers type, and where: columns and folders of all kinds, odd terminals, huge numbers."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.datasets import make_blobs

from jdec.cli import main
from jdec.cli.report import data_lines
from jdec.core.augmentation import Augmentation
from jdec.datasets import Dataset
from jdec.trainer.compilation import enable_compilation_cache
from jdec.trainer.config import Config
from jdec.trainer.memory import check_memory
from jdec.trainer.model import assign
from jdec.trainer.model_file import load_model
from jdec.trainer.workdir import lock_folder

TINY = [
    *("--network.hidden-dims", "8", "--network.latent-dim", "2"),
    *("--pretrain.finetune-steps", "20", "--pretrain.batch-size", "16"),
    *("--kmeans.n-init", "1", "--kmeans.overclustering-factors", "1", "--kmeans.select", "inertia"),
    *("--clustering.update-interval", "5", "--clustering.max-intervals", "1"),
]
FIT = ["--n-clusters", "3", *TINY]
X, Y = make_blobs(60, n_features=4, centers=3, random_state=0)
NAMES = ["north", "south", "east", "west"]
IDS = [f"row {i}, of 60" for i in range(60)]
posix = pytest.mark.skipif(os.name != "posix", reason="modes and devices of POSIX")


def write_table(path, columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


pytestmark = pytest.mark.usefixtures("in_place")


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """Return a folder with tables, a finished run and a finished sweep, which no test changes."""
    folder = tmp_path_factory.mktemp("place")
    features = dict(zip(NAMES, X.T.tolist(), strict=True))
    write_table(folder / "table.csv", {"who": IDS} | features | {"y": Y.tolist()})
    write_table(folder / "turned.csv", dict(reversed(features.items())) | {"who": IDS})
    write_table(folder / "renamed.csv", {name.upper(): v for name, v in features.items()})
    np.save(folder / "x.npy", X)
    np.savez(folder / "xy.npz", x=X, y=Y)
    np.save(folder / "images.npy", (X - X.min()).astype(np.uint8).repeat(64, 1).reshape(60, 16, 16))
    (folder / "file").write_text("a file")
    (folder / "mine").mkdir()
    (folder / "mine" / "labels.npy").write_text("mine")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "huge.json").write_text('{"n_clusters": 9223372036854775808}')
    (folder / "infinite.json").write_text('{"n_clusters": 3, "scale": 1e400}')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("JDEC_DATA_DIR", raising=False)
        options = ["--id", "who", "--quiet"]
        assert main(["fit", "table.csv", "--out", "run", *options, *FIT]) == 0
        sweep = ["sweep", "table.csv", "--config", "run/config.json", "--seeds", "1"]
        assert main([*sweep, "--out", "sweep", *options]) == 0
    return folder


def read_table(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def strictly(text):
    """Read JSON as other programs do: without NaN and infinity."""

    def fail(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=fail)


def snapshot(folder):
    return {path: path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


def assert_fails(capfd, argv, *needed, code=1):
    """Assert that a command line fails with one line, and return it."""
    before = snapshot(Path.cwd())
    assert main(argv) == code
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("jdec: ")
    assert shown.err.count("\n") == 1
    assert len(shown.err) < 700
    assert "----" not in shown.err
    for text in needed:
        assert text in shown.err
    assert snapshot(Path.cwd()) == before
    return shown.err


# Columns.


def test_the_columns_are_shown_and_saved(capfd, tmp_path):
    out = tmp_path / "run"
    assert main(["fit", "table.csv", "--id", "who", "--out", str(out), *FIT]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("table: 60 rows, 4 features, 3 clusters; ")
    assert lines[1] == (
        "classes from column 'y', kept out of training; --label none to train on it"
    )
    metrics = strictly((out / "metrics.json").read_text())
    assert (metrics["feature_names"], metrics["label_name"]) == (NAMES, "y")
    assert load_model(out / "model.npz")[0].feature_names == tuple(NAMES)


def test_a_label_column_can_be_a_feature(tmp_path, capfd):
    out = tmp_path / "run"
    command = ["fit", "table.csv", "--drop", "who,north", "--label", "none"]
    assert main([*command, "--out", str(out), *FIT]) == 0
    assert "classes" not in capfd.readouterr().out
    metrics = strictly((out / "metrics.json").read_text())
    assert (metrics["feature_names"], metrics["label_name"]) == ([*NAMES[1:], "y"], None)


def test_the_interpretation_of_the_rows_is_shown():
    rows = Dataset(X, Y, "rows")
    assert data_lines(rows, Config(3)) == []
    (line,) = data_lines(replace(rows, label_name="y"), Config(3))
    assert line == "classes from array 'y', kept out of training"
    table = replace(rows, label_name="y", feature_names=tuple(NAMES), note="a sample")
    assert data_lines(table, Config(3)) == [
        "classes from column 'y', kept out of training; --label none to train on it",
        "note: a sample",
    ]
    (line,) = data_lines(rows, Config(3, image_shape=(2, 2)))
    assert line == "rows are images of 2×2 (--image-shape), without augmentation"
    (line,) = data_lines(rows, Config(3, image_shape=(2, 2), augmentation=Augmentation(2, 10)))
    assert line == (
        "rows are images of 2×2 (--image-shape), varied at random in training "
        "(--augmentation: max_shift 2, max_rotation 10, max_zoom 0, max_shear 0)"
    )


def test_arrays_of_bytes_are_shown_as_images(capfd, monkeypatch):
    def stop(key, x, config, **kwargs):
        assert config.image_shape == (16, 16)
        raise ValueError("far enough")

    monkeypatch.setattr("jdec.cli.fit_commands.fit", stop)
    assert main(["fit", "images.npy", "--out", "never", *FIT]) == 1
    shown = capfd.readouterr().out.splitlines()
    assert shown[1].startswith("rows are images of 16×16 (--image-shape), varied at random")
    assert not Path("never").exists()


@pytest.mark.parametrize("options", [["--id", "who"], ["--drop", "who"]])
def test_columns_in_another_order_are_put_into_that_of_the_model(tmp_path, options):
    out = tmp_path / "a.npy"
    assert main(["predict", "run", "turned.csv", "--out", str(out), *options]) == 0
    assert np.load(out).tolist() == np.load("run/labels.npy").tolist()


def test_other_columns_raise(capfd):
    assert_fails(
        capfd, ["predict", "run", "renamed.csv"], "missing: 'north'", "unexpected: 'NORTH'"
    )
    command = ["evaluate", "run", "table.csv", "--drop", "who,north"]
    assert_fails(capfd, command, "missing: 'north'")


def test_identifiers_are_the_first_column_of_a_prediction(tmp_path):
    out = tmp_path / "a.csv"
    assert main(["predict", "run", "turned.csv", "--id", "who", "--out", str(out)]) == 0
    rows = read_table(out)
    assert list(rows[0]) == ["id", "label", "probability"]
    assert [row["id"] for row in rows] == IDS
    labels = np.load("run/labels.npy").tolist()
    assert [int(row["label"]) for row in rows] == labels
    assert main(["predict", "run", "turned.csv", "--drop", "who", "--out", str(out)]) == 0
    assert list(read_table(out)[0]) == ["label", "probability"]


def test_the_model_of_a_sweep_predicts(tmp_path, capfd):
    assert main(["predict", "sweep", "table.csv", "--id", "who"]) == 0
    shown = capfd.readouterr().out.split()
    model, _ = load_model("sweep/model.npz")
    assert model.feature_names == tuple(NAMES)
    assert [int(label) for label in shown] == assign(model, X)[1].argmax(axis=1).tolist()
    assert main(["evaluate", "sweep", "table.csv", "--id", "who"]) == 0


# Files that other programs read.


def test_json_is_json_and_missing_numbers_are_empty_cells():
    """With one seed there is no standard deviation, and no agreement with others."""
    for path in [*Path("sweep").glob("*.json"), *Path("run").glob("*.json")]:
        strictly(path.read_text())
    for path in (Path("sweep/history.jsonl"), Path("run/history.jsonl")):
        for line in path.read_text().splitlines():
            strictly(line)
    summary = strictly(Path("sweep/sweep.json").read_text())
    assert summary["best"]["agreement"] is None
    assert (summary["feature_names"], summary["label_name"]) == (NAMES, "y")
    (member,) = read_table("sweep/members.csv")
    (setting,) = read_table("sweep/settings.csv")
    assert member["agreement"] == setting["acc_std"] == ""
    assert float(member["acc"]) == float(setting["acc"]) == summary["best"]["acc"]


# Folders.


def test_a_tilde_is_the_home_whoever_expands_it(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    shutil.copytree("run", tmp_path / "old")
    shutil.copy("turned.csv", tmp_path)
    options = ["--config=~/old/config.json", "--id", "who", "--quiet"]
    assert main(["fit", "table.csv", "--out=~/new", *options]) == 0
    assert main(["sweep", "table.csv", "--seeds", "1", "--out", "~/sweep", *options]) == 0
    assert main(["predict", "~/old", "~/turned.csv", "--id=who", "--out=~/labels.npy"]) == 0
    assert (tmp_path / "new" / "labels.npy").exists()
    assert (tmp_path / "sweep" / "sweep.json").exists()
    assert (tmp_path / "labels.npy").exists()
    assert main(["datasets", "--data-dir=~/data"]) == 0
    assert not Path("~").exists()
    capfd.readouterr()
    for argv in (
        ["fit", "x.npy", "--out", "~nobody_of_this_name/a"],
        ["predict", "~nobody_/r", "x"],
    ):
        assert_fails(capfd, argv, "expected a path, got ~nobody", code=2)


SWEEP = ["sweep", "table.csv", "--id", "who", "--config", "run/config.json", "--seeds", "1"]


def test_an_interrupted_sweep_is_resumed(tmp_path, monkeypatch, capfd):
    out = tmp_path / "new"
    command = [*SWEEP, "--out", str(out)]
    with monkeypatch.context() as patch:

        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        patch.setattr("jdec.cli.sweep_commands.run_sweep", interrupt)
        assert main(command) == 130
    assert [path.name for path in out.iterdir()] == ["run.json"]
    shown = capfd.readouterr()
    assert shown.err == "jdec: interrupted; rerun with --resume to continue\n"
    # Another sweep, or a fit, raises.
    assert_fails(capfd, command, "already holds a run; resume it")
    other = [*command, "--resume", "--alphas", "2"]
    assert_fails(capfd, other, "differs from this one in data sweep")
    assert_fails(
        capfd, ["fit", "table.csv", "--id", "who", "--out", str(out), "--quiet", *FIT], "holds"
    )
    assert main([*command, "--resume"]) == 0
    capfd.readouterr()
    assert not (out / "checkpoints").exists()
    assert (out / "labels.npy").read_bytes() == Path("sweep/labels.npy").read_bytes()
    assert_fails(capfd, command, "exists already")


def test_a_sweep_raises_for_folders_that_are_taken(capfd):
    assert_fails(capfd, [*SWEEP, "--out", "run"], "run holds a run of jdec fit")
    assert_fails(capfd, [*SWEEP, "--out", "sweep"], "a finished sweep exists already in sweep")
    assert_fails(capfd, [*SWEEP, "--out", "mine"], "mine holds labels.npy but no run.json")
    assert_fails(capfd, [*SWEEP, "--out", "file"], "expected a folder, got the file file")
    assert_fails(capfd, ["fit", "x.npy", "--out", "mine", "--quiet", *FIT], "mine holds labels.npy")
    assert_fails(
        capfd, ["fit", "x.npy", "--out", "sweep", "--quiet", *FIT], "sweep already holds a run"
    )


@pytest.mark.parametrize("command", [SWEEP, ["fit", "x.npy", *FIT]])
def test_a_folder_in_use_raises(tmp_path, capfd, command):
    locked, done = threading.Event(), threading.Event()

    def hold():
        with lock_folder(tmp_path / "new"):
            locked.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait(60)
    try:
        assert_fails(
            capfd, [*command, "--quiet", "--out", str(tmp_path / "new")], "is in use by process"
        )
    finally:
        done.set()
        thread.join()


def test_a_full_disk_is_reported_in_one_line(tmp_path, monkeypatch, capfd):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device", str(tmp_path / "new" / "members.csv"))

    monkeypatch.setattr("jdec.cli.sweep_commands.run_sweep", fail)
    line = assert_fails(capfd, [*SWEEP, "--quiet", "--out", str(tmp_path / "new")])
    assert "members.csv: No space left on device; rerun with --resume to continue" in line


@pytest.mark.parametrize(
    ("out", "needed"),
    [
        ("table.csv", "expected another file than table.csv, which is read"),
        ("./run/../table.csv", "which is read"),
        ("run/labels.npy", "run/labels.npy is a result of the run there"),
        ("sweep/members.csv", "is a result of the run there"),
        ("nowhere/a.csv", "No such file or directory: 'nowhere/a.csv'"),
        ("file/a.csv", "Not a directory: 'file/a.csv'"),
        ("run", "expected a name that ends in .npy, .csv or .parquet"),
        ("folder.csv", "expected a file, got the folder folder.csv"),
    ],
)
def test_a_prediction_overwrites_nothing_that_is_read_or_a_result(monkeypatch, capfd, out, needed):
    def fail(*args, **kwargs):
        raise AssertionError("the model was applied before the check")

    monkeypatch.setattr("jdec.cli.model_commands.assign", fail)
    Path("folder.csv").mkdir(exist_ok=True)
    assert_fails(capfd, ["predict", "run", "table.csv", "--id", "who", "--out", out], needed)


def test_the_model_is_not_overwritten_by_what_it_predicts(tmp_path, capfd):
    shutil.copy("run/model.npz", tmp_path / "m.npy")
    np.save(tmp_path / "x.npy", X)
    out = ["--out", str(tmp_path / "m.npy")]
    assert_fails(capfd, ["predict", str(tmp_path / "m.npy"), "x.npy", *out], "which is read")
    (tmp_path / "link.npy").symlink_to(tmp_path / "x.npy")
    command = ["predict", "run", str(tmp_path / "x.npy"), "--out", str(tmp_path / "link.npy")]
    assert_fails(capfd, command, "which is read")


# Command lines.

BIG, BIGGER = "9" * 400, "9" * 5000
LISTS = "takes all values that follow it, including"
MISTAKES = {
    "a list takes the data": (
        *(2, ["fit", "--network.hidden-dims", "32", "32", "digits", "--out", "never"]),
        ["--network.hidden-dims", LISTS, "'digits'", " -- digits", "jdec fit --help"],
    ),
    "another list": (
        *(2, ["fit", "--kmeans.overclustering-factors", "2", "x.npy", "--out", "never"]),
        ["--kmeans.overclustering-factors", LISTS, "'x.npy'"],
    ),
    "a list spelt with _": (
        *(2, ["fit", "--network.hidden_dims", "32", "x.npy", "--out", "never"]),
        ["--network.hidden-dims", LISTS],
    ),
    "a shape takes the run": (
        *(2, ["predict", "--image-shape", "2", "2", "run", "x.npy", "--out", "never.csv"]),
        ["--image-shape", LISTS],
    ),
    "a shape takes the data of a sweep": (
        *(2, ["sweep", "--image-shape", "2", "2", "x.npy", "--seeds", "1"]),
        ["--image-shape", LISTS, "'x.npy'"],
    ),
    "a list with commas": (
        *(2, ["fit", "x.npy", "--network.hidden-dims", "32,32"]),
        ["--network.hidden-dims: expected numbers with spaces between, got '32,32'"],
    ),
    "a list of fractions with commas": (
        *(2, ["fit", "x.npy", "--graph.eigenvectors", "1.5,2"]),
        ["--graph.eigenvectors: expected numbers with spaces between, got '1.5,2'"],
    ),
    "a fraction among integers": (
        *(2, ["fit", "x.npy", "--network.hidden-dims", "8", "1.5"]),
        ["hidden-dims", "1.5"],
    ),
    **{
        f"{value} in a list": (
            *(2, ["fit", "no.npy", "--graph.diffusion-times", "2.5", value]),
            [f"diffusion_times: expected {expected}, got {shown}"],
        )
        for value, expected, shown in (
            ("nan", "a finite number >= 0", "nan"),
            ("inf", "a finite number >= 0", "inf"),
            ("-1", "a finite number >= 0", "-1.0"),
            ("1e50", "0 or a number from 1.18e-38 to 3.4e+38 (float32)", "1e+50"),
        )
    },
    "a list without values": (
        *(2, ["fit", "x.npy", "--network.hidden-dims"]),
        ["--network.hidden-dims: expected at least one value"],
    ),
    "a list that leaves its values to the data": (
        *(2, ["fit", "--network.hidden-dims", "x.npy"]),
        ["--network.hidden-dims: expected at least one value"],
    ),
    "surplus data": (2, ["fit", "x.npy", "x.npy"], ["x.npy"]),
    "a flag with a value": (2, ["fit", "x.npy", "--quiet=maybe"], ["maybe"]),
    "an option without its value": (2, ["fit", "x.npy", "--out"], ["--out"]),
    "many digits": (2, ["fit", "x.npy", "--n-clusters", BIGGER], ["--n-clusters"]),
    "a help of the wrong kind": (2, ["help"], ["unknown command 'help'"]),
    "no data": (1, ["fit", ""], ["or a file; got ''"]),
    "a folder": (1, ["fit", "."], ["or a folder of .parquet or .arrow or .feather files, got"]),
    "deep settings": (1, ["fit", "x.npy", "--config", "deep.json"], ["nested too deeply"]),
    "huge settings": (
        *(1, ["fit", "x.npy", "--config", "huge.json"]),
        ["n_clusters: expected an integer <= 2147483647, got 9223372036854775808"],
    ),
    "infinite settings": (1, ["fit", "x.npy", "--config", "infinite.json"], ["scale: ", "inf"]),
    "settings of a sweep": (1, ["sweep", "x.npy", "--config", "deep.json"], ["nested too deeply"]),
    "an unknown identifier": (1, ["fit", "table.csv", "--id", "nobody"], ["id: ", "'nobody'"]),
    "an unknown column": (1, ["sweep", "table.csv", "--drop", "who,nothing"], ["'nothing'"]),
    "an unknown class": (1, ["evaluate", "run", "table.csv", "--label", "no"], ["label: ", "'no'"]),
    "no classes": (
        *(1, ["evaluate", "run", "table.csv", "--id", "who", "--label", "none"]),
        ["expected classes to compare with, got none"],
    ),
    "columns of a data set that is known": (1, ["fit", "digits", "--id", "a"], ["digits: "]),
    "weights": (
        *(1, ["fit", "x.npy", *FIT, "--network.hidden-dims", "100000000", "20"]),
        ["network.hidden_dims: expected settings that take at most", "GiB"],
    ),
    "batches": (
        *(1, ["fit", "x.npy", *FIT, "--pretrain.batch-size", str(2**31 - 1)]),
        ["batch_size", "expected settings that take at most", "GiB"],
    ),
    "weights of one layer": (
        *(2, ["fit", "x.npy", "--network.hidden-dims", "1000000", "1000000"]),
        ["hidden_dims: expected layers of at most 2147483647 weights"],
    ),
    "steps": (
        2,
        *[
            ["fit", "x.npy", *("--clustering.update-interval", "1000000")]
            + ["--clustering.max-intervals", "1000000"]
        ],
        ["max_intervals: expected at most 2147483647 steps"],
    ),
    "members": (
        *(1, [*SWEEP, "--seeds", "10000", "--n-clusters", "1-60"]),
        ["expected at most 100000 combinations, got 600000"],
    ),
    "shares": (
        1,
        [*SWEEP, "--quiet", "--held-out", "nan"],
        ["held_out: expected a number in [0, 1)"],
    ),
}
for _option, _leaf in (
    *(("--n-clusters", "n_clusters"), ("--devices", "devices"), ("--seed", "seed")),
    *(("--pretrain.finetune-steps", "finetune_steps"), ("--kmeans.n-init", "n_init")),
    *(("--network.latent-dim", "latent_dim"), ("--network.hidden-dims", "hidden_dims")),
):
    for _value in ("-1", "2147483648", "9223372036854775808", BIG):
        if (_option, _value) != ("--seed", "2147483648"):  # which is one
            _code = 2 if "." in _option else 1
            _argv = ["fit", "x.npy", *([] if _leaf == "n_clusters" else ["--n-clusters", "3"])]
            MISTAKES[f"{_leaf} {_value[:9]}"] = (
                *(_code, [*_argv, _option, _value]),
                [f"{_leaf}: expected an integer"],
            )
for _name, _value in (("num-processes", BIG), ("process-id", BIG), ("num-processes", "0")):
    _values = {"coordinator": "localhost:1", "num-processes": "2", "process-id": "1", _name: _value}
    MISTAKES[f"{_name} {_value[:3]}"] = (
        *(1, ["fit", "x.npy", *(f"--{name}={value}" for name, value in _values.items())]),
        [f"{_name.replace('-', '_')}: expected an integer"],
    )
for _option, _values in {
    "seeds": ["-1", "10001", BIG, BIGGER, "1,1", "4294967296,1", "5-2", "1.5", "", "0"],
    "n-clusters": ["0", "2-61", "2147483648", BIG, "0-3", "3,3"],
    "alphas": ["1e400", "nan", "-1", "0", "1e-300", "1e39", "", "1_0", "1,1", "1;2"],
    "learning-rates": ["inf", "1e39", "0"],
    "members-at-once": ["0", "-1", BIG],
    "devices": ["0", BIG],
}.items():
    for _value in _values:
        MISTAKES[f"sweep {_option} {_value[:9]} {len(_value)}"] = (
            *(1, [*SWEEP, f"--{_option}={_value}", "--out", "never", "--quiet"]),
            [_option.replace("-", "_").removesuffix("s"), ": expected"],
        )
for _value in ("1e400", "nan", "1e39", "-1", "0"):
    MISTAKES[f"scale {_value}"] = (
        *(1, ["fit", "x.npy", "--n-clusters", "3", "--scale", _value]),
        ["scale: expected", "got"],
    )


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_before_any_work(capfd, name):
    code, argv, needed = MISTAKES[name]
    assert_fails(capfd, argv, *needed, code=code)


def test_errors_of_the_library_have_a_traceback(monkeypatch):
    def fail(*args, **kwargs):
        raise TypeError("a mistake of the library")

    monkeypatch.setattr("jdec.cli.fit_commands.load_dataset", fail)
    with pytest.raises(TypeError, match="a mistake of the library"):
        main(["fit", "x.npy", *FIT])


def test_memory_is_estimated_before_any_work():
    check_memory(Config(10), n_rows=70_000, n_features=784)
    fields = {"network.hidden_dims": [2**16, 2**14]}
    with pytest.raises(ValueError, match=r"network\.hidden_dims: expected settings that"):
        check_memory(Config(10).replace(fields), n_rows=100, n_features=2**30)
    with pytest.raises(ValueError, match="n_clusters × rows: expected settings that"):
        check_memory(Config(10**7), n_rows=10**7, n_features=10)


# Where the command runs.

ENCODINGS = ["ascii", "cp1252", "cp437", "latin-1", "gbk", "cp932", "utf-8"]
COMMANDS = [
    [],
    ["fit", "--help"],
    ["datasets"],
    ["info"],
    ["evaluate", "run", "table.csv", "--id", "who"],
    ["fit", "fehlt_é_漢.npy"],
    ["fit", "\udcff.npy"],  # a name of bytes that are no text
    ["fit", "x.npy", "--network.hidden-dims", "0"],
]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_encoding_of_the_output_will_do(monkeypatch, encoding):
    for argv in COMMANDS:
        streams = {}
        for name in ("stdout", "stderr"):
            streams[name] = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
            monkeypatch.setattr(sys, name, streams[name])
        try:
            code = main(argv)
        except SystemExit as stop:
            code = stop.code
        shown = {}
        for name, stream in streams.items():
            stream.flush()
            shown[name] = stream.buffer.getvalue().decode(encoding)
        assert code in (0, 1, 2)
        assert "----" not in shown["stderr"]
        assert bool(shown["stderr"]) == (code != 0 and argv != [])


def test_no_output_at_all_will_do(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["predict", "run", "turned.csv", "--id", "who"]) == 0
    assert main(["fit", "table.csv", "--id", "who", "--out", str(tmp_path / "run"), *FIT]) == 0
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert main(["fit", "absent.npy"]) == 1
    assert sys.stdout.getvalue() == ""


@pytest.mark.parametrize(
    "error", [RuntimeError("Unable to initialize backend 'cuda'"), AssertionError()]
)
@pytest.mark.parametrize(
    "argv",
    [
        ["fit", "x.npy", *FIT],
        ["fit", "x.npy", *FIT, "--devices", "1"],
        ["sweep", "x.npy", "--n-clusters", "3"],
        ["predict", "run", "x.npy"],
        ["evaluate", "run", "xy.npz"],
        ["info"],
    ],
    ids=" ".join,
)
def test_an_unavailable_platform_is_reported_in_one_line(monkeypatch, capfd, argv, error):
    def fail(*args):
        raise error

    monkeypatch.setattr(jax, "devices", fail)
    assert_fails(capfd, argv, "JAX_PLATFORMS: expected", "unset it")
    for other in (["--version"], ["--help"], ["datasets"]):
        assert main(other) == 0


def test_an_odd_environment_is_reported_in_one_line():
    """Of a notebook's kernel, or a profile written for another machine."""
    environment = os.environ | {"JAX_PLATFORMS": "cuda", "MPLBACKEND": "nowhere"}
    done = subprocess.run(
        [sys.executable, "-m", "jdec", "info"],
        env=environment | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode == 0:
        pytest.skip("there is a GPU")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("jdec: JAX_PLATFORMS: expected")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_output_that_cannot_be_written_is_a_failure_in_a_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "jdec", "datasets"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 1
    assert done.stderr == "jdec: [Errno 28] No space left on device\n"


@posix
@pytest.mark.filterwarnings("always:compilation cache disabled")
def test_a_cache_that_others_can_write_to_is_reported_in_one_line(tmp_path, monkeypatch, capfd):
    argv = ["jdec", "predict", "run", "turned.csv", "--id", "who", "--out", str(tmp_path / "a.npy")]
    monkeypatch.setattr(sys, "argv", argv)
    cache_of_the_tests = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    programs = enable_compilation_cache()
    programs.chmod(0o777)
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert main() == 0
    finally:
        jax.config.update("jax_compilation_cache_dir", cache_of_the_tests)
    shown = capfd.readouterr()
    assert shown.err.startswith(f"jdec: warning: compilation cache disabled: {programs} ")
    assert shown.err.count("\n") == 1
    assert not list(programs.iterdir())
