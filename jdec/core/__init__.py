"""The paper: equations, networks and algorithms as pure functions on arrays and pytrees."""

from jdec.core.augmentation import Augmentation as Augmentation
from jdec.core.augmentation import random_affine as random_affine
from jdec.core.autoencoder import Autoencoder as Autoencoder
from jdec.core.autoencoder import FlaxAutoencoder as FlaxAutoencoder
from jdec.core.autoencoder import FunctionalAutoencoder as FunctionalAutoencoder
from jdec.core.autoencoder import as_autoencoder as as_autoencoder
from jdec.core.autoencoder import encoder_params as encoder_params
from jdec.core.autoencoder import network_shapes as network_shapes
from jdec.core.convolutional import ConvolutionalAutoencoder as ConvolutionalAutoencoder
from jdec.core.dec import DECBatch as DECBatch
from jdec.core.dec import DECInfo as DECInfo
from jdec.core.dec import DECState as DECState
from jdec.core.dec import run as run
from jdec.core.dec import run_interval as run_interval
from jdec.core.dec import self_training as self_training
from jdec.core.dec import train_interval as train_interval
from jdec.core.functional import cluster_frequencies as cluster_frequencies
from jdec.core.functional import clustering_loss as clustering_loss
from jdec.core.functional import log_soft_assignment as log_soft_assignment
from jdec.core.functional import mean_kl as mean_kl
from jdec.core.functional import soft_assignment as soft_assignment
from jdec.core.functional import target_distribution as target_distribution
from jdec.core.kmeans import KMeansResult as KMeansResult
from jdec.core.networks import StackedDenoisingAutoencoder as StackedDenoisingAutoencoder
from jdec.core.optimizers import make_optimizer as make_optimizer
from jdec.core.pretraining import finetune as finetune
from jdec.core.pretraining import layerwise as layerwise
from jdec.core.start import initial_partition as initial_partition
from jdec.core.start import overclustered_kmeans as overclustered_kmeans
from jdec.core.targets import DECParams as DECParams
from jdec.core.targets import Targets as Targets
from jdec.core.targets import embed_in_blocks as embed_in_blocks
from jdec.core.targets import refresh_targets as refresh_targets
from jdec.core.training import Algorithm as Algorithm
from jdec.core.training import Batches as Batches
from jdec.core.training import batch_rows as batch_rows
from jdec.core.training import scan_steps as scan_steps
from jdec.core.training import take_rows as take_rows

__all__ = [
    "Algorithm",
    "Augmentation",
    "Autoencoder",
    "Batches",
    "ConvolutionalAutoencoder",
    "DECBatch",
    "DECInfo",
    "DECParams",
    "DECState",
    "FlaxAutoencoder",
    "FunctionalAutoencoder",
    "KMeansResult",
    "StackedDenoisingAutoencoder",
    "Targets",
    "as_autoencoder",
    "batch_rows",
    "cluster_frequencies",
    "clustering_loss",
    "embed_in_blocks",
    "encoder_params",
    "finetune",
    "initial_partition",
    "layerwise",
    "log_soft_assignment",
    "make_optimizer",
    "mean_kl",
    "network_shapes",
    "overclustered_kmeans",
    "random_affine",
    "refresh_targets",
    "run",
    "run_interval",
    "scan_steps",
    "self_training",
    "soft_assignment",
    "take_rows",
    "target_distribution",
    "train_interval",
]
