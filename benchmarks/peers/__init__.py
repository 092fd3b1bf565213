"""What ``bench_peers`` compares: each peer runs in a process of its own.

``python -m benchmarks.peers GROUP NAME TASK.json`` runs one peer once and prints its figures as one
line of JSON. Modules here import what they compare at their top and nothing of jdec before it, so
that a peer which is not installed is found out at once.
"""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Task:
    """The same work for every peer of a group.

    Attributes:
        rows_file: Scaled rows, float32 [N D] as .npy: what the step loops train on.
        dataset: Name of the data set that whole fits load by themselves.
        n_rows: Leading rows of it that are used; 0 for all.
        dims: Widths (D, …, Z) of the encoder.
        n_clusters: K.
        batch_size: Rows in a mini-batch.
        pretrain_steps: Steps in one repeat of the pretraining loop.
        update_interval: Steps of the clustering loop between two refreshes of P.
        repeats: Repeats after warm-up.
        pretrain_epochs: Of a whole fit.
        cluster_epochs: Of a whole fit.
        n_init: Restarts of k-means in a whole fit.
        threads: Cores and threads for every peer.
        seed: Of everything drawn.
    """

    rows_file: str
    dataset: str
    n_rows: int
    dims: tuple[int, ...]
    n_clusters: int = 10
    batch_size: int = 256
    pretrain_steps: int = 140
    update_interval: int = 140
    repeats: int = 5
    pretrain_epochs: int = 10
    cluster_epochs: int = 10
    n_init: int = 20
    threads: int = 2
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the task as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Task":
        """Read a task from JSON values."""
        return cls(**{**values, "dims": tuple(values["dims"])})


#: Of the plain recipe that the step loops share: SGD, all of it constant.
PRETRAIN_RATE, CLUSTER_RATE, MOMENTUM = 0.1, 0.01, 0.9
#: Of whole fits: Adam, which is ClustPy's default, at its usual rates.
ADAM_PRETRAIN_RATE, ADAM_CLUSTER_RATE = 1e-3, 1e-4


@dataclass(frozen=True)
class Peer:
    """Where a peer is: ``module.function(task, **options)``."""

    module: str
    function: str
    options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


JDEC = "jdec"
#: Group to name to peer. The first of each group is what the others are compared with.
PEERS: dict[str, dict[str, Peer]] = {
    "steps": {
        JDEC: Peer("jdec_runs", "time_steps"),
        "PyTorch, resident, eager": Peer("torch_loops", "time_resident", {"compiled": False}),
        "PyTorch, resident, compiled": Peer("torch_loops", "time_resident", {"compiled": True}),
        "PyTorch, DataLoader": Peer("torch_loops", "time_data_loader"),
        "Keras on JAX": Peer("keras_dec", "time_steps", {}, {"KERAS_BACKEND": "jax"}),
        "Keras on PyTorch": Peer("keras_dec", "time_steps", {}, {"KERAS_BACKEND": "torch"}),
    },
    "fit": {
        JDEC: Peer("jdec_runs", "fit_equal_steps"),
        "ClustPy DEC": Peer("clustpy_dec", "fit_equal_steps"),
    },
    "alternatives": {
        JDEC: Peer("jdec_runs", "fit_fast"),
        "k-means": Peer("alternatives", "k_means"),
        "MiniBatchKMeans": Peer("alternatives", "mini_batch_k_means"),
        "PCA + k-means": Peer("alternatives", "pca_k_means"),
        "UMAP + k-means": Peer("umap_hdbscan", "k_means"),
        "UMAP + HDBSCAN": Peer("umap_hdbscan", "cluster"),
        "EVoC": Peer("evoc_clusters", "cluster"),
    },
}
#: The strongest fair opponents of the step loops: the faster of them counts.
STRONGEST = ("PyTorch, resident, eager", "PyTorch, resident, compiled")
