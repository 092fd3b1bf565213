"""What a fit and a population do with what they are given: columns, offsets, arguments."""

import dataclasses
import subprocess
import sys
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
import quick
from sklearn.datasets import make_blobs

from jdec.core.autoencoder import FunctionalAutoencoder
from jdec.core.kmeans import kmeans
from jdec.estimator import DEC
from jdec.trainer import (
    DataWarning,
    NotFiniteError,
    assign,
    data_mesh,
    fit_population,
    load_model,
    member_mesh,
    save_model,
)
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.model import align_columns
from jdec.trainer.rows import IdentifierWarning

X, Y = make_blobs(60, n_features=3, centers=2, random_state=0)
NAMES = ("height", "width", "weight")
FRAME = pd.DataFrame(X, columns=NAMES)
KEY = jax.random.key(0)
CONFIG = Config(2).replace(
    {
        "network.hidden_dims": [4],
        "network.latent_dim": 2,
        "pretrain.finetune_steps": 10,
        "pretrain.batch_size": 16,
        "kmeans.n_init": 1,
        "clustering.batch_size": 16,
        "clustering.update_interval": 2,
        "clustering.max_intervals": 1,
    }
)


STANDARD = CONFIG.replace({"scaling": "standard"})


@pytest.fixture(scope="module")
def result():
    return fit(KEY, FRAME, CONFIG)


# Names of columns.


def test_the_names_of_a_frame_are_kept(result, tmp_path):
    assert result.model.feature_names == NAMES
    save_model(tmp_path / "model.npz", result.model)
    assert load_model(tmp_path / "model.npz")[0].feature_names == NAMES
    assert fit(KEY, X, CONFIG, feature_names=list(NAMES)).model.feature_names == NAMES
    assert fit(KEY, X, CONFIG).model.feature_names is None


def test_columns_in_another_order_are_put_in_the_models(result):
    expected = assign(result.model, FRAME)
    for order in (["weight", "height", "width"], ["width", "height", "weight"]):
        for found in (
            assign(result.model, FRAME[order]),
            assign(result.model, FRAME[order].to_numpy(), feature_names=order),
        ):
            assert all(a.tobytes() == b.tobytes() for a, b in zip(found, expected, strict=True))


def test_rows_without_names_are_taken_as_they_are(result):
    assert assign(result.model, X)[1].tobytes() == result.soft_assignment.tobytes()
    nameless = result.model._replace(feature_names=None)
    assert assign(nameless, FRAME)[1].tobytes() == result.soft_assignment.tobytes()


def test_numbers_of_columns_are_their_places():
    frame = pd.DataFrame(X)
    result = fit(KEY, frame, CONFIG)
    assert result.model.feature_names is None
    for turned in (frame[[2, 0, 1]], frame[[2, 0, 1]].set_axis(["2", "0", "1"], axis=1)):
        found = assign(result.model, turned)[1]
        assert found.tobytes() == result.soft_assignment.tobytes()


def test_unlabeled_rows_of_numbered_columns_must_have_the_order_of_x():
    frame = pd.DataFrame(X)
    config = CONFIG.replace({"pretrain.layerwise_steps": 2})
    expected = fit(KEY, X, config, unlabeled=X).embedding
    assert fit(KEY, frame, config, unlabeled=frame).embedding.tobytes() == expected.tobytes()
    for rows, others in ((frame, frame[[2, 0, 1]]), (frame[[2, 0, 1]], frame)):
        with pytest.raises(ValueError, match="unlabeled: expected the columns of x, by name"):
            fit(KEY, rows, config, unlabeled=others)


@pytest.mark.parametrize(
    ("names", "texts"),
    [
        ([10, 11, 12], ("10", "11", "12")),
        ([2, 0, 1], ("2", "0", "1")),
        ([("u", 1), ("u", 2), ("v", 1)], ("('u', 1)", "('u', 2)", "('v', 1)")),
    ],
)
def test_names_that_are_no_texts_are_kept_as_such(names, texts):
    frame = pd.DataFrame(X).set_axis(pd.Index(names), axis=1)
    result = fit(KEY, frame, CONFIG)
    assert result.model.feature_names == texts
    turned = frame.iloc[:, [1, 2, 0]]
    assert assign(result.model, turned)[1].tobytes() == result.soft_assignment.tobytes()
    with pytest.raises(ValueError, match="unexpected: '99'"):
        assign(result.model, turned.set_axis([*names[:2], 99], axis=1))


