"""How the paper is run: compilation, host loops, checkpoints, devices and models."""

from jdec._environment import environment
from jdec.trainer.compilation import enable_compilation_cache
from jdec.trainer.config import Config, read_config
from jdec.trainer.distributed import initialize_distributed
from jdec.trainer.model import Model, assign
from jdec.trainer.model_file import load_model, save_model
from jdec.trainer.population import fit_population
from jdec.trainer.presets import preset_config
from jdec.trainer.results import EmptyClusterWarning, FitResult, PopulationResult
from jdec.trainer.rows import DataWarning
from jdec.trainer.run import NotFiniteError
from jdec.trainer.sharding import data_mesh, member_mesh

__all__ = [
    "Config",
    "DataWarning",
    "EmptyClusterWarning",
    "FitResult",
    "Model",
    "NotFiniteError",
    "PopulationResult",
    "assign",
    "data_mesh",
    "enable_compilation_cache",
    "environment",
    "fit_population",
    "initialize_distributed",
    "load_model",
    "member_mesh",
    "preset_config",
    "read_config",
    "save_model",
]
