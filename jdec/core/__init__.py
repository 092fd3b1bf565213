"""The paper: equations, networks and algorithms as pure functions on arrays and pytrees."""

from jdec.core.augmentation import Augmentation, random_affine
from jdec.core.autoencoder import (
    Autoencoder,
    FlaxAutoencoder,
    FunctionalAutoencoder,
    as_autoencoder,
    encoder_params,
    network_shapes,
)
from jdec.core.batches import Batches, batch_indices, take_rows
from jdec.core.convolutional import ConvolutionalAutoencoder
from jdec.core.dec import (
    DECBatch,
    DECInfo,
    DECState,
    run,
    run_interval,
    self_training,
    train_interval,
)
from jdec.core.functional import (
    cluster_frequencies,
    clustering_loss,
    log_soft_assignment,
    mean_kl,
    soft_assignment,
    target_distribution,
)
from jdec.core.graph import (
    graph_partition,
    graph_partitions,
    modularity,
    principal_components,
)
from jdec.core.kmeans import KMeansResult
from jdec.core.networks import StackedDenoisingAutoencoder
from jdec.core.optimizers import make_optimizer
from jdec.core.pretraining import finetune, layerwise
from jdec.core.start import initial_partition, overclustered_kmeans, partition_of_labels
from jdec.core.targets import DECParams, Targets, embed_in_blocks, refresh_targets
from jdec.core.training import Algorithm, scan_batches, scan_steps, step_indices
from jdec.core.voting import best_partitions, majority_vote

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
    "batch_indices",
    "best_partitions",
    "cluster_frequencies",
    "clustering_loss",
    "embed_in_blocks",
    "encoder_params",
    "finetune",
    "graph_partition",
    "graph_partitions",
    "initial_partition",
    "layerwise",
    "log_soft_assignment",
    "majority_vote",
    "make_optimizer",
    "mean_kl",
    "modularity",
    "network_shapes",
    "overclustered_kmeans",
    "partition_of_labels",
    "principal_components",
    "random_affine",
    "refresh_targets",
    "run",
    "run_interval",
    "scan_batches",
    "scan_steps",
    "self_training",
    "soft_assignment",
    "step_indices",
    "take_rows",
    "target_distribution",
    "train_interval",
]
