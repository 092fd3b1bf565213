import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdec.trainer.scaling import (
    SCALINGS,
    Scaling,
    coarse_columns,
    column_statistics,
    column_warnings,
    dominant_column,
    fit_scaling,
)


def random_rows(n_rows=50, width=4, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_rows, width)) * [1, 10, 0.1, 3] + [0, 5, 100, -2]
    return x.astype(np.float32)


def scaled(x, name, **options):
    return fit_scaling(x, name, **options).apply(x)


def test_rms_keeps_the_geometry_and_makes_the_mean_square_one():
    x = random_rows()
    y = scaled(x, "rms")
    assert y.dtype == np.float32
    np.testing.assert_allclose((y.astype(np.float64) ** 2).sum(axis=1).mean() / 4, 1, rtol=1e-6)
    ratio = y / x
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)


def test_standard_gives_each_column_mean_0_and_variance_1():
    y = scaled(random_rows(), "standard").astype(np.float64)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=2e-4)
    np.testing.assert_allclose(y.std(axis=0), 1, rtol=1e-5)


def test_minmax_brings_all_to_0_to_1_by_one_map():
    x = random_rows()
    y = scaled(x, "minmax")
    assert (y.min(), y.max()) == (0, pytest.approx(1))
    np.testing.assert_allclose(y, (x - x.min()) / (x.max() - x.min()), rtol=1e-5, atol=1e-6)


def test_none_is_nothing():
    x = random_rows()
    np.testing.assert_array_equal(scaled(x, "none"), x)


@pytest.mark.parametrize("name", SCALINGS)
def test_scale_is_a_factor_on_the_result(name):
    x = random_rows()
    np.testing.assert_allclose(scaled(x, name, scale=2.5), 2.5 * scaled(x, name), rtol=1e-5)


@pytest.mark.parametrize("name", SCALINGS)
def test_new_rows_follow_and_arguments_stay_as_they_are(name):
    x, new = random_rows(), random_rows(7, seed=1)
    before = new.copy()
    scaling = fit_scaling(x, name)
    together = scaling.apply(np.concatenate([x, new]))
    np.testing.assert_array_equal(scaling.apply(new), together[50:])
    np.testing.assert_array_equal(new, before)
    assert scaling.shift.dtype == scaling.factor.dtype == np.float64
    assert scaling.shift.shape == scaling.factor.shape == (4,)


@pytest.mark.parametrize("value", [0.0, 7.0, -3e30, 0.1])
@pytest.mark.parametrize("name", SCALINGS)
def test_constant_data_is_not_blown_up(name, value):
    x = np.full((5, 3), value, np.float32)
    y = scaled(x, name)
    assert np.isfinite(y).all()
    if name in ("standard", "minmax"):
        np.testing.assert_allclose(y, 0, atol=abs(value) * 1e-6)
    elif name == "rms" and value:
        np.testing.assert_allclose(y, np.sign(value), rtol=1e-6)
    else:
        np.testing.assert_array_equal(y, x)


def test_a_constant_column_among_others_is_only_shifted():
    x = random_rows()
    x[:, 1] = 0.1
    y = scaled(x, "standard")
    np.testing.assert_allclose(y[:, 1], 0, atol=1e-6)
    np.testing.assert_allclose(y[:, 0].std(), 1, rtol=1e-4)


def test_one_row():
    x = np.array([[3.0, 4.0]], np.float32)
    np.testing.assert_allclose((scaled(x, "rms") ** 2).mean(), 1, rtol=1e-6)
    np.testing.assert_array_equal(scaled(x, "standard"), 0)
    np.testing.assert_allclose(scaled(x, "minmax"), [[0, 1]])


@given(st.integers(-30, 30), st.sampled_from(["rms", "standard", "minmax"]))
def test_the_unit_of_the_data_does_not_matter(power, name):
    # Sums of squares of such values leave float32, but not float64.
    x = random_rows()
    factor = np.float32(2.0**power) * np.float32(2.0**power)
    np.testing.assert_allclose(scaled(x * factor, name), scaled(x, name), rtol=1e-4, atol=1e-4)


def in_parts(x, cuts, name):
    """Find the scaling as several processes do, each of which has a part of the rows."""
    parts = np.split(x, cuts)
    barrier = threading.Barrier(len(parts), timeout=10)
    shared = [None] * len(parts)

    def process(index):
        def over_parts(array):
            shared[index] = array
            barrier.wait()
            stacked = np.stack(shared)
            barrier.wait()
            return stacked

        try:
            return fit_scaling(parts[index], name, scale=2.0, over_parts=over_parts)
        finally:
            if barrier.n_waiting:  # for this one, which is through or has failed
                barrier.abort()

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(process, range(len(parts))))


@pytest.mark.parametrize("cuts", [[20], [10, 30, 49], [0, 25], [50], [7, 7]])
@pytest.mark.parametrize("name", SCALINGS)
def test_parts_of_the_rows_give_the_scaling_of_all(name, cuts):
    x = random_rows()
    whole = fit_scaling(x, name, scale=2.0)
    if name != "none":
        assert (fit_scaling(x[:7], name, scale=2.0).factor != whole.factor).any()
    for part in in_parts(x, cuts, name):
        np.testing.assert_allclose(part.shift, whole.shift, rtol=1e-6)
        np.testing.assert_allclose(part.factor, whole.factor, rtol=1e-6)
        assert part.shift.dtype == part.factor.dtype == np.float64


# Rows of any dtype, centred before they become float32.


