"""The house rules (README, "How the code is laid out"), checked on the sources."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jdec

ROOT = Path(jdec.__file__).parent.parent
TESTS = ROOT / "tests"

#: Dotted name of each module to its file; a package is its __init__.py.
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "jdec").rglob("*.py"))
}
PACKAGES = [module for module, path in FILES.items() if path.name == "__init__.py"]
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}
IMPORTABLE = [module for module in FILES if module != "jdec.__main__"]  # that one runs the program
by_module = pytest.mark.parametrize("module", FILES)


def imports_of(tree):
    """Dotted names of everything imported, at the top or within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))


def words_of(tree):
    """Names, attributes and imported names of a module, with their lines."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "name"):
            if isinstance(word := getattr(node, field, None), str):
                yield word, node.lineno


def functions_of(tree, scope=""):
    """Qualified names and nodes of all functions, methods and nested functions."""
    for node in ast.iter_child_nodes(tree):
        inner = scope
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = f"{scope}{node.name}."
        if isinstance(node, ast.FunctionDef):
            yield inner[:-1], node
        yield from functions_of(node, inner)


def arguments_of(function):
    every = function.args
    found = [*every.posonlyargs, *every.args, *every.kwonlyargs]
    return [argument.arg for argument in found if argument.arg not in ("self", "cls")]


# Rules 1 to 3: which part of jdec may import which.

PARTS = {module.split(".")[1] for module in FILES if module != "jdec"}
PRIVATE = {part for part in PARTS if part.startswith("_") and part != "__main__"}
DOMAIN = {"core", "metrics", *PRIVATE}
MAY_IMPORT = {
    "core": {"core", "_checks", "_rows", "_typing"},
    "metrics": PRIVATE,
    "trainer": {"trainer", *DOMAIN},
    "datasets": {"datasets", *DOMAIN},
    "baselines": {"baselines", *DOMAIN},
    "bench": {"bench", "trainer", *DOMAIN},
    "plotting": DOMAIN,
    "selection": {"selection", "trainer", *DOMAIN},
    "estimator": {"trainer", *DOMAIN},
    "cli": PARTS,
    "__main__": {"cli"},
    **dict.fromkeys(PRIVATE, PRIVATE),
}


def test_every_part_has_a_rule():
    assert set(MAY_IMPORT) == PARTS


@pytest.mark.parametrize("module", [module for module in FILES if module != "jdec"])
def test_a_part_imports_only_the_parts_it_may(module):
    names = [name for name in imports_of(TREES[module]) if name.split(".")[0] == "jdec"]
    allowed = MAY_IMPORT[module.split(".")[1]]
    assert not [name for name in names if f"{name}.".split(".")[1] not in allowed]


@pytest.mark.parametrize("module", [module for module in FILES if module.startswith("jdec.core")])
def test_core_is_free_of_jit_devices_files_and_config(module):
    forbidden = {"jit", "pmap", "shard_map", "device_put", "devices", "local_devices", "Config"}
    forbidden |= {"device_count", "open", "Path", "os", "pathlib"}
    assert not [found for found in words_of(TREES[module]) if found[0] in forbidden]


# Rule 4: one door for each third party.


@pytest.mark.parametrize(
    ("package", "door", "n_modules"),
    [
        ("flax", "jdec.core.", 2),  # the SDAE, and other networks
        ("orbax", "jdec.trainer.checkpoint", 1),
        ("tqdm", "jdec.trainer.", 1),
        ("matplotlib", "jdec.plotting", 1),
        ("tyro", "jdec.cli.", 1),
        *((package, "jdec.datasets.", 1) for package in ("pooch", "skimage", "pyarrow", "pandas")),
    ],
)
def test_third_parties_have_one_door(package, door, n_modules):
    modules = [
        m for m in FILES if any(f"{n}.".startswith(f"{package}.") for n in imports_of(TREES[m]))
    ]
    assert len(modules) <= n_modules
    assert all(module.startswith(door) for module in modules)


# Rule 5: a dotted name is a module or a function, never both.


@pytest.mark.parametrize("module", IMPORTABLE[1:])
def test_no_module_shares_its_name_with_a_function(module):
    imported = importlib.import_module(module)
    package, _, name = module.rpartition(".")
    assert name not in getattr(sys.modules[package], "__all__", ())
    assert getattr(sys.modules[package], name) is imported


# Rule 6: sizes; a docstring is not counted.

#: The two that check all arguments of a run, of which they have more than others.
LONG = ("fit", "fit_population")


def n_lines(function):
    documented = function.body[0] if ast.get_docstring(function) else None
    n_documented = documented.end_lineno - documented.lineno + 1 if documented else 0
    return function.end_lineno - function.lineno + 1 - n_documented


@by_module
def test_files_functions_and_signatures_are_short(module):
    if module not in ("jdec.trainer.config", "jdec.trainer.programs", "jdec.plotting"):
        assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= 300
    functions = list(functions_of(TREES[module]))
    assert not [name for name, node in functions if n_lines(node) > 60 and name not in LONG]
    assert not [
        name for name, node in functions if len(arguments_of(node)) > 10 and name not in LONG
    ]


# Rule 7: a setting is documented, defaulted and validated in its own class.

SETTINGS = {
    node.name: node
    for module in ("jdec.trainer.config", "jdec.core.augmentation")
    for node in TREES[module].body
    if isinstance(node, ast.ClassDef) and node.name.endswith(("Config", "Augmentation"))
}


def fields_of(settings):
    return {node.target.id: node.value for node in settings.body if isinstance(node, ast.AnnAssign)}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_documented_defaulted_and_validated(name):
    fields = fields_of(SETTINGS[name])
    attributes = ast.get_docstring(SETTINGS[name]).split("Attributes:\n")[1].split("\n\n")[0]
    assert re.findall(r"^    (\w+):", attributes, re.MULTILINE) == list(fields)
    assert [field for field, default in fields.items() if default is None] in ([], ["n_clusters"])
    assert "__post_init__" in [name for name, _ in functions_of(SETTINGS[name])]


#: Of functions, with the name of a setting that is something else: where rows are, and which.
ARGUMENTS = {"rows"}


@pytest.mark.parametrize(
    "module",
    sorted(
        {m for m in FILES if m.startswith("jdec.trainer.")}
        - {"jdec.trainer.config", "jdec.trainer.scaling"}
    ),
)
def test_settings_are_validated_nowhere_else(module):
    names = set().union(*map(fields_of, SETTINGS.values()))
    calls = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.Call) and node.args]
    checked = {
        getattr(call.args[0], "value", None)
        for call in calls
        if getattr(call.func, "id", "").startswith("check_")
    }
    assert not checked & names - ARGUMENTS


# Rule 8: tests mirror the tree; tests and benchmarks use public names.

OWN_SUBJECT = {
    "cli/test_command_lines": "whole commands, in processes",
    "cli/test_strangers_cli": "odd values of every option",
    "trainer/test_hostile_models": "model files that are damaged or forged",
    "trainer/test_not_a_number": "NaN and infinity in every stage",
    "trainer/test_resume": "runs that are killed and resumed",
    "trainer/test_warm_up": "the steps between start and self-training",
}
MIRRORED = [path.relative_to(TESTS).with_suffix("") for path in TESTS.glob("*/test_*.py")]


@pytest.mark.parametrize("test", sorted(map(str, MIRRORED)))
def test_tests_mirror_the_tree(test):
    folder, _, name = test.partition("/test_")
    assert test in OWN_SUBJECT or {f"jdec.{folder}.{name}", f"jdec.{folder}._{name}"} & set(FILES)


def private_names(tree, stem):
    """Private names of jdec that a file uses; the tests of a private module may import it."""
    bound = {}  # local name -> dotted name
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.split(".")[0]
                bound[alias.asname or name] = name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def dotted(node):
        if isinstance(node, ast.Name):
            return bound.get(node.id, "")
        return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""

    used = {*bound.values(), *map(dotted, ast.walk(tree)), *imports_of(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("setattr", "delattr"):
            used.add(
                ".".join(
                    [dotted(node.args[0]), *(str(getattr(a, "value", "")) for a in node.args[1:2])]
                )
            )
    allowed = {"_replace", "_asdict", "_make", "_fields", stem.replace("test_", "_")}
    return {
        name
        for name in used
        if name.startswith("jdec.")
        and {part for part in name.split(".") if re.match("_[^_]", part)} - allowed
    }


@pytest.mark.parametrize(
    "path",
    [
        str(path.relative_to(ROOT))
        for top in (TESTS, ROOT / "benchmarks")
        for path in top.rglob("*.py")
    ],
)
def test_tests_and_benchmarks_use_public_names(path):
    path = ROOT / path
    assert not private_names(ast.parse(path.read_text(encoding="utf-8")), path.stem)


def test_private_names_are_found():
    source = """
