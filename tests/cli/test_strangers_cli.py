"""What strangers type: every odd file, folder, option and value ends in one line, before any work.

The model is made by hand and nothing here gets as far as compiling a program.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jdec.cli import main
from jdec.trainer.config import Config
from jdec.trainer.model import Model
from jdec.trainer.model_file import save_model
from jdec.trainer.scaling import Scaling

CONFIG = Config(2).replace({"network.hidden_dims": [4], "network.latent_dim": 2})
X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
PARAMS = {
    "encoder_0": {"kernel": X[:3, :1].repeat(4, 1), "bias": np.zeros(4, np.float32)},
    "encoder_1": {"kernel": X[:4, :2].copy(), "bias": np.zeros(2, np.float32)},
}
MODEL = Model(Scaling(np.zeros(3), np.ones(3)), PARAMS, X[:2, :2].copy(), CONFIG)

LONG = "x" * 300  # longer than a name may be
ODD_NAMES = ["", " ", "missing", "a\0b", "\ud800", LONG, "~", "~nobody-at-all/x", "/dev/null", "-"]
FILES = {
    "empty.csv": b"",
    "empty.npy": b"",
    "empty.npz": b"",
    "empty.parquet": b"",
    "bytes.csv": bytes(range(256)),
    "bytes.npy": bytes(range(256)),
    "bytes.npz": b"PK\3\4" + bytes(300),
    "bytes.parquet": b"PAR1" + bytes(50),
    "header.csv": b"a,b\n",
    "ragged.csv": b"a,b\n1,2\n3\n",
    "text.csv": b"a,b\nx,y\n",
    "nul.csv": b"a,b\n1,\0\n",
    "quote.csv": b'a,b\n"1,2\n3,4\n',
    "lines.csv": b"\n\n\n",
    "mark.csv": b"\xef\xbb\xbf",
    "utf16.csv": "a,b\n1,2\n".encode("utf-16"),
    "latin.csv": "a,b\nä,2\n".encode("latin-1"),
    "infinite.csv": b"a,b\n1,inf\n2,3\n",
    "large.csv": b"a,b\n1e400,1\n2,3\n",
    "digits.csv": b"a,b\n" + b"9" * 5000 + b",1\n2,3\n",
    "long.csv": b"a" * 200_000 + b",b\n1,x\n",
    "other.csv": b"a;b\n1;2\n3;4\n",
    "x.txt": b"1,2\n",
    "x.pkl": b"\x80\x04.",
    "x.h5": b"\x89HDF\r\n",
    "x.csv.gz": b"\x1f\x8b" + bytes(9),
    "none": b"1,2\n",
}
ARRAYS = {
    "complex.npy": X + 1j,
    "structured.npy": np.zeros(3, [("a", "f4")]),
    "vector.npy": np.zeros(3),
    "number.npy": np.array(3.0),
    "no_rows.npy": np.zeros((0, 3)),
    "no_columns.npy": np.zeros((3, 0)),
    "nan.npy": np.full((3, 3), np.nan),
    "times.npy": np.zeros((3, 3), "M8[s]"),
    "strings.npy": np.full((3, 3), "1"),
    "objects.npy": np.array([[1, None]], object),
}
PLACES = ["folder.csv", "folder.npy", "loop.csv", "dangling.csv", "pipe.npy", "pipe.csv"]
SETTINGS = {
    "bytes": bytes(range(256)),
    "nothing": "",
    "a list": "[]",
    "null": "null",
    "a number": "3",
    "a text": '"a"',
    "deep lists": "[" * 100_000,
    "deep objects": '{"a":' * 100_000,
    "NaN": '{"n_clusters": NaN}',
    "thousands of digits": '{"n_clusters": ' + "9" * 5000 + "}",
    "an unknown name": '{"n_clusters": 2, "a\\nb": 1}',
    "a long name": '{"' + "k" * 100_000 + '": 1}',
    "a half letter": '{"\\ud800": 1}',
    "cut off": '{"n_clusters": 2',
    "more after it": '{"n_clusters": 2}}',
    "text for a number": '{"n_clusters": "2"}',
    "true for a number": '{"n_clusters": true}',
    "a fraction": '{"n_clusters": 2.0}',
    "no number": '{"n_clusters": null}',
    "a list for a part": '{"n_clusters": 2, "network": []}',
    "null for a part": '{"n_clusters": 2, "clustering": null}',
    "an object for a list": '{"n_clusters": 2, "network": {"hidden_dims": {"a": 1}}}',
    "nothing in it": "{}",
    "UTF-16": '{"n_clusters": 2}'.encode("utf-16"),
}

pytestmark = pytest.mark.usefixtures("in_place")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strangers")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    for name, array in ARRAYS.items():
        np.save(folder / name, array, allow_pickle=name == "objects.npy")
    np.save(folder / "x.npy", X)
    np.savez(folder / "two.npz", a=X, b=X)
    np.savez(folder / "zero.npz")
    np.savetxt(folder / "y.csv", np.c_[X[:, :2], X[:, 2] > 0], delimiter=",", header="a,b,label")
    table = (folder / "y.csv").read_text().removeprefix("# ")
    (folder / "y.csv").write_text(table)
    for number, content in enumerate(SETTINGS.values()):
        content = content if isinstance(content, bytes) else content.encode()
        (folder / f"{number}.json").write_bytes(content)
    for name in ("folder.csv", "folder.npy", "hollow", "mine", "run", "a_folder"):
        (folder / name).mkdir()
    (folder / "mine" / "labels.npy").write_text("mine")
    save_model(folder / "run" / "model.npz", MODEL)
    whole = (folder / "run" / "model.npz").read_bytes()
    for name, content in {"cut": whole[:500], "blank": b"", "words": b"words"}.items():
        (folder / name).mkdir()
        (folder / name / "model.npz").write_bytes(content)
    (folder / "a_folder" / "model.npz").mkdir()
    np.savez(folder / "header.npz", header=np.array("["))
    if hasattr(os, "mkfifo"):
        for name in ("pipe.npy", "pipe.csv", "pipe.npz", "pipe.json"):
            os.mkfifo(folder / name)
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "dangling.csv").symlink_to("nowhere.csv")
    return folder


def snapshot():
    return {
        path: path.read_bytes() if path.is_file() else None for path in sorted(Path().rglob("*"))
    }


FIT = ["--n-clusters", "2", "--quiet"]
SWEEP = ["--n-clusters", "2", "--quiet", "--seeds", "1"]
#: Too many for the rows: what does not fail earlier fails for that.
MANY = ["--n-clusters", "20", "--quiet"]
DIGITS, MORE_DIGITS = "9" * 400, "9" * 5000
NO_NUMBERS = ["", "x", "nan", "-1", DIGITS, MORE_DIGITS, "0x10", "true", "1,2", "[1]", "{}", "a\nb"]
NO_NUMBERS += ["\ud800", "1 2", "1.5.5"]
NUMBERS = [
    *("--seed", "--devices", "--scale", "--network.latent-dim", "--pretrain.batch-size"),
    *("--clustering.alpha", "--kmeans.max-iter", "--pretrain.optimizer.learning-rate"),
    *("--augmentation.max-shift", "--image-shape", "--network.hidden-dims", "--num-processes"),
    *("--process-id", "--scaling", "--preset", "--coordinator", "--network.precision"),
]
NAMES = ["x", "a\nb", "\ud800", "1" * 5000, "a,a", "a,b,label", '"', "-", "a b"]

COMMANDS = {
    "odd commands": [
        *(["bogus"], ["--bogus"], [""], [" "], ["-"], ["--"], ["help"], ["FIT"], ["fit\n"], ["@x"]),
        *(["fit"], ["predict"], ["predict", "run"], ["evaluate", "run"], ["sweep"], ["\ud800"]),
        *(["datasets", "x"], ["info", "x"], ["info", "--x"], ["datasets", "--download"]),
    ],
    "odd options": [
        ["fit", "x.npy", *options]
        for options in (
            *(["--bogus"], ["--bogus=1"], ["x.npy"], [""], ["--out"], ["-n", "2"], ["--quiet=x"]),
            *(["--n-clusters", "2", *MANY], ["--no-resume=1"], ["--n-cluster", "2"]),
            *(
                [],
                ["--n-clusters", "13", "--quiet"],
                [*FIT, "--image-shape", "2", "2"],
                [*FIT, "--seed"],
            ),
            *([*FIT, "--image-shape", "3"], [*FIT, "--coordinator", "localhost:1"]),
            *([*FIT, "--devices", "99"], ["--", "--quiet"], ["--", "--"], [*FIT, "--out", ""]),
        )
    ],
    "odd data sets": [
        *(["fit", "mnist"], ["fit", "mnist", "--data-dir", "run"], ["fit", "digits", "--id", "a"]),
        *(["fit", "mnist", "--data-dir", "x.npy"], ["fit", "mnist", "--data-dir", "a\0b"]),
        *(["datasets", "--download", "x"], ["datasets", "--download", "digits"]),
        *(["datasets", "--download", ""], ["datasets", "--data-dir", "a\0b"], ["fit", "Digits"]),
        *(
            ["datasets", "--data-dir", ""],
            ["predict", "run", "mnist"],
            ["predict", "run", "digits"],
        ),
    ],
    **{
        f"{command} of odd files": [
            [command, *run, name, *options]
            for name in [
                *(*FILES, *ARRAYS, *PLACES, "two.npz", "zero.npz"),
                *(*ODD_NAMES, "/", "/dev/zero", "http://a/b.csv", "*.csv", "x.npy ", "x.NPY2"),
            ]
        ]
        for command, run, options in (
            *(("fit", [], FIT), ("sweep", [], SWEEP), ("predict", ["run"], [])),
            ("evaluate", ["run"], []),
        )
    },
    "odd settings": [
        [command, "x.npy", "--quiet", "--config", f"{number}.json"]
        for command in ("fit", "sweep")
        for number in range(len(SETTINGS))
    ],
    "odd files of settings": [
        ["fit", "x.npy", "--quiet", "--config", name]
        for name in [*ODD_NAMES, "folder.npy", "pipe.json", ".", "x.npy"]
    ],
    "odd runs": [
        [command, run, data]
        for run in [
            *("hollow", "blank", "words", "cut", "a_folder", "header.npz", "pipe.npz", "x.npy"),
            *(*ODD_NAMES, "run/run.json", "y.csv"),
        ]
        for command, data in (("predict", "x.npy"), ("evaluate", "y.csv"))
    ],
    "odd places for results": [
        *(
            [*command, "--out", out]
            for out in [
                *("x.npy", "x.npy/below", "mine", "/dev/null", "/proc/x", "a\0b", "\ud800", LONG),
                *("~nobody-at-all/x", ""),
            ]
            for command in (
                *(["fit", "x.npy", *FIT], ["sweep", "x.npy", *SWEEP], ["predict", "run", "x.npy"]),
            )
        ),
        *(
            ["predict", "run", "x.npy", "--out", out]
            for out in [
                *("run/model.npz", "o.txt", "o", "folder.csv", "nowhere/o.csv", "run/labels.npy"),
                *("mine/labels.npy/o.csv", ".csv", "o.CSV", ".", ".."),
            ]
        ),
    ],
    "odd numbers of a fit": [
        ["fit", "x.npy", *MANY, f"{option}={value}"] for option in NUMBERS for value in NO_NUMBERS
    ],
    "odd numbers of clusters": [
        ["fit", "x.npy", "--quiet", f"--n-clusters={value}"] for value in NO_NUMBERS
    ],
    "odd lists of a sweep": [
        ["sweep", "x.npy", "--quiet", *options, f"{option}={value}"]
        for option in (
            *("--seeds", "--n-clusters", "--alphas", "--learning-rates", "--select", "--held-out"),
            *("--members-at-once", "--devices", "--preset", "--image-shape"),
        )
        for options in [["--n-clusters", "20"] * (option != "--n-clusters")]
        for value in [*NO_NUMBERS[1:8], "1,,2", "1-", "1;2", "0", "5-2", " "]
    ],
    "odd columns": [
        [command, "run", "y.csv", f"{option}={value}"]
        for option in ("--label", "--id", "--drop", "--image-shape")
        for value in NAMES
        for command in ("predict", "evaluate")
    ],
}


@pytest.mark.parametrize("group", COMMANDS)
def test_every_odd_command_line_ends_in_one_line(capfd, group):
    before = snapshot()
    wrong = {}
    for argv in COMMANDS[group]:
        try:
            code = main(argv)
        except BaseException as error:  # SystemExit is wrong as well
            code = repr(error)[:200]
        shown = capfd.readouterr()
        line = shown.err
        if (
            code not in (1, 2)
            or shown.out
            or not line.startswith("jdec: ")
            or line.count("\n") != 1
            or len(line) > 700
            or "Traceback" in line
        ):
            wrong[" ".join(argv)[:100]] = code, shown.out[:100], line[:300]
    assert wrong == {}
    assert snapshot() == before


def test_there_are_many_cases():
    assert sum(map(len, COMMANDS.values())) >= 800


def test_processes_end_in_one_line_as_well():
    odd = [
        ["fit", "x.npy", *MANY],
        ["predict", "cut", "x.npy"],
        ["evaluate", "run", "y.csv", "--label", "\udc80"],
    ]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "jdec", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for argv in odd
    ]
    for process in started:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 1
        assert out == ""
        assert err.startswith("jdec: ")
        assert err.count("\n") == 1
