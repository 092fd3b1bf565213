"""The stacked denoising autoencoder as a Flax module; its parameters are a plain dictionary."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdec._checks import (
    as_tuple,
    check_choice,
    check_fraction,
    check_integer,
    check_key,
    shown,
)
from jdec._typing import EncodeFn, Params

#: Names of the weight initialisers.
INITIALIZERS = ("fan_in_uniform", "normal")
#: Arithmetic of the products.
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")


class StackedDenoisingAutoencoder(nn.Module):
    r"""Fully connected encoder D–h₁–…–Z and its mirror image as decoder.

    ReLU follows every layer but the embedding and the reconstruction, so that the embedding keeps
    all its information and the data may be negative. Layers are named ``encoder_0`` …,
    ``decoder_0`` …; ``decoder_i`` undoes ``encoder_i``.

    Attributes:
        dims: Widths (D, h₁, …, Z) of the encoder.
        corruption_rate: Share of the inputs set to zero when ``deterministic`` is false; the
            others are scaled by 1/(1-rate).
        initializer: ``fan_in_uniform``: weights and biases U(±1/√fan_in); ``normal``: weights
            N(0, 0.01²), biases 0 (the authors').
        precision: ``float32``, on accelerators too, where JAX by itself would round the factors of
            its products; ``tensorfloat32``: factors rounded to 10 bits where the device can do it;
            ``bfloat16``: activations and products in bfloat16, but for the embedding layer.
            Parameters and what the methods return are float32 in any case.

    Examples:
        >>> network = StackedDenoisingAutoencoder(dims=(4, 8, 2), corruption_rate=0.2)
        >>> params = init_params(jax.random.key(0), network)
        >>> sorted(params)
        ['decoder_0', 'decoder_1', 'encoder_0', 'encoder_1']
        >>> network.apply({"params": params}, jnp.ones((3, 4)), method="encode").shape
        (3, 2)

    Source: Xie et al. 2016, section 3.2; Vincent et al. 2010.
    """

    dims: Sequence[int]
    corruption_rate: float = 0.0
    initializer: str = "fan_in_uniform"
    precision: str = "float32"

    def setup(self) -> None:
        """Make the layers."""
        n_layers = len(self.dims) - 1
        self.encoder = [
            self._dense(f"encoder_{i}", self.dims[i], self.dims[i + 1]) for i in range(n_layers)
        ]
        self.decoder = [
            self._dense(f"decoder_{i}", self.dims[i + 1], self.dims[i]) for i in range(n_layers)
        ]

    def _dense(self, name: str, fan_in: int, fan_out: int) -> nn.Dense:
        if self.initializer == "normal":
            kernel_init, bias_init = nn.initializers.normal(0.01), nn.initializers.zeros
        else:
            kernel_init = bias_init = partial(_uniform, bound=fan_in**-0.5)
        # The embedding layer is under a hundredth of the work, and distances need its digits.
        is_embedding = name == f"encoder_{len(self.dims) - 2}"
        dtype = None
        if self.precision == "bfloat16":
            dtype = jnp.float32 if is_embedding else jnp.bfloat16
        full = self.precision == "float32"
        return nn.Dense(
            fan_out,
            dtype=dtype,
            precision=jax.lax.Precision.HIGHEST if full else jax.lax.Precision.HIGH,
            kernel_init=kernel_init,
            bias_init=bias_init,
            name=name,
        )

    def encode(self, x: Float[Array, "B D"], n_layers: int | None = None) -> Float[Array, "B Z"]:
        """Embed clean rows, or stop after the first ``n_layers`` layers."""
        n_layers = len(self.encoder) if n_layers is None else n_layers
        for layer in range(n_layers):
            x = self._encode_layer(x, layer)
        return _at_least_float32(x)

    def decode(self, embeddings: Float[Array, "B Z"]) -> Float[Array, "B D"]:
        """Reconstruct rows from their embeddings."""
        for layer in reversed(range(len(self.decoder))):
            embeddings = self._decode_layer(embeddings, layer)
        return _at_least_float32(embeddings)

    def __call__(
        self, x: Float[Array, "B D"], *, deterministic: bool = True
    ) -> Float[Array, "B D"]:
        """Reconstruct rows, from a corrupted copy of them unless ``deterministic``."""
        if not deterministic:
            x = corrupt(self.make_rng("corruption"), x, self.corruption_rate)
        return self.decode(self.encode(x))

    def reconstruct_layer(
        self,
        h: Float[Array, "B H"],
        layer: int,
        *,
        input_corruption: float,
        code_dropout: float,
    ) -> Float[Array, "B H"]:
        """Reconstruct one layer's input through that layer alone, with noise before and after it.

        The two-layer denoising autoencoder of the greedy stage.

        Source: Xie et al. 2016, Eqs. 6-9.
        """
        h = corrupt(self.make_rng("corruption"), h, input_corruption)
        code = self._encode_layer(h, layer)
        code = corrupt(self.make_rng("corruption"), code, code_dropout)
        return _at_least_float32(self._decode_layer(code, layer))

    def _encode_layer(self, x: Float[Array, "B H"], layer: int) -> Float[Array, "B G"]:
        x = self.encoder[layer](x)
        return x if layer == len(self.encoder) - 1 else nn.relu(x)

    def _decode_layer(self, x: Float[Array, "B H"], layer: int) -> Float[Array, "B G"]:
        x = self.decoder[layer](x)
        return x if layer == 0 else nn.relu(x)


def _at_least_float32(x: Float[Array, "B H"]) -> Float[Array, "B H"]:
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


def _uniform(
    key: Key[Array, ""], shape: Sequence[int], dtype: Any = jnp.float32, *, bound: float
) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def corrupt(key: Key[Array, ""], x: Float[Array, "B D"], rate: float) -> Float[Array, "B D"]:
    r"""Masking noise: each entry is zero with probability ``rate``, else scaled by 1/(1-rate).

    Args:
        key: Typed random key.
        x: Rows, [B D].
        rate: Probability in [0, 1); at 0 the rows are returned as they are.

    Returns:
        Noisy rows [B D] of the same expectation.

    Examples:
        >>> corrupt(jax.random.key(0), jnp.ones((1, 2)), 0.0).tolist()
        [[1.0, 1.0]]
    """
    if rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def make_autoencoder(
    n_features: int,
    hidden_dims: Sequence[int] = (500, 500, 2000),
    latent_dim: int = 10,
    *,
    corruption_rate: float = 0.0,
    initializer: str = "fan_in_uniform",
    precision: str = "float32",
) -> StackedDenoisingAutoencoder:
    """Build the autoencoder D–hidden–Z; by default the paper's D–500–500–2000–10.

    Args:
        n_features: D.
        hidden_dims: Widths between the data and the embedding; may be empty.
        latent_dim: Z.
        corruption_rate: Share of the inputs masked when it is applied with noise.
        initializer: One of :data:`INITIALIZERS`.
        precision: One of :data:`PRECISIONS`.

    Returns:
        The module; it holds no parameters.

    Raises:
        ValueError: If a width is below 1, or the initialiser or precision is unknown.

    Examples:
        >>> make_autoencoder(784).dims
        (784, 500, 500, 2000, 10)
    """
    check_integer("n_features", n_features)
    hidden_dims = as_tuple("hidden_dims", hidden_dims, "integers")
    for width in hidden_dims:
        check_integer("hidden_dims", width)
    check_integer("latent_dim", latent_dim)
    check_fraction("corruption_rate", corruption_rate)
    check_choice("initializer", initializer, INITIALIZERS)
    check_choice("precision", precision, PRECISIONS)
    dims = (n_features, *hidden_dims, latent_dim)
    return StackedDenoisingAutoencoder(dims, corruption_rate, initializer, precision)


def init_params(key: Key[Array, ""], network: StackedDenoisingAutoencoder) -> Params:
    """Draw fresh parameters of encoder and decoder.

    Args:
        key: Typed random key.
        network: The autoencoder.

    Returns:
        ``{"encoder_0": {"kernel": [D h₁], "bias": [h₁]}, …, "decoder_0": …}``, float32.

    Raises:
        ValueError: If ``key`` or ``network`` is none.
    """
    check_key("key", key)
    _check_network(network)
    x = jnp.zeros((1, network.dims[0]))
    return dict(network.init({"params": key}, x)["params"])


def encoder_params(params: Params) -> Params:
    """Return the encoder's share of the autoencoder's parameters: all the clustering phase trains.

    Examples:
        >>> encoder_params({"encoder_0": 1, "decoder_0": 2})
        {'encoder_0': 1}
    """
    if not isinstance(params, Mapping):
        raise ValueError(f"params: expected layers by name, got {shown(params)}")
    return {name: leaf for name, leaf in params.items() if name.startswith("encoder_")}


def layer_params(params: Params, layer: int) -> Params:
    """Return the parameters of one layer and of the decoder layer that undoes it."""
    names = (f"encoder_{layer}", f"decoder_{layer}")
    return {name: params[name] for name in names}


def make_encode(network: StackedDenoisingAutoencoder) -> EncodeFn:
    """Return ``encode(params, x) -> embeddings`` for the clustering phase, which knows no Flax.

    Args:
        network: The autoencoder.

    Returns:
        A pure function of the encoder's parameters (the whole autoencoder's will do too) and rows
        [B D], which gives embeddings [B Z].

    Raises:
        ValueError: If ``network`` is none.
    """
    _check_network(network)

    def encode(params: Params, x: Float[Array, "B D"]) -> Float[Array, "B Z"]:
        return network.apply({"params": params}, x, method="encode")

    return encode


def _check_network(network: Any) -> None:
    if not isinstance(network, StackedDenoisingAutoencoder):
        raise ValueError(f"network: expected one of make_autoencoder, got {shown(network)}")


def encoder_dims(params: Mapping[str, Mapping[str, Any]]) -> tuple[int, ...]:
    """Read the widths (D, …, Z) off the parameters of an encoder.

    Examples:
        >>> network = make_autoencoder(4, (8,), 2)
        >>> encoder_dims(init_params(jax.random.key(0), network))
        (4, 8, 2)
    """
    n_layers = len(encoder_params(params))
    kernels = [params[f"encoder_{layer}"]["kernel"] for layer in range(n_layers)]
    return (kernels[0].shape[0], *(kernel.shape[1] for kernel in kernels))
