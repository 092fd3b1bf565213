"""``jdec datasets`` and ``jdec info``."""

import os

import jax
import platformdirs

from jdec._environment import environment
from jdec.cli.arguments import Datasets, Info
from jdec.cli.fit_commands import check_platform
from jdec.datasets import dataset_table, download_dataset
from jdec.trainer.presets import PRESETS


def run_datasets(arguments: Datasets) -> None:
    """Run ``jdec datasets``."""
    if arguments.download is not None:
        folder = download_dataset(arguments.download, data_dir=arguments.data_dir, progress=True)
        print(f"{arguments.download}: in {folder}")
        return
    rows = dataset_table(arguments.data_dir)
    width = max(len(row.name) for row in rows)
    for row in rows:
        n_rows, n_features, n_classes = row.shape
        where = "not here"
        if row.built_in:
            where = "comes with scikit-learn"
        elif row.path is not None:
            where = str(row.path) + (f" ({row.variant})" if row.variant else "")
        elif row.downloadable:
            where += f"; jdec datasets --download {row.name}"
        print(
            f"{row.name:{width}}  {n_rows:>7} x {n_features:<5} {n_classes:>3} classes  {where}\n"
            f"{'':{width}}  {row.description}"
        )


def run_info(arguments: Info) -> None:
    """Run ``jdec info``."""
    del arguments
    check_platform()
    values = environment() | {
        "devices": ", ".join(map(str, jax.devices())),
        "data": os.environ.get("JDEC_DATA_DIR") or "(JDEC_DATA_DIR is not set)",
        "data cache": platformdirs.user_cache_path("jdec"),
        "presets": ", ".join(PRESETS),
    }
    for name, value in values.items():
        print(f"{name:12} {value}")
