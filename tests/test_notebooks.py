"""The notebooks run, their outputs match their code, and they follow the conventions."""

import ast
import importlib
import importlib.metadata
import os
import subprocess
import sys
import types
from pathlib import Path

os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")  # asked for by Jupyter, in a warning

import nbformat
import pytest
import quick
from packaging.requirements import Requirement

import jdec
from notebooks import refresh

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NAMES = [
    "00_quickstart",
    "10_equations_by_hand",
    "20_swap_a_piece",
    "30_many_seeds",
    "40_accelerator_benchmark",
    "50_your_data",
    "60_choosing_k",
]
# JAX's plugins for accelerators, and the extra that installs each.
PLUGINS = {"jax_cuda12_plugin": "cuda12", "jax_cuda13_plugin": "cuda13", "libtpu": "tpu"}
MAX_BYTES, MAX_LINES, MAX_SECONDS = 600_000, 25, 300  # of a file, a cell, a test
NAMESPACES = (
    "baselines",
    "bench",
    "core",
    "datasets",
    "metrics",
    "plotting",
    "selection",
    "trainer",
)


def committed(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def sources(name):
    return [cell.source for cell in refresh.code_cells(committed(name))]


def run_refresh(*arguments, programs=None):
    """Run the tool in a subprocess: kernels leave sockets to the garbage collector."""
    return subprocess.run(
        [sys.executable, "-m", "notebooks.refresh", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=MAX_SECONDS,
        env=quick.environment(programs),
        check=False,
    )


def write(path, *cells):
    """Write a notebook of some cells of code, the last one tagged as the picture."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    notebook.cells[-1].metadata["tags"] = ["picture"]
    nbformat.write(notebook, path)
    return path


# Running them.


def test_there_are_seven():
    assert [path.stem for path in refresh.find_notebooks()] == NAMES


@pytest.mark.slow
def test_all_run_in_smoke_size_without_error_or_warning(tmp_path, programs):
    done = run_refresh(*NAMES, "--smoke", "--out", tmp_path, programs=programs)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        fresh = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4)
        assert fresh.metadata.jdec.size == "smoke"
        assert (tmp_path / "pictures" / f"{name}.png").stat().st_size <= refresh.PICTURE_BYTES


# The committed outputs.


@pytest.mark.parametrize("name", NAMES)
def test_outputs_match_the_code(name):
    notebook = committed(name)
    assert notebook.metadata.jdec.sources == refresh.hash_of_sources(notebook), (
        f"run python -m notebooks.refresh {name}"
    )
    counts = [cell.execution_count for cell in refresh.code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_no_errors_or_absolute_paths(name):
    notebook = committed(name)
    outputs = [output for cell in refresh.code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    for output in outputs:
        assert not [text for text in refresh.texts_of(output) if refresh.has_absolute_path(text)]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_name_device_and_size(name):
    notebook = committed(name)
    shown = [
        "".join(text for output in cell.outputs for text in refresh.texts_of(output))
        for cell in refresh.code_cells(notebook)
    ]
    assert shown[0] == ""  # nothing was missing
    assert "device" in shown[1]
    assert shown[2].startswith(f"size: {notebook.metadata.jdec.size}")


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size <= MAX_BYTES
    picture = FOLDER / "pictures" / f"{name}.png"
    assert picture.stat().st_size <= refresh.PICTURE_BYTES
    assert picture.read_bytes() == refresh.picture_of(committed(name))


@pytest.mark.parametrize("name", NAMES)
def test_readme_shows_it_in_one_line_with_its_picture(name):
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if f"[`{name}`](notebooks/{name}.ipynb)" in line]
    assert f'<img src="notebooks/pictures/{name}.png"' in line


# Conventions.


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_short(name):
    for cell in committed(name).cells:
        assert len(cell.source.splitlines()) <= MAX_LINES, cell.source


@pytest.mark.parametrize("name", NAMES)
def test_the_badge_links_to_this_notebook(name):
    first = committed(name).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("[![Open in Colab](")
    assert f"]({refresh.COLAB}/{name}.ipynb)\n" in first.source


@pytest.mark.parametrize("name", NAMES)
def test_one_cell_sets_the_sizes(name):
    cells = list(refresh.code_cells(committed(name)))
    tagged = [cell for cell in cells if "sizes" in cell.metadata.get("tags", ())]
    assert [cell for cell in cells if "environ" in cell.source] == tagged == [cells[2]]
    assert tagged[0].source.startswith("# SIZES")


def imported_from_jdec(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}:{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "jdec":
            yield f"jdec:{node.attr}"


def public_names(module):
    """Return ``__all__``, or the functions and classes of a module without one."""
    own = (
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and name[0] != "_"
    )
    return getattr(module, "__all__", None) or tuple(own)


@pytest.mark.parametrize("name", NAMES)
def test_only_public_names_are_imported(name):
    public = {"jdec", "jdec:__version__"} | {f"jdec:{name}" for name in jdec.__all__}
    for space in NAMESPACES:
        module = importlib.import_module(f"jdec.{space}")
        public |= {f"{module.__name__}:{name}" for name in public_names(module)}
    for source in sources(name):
        for imported in imported_from_jdec(ast.parse(source)):
            if imported.split(":")[0].split(".")[0] in ("jdec", "benchmarks", "tests", "notebooks"):
                assert imported in public


@pytest.mark.parametrize("name", NAMES)
def test_the_second_cell_names_versions_and_devices(name):
    second = sources(name)[1]
    assert all(text in second for text in ("jdec.__version__", "jax.__version__", "jax.devices()"))


# The first cell, run with a fake pip and a fake list of installed packages.


def install(name, folder, monkeypatch, *, missing):
    """Run the first cell where some packages are missing; return what pip was called with."""
    called = []
    fakes = {
        "importlib.util": types.SimpleNamespace(
            find_spec=lambda name: None if name in missing else object()
        ),
        "subprocess": types.SimpleNamespace(
            run=lambda command, check: called.append((command, check))
        ),
    }
    fakes["importlib"] = types.SimpleNamespace(util=fakes["importlib.util"])
    for module, fake in fakes.items():
        monkeypatch.setitem(sys.modules, module, fake)
    monkeypatch.chdir(folder)
    code = compile(sources(name)[0], name, "exec")
    try:
        exec(code, {"__name__": "__main__"})
    finally:
        monkeypatch.undo()
    return called


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_does_nothing_if_all_is_installed(tmp_path, monkeypatch, name):
    assert install(name, tmp_path, monkeypatch, missing=()) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_installs_what_is_missing(tmp_path, monkeypatch, name):
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    missing = ("jdec", *PLUGINS)
    released = install(name, tmp_path, monkeypatch, missing=missing)
    assert released == [([*pip, "jdec"], True)]
    here = install(name, FOLDER, monkeypatch, missing=missing)
    assert here == [([*pip, str(ROOT)], True)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_first_cell_keeps_the_support_of_an_accelerator(tmp_path, monkeypatch, name, plugin):
    """JAX and its plugin for CUDA must be of one version: one alone would leave the CPU."""
    missing = ("jdec", *(PLUGINS.keys() - {plugin}))
    (called,) = install(name, tmp_path, monkeypatch, missing=missing)
    assert called[0][-1] == f"jdec[{PLUGINS[plugin]}]"
    requirements = [Requirement(text) for text in importlib.metadata.requires("jdec")]
    assert [r for r in requirements if r.extras == {PLUGINS[plugin]} and r.name == "jax"]


# The tool.


def test_refresh_creates_the_output_folder(tmp_path):
    path = write(tmp_path / "own.ipynb", "1")
    done = run_refresh(path, "--out", tmp_path / "new" / "place")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "place" / "own.ipynb").exists()


def test_refresh_writes_outputs_hash_and_picture(tmp_path):
    cells = [
        "import matplotlib.pyplot as plt\nimport os",
        "print('size', os.environ['JDEC_NOTEBOOK_SMOKE'])",
        "plt.plot([1, 2])\nplt.show()",
    ]
    path = write(tmp_path / "own.ipynb", *cells)
    done = run_refresh(path, "--smoke")
    assert done.returncode == 0, done.stderr
    notebook = nbformat.read(path, as_version=4)
    assert [cell.source for cell in notebook.cells] == cells
    assert notebook.cells[1].outputs[0].text == "size 1\n"
    assert notebook.metadata.jdec == {
        "sources": refresh.hash_of_sources(notebook),
        "size": "smoke",
    }
    assert "image/png" in notebook.cells[2].outputs[0].data
    assert (tmp_path / "pictures" / "own.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "own.ipynb, cell 2: ZeroDivisionError: division by zero"),
        (
            "import warnings\nwarnings.warn('oh\\nno')",
            "own.ipynb, cell 2 wrote to stderr: UserWarning: oh",
        ),
        (
            "import warnings\ntry:\n    warnings.warn('oh')\nexcept Exception:\n    pass",
            "own.ipynb, cell 2 wrote to stderr: UserWarning: oh",
        ),
        ("import sys\nprint('oh', file=sys.stderr)", "own.ipynb, cell 2 wrote to stderr: oh"),
        ("print('in /some/place')", "own.ipynb, cell 2 shows an absolute path"),
    ],
)
def test_refresh_rejects(tmp_path, source, reason):
    path = write(tmp_path / "own.ipynb", "", source)
    before = path.read_bytes()
    done = run_refresh(path)
    assert (done.returncode, done.stderr) == (1, f"{reason}\n")
    assert path.read_bytes() == before


def test_refresh_rejects_an_unknown_name(capsys):
    assert refresh.main(["99"]) == 1
    assert capsys.readouterr().err.startswith("99: no such notebook; expected one of 00_quickstart")


@pytest.mark.parametrize("content", [b"", b"{", b"# text", b"\xff\xfe\x00"])
def test_refresh_rejects_other_files(tmp_path, capsys, content):
    path = tmp_path / "own.ipynb"
    path.write_bytes(content)
    assert refresh.main([str(path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("own.ipynb: expected a notebook, got another file: ")
    assert told.count("\n") == 1
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("in /home/me/x", True),
        ("'/tmp/a.npz'", True),
        (r"C:\Users", True),
        ("1 / 2 and q/f and a/b/c", False),
        ("https://docs.jax.dev/en/latest/", False),
        ("<td>1</td><td>2</td>", False),
        ("~/data and ./data/x", False),
    ],
)
def test_absolute_paths_are_found(text, found):
    assert refresh.has_absolute_path(text) is found


def test_the_hash_depends_on_the_code_alone():
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell("a"), nbformat.v4.new_code_cell("1")]
    first = refresh.hash_of_sources(notebook)
    notebook.cells[0].source = "b"
    assert refresh.hash_of_sources(notebook) == first
    notebook.cells[1].source = "2"
    assert refresh.hash_of_sources(notebook) != first
