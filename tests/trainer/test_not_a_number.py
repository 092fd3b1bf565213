"""NaN is never answered with labels: programs with all optimisations, blocks small and large.

Compiled for a CPU, ``clip``, ``max`` and ``min`` drop NaN in blocks of some 2000 rows and more.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdec.core.batches import Batches
from jdec.core.dec import run_interval, self_training
from jdec.core.functional import (
    clustering_loss,
    log_soft_assignment,
    soft_assignment,
    squared_distances,
    target_distribution,
)
from jdec.core.kmeans import kmeans
from jdec.core.start import overclustered_kmeans
from jdec.core.targets import all_finite
from jdec.trainer import NotFiniteError, assign, fit_population, load_model, save_model
from jdec.trainer.config import Config
from jdec.trainer.fit import fit

pytestmark = pytest.mark.usefixtures("full_compilation")

SIZES = [5, 2048, 70_000]
SMALL = Config(n_clusters=3).replace(
    {
        "network.hidden_dims": [8],
        "network.latent_dim": 2,
        "pretrain.finetune_steps": 20,
        "pretrain.batch_size": 64,
        "kmeans.n_init": 1,
        "kmeans.max_iter": 10,
        "clustering.update_interval": 2,
        "clustering.max_intervals": 2,
        "clustering.batch_size": 64,
        "clustering.tol": 0.0,
    }
)
TOO_FAST = {"clustering.optimizer.name": "sgd", "clustering.optimizer.learning_rate": 1e38}


def embeddings(n_rows, value=None, row=3):
    z = np.random.default_rng(0).normal(size=(n_rows, 2)).astype(np.float32)
    if value is not None:
        z[row, 1] = value
    return z


def blobs(n_rows):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n_rows)
    return (4 * rng.normal(size=(3, 4))[y] + rng.normal(size=(n_rows, 4))).astype(np.float32)


CENTROIDS = np.array([[0, 0], [1, 1], [-1, 2]], np.float32)


@pytest.mark.parametrize("n_rows", SIZES)
@pytest.mark.parametrize("function", [squared_distances, log_soft_assignment, soft_assignment])
def test_a_row_of_nan_stays_one_and_touches_no_other(function, n_rows):
    found = np.asarray(jax.jit(function)(embeddings(n_rows, np.nan), CENTROIDS))
    assert np.isnan(found[3]).all()
    expected = np.asarray(jax.jit(function)(embeddings(n_rows), CENTROIDS))
    np.testing.assert_array_equal(np.delete(found, 3, axis=0), np.delete(expected, 3, axis=0))


@pytest.mark.parametrize("n_rows", SIZES)
def test_a_centroid_of_nan_leaves_no_row_an_assignment(n_rows):
    broken = CENTROIDS.copy()
    broken[1, 0] = np.nan
    q = np.asarray(jax.jit(soft_assignment)(embeddings(n_rows), broken))
    assert np.isnan(q).any(axis=1).all()


@pytest.mark.parametrize("n_rows", SIZES)
def test_targets_and_losses_keep_nan(n_rows):
    def targets_and_losses(z, mu):
        log_q = log_soft_assignment(z, mu)
        return target_distribution(jnp.exp(log_q)), clustering_loss(
            log_q, jnp.full_like(log_q, 1 / 3)
        )

    p, losses = jax.jit(targets_and_losses)(embeddings(n_rows, np.nan), CENTROIDS)
    assert np.isnan(np.asarray(p)[3]).all()
    assert np.isnan(losses[3])
    assert np.isfinite(np.delete(np.asarray(losses), 3)).all()


@pytest.mark.parametrize("value", [1e17, -1e17, 1e30, np.inf, -np.inf])
def test_what_is_far_but_no_nan_has_an_assignment(value):
    q = np.asarray(jax.jit(soft_assignment)(embeddings(2048, value), CENTROIDS))
    assert np.isfinite(q).all()
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("n_rows", SIZES)
def test_kmeans_of_what_is_not_finite_has_inertia_nan(n_rows, value):
    compiled = jax.jit(kmeans, static_argnames=("n_clusters", "n_init", "max_iter"))
    found = compiled(jax.random.key(0), embeddings(n_rows, value), 3, n_init=2, max_iter=4)
    assert np.isnan(found.inertia)


@pytest.mark.parametrize("function", [kmeans, overclustered_kmeans])
@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray, np.ndarray.tolist])
def test_kmeans_that_can_look_at_its_rows_refuses_them(unchecked, function, convert):
    with pytest.raises(ValueError, match="x: expected finite numbers, got NaN"):
        function(jax.random.key(0), convert(embeddings(5, np.nan)), 2)


@pytest.mark.parametrize("broken", ["weights", "centroids", "rows"])
@pytest.mark.parametrize("n_rows", [5, 2048, 70_000])
def test_a_refresh_tells_of_what_is_not_finite(n_rows, broken):
    """The encoder hides NaN among its weights, as relu of a compiled program does."""

    def encode(w, x):
        return (
            jnp.where(jnp.isnan(x @ w), jnp.zeros_like(x @ w), x @ w)
            if broken == "weights"
            else x @ w
        )

    algorithm = self_training(encode, optax.sgd(0.0))
    refresh = jax.jit(algorithm.refresh)
    interval = jax.jit(
        partial(run_interval, algorithm=algorithm, update_interval=1, batches=Batches(4))
    )
    w, mu, x = np.eye(2, dtype=np.float32), CENTROIDS.copy(), embeddings(n_rows)
    whole = refresh(algorithm.init(jnp.array(w), jnp.array(mu)).params, jnp.array(x))
    assert float(whole.label_change) == 1
    assert np.isfinite(whole.kl)
    {"weights": w, "centroids": mu, "rows": x}[broken][1, 1] = np.nan
    state = algorithm.init(jnp.array(w), jnp.array(mu))
    x = jnp.array(x)
    targets = refresh(state.params, x)
    assert np.isnan([targets.label_change, targets.kl]).all()
    _, targets, _ = interval(jax.random.key(0), state, targets, x)
    assert np.isnan([targets.label_change, targets.kl]).all()


def test_a_tree_is_finite_if_all_its_leaves_are():
    tree = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2, jnp.int32)}
    assert all_finite(tree)
    for value in (np.nan, np.inf, -np.inf):
        assert not all_finite(tree | {"c": jnp.zeros(70_000).at[69_999].set(value)})


def test_a_fit_whose_weights_leave_the_finite_numbers_says_so():
    x = blobs(2100)
    with pytest.raises(NotFiniteError, match=r"clustering: .*; lower "):
        fit(jax.random.key(0), x, SMALL.replace(TOO_FAST))


def test_a_fit_whose_pretraining_breaks_says_so():
    broken = {"pretrain.optimizer.name": "sgd", "pretrain.optimizer.learning_rate": 1e38}
    with pytest.raises(NotFiniteError, match=r"pretraining, finetune: .*lower"):
        fit(jax.random.key(0), blobs(2100), SMALL.replace(broken))


def test_pretrained_parameters_with_nan_are_refused():
    result = fit(jax.random.key(0), blobs(64), SMALL)
    params = jax.tree.map(np.copy, result.autoencoder_params)
    params["encoder_0"]["bias"][0] = np.nan
    with pytest.raises(
        ValueError, match=r"autoencoder_params: .* NaN or infinity in encoder_0.bias"
    ):
        fit(jax.random.key(0), blobs(64), SMALL, autoencoder_params=params)


def test_a_member_that_breaks_is_named_and_the_others_go_on():
    keys = jax.random.split(jax.random.key(0), 3)
    config = SMALL.replace({"clustering.optimizer.name": "sgd"})
    with pytest.warns(RuntimeWarning, match="members 1 of 3 became NaN or infinite"):
        population = fit_population(keys, blobs(2100), config, learning_rates=[1e-3, 1e38, 1e-3])
    assert np.isfinite(population.kl).tolist() == [True, False, True]


@pytest.fixture(scope="module")
def model():
    return fit(jax.random.key(0), blobs(64), SMALL).model


def broken_models(model):
    def with_param(layer, name, value):
        leaf = model.params[layer][name].copy()
        leaf.flat[0] = value
        return model._replace(params={**model.params, layer: {**model.params[layer], name: leaf}})

    centroids = model.centroids.copy()
    centroids[2, 1] = np.inf
    shift, factor = model.scaling.shift.copy(), model.scaling.factor.copy()
    shift[1], factor[0] = np.nan, np.inf
    return {
        "params.encoder_0.kernel": with_param("encoder_0", "kernel", np.nan),
        "params.encoder_1.bias": with_param("encoder_1", "bias", -np.inf),
        "centroids": model._replace(centroids=centroids),
        "scaling.shift": model._replace(scaling=model.scaling._replace(shift=shift)),
        "scaling.factor": model._replace(scaling=model.scaling._replace(factor=factor)),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("params.encoder_0.kernel", "params.encoder_1.bias"),
        *("centroids", "scaling.shift", "scaling.factor"),
    ],
)
def test_a_broken_model_is_not_saved_nor_used(name, model, tmp_path):
    broken = broken_models(model)[name]
    path = tmp_path / "model.npz"
    message = f"expected finite numbers in {name}, got NaN or infinity"
    with pytest.raises(ValueError, match=message):
        save_model(path, broken)
    assert not path.exists()
    for n_rows in (1, 2048, 5000):
        with pytest.raises(ValueError, match=message):
            assign(broken, blobs(n_rows))


def test_a_broken_model_is_not_loaded(model, tmp_path):
    path = tmp_path / "model.npz"
    save_model(path, model)
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["centroids"][0, 0] = np.nan
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="expected finite numbers in centroids"):
        load_model(path)


@pytest.mark.parametrize("n_rows", [1, 2049])
def test_rows_whose_embedding_is_not_finite_are_named(model, n_rows):
    large = jax.tree.map(lambda leaf: 100 * leaf, model.params)
    x = blobs(n_rows)
    x[-1] = [3e38, -3e38, 3e38, -3e38]
    model = model._replace(params=large)
    with pytest.raises(ValueError, match=rf"x: .* row {n_rows - 1}\b"):
        assign(model, x)
