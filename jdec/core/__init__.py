"""The paper: equations, networks and algorithms as pure functions on arrays and pytrees."""

from jdec.core.augmentation import Augmentation as Augmentation
from jdec.core.augmentation import random_affine as random_affine
from jdec.core.autoencoder import StackedDenoisingAutoencoder as StackedDenoisingAutoencoder
from jdec.core.autoencoder import encoder_params as encoder_params
from jdec.core.autoencoder import init_params as init_params
from jdec.core.autoencoder import make_autoencoder as make_autoencoder
from jdec.core.autoencoder import make_encode as make_encode
from jdec.core.dec import Clustering as Clustering
from jdec.core.dec import DECInfo as DECInfo
from jdec.core.dec import DECState as DECState
from jdec.core.dec import encode_rows as encode_rows
from jdec.core.dec import init_state as init_state
from jdec.core.dec import refresh_targets as refresh_targets
from jdec.core.dec import run as run
from jdec.core.dec import run_interval as run_interval
from jdec.core.dec import train_interval as train_interval
from jdec.core.functional import cluster_frequencies as cluster_frequencies
from jdec.core.functional import clustering_loss as clustering_loss
from jdec.core.functional import log_soft_assignment as log_soft_assignment
from jdec.core.functional import soft_assignment as soft_assignment
from jdec.core.functional import target_distribution as target_distribution
from jdec.core.kmeans import KMeansResult as KMeansResult
from jdec.core.pretraining import finetune as finetune
from jdec.core.pretraining import layerwise as layerwise
from jdec.core.training import Algorithm as Algorithm
from jdec.core.training import make_optimizer as make_optimizer
from jdec.core.training import scan_steps as scan_steps

__all__ = [
    "Algorithm",
    "Augmentation",
    "Clustering",
    "DECInfo",
    "DECState",
    "KMeansResult",
    "StackedDenoisingAutoencoder",
    "cluster_frequencies",
    "clustering_loss",
    "encode_rows",
    "encoder_params",
    "finetune",
    "init_params",
    "init_state",
    "layerwise",
    "log_soft_assignment",
    "make_autoencoder",
    "make_encode",
    "make_optimizer",
    "random_affine",
    "refresh_targets",
    "run",
    "run_interval",
    "scan_steps",
    "soft_assignment",
    "target_distribution",
    "train_interval",
]
