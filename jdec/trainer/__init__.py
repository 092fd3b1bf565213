"""How the paper is run: compilation, host loops, checkpoints, devices and models."""

from jdec.trainer.compilation import keep_programs as keep_programs
from jdec.trainer.config import Config as Config
from jdec.trainer.config import preset_config as preset_config
from jdec.trainer.config import read_config as read_config
from jdec.trainer.distributed import connect as connect
from jdec.trainer.fit import DivergenceError as DivergenceError
from jdec.trainer.fit import EmptyClusterWarning as EmptyClusterWarning
from jdec.trainer.fit import FitResult as FitResult
from jdec.trainer.inputs import DataWarning as DataWarning
from jdec.trainer.model import Model as Model
from jdec.trainer.model import assign as assign
from jdec.trainer.model import load_model as load_model
from jdec.trainer.model import save_model as save_model
from jdec.trainer.population import PopulationResult as PopulationResult
from jdec.trainer.population import fit_population as fit_population
from jdec.trainer.sharding import data_mesh as data_mesh
from jdec.trainer.sharding import member_mesh as member_mesh

__all__ = [
    "Config",
    "DataWarning",
    "DivergenceError",
    "EmptyClusterWarning",
    "FitResult",
    "Model",
    "PopulationResult",
    "assign",
    "connect",
    "data_mesh",
    "fit_population",
    "keep_programs",
    "load_model",
    "member_mesh",
    "preset_config",
    "read_config",
    "save_model",
]
