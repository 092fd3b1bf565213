"""Configuration of the documentation: ``sphinx-build -W .docs FOLDER``.

README.md, .github/CONTRIBUTING.md and CHANGELOG.md become pages as they are; the others are made
from docstrings. Each object is documented once: on the page of ``jdec`` if its name is there, else
on the page of the namespace that exports it.
"""

import importlib
import pkgutil
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

import optax
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.typing import stringify_annotation

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jdec  # noqa: E402

NAMESPACES = (
    "core",
    "trainer",
    "datasets",
    "metrics",
    "selection",
    "baselines",
    "bench",
    "plotting",
)
REPOSITORY = "https://github.com/jdec/jdec"
LOGGER = logging.getLogger(__name__)

project = "jdec"
author = "the jdec authors"
copyright = author
version = release = jdec.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
smartquotes = False  # -- starts an option; see dash()
html_theme = "furo"
html_title = f"jdec {release}"
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": ".docs/",
}
html_show_copyright = html_show_sphinx = html_copy_source = False
templates_path: list[str] = []
exclude_patterns: list[str] = []

autoclass_content = "class"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autosummary_generate = False
maximum_signature_line_length = 88
napoleon_attr_annotations = False  # the signature has them

myst_enable_extensions = ["html_image"]
myst_heading_anchors = 4


def link_to_repository(app: Sphinx, path: Path, docname: str, text: list[str]) -> None:
    """Point relative links of an included page at the repository, and pictures at their files."""
    folder = (Path(app.srcdir) / path).resolve().parent.relative_to(ROOT).as_posix()

    def absolute(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        return f"{match[1]}]({REPOSITORY}/blob/main/{target}{match[3] or ''})"

    # [text](path) and [![alt](picture)](path), not ![alt](picture), which MyST takes care of.
    link = r"((?<!!)\[[^\[\]]*|\))\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)"
    text[0] = re.sub(link, absolute, text[0])
    pictures = posixpath.relpath(ROOT / folder, app.srcdir)
    text[0] = re.sub(r'(<img src=")(?![a-z]+:)', rf"\g<1>{pictures}/", text[0])


def exported(namespace: str) -> dict[str, Any]:
    """Return the public objects of a namespace: those it lists, or defines."""
    module = importlib.import_module(namespace)
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", "") == namespace
        ]
    return {name: getattr(module, name) for name in names}


def public_names() -> dict[str, str]:
    """Return where each public object is documented, by the place of its definition."""
    names: dict[str, str] = {}
    for namespace in ("jdec", *(f"jdec.{name}" for name in NAMESPACES)):
        for name, value in exported(namespace).items():
            names.setdefault(place(value) or f"{namespace}.{name}", f"{namespace}.{name}")
    return names


def place(value: Any) -> str:
    """Return the dotted name under which an object is defined, or nothing."""
    if isinstance(value, type(sys)):
        return value.__name__
    qualified = getattr(value, "__qualname__", "")
    return f"{value.__module__}.{qualified}" if qualified else ""


PUBLIC = public_names()
#: All modules, public or not, for names in docstrings are of any of them.
MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(jdec.__path__, "jdec.")
    if name != "jdec.__main__" and importlib.import_module(name)
]


#: How annotations and defaults appear in signatures, and what to show.
SIGNATURES = (
    (re.escape(stringify_annotation(optax.OptState, mode="smart")), "~optax.OptState"),
    (r"~?\bjaxlib\._jax\.Array\b", "~jax.Array"),
    (r"<factory>", "..."),  # Sphinx parses signatures as Python
    (r"<(?:function|class) '?([\w.]+)'?>", r"\1"),
)


def shorten(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str, returns: str
) -> tuple[str | None, str | None]:
    """Write types as the sources do."""

    def short(text: str | None) -> str | None:
        for pattern, replacement in SIGNATURES if text else ():
            text = re.sub(pattern, replacement, text)
        return text

    return short(signature), short(returns)


def keep_returns_whole(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Have Napoleon take no type from ``Returns:``, as the annotations have it: a colon is one."""
    for number, line in enumerate(lines):
        if line.strip() == "Returns:":
            indent = line[: line.index("R")]
            lines.insert(number + 1, f"{indent}    \\ ")  # an escaped space, which is nothing
            return


def summarize(
    app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """List under the docstring of a namespace what it exports."""
    if what != "module":
        return
    here, elsewhere = [], []
    for short, exported_value in sorted(exported(name).items()):
        home = PUBLIC[place(exported_value) or f"{name}.{short}"]
        if home == f"{name}.{short}":
            here.append(short)
        else:
            elsewhere.append(home)
    lines.extend(["", ".. autosummary::", "", *(f"   {short}" for short in here), ""])
    if elsewhere:
        roles = ", ".join(f":obj:`{short.rpartition('.')[2]} <{short}>`" for short in elsewhere)
        lines.extend([f"On the page of :mod:`jdec`, and here as well: {roles}.", ""])


def is_elsewhere(
    app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what is on another page, fields of named tuples, and methods of scikit-learn."""
    if (getattr(value, "__doc__", None) or "").startswith("Alias for field number"):
        return True
    if (getattr(value, "__module__", None) or "").startswith("sklearn."):
        return True
    namespace = app.env.current_document.autodoc_module
    if what == "module" and PUBLIC.get(place(value), "").rpartition(".")[0] not in ("", namespace):
        return True
    return None


def resolve(app: Sphinx, env: Any, node: Any, text: Any) -> Any:
    """Resolve a role of a docstring as Python would where the docstring stands.

    What exists but is not public becomes plain text; what does not exist is a warning.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].removeprefix("~").lstrip(".")
    found = lookup(target, node.get("py:module"), node.get("py:class"))
    if found is None:
        # Annotations are nodes of the same kind, without the place where they were written.
        if "refwarn" in node and target.partition(".")[0] not in ("jax", "numpy", "optax"):
            LOGGER.warning("no such object: %s", target, location=node, type="ref")
        return text
    if found not in PUBLIC:
        head, _, tail = found.rpartition(".")
        if head not in PUBLIC:
            return text
        found = f"{PUBLIC[head]}.{tail}"
    page = node.get("refdoc", env.docname)
    domain, target = env.domains.python_domain, PUBLIC.get(found, found)
    return domain.resolve_xref(env, page, app.builder, "obj", target, node, text) or text


def lookup(target: str, module: str | None, owner: str | None) -> str | None:
    """Return the dotted name of the definition that a role means, or nothing."""
    homes = [module] if module else []
    if owner and module:  # the module of the class, where it is defined
        value = find(f"{module}.{owner}")
        homes.append(f"{module}.{owner}")
        homes.append(getattr(value, "__module__", module))
    for candidate in (target, *(f"{home}.{target}" for home in (*homes, *MODULES))):
        value = find(candidate)
        if value is not None:
            return place(value) or candidate
    return None


def find(dotted: str) -> Any:
    """Return the object of a dotted name, or nothing."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        value: Any = sys.modules.get(".".join(parts[:length]))
        if value is not None:
            for part in parts[length:]:
                fields = getattr(value, "__dataclass_fields__", {})
                value = getattr(value, part, fields.get(part))
            return value
    return None


def dash(app: Sphinx, doctree: Any) -> None:
    """Set a dash between a parameter and what it is; elsewhere -- starts an option."""
    for text in list(doctree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect("include-read", link_to_repository)
    app.connect("autodoc-process-docstring", keep_returns_whole, priority=400)
    app.connect("autodoc-process-docstring", summarize)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-skip-member", is_elsewhere)
    app.connect("doctree-read", dash)
    app.connect("missing-reference", resolve)
