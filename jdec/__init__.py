"""Deep Embedded Clustering (Xie, Girshick & Farhadi, ICML 2016) as a functional JAX library."""

from jdec.augmentation import Augmentation as Augmentation
from jdec.augmentation import random_affine as random_affine
from jdec.autoencoder import StackedDenoisingAutoencoder as StackedDenoisingAutoencoder
from jdec.autoencoder import encoder_params as encoder_params
from jdec.autoencoder import init_params as init_params
from jdec.autoencoder import make_autoencoder as make_autoencoder
from jdec.autoencoder import make_encode as make_encode
from jdec.baselines import LDMGI as LDMGI
from jdec.baselines import SEC as SEC
from jdec.compilation import keep_programs as keep_programs
from jdec.config import Config as Config
from jdec.config import preset_config as preset_config
from jdec.datasets import Dataset as Dataset
from jdec.datasets import imbalanced_subset as imbalanced_subset
from jdec.datasets import load_dataset as load_dataset
from jdec.dec import Clustering as Clustering
from jdec.dec import DECInfo as DECInfo
from jdec.dec import DECState as DECState
from jdec.dec import encode_rows as encode_rows
from jdec.dec import init_state as init_state
from jdec.dec import refresh_targets as refresh_targets
from jdec.dec import run as run
from jdec.dec import run_interval as run_interval
from jdec.dec import train_interval as train_interval
from jdec.distributed import connect as connect
from jdec.estimator import DEC as DEC
from jdec.fit import FitResult as FitResult
from jdec.fit import fit as fit
from jdec.functional import cluster_frequencies as cluster_frequencies
from jdec.functional import clustering_loss as clustering_loss
from jdec.functional import log_soft_assignment as log_soft_assignment
from jdec.functional import soft_assignment as soft_assignment
from jdec.functional import target_distribution as target_distribution
from jdec.inputs import DataWarning as DataWarning
from jdec.kmeans import KMeansResult as KMeansResult
from jdec.kmeans import kmeans as kmeans
from jdec.metrics import clustering_accuracy as clustering_accuracy
from jdec.metrics import clustering_scores as clustering_scores
from jdec.model import Model as Model
from jdec.model import assign as assign
from jdec.model import load_model as load_model
from jdec.model import save_model as save_model
from jdec.population import PopulationResult as PopulationResult
from jdec.population import fit_population as fit_population
from jdec.pretrain import finetune as finetune
from jdec.pretrain import layerwise as layerwise
from jdec.selection import agreement_with_others as agreement_with_others
from jdec.selection import consensus as consensus
from jdec.selection import generalizability as generalizability
from jdec.selection import pairwise_agreement as pairwise_agreement
from jdec.selection import sampled_silhouette as sampled_silhouette
from jdec.sharding import data_mesh as data_mesh
from jdec.sharding import member_mesh as member_mesh
from jdec.training import Algorithm as Algorithm
from jdec.training import make_optimizer as make_optimizer
from jdec.training import scan_steps as scan_steps

__version__ = "0.1.0"

__all__ = [
    "DEC",
    "LDMGI",
    "SEC",
    "Algorithm",
    "Augmentation",
    "Clustering",
    "Config",
    "DECInfo",
    "DECState",
    "DataWarning",
    "Dataset",
    "FitResult",
    "KMeansResult",
    "Model",
    "PopulationResult",
    "StackedDenoisingAutoencoder",
    "agreement_with_others",
    "assign",
    "cluster_frequencies",
    "clustering_accuracy",
    "clustering_loss",
    "clustering_scores",
    "connect",
    "consensus",
    "data_mesh",
    "encode_rows",
    "encoder_params",
    "finetune",
    "fit",
    "fit_population",
    "generalizability",
    "imbalanced_subset",
    "init_params",
    "init_state",
    "keep_programs",
    "kmeans",
    "layerwise",
    "load_dataset",
    "load_model",
    "log_soft_assignment",
    "make_autoencoder",
    "make_encode",
    "make_optimizer",
    "member_mesh",
    "pairwise_agreement",
    "preset_config",
    "random_affine",
    "refresh_targets",
    "run",
    "run_interval",
    "sampled_silhouette",
    "save_model",
    "scan_steps",
    "soft_assignment",
    "target_distribution",
    "train_interval",
]
