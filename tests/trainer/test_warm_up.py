"""The steps between the start and self-training, with P the initial partition."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits, make_moons

from jdec.core.batches import Batches
from jdec.core.dec import DECBatch, self_training
from jdec.core.training import scan_steps
from jdec.metrics import clustering_accuracy
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.programs import build_network
from jdec.trainer.scaling import fit_scaling

X = load_digits().data[:200]
KEY = jax.random.key(3)
CONFIG = Config(6).replace(
    {
        "network.hidden_dims": [16],
        "network.latent_dim": 4,
        "pretrain.finetune_steps": 20,
        "pretrain.batch_size": 64,
        "kmeans.n_init": 2,
        "clustering.batch_size": 64,
        "clustering.update_interval": 10,
        "clustering.max_intervals": 1,
        "clustering.tol": 0.0,
    }
)
MOONS = {
    "n_clusters": 2,
    "kmeans.select": "modularity",
    "graph.space": "data",
    "graph.n_init": 5,
    "graph.kmeans_restarts": 3,
    "network.hidden_dims": [64, 64],
    "clustering.optimizer.learning_rate": 1e-5,
}


@pytest.fixture(scope="module")
def cold():
    return fit(KEY, X, CONFIG)


def at_the_start(seen):
    """Return a callback that keeps parameters and centroids as self-training begins with them."""

    def watch(record, snapshot):
        if record["phase"] == "clustering" and record["interval"] == 0:
            seen.append(jax.tree.map(np.array, (snapshot.params, snapshot.centroids)))

    return watch


def test_a_warm_up_that_loses_the_partition_is_not_taken(cold):
    changes = {"clustering.warmup_steps": 5, "clustering.warmup_optimizer.learning_rate": 10.0}
    seen: list = []
    fit(KEY, X, CONFIG.replace(changes), callbacks=[at_the_start(seen)])
    params = build_network(CONFIG).encoder_params(cold.autoencoder_params)
    jax.tree.map(np.testing.assert_array_equal, seen[0], (params, cold.initial.centroids))


def test_warm_up_are_steps_towards_the_initial_partition():
    """P of these steps is one-hot."""
    rows = make_moons(400, noise=0.05, random_state=0)[0].astype(np.float32)
    changes = {"clustering.warmup_steps": 60, "clustering.warmup_optimizer.learning_rate": 1e-2}
    seen: list = []
    config = CONFIG.replace(MOONS | changes)
    result = fit(KEY, rows, config, callbacks=[at_the_start(seen)])
    (record,) = [record for record in result.history if record["phase"] == "warm-up"]
    assert record["step"] == 60
    assert 0 < record["loss"] < np.log(config.n_clusters)
    network = build_network(config)
    algorithm = self_training(network.encode, optax.adam(1e-2))
    params = network.encoder_params(result.autoencoder_params)
    state = algorithm.init(*jax.device_put((params, result.initial.centroids)))
    x = jnp.asarray(fit_scaling(rows).apply(rows))
    p = jnp.asarray(np.eye(2, dtype=np.float32)[np.asarray(result.initial.labels)])
    key = jax.random.fold_in(jax.random.split(KEY, 4)[3], 2**32 - 1)
    steps = jax.jit(partial(scan_steps, algorithm, n_steps=60, batches=Batches(64)))
    final, _ = steps(key, state, DECBatch(x, p))
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-2, atol=1e-3), seen[0], tuple(final.params)
    )
    assert np.abs(seen[0][1] - np.asarray(result.initial.centroids)).max() > 0.1


def test_the_partition_survives_the_warm_up_where_nearest_centroids_lose_it():
    """Two half moons: whole in the graph, cut up by the nearest of two means."""
    x, y = make_moons(400, noise=0.05, random_state=0)
    config = CONFIG.replace(MOONS)
    nearest = fit(KEY, x, config, y=y)
    warm = fit(KEY, x, config.replace({"clustering.warmup_steps": 600}), y=y)
    np.testing.assert_array_equal(nearest.initial.labels, warm.initial.labels)
    assert clustering_accuracy(y, np.asarray(warm.initial.labels)) > 0.98
    assert clustering_accuracy(y, nearest.labels) < 0.95
    assert clustering_accuracy(y, warm.labels) > 0.98


def test_without_intervals_there_is_no_warm_up(cold):
    config = CONFIG.replace({"clustering.max_intervals": 0, "clustering.warmup_steps": 5})
    result = fit(KEY, X, config)
    np.testing.assert_array_equal(result.model.centroids, cold.initial.centroids)
