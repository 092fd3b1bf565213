"""Runs that start from the graph of nearest neighbours."""

import warnings

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits, make_moons

from jdec.metrics import clustering_accuracy
from jdec.trainer import fit_population, member_mesh
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.run import NotFiniteError

KEY = jax.random.key(0)
X = load_digits(n_class=5).data[:150]
CONFIG = Config(5).replace(
    {
        "network.hidden_dims": [16],
        "network.latent_dim": 4,
        "pretrain.finetune_steps": 30,
        "pretrain.batch_size": 32,
        "kmeans.n_init": 2,
        "kmeans.select": "modularity",
        "graph.n_init": 2,
        "graph.kmeans_restarts": 4,
        "clustering.batch_size": 32,
        "clustering.update_interval": 5,
        "clustering.max_intervals": 2,
        "clustering.tol": 0.0,
        "clustering.warmup_steps": 60,
        "clustering.warmup_optimizer.learning_rate": 1e-2,
    }
)


@pytest.fixture(params=["data", "embedding"])
def config(request):
    return CONFIG.replace({"graph.space": request.param})


@pytest.mark.parametrize(
    ("space", "devices", "numbers"), [("data", None, [5, 3]), ("embedding", 2, [5, 5])]
)
def test_a_member_is_a_fit(space, devices, numbers):
    config = CONFIG.replace({"graph.space": space})
    keys = jax.random.split(KEY, 2)
    mesh = None if devices is None else member_mesh(devices)
    found = fit_population(keys, X, config, n_clusters=numbers, mesh=mesh)
    warmed = [record for record in found.history if record["phase"] == "warm-up"]
    assert sorted(member for record in warmed for member in record["members"]) == [0, 1]
    assert all(len(record["loss"]) == len(record["members"]) for record in warmed)
    for member, n_clusters in enumerate(numbers):
        alone = fit(keys[member], X, config.replace({"n_clusters": n_clusters}))
        # Embeddings that differ by rounding may differ in a row on which the votes are equal.
        same = np.asarray(found.initial_labels[member]) == np.asarray(alone.initial.labels)
        assert same.sum() >= len(X) - 1
        np.testing.assert_allclose(
            found.soft_assignment[member][:, :n_clusters], alone.soft_assignment, atol=1e-3
        )


def test_it_can_be_resumed_with_the_same_bits(config, tmp_path):
    expected = fit(KEY, X, config)

    class StopError(BaseException):
        pass

    for n_records in range(1, len(expected.history) + 1):
        seen = []

        def stop(record, seen=seen, n_records=n_records):
            seen.append(record)
            if len(seen) == n_records:
                raise StopError

        folder = tmp_path / str(n_records)
        with pytest.raises(StopError):
            fit(KEY, X, config, workdir=folder, callbacks=[stop], checkpoint_seconds=0)
        found = fit(KEY, X, config, workdir=folder, resume=True)
        assert found.soft_assignment.tobytes() == expected.soft_assignment.tobytes()
        assert np.array_equal(found.initial.labels, expected.initial.labels)
        assert "warm-up" in expected.seconds


def test_the_labels_of_the_start_are_the_partition_not_the_nearest_centroids():
    x, y = make_moons(300, noise=0.05, random_state=0)
    changes = {"n_clusters": 2, "graph.space": "data", "clustering.max_intervals": 0}
    initial = fit(KEY, x, CONFIG.replace(changes)).initial
    assert clustering_accuracy(y, np.asarray(initial.labels)) > 0.98


def test_more_rows_than_have_neighbors():
    """A sample of the rows has neighbours; all rows are partitioned, each run in the same way."""
    x, y = make_moons(600, noise=0.05, random_state=0)
    changes = {"n_clusters": 2, "graph.space": "data", "graph.max_rows": 200}
    config = CONFIG.replace(changes | {"graph.subclusters": 20})
    labels = np.asarray(fit(KEY, x, config).initial.labels)
    assert clustering_accuracy(y, labels) > 0.95
    np.testing.assert_array_equal(fit(KEY, x, config).initial.labels, labels)


@pytest.mark.parametrize(("n_rows", "n_clusters"), [(1, 1), (2, 1), (3, 3)])
def test_few_rows(config, n_rows, n_clusters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns that are constant in so few rows
        result = fit(KEY, X[:n_rows], config.replace({"n_clusters": n_clusters}))
    assert sorted(set(np.asarray(result.initial.labels).tolist())) == list(range(n_clusters))


def test_an_embedding_that_is_not_finite_is_named():
    class Broken:
        def init(self, key, n_features):
            return {"w": jax.random.normal(key, (n_features, 2))}

        def encode(self, params, z):
            return (z @ params["w"]) * np.float32(3e38) * np.float32(3e38)

        def decode(self, params, z):
            return z @ params["w"].T * 0

    config = CONFIG.replace({"pretrain.finetune_steps": 0})
    with pytest.raises(NotFiniteError, match="embedding is not finite"):
        fit(KEY, X, config, network=Broken())


def test_a_member_that_is_not_finite_lets_the_others_go_on(config):
    keys = jax.random.split(KEY, 2)
    with pytest.warns(RuntimeWarning, match="members 1 of 2 became NaN"):
        found = fit_population(keys, X, config, learning_rates=[1e-4, 1e30])
    alone = fit(keys[0], X, config)
    np.testing.assert_array_equal(found.initial_labels[0], alone.initial.labels)
    assert np.isfinite(found.kl[0])