def test_tables_of_arrow_have_names():
    table = pytest.importorskip(
        "pyarrow", reason="needs the extra jdec[parquet]"
    ).Table.from_pandas(FRAME)
    assert fit(KEY, table, CONFIG).model.feature_names == NAMES


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["height", "width", "mass"], r"missing: 'weight'; unexpected: 'mass'"),
        (["Height", "width", "weight"], r"missing: 'height'; unexpected: 'Height'"),
        (["a", "b", "c"], r"missing: 'height', 'width', 'weight'; unexpected: 'a', 'b', 'c'"),
        (["height", "width"], r"feature_names: expected 3 as x has columns, got 2"),
        (["height", "width", 3], r"feature_names: expected texts, got 3"),
        ("abc", r"feature_names: expected a list of texts, got 'abc'"),
        (["height", "height", "width"], r"missing: 'weight'"),
    ],
)
def test_columns_of_other_names_are_refused(result, names, message):
    with pytest.raises(ValueError, match=message):
        assign(result.model, X, feature_names=names)


def test_one_column_more_or_less_is_refused_by_name(result):
    with pytest.raises(ValueError, match=r"missing: 'weight'$"):
        assign(result.model, FRAME[["height", "width"]])
    with pytest.raises(ValueError, match=r"unexpected: 'colour'$"):
        assign(result.model, FRAME.assign(colour=1.0))


def test_columns_that_share_a_name_keep_their_order(result):
    twice = result.model._replace(feature_names=("a", "a", "b"))
    assert align_columns(twice, ["a", "a", "b"], X) is X
    with pytest.raises(ValueError, match="some share a name: a, a, b"):
        align_columns(twice, ["a", "b", "a"], X)


def test_members_of_a_population_keep_the_names():
    population = fit_population(jax.random.split(KEY, 2), FRAME, CONFIG)
    assert population.member(1).feature_names == NAMES


def test_further_rows_need_the_same_columns():
    others = FRAME.head(5)
    fit(KEY, FRAME, CONFIG, unlabeled=others)
    with pytest.raises(ValueError, match="unlabeled: expected the columns of x"):
        fit(KEY, FRAME, CONFIG, unlabeled=others[["weight", "width", "height"]])


# Rows are centred before they become float32.


@pytest.mark.parametrize("convert", [np.asarray, np.ndarray.tolist, pd.DataFrame])
def test_a_large_common_offset_is_no_matter(convert):
    x = np.round(X * 1024) / 1024
    near, far = (fit(KEY, convert(x + offset), STANDARD) for offset in (0.0, 2.0**31))
    np.testing.assert_allclose(far.embedding, near.embedding, atol=1e-3)
    assert len(np.unique(far.embedding, axis=0)) == len(np.unique(near.embedding, axis=0)) > 50


def test_kmeans_centres_rows_of_numpy_in_float64(unchecked):
    x = X + 1.7e9
    found = kmeans(KEY, x, 2, n_init=2)
    expected = kmeans(KEY, X, 2, n_init=2)
    assert found.labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(found.inertia, expected.inertia, rtol=1e-4)


# Told of.


def test_what_looks_like_no_measurement_is_told_of():
    with pytest.warns(IdentifierWarning, match="column 'id' seems to number the rows"):
        fit(KEY, FRAME.assign(id=np.random.default_rng(0).permutation(60)), STANDARD)
    with pytest.warns(IdentifierWarning, match="column 3 seems to number the rows"):
        fit_population(jax.random.split(KEY, 2), np.c_[X, np.arange(60)], STANDARD)


def test_a_column_that_decides_alone_is_told_of():
    with pytest.warns(DataWarning, match="'salary' holds 99.9% of the scaled variance"):
        fit(KEY, FRAME.assign(salary=1000 * X[::-1, 0]), CONFIG)


def test_lost_precision_is_told_of():
    x = (100 * X + 1.7e9).astype(np.float32)
    with pytest.warns(DataWarning, match="column 0, 1, 2: differences between rows are lost"):
        fit(KEY, x, STANDARD)


def test_ordinary_rows_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(KEY, FRAME, CONFIG)


