"""The house plan, read from the sources: who may import whom, and what may not be anywhere."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import jdec

FOLDER = Path(jdec.__file__).parent

LAYERS = [
    {"_typing", "_checks", "_io", "_memory", "_sparse", "progress"},
    {"functional", "kmeans", "metrics", "scaling", "augmentation"},
    {"_columns", "_files", "_validation"},
    {"autoencoder"},
    {"training", "pretrain", "dec"},
    # The shell is a ladder: a rung rests on those below it.
    *(
        {module}
        for module in ("sharding", "config", "datasets", "checkpoint", "workdir", "build", "model")
    ),
    *({module} for module in ("inputs", "members", "fit", "population")),
    {"spectral", "selection", "compilation", "distributed", "supervision"},
    {"baselines", "plots", "estimator"},
    {"results"},
    {"sweep", "arguments"},
    {"summaries"},
    {"cli"},
    {"__main__", "__init__"},
]
# Within a layer: the module on the left rests on those on the right.
WITHIN = {
    "pretrain": {"training"},
    "dec": {"training"},
    "datasets.pixels": {"datasets.dataset", "datasets._digests"},
    **{
        module: {f"datasets.{name}" for name in ("dataset", "_cache", "_digests", "_labels")}
        for module in ("datasets.reuters", "datasets.vision")
    },
    "datasets._text": {"datasets._labels", "datasets._roles"},
    "datasets._parquet": {"datasets._roles"},
    "datasets.files": {
        f"datasets.{name}" for name in ("dataset", "_labels", "_parquet", "_roles", "_text")
    },
    "datasets.registry": {
        f"datasets.{name}"
        for name in ("dataset", "files", "pixels", "reuters", "vision", "_digests", "_roles")
    },
    "datasets": {"datasets.dataset", "datasets.registry"},
}

ONLY = {
    "flax": {"autoencoder"},
    "tqdm": {"progress"},
    "matplotlib": {"plots"},
    "skimage": {"datasets.vision"},
    "pyarrow": {"datasets._parquet"},
}

#: Dotted; a folder is the module of its __init__.py.
FILES = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts).removesuffix(".__init__"): path
    for path in FOLDER.rglob("*.py")
}
MODULES = sorted(FILES)


def tree_of(module):
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imports_of(tree):
    """Dotted names of all modules imported, at the top or within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module if node.level == 0 else f"jdec.{node.module or ''}"
            if node.level == 0 and node.module.split(".")[0] == "jdec":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif node.level and not node.module:
                yield from (f"jdec.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def own_imports(module):
    names = {name.removeprefix("jdec.") for name in imports_of(tree_of(module)) if "jdec." in name}
    # A module of a folder does not rest on the __init__.py that collects their names.
    return (names & set(MODULES)) - {module.rpartition(".")[0]}


def layer_of(module):
    # The modules of a folder share its layer.
    return next(number for number, layer in enumerate(LAYERS) if module.split(".")[0] in layer)


def test_every_module_has_a_layer():
    assert set().union(*LAYERS) == {module.split(".")[0] for module in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_lower_layers_alone(module):
    allowed = set().union(*LAYERS[: layer_of(module)]) | WITHIN.get(module, set())
    assert own_imports(module) <= allowed


def test_the_reader_of_imports_sees_them_all():
    assert own_imports("dec") == {"_checks", "_typing", "functional", "training"}
    source = """
import jdec.core.kmeans, flax.linen as nn
from . import dec
from .fit import fit
def f():
    from jdec import plotting
    importlib.import_module("skimage.feature")
"""
    assert set(imports_of(ast.parse(source))) == {
        *(
            "jdec.kmeans",
            "flax.linen",
            "jdec.",
            "jdec.core.dec",
            "jdec.fit",
            "jdec",
            "jdec.plotting",
        ),
        "skimage.feature",
    }


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_have_one_door(module):
    packages = {name.split(".")[0] for name in imports_of(tree_of(module))}
    for package, doors in ONLY.items():
        assert package not in packages or module in doors


@pytest.mark.parametrize("package", ONLY)
def test_the_doors_are_used(package):
    for module in ONLY[package]:
        assert any(name.split(".")[0] == package for name in imports_of(tree_of(module)))


@pytest.mark.parametrize("module", sorted({*LAYERS[0], *LAYERS[1], *LAYERS[3]} - {"pretrain"}))
def test_the_core_knows_no_network(module):
    assert "autoencoder" not in own_imports(module)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "cli"])
def test_the_library_does_not_print(module):
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call):
            called = node.func
            assert getattr(called, "id", None) != "print"
            # jax.debug.print and the like
            assert getattr(called, "attr", None) not in ("print", "breakpoint", "pprint")


@pytest.mark.parametrize("module", MODULES)
def test_user_input_is_not_asserted(module):
    assert not [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.Assert)]


@pytest.mark.parametrize("module", sorted({*LAYERS[1], *LAYERS[2], *LAYERS[3]} - {"_files"}))
def test_the_core_leaves_jit_to_its_caller(module):
    for node in ast.walk(tree_of(module)):
        assert getattr(node, "attr", None) not in ("jit", "pmap")


# The public names.


def test_all_is_sorted_and_complete():
    # As ruff sorts: constants, classes, functions.
    assert jdec.__all__ == sorted(jdec.__all__, key=lambda name: (not name.isupper(), name))
    assert len(set(jdec.__all__)) == len(jdec.__all__)
    tree = tree_of("__init__")
    imported = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = [alias.asname for node in imported for alias in node.names]
    assert sorted(names) == sorted(jdec.__all__)
    for node in imported:
        assert all(alias.name == alias.asname for alias in node.names)


@pytest.mark.parametrize("name", jdec.__all__)
def test_public_names_are_documented(name):
    documented = getattr(jdec, name)
    text = inspect.getdoc(documented)
    assert text
    first = text.splitlines()[0]
    assert first.endswith((".", ":"))
    # A dataclass without a docstring shows its signature, and a named tuple's is "Alias for …".
    assert not first.startswith((f"{name}(", "Alias"))
    if inspect.isfunction(documented):
        parameters = inspect.signature(documented).parameters
        if "Args:" in text:
            arguments = text.split("Args:")[1].split("Returns:")[0]
            missing = [parameter for parameter in parameters if f"{parameter}:" not in arguments]
            assert not missing


@pytest.mark.parametrize("module", MODULES)
def test_modules_say_what_they_are(module):
    if module != "__main__":
        assert inspect.getdoc(importlib.import_module(f"jdec.{module}".removesuffix(".__init__")))
