import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from tracing import equations

from jdec.core.autoencoder import Autoencoder, network_shapes
from jdec.core.functional import log_soft_assignment, mean_kl
from jdec.core.networks import INITIALIZERS, StackedDenoisingAutoencoder
from jdec.core.optimizers import make_optimizer
from jdec.core.pretraining import finetune, layerwise

KEY = jax.random.key(0)
NETWORK = StackedDenoisingAutoencoder((5, 4), 3)
PARAMS = jax.jit(lambda key: NETWORK.init(key, 6))(KEY)


def random_rows(n_rows, width, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((n_rows, width)), jnp.float32)


def reconstruct(network, params, x):
    return network.decode(params, network.encode(params, x))


@pytest.mark.parametrize("hidden_dims", [(), (5,), (5, 4)])
@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_the_oracles_forward_pass(hidden_dims, initializer):
    network = StackedDenoisingAutoencoder(hidden_dims, 3, initializer=initializer)
    params = network.init(KEY, 6)
    x = random_rows(7, 6)
    z = network.encode(params, x)
    assert z.shape == (7, 3)
    np.testing.assert_allclose(z, reference.encode(params, x), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(network.encode(network.encoder_params(params), x), z)
    np.testing.assert_allclose(
        network.decode(params, z),
        reference.decode(params, reference.encode(params, x)),
        rtol=1e-4,
        atol=1e-6,
    )
    assert network.n_layers == len(hidden_dims) + 1
    for n_layers in range(network.n_layers + 1):
        layers = reference.encoder_layers(params)[:n_layers]
        np.testing.assert_allclose(
            network.encode_layers(params, x, n_layers),
            reference.forward(layers, x)[-1],
            rtol=1e-5,
            atol=1e-6,
        )


def test_all_but_embedding_and_reconstruction_are_rectified():
    x = random_rows(40, 6)
    for n_layers in (1, 2):
        h = NETWORK.encode_layers(PARAMS, x, n_layers)
        assert (h.min(), (h > 0).any()) == (0, True)
    assert NETWORK.encode(PARAMS, x).min() < 0
    assert reconstruct(NETWORK, PARAMS, x).min() < 0


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_one_layer_and_its_inverse(layer):
    h = random_rows(7, (6, 5, 4)[layer])
    y = NETWORK.reconstruct_layer(KEY, PARAMS, h, layer, input_corruption=0.0, code_corruption=0.0)
    pair = [reference.encoder_layers(PARAMS)[layer], reference.decoder_layers(PARAMS)[::-1][layer]]
    np.testing.assert_allclose(y, reference.forward(pair, h)[-1], rtol=1e-5, atol=1e-6)


def test_the_noise_of_a_layer_is_of_its_key():
    h = random_rows(7, 5)

    def noisy(seed, input_corruption, code_corruption):
        return NETWORK.reconstruct_layer(
            jax.random.key(seed),
            PARAMS,
            h,
            1,
            input_corruption=input_corruption,
            code_corruption=code_corruption,
        )

    for rates in ((0.5, 0.0), (0.0, 0.5)):
        np.testing.assert_array_equal(noisy(0, *rates), noisy(0, *rates))
        assert (noisy(0, *rates) != noisy(1, *rates)).any()
        assert (noisy(0, *rates) != noisy(0, 0.0, 0.0)).any()
    # The input's mask and the code's are drawn apart.
    assert (noisy(0, 0.5, 0.5) != noisy(0, 0.5, 0.0)).any()


# Parameters.


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_parameters_are_plain_dictionaries_of_float32(initializer):
    params = StackedDenoisingAutoencoder((5,), 3, initializer=initializer).init(KEY, 6)
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)
    assert shapes == {
        "encoder_0": {"kernel": (6, 5), "bias": (5,)},
        "encoder_1": {"kernel": (5, 3), "bias": (3,)},
        "decoder_1": {"kernel": (3, 5), "bias": (5,)},
        "decoder_0": {"kernel": (5, 6), "bias": (6,)},
    }
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    assert type(params) is dict
    assert {type(layer) for layer in params.values()} == {dict}


def test_parts_of_the_parameters():
    assert sorted(PARAMS) == [f"{part}coder_{i}" for part in ("de", "en") for i in range(3)]
    encoder = NETWORK.encoder_params(PARAMS)
    assert sorted(encoder) == ["encoder_0", "encoder_1", "encoder_2"]
    assert encoder["encoder_1"]["kernel"] is PARAMS["encoder_1"]["kernel"]
    assert sorted(NETWORK.layer_params(PARAMS, 1)) == ["decoder_1", "encoder_1"]