# Arguments are looked at before any work.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": 0}, "key: expected a typed random key as of jax.random.key"),
        ({"key": jax.random.PRNGKey(0)}, "key: expected a typed random key .* got uint32 of shape"),
        ({"key": jax.random.split(KEY, 3)}, r"key: .* got \(3,\) of them"),
        ({"key": None}, "key: expected .* got NoneType None"),
        ({"config": None}, "config: expected a jdec.Config, got NoneType"),
        ({"config": CONFIG.to_dict()}, "config: .* Config.from_dict makes one"),
        ({"config": "config.json"}, "config: .*; jdec.trainer.read_config reads one"),
        (
            {"mesh": member_mesh(1)},
            r"mesh: expected jdec.trainer.data_mesh\(\), got a mesh of axes member",
        ),
        ({"mesh": jax.devices()}, r"mesh: expected jdec.trainer.data_mesh\(\), got list"),
        ({"callbacks": print}, "callbacks: expected a list of functions"),
        ({"callbacks": [None]}, "callbacks: expected functions of a record, got None"),
        ({"callbacks": "print"}, "callbacks: expected a list of functions"),
        ({"progress": "yes"}, "progress: expected true or false, got 'yes'"),
        ({"resume": 1}, "resume: expected true or false, got 1"),
        ({"workdir": 3}, "workdir: expected a path, got 3"),
        ({"y": [*Y[:-1], None]}, "y: expected a label for every row, got None in row 59"),
        ({"y": [*Y[:-1], "a"]}, "y: expected labels of one kind"),
        ({"y": Y[:-1]}, "y: expected as many entries as x has"),
        ({"y": Y.astype(complex)}, "y: expected whole numbers or text, got dtype complex128"),
        ({"y": [None] * 60}, "y: expected a label for every row, got None in row 0"),
        ({"y": pd.Series(Y).where(Y == 0).to_numpy()}, "y: expected a label .* got NaN in row"),
        ({"y": np.full(60, np.datetime64("2020"))}, "y: expected whole numbers or text"),
        ({"feature_names": ["a"]}, "feature_names: expected 3 as x has columns, got 1"),
        ({"n_train": 61}, "n_train: expected at most the 60 rows"),
        ({"unlabeled": X[:, :2]}, "unlabeled: expected 3 columns as x has, got 2"),
        ({"autoencoder_params": {}}, "autoencoder_params: expected arrays of shapes"),
    ],
)
def test_bad_arguments_of_a_fit_are_refused_before_any_work(unchecked, tmp_path, change, message):
    records = []
    arguments = {"key": KEY, "x": X, "config": CONFIG, "callbacks": [records.append]}
    arguments |= {"workdir": tmp_path / "run"} | change
    with pytest.raises(ValueError, match=message) as caught:
        fit(arguments.pop("key"), arguments.pop("x"), arguments.pop("config"), **arguments)
    assert "\n" not in str(caught.value)
    assert records == []
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": KEY}, "keys: expected typed random keys in one dimension"),
        ({"keys": [0, 1]}, "keys: expected typed random keys .* got a list with int"),
        ({"config": {}}, "config: expected a jdec.Config, got dict"),
        ({"mesh": jax.devices()}, r"mesh: expected jdec.trainer.member_mesh\(\), got list"),
        ({"resume": 1}, "resume: expected true or false, got 1"),
        ({"workdir": 3}, "workdir: expected a path, got 3"),
        (
            {"learning_rates": [1, 2], "tx": {"clustering": optax.sgd(0.1)}},
            "learning_rates: expected none with an optimizer of clustering in tx",
        ),
        ({"callbacks": 3}, "callbacks: expected a list of functions"),
        ({"vectorized": "no"}, "vectorized: expected true or false"),
        ({"n_clusters": [2, 2.5]}, "n_clusters: expected an integer >= 1, got 2.5"),
        ({"n_clusters": [2, 61]}, "n_clusters: expected at most one cluster per row"),
        ({"n_clusters": {2, 3}}, "n_clusters: expected one for each of 2 keys"),
        ({"alphas": "11"}, "alphas: expected one for each of 2 keys"),
        ({"alphas": [1.0, np.nan]}, "alphas: expected a finite number > 0, got nan"),
        ({"feature_names": ["a"]}, "feature_names: expected 3"),
        ({"config": CONFIG.replace({"image_shape": [2, 2]})}, "image_shape: expected 3 entries"),
    ],
)
def test_bad_arguments_of_a_population_are_refused_before_any_work(unchecked, change, message):
    records = []
    arguments = {"keys": jax.random.split(KEY, 2), "config": CONFIG}
    arguments |= {"callbacks": [records.append]} | change
    with pytest.raises(ValueError, match=message):
        fit_population(arguments.pop("keys"), X, arguments.pop("config"), **arguments)
    assert records == []


