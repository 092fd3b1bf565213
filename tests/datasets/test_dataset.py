import dataclasses

import numpy as np
import pytest
from pictures import check_form

from jdec.datasets import Dataset, imbalanced_subset, load_dataset

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_dataset_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_dataset("digits").name = "other"


def many_rows(n=20_000, n_classes=10, **fields):
    y = np.random.default_rng(0).integers(0, n_classes, n)
    return Dataset(x=np.arange(n, dtype=np.float32)[:, None], y=y, name="many", **fields)


@pytest.mark.parametrize("rate", [0.1, 0.5, 1, np.float32(0.25)])
def test_an_imbalanced_subset_keeps_each_class_at_its_rate(rate):
    data = many_rows(note="made up", variant="sample", unlabeled=np.ones((3, 1), np.float32))
    drawn = imbalanced_subset(data, rate, seed=3)
    check_form(drawn, len(drawn.y), 1)
    for label, expected in enumerate(np.linspace(rate, 1, 10)):
        n = (data.y == label).sum()
        deviation = 5 * np.sqrt(n * expected * (1 - expected))
        assert abs((drawn.y == label).sum() - n * expected) <= deviation + 1e-3
    rows = drawn.x[:, 0].astype(int)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(drawn.y, data.y[rows])
    assert (drawn.name, drawn.variant, drawn.n_train) == ("many", "sample", None)
    assert drawn.unlabeled is data.unlabeled
    assert drawn.note == (
        f"made up; imbalanced: class 0 kept with probability {rate:g}, the last with 1 (seed 3)"
    )


def test_an_imbalanced_subset_follows_its_seed():
    first, again, other = (imbalanced_subset(many_rows(), 0.3, seed=seed).x for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(first) != len(other) or (first != other).any()


def test_an_imbalanced_subset_counts_its_training_rows():
    data = many_rows(n_train=15_000)
    drawn = imbalanced_subset(data, 0.2, seed=0)
    assert drawn.n_train == (drawn.x[:, 0] < 15_000).sum()


@pytest.mark.parametrize("rate", [0, -0.1, 1.01, float("nan"), "0.5", None, True])
def test_a_retention_rate_out_of_range_is_rejected(rate):
    with pytest.raises(ValueError, match=r"min_retention_rate: expected a number in \(0, 1\]"):
        imbalanced_subset(many_rows(), rate, seed=0)


@pytest.mark.parametrize(
    ("data", "seed", "needed"),
    [
        (Dataset(X, None, "a"), 0, "a: expected classes to draw by, got a data set without"),
        (Dataset(X, np.zeros(4, np.int64), "a"), 0, "a: expected at least 2 classes, got 1"),
        (many_rows(), -1, "seed: expected an integer >= 0"),
    ],
)
def test_what_has_no_imbalanced_subset_is_rejected(data, seed, needed):
    with pytest.raises(ValueError, match=needed):
        imbalanced_subset(data, 0.5, seed=seed)


def test_an_imbalanced_subset_keeps_the_identifiers_of_its_rows():
    data = many_rows(ids=np.arange(20_000) + 7, feature_names=("a",), label_name="b")
    drawn = imbalanced_subset(data, 0.2, seed=0)
    np.testing.assert_array_equal(drawn.ids, drawn.x[:, 0] + 7)
    assert (drawn.feature_names, drawn.label_name) == (("a",), "b")
