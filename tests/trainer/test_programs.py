"""What a caller brings (networks, losses, augmentations, optimizers), in all programs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import quick
from sklearn.datasets import load_digits

from jdec.core.autoencoder import FunctionalAutoencoder
from jdec.datasets import load_dataset
from jdec.estimator import DEC
from jdec.trainer import assign, fit_population, load_model, member_mesh, save_model
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.programs import build_optimizer

KEY = jax.random.key(0)
CONFIG = Config(5).replace(
    {
        "pretrain.finetune_steps": 40,
        "pretrain.batch_size": 32,
        "pretrain.optimizer.learning_rate": 1e-2,
        "kmeans.n_init": 2,
        "clustering.batch_size": 32,
        "clustering.update_interval": 4,
        "clustering.max_intervals": 3,
        "clustering.tol": 0.0,
        "clustering.optimizer.learning_rate": 1e-3,
    }
)


def images():
    """Return 2000 digits of MNIST, or the small ones of scikit-learn."""
    try:
        return load_dataset("mnist").x[:2000]
    except FileNotFoundError:
        return load_digits().data


class Convolutional(nn.Module):
    """Any Flax module with encode and decode will do."""

    side: int

    def setup(self):
        self.down = nn.Conv(4, (3, 3), strides=2)
        self.to_embedding = nn.Dense(3)
        self.from_embedding = nn.Dense(4 * (self.side // 2) ** 2)
        self.up = nn.ConvTranspose(1, (3, 3), strides=(2, 2))

    def encode(self, x):
        x = nn.relu(self.down(x.reshape(-1, self.side, self.side, 1)))
        return self.to_embedding(x.reshape(len(x), -1))

    def decode(self, z):
        x = nn.relu(self.from_embedding(z)).reshape(-1, self.side // 2, self.side // 2, 4)
        return self.up(x).reshape(len(z), -1)


def init(key, n_features):
    return {"down": jax.random.normal(key, (n_features, 3)) / 8, "up": jnp.zeros((3, n_features))}


def encode(params, x):
    return x @ params["down"]


def decode(params, z):
    return z @ params["up"]


def other_decode(params, z):
    return decode(params, z)


LINEAR = FunctionalAutoencoder(init, encode, decode)


def same_bits(one, other):
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def arrays(result):
    model = result.model
    return (model.params, model.centroids, *result[1:6])


def timeless(history):
    return [{name: r[name] for name in r if name != "seconds"} for r in history]


def check_member(population, index, single):
    np.testing.assert_array_equal(population.labels[index], single.labels)
    np.testing.assert_allclose(
        population.soft_assignment[index], single.soft_assignment, rtol=0, atol=1e-5
    )
    for one, other in zip(
        jax.tree.leaves(population.member(index).params),
        jax.tree.leaves(single.model.params),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


# A convolutional module of a user.

IMAGES = images()
SIDE = int(IMAGES.shape[1] ** 0.5)


@pytest.fixture(scope="module")
def convolutional():
    return fit(KEY, IMAGES, CONFIG, network=Convolutional(SIDE))


def test_a_module_of_a_user_is_trained(convolutional):
    losses = [r["loss"] for r in convolutional.history if r["phase"] == "finetune"]
    assert losses[-1] < 0.9 * losses[0]
    assert convolutional.embedding.shape == (len(IMAGES), 3)
    # Self-training has moved the encoder, which alone is kept.
    params, before = convolutional.model.params, convolutional.autoencoder_params
    assert sorted(params) == ["down", "to_embedding"]
    assert sorted(before) == ["down", "from_embedding", "to_embedding", "up"]
    assert not same_bits(params["down"], before["down"])
    embedding, q = assign(convolutional.model, IMAGES)
    assert same_bits((embedding, q), (convolutional.embedding, convolutional.soft_assignment))


def test_the_estimator_takes_it(convolutional, tmp_path):
    dec = DEC(config=CONFIG, network=Convolutional(SIDE), random_state=0)
    np.testing.assert_array_equal(dec.fit_predict(IMAGES), convolutional.labels)
    dec.save(tmp_path / "dec.npz")
    with pytest.raises(ValueError, match=r"network that is not built in, .*Convolutional.*; pass"):
        DEC.load(tmp_path / "dec.npz")
    loaded = DEC.load(tmp_path / "dec.npz", network=Convolutional(SIDE))
    assert loaded.predict_proba(IMAGES).tobytes() == convolutional.soft_assignment.tobytes()
    again = loaded.set_params(random_state=0).fit(IMAGES)
    assert again.embedding_.tobytes() == convolutional.embedding.tobytes()


def test_its_model_is_saved_and_needs_it_to_be_loaded(convolutional, tmp_path):
    path = tmp_path / "model.npz"
    save_model(path, convolutional.model)
    loaded, _ = load_model(path, network=Convolutional(SIDE))
    assert same_bits(loaded.params, convolutional.model.params)
    assert loaded.predict(IMAGES).tolist() == convolutional.labels.tolist()
    with pytest.raises(ValueError, match=r"Convolutional.*; pass it as network="):
        load_model(path)
    with pytest.raises(ValueError, match=r"does not fit .*network.*: missing array: params\.down$"):
        load_model(path, network=LINEAR)


def test_it_is_a_member_of_a_population(convolutional):
    keys = jnp.stack([KEY, *jax.random.split(jax.random.key(1), 3)])
    population = fit_population(keys, IMAGES, CONFIG, network=Convolutional(SIDE))
    check_member(population, 0, convolutional)
    assert len({labels.tobytes() for labels in population.labels}) == 4
    model = population.member(0)
    assert model.network is not None
    assert (assign(model, IMAGES)[1].argmax(axis=1) == convolutional.labels).all()


SCRIPT = """
import sys, time
sys.path[:0] = sys.argv[2:]
from test_programs import CONFIG, IMAGES, KEY, SIDE, Convolutional, fit

