"""The stacked denoising autoencoder: a Flax module behind the :class:`Autoencoder` protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdec._checks import as_integers, check_choice, check_integer, check_key
from jdec._typing import Params
from jdec.core.augmentation import CODE_STREAM, INPUT_STREAM, corrupt
from jdec.core.autoencoder import FlaxAutoencoder

#: Names of the weight initialisers.
INITIALIZERS = ("fan_in_uniform", "normal")
#: Arithmetic of the products.
PRECISIONS = ("float32", "tensorfloat32", "bfloat16")


@dataclass(frozen=True)
class StackedDenoisingAutoencoder:
    r"""Fully connected encoder D–h₁–…–Z and its mirror image as decoder.

    ReLU follows every layer but the embedding and the reconstruction, which may be negative. Layers
    are named ``encoder_0`` …, ``decoder_0`` …; ``decoder_i`` undoes ``encoder_i``.

    Attributes:
        hidden_dims: Widths between the data and the embedding; may be empty.
        latent_dim: Z.
        initializer: ``fan_in_uniform``: U(±1/√fan_in); ``normal``: weights N(0, 0.01²), biases 0.
        precision: Of products: ``float32``, on accelerators too; ``tensorfloat32``: factors rounded
            to 10 bits where the device can do it; ``bfloat16``: activations too, except for the
            embedding layer. Parameters and what the methods return are float32 in any case.

    Examples:
        >>> network = StackedDenoisingAutoencoder(hidden_dims=(8,), latent_dim=2)
        >>> params = network.init(jax.random.key(0), 4)
        >>> sorted(params)
        ['decoder_0', 'decoder_1', 'encoder_0', 'encoder_1']
        >>> network.encode(params, jnp.ones((3, 4))).shape
        (3, 2)

    Source: Xie et al. 2016, section 3.2; Vincent et al. 2010.
    """

    hidden_dims: tuple[int, ...] = (500, 500, 2000)
    latent_dim: int = 10
    initializer: str = "fan_in_uniform"
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Validate the fields."""
        object.__setattr__(self, "hidden_dims", as_integers("hidden_dims", self.hidden_dims))
        check_layers(self)

    @property
    def n_layers(self) -> int:
        """Number of layers of the encoder, each of which the greedy stage trains."""
        return len(self.hidden_dims) + 1

    def init(self, key: Key[Array, ""], n_features: int) -> Params:
        """Draw ``{"encoder_0": {"kernel": [D h₁], "bias": [h₁]}, …, "decoder_0": …}``, float32."""
        check_key("key", key)
        check_integer("n_features", n_features)
        return FlaxAutoencoder(self._module(n_features)).init(key, n_features)

    def encode(self, params: Params, x: Float[Array, "B D"]) -> Float[Array, "B Z"]:
        """Embed rows; the parameters of the encoder suffice."""
        return self.encode_layers(params, x, self.n_layers)

    def decode(self, params: Params, embeddings: Float[Array, "B Z"]) -> Float[Array, "B D"]:
        """Reconstruct rows from their embeddings."""
        module = self._module(params["decoder_0"]["kernel"].shape[1])
        return module.apply({"params": params}, embeddings, method="decode")

    def encoder_params(self, params: Params) -> Params:
        """Return the part of the parameters that :meth:`encode` uses."""
        return {name: leaf for name, leaf in params.items() if name.startswith("encoder_")}

    def layer_params(self, params: Params, layer: int) -> Params:
        """Return the parameters of one layer and of the decoder layer that undoes it."""
        return {name: params[name] for name in (f"encoder_{layer}", f"decoder_{layer}")}

    def encode_layers(
        self, params: Params, x: Float[Array, "B D"], n_layers: int
    ) -> Float[Array, "B H"]:
        """Apply the first ``n_layers`` layers of the encoder."""
        return self._module(x.shape[1]).apply({"params": params}, x, n_layers, method="encode")

    def reconstruct_layer(
        self,
        key: Key[Array, ""],
        params: Params,
        h: Float[Array, "B H"],
        layer: int,
        *,
        input_corruption: float,
        code_corruption: float,
    ) -> Float[Array, "B H"]:
        """Reconstruct one layer's input through it alone, noise before and after it (Eqs. 6-9)."""
        module = self._module(params["decoder_0"]["kernel"].shape[1])
        h = corrupt(jax.random.fold_in(key, INPUT_STREAM), h, input_corruption)
        code = module.apply({"params": params}, h, layer, method="encode_layer")
        code = corrupt(jax.random.fold_in(key, CODE_STREAM), code, code_corruption)
        h = module.apply({"params": params}, code, layer, method="decode_layer")
        return promote_bfloat16(h)

    def _module(self, n_features: int) -> "_Dense":
        dims = (n_features, *self.hidden_dims, self.latent_dim)
        return _Dense(dims, self.initializer, self.precision)


