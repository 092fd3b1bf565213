import numpy as np
import pytest

from jdec._columns import MIN_ROWS, identifier_columns


def random_columns(n_rows, n_columns=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n_rows, n_columns)).round(2)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (lambda n: np.arange(n), "a"),
        (lambda n: np.arange(n)[::-1], "a"),
        (lambda n: np.random.default_rng(1).permutation(n) + 1000, "a"),
        (lambda n: np.arange(n) - n, "a"),
        (lambda n: 10 * np.arange(n) + 5, "a"),
        (lambda n: 1.6e9 + 3600 * np.arange(n), "a"),
        (lambda n: np.cumsum(1 + np.arange(n) % 3), "a"),
        *(
            (lambda n: np.random.default_rng(1).permutation(7 * n)[:n], name)
            for name in (
                *("id", "ID", "Id", "index", "Index", "row", "rowid", "row_id", "uuid", "guid"),
                *("sample_id", "customer id", "PassengerId", "sampleID", "row_number", "idx"),
                *("level_0", "cell.id", "ids", "rownames", "obs-id"),
            )
        ),
    ],
)
@pytest.mark.parametrize("n_rows", [MIN_ROWS, 300])
def test_identifiers_are_found(values, name, n_rows):
    x = np.insert(random_columns(n_rows), 1, values(n_rows), axis=1)
    assert identifier_columns(x, ["p", name, "q", "r"]) == [name]
    if name == "a":
        assert identifier_columns(x) == ["1"]
        assert identifier_columns(x.astype(np.float32))[:1] == ["1"] or x.max() > 1e9
    assert identifier_columns(x[: MIN_ROWS - 1], ["p", name, "q", "r"]) == []
    assert identifier_columns(x[:, 1:2], [name]) == []


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (lambda n: np.arange(n) % 7, "a"),
        (lambda n: np.arange(n) / 2, "a"),
        (lambda n: np.arange(n) % 50, "id"),
        (lambda n: np.random.default_rng(1).permutation(7 * n)[:n], "a"),
        (lambda n: np.random.default_rng(1).permutation(7 * n)[:n], "fluid"),
        (lambda n: np.random.default_rng(1).permutation(7 * n)[:n], "paid"),
        (lambda n: np.random.default_rng(1).permutation(7 * n)[:n], "indexed_price"),
        (lambda n: np.random.default_rng(1).normal(size=n), "id"),
        (lambda n: np.zeros(n), "index"),
        (lambda n: np.r_[np.arange(n - 1), 0], "a"),
        (lambda n: np.r_[np.arange(n - 1), n + 0.5], "a"),
        (lambda n: np.r_[np.arange(n - 1), np.inf], "a"),
    ],
)
def test_measurements_are_no_identifiers(values, name):
    x = np.insert(random_columns(300), 1, values(300), axis=1)
    assert identifier_columns(x, ["p", name, "q", "r"]) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64, np.float16])
def test_identifiers_are_found_in_any_type(dtype):
    x = np.c_[np.arange(100), np.arange(100) ** 2 % 5].astype(dtype)
    assert identifier_columns(x, ["a", "b"]) == ["a"]
