"""Random variants of rows that keep their cluster: affine images, masking noise."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jdec import _checks as checks

_MAX_SELECTS = 256  # height and width of a picture: so many selects a pixel

# The streams that masks are drawn from: what Flax folds into its first and second random key.
INPUT_STREAM, CODE_STREAM = 3213575472, 3303678395


@dataclass(frozen=True)
class Augmentation:
    """How far random variants of an image may go; all zero for none.

    Attributes:
        max_shift: Pixels, up or down and left or right.
        max_rotation: Degrees, either way.
        max_zoom: Share of the size, larger or smaller, each axis separately.
        max_shear: Horizontal pixels for each vertical one.
    """

    max_shift: float = 0.0
    max_rotation: float = 0.0
    max_zoom: float = 0.0
    max_shear: float = 0.0

    def __post_init__(self) -> None:
        """Validate the fields."""
        checks.check_non_negative("max_shift", self.max_shift)
        checks.check_non_negative("max_rotation", self.max_rotation)
        checks.check_fraction("max_zoom", self.max_zoom)
        checks.check_non_negative("max_shear", self.max_shear)

    def __bool__(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.max_shift or self.max_rotation or self.max_zoom or self.max_shear)


def random_affine(
    key: Key[Array, ""],
    x: Float[Array, "B D"],
    image_shape: tuple[int, ...],
    augmentation: Augmentation,
) -> Float[Array, "B D"]:
    """Shift, rotate, zoom and shear each image by random amounts of its own.

    Each pixel is that of the nearest source; what comes from outside the picture repeats its edge.

    Args:
        key: Typed random key.
        x: Images as rows, [B D].
        image_shape: (height, width) or (height, width, channels), with D entries.
        augmentation: The largest amounts; the actual ones are uniform up to them, either way.

    Returns:
        Images as rows, [B D], unchanged where all amounts are zero.

    Raises:
        ValueError: If the shape is not one of images, or does not have D entries.

    Examples:
        >>> x = jnp.arange(8.0).reshape(2, 4)
        >>> random_affine(jax.random.key(0), x, (2, 2), Augmentation(max_shift=1.0)).shape
        (2, 4)

    Source: Guo, Zhu, Liu & Yin, "Deep Embedded Clustering with Data Augmentation", ACML 2018.
    """
    checks.check_key("key", key)
    checks.check_rank("x", x, 2)
    checks.check_real("x", x)
    image_shape = checks.as_integers("image_shape", image_shape)
    check_image_shape(image_shape, x.shape[1])
    if not isinstance(augmentation, Augmentation):
        got = checks.shown(augmentation)
        raise ValueError(f"augmentation: expected an Augmentation, got {got}")
    if not augmentation:
        return x
    return transform_images(
        random_transform(key, len(x), augmentation), x, image_shape, augmentation
    )


def transform_images(
    transform: "AffineTransform",
    x: Float[Array, "B D"],
    image_shape: tuple[int, ...],
    augmentation: Augmentation,
) -> Float[Array, "B D"]:
    """Transform images as :func:`random_affine` does, by what was drawn with this augmentation."""
    height, width, *channels = image_shape
    images = x.reshape(len(x), height, width, math.prod(channels))
    if _is_slight(augmentation) and height + width <= _MAX_SELECTS:
        # A TPU gathers pixels one after another.
        moved = jax.lax.platform_dependent(
            images, transform, tpu=resample_in_turn, default=resample
        )
    else:
        moved = resample(images, transform)
    return moved.reshape(x.shape)


class AffineTransform(NamedTuple):
    """Where the pixels of B images come from, as offsets from the centre: source = A (i, j) + t."""

    matrix: Float[Array, "2 2 B"]
    shift: Float[Array, "2 B"]


def random_transform(
    key: Key[Array, ""], n_images: int, augmentation: Augmentation
) -> AffineTransform:
    """Draw the transforms of :func:`random_affine`."""
    amounts = jax.random.uniform(key, (6, n_images), minval=-1.0, maxval=1.0)
    angle = amounts[0] * math.radians(augmentation.max_rotation)
    zoom_down, zoom_right = 1 + augmentation.max_zoom * amounts[1:3]
    shear = augmentation.max_shear * amounts[3]
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    matrix = jnp.array(
        [
            [zoom_down * (cos - sin * shear), -zoom_down * sin],
            [zoom_right * (sin + cos * shear), zoom_right * cos],
        ]
    )
    return AffineTransform(matrix, augmentation.max_shift * amounts[4:6])


def _is_slight(augmentation: Augmentation) -> bool:
    """Whether each row of each picture still comes from several rows, more or less its own."""
    angle = math.radians(min(augmentation.max_rotation, 90.0))
    kept = math.cos(angle) - math.sin(angle) * augmentation.max_shear
    return kept * (1 - augmentation.max_zoom) >= 0.5


def _offsets(size: int) -> Float[np.ndarray, "size"]:
    return np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)


def _nearest(offset: Float[Array, "..."], size: int) -> Int[Array, "..."]:
    position = jnp.round(offset + (size - 1) / 2).astype(jnp.int32)
    return jnp.clip(position, 0, size - 1)


def resample(
    images: Float[Array, "B H W C"], transform: AffineTransform
) -> Float[Array, "B H W C"]:
    """Take each pixel from the nearest source."""
    n_images, height, width, n_channels = images.shape
    (a, b), (c, d) = transform.matrix[..., None, None]
    e, f = transform.shift[..., None, None]
    down, right = _offsets(height)[None, :, None], _offsets(width)[None, None, :]
    row = _nearest(a * down + b * right + e, height)
    column = _nearest(c * down + d * right + f, width)
    pixels = (row * width + column).reshape(n_images, height * width, 1)
    flat = images.reshape(n_images, height * width, n_channels)
    return jnp.take_along_axis(flat, pixels, axis=1).reshape(images.shape)


def resample_in_turn(
    images: Float[Array, "B H W C"], transform: AffineTransform
) -> Float[Array, "B H W C"]:
    """Resample along the rows, then along the columns, by selects instead of a gather.

    A few pixels in a hundred are those beside the ones that :func:`resample` takes.

    Source: Catmull & Smith, "3-D transformations of images in scanline order", SIGGRAPH 1980.
    """
    _, height, width, _ = images.shape
    (a, b), (c, d) = transform.matrix[:, :, None, None, :]
    e, f = transform.shift[:, None, None, :]
    down, right = _offsets(height)[:, None, None], _offsets(width)[None, :, None]
    # Images side by side: [H W C B], positions [H W B].
    given = images.transpose(1, 2, 3, 0)
    # Which column a pixel comes from that will come from this row.
    column = _nearest(c * ((down - e - b * right) / a) + d * right + f, width)
    row = _nearest(a * down + b * right + e, height)
    shifted = jnp.zeros_like(given)
    for k in range(width):
        shifted = jnp.where((column == k)[:, :, None], given[:, k, None], shifted)
    moved = jnp.zeros_like(given)
    for k in range(height):
        moved = jnp.where((row == k)[:, :, None], shifted[k][None], moved)
    return moved.transpose(3, 0, 1, 2)


def check_image_shape(image_shape: tuple[int, ...], n_features: int | None = None) -> None:
    """Raise unless these are sizes of images, and of rows of D columns where these are given."""
    if len(image_shape) not in (2, 3):
        raise ValueError(
            f"image_shape: expected (height, width) or (height, width, channels), got {image_shape}"
        )
    if n_features is not None and math.prod(image_shape) != n_features:
        raise ValueError(
            f"image_shape: expected {n_features} entries as x has columns, got {image_shape}"
        )


def corrupt(key: Key[Array, ""], x: Float[Array, "B D"], rate: float) -> Float[Array, "B D"]:
    """Masking noise: each entry is zero with probability ``rate``, else scaled by 1/(1-rate)."""
    if rate == 0:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)
