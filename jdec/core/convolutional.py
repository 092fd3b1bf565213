"""The convolutional autoencoder of images: a Flax module behind the Autoencoder protocol."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdec._checks import as_tuple, check_choice, check_integer, check_key
from jdec._typing import Params
from jdec.core.networks import INITIALIZERS, PRECISIONS, layer_options, promote_bfloat16


@dataclass(frozen=True)
class ConvolutionalAutoencoder:
    r"""Convolutional encoder of images and its mirror image as decoder.

    Each convolution halves height and width (stride 2) and is followed by ReLU; a dense layer makes
    the embedding. The decoder is a dense layer and transposed convolutions. Rows are flattened
    images, so that all of the library takes them.

    Attributes:
        image_shape: (height, width) or (height, width, channels) of the rows.
        channels: Channels of the convolutions.
        kernel_sizes: Their width and height, one for each.
        latent_dim: Z.
        initializer: As :class:`StackedDenoisingAutoencoder`.
        precision: As :class:`StackedDenoisingAutoencoder`.

    Examples:
        >>> import jax
        >>> network = ConvolutionalAutoencoder((8, 8), channels=(4, 8), kernel_sizes=(3, 3))
        >>> x = jnp.ones((3, 64))
        >>> z = network.encode(network.init(jax.random.key(0), 64), x)
        >>> z.shape
        (3, 10)

    Source: Guo, Liu, Zhu & Yin, "Deep Clustering with Convolutional Autoencoders", ICONIP 2017.
    """

    image_shape: tuple[int, ...]
    channels: tuple[int, ...] = (32, 64, 128)
    kernel_sizes: tuple[int, ...] = (5, 5, 3)
    latent_dim: int = 10
    initializer: str = "fan_in_uniform"
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Validate the fields."""
        for name in ("image_shape", "channels", "kernel_sizes"):
            values = as_tuple(name, getattr(self, name), "integers")
            for value in values:
                check_integer(name, value)
            object.__setattr__(self, name, tuple(map(int, values)))
        if len(self.image_shape) not in (2, 3):
            raise ValueError(
                "image_shape: expected (height, width) or (height, width, channels), "
                f"got {self.image_shape}"
            )
        if not self.channels or len(self.channels) != len(self.kernel_sizes):
            raise ValueError(
                "kernel_sizes: expected one for each of channels, at least one; got "
                f"{self.kernel_sizes} for channels {self.channels}"
            )
        check_integer("latent_dim", self.latent_dim)
        check_choice("initializer", self.initializer, INITIALIZERS)
        check_choice("precision", self.precision, PRECISIONS)

    def init(self, key: Key[Array, ""], n_features: int) -> Params:
        """Draw fresh parameters of encoder and decoder.

        Raises:
            ValueError: If ``key`` is no random key, or D is not the size of an image.
        """
        check_key("key", key)
        if n_features != math.prod(self.image_shape):
            raise ValueError(
                f"image_shape: expected {n_features} entries as x has columns, "
                f"got {self.image_shape}"
            )
        x = jnp.zeros((1, n_features))
        return dict(self._module.init({"params": key}, x)["params"])

    def encode(self, params: Params, x: Float[Array, "B D"]) -> Float[Array, "B Z"]:
        """Embed rows; the parameters of the encoder suffice."""
        return self._module.apply({"params": params}, x, method="encode")

    def decode(self, params: Params, embeddings: Float[Array, "B Z"]) -> Float[Array, "B D"]:
        """Reconstruct rows from their embeddings."""
        return self._module.apply({"params": params}, embeddings, method="decode")

    def encoder_params(self, params: Params) -> Params:
        """Return the part of the parameters that :meth:`encode` uses."""
        return {name: leaf for name, leaf in params.items() if name.startswith("encoder_")}

    @property
    def _module(self) -> "_Convolutions":
        height, width, *depth = self.image_shape
        return _Convolutions(
            (height, width, *(depth or (1,))),
            self.channels,
            self.kernel_sizes,
            self.latent_dim,
            self.initializer,
            self.precision,
        )


class _Convolutions(nn.Module):
    """The layers of a :class:`ConvolutionalAutoencoder`; images have a channel axis."""

    image_shape: Sequence[int]
    channels: Sequence[int]
    kernel_sizes: Sequence[int]
    latent_dim: int
    initializer: str
    precision: str

    def setup(self) -> None:
        shapes = [tuple(self.image_shape)]
        for n_channels in self.channels:
            height, width, _ = shapes[-1]
            shapes.append((-(-height // 2), -(-width // 2), n_channels))
        self.shapes = tuple(shapes)
        n_layers, code = len(self.channels), math.prod(shapes[-1])
        self.encoder = [
            self._convolution(nn.Conv, f"encoder_{i}", i, shapes[i][2], shapes[i + 1][2])
            for i in range(n_layers)
        ]
        self.decoder = [
            self._convolution(nn.ConvTranspose, f"decoder_{i}", i, shapes[i + 1][2], shapes[i][2])
            for i in range(n_layers)
        ]
        options = partial(layer_options, self.initializer, self.precision)
        self.to_embedding = nn.Dense(
            self.latent_dim, name=f"encoder_{n_layers}", **options(code, is_embedding=True)
        )
        self.from_embedding = nn.Dense(
            code, name=f"decoder_{n_layers}", **options(self.latent_dim, is_embedding=False)
        )

    def _convolution(self, kind: Any, name: str, layer: int, n_in: int, n_out: int) -> Any:
        size = self.kernel_sizes[layer]
        options = layer_options(
            self.initializer, self.precision, size * size * n_in, is_embedding=False
        )
        return kind(n_out, (size, size), strides=(2, 2), padding="SAME", name=name, **options)

    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        return self.decode(self.encode(x))

    def encode(self, x: Float[Array, "B D"]) -> Float[Array, "B Z"]:
        x = x.reshape(-1, *self.image_shape)
        for layer in self.encoder:
            x = nn.relu(layer(x))
        return promote_bfloat16(self.to_embedding(x.reshape(x.shape[0], -1)))

    def decode(self, embeddings: Float[Array, "B Z"]) -> Float[Array, "B D"]:
        x = nn.relu(self.from_embedding(embeddings)).reshape(-1, *self.shapes[-1])
        for index in reversed(range(len(self.decoder))):
            # Of an odd size the transposed convolution gives one row and column too many.
            height, width, _ = self.shapes[index]
            x = self.decoder[index](x)[:, :height, :width]
            x = nn.relu(x) if index else x
        return promote_bfloat16(x.reshape(x.shape[0], -1))