# Networks, losses, augmentations and optimizers are tried on shapes alone, before any work.


def linear_init(key, n_features):
    return {"down": jax.random.normal(key, (n_features, 2)), "up": jnp.zeros((2, n_features))}


def linear(init=linear_init, encode=None, decode=None):
    return FunctionalAutoencoder(
        init,
        encode or (lambda params, x: x @ params["down"]),
        decode or (lambda params, z: z @ params["up"]),
    )


class Normalised(nn.Module):
    def setup(self):
        self.layer, self.up = nn.Dense(2), nn.Dense(3)
        self.norm = nn.BatchNorm(use_running_average=True)

    def encode(self, x):
        return self.norm(self.layer(x))

    def decode(self, z):
        return self.up(z)


def broken(*arguments):
    raise ZeroDivisionError("in a function\nof a caller")


@dataclasses.dataclass
class Unhashable:
    init = staticmethod(linear_init)
    encode = decode = staticmethod(lambda params, x: x)


BROUGHT = {
    "no network": ({"network": "conv"}, r"network: expected an object with init, .*got 'conv'$"),
    "a class": ({"network": Normalised}, "network: .*; make an object of the class first"),
    "no hash": ({"network": Unhashable()}, "network: expected a hashable object"),
    "3-D embeddings": (
        {"network": linear(encode=lambda params, x: (x @ params["down"])[:, None])},
        r"network: expected encode to return embeddings \[B Z\] .* got shape \(3, 1, 2\)",
    ),
    "one embedding": (
        {"network": linear(encode=lambda params, x: (x @ params["down"]).mean(axis=0))},
        r"network: expected encode to return embeddings \[B Z\] .* got shape \(2,\)",
    ),
    "whole embeddings": (
        {"network": linear(encode=lambda params, x: (x @ params["down"]).astype(jnp.int32))},
        "network: expected floating-point embeddings, got dtype int32",
    ),
    "a narrow decoder": (
        {"network": linear(decode=lambda params, z: (z @ params["up"])[:, :2])},
        r"network: expected decode to return rows of shape \(3, 3\), got \(3, 2\)",
    ),
    "parameters that cannot be trained": (
        {"network": linear(init=lambda key, n: {**linear_init(key, n), "n": jnp.int32(n)})},
        "network: expected floating-point parameters, got dtype int32 in n$",
    ),
    "an encoder that fails": (
        {"network": linear(encode=lambda params, x: x @ params["up"])},
        "network: encode fails for rows of 3 columns: TypeError: ",
    ),
    "a network that raises": (
        {"network": linear(init=broken)},
        "network: init fails for rows of 3 columns: ZeroDivisionError: in a function of a caller",
    ),
    "a module with a state": (
        {"network": Normalised()},
        "network: .*expected a module with parameters alone, got batch_stats",
    ),
    "no greedy layers": (
        {"network": linear(), "config": CONFIG.replace({"pretrain.layerwise_steps": 2})},
        "layerwise_steps: expected 0 for .*, which has no greedy layers, got 2",
    ),
    "a loss for each row": (
        {"extra_loss": lambda key, params, batch: (batch.x**2).mean(axis=1)},
        r"extra_loss: expected a floating-point scalar, got shape \(3,\) .*; take the mean",
    ),
    "a loss of integers": (
        {"extra_loss": lambda key, params, batch: jnp.int32(1)},
        r"extra_loss: expected a floating-point scalar, got shape \(\) and dtype int32",
    ),
    "a loss of Python's": (
        {"extra_loss": lambda key, params, batch: None},
        "extra_loss: expected an array, got NoneType",
    ),
    "a loss that raises": (
        {"extra_loss": broken},
        "extra_loss: ZeroDivisionError: in a function of a caller",
    ),
    "no loss": ({"extra_loss": 3.0}, r"extra_loss: expected a function, got 3\.0"),
    "fewer rows": (
        {"augment": lambda key, x: x[:2]},
        r"augment: expected rows of shape \(3, 3\) and dtype float32 as it is given, got \(2, 3\)",
    ),
    "rows of integers": (
        {"augment": lambda key, x: x.astype(jnp.int32)},
        r"augment: expected rows .*, got \(3, 3\) and int32",
    ),
    "no augmentation": ({"augment": "flip"}, "augment: expected a function, got 'flip'"),
    "one optimizer": ({"tx": optax.adam(1e-3)}, "tx: expected optimizers by phase, as {"),
    "another phase": (
        {"tx": {"finetune": optax.adam(1e-3)}},
        "tx: expected optimizers by phase, .* got {'finetune'",
    ),
    "no optimizer": (
        {"tx": {"pretrain": 1e-3}},
        r"tx: expected an Optax optimizer in pretrain, got 0\.001",
    ),
    "a class of optimizers": (
        {"tx": {"clustering": optax.adam}},
        "tx: expected an Optax optimizer in clustering, got <function adam",
    ),
}