class _Dense(nn.Module):
    """The layers of a :class:`StackedDenoisingAutoencoder` for rows of D columns."""

    dims: Sequence[int]
    initializer: str
    precision: str

    def setup(self) -> None:
        layers = [*enumerate(pairwise(self.dims))]
        self.encoder = [self._dense(f"encoder_{i}", n_in, n_out) for i, (n_in, n_out) in layers]
        self.decoder = [self._dense(f"decoder_{i}", n_out, n_in) for i, (n_in, n_out) in layers]

    def _dense(self, name: str, fan_in: int, fan_out: int) -> nn.Dense:
        # The embedding layer is under a hundredth of the work, and distances need its digits.
        is_embedding = name == f"encoder_{len(self.dims) - 2}"
        options = layer_options(self.initializer, self.precision, fan_in, is_embedding=is_embedding)
        return nn.Dense(fan_out, name=name, **options)

    def encode(self, x: Float[Array, "B D"], n_layers: int | None = None) -> Float[Array, "B Z"]:
        for layer in range(len(self.encoder) if n_layers is None else n_layers):
            x = self.encode_layer(x, layer)
        return promote_bfloat16(x)

    def decode(self, embeddings: Float[Array, "B Z"]) -> Float[Array, "B D"]:
        for layer in reversed(range(len(self.decoder))):
            embeddings = self.decode_layer(embeddings, layer)
        return promote_bfloat16(embeddings)

    def encode_layer(self, x: Float[Array, "B H"], layer: int) -> Float[Array, "B G"]:
        x = self.encoder[layer](x)
        return x if layer == len(self.encoder) - 1 else nn.relu(x)

    def decode_layer(self, x: Float[Array, "B H"], layer: int) -> Float[Array, "B G"]:
        x = self.decoder[layer](x)
        return x if layer == 0 else nn.relu(x)


def check_layers(network: Any) -> None:
    """Raise unless the settings that all networks have are valid."""
    check_integer("latent_dim", network.latent_dim)
    check_choice("initializer", network.initializer, INITIALIZERS)
    check_choice("precision", network.precision, PRECISIONS)


def layer_options(
    initializer: str, precision: str, fan_in: int, *, is_embedding: bool = False
) -> dict[str, Any]:
    """Return what dense layers and convolutions are made with."""
    if initializer == "normal":
        kernel_init, bias_init = nn.initializers.normal(0.01), nn.initializers.zeros
    else:
        kernel_init = bias_init = partial(_uniform, bound=fan_in**-0.5)
    dtype = None
    if precision == "bfloat16":
        dtype = jnp.float32 if is_embedding else jnp.bfloat16
    level = jax.lax.Precision.HIGHEST if precision == "float32" else jax.lax.Precision.HIGH
    return {"dtype": dtype, "precision": level, "kernel_init": kernel_init, "bias_init": bias_init}


def promote_bfloat16(x: Float[Array, "B H"]) -> Float[Array, "B H"]:
    """Return bfloat16 as float32."""
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


def _uniform(
    key: Key[Array, ""], shape: Sequence[int], dtype: Any = jnp.float32, *, bound: float
) -> Float[Array, "..."]:
    return jax.random.uniform(key, shape, dtype, -bound, bound)