def test_many_layers_keep_their_order():
    # By name, encoder_10 would come before encoder_2.
    network = StackedDenoisingAutoencoder(tuple(range(13, 3, -1)), 3)
    params = network.init(KEY, 14)
    params = jax.tree.map(lambda leaf: 2 * leaf, dict(sorted(params.items())))
    x = random_rows(5, 14)
    z = network.encode(params, x)
    np.testing.assert_allclose(z, reference.encode(params, x), rtol=1e-4, atol=1e-5)
    expected = reference.decode(params, z)
    np.testing.assert_allclose(network.decode(params, z), expected, rtol=1e-4, atol=1e-5)


def test_fan_in_uniform():
    params = StackedDenoisingAutoencoder((100,), 50).init(KEY, 400)
    for name, fan_in in (("encoder_0", 400), ("encoder_1", 100), ("decoder_0", 100)):
        bound = fan_in**-0.5
        for values in params[name].values():
            assert np.abs(values).max() <= bound
        kernel = np.asarray(params[name]["kernel"])
        assert kernel.min() < -0.99 * bound
        assert kernel.max() > 0.99 * bound
        np.testing.assert_allclose(kernel.mean(), 0, atol=5 * bound / kernel.size**0.5)
        np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.02)
        assert params[name]["bias"].std() > 0.3 * bound


def test_normal():
    params = StackedDenoisingAutoencoder((100,), 50, initializer="normal").init(KEY, 400)
    for layer in params.values():
        kernel = np.asarray(layer["kernel"])
        np.testing.assert_allclose(kernel.mean(), 0, atol=5 * 0.01 / kernel.size**0.5)
        np.testing.assert_allclose(kernel.std(), 0.01, rtol=0.05)
        assert 0.025 < np.abs(kernel).max() < 0.06  # tails, so neither uniform nor cut off
        np.testing.assert_array_equal(layer["bias"], 0)


def test_the_key_determines_the_parameters():
    first, again, other = (NETWORK.init(jax.random.key(seed), 6) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first["encoder_0"]["kernel"] != other["encoder_0"]["kernel"]).all()
    assert (first["encoder_0"]["kernel"] != first["decoder_0"]["kernel"].T).all()


# Precision of the products.


def loss_of(network, x):
    return lambda params: ((reconstruct(network, params, x) - x) ** 2).mean()


def products(function, *arguments):
    """Dtypes and asked-for precisions of all matrix products of a function."""
    found = equations(jax.make_jaxpr(function)(*arguments))
    return [
        (str(equation.invars[0].aval.dtype), equation.invars[1].aval, equation.params["precision"])
        for equation in found
        if equation.primitive.name == "dot_general"
    ]


@pytest.mark.parametrize(
    ("precision", "asked"),
    [("float32", "HIGHEST"), ("tensorfloat32", "HIGH"), ("bfloat16", "HIGH")],
)
def test_products_ask_for_their_precision(precision, asked):
    """Without, an accelerator would round the factors of float32 products by itself."""
    network = StackedDenoisingAutoencoder((5, 4), 3, precision=precision)
    found = products(jax.grad(loss_of(network, random_rows(7, 6))), PARAMS)
    # Six layers forward; backward two each, less one for the data.
    assert len(found) == 6 + 11
    wanted = jax.lax.Precision[asked]
    assert {precision for _, _, precision in found} == {(wanted, wanted)}


def test_bfloat16_is_for_products_but_those_of_the_embedding():
    network = StackedDenoisingAutoencoder((5, 4), 3, precision="bfloat16")
    x = random_rows(7, 6)
    forward = products(lambda params, x: reconstruct(network, params, x), PARAMS, x)
    assert [(dtype, kernel.shape, str(kernel.dtype)) for dtype, kernel, _ in forward] == [
        ("bfloat16", (6, 5), "bfloat16"),
        ("bfloat16", (5, 4), "bfloat16"),
        ("float32", (4, 3), "float32"),
        ("bfloat16", (3, 4), "bfloat16"),
        ("bfloat16", (4, 5), "bfloat16"),
        ("bfloat16", (5, 6), "bfloat16"),
    ]
    backward = products(jax.grad(loss_of(network, x)), PARAMS)
    dtypes = [dtype for dtype, _, _ in backward]
    assert (dtypes.count("float32"), dtypes.count("bfloat16")) == (3, 14)


def test_bfloat16_leaves_all_that_is_kept_in_float32():
    network = StackedDenoisingAutoencoder((5, 4), 3, precision="bfloat16")
    x = random_rows(7, 6)
    for algorithm, rows in (
        (finetune(network, make_optimizer("adam", 1e-3, n_steps=9), corruption_rate=0.2), x),
        (layerwise(network, 1, make_optimizer("adam", 1e-3, n_steps=9)), x),
    ):
        state, info = jax.jit(algorithm.step)(KEY, algorithm.init(PARAMS), rows)
        assert info.loss.dtype == jnp.float32
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(state.params)} == {"float32"}
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(state.opt_state)} == {
            *("float32", "int32")
        }
    grads = jax.eval_shape(jax.grad(loss_of(network, x)), PARAMS)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(grads)} == {"float32"}
    assert reconstruct(network, PARAMS, x).dtype == jnp.float32
    for n_layers in range(4):
        assert network.encode_layers(PARAMS, x, n_layers).dtype == jnp.float32
    y = network.reconstruct_layer(KEY, PARAMS, x, 0, input_corruption=0.2, code_corruption=0.2)
    assert y.dtype == jnp.float32


