import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from tracing import equations

from jdec.core.autoencoder import (
    INITIALIZERS,
    corrupt,
    encoder_dims,
    encoder_params,
    init_params,
    layer_params,
    make_autoencoder,
    make_encode,
)
from jdec.core.functional import clustering_loss, log_soft_assignment, target_distribution
from jdec.core.pretraining import finetune, layerwise
from jdec.core.training import make_optimizer

KEY = jax.random.key(0)
NETWORK = make_autoencoder(6, (5, 4), 3)


def random_rows(n_rows, width, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((n_rows, width)), jnp.float32)


def apply(network, params, *arguments, **options):
    return network.apply({"params": params}, *arguments, **options)


@pytest.mark.parametrize("hidden_dims", [(), (5,), (5, 4)])
@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_the_oracles_forward_pass(hidden_dims, initializer):
    network = make_autoencoder(6, hidden_dims, 3, initializer=initializer)
    params = init_params(KEY, network)
    x = random_rows(7, 6)
    z = apply(network, params, x, method="encode")
    assert z.shape == (7, 3)
    np.testing.assert_allclose(z, reference.encode(params, x), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(make_encode(network)(params, x), z)
    np.testing.assert_array_equal(make_encode(network)(encoder_params(params), x), z)
    reconstruction = apply(network, params, x)
    np.testing.assert_allclose(
        reconstruction, reference.decode(params, reference.encode(params, x)), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(apply(network, params, z, method="decode"), reconstruction)
    for layer in range(len(hidden_dims) + 1):
        layers = reference.encoder_layers(params)[:layer]
        np.testing.assert_allclose(
            apply(network, params, x, layer, method="encode"),
            reference.forward(layers, x)[-1],
            rtol=1e-5,
            atol=1e-6,
        )


def test_all_but_embedding_and_reconstruction_are_rectified():
    params = init_params(KEY, NETWORK)
    x = random_rows(40, 6)
    for layer in (1, 2):
        h = apply(NETWORK, params, x, layer, method="encode")
        assert (h.min(), (h > 0).any()) == (0, True)
    assert apply(NETWORK, params, x, method="encode").min() < 0
    assert apply(NETWORK, params, x).min() < 0


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_one_layer_and_its_inverse(layer):
    params = init_params(KEY, NETWORK)
    h = random_rows(7, NETWORK.dims[layer])
    y = apply(
        NETWORK,
        params,
        h,
        layer,
        input_corruption=0.0,
        code_dropout=0.0,
        rngs={"corruption": KEY},
        method="reconstruct_layer",
    )
    pair = [reference.encoder_layers(params)[layer], reference.decoder_layers(params)[::-1][layer]]
    np.testing.assert_allclose(y, reference.forward(pair, h)[-1], rtol=1e-5, atol=1e-6)


# Parameters.


@pytest.mark.parametrize("initializer", INITIALIZERS)
def test_parameters_are_plain_dictionaries_of_float32(initializer):
    params = init_params(KEY, make_autoencoder(6, (5,), 3, initializer=initializer))
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
    params = init_params(KEY, NETWORK)
    assert sorted(params) == [f"{part}coder_{i}" for part in ("de", "en") for i in range(3)]
    encoder = encoder_params(params)
    assert sorted(encoder) == ["encoder_0", "encoder_1", "encoder_2"]
    assert encoder["encoder_1"]["kernel"] is params["encoder_1"]["kernel"]
    assert sorted(layer_params(params, 1)) == ["decoder_1", "encoder_1"]
    assert encoder_dims(params) == encoder_dims(encoder) == (6, 5, 4, 3) == NETWORK.dims


def test_many_layers_keep_their_order():
    widths = tuple(range(13, 0, -1))  # by name, encoder_10 would come before encoder_2
    kernels = {f"encoder_{i}": {"kernel": np.zeros(widths[i : i + 2])} for i in range(12)}
    assert encoder_dims(dict(sorted(kernels.items()))) == widths


def test_fan_in_uniform():
    params = init_params(KEY, make_autoencoder(400, (100,), 50))
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
    params = init_params(KEY, make_autoencoder(400, (100,), 50, initializer="normal"))
    for layer in params.values():
        kernel = np.asarray(layer["kernel"])
        np.testing.assert_allclose(kernel.mean(), 0, atol=5 * 0.01 / kernel.size**0.5)
        np.testing.assert_allclose(kernel.std(), 0.01, rtol=0.05)
        assert 0.025 < np.abs(kernel).max() < 0.06  # tails, so neither uniform nor cut off
        np.testing.assert_array_equal(layer["bias"], 0)


def test_the_key_determines_the_parameters():
    first, again, other = (init_params(jax.random.key(seed), NETWORK) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first["encoder_0"]["kernel"] != other["encoder_0"]["kernel"]).all()
    assert (first["encoder_0"]["kernel"] != first["decoder_0"]["kernel"].T).all()


# Noise.


@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_corruption_masks_its_share_and_keeps_the_expectation(rate):
    x = 1 + jnp.abs(random_rows(200, 100))
    noisy = np.asarray(corrupt(KEY, x, rate))
    kept = noisy != 0
    sigma = (rate * (1 - rate) / x.size) ** 0.5
    np.testing.assert_allclose(kept.mean(), 1 - rate, atol=5 * sigma)
    np.testing.assert_allclose(noisy[kept], np.asarray(x)[kept] / (1 - rate), rtol=1e-6)
    np.testing.assert_allclose(noisy.mean(), x.mean(), rtol=0.05)
    # Entry by entry, not whole rows or columns.
    assert 0 < kept.mean(axis=0).min() < kept.mean(axis=0).max() < 1
    assert 0 < kept.mean(axis=1).min() < kept.mean(axis=1).max() < 1


def test_corruption_at_rate_zero_is_nothing():
    x = random_rows(3, 4)
    assert corrupt(KEY, x, 0.0) is x


def test_the_key_determines_the_corruption():
    x = jnp.ones((20, 20))
    first, again, other = (corrupt(jax.random.key(seed), x, 0.5) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_noise_is_on_only_when_asked_for():
    network = make_autoencoder(6, (5,), 3, corruption_rate=0.5)
    params = init_params(KEY, network)
    x = random_rows(7, 6)
    clean = apply(network, params, x)
    np.testing.assert_allclose(
        clean, reference.decode(params, reference.encode(params, x)), rtol=1e-4, atol=1e-6
    )
    noisy = [
        apply(network, params, x, deterministic=False, rngs={"corruption": jax.random.key(i)})
        for i in (0, 0, 1)
    ]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert (noisy[0] != noisy[2]).any()
    assert (noisy[0] != clean).any()
    # encode is for clean rows and needs no key.
    apply(network, params, x, method="encode")


def test_the_reconstruction_from_noise_is_that_of_the_masked_rows():
    # With a single column there are but two masked copies of a row.
    network = make_autoencoder(1, (4,), 2, corruption_rate=0.5)
    params = init_params(KEY, network)
    x = jnp.full((100, 1), 3.0)
    y = apply(network, params, x, deterministic=False, rngs={"corruption": KEY})
    expected = reference.decode(params, reference.encode(params, [[0.0], [6.0]]))
    nearest = np.abs(np.asarray(y) - expected[:, 0]).argmin(axis=1)
    np.testing.assert_allclose(y[:, 0], expected[nearest, 0], rtol=1e-5)
    assert set(nearest) == {0, 1}


# Precision of the products.


def loss_of(network, x):
    return lambda params: ((apply(network, params, x) - x) ** 2).mean()


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
    network = make_autoencoder(6, (5, 4), 3, precision=precision)
    params = init_params(KEY, network)
    found = products(jax.grad(loss_of(network, random_rows(7, 6))), params)
    # Six layers forward; backward two each, less one for the data.
    assert len(found) == 6 + 11
    wanted = jax.lax.Precision[asked]
    assert {precision for _, _, precision in found} == {(wanted, wanted)}


def test_bfloat16_is_for_products_but_those_of_the_embedding():
    network = make_autoencoder(6, (5, 4), 3, precision="bfloat16")
    params = init_params(KEY, network)
    x = random_rows(7, 6)
    forward = products(lambda params, x: apply(network, params, x), params, x)
    assert [(dtype, kernel.shape, str(kernel.dtype)) for dtype, kernel, _ in forward] == [
        ("bfloat16", (6, 5), "bfloat16"),
        ("bfloat16", (5, 4), "bfloat16"),
        ("float32", (4, 3), "float32"),
        ("bfloat16", (3, 4), "bfloat16"),
        ("bfloat16", (4, 5), "bfloat16"),
        ("bfloat16", (5, 6), "bfloat16"),
    ]
    backward = products(jax.grad(loss_of(network, x)), params)
    dtypes = [dtype for dtype, _, _ in backward]
    assert (dtypes.count("float32"), dtypes.count("bfloat16")) == (3, 14)


def test_bfloat16_leaves_all_that_is_kept_in_float32():
    network = make_autoencoder(6, (5, 4), 3, corruption_rate=0.2, precision="bfloat16")
    params = init_params(KEY, network)
    x = random_rows(7, 6)
    for algorithm, rows in (
        (finetune(network, make_optimizer("adam", 1e-3, n_steps=9)), x),
        (layerwise(network, 1, make_optimizer("adam", 1e-3, n_steps=9)), x),
    ):
        state, info = jax.jit(algorithm.step)(KEY, algorithm.init(params), rows)
        assert info.loss.dtype == jnp.float32
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(state.params)} == {"float32"}
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(state.opt_state)} == {
            *("float32", "int32")
        }
    grads = jax.eval_shape(jax.grad(loss_of(network, x)), params)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((params, grads))} == {"float32"}
    assert apply(network, params, x).dtype == jnp.float32
    for n_layers in (None, 0, 1, 2):
        assert apply(network, params, x, n_layers, method="encode").dtype == jnp.float32


