"""What a user may get wrong: each is a ValueError that says what was expected and what came."""

import datetime
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
import scipy.sparse

from jdec.core.augmentation import Augmentation, random_affine
from jdec.core.dec import run, self_training
from jdec.core.functional import soft_assignment
from jdec.core.kmeans import kmeans
from jdec.core.networks import StackedDenoisingAutoencoder
from jdec.core.optimizers import make_optimizer
from jdec.datasets import load_dataset
from jdec.estimator import DEC
from jdec.metrics import clustering_scores
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.model import assign
from jdec.trainer.model_file import load_model, save_model
from jdec.trainer.presets import preset_config
from jdec.trainer.scaling import fit_scaling

CONFIG = Config(2).replace(
    {
        "network.hidden_dims": [4],
        "network.latent_dim": 2,
        "pretrain.finetune_steps": 2,
        "pretrain.batch_size": 4,
        "kmeans.n_init": 1,
        "clustering.update_interval": 1,
        "clustering.max_intervals": 1,
        "clustering.batch_size": 4,
    }
)
X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)

pytestmark = pytest.mark.usefixtures("unchecked")


def rejected(call, *needed):
    with pytest.raises(ValueError, match=re.escape(needed[0])) as caught:
        call()
    message = str(caught.value)
    for text in needed:
        assert text in message
    assert len(message) < 400
    return message


def times(w, x):
    return x @ w


def with_value(value, row, column=1):
    x = X.copy()
    x[row, column] = value
    return x


def ragged():
    return [[1.0, 2.0], [3.0]]


