"""ClustPy's DEC, from loading to labels.

It differs from the paper in that P comes from each mini-batch alone: it does not refresh it from
all rows. Its network is given jdec's widths and activations.
"""

import time
from typing import Any

import torch
from clustpy.deep import DEC
from clustpy.deep.neural_networks import FeedforwardAutoencoder

from benchmarks.peers import ADAM_CLUSTER_RATE, ADAM_PRETRAIN_RATE, Task
from benchmarks.peers.fits import load_rows, scaled, score
from benchmarks.peers.rates import versions


def fit_equal_steps(task: Task) -> dict[str, Any]:
    """Fit with Adam, which is its default, in a given number of epochs."""
    torch.set_num_threads(task.threads)
    began = time.perf_counter()
    dataset = load_rows(task)
    network = {"layers": list(task.dims), "activation_fn": torch.nn.ReLU}
    model = DEC(
        task.n_clusters,
        batch_size=task.batch_size,
        pretrain_optimizer_params={"lr": ADAM_PRETRAIN_RATE},
        clustering_optimizer_params={"lr": ADAM_CLUSTER_RATE},
        pretrain_epochs=task.pretrain_epochs,
        clustering_epochs=task.cluster_epochs,
        neural_network=(FeedforwardAutoencoder, network),
        embedding_size=task.dims[-1],
        initial_clustering_params={"n_init": task.n_init},
        device="cpu",
        random_state=task.seed,
    )
    model.fit(scaled(dataset.x))
    seconds = time.perf_counter() - began
    return {
        "versions": versions("clustpy", "torch"),
        "seconds": seconds,
        **score(dataset.y, model.dec_labels_),
    }