def test_bfloat16_is_close_to_float32():
    x = random_rows(200, 6)
    params = init_params(KEY, NETWORK)
    rounded = make_autoencoder(6, (5, 4), 3, precision="bfloat16")
    z = [apply(network, params, x, method="encode") for network in (NETWORK, rounded)]
    difference = np.abs(z[0] - z[1])
    assert 1e-5 < difference.mean() < 0.01 * np.abs(z[0]).mean()
    # The embedding itself is not rounded.
    assert (z[1] != z[1].astype(jnp.bfloat16).astype(jnp.float32)).mean() > 0.9
    (right, grads), (found, other_grads) = (
        jax.jit(jax.value_and_grad(loss_of(network, x)))(params) for network in (NETWORK, rounded)
    )
    assert found != right
    np.testing.assert_allclose(found, right, rtol=5e-3)
    for layer in params:
        kernel = np.asarray(grads[layer]["kernel"])
        np.testing.assert_allclose(
            other_grads[layer]["kernel"], kernel, rtol=0, atol=0.03 * np.abs(kernel).max()
        )


def test_distances_are_of_float32_whatever_the_network():
    network = make_autoencoder(6, (5, 4), 3, precision="bfloat16")
    encode, x = make_encode(network), random_rows(7, 6)
    centroids = jnp.ones((2, 3))

    def divergence(params, centroids):
        log_q = log_soft_assignment(encode(params, x), centroids)
        return clustering_loss(log_q, target_distribution(jnp.exp(log_q))).mean()

    params = encoder_params(init_params(KEY, network))
    found = products(divergence, params, centroids)
    highest = jax.lax.Precision.HIGHEST
    assert [dtype for dtype, _, _ in found] == ["bfloat16", "bfloat16", "float32", "float32"]
    assert (found[-1][1].shape, found[-1][2]) == ((3, 2), (highest, highest))
    grads = jax.grad(divergence, argnums=(0, 1))(params, centroids)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(grads)} == {"float32"}


