import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from sklearn.datasets import load_digits

from jdec.core.autoencoder import FunctionalAutoencoder
from jdec.core.batches import Batches
from jdec.core.convolutional import ConvolutionalAutoencoder
from jdec.core.networks import StackedDenoisingAutoencoder
from jdec.core.optimizers import make_optimizer
from jdec.core.pretraining import finetune, layerwise
from jdec.core.training import scan_steps

KEY = jax.random.key(0)
NETWORK = StackedDenoisingAutoencoder((5, 4), 3)
X = jnp.asarray(np.random.default_rng(0).standard_normal((7, 6)), jnp.float32)


def losses(algorithm, params, x, n_keys=30):
    """Loss of the first step for many keys."""
    state = algorithm.init(params)
    keys = jax.random.split(KEY, n_keys)
    step = jax.jit(jax.vmap(algorithm.step, in_axes=(0, None, None)))
    return np.asarray(step(keys, state, x)[1].loss)


def check_step(algorithm, params, expected_loss, expected_grads):
    state, info = jax.jit(algorithm.step)(KEY, algorithm.init(params), X)
    np.testing.assert_allclose(info.loss, expected_loss, rtol=1e-5)
    expected = reference.sgd_step(reference.as_float64(params), expected_grads, 0.3)
    jax.tree.map(
        lambda found, right: np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-6),
        state.params,
        expected,
    )
    return state


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layerwise_step_is_the_oracles(layer):
    params = NETWORK.init(KEY, 6)
    loss, grads = reference.layer_gradients(params, layer, X, loss_scale=0.5)
    algorithm = layerwise(NETWORK, layer, optax.sgd(0.3), corruption_rate=0.0, loss_scale=0.5)
    state = check_step(algorithm, params, loss, grads)
    trained = {f"encoder_{layer}", f"decoder_{layer}"}
    assert set(grads) == trained
    for name, values in state.params.items():
        changed = [(values[leaf] != params[name][leaf]).any() for leaf in ("kernel", "bias")]
        assert changed == [name in trained] * 2


@pytest.mark.parametrize("loss_scale", [0.5, 1.0])
def test_a_finetuning_step_is_the_oracles(loss_scale):
    params = NETWORK.init(KEY, 6)
    loss, grads = reference.finetune_gradients(params, X, loss_scale)
    state = check_step(
        finetune(NETWORK, optax.sgd(0.3), loss_scale=loss_scale), params, loss, grads
    )
    assert set(grads) == set(state.params)


def test_the_oracles_gradients_are_those_of_its_loss():
    params = reference.as_float64(NETWORK.init(KEY, 6))
    for gradients in (
        reference.finetune_gradients,
        lambda params, x: reference.layer_gradients(params, 1, x),
    ):
        _, grads = gradients(params, X)
        for leaf, index in (("kernel", (1, 2)), ("bias", (3,))):
            values = []
            for step in (1e-6, -2e-6):
                params["encoder_1"][leaf][index] += step
                values.append(gradients(params, X)[0])
            params["encoder_1"][leaf][index] += 1e-6
            np.testing.assert_allclose(
                grads["encoder_1"][leaf][index], (values[0] - values[1]) / 2e-6, rtol=1e-5
            )


def test_the_optimizer_holds_the_layers_own_parameters():
    params = NETWORK.init(KEY, 6)
    tx = make_optimizer("sgd", 0.1, n_steps=9)
    state = layerwise(NETWORK, 1, tx).init(params)
    shapes = {leaf.shape for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim}
    assert shapes == {(5, 4), (4,), (4, 5), (5,)}


# Where the noise is: one row, one unit. Masking it leaves two possible values, and no third.


def positive_params(network, n_features=6):
    """Parameters of positive weights, so that no unit is off by itself."""
    return jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.1, network.init(KEY, n_features))


