import json

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdec.core.autoencoder import FlaxAutoencoder
from jdec.core.networks import StackedDenoisingAutoencoder
from jdec.trainer.config import Config
from jdec.trainer.fingerprint import check_same_run, describe, fingerprint, rows_digest

# More rows than are read at once.
X = np.random.default_rng(0).standard_normal((9000, 3)).astype(np.float32)
WHOLE = rows_digest(X, 0)


def test_a_digest_is_two_numbers():
    assert (WHOLE.shape, WHOLE.dtype) == ((2,), np.uint64)
    assert WHOLE[0] != WHOLE[1]
    np.testing.assert_array_equal(rows_digest(X[:0], 7), 0)


@given(st.lists(st.sampled_from([0, 1, 4095, 4096, 4097, 8191, 8192, 8999, 9000]), max_size=4))
def test_parts_add_up_to_the_whole_however_rows_are_shared_out(cuts):
    cuts = sorted(cuts)
    parts = [
        rows_digest(part, first) for first, part in zip([0, *cuts], np.split(X, cuts), strict=True)
    ]
    np.testing.assert_array_equal(np.sum(parts, axis=0, dtype=np.uint64), WHOLE)


def changed(how):
    x = X.copy()
    if how == "one bit of a number":
        x.view(np.uint32)[4096, 1] ^= 1
    elif how == "a bit that float32 lacks":
        x = x.astype(np.float64)
        x.view(np.uint64)[4096, 1] ^= np.uint64(1)
    elif how == "a sign of zero":
        x[5, 2] = -0.0
    elif how == "two rows swapped":
        x[[10, 5000]] = x[[5000, 10]]
    elif how == "two columns swapped":
        x = x[:, [1, 0, 2]]
    elif how == "two numbers of a column swapped":
        x[[3, 4], 0] = x[[4, 3], 0]
    elif how == "all rows turned around":
        x = x[::-1]
    elif how == "a row less":
        x = x[:-1]
    elif how == "a row twice":
        x[11] = x[10]
    elif how == "rows moved by one":
        x = np.roll(x, 1, axis=0)
    return x


@pytest.mark.parametrize(
    "how",
    [
        *("one bit of a number", "a bit that float32 lacks", "a sign of zero"),
        *("two rows swapped", "two columns swapped"),
        *("two numbers of a column swapped", "all rows turned around", "a row less"),
        *("a row twice", "rows moved by one"),
    ],
)
def test_other_rows_have_another_digest(how):
    x = X.copy()
    x[5, 2] = 0.0
    before = rows_digest(x, 0) if how == "a sign of zero" else WHOLE
    assert (rows_digest(changed(how), 0) != before).all()


def test_a_part_elsewhere_has_another_digest():
    digests = {tuple(rows_digest(X[:5], first).tolist()) for first in range(100)}
    assert len(digests) == 100


def test_many_small_matrices_have_digests_of_their_own():
    """Numbers such as counts share most of their bits."""
    numbers = np.stack(np.meshgrid(*[np.arange(6)] * 4), axis=-1).reshape(-1, 2, 2)
    digests = [rows_digest(x.astype(np.float32), 0).tolist() for x in numbers]
    assert len(numbers) == 6**4
    for half in zip(*digests, strict=True):
        assert len(set(half)) == 6**4


def test_the_form_of_the_rows_does_not_matter():
    np.testing.assert_array_equal(rows_digest(np.asfortranarray(X), 0), WHOLE)
    np.testing.assert_array_equal(rows_digest(X.astype(np.float64), 0), WHOLE)
    np.testing.assert_array_equal(rows_digest(np.repeat(X, 2, axis=0)[::2], 0), WHOLE)


# What determines a run.

CONFIG = Config(3)
DATA = {"shape": [3, 2], "feature_names": ("a", "b"), "rows": np.arange(3), "unlabeled": None}


def write(record, values):
    record.write_text(json.dumps(values))


def fingerprint_of(**changes):
    return fingerprint(jax.random.key(0), CONFIG, DATA | changes)


