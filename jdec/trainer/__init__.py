"""How the paper is run: compilation, host loops, checkpoints, devices and models."""

from jdec._environment import environment as environment
from jdec.trainer.compilation import enable_compilation_cache as enable_compilation_cache
from jdec.trainer.config import Config as Config
from jdec.trainer.config import read_config as read_config
from jdec.trainer.distributed import initialize_distributed as initialize_distributed
from jdec.trainer.inputs import DataWarning as DataWarning
from jdec.trainer.model import Model as Model
from jdec.trainer.model import assign as assign
from jdec.trainer.model_file import load_model as load_model
from jdec.trainer.model_file import save_model as save_model
from jdec.trainer.population import fit_population as fit_population
from jdec.trainer.presets import preset_config as preset_config
from jdec.trainer.results import EmptyClusterWarning as EmptyClusterWarning
from jdec.trainer.results import FitResult as FitResult
from jdec.trainer.results import PopulationResult as PopulationResult
from jdec.trainer.run import NotFiniteError as NotFiniteError
from jdec.trainer.sharding import data_mesh as data_mesh
from jdec.trainer.sharding import member_mesh as member_mesh

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