# Settings.


def test_the_paper_s_network_is_the_default():
    network = make_autoencoder(784)
    assert network.dims == (784, 500, 500, 2000, 10)
    assert network.corruption_rate == 0
    assert make_autoencoder(784, [], 10).dims == (784, 10)
    assert hash(make_autoencoder(784, [3], 10)) == hash(make_autoencoder(784, (3,), 10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, (5,), 3), "n_features: expected an integer >= 1, got 0"),
        ((6, (5, -1), 3), "dims: expected an integer >= 1, got -1"),
        ((6, (5,), 2.0), "latent_dim: expected an integer >= 1, got 2.0"),
        ((6, (True,), 3), "dims: expected an integer >= 1, got True"),
    ],
)
def test_bad_widths_are_refused(unchecked, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_autoencoder(*arguments)


def test_an_unknown_initializer_is_refused():
    with pytest.raises(
        ValueError, match="initializer: expected one of fan_in_uniform, normal; got 'glorot'"
    ):
        make_autoencoder(6, initializer="glorot")


@pytest.mark.parametrize("precision", ["half", "", "highest", "float64"])
def test_an_unknown_precision_is_refused(precision):
    needed = f"precision: expected one of float32, tensorfloat32, bfloat16; got {precision!r}"
    with pytest.raises(ValueError, match=needed):
        make_autoencoder(6, precision=precision)