def test_a_fingerprint_is_json():
    found = fingerprint_of()
    assert json.loads(json.dumps(found)) == found
    assert found["data"]["feature_names"] == ["a", "b"]
    assert "unlabeled" not in found["data"]


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        (
            {"feature_names": ("b", "a")},
            "data feature_names: ['a', 'b'] in run.json, ['b', 'a'] requested",
        ),
        ({"feature_names": None}, "data feature_names: ['a', 'b'] in run.json, None requested"),
        ({"rows": np.arange(3.0)}, "data rows: "),
        ({"unlabeled": "abc"}, "data unlabeled: None in run.json, 'abc' requested"),
        ({"feature_names": ("a\n" * 10**4, "b")}, "data feature_names: ['a', 'b'] in run.json, "),
    ],
)
def test_what_differs_is_told_in_a_line(tmp_path, change, needed):
    record = tmp_path / "run.json"
    write(record, fingerprint_of())
    check_same_run(record, fingerprint_of(), resume=True)
    with pytest.raises(ValueError, match="differs from this one in ") as caught:
        check_same_run(record, fingerprint_of(**change), resume=True)
    assert needed in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_names_of_many_columns_are_digested(tmp_path):
    record = tmp_path / "run.json"
    names = tuple(f"gene {number}" for number in range(300_000))
    write(record, fingerprint_of(feature_names=names))
    assert record.stat().st_size < 10_000
    check_same_run(record, fingerprint_of(feature_names=names), resume=True)
    with pytest.raises(
        ValueError, match=r"in data feature_names: '\w+' in run.json, '\w+' requested$"
    ):
        check_same_run(record, fingerprint_of(feature_names=names[::-1]), resume=True)


def test_many_differences_are_cut_short(tmp_path):
    record = tmp_path / "run.json"
    write(record, fingerprint_of(**{f"number {i}": i for i in range(10**4)}))
    with pytest.raises(ValueError, match=r"number 1: 1 in run\.json, None requested") as caught:
        check_same_run(record, fingerprint_of(), resume=True)
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("name", ["jax_enable_x64", "jax_threefry_partitionable"])
def test_settings_of_jax_that_change_numbers_are_part_of_it(tmp_path, name):
    record = tmp_path / "run.json"
    theirs = fingerprint_of()
    theirs["jax"][name] = not theirs["jax"][name]
    write(record, theirs)
    with pytest.raises(ValueError, match=rf"in {name}: \w+ in run\.json, \w+ requested$"):
        check_same_run(record, fingerprint_of(), resume=True)


# What a caller brings, as text.


def double(x):
    return 2 * x


class Module(nn.Module):
    width: int = 3


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (double, "test_fingerprint.double"),
        (Module, "test_fingerprint.Module"),
        (optax.adam(1e-3), None),
        (FlaxAutoencoder(Module(5)), None),
        (StackedDenoisingAutoencoder((3,), 2), None),
        (lambda x: x, "test_fingerprint.<lambda>"),
    ],
)
def test_a_text_has_no_address_and_one_line(part, text):
    found = describe(part)
    assert text is None or found.startswith(text)
    assert " at 0x" not in found
    assert "\n" not in found
    assert describe(part) == found


def test_optimizers_and_functions_are_told_apart_by_their_numbers():
    def make(rate, clip=1.0):
        return optax.chain(optax.clip(clip), optax.lion(rate))

    assert describe(make(1e-3)) == describe(make(1e-3))
    assert len({describe(tx) for tx in (make(1e-3), make(2e-3), make(1e-3, clip=2.0))}) == 3
    losses = [lambda key, params, batch, w=w: w * batch.x.mean() for w in (1.0, 1.0, 2.0)]
    assert len({describe(loss) for loss in losses}) == 2


def test_other_networks_have_other_texts():
    networks = [StackedDenoisingAutoencoder(dims, 2) for dims in [(3,), (4,), (3, 3)]]
    networks += [FlaxAutoencoder(Module(width)) for width in (3, 4)]
    assert len({describe(network) for network in networks}) == 5
