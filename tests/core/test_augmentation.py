import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdec.core.augmentation import (
    Augmentation,
    corrupt,
    random_affine,
    random_transform,
    resample,
    resample_in_turn,
)

KEY = jax.random.key(0)
EVERYTHING = Augmentation(max_shift=2.0, max_rotation=30.0, max_zoom=0.2, max_shear=0.3)

affine = jax.jit(random_affine, static_argnames=("image_shape", "augmentation"))


def images(n, *shape):
    """Images whose pixels all differ."""
    x = np.random.default_rng(0).permutation(n * np.prod(shape)).reshape(n, -1)
    return jnp.asarray(x, jnp.float32)


def shifts_of(image, most):
    """The image moved by every whole number of pixels up to the most, its edge repeated."""
    height, width = image.shape
    padded = np.pad(image, most, mode="edge")
    return {
        (down, right): padded[most + down :, most + right :][:height, :width]
        for down in range(-most, most + 1)
        for right in range(-most, most + 1)
    }


# Where nothing is to move.


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (1, 20)])
def test_no_amount_is_no_change(shape):
    x = images(3, *shape)
    assert not Augmentation()
    assert random_affine(KEY, x, shape, Augmentation()) is x


@pytest.mark.parametrize("shape", [(4, 5), (5, 4), (5, 5, 2)])
def test_tiny_amounts_are_no_change(shape):
    x = images(3, *shape)
    tiny = Augmentation(max_shift=0.01, max_rotation=0.1, max_zoom=0.001, max_shear=0.001)
    assert tiny
    np.testing.assert_array_equal(affine(KEY, x, shape, tiny), x)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3)])
def test_a_single_pixel_has_nowhere_to_go(shape):
    x = images(4, *shape)
    np.testing.assert_array_equal(affine(KEY, x, shape, EVERYTHING), x)


def test_an_even_picture_is_not_moved():
    x = jnp.full((6, 12), 0.3)
    np.testing.assert_array_equal(affine(KEY, x, (3, 4), EVERYTHING), x)


# What moves, and where to.


@pytest.mark.parametrize(("shape", "most"), [((6, 5), 1), ((5, 8), 2), ((1, 7), 1)])
def test_shifts_are_by_whole_pixels_each_row_its_own(shape, most):
    image = images(1, *shape)
    x = jnp.tile(image, (1000, 1))
    moved = np.asarray(affine(KEY, x, shape, Augmentation(max_shift=float(most))))
    expected = shifts_of(np.asarray(image).reshape(shape), most)
    seen = set()
    for row in moved.reshape(-1, *shape):
        found = [shift for shift, right in expected.items() if (row == right).all()]
        assert found
        seen.update(found)
    # All of them occur, forwards and back.
    assert seen == set(expected)


def test_shifts_are_uniform():
    # Half a pixel at either end goes to the outermost whole one.
    image = images(1, 5, 5)
    moved = affine(KEY, jnp.tile(image, (4000, 1)), (5, 5), Augmentation(max_shift=1.0))
    # The centre shows which pixel came there.
    values = np.asarray(image[0]).tolist()
    rows = np.array([values.index(value) // 5 - 2 for value in np.asarray(moved[:, 12])])
    shares = [(rows == shift).mean() for shift in (-1, 0, 1)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.04)


@pytest.mark.parametrize(
    "augmentation",
    [
        EVERYTHING,
        Augmentation(max_shift=3.0),
        Augmentation(max_rotation=180.0),
        Augmentation(max_zoom=0.9),
        Augmentation(max_shear=2.0),
    ],
)
def test_channels_stay_together_and_pixels_are_copies(augmentation):
    base = images(50, 5, 6)
    x = jnp.stack([base, base + 10_000, -base], axis=2).reshape(50, -1)
    moved = np.asarray(affine(KEY, x, (5, 6, 3), augmentation)).reshape(50, 30, 3)
    np.testing.assert_array_equal(moved[..., 1], moved[..., 0] + 10_000)
    np.testing.assert_array_equal(moved[..., 2], -moved[..., 0])
    for before, after in zip(np.asarray(base), moved[..., 0], strict=True):
        assert set(after) <= set(before)
    # As with one channel, and by the same key.
    np.testing.assert_array_equal(moved[..., 0], affine(KEY, base, (5, 6), augmentation))
    assert (moved[..., 0] != base).any()


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(max_rotation=180.0),
        Augmentation(max_zoom=0.9),
        Augmentation(max_shear=2.0),
    ],
)
def test_the_centre_stays(augmentation):
    x = images(50, 5, 7)
    moved = affine(KEY, x, (5, 7), augmentation)
    np.testing.assert_array_equal(moved[:, 17], x[:, 17])
    assert (moved != x).any(axis=1).mean() > 0.5