@pytest.mark.parametrize("offset", [0.0, 1.7e9, -4e12, 1e15])
@pytest.mark.parametrize("name", ["standard", "minmax"])
def test_a_large_common_offset_takes_nothing_from_the_differences(offset, name):
    x = random_rows().astype(np.float64) * 16
    x = np.round(x)  # whole, so that float64 holds them beside the offset
    y = scaled(x + offset, name)
    assert y.dtype == np.float32
    # The mean itself is rounded beside 1e15; what rows differ in is not.
    expected = scaled(x, name)
    np.testing.assert_allclose(y - y[0], expected - expected[0], rtol=1e-5, atol=1e-5)
    assert len(np.unique(y, axis=0)) == len(np.unique(x, axis=0))


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64, np.float16, np.float64]
)
@pytest.mark.parametrize("name", SCALINGS)
def test_the_dtype_of_the_rows_does_not_matter(dtype, name):
    x = np.random.default_rng(0).integers(0, 100, (20, 3))
    y = scaled(x.astype(dtype), name)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, scaled(x.astype(np.float32), name))


@pytest.mark.parametrize("n_rows", [1, 8191, 8192, 8193, 20_000])
def test_statistics_are_those_of_all_blocks(n_rows):
    x = np.random.default_rng(0).normal(3, 2, (n_rows, 3)) + [0, 1e6, -1e9]
    found = column_statistics(x)
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.variance, x.var(axis=0), rtol=1e-6)
    np.testing.assert_array_equal((found.low, found.high), (x.min(axis=0), x.max(axis=0)))


def test_statistics_with_an_outlier_in_the_first_row():
    x = np.random.default_rng(0).normal(size=(500, 2))
    x[0] = 1e12
    np.testing.assert_allclose(column_statistics(x).variance, x.var(axis=0), rtol=1e-9)


@pytest.mark.parametrize("value", [0.1, 1e-40, 1.7e9, -3e30])
def test_a_constant_column_has_variance_0_exactly(value):
    assert column_statistics(np.full((1000, 1), value)).variance == 0


def test_tiny_numbers_are_brought_to_size():
    x = np.c_[random_rows(), np.arange(50) * 1e-42]
    np.testing.assert_allclose(scaled(x, "standard").std(axis=0), 1, rtol=1e-5)


SECONDS = 1.7e9 + np.random.default_rng(0).normal(0, 30, (200, 1))


@pytest.mark.parametrize(
    ("x", "name", "expected"),
    [
        (SECONDS, "standard", []),
        (SECONDS, "rms", [0]),
        (SECONDS, "none", [0]),
        (SECONDS, "minmax", []),
        (np.c_[random_rows(200), SECONDS], "minmax", [4]),
        (SECONDS.astype(np.float32), "standard", [0]),  # cut off before it came
        (np.rint(SECONDS).astype(np.int64), "standard", []),
        (1e18 + 256 * SECONDS.astype(np.int64) % 1024, "standard", [0]),
        (random_rows(200), "rms", []),
        (random_rows(200).astype(np.float16), "rms", [2]),  # 100 ± 0.1
        (np.full((200, 2), 1.7e9), "rms", []),  # constant: there is nothing to lose
    ],
)
def test_columns_whose_differences_are_lost_are_found(x, name, expected):
    found = coarse_columns(column_statistics(x), fit_scaling(x, name), x.dtype)
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("none", 3), ("rms", 3), ("minmax", 3), ("standard", None)]
)
def test_a_column_that_holds_most_of_the_variance_is_found(name, expected):
    x = random_rows(200) * np.array([1, 1, 1, 100], np.float32)
    found = dominant_column(column_statistics(x), fit_scaling(x, name))
    assert (found if expected is None else found[0]) == expected
    assert dominant_column(column_statistics(x[:, 3:]), fit_scaling(x[:, 3:], name)) is None


def test_a_warning_names_the_column_and_what_to_do():
    x = np.c_[random_rows(200), SECONDS]
    statistics, scaling = column_statistics(x), fit_scaling(x, "rms")
    (lost,) = column_warnings(statistics, scaling, x.dtype, ["a", "b", "c", "d", "time"])
    assert "'time'" in lost
    assert "rounding" in lost
    assert "scaling='standard'" in lost
    x = random_rows(200) * np.array([1, 1, 1, 100], np.float32)
    (most,) = column_warnings(column_statistics(x), fit_scaling(x), x.dtype, None)
    assert most.startswith("column 3 holds 9")
    assert "scaled variance" in most


# Bad arguments.


def test_what_overflows_is_refused():
    scaling = fit_scaling(np.full((2, 3), 1e-30, np.float32), "rms")
    with pytest.raises(ValueError, match="x: expected values that stay finite in float32"):
        scaling.apply(np.full((2, 3), 1e20, np.float32))
    with pytest.raises(ValueError, match="got 1e\\+20 in row 9001, column 2"):
        scaling.apply(np.where(np.arange(9005)[:, None] * [0, 0, 1] == 9001, 1e20, 0.0))
    with pytest.raises(ValueError, match="stay finite"):
        scaled(np.full((2, 3), 1e38, np.float32), "none", scale=1e3)


def test_rows_of_another_width_are_refused():
    scaling = Scaling(np.zeros(3, np.float32), np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"X has 2 features, but .* 3 features"):
        scaling.apply(np.zeros((4, 2), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "zscore"}, "scaling: expected one of rms, standard, minmax, none; got 'zscore'"),
        ({"scale": 0.0}, "scale: expected a finite number > 0, got 0.0"),
        ({"scale": float("nan")}, "scale: expected a finite number > 0, got nan"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit_scaling(random_rows(), **options)
