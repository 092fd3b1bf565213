"""The files around the code agree with each other and with pyproject.toml."""

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import jdec

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOW = ROOT / ".github" / "workflows" / "tests.yml"
YAML_FILES = [ROOT / ".pre-commit-config.yaml", *sorted((ROOT / ".github").rglob("*.y*ml"))]
PAGES = ["CHANGELOG.md", ".github/CONTRIBUTING.md"]
#: Modules of jdec without a page of their own: the commands, and what is public as jdec.DEC.
NO_PAGE = {"cli", "estimator"}

pytestmark = pytest.mark.skipif(not WORKFLOW.exists(), reason="not part of a distribution")


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def parsed(path):
    yaml = pytest.importorskip("yaml", reason="PyYAML, of the extra dev, is not installed")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def lower_bounds(requirements):
    """Return the name and the lowest version of each requirement on another project."""
    found = [Requirement(text) for text in requirements]
    return {
        r.name: next(Version(bound.version) for bound in r.specifier if bound.operator == ">=")
        for r in found
        if r.name != PROJECT["project"]["name"]
    }


def pins(lines):
    found = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {r.name: Version(str(r.specifier).removeprefix("==")) for r in found}


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_parses(path):
    assert isinstance(parsed(path), dict)


def test_the_lowest_versions_are_those_of_the_project():
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *extras["parquet"], *extras["vision"]]
    assert pins(text_of(".github/lowest.txt").splitlines()) == lower_bounds(wanted)


def test_the_workflow_runs_the_lowest_and_newer_pythons():
    jobs = parsed(WORKFLOW)["jobs"]["tests"]["strategy"]["matrix"]["include"]
    lowest, *newest = jobs
    assert (lowest["versions"], lowest["constraint"]) == ("lowest", ".github/lowest.txt")
    assert all("constraint" not in job for job in newest)
    bound = PROJECT["project"]["requires-python"]
    assert bound == f">={lowest['python']}"
    assert all(job["python"] in SpecifierSet(bound) for job in newest)
    assert PROJECT["tool"]["mypy"]["python_version"] == lowest["python"]
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + lowest["python"].replace(".", "")


def test_readme_names_the_versions_that_the_workflow_runs():
    jobs = parsed(WORKFLOW)["jobs"]["tests"]["strategy"]["matrix"]["include"]
    pythons = sorted((job["python"] for job in jobs), key=Version)
    lowest = pins(text_of(".github/lowest.txt").splitlines())
    text = " ".join(text_of("README.md").split())
    assert f"the tests are run with {pythons[0]} to {pythons[-1]}," in text
    assert f"JAX {lowest['jax']} and scikit-learn {lowest['scikit-learn']}," in text
    assert pythons == [f"3.{minor}" for minor in range(11, 11 + len(pythons))]


def test_the_workflow_runs_what_a_checkout_runs():
    default = re.search(r"set -- ([\w ]+)", text_of(".ci/run"))[1].split()
    jobs = parsed(WORKFLOW)["jobs"]["tests"]["strategy"]["matrix"]["include"]
    steps = [job["steps"].split() for job in jobs]
    assert default in steps
    assert all(set(some) <= set(default) for some in steps)


def test_hooks_are_the_tools_of_the_project():
    bounds = lower_bounds(PROJECT["project"]["optional-dependencies"]["dev"])
    hooks = {}
    for repository in parsed(ROOT / ".pre-commit-config.yaml")["repos"]:
        for hook in repository["hooks"]:
            hooks[hook["id"]] = Version(repository["rev"])
            needed = pins(hook.get("additional_dependencies", []))
            for name, bound in lower_bounds(PROJECT["project"]["dependencies"]).items():
                assert needed.get(name, bound) >= bound
    assert hooks.keys() == {"ruff-format", "ruff-check", "mypy"}
    assert all(version >= bounds[name.split("-")[0]] for name, version in hooks.items())


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_exist(page):
    text = text_of(page)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if not re.match("[a-z]+:", link)]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
    named = re.findall(
        r"(?<![\w/.])\.?(?:\w+/)+(?:[\w*]+\.\w+)?(?!\w)", re.sub(r"/tmp/\S+", "", text)
    )
    patterns = [name.rstrip("/") for name in named if "github.com" not in name]
    folders = (ROOT, ROOT / "jdec")
    assert [p for p in patterns if not any(any(f.glob(p)) for f in folders)] == []


def test_the_changelog_knows_this_version():
    text = text_of("CHANGELOG.md")
    assert "## [Unreleased]" in text
    assert jdec.__version__ in text


def test_the_address_is_that_of_the_notebooks():
    repository = PROJECT["project"]["urls"]["Repository"].removeprefix("https://github.com/")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        assert f"/github/{repository}/blob/main/notebooks/{path.name}" in first
    assert f"https://github.com/{repository}" in text_of(".docs/conf.py")


def test_each_namespace_has_a_page():
    folder = ROOT / "jdec"
    tree = ast.parse(text_of(".docs/conf.py"))
    namespaces = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "NAMESPACES"
    )
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    modules = {path.stem for path in folder.glob("[!_]*.py")}
    assert set(namespaces) == (packages | modules) - NO_PAGE
    index = text_of(".docs/index.md").splitlines()
    for name in namespaces:
        assert name in index
        assert f".. automodule:: jdec.{name}" in text_of(f".docs/{name}.rst")
