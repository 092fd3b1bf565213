"""Random variants of rows that are images: what moves in a picture without changing its cluster."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdec._checks import check_integer


def random_shift(
    key: Key[Array, ""],
    x: Float[Array, "B D"],
    image_shape: tuple[int, ...],
    max_shift: int,
) -> Float[Array, "B D"]:
    """Move each image by up to ``max_shift`` pixels up or down and left or right; edges repeat.

    Args:
        key: Typed random key.
        x: Images as rows, [B D].
        image_shape: (height, width) or (height, width, channels), with D entries.
        max_shift: Largest displacement in pixels, each way.

    Returns:
        Moved images as rows, [B D].

    Raises:
        ValueError: If the shape does not have D entries or ``max_shift`` is negative.

    Examples:
        >>> random_shift(jax.random.key(0), jnp.ones((2, 4)), (2, 2), 1).shape
        (2, 4)

    Source: Guo, Zhu, Liu & Yin, "Deep Embedded Clustering with Data Augmentation", ACML 2018.
    """
    check_integer("max_shift", max_shift, minimum=0)
    height, width, *channels = image_shape
    if height * width * math.prod(channels) != x.shape[1]:
        raise ValueError(
            f"image_shape: expected {x.shape[1]} pixels as x has columns, got {image_shape}"
        )
    if max_shift == 0:
        return x
    images = x.reshape(-1, height, width, *channels)
    margin = (max_shift, max_shift)
    padded = jnp.pad(images, [(0, 0), margin, margin, *[(0, 0)] * len(channels)], mode="edge")
    corners = jax.random.randint(key, (len(x), 2), 0, 2 * max_shift + 1)

    def cut(image: Float[Array, "H W ..."], corner: Array) -> Float[Array, "h w ..."]:
        start = (corner[0], corner[1], *[0] * len(channels))
        return jax.lax.dynamic_slice(image, start, (height, width, *channels))

    return jax.vmap(cut)(padded, corners).reshape(x.shape)
