from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdec.core.autoencoder import (
    Autoencoder,
    FlaxAutoencoder,
    FunctionalAutoencoder,
    as_autoencoder,
    count_params,
    encoder_params,
    is_layered,
    network_shapes,
)
from jdec.core.convolutional import ConvolutionalAutoencoder
from jdec.core.networks import StackedDenoisingAutoencoder
from jdec.core.pretraining import finetune, layerwise

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((7, 4)), jnp.float32)


class Module(nn.Module):
    """A user's network: a norm, layers in a list, and a weight that both parts use."""

    width: int = 5

    def setup(self):
        self.norm = nn.LayerNorm()
        self.down = [nn.Dense(self.width), nn.Dense(2)]
        self.up = nn.Dense(4)
        self.scale = self.param("scale", nn.initializers.ones, (4,))

    def encode(self, x):
        x = self.norm(x * self.scale[None, :])
        return self.down[1](nn.relu(self.down[0](x)))

    def decode(self, z):
        return self.up(z) * self.scale[None, :]


class WithBatchNorm(nn.Module):
    def setup(self):
        self.layer, self.up = nn.Dense(2), nn.Dense(4)
        self.norm = nn.BatchNorm(use_running_average=True)

    def encode(self, x):
        return self.norm(self.layer(x))

    def decode(self, z):
        return self.up(z)


@dataclass(frozen=True)
class Plain:
    """An object of the protocol and nothing else."""

    width: int = 2

    def init(self, key, n_features):
        return {"w": jax.random.normal(key, (n_features, self.width)), "b": jnp.zeros(n_features)}

    def encode(self, params, x):
        return x @ params["w"]

    def decode(self, params, z):
        return z @ params["w"].T + params["b"][None, :]


def init_linear(key, n_features):
    return jax.random.normal(key, (n_features, 2))


LINEAR = FunctionalAutoencoder(init_linear, lambda w, x: x @ w, lambda w, z: z @ w.T)


@pytest.mark.parametrize(
    "network",
    [
        *(Plain(), LINEAR, FlaxAutoencoder(Module())),
        *(StackedDenoisingAutoencoder((3,), 2), ConvolutionalAutoencoder((2, 2), (3,), (3,), 2)),
    ],
)
def test_all_are_of_the_protocol(network):
    assert isinstance(network, Autoencoder)
    same = as_autoencoder(network, 4)
    if not isinstance(network, FlaxAutoencoder):
        assert same is network
    assert hash(same) == hash(as_autoencoder(network, 4))
    assert network_shapes(same, 4).latent_dim == 2


# Flax modules.


def test_a_flax_module_becomes_an_autoencoder():
    network = as_autoencoder(Module(), 4)
    params = network.init(KEY, 4)
    assert type(params) is dict
    assert sorted(params) == ["down_0", "down_1", "norm", "scale", "up"]
    # Its numbers are those of Flax.
    module, variables = Module(), {"params": params}
    z = network.encode(params, X)
    np.testing.assert_array_equal(z, module.apply(variables, X, method="encode"))
    np.testing.assert_array_equal(
        network.decode(params, z), module.apply(variables, z, method="decode")
    )
    drawn = module.init(KEY, jnp.zeros((1, 4)), method=lambda m, x: m.decode(m.encode(x)))
    jax.tree.map(np.testing.assert_array_equal, params, drawn["params"])


def test_the_layers_of_its_encoder_are_found():
    network = as_autoencoder(Module(), 4)
    assert network.encoder_layers == ("down_0", "down_1", "norm", "scale")
    params = network.init(KEY, 4)
    encoder = encoder_params(network, params)
    assert sorted(encoder) == ["down_0", "down_1", "norm", "scale"]
    np.testing.assert_array_equal(network.encode(encoder, X), network.encode(params, X))
    # Before that, all layers count.
    assert encoder_params(FlaxAutoencoder(Module()), params) is params
    # Named by hand, they are left as they are.
    by_hand = FlaxAutoencoder(Module(), ("down_0", "down_1", "norm", "scale", "up"))
    assert as_autoencoder(by_hand, 4) is by_hand


def test_equal_modules_are_equal_networks():
    assert as_autoencoder(Module(), 4) == as_autoencoder(Module(), 4)
    assert hash(as_autoencoder(Module(), 4)) == hash(as_autoencoder(Module(), 4))
    assert as_autoencoder(Module(), 4) != as_autoencoder(Module(width=6), 4)
    assert as_autoencoder(as_autoencoder(Module(), 4), 4) == as_autoencoder(Module(), 4)


def test_a_flax_module_is_pretrained_like_any_network():
    network = as_autoencoder(Module(), 4)
    algorithm = finetune(network, optax.sgd(0.1))
    state = algorithm.init(network.init(KEY, 4))
    step = jax.jit(algorithm.step)
    losses = []
    for _ in range(20):
        state, info = step(KEY, state, X)
        losses.append(float(info.loss))
    assert losses[-1] < 0.7 * losses[0]


# Functions.


def test_functions_become_an_autoencoder():
    assert as_autoencoder(LINEAR, 4) is LINEAR
    w = LINEAR.init(KEY, 4)
    np.testing.assert_array_equal(LINEAR.encode(w, X), X @ w)
    assert encoder_params(LINEAR, w) is w
    assert FunctionalAutoencoder(LINEAR.init, LINEAR.encode, LINEAR.decode) == LINEAR
    state, info = finetune(LINEAR, optax.sgd(0.1)).step(
        KEY, finetune(LINEAR, optax.sgd(0.1)).init(w), X
    )
    np.testing.assert_allclose(info.loss, ((X @ w @ w.T - X) ** 2).mean(), rtol=1e-5)
    assert (state.params != w).any()


