"""What fits and populations return, and warn of."""

import warnings
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jdec._typing import Params
from jdec.core.autoencoder import Autoencoder
from jdec.core.kmeans import KMeansResult
from jdec.trainer.config import Config
from jdec.trainer.history import Record
from jdec.trainer.model import Model
from jdec.trainer.run import NotFiniteError
from jdec.trainer.scaling import Scaling


class FitResult(NamedTuple):
    """What :func:`fit` found."""

    model: Model
    labels: Int[np.ndarray, "N"]  # argmax of the soft assignment
    soft_assignment: Float[np.ndarray, "N K"]
    embedding: Float[np.ndarray, "N Z"]
    autoencoder_params: Params  # of encoder and decoder, after pretraining
    initial: KMeansResult  # DEC initialisation: where self-training started
    history: list[Record]
    stop_reason: str  # "tol" or "max_intervals"
    n_intervals: int
    seconds: dict[str, float]  # by phase, over all sessions of a resumed run
    placement: str = "device"  # of the rows, or "stream"


class EmptyClusterWarning(UserWarning):
    """Some clusters have no rows, or share their centroid with another."""


def warn_of_empty_clusters(
    labels: Int[np.ndarray, "N"], centroids: Float[np.ndarray, "K Z"]
) -> None:
    """Warn of clusters without rows, and of those that share their centroid with another."""
    sizes, messages = np.bincount(labels, minlength=len(centroids)), []
    if empty := np.flatnonzero(sizes == 0).tolist():
        messages.append(
            f"{len(empty)} of {len(sizes)} clusters are empty: {_listed(empty)}; "
            "fewer clusters or a lower clustering learning rate may fit the data better"
        )
    distances = np.linalg.norm(centroids[:, None] - centroids[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    radius = float(np.linalg.norm(centroids - centroids.mean(axis=0), axis=1).mean())
    collapsed = np.flatnonzero((distances <= 1e-3 * radius).any(axis=1) & (sizes > 0)).tolist()
    if len(collapsed) > 1:
        messages.append(f"clusters {_listed(collapsed)} have collapsed onto the same centroid")
    for message in messages:
        warnings.warn(message, EmptyClusterWarning, stacklevel=4)


def _listed(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:20]))
    return shown + (f" and {len(indices) - 20} more" if len(indices) > 20 else "")


class PopulationResult(NamedTuple):
    """What :func:`fit_population` found; arrays of M members."""

    scaling: Scaling
    params: Params  # of the encoders, each leaf [M …]
    centroids: Float[np.ndarray, "M K Z"]  # those beyond a member's own K mean nothing
    config: Config  # its K is the maximum over members
    alphas: Float[np.ndarray, "M"]
    learning_rates: Float[np.ndarray, "M"]  # of the clustering phase
    n_clusters: Int[np.ndarray, "M"]
    labels: Int[np.ndarray, "M N"]
    soft_assignment: Float[np.ndarray, "M N K"]  # 0 beyond a member's own K
    initial_labels: Int[np.ndarray, "M N"]  # DEC initialisation
    kl: Float[np.ndarray, "M"]  # mean KL(P‖Q) over all rows at the end; NaN if it broke
    label_change: Float[np.ndarray, "M"]  # in the last interval
    n_intervals: Int[np.ndarray, "M"]
    history: list[Record]
    seconds: dict[str, float]
    members_at_once: int
    feature_names: tuple[str, ...] | None = None
    network: Autoencoder | None = None  # None: the built-in one of the configuration
    has_decoder: bool = False

    def member(self, index: int) -> Model:
        """Return one member as a model."""
        n_clusters = int(self.n_clusters[index])
        fields = {
            "n_clusters": n_clusters,
            "clustering.alpha": float(self.alphas[index]),
            "clustering.optimizer.learning_rate": float(self.learning_rates[index]),
        }
        params = jax.tree.map(lambda leaf: leaf[index], self.params)
        centroids, config = self.centroids[index, :n_clusters], self.config.replace(fields)
        others = (self.feature_names, self.network, self.has_decoder)
        return Model(self.scaling, params, centroids, config, *others)


def warn_of_broken(kl: Float[np.ndarray, "M"]) -> None:
    """Warn of members that are not finite, or raise where no member is."""
    broken = np.flatnonzero(~np.isfinite(kl)).tolist()
    if len(broken) == len(kl):
        raise NotFiniteError(
            "population: no member stayed finite; lower the learning rates or scale the data"
        )
    if broken:
        warnings.warn(
            f"members {', '.join(map(str, broken[:20]))} of {len(kl)} became NaN or infinite; "
            "lower their learning rate",
            RuntimeWarning,
            stacklevel=3,
        )