def test_a_shear_moves_rows_sideways():
    x = images(50, 5, 9)
    moved = np.asarray(affine(KEY, x, (5, 9), Augmentation(max_shear=1.0))).reshape(50, 5, 9)
    before = np.asarray(x).reshape(50, 5, 9)
    for image, was in zip(moved, before, strict=True):
        for row in range(5):
            assert set(image[row]) <= set(was[row])
    # The more, the farther from the middle.
    changed = (moved != before).any(axis=2).mean(axis=0)
    assert changed[2] == 0
    assert changed[0] >= changed[1] > 0


def test_a_zoom_keeps_rows_and_columns_straight():
    x = jnp.tile(jnp.repeat(jnp.arange(9.0), 9)[None, :], (50, 1))  # pixel = its row's number
    moved = np.asarray(affine(KEY, x, (9, 9), Augmentation(max_zoom=0.5))).reshape(50, 9, 9)
    np.testing.assert_array_equal(moved, moved[:, :, :1] + np.zeros((1, 1, 9)))
    spread = moved[:, -1, 0] - moved[:, 0, 0]
    assert spread.min() < 7 < 8 == spread.max()  # larger (cut off) and smaller (edge repeated)


def test_a_rotation_keeps_the_distance_from_the_centre():
    axis = np.arange(-7, 8)
    radius = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    x = jnp.tile(jnp.asarray(radius.reshape(1, -1), jnp.float32), (50, 1))
    moved = np.asarray(affine(KEY, x, (15, 15), Augmentation(max_rotation=180.0)))
    inside = radius.ravel() <= 7
    np.testing.assert_allclose(moved[:, inside], np.asarray(x)[:, inside], atol=0.75)


def test_a_quarter_turn_at_most():
    # A mark on the right is never carried to the left by less than 90 degrees.
    image = np.zeros((9, 9), np.float32)
    image[:, 8] = 1
    x = jnp.tile(jnp.asarray(image.reshape(1, -1)), (200, 1))
    moved = np.asarray(affine(KEY, x, (9, 9), Augmentation(max_rotation=40.0)))
    assert moved.reshape(200, 9, 9)[:, 4, :4].max() == 0
    assert (moved != np.asarray(x)).any(axis=1).mean() > 0.5


# Randomness, and the ways to run it.


