"""A plain DEC in Keras 3: ``fit`` for the autoencoder, ``train_on_batch`` for the clustering.

The backend is that of ``KERAS_BACKEND``.
"""

import itertools
from typing import Any

import keras
import numpy as np

from benchmarks.peers import CLUSTER_RATE, MOMENTUM, PRETRAIN_RATE, Task
from benchmarks.peers.rates import time_loops

if keras.backend.backend() == "torch":
    import torch

# Rows encoded at once in a refresh, as in jdec.
_BLOCK_SIZE = 2048


class SoftAssignment(keras.layers.Layer):
    """Eq. 1 with α = 1, the centroids its weights."""

    def __init__(self, centroids: np.ndarray) -> None:
        super().__init__()
        self.start = centroids

    def build(self, shape: Any) -> None:
        """Make the centroids."""
        start = keras.initializers.Constant(self.start)
        self.centroids = self.add_weight(shape=self.start.shape, initializer=start)

    def call(self, z: Any) -> Any:
        """Assign rows to clusters."""
        offsets = keras.ops.expand_dims(z, 1) - self.centroids
        kernel = 1 / (1 + keras.ops.sum(keras.ops.square(offsets), axis=2))
        return kernel / keras.ops.sum(kernel, axis=1, keepdims=True)


def time_steps(task: Task) -> dict[str, Any]:
    """Time ``fit`` and the loop of ``train_on_batch`` with ``predict`` for the refresh."""
    keras.utils.set_random_seed(task.seed)
    if keras.backend.backend() == "torch":
        torch.set_num_threads(task.threads)
    x = np.load(task.rows_file)
    rng = np.random.default_rng(task.seed)
    inputs = keras.Input((task.dims[0],))
    embedding = _stack(inputs, task.dims)
    autoencoder = keras.Model(inputs, _stack(embedding, task.dims[::-1]))
    encoder = keras.Model(inputs, embedding)
    centroids = encoder.predict(x[: task.n_clusters], verbose=0)
    model = keras.Model(inputs, SoftAssignment(centroids)(embedding))
    autoencoder.compile(keras.optimizers.SGD(PRETRAIN_RATE, MOMENTUM), "mse")
    model.compile(keras.optimizers.SGD(CLUSTER_RATE, MOMENTUM), "kld")
    # One epoch of fit is one repeat; a last batch of another size would be compiled anew.
    n_steps = min(task.pretrain_steps, len(x) // task.batch_size)
    epoch = x[: n_steps * task.batch_size]
    held: dict[str, Any] = {"labels": np.full(len(x), -1)}

    def pretrain() -> float:
        history = autoencoder.fit(epoch, epoch, batch_size=task.batch_size, epochs=1, verbose=0)
        return float(history.history["loss"][-1])

    def interval() -> float:
        for _ in range(task.update_interval):
            rows = rng.integers(0, len(x), task.batch_size)
            loss = model.train_on_batch(x[rows], held["targets"][rows])
        refresh()
        return float(loss)

    def refresh() -> None:
        q = model.predict(x, batch_size=_BLOCK_SIZE, verbose=0)
        labels = q.argmax(axis=1)
        held["label_change"] = np.mean(labels != held["labels"])
        held["labels"] = labels
        weights = q**2 / q.sum(axis=0)
        held["targets"] = weights / weights.sum(axis=1, keepdims=True)

    refresh()
    libraries = ("keras", "jax" if keras.backend.backend() == "jax" else "torch")
    return time_loops(
        task, pretrain, interval, refresh, libraries=libraries, pretrain_steps=n_steps
    )


def _stack(x: Any, dims: tuple[int, ...]) -> Any:
    """Dense layers with ReLU after all but the last, weights and biases U(±1/√fan_in)."""
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(dims)):
        last = layer == len(dims) - 2
        bound = fan_in**-0.5
        x = keras.layers.Dense(
            fan_out,
            activation=None if last else "relu",
            kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
            bias_initializer=keras.initializers.RandomUniform(-bound, bound),
        )(x)
    return x
