"""Deep Embedded Clustering (Xie, Girshick & Farhadi, ICML 2016) as a functional JAX library.

What is used most is here; the rest is in the namespaces :mod:`jdec.core` (the paper's equations and
algorithms), :mod:`jdec.trainer` (how they are run), :mod:`jdec.datasets`, :mod:`jdec.metrics`,
:mod:`jdec.selection`, :mod:`jdec.baselines`, :mod:`jdec.bench` and :mod:`jdec.plotting`. All of it
is imported when it is used first.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jdec.core.autoencoder import Autoencoder as Autoencoder
    from jdec.core.dec import run as run
    from jdec.core.dec import self_training as self_training
    from jdec.core.functional import clustering_loss as clustering_loss
    from jdec.core.functional import log_soft_assignment as log_soft_assignment
    from jdec.core.functional import soft_assignment as soft_assignment
    from jdec.core.functional import target_distribution as target_distribution
    from jdec.core.kmeans import kmeans as kmeans
    from jdec.core.networks import StackedDenoisingAutoencoder as StackedDenoisingAutoencoder
    from jdec.core.pretraining import finetune as finetune
    from jdec.core.pretraining import layerwise as layerwise
    from jdec.datasets.load import load_dataset as load_dataset
    from jdec.estimator import DEC as DEC
    from jdec.metrics import clustering_accuracy as clustering_accuracy
    from jdec.trainer.config import Config as Config
    from jdec.trainer.fit import fit as fit
    from jdec.trainer.model import Model as Model
    from jdec.trainer.model_file import load_model as load_model
    from jdec.trainer.population import fit_population as fit_population
    from jdec.trainer.presets import preset_config as preset_config
    from jdec.trainer.results import FitResult as FitResult
    from jdec.trainer.results import PopulationResult as PopulationResult

__version__ = "0.1.0"

# The module of each public name: what is imported when the name is used first (PEP 562).
_HOMES = {
    "DEC": "estimator",
    "Autoencoder": "core.autoencoder",
    "Config": "trainer.config",
    "FitResult": "trainer.results",
    "Model": "trainer.model",
    "PopulationResult": "trainer.results",
    "StackedDenoisingAutoencoder": "core.networks",
    "clustering_accuracy": "metrics",
    "clustering_loss": "core.functional",
    "finetune": "core.pretraining",
    "fit": "trainer.fit",
    "fit_population": "trainer.population",
    "kmeans": "core.kmeans",
    "layerwise": "core.pretraining",
    "load_dataset": "datasets.load",
    "load_model": "trainer.model_file",
    "log_soft_assignment": "core.functional",
    "preset_config": "trainer.presets",
    "run": "core.dec",
    "self_training": "core.dec",
    "soft_assignment": "core.functional",
    "target_distribution": "core.functional",
}
_NAMESPACES = (
    "baselines",
    "bench",
    "core",
    "datasets",
    "metrics",
    "plotting",
    "selection",
    "trainer",
)

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return importlib.import_module(f"jdec.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'jdec' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"jdec.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_NAMESPACES])
