"""The data, configuration, model and devices that the arguments of a command name."""

from pathlib import Path
from typing import Any

import jax

from jdec._environment import environment
from jdec.cli.arguments import Evaluate, Fit, Predict, Sweep
from jdec.cli.parsing import names
from jdec.datasets import Dataset, dataset_table, load_dataset
from jdec.trainer.config import Config
from jdec.trainer.model import Model
from jdec.trainer.model_file import load_model
from jdec.trainer.presets import preset_config
from jdec.trainer.sharding import Mesh


def load_data(arguments: Fit | Sweep | Predict | Evaluate, config: Config | None = None) -> Dataset:
    """Load the data set; the rows of a file have the image shape of ``config`` by default."""
    image_shape = arguments.image_shape
    known = {row.name for row in dataset_table(arguments.data_dir)}
    if image_shape is None and config is not None and arguments.data not in known:
        image_shape = config.image_shape
    return load_dataset(
        arguments.data,
        data_dir=arguments.data_dir,
        label=arguments.label,
        id=arguments.id,
        drop=names("drop", arguments.drop),
        image_shape=image_shape,
    )


def base_config(
    arguments: Fit | Sweep, dataset: Dataset, n_clusters: int | None, config: Config | None
) -> Config:
    """Return the configuration of ``--config``, or else of the preset."""
    if config is not None:
        return config if n_clusters is None else config.replace({"n_clusters": n_clusters})
    if n_clusters is None:
        known = {row.name: row.shape[2] for row in dataset_table(arguments.data_dir)}
        n_clusters = known.get(arguments.data)
    if n_clusters is None:
        raise ValueError(
            f"{arguments.data}: expected --n-clusters; only named data sets have a default"
        )
    return preset_config(
        arguments.preset,
        n_clusters=n_clusters,
        n_rows=len(dataset.x),
        dataset=dataset.name if arguments.data == dataset.name else "",
        image_shape=dataset.image_shape,
    )


def load_run(run: Path) -> Model:
    """Load the model of a finished run."""
    path = run / "model.npz" if run.is_dir() else run
    if run.is_dir() and not path.exists():
        raise ValueError(f"{run}: expected a finished run, got a folder without model.npz")
    return load_model(path)[0]


def check_platform() -> None:
    """Raise unless JAX finds the devices that JAX_PLATFORMS asks for."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter, without a message, for cuda
        requested = jax.config.values["jax_platforms"]
        reason = f": {error}" if str(error) else ""
        raise ValueError(
            f"JAX_PLATFORMS: expected a platform available here, as cpu, got {requested!r}; unset "
            f"it to let JAX choose, or install JAX for that platform{reason[:200]}"
        ) from error


def scoring_key(seed: int) -> Any:
    """Return a typed random key for what follows the fits of a seed: baselines, consensus."""
    # fit() splits jax.random.key(seed), and the children of a threefry key are the images of the
    # counters 0, 1, …: fold_in(key, 1) is split(key, 4)[1]. No split gets as far as this counter.
    return jax.random.fold_in(jax.random.key(seed), 2**32 - 1)


def recipe(arguments: Fit | Sweep) -> str:
    """Return the origin of the settings: a preset or a file."""
    if arguments.config is not None:
        return f"settings of {arguments.config}"
    return f"preset {arguments.preset}"


def headline(dataset: Dataset, what: str, mesh: Mesh | None) -> str:
    """Return the first line of a fit or a sweep: rows, what is run, and devices."""
    return (
        f"{dataset.name}{f' ({dataset.variant})' if dataset.variant else ''}: "
        f"{len(dataset.x)} rows, {dataset.x.shape[1]} features{what}; "
        f"{environment()['device']}{f' × {mesh.size}' if mesh else ''}"
    )


def data_lines(dataset: Dataset, config: Config) -> list[str]:
    """Return how the rows are interpreted: classes, images, and any note."""
    lines = []
    if dataset.label_name is not None:
        kind, hint = "column", "; --label none to train on it"
        if dataset.feature_names is None:
            kind, hint = "array", ""
        lines.append(f"classes from {kind} {dataset.label_name!r}, kept out of training{hint}")
    if config.image_shape is not None:
        size = "×".join(map(str, config.image_shape))
        amounts = ", ".join(
            f"{name} {value:g}" for name, value in vars(config.augmentation).items()
        )
        varied = f"varied at random in training (--augmentation: {amounts})"
        lines.append(
            f"rows are images of {size} (--image-shape), "
            f"{varied if config.augmentation else 'without augmentation'}"
        )
    return lines + [f"note: {dataset.note}"] * bool(dataset.note)
