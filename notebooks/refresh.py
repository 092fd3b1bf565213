"""Run the notebooks and keep what they show: ``python -m notebooks.refresh [NAME …] [--smoke]``.

Each is run from a clean kernel, in an empty folder. One that raises, warns or writes to stderr is
refused and its file stays as it is. Otherwise the outputs are written into
it, with a hash over its code by which the tests know that they belong together, and the picture of
the cell tagged ``picture`` goes to ``pictures/``.
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
#: Where Colab finds the notebooks; the address of the badge in each first cell.
COLAB = "https://colab.research.google.com/github/jdec/jdec/blob/main/notebooks"
#: Set to 1, it makes the notebooks small.
SMOKE = "JDEC_NOTEBOOK_SMOKE"
#: Most bytes of a picture for the README, and its width.
PICTURE_BYTES, PICTURE_WIDTH = 60_000, 640

# A path from the root of a file system; neither a quotient nor the end of an HTML tag or address.
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<~])/[A-Za-z][\w.-]*/[\w.]|\b[A-Za-z]:\\\w")

# Every warning is shown, and by that refused: as an error it could be swallowed, as on imports that
# are tried. From the first cell on, since what the kernel does to start may warn, of itself.
_STARTUP = """
import warnings


def show_all():
    get_ipython().events.unregister("pre_execute", show_all)
    warnings.simplefilter("always")
    for module in ("ipykernel", "tornado", "zmq"):  # of themselves, about their own methods
        warnings.filterwarnings("ignore", module=module)


def name_it(message, category, *_, **__):
    return f"{category.__name__}: {message}\\n"


warnings.formatwarning = name_it
get_ipython().events.register("pre_execute", show_all)
"""


# What C++ writes, such as XLA about a slow machine, is for the log and not for the cells.
_KERNEL = """
c.IPKernelApp.capture_fd_output = False
"""


class RefusedError(Exception):
    """A notebook that must not be committed as it is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the notebooks named, or all; return 1 at the first that is refused."""
    parser = argparse.ArgumentParser(prog="python -m notebooks.refresh", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="as 00_quickstart, 00, or a file")
    parser.add_argument("--smoke", action="store_true", help="in the small size of the tests")
    parser.add_argument("--out", type=Path, default=None, help="write there, not in place")
    parser.add_argument("--timeout", type=int, default=1800, help="most seconds for one cell")
    options = parser.parse_args(arguments)
    try:
        for path in find_notebooks(options.names):
            notebook = run_notebook(path, smoke=options.smoke, timeout=options.timeout)
            out = path.parent if options.out is None else options.out
            write_notebook(notebook, out / path.name)
            print(f"{path.name}: {len(list(code_cells(notebook)))} cells")
    except RefusedError as refused:
        print(refused, file=sys.stderr)
        return 1
    return 0


def find_notebooks(names: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks that names, beginnings of names or files stand for; by default all."""
    there = sorted(FOLDER.glob("[0-9]*.ipynb"))
    found = [] if names else there
    for name in names:
        chosen = [Path(name)] if Path(name).is_file() else []
        chosen = chosen or [path for path in there if path.name.startswith(name)]
        if not chosen:
            known = ", ".join(path.stem for path in there)
            raise RefusedError(f"{name}: no such notebook; expected one of {known}")
        found += chosen
    return found


def run_notebook(path: Path, *, smoke: bool, timeout: int = 1800) -> Any:
    """Run a notebook from a clean kernel, and return it with outputs fit to be committed.

    Args:
        path: The notebook; the file is only read.
        smoke: Whether in the small size.
        timeout: Most seconds for one cell.

    Returns:
        The notebook.

    Raises:
        RefusedError: If the file is no notebook, or a cell raises, warns, takes too long, writes to
            stderr or shows an absolute path.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        told = f"{path.name}: expected a notebook, got another file: {reason}"
        raise RefusedError(told) from None
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
                # What the kernel itself has to say goes to the log; cells do not write there.
                client.execute(env=_environment(Path(settings), smoke), stderr=log)
        except CellExecutionError as error:
            # Of the lines of some messages, the first says what went wrong.
            reason = f"{error.ename}: {error.evalue}".splitlines()[0]
            number = _number_of_failed(notebook)
            raise RefusedError(f"{path.name}, cell {number}: {reason}") from None
        except Exception as error:  # a kernel that does not start, hangs or dies has many names
            log.seek(0)
            said = log.read().decode(errors="replace").splitlines()[-1:]
            reason = "; ".join([f"{type(error).__name__}: {error}".splitlines()[0], *said])
            raise RefusedError(f"{path.name}: {reason}") from None
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", ()):
            where = f"{path.name}, cell {number}"
            if output.get("name") == "stderr":
                raise RefusedError(f"{where} wrote to stderr: {output.text.splitlines()[0]}")
            for text in texts_of(output):
                if has_absolute_path(text):
                    raise RefusedError(f"{where} shows an absolute path")
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
    """Return the SHA-256 of the code; text between it may change without another run."""
    sources = "\0".join(cell.source for cell in code_cells(notebook))
    return hashlib.sha256(sources.encode()).hexdigest()


def texts_of(output: Any) -> Iterator[str]:
    """Return what an output shows, but for its pictures."""
    if "text" in output:
        yield output.text
    for kind, data in output.get("data", {}).items():
        if kind.startswith("text/"):
            yield data


def has_absolute_path(text: str) -> bool:
    """Return whether a text names a file from the root on.

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
    """Write a picture anew with a palette, on white, and at most so wide."""
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
    """Return the variables of a kernel that knows no user's settings, and this checkout's jdec."""
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
