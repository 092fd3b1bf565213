"""README.md is true: its code runs, its commands stand there, and the files it names exist."""

import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
BLOCKS = [match[2] for match in FENCED.finditer(README) if match[1] in ("python", "py")]
# As .ci/run looks for them.
COMMANDS = [r"pip install \. && jdec fit digits", r'pip install "\.\[test\]" && pytest']


def section(title):
    """Return the text under a heading, up to the next heading of its level or above."""
    heading = re.search(rf"^(#+) +{title}[^\n]*\n", README, re.MULTILINE | re.IGNORECASE)
    assert heading, f"README.md has no section {title!r}"
    rest = FENCED.sub(lambda block: block[0].replace("\n#", "\n "), README[heading.end() :])
    end = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_code_runs(tmp_path, monkeypatch, number):
    """Each block by itself, in an empty folder, with JAX as it comes."""
    monkeypatch.chdir(tmp_path)
    code = compile(BLOCKS[number], f"README.md, Python block {number + 1}", "exec")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(code, {"__name__": "__main__"})


def test_every_fenced_block_is_closed():
    assert len(re.findall(r"^```", README, re.MULTILINE)) % 2 == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_stand_there(command):
    assert len(re.findall(rf"^    (?:\$ )?{command}", README, re.MULTILINE)) >= 1


@pytest.mark.skipif(not (ROOT / ".ci" / "run").exists(), reason="not part of a distribution")
def test_commands_are_those_that_are_run():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"\(readme_command '([^']+)'\)", script) == COMMANDS


# A file or a folder, maybe with the stars and the braces of a pattern.
NAME = re.compile(
    r"(?<![\w<>*./:-])[\w.*/-]*(?:[\w*]\.(?:py|md|toml|typed|jsonl|ipynb)|\w/)(?![\w<>])"
)


def names_of(text):
    return sorted({name for name in NAME.findall(text) if "//" not in name})


def exists(name):
    folders = [ROOT, *(path for path in ROOT.iterdir() if path.is_dir() and path.name[0] != ".")]
    return any(any(folder.glob(name.rstrip("/"))) for folder in folders)


def test_names_are_found_in_text():
    text = "`jdec/trainer/fit.py`, tests/test_<module>.py, results/, bench_*.py, jax.scipy; a.b."
    assert names_of(text) == ["bench_*.py", "jdec/trainer/fit.py", "results/"]
    assert exists("jdec/trainer/fit.py")
    assert exists("estimator.py")
    assert exists("test_*.py")
    assert exists("tests/")
    assert not exists("jdec/absent.py")
    assert not exists("absent/")


def test_files_and_folders_that_are_named_exist():
    names = names_of(section("How the code is laid out"))
    assert [name for name in names if not exists(name)] == []


def test_every_module_is_named():
    text = section("How the code is laid out")
    modules = {path.name for path in (ROOT / "jdec").glob("[a-z]*.py")}
    folders = {
        f"{path.name}/" for path in (ROOT / "jdec").iterdir() if (path / "__init__.py").exists()
    }
    assert "estimator.py" in modules
    assert "trainer/" in folders
    missing = [
        name
        for name in sorted(modules | folders)
        if not re.search(rf"(?<!\w){re.escape(name)}", text)
    ]
    assert missing == []


def test_links_to_files_lead_somewhere():
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", FENCED.sub("", README))
    links = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in links if not (ROOT / link).exists()] == []