# Shapes.


def test_shapes_of_a_network():
    network = StackedDenoisingAutoencoder((3,), 2)
    shapes = network_shapes(network, 4)
    params = network.init(KEY, 4)
    expected = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes.params) == expected
    assert sorted(shapes.encoder) == ["encoder_0", "encoder_1"]
    assert shapes.latent_dim == 2
    assert count_params(params) == count_params(shapes.params) == 4 * 3 + 3 + 3 * 2 + 2 + 9 + 16
    assert count_params({"scalar": jnp.zeros(())}) == 1


def test_shapes_compute_nothing():
    """Of a network whose weights would not fit any memory."""
    shapes = network_shapes(StackedDenoisingAutoencoder((10**6, 10**6), 3), 10**6)
    assert count_params(shapes.params) > 4 * 10**12


# Greedy layers.


def test_only_networks_with_greedy_layers_are_layered():
    assert is_layered(StackedDenoisingAutoencoder())
    others = (Plain(), LINEAR, as_autoencoder(Module(), 4), ConvolutionalAutoencoder((4, 4)))
    for network in others:
        assert not is_layered(network)
    with pytest.raises(ValueError, match=r"network: expected n_layers, layer_params, .* got Plain"):
        layerwise(Plain(), 0, optax.sgd(0.1))


# Bad networks: one clear error each.


class Unhashable(Plain):
    """As a dataclass is that is not frozen."""

    __hash__ = None


class NoDecoder:
    def init(self, key, n_features):
        return {}

    def encode(self, params, x):
        return x


class NoEncode(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x)


class CompactMethods(nn.Module):
    """Flax gives the first layer of each the same name."""

    @nn.compact
    def encode(self, x):
        return nn.Dense(2)(x)

    @nn.compact
    def decode(self, z):
        return nn.Dense(4)(z)


@dataclass(frozen=True)
class WrongPart(Plain):
    def encoder_params(self, params):
        return {"b": params["b"]}


def changed(**functions):
    """Return the linear network with other functions."""
    return FunctionalAutoencoder(
        **({"init": LINEAR.init, "encode": LINEAR.encode, "decode": LINEAR.decode} | functions)
    )


def raises(*_):
    raise RuntimeError("two\n  lines")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (None, "expected an object with init, encode and decode, or a Flax module .* got None"),
        ("mlp", "expected an object with init, encode and decode, .* got 'mlp'"),
        ((LINEAR.init, LINEAR.encode, LINEAR.decode), "expected an object .* got .<function"),
        (NoDecoder(), "expected an object with init, encode and decode, .* got <.*NoDecoder"),
        (NoEncode(), "expected an object with init, encode and decode, .* got NoEncode"),
        (Plain, "expected an object .* got <class .*Plain'>; make an object of the class first"),
        (Module, "expected an object .* got <class .*Module'>; make an object of the class first"),
        (
            Unhashable(),
            "expected a hashable object, as a frozen dataclass .*; unhashable type: 'Unhashable'",
        ),
        (
            changed(encode=lambda w, x: (x @ w)[:, :, None]),
            r"expected encode to return embeddings \[B Z\] .* got shape \(3, 2, 1\) for \(3, 4\)",
        ),
        (changed(encode=lambda w, x: (x @ w)[0]), r"expected encode .* got shape \(2,\)"),
        (changed(encode=lambda w, x: (x @ w)[:-1]), r"expected encode .* got shape \(2, 2\)"),
        (changed(encode=lambda w, x: (x @ w)[:, :0]), r"expected encode .* got shape \(3, 0\)"),
        (changed(encode=lambda w, x: (x @ w, x)), "expected encode .* got shape None"),
        (
            changed(encode=lambda w, x: (x @ w).astype(jnp.int32)),
            "expected floating-point embeddings, got dtype int32",
        ),
        (
            changed(decode=lambda w, z: z),
            r"expected decode to return rows of shape \(3, 4\), got \(3, 2\)",
        ),
        (changed(decode=lambda w, z: None), r"expected decode .* got None"),
        (changed(decode=lambda w, z: (z @ w.T)[None]), r"expected decode .* got \(1, 3, 4\)"),
        *(
            (changed(**{name: raises}), f"{name} fails for rows of 4 columns: RuntimeError: two li")
            for name in ("init", "encode", "decode")
        ),
        (changed(encode=lambda w: w), "encode fails for rows of 4 columns: TypeError: .* takes 1"),
        (
            changed(init=lambda key, n_features: jnp.zeros((5, 2))),
            "encode fails for rows of 4 columns: TypeError: dot_general",
        ),
        (
            ConvolutionalAutoencoder((5, 5), (3,), (3,)),
            r"init fails for rows of 4 columns: ValueError: image_shape: expected 4 entries",
        ),
        (
            WithBatchNorm(),
            "init fails .* expected a module with parameters alone, got batch_stats as well",
        ),
        (CompactMethods(), "init fails for rows of 4 columns: ScopeParamShapeError: "),
        (WrongPart(), "encode fails for rows of 4 columns: KeyError: 'w'"),
    ],
)
def test_a_bad_network_is_refused(unchecked, network, message):
    with pytest.raises(ValueError, match=f"network: {message}") as caught:
        as_autoencoder(network, 4)
    assert "\n" not in str(caught.value)