def slowly(record):
    time.sleep(0.1)

options = {"callbacks": [slowly], "checkpoint_seconds": 0}
fit(KEY, IMAGES, CONFIG, network=Convolutional(SIDE), workdir=sys.argv[1], **options)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_it_can_be_killed_at_any_moment_and_resumed(convolutional, tmp_path):
    folder, tests = tmp_path / "run", Path(__file__).parent
    command = [sys.executable, "-c", SCRIPT, str(folder), str(tests), str(tests.parent)]
    environment = quick.environment(jax.config.jax_compilation_cache_dir, **quick.READ_ONLY)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        while process.poll() is None and not list(folder.glob("checkpoints/*.npz")):
            time.sleep(0.01)
        time.sleep(np.random.default_rng().uniform(0, 3))
        process.kill()
        assert process.wait(120) in (0, -signal.SIGKILL), process.stderr.read()
    with pytest.raises(ValueError, match=r"data network: .*Convolutional.* in run\.json, .*"):
        fit(KEY, IMAGES, CONFIG, network=LINEAR, workdir=folder, resume=True)
    resumed = fit(KEY, IMAGES, CONFIG, network=Convolutional(SIDE), workdir=folder, resume=True)
    assert same_bits(arrays(resumed), arrays(convolutional))
    assert timeless(resumed.history) == timeless(convolutional.history)


# Plain functions, and what else a caller brings.

X = load_digits().data[:200]


def no_loss(key, params, batch):
    return jnp.zeros(())


def decay(key, params, batch):
    """Draw the centroids to the origin."""
    assert batch.p.shape == (len(batch.x), 5)
    assert sorted(params.encoder) == ["down", "up"]
    return 100 * jnp.mean(params.centroids**2)


def reconstruction(key, params, batch):
    decoded = decode(params.encoder, encode(params.encoder, batch.x))
    return 0.5 * jnp.mean((decoded - batch.x) ** 2)


def add_nothing(key, x):
    return x + 0


def noise(key, x):
    return x + jax.random.normal(key, x.shape)


def configured():
    """Return the optimizers that the settings speak of."""
    n_steps = CONFIG.clustering.update_interval * CONFIG.clustering.max_intervals
    return {
        "pretrain": build_optimizer(CONFIG.pretrain.optimizer, CONFIG.pretrain.finetune_steps),
        "clustering": build_optimizer(CONFIG.clustering.optimizer, n_steps),
    }


HOOKS = {"extra_loss": reconstruction, "augment": noise, "tx": {"clustering": optax.sgd(0.05)}}


@pytest.fixture(scope="module")
def plain():
    return fit(KEY, X, CONFIG, network=LINEAR)


@pytest.fixture(scope="module")
def hooked():
    return fit(KEY, X, CONFIG, network=LINEAR, **HOOKS)


def test_plain_functions_are_a_network(plain):
    losses = [r["loss"] for r in plain.history if r["phase"] == "finetune"]
    assert losses[-1] < losses[0]
    scaled = plain.model.scaling.apply(X)
    np.testing.assert_allclose(scaled @ plain.model.params["down"], plain.embedding, atol=1e-4)
    # They do not say what of it is the encoder: all is kept, and the decoder does not change.
    np.testing.assert_array_equal(plain.model.params["up"], plain.autoencoder_params["up"])
    assert not plain.model.has_decoder


