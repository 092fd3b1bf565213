"""DEC by hand in PyTorch: on resident tensors, eager or compiled, and with a DataLoader.

The resident loop is meant to be as fast as PyTorch goes at this work: rows stay in one tensor and
are picked by index, SGD is the fused kernel, gradients are dropped and not zeroed, distances are
one product, numbers too small for their exponent are flushed as XLA does, and nothing is read back
before the end. The loop with a DataLoader is what tutorials show.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers import CLUSTER_RATE, MOMENTUM, PRETRAIN_RATE, Task
from benchmarks.peers.rates import time_loops

# Rows encoded at once in a refresh, as in jdec.
_BLOCK_SIZE = 2048


def time_resident(task: Task, *, compiled: bool) -> dict[str, Any]:
    """Time the loop on resident tensors."""
    run = _Loops(task, fused=True)
    wrap: Callable[..., Any] = torch.compile if compiled else _as_it_is
    reconstruction_loss, clustering_loss = wrap(run.reconstruction_loss), wrap(run.clustering_loss)
    assign = wrap(run.assign)

    def pretrain() -> float:
        for _ in range(task.pretrain_steps):
            rows = torch.randint(len(run.x), (task.batch_size,))
            loss = run.step(run.pretrain_sgd, reconstruction_loss(run.x.index_select(0, rows)))
        return float(loss)

    def interval() -> float:
        for _ in range(task.update_interval):
            rows = torch.randint(len(run.x), (task.batch_size,))
            batch, targets = run.x.index_select(0, rows), run.targets.index_select(0, rows)
            loss = run.step(run.cluster_sgd, clustering_loss(batch, targets))
        refresh()
        return float(loss)

    def refresh() -> None:
        run.refresh(assign, run.x.split(_BLOCK_SIZE))

    refresh()
    return time_loops(task, pretrain, interval, refresh, libraries=("torch",))


def time_data_loader(task: Task) -> dict[str, Any]:
    """Time the usual loop: a shuffling DataLoader, plain SGD, eager."""
    run = _Loops(task, fused=False)
    data = TensorDataset(run.x, torch.arange(len(run.x)))
    batches = _endless(DataLoader(data, task.batch_size, shuffle=True, drop_last=True))
    blocks = DataLoader(data, _BLOCK_SIZE)

    def pretrain() -> float:
        for batch, _ in itertools.islice(batches, task.pretrain_steps):
            loss = run.step(run.pretrain_sgd, run.reconstruction_loss(batch))
        return float(loss)

    def interval() -> float:
        for batch, rows in itertools.islice(batches, task.update_interval):
            loss = run.step(run.cluster_sgd, run.clustering_loss(batch, run.targets[rows]))
        refresh()
        return float(loss)

    def refresh() -> None:
        run.refresh(run.assign, (block for block, _ in blocks))

    refresh()
    return time_loops(task, pretrain, interval, refresh, libraries=("torch",))


class _Loops:
    """Rows, network and the equations."""

    def __init__(self, task: Task, *, fused: bool) -> None:
        torch.set_num_threads(task.threads)
        torch.set_flush_denormal(True)
        torch.manual_seed(task.seed)
        self.x = torch.from_numpy(np.load(task.rows_file))
        self.encoder = _stack(task.dims)
        self.decoder = _stack(task.dims[::-1])
        with torch.no_grad():
            centroids = self.encoder(self.x[: task.n_clusters])
        self.centroids = torch.nn.Parameter(centroids)
        self.targets = torch.empty(len(self.x), task.n_clusters)
        self.labels = torch.full((len(self.x),), -1)
        autoencoder = [*self.encoder.parameters(), *self.decoder.parameters()]
        trained = [*self.encoder.parameters(), self.centroids]
        self.pretrain_sgd = torch.optim.SGD(autoencoder, PRETRAIN_RATE, MOMENTUM, fused=fused)
        self.cluster_sgd = torch.optim.SGD(trained, CLUSTER_RATE, MOMENTUM, fused=fused)

    def step(self, sgd: Any, loss: Any) -> Any:
        """Go one step down, and return the loss."""
        sgd.zero_grad(set_to_none=True)
        loss.backward()
        sgd.step()
        return loss.detach()

    def reconstruction_loss(self, batch: Any) -> Any:
        """Mean squared error of the autoencoder."""
        return functional.mse_loss(self.decoder(self.encoder(batch)), batch)

    def clustering_loss(self, batch: Any, targets: Any) -> Any:
        """KL(P‖Q) of a mini-batch."""
        return functional.kl_div(self.log_assign(batch), targets, reduction="batchmean")

    def log_assign(self, batch: Any) -> Any:
        """Logarithm of the soft assignment, Eq. 1 with α = 1."""
        z, mu = self.encoder(batch), self.centroids
        norms = (z * z).sum(1, keepdim=True) + (mu * mu).sum(1)
        distances = torch.clamp(torch.addmm(norms, z, mu.T, alpha=-2), min=0)
        return torch.log_softmax(-torch.log1p(distances), 1)

    def assign(self, block: Any) -> Any:
        """Soft assignment of some rows."""
        return torch.exp(self.log_assign(block))

    @torch.no_grad()
    def refresh(self, assign: Callable[[Any], Any], blocks: Any) -> None:
        """Recompute P (Eq. 3), the labels and how many of them changed from all rows."""
        q = torch.cat([assign(block) for block in blocks])
        labels = q.argmax(1)
        self.label_change = float((labels != self.labels).float().mean())
        self.labels = labels
        weights = q * q / q.sum(0)
        self.targets = weights / weights.sum(1, keepdim=True)


def _stack(dims: tuple[int, ...]) -> Any:
    """Dense layers with ReLU after all but the last; torch draws U(±1/√fan_in), as jdec does."""
    layers: list[Any] = []
    for fan_in, fan_out in itertools.pairwise(dims):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