def fit_members(key, x, config, **arguments):
    return fit_population(jax.random.split(key, 2), x, config, **arguments)


def fit_estimator(key, x, config, **arguments):
    return DEC(config=config, random_state=0, **arguments).fit(x)


@pytest.mark.parametrize("train", [fit, fit_members, fit_estimator])
@pytest.mark.parametrize("name", BROUGHT)
def test_what_a_caller_brings_is_validated_before_any_work(tmp_path, name, train):
    change, message = BROUGHT[name]
    records = []
    arguments = {"config": CONFIG, "callbacks": [records.append], "workdir": tmp_path / "run"}
    with pytest.raises(ValueError, match=message) as caught:
        train(KEY, X, **arguments | change)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert records == []
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_begins_with_nan_is_an_error_before_training(value):
    def init(key, n_features):
        return {**linear_init(key, n_features), "up": jnp.full((2, n_features), value)}

    records, network = [], linear(init=init)
    message = "network: init returned parameters that are NaN or infinite"
    with pytest.raises(NotFiniteError, match=message):
        fit(KEY, X, CONFIG, network=network, callbacks=[records.append])
    with pytest.raises(NotFiniteError, match=message):
        fit_population(
            jax.random.split(KEY, 2), X, CONFIG, network=network, callbacks=[records.append]
        )
    assert records == []


@pytest.mark.parametrize("convert", [np.ndarray.tolist, pd.DataFrame, lambda x: [*x]])
def test_lists_and_frames_are_rows_as_well(result, convert):
    found = fit(KEY, convert(X), CONFIG, y=Y.tolist())
    assert found.embedding.tobytes() == result.embedding.tobytes()
    assert assign(found.model, convert(X))[0].tobytes() == result.embedding.tobytes()


# What a result is made of.


def test_results_are_plain_arrays(result):
    for tree in (result.model[:3], result.autoencoder_params, result.initial):
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(tree))
        assert all(leaf.flags.owndata for leaf in jax.tree.leaves(tree))


def test_a_second_fit_of_the_same_shapes_compiles_nothing():
    def fits():
        fit(KEY, X, CONFIG)
        fit(KEY, X, CONFIG.replace({"pretrain.layerwise_steps": 2}), unlabeled=X[:9])
        fit(KEY, X, CONFIG, mesh=data_mesh(2), unlabeled=X[:9])
        fit_population(jax.random.split(KEY, 2), X, CONFIG)

    compiled = []

    def count(event, duration_secs, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    fits()
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        fits()
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert compiled == []


X64 = """
import sys
import jax, numpy as np
from jdec import Config, fit, fit_population, kmeans
config = Config.from_json(sys.argv[1])
x = np.random.default_rng(0).normal(size=(60, 3)); x[30:] += 6
first = fit(jax.random.key(0), x, config, workdir="run")
again = fit(jax.random.key(0), x, config, workdir="run", resume=True)
assert again.embedding.tobytes() == first.embedding.tobytes()
fit_population(jax.random.split(jax.random.key(0), 2), x, config)
kmeans(jax.random.key(0), x, 2)
print(jax.config.jax_enable_x64, first.embedding.dtype)
"""


def test_a_fit_in_double_precision_works_and_resumes(tmp_path):
    environment = quick.environment(JAX_ENABLE_X64="1")
    run = subprocess.run(
        [sys.executable, "-c", X64, CONFIG.to_json()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[0] == "True"