def test_a_loss_of_zero_changes_no_label(plain):
    result = fit(KEY, X, CONFIG, network=LINEAR, extra_loss=no_loss)
    np.testing.assert_array_equal(result.labels, plain.labels)
    np.testing.assert_allclose(result.soft_assignment, plain.soft_assignment, atol=1e-6)
    assert result.model.has_decoder


def test_a_loss_is_added_to_the_kl(plain):
    result = fit(KEY, X, CONFIG, network=LINEAR, extra_loss=decay)
    assert same_bits(result.initial, plain.initial)
    # Adam goes by its learning rate in each of 12 steps, whatever the size of the gradient.
    before, after = (np.abs(part.centroids) for part in (result.initial, result.model))
    np.testing.assert_allclose((before - after)[before > 0.05], 0.012, rtol=0.2)
    assert np.abs(plain.model.centroids - after).max() > 0.01
    # Records have the KL alone.
    assert max(r["loss"] for r in result.history if r.get("interval")) < 10


def test_a_loss_of_the_reconstruction_is_the_setting_of_it():
    one = fit(KEY, X, CONFIG, network=LINEAR, extra_loss=reconstruction)
    config = CONFIG.replace({"clustering.reconstruction_weight": 0.5})
    other = fit(KEY, X, config, network=LINEAR)
    for a, b in zip(arrays(one)[:2], arrays(other)[:2], strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)
    assert not same_bits(one.model.params["up"], one.autoencoder_params["up"])
    rows = one.model.inverse_transform(one.embedding)
    errors = [np.square(found - X).mean() for found in (rows, X.mean(axis=0))]
    assert rows.shape == X.shape
    assert errors[0] < 1.5 * errors[1] + np.square(X).mean()


def test_an_augmentation_that_adds_nothing_gives_the_same_bits(plain):
    result = fit(KEY, X, CONFIG, network=LINEAR, augment=add_nothing)
    assert same_bits(arrays(result), arrays(plain))


def test_an_augmentation_alters_mini_batches_alone(plain):
    result = fit(KEY, X, CONFIG, network=LINEAR, augment=noise)
    assert result.history[0]["loss"] > plain.history[0]["loss"] + 0.5
    given = fit(
        KEY, X, CONFIG, network=LINEAR, augment=noise, autoencoder_params=plain.autoencoder_params
    )
    first, others = given.history[0], plain.history[-4]
    assert (first["kl"], first["cluster_sizes"]) == (others["kl"], others["cluster_sizes"])
    assert given.history[1]["loss"] != plain.history[-3]["loss"]


def test_the_configured_optimizer_gives_the_same_bits(plain):
    result = fit(KEY, X, CONFIG, network=LINEAR, tx=configured())
    assert same_bits(arrays(result), arrays(plain))


def test_an_optimizer_replaces_that_of_its_phase(plain):
    result = fit(KEY, X, CONFIG, network=LINEAR, tx={"clustering": optax.sgd(0.0)})
    assert same_bits(result.autoencoder_params, plain.autoencoder_params)
    assert same_bits(result.model.params, result.autoencoder_params)
    assert same_bits(result.model.centroids, result.initial.centroids)
    # It is compiled anew for one with other numbers.
    moved = fit(KEY, X, CONFIG, network=LINEAR, tx={"clustering": optax.sgd(0.1)})
    assert not same_bits(moved.model.centroids, moved.initial.centroids)


def test_the_estimator_takes_all_of_them(hooked):
    seen = []
    dec = DEC(config=CONFIG, network=LINEAR, random_state=0, callbacks=[seen.append], **HOOKS)
    assert dec.fit(X).embedding_.tobytes() == hooked.embedding.tobytes()
    assert seen == dec.history_
    assert dec.inverse_transform(dec.cluster_centers_).shape == (5, 64)


@pytest.mark.parametrize("mesh", [None, "members"])
def test_a_population_takes_all_of_them(hooked, mesh):
    keys = jnp.stack([KEY, jax.random.key(1), jax.random.key(2)])
    mesh = None if mesh is None else member_mesh(2)
    population = fit_population(keys, X, CONFIG, network=LINEAR, mesh=mesh, **HOOKS)
    check_member(population, 0, hooked)
    model = population.member(0)
    centres = model.inverse_transform(model.centroids)
    expected = hooked.model.inverse_transform(hooked.model.centroids)
    np.testing.assert_allclose(centres, expected, rtol=1e-3, atol=1e-3)


