import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdec.scaling import SCALINGS, Scaling, fit_scaling


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
    assert scaling.shift.dtype == scaling.factor.dtype == np.float32
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
        assert part.shift.dtype == part.factor.dtype == np.float32


# Bad arguments.


def test_what_overflows_is_refused():
    scaling = fit_scaling(np.full((2, 3), 1e-30, np.float32), "rms")
    with pytest.raises(ValueError, match="x: expected values that stay finite in float32"):
        scaling.apply(np.full((2, 3), 1e20, np.float32))
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
