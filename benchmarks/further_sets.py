"""Write further data sets for ``bench_quality --suite``, from packages that carry them.

They are none of jdec's named sets, and licences and size keep them out of its repository::

    apt-get download r-cran-mlbench weka && dpkg -x r-cran-mlbench_*.deb . && dpkg -x weka_*.deb .
    pip download --no-deps scanpy && unzip scanpy-*.whl
    pip install rdata h5py
    python -m benchmarks.further_sets . sets
    python -m benchmarks.bench_quality --suite --sets sets/*.npz

Columns of the tables are standardised, since they are measured in different units.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

_TABLES = "usr/lib/R/site-library/mlbench/data"
_SEGMENTS = "usr/share/doc/weka/examples"
_CELLS = "scanpy/datasets/10x_pbmc68k_reduced.h5ad"
#: Name to the table of R's mlbench, its column of classes, and columns that are left out.
MLBENCH = {
    "letter": ("LetterRecognition", "lettr", ()),
    "satellite": ("Satellite", "classes", ()),
    "vehicle": ("Vehicle", "Class", ()),
    "vowel": ("Vowel", "Class", ("V1",)),  # V1 is the speaker
}


def main() -> None:
    """Read the unpacked packages, and write one file a data set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("packages", type=Path, help="folder that the packages are unpacked in")
    parser.add_argument("out", type=Path, help="folder for the data sets, made if need be")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, (x, y) in read_all(arguments.packages).items():
        np.savez(arguments.out / f"{name}.npz", x=x, y=np.unique(y, return_inverse=True)[1])
        print(f"{name}: {len(x)} rows of {x.shape[1]}, {len(np.unique(y))} classes")


def read_all(packages: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return rows and classes of each data set."""
    found = {name: _of_mlbench(packages / _TABLES, *table) for name, table in MLBENCH.items()}
    found["segment"] = _segments(packages / _SEGMENTS)
    found["pbmc68k"] = _cells(packages / _CELLS)
    return found


def _of_mlbench(
    folder: Path, table: str, label: str, left_out: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    import rdata

    frame: Any = next(iter(rdata.read_rda(str(folder / f"{table}.rda")).values()))
    columns = frame.drop(columns=[label, *left_out]).astype(float)
    return _standardised(columns.to_numpy()), frame[label].astype(str).to_numpy()


def _segments(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import arff

    parts = [
        arff.loadarff(str(folder / f"segment-{part}.arff"))[0] for part in ("challenge", "test")
    ]
    rows = np.concatenate(parts)
    *columns, label = rows.dtype.names or ()
    return _standardised(np.stack([rows[name] for name in columns], axis=1)), rows[label]


def _cells(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import h5py

    with h5py.File(path) as file:
        return np.asarray(file["X"], np.float32), np.asarray(file["obs"]["bulk_labels"])


def _standardised(x: np.ndarray) -> np.ndarray:
    deviations = x.std(axis=0)
    return ((x - x.mean(axis=0)) / np.where(deviations > 0, deviations, 1)).astype(np.float32)


if __name__ == "__main__":
    main()