BAD_ROWS = {
    "NaN": (with_value(np.nan, 7), ["expected finite numbers, got NaN in row 7"]),
    "NaN in the first row": (with_value(np.nan, 0), ["got NaN in row 0"]),
    "NaN far down": (
        np.where(np.arange(20_001) == 20_000, np.nan, 0)[:, None],
        ["got NaN in row 20000"],
    ),
    "infinity": (with_value(np.inf, 11), ["got infinity in row 11"]),
    "minus infinity": (with_value(-np.inf, 3), ["got infinity in row 3"]),
    "too large for float32": (
        with_value(0, 0).astype(np.float64) + 1e200 * np.eye(12, 3, k=-5),
        ["got 1e+200 in row 5, column 0, which is too large"],
    ),
    "objects": (np.array([[1, "a"], [2, "b"]], dtype=object), ["expected numbers", "object"]),
    "dates": (np.full((4, 2), datetime.date(2020, 1, 1)), ["expected numbers", "object"]),
    "times": (np.zeros((4, 2), "M8[s]"), ["expected numbers", "datetime64"]),
    "text": ([["a", "b"], ["c", "d"]], ["expected numbers", "<U1"]),
    "bytes": (np.array([[b"a"], [b"b"]]), ["expected numbers", "S1"]),
    "complex": (X + 1j, ["Complex data not supported", "expected real numbers"]),
    "one dimension": (X[0], ["Expected 2D array", "got a 1D array of shape (3,)", "reshape"]),
    "three dimensions": (X[None], ["Expected 2D array", "got a 3D array of shape (1, 12, 3)"]),
    "a number": (3.0, ["expected a numeric matrix [rows, columns], got 3.0"]),
    "nothing": (None, ["expected a numeric matrix [rows, columns], got None"]),
    "a name": ("rows.npy", ["expected a numeric matrix [rows, columns], got 'rows.npy'"]),
    "columns by name": ({"a": [1.0]}, ["expected a numeric matrix [rows, columns], got {'a'"]),
    "records": (np.ones(3, [("a", "f4"), ("b", "f4")]), ["[rows, columns], got fields a, b"]),
    "no rows": (X[:0], ["expected at least one row", "(0, 3)"]),
    "no columns": (X[:, :0], ["0 feature(s)", "(12, 0)"]),
    "an empty list": ([], ["Expected 2D array", "(0,)"]),
    "ragged": (ragged(), ["rows of unequal length"]),
    "a sparse one": (scipy.sparse.coo_array(X[0]), ["Expected 2D array", "a sparse 1D one"]),
    "sparse, without rows": (scipy.sparse.csr_array((0, 3)), ["expected at least one row"]),
    "sparse, of complex numbers": (scipy.sparse.csc_array(1j * X), ["Complex data not supported"]),
    "a frame of text": (pd.DataFrame({"a": [1, 2], "b": ["u", "v"]}), ["expected numbers"]),
    "a frame with gaps": (
        pd.DataFrame({"a": [1, 2], "b": [1.0, None]}),
        ["got NaN in row 1"],
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_rejected_by_fit(name):
    rows, needed = BAD_ROWS[name]
    rejected(lambda: fit(jax.random.key(0), rows, CONFIG), *needed, "x: ")


@pytest.fixture(scope="module")
def model():
    return fit(jax.random.key(0), X, CONFIG).model


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_rejected_by_assign(name, model):
    rows, needed = BAD_ROWS[name]
    rejected(lambda: assign(model, rows), *needed, "x: ")


# scikit-learn's own messages, for what is not a table of numbers.
THEIRS = {
    "dates": "float",
    "complex": "Complex data not supported",
    "one dimension": "Expected 2D array, got 1D array",
    "three dimensions": "with dim 3",
    "a number": "Expected 2D array, got scalar array",
    "nothing": "Expected 2D array, got scalar array",
    "a name": "Expected 2D array, got scalar array",
    "columns by name": "Expected 2D array, got scalar array",
    "records": "Expected 2D array, got 1D array",
    "no rows": "Found array with 0 sample(s)",
    "no columns": "Found array with 0 feature(s)",
    "an empty list": "Expected 2D array, got 1D array",
    "ragged": "inhomogeneous shape",
    "a sparse one": "Sparse data was passed for X",
    "sparse, without rows": "Sparse data was passed for X",
    "sparse, of complex numbers": "Complex data not supported",
}


@pytest.mark.parametrize("name", [name for name in BAD_ROWS if name != "times"])
def test_bad_rows_are_rejected_by_the_estimator(name, model, tmp_path):
    rows, needed = BAD_ROWS[name]
    needed = [THEIRS[name]] if name in THEIRS else needed
    theirs = ("dates", "a sparse one", "sparse, without rows")
    error = TypeError if name in theirs else ValueError
    estimator = DEC(2, config=CONFIG)
    with pytest.raises(error) as caught:
        estimator.fit(rows)
    assert all(text in str(caught.value) for text in needed)
    assert not hasattr(estimator, "labels_")


@pytest.mark.parametrize("name", ["NaN", "infinity", "too large for float32"])
@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform"])
def test_rows_that_are_not_finite_are_named_by_a_fitted_estimator(name, method, model, tmp_path):
    save_model(tmp_path / "model.npz", model)
    rows, needed = BAD_ROWS[name]
    rejected(lambda: getattr(DEC.load(tmp_path / "model.npz"), method)(rows), *needed)


@pytest.mark.parametrize("n_clusters", [13, 10**6])
def test_more_clusters_than_rows_are_rejected(n_clusters):
    needed = (f"got n_clusters={n_clusters} for n_samples=12", "n_clusters: expected at most")
    config = CONFIG.replace({"n_clusters": n_clusters})
    rejected(lambda: fit(jax.random.key(0), X, config), *needed)
    rejected(lambda: DEC(n_clusters, hidden_dims=(4,)).fit(X), *needed)
    rejected(lambda: kmeans(jax.random.key(0), jnp.asarray(X), n_clusters), *needed)


@pytest.mark.parametrize("n_clusters", [0, -1, 2.0, "2", None, True])
def test_numbers_of_clusters_that_are_none_are_rejected(n_clusters):
    needed = (f"n_clusters: expected an integer >= 1, got {n_clusters!r}",)
    rejected(lambda: Config(n_clusters), *needed)
    rejected(lambda: CONFIG.replace({"n_clusters": n_clusters}), *needed)
    rejected(lambda: preset_config("fast", n_clusters=n_clusters, n_rows=9), *needed)
    rejected(lambda: DEC(n_clusters).fit(X), *needed)
    rejected(lambda: kmeans(jax.random.key(0), jnp.asarray(X), n_clusters), *needed)


@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan"), float("inf"), None, "1"])
def test_values_that_must_be_positive(value):
    needed = f"expected a finite number > 0, got {value!r}"
    z = jnp.zeros((2, 2))
    rejected(lambda: CONFIG.replace({"clustering.alpha": value}), f"alpha: {needed}")
    rejected(lambda: soft_assignment(z, z, alpha=value), f"alpha: {needed}")
    rejected(lambda: self_training(times, optax.sgd(0.1), alpha=value), f"alpha: {needed}")
    for phase in ("pretrain", "clustering"):
        name = f"{phase}.optimizer.learning_rate"
        rejected(lambda name=name: CONFIG.replace({name: value}), f"learning_rate: {needed}")
    rejected(lambda: make_optimizer("adam", value, n_steps=1), f"learning_rate: {needed}")
    rejected(lambda: CONFIG.replace({"scale": value}), f"scale: {needed}")
    rejected(lambda: fit_scaling(X, scale=value), f"scale: {needed}")


@pytest.mark.parametrize("value", [0, -3, 1.5, "10", None])
def test_counts_that_must_be_at_least_one(value):
    needed = f"expected an integer >= 1, got {value!r}"
    for name in (
        *("pretrain.batch_size", "clustering.batch_size", "clustering.update_interval"),
        *("kmeans.n_init", "kmeans.max_iter", "network.latent_dim"),
    ):
        leaf = name.split(".")[-1]
        rejected(lambda name=name: CONFIG.replace({name: value}), f"{leaf}: {needed}")
    x = jnp.asarray(X)
    algorithm = self_training(times, optax.sgd(0.1))
    state = algorithm.init(jnp.eye(3), x[:2])
    rejected(lambda: kmeans(jax.random.key(0), x, 2, n_init=value), f"n_init: {needed}")
    rejected(lambda: kmeans(jax.random.key(0), x, 2, max_iter=value), f"max_iter: {needed}")
    rejected(lambda: StackedDenoisingAutoencoder((value,), 2), f"dims: {needed}")
    rejected(
        lambda: run(jax.random.key(0), state, x, algorithm, max_intervals=value),
        f"max_intervals: {needed}",
    )


@pytest.mark.parametrize("value", [-1, 2.5, "10", None])
def test_counts_that_may_be_zero(value):
    needed = f"expected an integer >= 0, got {value!r}"
    for name in ("layerwise_steps", "finetune_steps"):
        rejected(lambda name=name: CONFIG.replace({f"pretrain.{name}": value}), f"{name}: {needed}")
    rejected(
        lambda: CONFIG.replace({"clustering.max_intervals": value}), f"max_intervals: {needed}"
    )


@pytest.mark.parametrize(
    ("call", "needed"),
    [
        (lambda: load_dataset("mnits"), "name: expected one of digits, mnist"),
        (lambda: preset_config("quick", n_clusters=2, n_rows=9), "got 'quick'"),
        (lambda: DEC(2, preset="quick").fit(X), "preset: expected one of paper, fast; got 'quick'"),
        (lambda: Config.from_dict({"n_clusters": 2, "alpha": 1}), "unknown config field 'alpha'"),
        (lambda: CONFIG.replace({"clustering.alfa": 1}), "unknown config field 'clustering.alfa'"),
        (lambda: DEC(2, settings={"alfa": 1}).fit(X), "unknown config field 'alfa'"),
        (lambda: make_optimizer("sdg", 0.1, n_steps=1), "expected one of sgd, adam"),
        (lambda: fit_scaling(X, "max"), "expected one of rms, standard, minmax, none; got 'max'"),
    ],
)
def test_unknown_names_are_rejected_with_those_that_are_known(call, needed):
    rejected(call, needed)


@pytest.mark.parametrize(
    ("y", "needed"),
    [
        (np.zeros(11), "y: expected as many entries as x has (12), got 11"),
        (np.zeros((12, 1)), "y: expected an array of 1 dimension(s), got shape (12, 1)"),
        ([], "y: expected as many entries as x has (12), got 0"),
    ],
)
def test_classes_that_do_not_fit_are_rejected(y, needed):
    rejected(lambda: fit(jax.random.key(0), X, CONFIG, y=y), needed)


def test_scores_need_labels_for_every_row():
    rejected(lambda: clustering_scores([0, 1], [0, 1, 2]), "labels_pred: expected as many entries")
    rejected(lambda: clustering_scores([], []), "expected at least one label, got none")
    rejected(lambda: clustering_scores([[0]], [0]), "labels_true: expected an array of 1 dim")


@pytest.mark.parametrize(
    ("n_train", "needed"),
    [
        (0, "n_train: expected an integer >= 1, got 0"),
        (-1, "n_train: expected an integer >= 1, got -1"),
        (13, "n_train: expected at most the 12 rows of x, got 13"),
        (2.5, "n_train: expected an integer >= 1, got 2.5"),
    ],
)
def test_training_splits_that_do_not_fit_are_rejected(n_train, needed):
    config = CONFIG.replace({"pretrain.rows": "train"})
    rejected(lambda: fit(jax.random.key(0), X, config, n_train=n_train), needed)


def test_images_of_another_size_are_rejected():
    config = CONFIG.replace({"image_shape": [2, 2]})
    needed = "image_shape: expected 3 entries as x has columns, got (2, 2)"
    rejected(lambda: fit(jax.random.key(0), X, config), needed)
    rejected(
        lambda: random_affine(jax.random.key(0), jnp.asarray(X), (2, 2), Augmentation(1.0)), needed
    )


@pytest.mark.filterwarnings("ignore:column 1 holds")
def test_rows_that_overflow_when_scaled_are_rejected():
    config = CONFIG.replace({"scaling": "none", "scale": 10.0})
    x = with_value(3e38, 4)
    rejected(lambda: fit(jax.random.key(0), x, config), "stay finite in float32 when scaled")


def test_a_model_rejects_rows_of_another_width(model, tmp_path):
    save_model(tmp_path / "model.npz", model)
    loaded, _ = load_model(tmp_path / "model.npz")
    needed = "X has 4 features, but the model is expecting 3 features"
    rejected(lambda: assign(loaded, np.zeros((5, 4))), needed)
    estimator = DEC.load(tmp_path / "model.npz")
    needed = "X has 2 features, but DEC is expecting 3 features"
    for method in (estimator.predict, estimator.predict_proba, estimator.transform):
        rejected(lambda method=method: method(X[:, :2]), needed)


def test_shapes_that_do_not_fit_are_rejected():
    z, mu = jnp.zeros((4, 2)), jnp.zeros((3, 5))
    rejected(lambda: soft_assignment(z, mu), "centroids: expected width 2", "got 5")
    rejected(lambda: soft_assignment(z[0], mu), "embeddings: expected an array of 2 dimension(s)")
    rejected(lambda: kmeans(jax.random.key(0), z[0], 1), "x: expected an array of 2 dimension(s)")


def test_the_callers_rows_are_never_mended():
    x = with_value(np.nan, 7)
    rejected(lambda: fit(jax.random.key(0), x, CONFIG), "NaN in row 7")
    assert np.isnan(x[7, 1])
