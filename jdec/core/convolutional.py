"""The convolutional autoencoder of images: a Flax module behind the Autoencoder protocol."""

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float, Key

from jdec._checks import as_integers, check_key
from jdec._typing import Params
from jdec.core.augmentation import check_image_shape
from jdec.core.autoencoder import FlaxAutoencoder
from jdec.core.networks import check_layers, layer_options, promote_bfloat16


@dataclass(frozen=True)
class ConvolutionalAutoencoder:
    r"""Convolutional encoder of images and its mirror image as decoder.

    Each convolution halves height and width and is followed by ReLU; a dense layer makes the
    embedding. The decoder is a dense layer and transposed convolutions. Rows are flattened images.

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
        >>> params = network.init(jax.random.key(0), 64)
        >>> network.encode(params, jax.numpy.ones((3, 64))).shape
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
            object.__setattr__(self, name, as_integers(name, getattr(self, name)))
        check_image_shape(self.image_shape)
        if not self.channels or len(self.channels) != len(self.kernel_sizes):
            raise ValueError(
                "kernel_sizes: expected one for each of channels, at least one; got "
                f"{self.kernel_sizes} for channels {self.channels}"
            )
        check_layers(self)

    def init(self, key: Key[Array, ""], n_features: int) -> Params:
        """Draw fresh parameters of encoder and decoder; D must be the size of an image."""
        check_key("key", key)
        check_image_shape(self.image_shape, n_features)
        return self._network.init(key, n_features)

    def encode(self, params: Params, x: Float[Array, "B D"]) -> Float[Array, "B Z"]:
        """Embed rows; the parameters of the encoder suffice."""
        return self._network.encode(params, x)

    def decode(self, params: Params, embeddings: Float[Array, "B Z"]) -> Float[Array, "B D"]:
        """Reconstruct rows from their embeddings."""
        return self._network.decode(params, embeddings)

    def encoder_params(self, params: Params) -> Params:
        """Return the part of the parameters that :meth:`encode` uses."""
        return {name: leaf for name, leaf in params.items() if name.startswith("encoder_")}

    @property
    def _network(self) -> FlaxAutoencoder:
        return FlaxAutoencoder(_Convolutions(self))


class _Convolutions(nn.Module):
    """The layers of a :class:`ConvolutionalAutoencoder`; images have a channel axis."""

    network: ConvolutionalAutoencoder

    def setup(self) -> None:
        network = self.network
        height, width, *depth = network.image_shape
        shapes = [(height, width, *(depth or (1,)))]
        for n_channels in network.channels:
            height, width, _ = shapes[-1]
            shapes.append((-(-height // 2), -(-width // 2), n_channels))
        self.shapes = tuple(shapes)
        n_layers, code = len(network.channels), math.prod(shapes[-1])
        layers = [*enumerate(pairwise(shape[2] for shape in shapes))]
        self.encoder = [self._convolution(nn.Conv, "encoder", i, a, b) for i, (a, b) in layers]
        self.decoder = [
            self._convolution(nn.ConvTranspose, "decoder", i, b, a) for i, (a, b) in layers
        ]
        options = partial(layer_options, network.initializer, network.precision)
        self.to_embedding = nn.Dense(
            network.latent_dim, name=f"encoder_{n_layers}", **options(code, is_embedding=True)
        )
        self.from_embedding = nn.Dense(
            code, name=f"decoder_{n_layers}", **options(network.latent_dim)
        )

    def _convolution(self, kind: Any, part: str, layer: int, n_in: int, n_out: int) -> Any:
        network, size, name = self.network, self.network.kernel_sizes[layer], f"{part}_{layer}"
        options = layer_options(network.initializer, network.precision, size * size * n_in)
        return kind(n_out, (size, size), strides=(2, 2), padding="SAME", name=name, **options)

    def encode(self, x: Float[Array, "B D"]) -> Float[Array, "B Z"]:
        x = x.reshape(-1, *self.shapes[0])
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