def test_bfloat16_is_close_to_float32():
    x = random_rows(200, 6)
    rounded = StackedDenoisingAutoencoder((5, 4), 3, precision="bfloat16")
    z = [network.encode(PARAMS, x) for network in (NETWORK, rounded)]
    difference = np.abs(z[0] - z[1])
    assert 1e-5 < difference.mean() < 0.01 * np.abs(z[0]).mean()
    # The embedding itself is not rounded.
    assert (z[1] != z[1].astype(jnp.bfloat16).astype(jnp.float32)).mean() > 0.9
    (right, grads), (found, other_grads) = (
        jax.jit(jax.value_and_grad(loss_of(network, x)))(PARAMS) for network in (NETWORK, rounded)
    )
    assert found != right
    np.testing.assert_allclose(found, right, rtol=5e-3)
    for layer in PARAMS:
        kernel = np.asarray(grads[layer]["kernel"])
        np.testing.assert_allclose(
            other_grads[layer]["kernel"], kernel, rtol=0, atol=0.03 * np.abs(kernel).max()
        )


def test_distances_are_of_float32_whatever_the_network():
    network = StackedDenoisingAutoencoder((5, 4), 3, precision="bfloat16")
    x = random_rows(7, 6)
    centroids = jnp.ones((2, 3))

    def kl(params, centroids):
        return mean_kl(log_soft_assignment(network.encode(params, x), centroids))

    params = network.encoder_params(PARAMS)
    found = products(kl, params, centroids)
    highest = jax.lax.Precision.HIGHEST
    assert [dtype for dtype, _, _ in found] == ["bfloat16", "bfloat16", "float32", "float32"]
    assert (found[-1][1].shape, found[-1][2]) == ((3, 2), (highest, highest))
    grads = jax.grad(kl, argnums=(0, 1))(params, centroids)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(grads)} == {"float32"}


# Settings.


def test_the_papers_network_is_the_default():
    network = StackedDenoisingAutoencoder()
    shapes = network_shapes(network, 784)
    kernels = [shapes.encoder[f"encoder_{i}"]["kernel"].shape for i in range(4)]
    assert kernels == [(784, 500), (500, 500), (500, 2000), (2000, 10)]
    assert shapes.latent_dim == 10
    assert isinstance(network, Autoencoder)


def test_equal_settings_are_equal_networks(unchecked):
    lists = StackedDenoisingAutoencoder([np.int64(3)], 10)
    assert lists == StackedDenoisingAutoencoder((3,), 10)
    assert hash(lists) == hash(StackedDenoisingAutoencoder((3,), 10))
    assert type(lists.hidden_dims[0]) is int
    for other in ({"hidden_dims": (4,)}, {"latent_dim": 9}, {"precision": "bfloat16"}):
        assert lists != StackedDenoisingAutoencoder(**({"hidden_dims": (3,)} | other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_dims": (5, -1)}, "hidden_dims: expected an integer >= 1, got -1"),
        ({"hidden_dims": (True,)}, "hidden_dims: expected an integer >= 1, got True"),
        ({"hidden_dims": "500"}, "hidden_dims: expected a list of integers, got '500'"),
        ({"hidden_dims": 500}, "hidden_dims: expected a list of integers, got 500"),
        ({"latent_dim": 2.0}, "latent_dim: expected an integer >= 1, got 2.0"),
        (
            {"initializer": "glorot"},
            "initializer: expected one of fan_in_uniform, normal; got 'glorot'",
        ),
        *(
            (
                {"precision": name},
                f"precision: expected one of float32, tensorfloat32, bfloat16; got {name!r}",
            )
            for name in ("half", "", "highest", "float64")
        ),
    ],
)
def test_bad_settings_are_refused(unchecked, change, message):
    with pytest.raises(ValueError, match=message):
        StackedDenoisingAutoencoder(**change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((KEY, 0), "n_features: expected an integer >= 1, got 0"),
        ((0, 6), "key: expected a typed random key as of jax.random.key.0., got int 0"),
        ((jax.random.split(KEY), 6), "key: expected .*, got .2,. of them"),
    ],
)
def test_bad_arguments_of_init_are_refused(unchecked, arguments, message):
    with pytest.raises(ValueError, match=message):
        NETWORK.init(*arguments)
