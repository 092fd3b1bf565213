from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from tracing import equations

from jdec.core.autoencoder import as_autoencoder, count_params, network_shapes
from jdec.core.batches import Batches
from jdec.core.convolutional import ConvolutionalAutoencoder
from jdec.core.optimizers import make_optimizer
from jdec.core.pretraining import finetune
from jdec.core.training import scan_steps

KEY = jax.random.key(0)
NETWORK = ConvolutionalAutoencoder((5, 7, 2), (3, 4), (5, 3), 3)
PARAMS = jax.jit(lambda key: NETWORK.init(key, 70))(KEY)


def random_rows(n_rows, width, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((n_rows, width)), jnp.float32)


X = random_rows(6, 70)


# Against oracles.


def convolve(x, kernel, bias):
    """Stride 2, as many zeros around the image as halving it takes, one more at the end if odd."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    n, height, width, _ = x.shape
    size, out = len(kernel), (-(-height // 2), -(-width // 2))
    padding = [max(2 * (o - 1) + size - i, 0) for o, i in zip(out, (height, width), strict=True)]
    padded = np.pad(x, [(0, 0), *((p // 2, p - p // 2) for p in padding), (0, 0)])
    y = np.zeros((n, *out, kernel.shape[-1]))
    for i, j in np.ndindex(out):
        window = padded[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size]
        y[:, i, j] = np.einsum("nhwc,hwcd->nd", window, kernel)
    return y + np.asarray(bias, np.float64)


def dense(x, layer):
    return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)


def oracle_encode(params, x, image_shape, n_layers):
    x = np.asarray(x, np.float64).reshape(-1, *image_shape)
    for i in range(n_layers):
        layer = params[f"encoder_{i}"]
        x = np.maximum(convolve(x, layer["kernel"], layer["bias"]), 0)
    return dense(x.reshape(len(x), -1), params[f"encoder_{n_layers}"])


def test_the_encoder_is_the_oracles():
    z = NETWORK.encode(PARAMS, X)
    np.testing.assert_allclose(z, oracle_encode(PARAMS, X, (5, 7, 2), 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("image_shape", [(6, 6, 1), (5, 7, 2)])
def test_a_layer_is_jaxs_convolution_and_its_transpose(image_shape):
    n_features, depth = int(np.prod(image_shape)), image_shape[2]
    network = ConvolutionalAutoencoder(image_shape, (3,), (3,), 4)
    params = network.init(KEY, n_features)
    x = random_rows(4, n_features)
    numbers = ("NHWC", "HWIO", "NHWC")
    first = params["encoder_0"]
    h = jax.lax.conv_general_dilated(
        x.reshape(4, *image_shape), first["kernel"], (2, 2), "SAME", dimension_numbers=numbers
    )
    h = jax.nn.relu(h + first["bias"][None, None, None, :]).reshape(4, -1)
    last = params["encoder_1"]
    z = h @ last["kernel"] + last["bias"][None, :]
    np.testing.assert_allclose(network.encode(params, x), z, rtol=1e-4, atol=1e-5)
    # The decoder: a dense layer, and the transposed convolution of the same geometry.
    first, last = params["decoder_1"], params["decoder_0"]
    y = jax.nn.relu(z @ first["kernel"] + first["bias"][None, :])
    y = y.reshape(4, -(-image_shape[0] // 2), -(-image_shape[1] // 2), 3)
    y = jax.lax.conv_transpose(y, last["kernel"], (2, 2), "SAME", dimension_numbers=numbers)
    y = y[:, : image_shape[0], : image_shape[1]] + last["bias"][None, None, None, :]
    assert y.shape == (4, *image_shape[:2], depth)
    np.testing.assert_allclose(network.decode(params, z), y.reshape(4, -1), rtol=1e-4, atol=1e-5)


# Shapes.


@pytest.mark.parametrize(
    "image_shape", [(1, 1), (1, 9), (2, 3), (7, 7), (8, 8), (9, 6, 3), (28, 28), (5, 4, 1)]
)
def test_rows_come_back_in_their_shape(image_shape):
    n_features = int(np.prod(image_shape))
    network = ConvolutionalAutoencoder(image_shape, (2, 3, 4), (5, 5, 3), 2)
    shapes = network_shapes(network, n_features)  # checks those of encode and decode
    assert shapes.latent_dim == 2
    side = [-(-size // 8) for size in image_shape[:2]]
    assert shapes.encoder["encoder_3"]["kernel"].shape == (4 * side[0] * side[1], 2)


def test_parameters():
    shapes = jax.tree.map(lambda leaf: leaf.shape, PARAMS)
    assert shapes == {
        "encoder_0": {"kernel": (5, 5, 2, 3), "bias": (3,)},
        "encoder_1": {"kernel": (3, 3, 3, 4), "bias": (4,)},
        "encoder_2": {"kernel": (16, 3), "bias": (3,)},
        "decoder_2": {"kernel": (3, 16), "bias": (16,)},
        "decoder_1": {"kernel": (3, 3, 4, 3), "bias": (3,)},
        "decoder_0": {"kernel": (5, 5, 3, 2), "bias": (2,)},
    }
    assert type(PARAMS) is dict
    assert {leaf.dtype for leaf in jax.tree.leaves(PARAMS)} == {jnp.dtype(jnp.float32)}
    encoder = NETWORK.encoder_params(PARAMS)
    assert sorted(encoder) == ["encoder_0", "encoder_1", "encoder_2"]
    np.testing.assert_array_equal(NETWORK.encode(encoder, X), NETWORK.encode(PARAMS, X))
    assert count_params(PARAMS) == 150 + 3 + 108 + 4 + 48 + 3 + 48 + 16 + 108 + 3 + 150 + 2


def test_the_bounds_of_fan_in_uniform():
    params = ConvolutionalAutoencoder((8, 8, 3), (64,), (5,), 10).init(KEY, 192)
    for name, fan_in in (
        *(("encoder_0", 25 * 3), ("encoder_1", 4 * 4 * 64)),
        *(("decoder_1", 10), ("decoder_0", 25 * 64)),
    ):
        kernel = np.abs(np.asarray(params[name]["kernel"]))
        assert 0.99 * fan_in**-0.5 < kernel.max() <= fan_in**-0.5


def test_the_key_determines_the_parameters():
    first, again, other = (NETWORK.init(jax.random.key(seed), 70) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first["encoder_0"]["kernel"] != other["encoder_0"]["kernel"]).all()


# What it sees and learns.


def test_neighbouring_pixels_belong_together():
    """A pixel changes only the windows that it lies in."""
    network = ConvolutionalAutoencoder((8, 8), (2,), (3,), 3)
    params = network.init(KEY, 64)
    x = random_rows(1, 64)
    moved = x.at[0, 0].add(10.0)
    weights = params["encoder_1"]["kernel"].reshape(4, 4, 2, 3)
    # Without what the dense layer has for the corner, the corner's pixel changes nothing.
    weights = weights.at[:1, :1].set(0.0).reshape(32, 3)
    blind = params | {"encoder_1": params["encoder_1"] | {"kernel": weights}}
    assert (network.encode(params, moved) != network.encode(params, x)).any()
    np.testing.assert_allclose(network.encode(blind, moved), network.encode(blind, x), rtol=1e-6)


def test_it_learns_digits():
    """Rows of 8×8 pixels: far better than the best constant, the mean image."""
    x = jnp.asarray(load_digits().data[:400] / 8, jnp.float32)
    network = ConvolutionalAutoencoder((8, 8), (8, 16), (3, 3), 10)
    n_steps = 300
    algorithm = finetune(network, make_optimizer("adam", 5e-3, n_steps=n_steps))

    @jax.jit
    def train(params):
        state, info = scan_steps(
            algorithm, KEY, algorithm.init(params), x, n_steps=n_steps, batches=Batches(64)
        )
        y = network.decode(state.params, network.encode(state.params, x))
        return ((y - x) ** 2).mean(), info.loss

    after, losses = train(network.init(KEY, 64))
    mean_image = float(x.var(axis=0).mean())
    assert losses[0] > mean_image
    assert after < 0.35 * mean_image


# Precision.


def test_bfloat16_returns_float32():
    network = ConvolutionalAutoencoder((5, 7, 2), (3, 4), (5, 3), 3, precision="bfloat16")
    z = network.encode(PARAMS, X)
    y = network.decode(PARAMS, z)
    assert {z.dtype, y.dtype} == {jnp.dtype(jnp.float32)}
    exact = NETWORK.encode(PARAMS, X)
    assert 0 < np.abs(z - exact).max() < 0.03 * np.abs(exact).max()
    # The embedding itself is not rounded.
    assert (z != z.astype(jnp.bfloat16).astype(jnp.float32)).mean() > 0.7
    drawn = network.init(KEY, 70)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-6), drawn, PARAMS)

    def loss(params):
        return ((network.decode(params, network.encode(params, X)) - X) ** 2).mean()

    grads = jax.eval_shape(jax.grad(loss), PARAMS)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(grads)} == {"float32"}


@pytest.mark.parametrize(
    ("precision", "asked"),
    [("float32", "HIGHEST"), ("tensorfloat32", "HIGH"), ("bfloat16", "HIGH")],
)
def test_convolutions_and_products_ask_for_their_precision(precision, asked):
    network = ConvolutionalAutoencoder((5, 7, 2), (3, 4), (5, 3), 3, precision=precision)

    def loss(params):
        return ((network.decode(params, network.encode(params, X)) - X) ** 2).mean()

    found = [
        equation
        for equation in equations(jax.make_jaxpr(jax.grad(loss))(PARAMS))
        if equation.primitive.name in ("dot_general", "conv_general_dilated")
    ]
    # Six layers forward; backward two each, less one for the data.
    assert len(found) == 6 + 11
    wanted = jax.lax.Precision[asked]
    assert {equation.params["precision"] for equation in found} == {(wanted, wanted)}


# Settings.


def test_equal_settings_are_equal_networks(unchecked):
    lists = ConvolutionalAutoencoder([5, np.int64(7), 2], [3, 4], [5, 3], 3)
    assert lists == NETWORK
    assert hash(lists) == hash(NETWORK)
    assert as_autoencoder(NETWORK, 70) is NETWORK
    assert ConvolutionalAutoencoder((5, 7, 2), (3, 4), (3, 3), 3) != NETWORK


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_shape": (5,)}, r"image_shape: expected \(height, width\) or .*, got \(5,\)"),
        ({"image_shape": (5, 7, 2, 1)}, r"image_shape: expected \(height, width\) or .*, got \("),
        ({"image_shape": (5, 0)}, "image_shape: expected an integer >= 1, got 0"),
        ({"image_shape": 28}, "image_shape: expected a list of integers, got 28"),
        ({"channels": (3, 2.5)}, "channels: expected an integer >= 1, got 2.5"),
        ({"channels": (3,)}, r"kernel_sizes: expected one for each .*\(5, 3\) for channels \(3,\)"),
        ({"channels": (), "kernel_sizes": ()}, "kernel_sizes: expected .* at least one; got"),
        ({"kernel_sizes": (3, -1)}, "kernel_sizes: expected an integer >= 1, got -1"),
        ({"latent_dim": 0}, "latent_dim: expected an integer >= 1, got 0"),
        ({"initializer": "glorot"}, "initializer: expected one of fan_in_uniform, normal; got"),
        ({"precision": "half"}, "precision: expected one of float32, .*; got 'half'"),
    ],
)
def test_bad_settings_are_refused(unchecked, change, message):
    good = {"image_shape": (5, 7, 2), "channels": (3, 4), "kernel_sizes": (5, 3)}
    with pytest.raises(ValueError, match=message):
        ConvolutionalAutoencoder(**(good | change))


def test_rows_that_are_no_such_images_are_refused():
    with pytest.raises(
        ValueError, match=r"image_shape: expected 71 entries as x has columns, got \(5, 7, 2\)"
    ):
        NETWORK.init(KEY, 71)