import jdec.core.kmeans, flax._src
from jdec.core import dec
from jdec.core.kmeans import _lloyd
from jdec._checks import shown
from jdec._archives import read_npz
def f(monkeypatch, state):
    jdec.core.kmeans._BLOCK, dec.__name__, dec.DECState._fields, state._private
    monkeypatch.setattr(dec, "_SIZE", 1)
"""
    assert private_names(ast.parse(source), "test_checks") == {
        *("jdec.core.kmeans._lloyd", "jdec._archives.read_npz"),
        *("jdec.core.kmeans._BLOCK", "jdec.core.dec._SIZE"),
    }


# Rule 9: one word for one thing.


@by_module
def test_names_follow_the_glossary(module):
    forbidden = {"most", "least", "spread", "active", "divergence", "refuse", "tell", "anew"}
    names = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
    split = {
        name: {word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)} for name in names
    }
    assert not [name for name, words in split.items() if words & forbidden]


# Habits.


@by_module
def test_only_the_command_line_prints(module):
    if not module.startswith("jdec.cli"):
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.Call):
                assert getattr(node.func, "id", None) != "print"
                # jax.debug.print, for example
                assert getattr(node.func, "attr", None) not in ("print", "breakpoint", "pprint")


@by_module
def test_user_input_is_not_asserted(module):
    assert not [node.lineno for node in ast.walk(TREES[module]) if isinstance(node, ast.Assert)]


@by_module
def test_modules_are_documented(module):
    assert ast.get_docstring(TREES[module])


# Public names.


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_and_complete(package):
    public = importlib.import_module(package).__all__
    # As ruff sorts: constants, classes, functions.
    kinds = [(not name.isupper(), not name[0].isupper(), name) for name in public]
    assert kinds == sorted(set(kinds))
    imported = [
        (node.module, alias)
        for node in ast.walk(TREES[package])
        if isinstance(node, ast.ImportFrom) and node.module.startswith("jdec.")
        for alias in node.names
    ]
    assert {alias.name for _, alias in imported} == set(public)
    for module, alias in imported:
        assert alias.asname in (None, alias.name)
        home = importlib.import_module(module)
        assert getattr(sys.modules[package], alias.name) is getattr(home, alias.name)


def test_names_load_lazily_and_unknown_ones_are_attribute_errors():
    assert set(jdec.__all__) <= set(dir(jdec))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        jdec.nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("package", "name"),
    [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__],
)
def test_public_names_are_documented(package, name):
    documented = getattr(importlib.import_module(package), name)
    text = inspect.getdoc(documented)
    assert text
    first = text.splitlines()[0]
    assert first.endswith((".", ":"))
    # A dataclass without a docstring shows its signature, and a named tuple's is "Alias for …".
    assert not first.startswith((f"{name}(", "Alias"))
    if inspect.isfunction(documented) and "Args:" in text:
        arguments = text.split("Args:")[1].split("Returns:")[0]
        assert not [p for p in inspect.signature(documented).parameters if f"{p}:" not in arguments]


def packages_after(code):
    """Which slow or optional packages a new process has imported after running some code."""
    names = ("sklearn", "scipy", "orbax", "pandas", "matplotlib")
    code += f"\nimport sys; print(*(name for name in {names} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def test_import_is_light():
    base = packages_after("import jax, flax, optax")
    assert packages_after("import jdec") <= base
    loaded = packages_after("import jdec; jdec.fit, jdec.Config, jdec.load_model")
    assert not (loaded - base) & {"orbax", "pandas", "matplotlib"}
