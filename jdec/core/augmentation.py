"""Random variants of rows that keep their cluster: affine images, masking noise."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jdec import _checks as checks

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
    height, width, *channels = image_shape
    amounts = jax.random.uniform(key, (6, len(x), 1, 1), minval=-1.0, maxval=1.0)
    angle = amounts[0] * math.radians(augmentation.max_rotation)
    zoom_down, zoom_right = 1 + augmentation.max_zoom * amounts[1:3]
    shear = augmentation.max_shear * amounts[3]
    shift_down, shift_right = augmentation.max_shift * amounts[4:6]

    # Where each pixel comes from, as offsets from the centre of the picture.
    down = (jnp.arange(height, dtype=amounts.dtype) - (height - 1) / 2)[None, :, None]
    right = (jnp.arange(width, dtype=amounts.dtype) - (width - 1) / 2)[None, None, :]
    right = right + shear * down
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    source_down = zoom_down * (cos * down - sin * right) + shift_down + (height - 1) / 2
    source_right = zoom_right * (sin * down + cos * right) + shift_right + (width - 1) / 2
    row = jnp.clip(jnp.round(source_down).astype(jnp.int32), 0, height - 1)
    column = jnp.clip(jnp.round(source_right).astype(jnp.int32), 0, width - 1)

    pixels = (row * width + column).reshape(len(x), height * width, 1)
    images = x.reshape(len(x), height * width, math.prod(channels))
    return jnp.take_along_axis(images, pixels, axis=1).reshape(x.shape)


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
