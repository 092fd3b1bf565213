"""Run the notebooks and save their outputs: ``python -m notebooks.refresh [NAME …] [--smoke]``.

Each is run from a clean kernel, in an empty folder. One that raises, warns or writes to stderr is
an error, and its file is left unchanged. Otherwise the outputs are written into it, with a hash of
its code by which the tests know that they match, and the picture of the cell tagged ``picture``
goes to ``pictures/``.
"""

import argparse
import base64
import hashlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")  # asked for by Jupyter, in a warning

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

FOLDER = Path(__file__).parent
#: URL of the notebooks in Colab, for the badge in each first cell.
COLAB = "https://colab.research.google.com/github/jdec/jdec/blob/main/notebooks"
#: Set to 1, it makes the notebooks small.
SMOKE = "JDEC_NOTEBOOK_SMOKE"
#: Maximum size of a picture for the README in bytes, and its maximum width.
PICTURE_BYTES, PICTURE_WIDTH = 60_000, 640

# A path from the root of a file system; neither a quotient nor the end of an HTML tag or address.
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<~])/[A-Za-z][\w.-]*/[\w.]|\b[A-Za-z]:\\\w")

# Every warning is shown, which rejects the notebook; as an exception it could be caught, such as
# around optional imports. From the first cell on, since starting the kernel may warn.
_STARTUP = """
import warnings


def show_all():
    get_ipython().events.unregister("pre_execute", show_all)
    warnings.simplefilter("always")
    for module in ("ipykernel", "tornado", "zmq"):  # about their own methods
        warnings.filterwarnings("ignore", module=module)


def name_it(message, category, *_, **__):
    return f"{category.__name__}: {message}\\n"


warnings.formatwarning = name_it
get_ipython().events.register("pre_execute", show_all)
"""


# What C++ writes to stderr, such as XLA about a slow machine, goes to the log, not to the cells.
_KERNEL = """
c.IPKernelApp.capture_fd_output = False
"""