def test_a_workdir_belongs_to_what_a_caller_brought(tmp_path, hooked):
    fit(KEY, X, CONFIG, network=LINEAR, workdir=tmp_path, **HOOKS)
    again = fit(KEY, X, CONFIG, network=LINEAR, workdir=tmp_path, resume=True, **HOOKS)
    assert same_bits(arrays(again), arrays(hooked))
    others = {
        "data network": {"network": FunctionalAutoencoder(init, encode, other_decode)},
        "data extra_loss": {"extra_loss": decay},
        "data augment": {"augment": add_nothing},
        "data clustering_tx": {"tx": None},
    }
    for name, change in others.items():
        arguments = {"network": LINEAR, **HOOKS, **change}
        with pytest.raises(ValueError, match=rf"in {name}: .* in run\.json, .* requested$"):
            fit(KEY, X, CONFIG, workdir=tmp_path, resume=True, **arguments)


def some_nan_init(key, n_features):
    broken = jax.random.key_data(key).sum() % 2 == 1
    return jax.tree.map(lambda leaf: jnp.where(broken, jnp.nan, leaf), init(key, n_features))


def test_a_member_that_begins_with_nan_lets_the_others_go_on(plain):
    network = FunctionalAutoencoder(some_nan_init, encode, decode)
    keys = jax.random.split(KEY, 5)
    init_keys = jax.vmap(lambda key: jax.random.split(key, 4)[0])(keys)
    broken = np.flatnonzero(np.asarray(jax.random.key_data(init_keys)).sum(axis=1) % 2)
    assert 0 < len(broken) < 5
    with pytest.warns(RuntimeWarning, match="of 5 became NaN or infinite"):
        population = fit_population(keys, X, CONFIG, network=network)
    assert np.flatnonzero(~np.isfinite(population.kl)).tolist() == broken.tolist()
    whole = int(np.flatnonzero(np.isfinite(population.kl))[0])
    check_member(population, whole, fit(keys[whole], X, CONFIG, network=LINEAR))


# Parameters may be any pytree.


def test_parameters_may_be_a_single_array(tmp_path):
    network = FunctionalAutoencoder(
        lambda key, n_features: jax.random.normal(key, (n_features, 3)) / 8,
        lambda w, x: x @ w,
        lambda w, z: z @ w.T,
    )
    result = fit(KEY, X, CONFIG, network=network)
    again = fit(KEY, X, CONFIG, network=network, autoencoder_params=result.autoencoder_params)
    assert same_bits(arrays(again), arrays(result))
    save_model(tmp_path / "model.npz", result.model)
    loaded, _ = load_model(tmp_path / "model.npz", network=network)
    assert loaded.predict_proba(X).tobytes() == result.soft_assignment.tobytes()
    with pytest.raises(ValueError, match="autoencoder_params: expected arrays of shapes"):
        fit(KEY, X, CONFIG, network=network, autoencoder_params={"w": result.autoencoder_params})


# A decoder that is trained along.


def test_cluster_centres_are_drawn_like_the_rows_of_their_cluster():
    x, y = load_digits(return_X_y=True)
    dec = DEC(
        10,
        hidden_dims=(64,),
        pretrain_steps=1000,
        update_interval=20,
        max_intervals=5,
        settings={
            "clustering.reconstruction_weight": 1.0,
            "clustering.tol": 0.0,
            # Round clusters, whose centres are among their rows.
            "kmeans.select": "inertia",
            "clustering.warmup_steps": 0,
        },
        random_state=0,
    ).fit(x)
    drawn = dec.inverse_transform(dec.cluster_centers_)
    assert drawn.shape == (10, 64)
    for label, image in enumerate(drawn):
        rows = dec.labels_ == label
        digit = np.bincount(y[rows]).argmax()
        for mean in (x[rows].mean(axis=0), x[y == digit].mean(axis=0)):
            assert np.corrcoef(image, mean)[0, 1] > 0.8
    assert dec.model_.has_decoder


def test_without_it_nothing_is_drawn(plain):
    dec = DEC(config=CONFIG, network=LINEAR, random_state=0).fit(X)
    assert not hasattr(dec, "inverse_transform")  # as scikit-learn has it
    with pytest.raises(AttributeError, match="no attribute 'inverse_transform'") as caught:
        dec.inverse_transform(dec.cluster_centers_)
    assert 'settings={"clustering.reconstruction_weight": 1.0}' in str(caught.value.__cause__)
    with pytest.raises(ValueError, match="expected one trained with its decoder"):
        dec.model_.inverse_transform(dec.cluster_centers_)