def test_the_key_determines_every_bit():
    x = images(5, 6, 6)
    first, again, other = (
        affine(jax.random.key(seed), x, (6, 6), EVERYTHING) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_rows_are_transformed_each_in_its_own_way():
    moved = affine(KEY, jnp.tile(images(1, 6, 6), (20, 1)), (6, 6), EVERYTHING)
    assert len(np.unique(moved, axis=0)) > 15


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_eager_jit_and_vmap_agree(dtype):
    x = (images(4, 6, 5) / 128).astype(dtype)
    moved = affine(KEY, x, (6, 5), EVERYTHING)
    assert moved.dtype == dtype
    np.testing.assert_array_equal(random_affine(KEY, x, (6, 5), EVERYTHING), moved)
    stacked = jax.vmap(lambda x: random_affine(KEY, x, (6, 5), EVERYTHING))(jnp.stack([x, x + 1]))
    np.testing.assert_array_equal(stacked[0], moved)


# Masking noise.


def positive_rows(n_rows, width):
    x = 1 + np.abs(np.random.default_rng(0).standard_normal((n_rows, width)))
    return jnp.asarray(x, jnp.float32)


@pytest.mark.parametrize("rate", [0.2, 0.7])
def test_corruption_masks_its_share_and_keeps_the_expectation(rate):
    x = positive_rows(200, 100)
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
    x = positive_rows(3, 4)
    assert corrupt(KEY, x, 0.0) is x


def test_the_key_determines_the_corruption():
    x = jnp.ones((20, 20))
    first, again, other = (corrupt(jax.random.key(seed), x, 0.5) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_corruption_keeps_the_dtype(dtype):
    assert corrupt(KEY, jnp.ones((2, 3), dtype), 0.3).dtype == dtype


# Bad arguments.


def test_a_shape_of_another_size_is_refused():
    for augmentation in (EVERYTHING, Augmentation()):
        with pytest.raises(
            ValueError, match=r"image_shape: expected 12 entries as x has columns, got \(4, 4\)"
        ):
            random_affine(KEY, images(2, 12), (4, 4), augmentation)


@pytest.mark.parametrize("shape", [(), (12,), (1, 3, 2, 2)])
def test_a_shape_that_is_none_of_images_is_refused(shape):
    with pytest.raises(ValueError, match=r"image_shape: expected \(height, width\) or .*, got \("):
        random_affine(KEY, images(2, 12), shape, EVERYTHING)


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ({"max_shift": -1.0}, "max_shift: expected a finite number >= 0, got -1.0"),
        ({"max_rotation": float("nan")}, "max_rotation: expected .* >= 0, got nan"),
        ({"max_shear": float("inf")}, "max_shear: expected .* >= 0, got inf"),
        ({"max_zoom": 1.0}, r"max_zoom: expected a number in \[0, 1\), got 1.0"),
    ],
)
def test_bad_amounts_are_refused(amounts, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**amounts)


# By selects, where gathering single pixels is slow.


def transforms(n, augmentation):
    return random_transform(jax.random.key(1), n, augmentation)


def test_resampling_in_turn_takes_nearly_the_same_pixels():
    down, right = np.mgrid[:20, :24] / 10
    shades = np.sin(3 * down + np.arange(40)[:, None, None]) + np.cos(2 * right)
    pictures = jnp.asarray(shades[..., None], jnp.float32)
    slight = Augmentation(max_shift=2.0, max_rotation=10.0, max_zoom=0.1, max_shear=0.1)
    moved = transforms(40, slight)
    one, other = (f(pictures, moved) for f in (resample, resample_in_turn))
    assert (one == other).mean() > 0.9
    # What differs is the pixel beside it.
    assert jnp.abs(one - other).max() < jnp.abs(jnp.diff(pictures, axis=1)).max() * 3
    assert jnp.abs(one - pictures).mean() > 10 * jnp.abs(one - other).mean()


@pytest.mark.parametrize("shape", [(6, 5, 1), (5, 8, 3), (1, 7, 1)])
def test_shifts_in_turn_are_the_same_to_the_bit(shape):
    pictures = images(30, *shape).reshape(30, *shape)
    moved = transforms(30, Augmentation(max_shift=2.0))
    np.testing.assert_array_equal(resample_in_turn(pictures, moved), resample(pictures, moved))


@pytest.mark.parametrize(
    ("platform", "amounts", "gathers"),
    [
        ("tpu", {"max_rotation": 10.0, "max_shift": 2.0, "max_zoom": 0.1}, False),
        ("tpu", {"max_rotation": 70.0}, True),  # where hardly a row comes from few
        ("tpu", {"max_shear": 2.0, "max_rotation": 20.0}, True),
        ("cuda", {"max_rotation": 10.0, "max_shift": 2.0, "max_zoom": 0.1}, True),
    ],
)
def test_a_tpu_gathers_no_single_pixels(platform, amounts, gathers):
    exported = jax.export.export(affine, platforms=[platform])(
        KEY, images(3, 6, 5), (6, 5), Augmentation(**amounts)
    )
    assert ("stablehlo.gather" in exported.mlir_module()) == gathers