def check_values(found, expected):
    """The losses found are the expected ones, and each of them occurs."""
    found, expected = np.asarray(found), np.unique(expected)
    nearest = np.abs(found[:, None] - expected[None, :]).argmin(axis=1)
    np.testing.assert_allclose(found, expected[nearest], rtol=1e-5)
    assert set(nearest) == set(range(len(expected)))


def loss_of_masked(params, layer, h, *, inputs=(1.0,), codes=(1.0,)):
    """Losses of one layer when its input and code are multiplied by the given factors."""
    encoder = reference.encoder_layers(params)[layer]
    decoder = reference.decoder_layers(params)[::-1][layer]
    found = []
    for on_input in inputs:
        code = reference.forward([encoder], h * on_input)[-1]
        for on_code in codes:
            y = reference.forward([decoder], code * on_code)[-1]
            found.append(((y - h) ** 2).mean())
    return found


MASKED = (0.0, 2.0)  # at rate 1/2


def test_the_data_is_clean_in_the_first_layer_and_its_code_is_masked():
    network = StackedDenoisingAutoencoder((1,), 3)
    params = positive_params(network)
    x = jnp.arange(1.0, 7.0)[None, :]
    found = losses(layerwise(network, 0, optax.sgd(0.1), corruption_rate=0.5), params, x)
    check_values(found, loss_of_masked(params, 0, np.asarray(x), codes=MASKED))
    noisy = layerwise(network, 0, optax.sgd(0.1), corruption_rate=0.5, corrupt_data=True)
    assert len(np.unique(losses(noisy, params, x).round(4))) > 5


def test_the_data_is_masked_when_asked_for():
    network = StackedDenoisingAutoencoder((1,), 3)
    params = positive_params(network, 1)
    x = jnp.ones((1, 1))
    algorithm = layerwise(network, 0, optax.sgd(0.1), corruption_rate=0.5, corrupt_data=True)
    expected = loss_of_masked(params, 0, np.ones((1, 1)), inputs=MASKED, codes=MASKED)
    check_values(losses(algorithm, params, x), expected)


def test_an_inner_layers_input_and_code_are_masked():
    network = StackedDenoisingAutoencoder((1, 1), 3)
    params = positive_params(network)
    x = jnp.ones((1, 6))
    h = reference.forward(reference.encoder_layers(params)[:1], x)[-1]
    algorithm = layerwise(network, 1, optax.sgd(0.1), corruption_rate=0.5)
    check_values(
        losses(algorithm, params, x), loss_of_masked(params, 1, h, inputs=MASKED, codes=MASKED)
    )


@pytest.mark.parametrize("corrupt_data", [False, True])
def test_the_embedding_is_never_masked(corrupt_data):
    network = StackedDenoisingAutoencoder((1,), 3)
    params = positive_params(network)
    x = jnp.ones((1, 6))
    h = reference.forward(reference.encoder_layers(params)[:1], x)[-1]
    algorithm = layerwise(
        network, 1, optax.sgd(0.1), corruption_rate=0.5, corrupt_data=corrupt_data
    )
    check_values(losses(algorithm, params, x), loss_of_masked(params, 1, h, inputs=MASKED))


def test_a_single_layer_has_no_noise_at_all():
    network = StackedDenoisingAutoencoder((), 3)
    params = network.init(KEY, 6)
    algorithm = layerwise(network, 0, optax.sgd(0.1), corruption_rate=0.5)
    check_values(losses(algorithm, params, X), [reference.layer_gradients(params, 0, X)[0]])


def test_finetuning_masks_the_data_at_its_rate():
    # With a single column there are but two masked copies of a row.
    network = StackedDenoisingAutoencoder((2,), 3)
    params = positive_params(network, 1)
    x = jnp.full((1, 1), 2.0)
    layers = [*reference.encoder_layers(params), *reference.decoder_layers(params)]
    clean, *masked = (
        float(((reference.forward(layers, factor * np.asarray(x))[-1] - x) ** 2).mean())
        for factor in (1, *MASKED)
    )
    for rate, expected in ((0.0, [clean]), (0.5, masked)):
        algorithm = finetune(network, optax.sgd(0.1), corruption_rate=rate)
        check_values(losses(algorithm, params, x), expected)