class NotebookError(Exception):
    """A notebook that must not be committed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the notebooks named, or all; return 1 at the first error."""
    parser = argparse.ArgumentParser(prog="python -m notebooks.refresh", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="as 00_quickstart, 00, or a file")
    parser.add_argument("--smoke", action="store_true", help="small, as in the tests")
    parser.add_argument("--out", type=Path, default=None, help="folder; default: in place")
    parser.add_argument("--timeout", type=int, default=1800, help="maximum seconds for one cell")
    options = parser.parse_args(arguments)
    try:
        for path in find_notebooks(options.names):
            notebook = run_notebook(path, smoke=options.smoke, timeout=options.timeout)
            out = path.parent if options.out is None else options.out
            write_notebook(notebook, out / path.name)
            print(f"{path.name}: {len(list(code_cells(notebook)))} cells")
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def find_notebooks(names: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks of the given names, prefixes of names or files; by default all."""
    known = sorted(FOLDER.glob("[0-9]*.ipynb"))
    found = [] if names else known
    for name in names:
        chosen = [Path(name)] if Path(name).is_file() else []
        chosen = chosen or [path for path in known if path.name.startswith(name)]
        if not chosen:
            expected = ", ".join(path.stem for path in known)
            raise NotebookError(f"{name}: no such notebook; expected one of {expected}")
        found += chosen
    return found


def run_notebook(path: Path, *, smoke: bool, timeout: int = 1800) -> Any:
    """Run a notebook from a clean kernel, and return it with its outputs.

    Args:
        path: The notebook; the file is only read.
        smoke: Whether to run it in the small size.
        timeout: Maximum seconds for one cell.

    Returns:
        The notebook.

    Raises:
        NotebookError: If the file is no notebook, or a cell raises, warns, takes too long,
            writes to stderr or shows an absolute path.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        message = f"{path.name}: expected a notebook, got another file: {reason}"
        raise NotebookError(message) from None
    for cell in code_cells(notebook):
        cell.update(outputs=[], execution_count=None)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as log:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            startup_timeout=timeout,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
        )
        try:
            with tempfile.TemporaryDirectory() as settings:
                # The kernel itself writes to the log; cells do not.
                client.execute(env=_environment(Path(settings), smoke), stderr=log)
        except CellExecutionError as error:
            # The first line of a message says what went wrong.
            reason = f"{error.ename}: {error.evalue}".splitlines()[0]
            number = _number_of_failed(notebook)
            raise NotebookError(f"{path.name}, cell {number}: {reason}") from None
        except Exception as error:  # a kernel that does not start, hangs or dies
            log.seek(0)
            last = log.read().decode(errors="replace").splitlines()[-1:]
            reason = "; ".join([f"{type(error).__name__}: {error}".splitlines()[0], *last])
            raise NotebookError(f"{path.name}: {reason}") from None
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", ()):
            where = f"{path.name}, cell {number}"
            if output.get("name") == "stderr":
                raise NotebookError(f"{where} wrote to stderr: {output.text.splitlines()[0]}")
            for text in texts_of(output):
                if has_absolute_path(text):
                    raise NotebookError(f"{where} shows an absolute path")
            if "image/png" in output.get("data", {}):
                png = base64.b64decode(output.data["image/png"])
                output.data["image/png"] = base64.b64encode(compress(png)).decode()
        cell.metadata.pop("execution", None)
    notebook.metadata = nbformat.from_dict(
        {
            "jdec": {"sources": hash_of_sources(notebook), "size": "smoke" if smoke else "full"},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    return notebook


def write_notebook(notebook: Any, path: Path) -> None:
    """Write a notebook, and its picture into ``pictures`` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    picture = picture_of(notebook)
    if picture is not None:
        (path.parent / "pictures").mkdir(exist_ok=True)
        (path.parent / "pictures" / f"{path.stem}.png").write_bytes(picture)


def code_cells(notebook: Any) -> Iterator[Any]:
    """Return the cells of code, in order."""
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def hash_of_sources(notebook: Any) -> str:
    """Return the SHA-256 of the code; Markdown may change without another run."""
    sources = "\0".join(cell.source for cell in code_cells(notebook))
    return hashlib.sha256(sources.encode()).hexdigest()


def texts_of(output: Any) -> Iterator[str]:
    """Return the texts of an output."""
    if "text" in output:
        yield output.text
    for kind, data in output.get("data", {}).items():
        if kind.startswith("text/"):
            yield data


def has_absolute_path(text: str) -> bool:
    """Return whether a text contains an absolute path.

    Examples:
        >>> [has_absolute_path(text) for text in ("in /home/me", "1 / 2", "https://a.b/c/d")]
        [True, False, False]
    """
    return _ABSOLUTE_PATH.search(text) is not None


def picture_of(notebook: Any) -> bytes | None:
    """Return the first picture of the cell tagged ``picture``, small enough for the README."""
    for cell in code_cells(notebook):
        if "picture" not in cell.metadata.get("tags", ()):
            continue
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                png = base64.b64decode(output.data["image/png"])
                sizes = (compress(png, n, PICTURE_WIDTH) for n in (256, 128, 64, 32, 16))
                return next((small for small in sizes if len(small) <= PICTURE_BYTES), None)
    return None


def compress(png: bytes, n_colours: int = 256, width: int | None = None) -> bytes:
    """Return a PNG with a palette, on white, and with a maximum width."""
    with Image.open(io.BytesIO(png)) as image:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
    small = opaque.convert("RGB")
    if width is not None and small.width > width:
        small = small.resize((width, round(small.height * width / small.width)))
    target = io.BytesIO()
    small.quantize(n_colours, dither=Image.Dither.NONE).save(target, "PNG", optimize=True)
    return target.getvalue()


def _environment(settings: Path, smoke: bool) -> dict[str, str]:
    """Return the environment of a kernel with this checkout's jdec and no user settings."""
    startup = settings / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00_warnings.py").write_text(_STARTUP, encoding="utf-8")
    (startup.parent / "ipython_kernel_config.py").write_text(_KERNEL, encoding="utf-8")
    dropped = ("MPLBACKEND", "PYTHONWARNINGS", SMOKE)
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    path = os.pathsep.join(filter(None, [str(FOLDER.parent), kept.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, "IPYTHONDIR": str(settings), SMOKE: str(int(smoke))}


def _number_of_failed(notebook: Any) -> int:
    return next(
        number
        for number, cell in enumerate(notebook.cells, 1)
        if any(output.output_type == "error" for output in cell.get("outputs", ()))
    )


if __name__ == "__main__":
    sys.exit(main())