def test_the_key_of_a_step_determines_its_noise():
    params = NETWORK.init(KEY, 6)
    keys = jax.random.key(1), jax.random.key(1), jax.random.key(2)
    for rate in (0.0, 0.5):
        algorithm = finetune(NETWORK, optax.sgd(0.1), corruption_rate=rate)
        step, state = jax.jit(algorithm.step), algorithm.init(params)
        first, again, other = (float(step(key, state, X)[1].loss) for key in keys)
        assert first == again
        assert (first != other) == (rate > 0)


def test_the_noise_is_made_outside_of_the_network():
    """A network that passes its rows on compares the noisy ones with the clean ones."""
    identity = FunctionalAutoencoder(
        lambda key, n_features: jnp.ones(()), lambda w, x: w * x, lambda w, z: z
    )
    algorithm = finetune(identity, optax.sgd(0.1), corruption_rate=0.2)
    # Of 100 ones, so many become 0 and the rest 1 / 0.8, which is off by 1/4.
    found = losses(algorithm, jnp.ones(()), jnp.ones((10, 10)))
    n_masked = (100 * found - 100 / 16) * 16 / 15
    np.testing.assert_allclose(n_masked, n_masked.round(), atol=1e-3)
    assert 15 < n_masked.mean() < 25
    assert len(set(n_masked.round())) > 5


# On data.


def test_the_loss_falls_on_real_data():
    x = jnp.asarray(load_digits().data[:300] / 8, jnp.float32)
    network = StackedDenoisingAutoencoder((32,), 8)
    params = network.init(KEY, 64)
    n_steps = 150
    stages = [layerwise(network, i, make_optimizer("adam", 3e-3, n_steps=n_steps)) for i in (0, 1)]
    tx = make_optimizer("adam", 3e-3, n_steps=n_steps)
    stages.append(finetune(network, tx, corruption_rate=0.1))

    @jax.jit
    def error(params):
        return ((network.decode(params, network.encode(params, x)) - x) ** 2).mean()

    for stage in stages:
        run = jax.jit(
            lambda params, stage=stage: scan_steps(
                stage, KEY, stage.init(params), x, n_steps=n_steps, batches=Batches(64)
            )
        )
        before = float(error(params))
        state, info = run(params)
        params = state.params
        assert info.loss.shape == (n_steps,)
        assert info.loss[-10:].mean() < 0.8 * info.loss[:10].mean()
        after = float(error(params))
        assert after < before
    assert after < 0.4 * float(x.var(axis=0).mean())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda tx: layerwise(NETWORK, 0, tx, corruption_rate=1.0), r"corruption_rate: .* got 1.0"),
        (
            lambda tx: layerwise(NETWORK, 0, tx, corruption_rate=-0.1),
            "corruption_rate: .* got -0.1",
        ),
        (lambda tx: layerwise(NETWORK, 0, tx, loss_scale=0.0), "loss_scale: .* > 0, got 0.0"),
        (lambda tx: finetune(NETWORK, tx, loss_scale=-1.0), "loss_scale: .* > 0, got -1.0"),
        (
            lambda tx: finetune(NETWORK, tx, corruption_rate=1.0),
            r"corruption_rate: expected a number in \[0, 1\), got 1.0",
        ),
        (
            lambda tx: layerwise(ConvolutionalAutoencoder((2, 3)), 0, tx),
            "network: expected n_layers, layer_params, encode_layers and reconstruct_layer for "
            "layer-wise pretraining, got ConvolutionalAutoencoder.*; layerwise_steps=0 does",
        ),
    ],
)
def test_bad_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build(optax.sgd(0.1))
