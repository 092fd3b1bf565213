import contextlib
import dataclasses
import json
import math
import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jdec.core.augmentation import Augmentation
from jdec.core.optimizers import OPTIMIZERS, takes_weight_decay
from jdec.trainer.config import (
    ClusteringConfig,
    Config,
    GraphConfig,
    KMeansConfig,
    NetworkConfig,
    OptimizerConfig,
    PretrainConfig,
    read_config,
)
from jdec.trainer.presets import preset_config


def rejected(make, *needed):
    with pytest.raises(ValueError, match=re.escape(needed[0])) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    for text in needed:
        assert text in message
    return message


# To and from JSON.


positive = st.floats(1e-30, 1e30)
not_negative = st.floats(0, 2.0**99, width=32, allow_subnormal=False)
fractions = st.floats(0, 1, exclude_max=True, width=32, allow_subnormal=False)
counts = st.integers(1, 2**31 - 1)
widths = st.integers(1, 40_000)
optimizers = st.builds(
    OptimizerConfig,
    name=st.sampled_from([name for name in OPTIMIZERS if takes_weight_decay(name)]),
    learning_rate=positive,
    schedule=st.sampled_from(["constant", "step", "cosine", "one_cycle"]),
    decay_every=counts,
    decay_rate=positive,
    momentum=fractions,
    momentum_warmup_steps=st.integers(0, 2**31 - 1),
    bias_multiplier=positive,
    weight_decay=not_negative,
)
configs = st.builds(
    Config,
    n_clusters=counts,
    scaling=st.sampled_from(["rms", "standard", "minmax", "none"]),
    scale=positive,
    image_shape=st.lists(counts, min_size=2, max_size=3).map(tuple),
    augmentation=st.builds(Augmentation, not_negative, not_negative, fractions),
    network=st.builds(
        NetworkConfig,
        st.sampled_from(["mlp", "conv"]),
        st.lists(widths, max_size=5),
        st.tuples(widths, widths),
        st.tuples(counts, counts),
        widths,
    ),
    pretrain=st.builds(PretrainConfig, corrupt_data=st.booleans(), optimizer=optimizers),
    kmeans=st.builds(KMeansConfig, n_init=widths, tol=not_negative),
    graph=st.builds(
        GraphConfig,
        eigenvectors=st.lists(positive, min_size=1, max_size=3).map(tuple),
        diffusion_times=st.lists(not_negative, min_size=1, max_size=3).map(tuple),
        resolution=not_negative,
    ),
    clustering=st.builds(
        ClusteringConfig,
        freeze_encoder=st.booleans(),
        reconstruction_weight=not_negative,
        optimizer=optimizers,
    ),
)


@given(config=configs)
def test_any_config_round_trips_through_json(config):
    again = Config.from_json(config.to_json())
    assert again == config
    assert hash(again) == hash(config)


def test_missing_fields_take_their_defaults():
    config = Config.from_json('{"n_clusters": 4, "clustering": {"optimizer": {"name": "sgd"}}}')
    assert config == Config(4, clustering=ClusteringConfig(optimizer=OptimizerConfig("sgd")))


def test_numbers_of_numpy_become_plain_ones():
    config = Config(
        np.int64(3),
        scale=np.float32(0.5),
        network=NetworkConfig(hidden_dims=np.array([4, 5]), latent_dim=np.int32(2)),
        clustering=ClusteringConfig(freeze_encoder=np.bool_(True)),
    )
    plain = Config(
        3,
        scale=0.5,
        network=NetworkConfig(hidden_dims=(4, 5), latent_dim=2),
        clustering=ClusteringConfig(freeze_encoder=True),
    )
    assert config.to_json() == plain.to_json()
    assert type(config.n_clusters) is type(config.network.hidden_dims[0]) is int
    assert type(config.scale) is float
    assert type(config.clustering.freeze_encoder) is bool
    assert Config.from_json(config.to_json()) == config == plain
    assert config.replace({"scale": 0.5}) == plain


def test_lists_become_tuples_so_that_it_can_be_hashed():
    config = Config(2, image_shape=[4, 4], network=NetworkConfig(hidden_dims=[3, 2]))
    assert config.image_shape == (4, 4)
    assert config.network.hidden_dims == (3, 2)
    assert {config: 1}[
        Config(2, image_shape=(4, 4), network=NetworkConfig(hidden_dims=(3, 2)))
    ] == 1


def test_configs_are_frozen():
    config = Config(2)
    for part in [
        config,
        *(getattr(config, name) for name in ("network", "pretrain", "clustering")),
    ]:
        field = dataclasses.fields(part)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, field, 3)


def test_configs_of_other_settings_are_unequal():
    config = Config(3, image_shape=(8, 8))
    others = [config.replace({name: value}) for name, value in CHANGES.items()]
    assert len({config, *others}) == len(others) + 1


# Another value for every field there is.
CHANGES = {
    "n_clusters": 4,
    "scaling": "minmax",
    "scale": 2.0,
    "image_shape": [5, 5],
    "augmentation.max_shift": 1.0,
    "augmentation.max_rotation": 1.0,
    "augmentation.max_zoom": 0.5,
    "augmentation.max_shear": 0.5,
    "network.kind": "conv",
    "network.hidden_dims": [3],
    "network.channels": [1, 2, 3],
    "network.kernel_sizes": [1, 1, 1],
    "network.latent_dim": 3,
    "network.initializer": "normal",
    "network.precision": "bfloat16",
    "pretrain.layerwise_steps": 1,
    "pretrain.finetune_steps": 1,
    "pretrain.batch_size": 1,
    "pretrain.batch_order": "sequential",
    "pretrain.corruption_rate": 0.1,
    "pretrain.corrupt_data": True,
    "pretrain.finetune_corruption_rate": 0.1,
    "pretrain.loss_scale": 0.5,
    "pretrain.rows": "train",
    "kmeans.n_init": 1,
    "kmeans.max_iter": 1,
    "kmeans.tol": 0.0,
    "kmeans.overclustering_factors": [1, 7],
    "kmeans.select": "kl",
    "kmeans.max_rows": 7,
    "graph.space": "data",
    "graph.n_components": 2,
    "graph.n_neighbors": 1,
    "graph.max_rows": 100,
    "graph.subclusters": 2,
    "graph.eigenvectors": [0.5, 3.0],
    "graph.diffusion_times": [0.0, 2.5],
    "graph.n_init": 1,
    "graph.kmeans_restarts": 7,
    "graph.resolution": 0.0,
    "graph.n_votes": 2,
    "clustering.warmup_steps": 3,
    "clustering.alpha": 2.0,
    "clustering.tol": 0.0,
    "clustering.update_interval": 1,
    "clustering.max_intervals": 0,
    "clustering.batch_size": 1,
    "clustering.batch_order": "sequential",
    "clustering.corruption_rate": 0.1,
    "clustering.reconstruction_weight": 0.1,
    "clustering.freeze_encoder": True,
    "clustering.reset_optimizer": True,
}
for _optimizer in ("pretrain.optimizer", "clustering.optimizer", "clustering.warmup_optimizer"):
    CHANGES |= {
        f"{_optimizer}.name": "sgd",
        f"{_optimizer}.learning_rate": 0.5,
        f"{_optimizer}.schedule": "cosine",
        f"{_optimizer}.decay_every": 1,
        f"{_optimizer}.decay_rate": 0.5,
        f"{_optimizer}.momentum": 0.0,
        f"{_optimizer}.momentum_warmup_steps": 1,
        f"{_optimizer}.bias_multiplier": 3.0,
        f"{_optimizer}.weight_decay": 0.5,
    }


def test_every_field_can_be_replaced_by_its_dotted_name():
    config = Config(3, image_shape=(8, 8))
    assert sorted(config.flat()) == sorted(CHANGES)
    for name, value in CHANGES.items():
        flat = config.replace({name: value}).flat()
        assert flat[name] == value
        assert {other for other in flat if flat[other] != config.flat()[other]} == {name}


def test_replace_changes_several_fields_and_not_the_original():
    config = Config(3)
    changed = config.replace({"image_shape": (4, 4), "augmentation.max_shift": 1, "scale": 3})
    assert (changed.image_shape, changed.augmentation.max_shift, changed.scale) == ((4, 4), 1, 3)
    assert config == Config(3)


def test_replace_takes_a_whole_part():
    changed = Config(3).replace({"kmeans": {"n_init": 2}})
    assert changed == Config(3, kmeans=KMeansConfig(n_init=2))


def test_replace_leaves_its_argument_alone():
    optimizer = {"name": "sgd", "learning_rate": 1.0, "momentum": 0.5}
    fields = {"pretrain.optimizer": optimizer, "pretrain.optimizer.learning_rate": 0.25}
    config = Config(3).replace(fields)
    assert config.pretrain.optimizer == OptimizerConfig("sgd", 0.25, momentum=0.5)
    assert optimizer == {"name": "sgd", "learning_rate": 1.0, "momentum": 0.5}


# Invalid values.

BAD_VALUES = [
    *(("n_clusters", value) for value in (0, -1, 2.0, "3", True, None, [3], math.nan)),
    *(("scaling", value) for value in ("zscore", "", None, 1, ["rms"])),
    *(("scale", value) for value in (0, -1.0, math.nan, math.inf, "1", None, True, [1.0])),
    *(("image_shape", value) for value in ([8], [8, 0], [8, 8, 3, 1], 8, "88", [8.0, 8.0], [])),
    *(("network.kind", value) for value in ("cnn", "", None, 1)),
    *(("network.channels", value) for value in ([0, 1, 2], [1.0, 2, 3], 8, "888", None)),
    *(("network.kernel_sizes", value) for value in ([5, 0, 3], [5, 5, 2.5], 3, "553", None)),
    *(("network.hidden_dims", value) for value in ([0], [8, -1], [8.0], 8, "88", None, [True])),
    *(("network.latent_dim", value) for value in (0, 1.5, "2", None)),
    ("network.initializer", "xavier"),
    *(("network.precision", value) for value in ("float16", "double", "", None, 32)),
    *(("pretrain.layerwise_steps", value) for value in (-1, 0.5, "1", None)),
    *(("pretrain.finetune_steps", value) for value in (-1, 1e3, True)),
    *(("pretrain.batch_size", value) for value in (0, -5, 2.5)),
    ("pretrain.batch_order", "shuffled"),
    *(("pretrain.corruption_rate", value) for value in (1, 1.5, -0.1, math.nan, "0.1", False)),
    *(("pretrain.finetune_corruption_rate", value) for value in (1.0, -1, None)),
    *(("pretrain.corrupt_data", value) for value in ("yes", 1, None)),
    *(("pretrain.loss_scale", value) for value in (0.0, -2)),
    ("pretrain.rows", "test"),
    *(("pretrain.optimizer.learning_rate", value) for value in (0, -1e-3, math.inf, "0.1", None)),
    *(("kmeans.n_init", value) for value in (0, 1.0)),
    ("kmeans.max_iter", 0),
    *(("kmeans.overclustering_factors", value) for value in (3, [0], [2.0], None)),
    ("kmeans.select", "best"),
    *(("kmeans.tol", value) for value in (-1e-9, math.nan)),
    ("graph.space", "pixels"),
    *(("graph.n_neighbors", value) for value in (0, 2.5)),
    *(("graph.eigenvectors", value) for value in (1.5, [0.0], [-1], ["1"], [math.nan], None, "1")),
    *(("graph.diffusion_times", value) for value in (4.0, [-1], [math.inf], None)),
    *(("graph.resolution", value) for value in (-0.1, math.inf)),
    *(("clustering.warmup_steps", value) for value in (-1, 0.5)),
    *(("clustering.alpha", value) for value in (0, -1, math.nan, math.inf, "1", None, True)),
    *(("clustering.tol", value) for value in (-0.1, math.nan, "0.1")),
    *(("clustering.update_interval", value) for value in (0, -10, 2.5)),
    *(("clustering.max_intervals", value) for value in (-1, 1.5, math.inf)),
    ("clustering.batch_size", 0),
    ("clustering.batch_order", "Random"),
    *(("clustering.corruption_rate", value) for value in (1, -0.1, "0.1")),
    *(("clustering.reconstruction_weight", value) for value in (-1, -1e-9, math.nan, "1", None)),
    *(("clustering.freeze_encoder", value) for value in ("no", 0, None)),
    ("clustering.reset_optimizer", "false"),
    *(("clustering.optimizer.name", value) for value in ("adam_w", "Adam", "", "chain", None, 3)),
    ("clustering.optimizer.schedule", "linear"),
    ("clustering.optimizer.decay_every", 0),
    ("clustering.optimizer.decay_rate", 0),
    *(("clustering.optimizer.momentum", value) for value in (1, -0.1, "0.9")),
    ("clustering.optimizer.momentum_warmup_steps", -1),
    ("clustering.optimizer.bias_multiplier", 0),
    ("clustering.optimizer.weight_decay", -1e-9),
    ("augmentation.max_shift", -1),
    ("augmentation.max_rotation", math.inf),
    ("augmentation.max_zoom", 1),
    ("augmentation.max_shear", "0.1"),
    *((name, [1]) for name in ("network", "pretrain", "kmeans", "clustering", "augmentation")),
    *((name, None) for name in ("network", "clustering.optimizer", "augmentation")),
]


def _as_tuple(value):
    return tuple(value) if isinstance(value, list) else value


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("name", "value"), BAD_VALUES)
def test_invalid_values_are_named(name, value):
    base = Config(3, image_shape=(8, 8))
    message = rejected(lambda: base.replace({name: value}), name.split(".")[-1], "expected", "got")
    elements = value if isinstance(value, list) else []
    assert any(repr(got) in message for got in (value, _as_tuple(value), *elements))
    values = base.to_dict()
    *parents, leaf = name.split(".")
    target = values
    for parent in parents:
        target = target[parent]
    target[leaf] = value
    assert rejected(lambda: Config.from_dict(values), leaf) == message
    assert rejected(lambda: Config.from_json(json.dumps(values)), leaf, "expected", "got")


HUGE = [2**31, 2**63, 10**400, 10**5000]
COUNTS = [
    *("n_clusters", "network.latent_dim", "pretrain.layerwise_steps", "pretrain.finetune_steps"),
    *("pretrain.batch_size", "kmeans.n_init", "kmeans.max_iter", "clustering.batch_size"),
    *("clustering.update_interval", "clustering.max_intervals"),
    *("pretrain.optimizer.decay_every", "clustering.optimizer.momentum_warmup_steps"),
]
LISTS = ["image_shape", "network.hidden_dims", "network.channels", "kmeans.overclustering_factors"]
FLOATS = [
    *("scale", "pretrain.loss_scale", "kmeans.tol", "clustering.alpha", "clustering.tol"),
    *("clustering.reconstruction_weight",),
    *("pretrain.optimizer.learning_rate", "clustering.optimizer.weight_decay"),
    *("clustering.optimizer.decay_rate", "clustering.optimizer.bias_multiplier"),
    *("augmentation.max_shift", "augmentation.max_rotation", "augmentation.max_shear"),
]


@pytest.mark.parametrize("value", HUGE, ids=["2^31", "2^63", "10^400", "10^5000"])
@pytest.mark.parametrize("name", COUNTS + LISTS)
def test_integers_out_of_range_are_named(name, value):
    base = Config(3, image_shape=(8, 8))
    given = [4, value] if name in LISTS else value
    leaf = name.split(".")[-1]
    message = rejected(lambda: base.replace({name: given}), f"{leaf}: expected", "got")
    assert len(message) < 300
    rejected(lambda: base.replace({name: [4, -value] if name in LISTS else -value}), f"{leaf}: ")
    if value < 10**1000:  # beyond, Python reads no integers
        *parents, leaf = name.split(".")
        values = json.dumps({leaf: given})
        for parent in reversed(parents):
            values = json.dumps({parent: json.loads(values)})
        text = json.dumps({"n_clusters": 3} | json.loads(values))
        rejected(lambda: Config.from_json(text), f"{leaf}: expected", "got")


@pytest.mark.parametrize("value", [1e39, 1e300, 10**400, math.inf, -math.inf, math.nan, 1e-40])
@pytest.mark.parametrize("name", FLOATS)
def test_numbers_beyond_float32_are_named(name, value):
    base = Config(3, image_shape=(8, 8))
    rejected(lambda: base.replace({name: value}), f"{name.split('.')[-1]}: expected", "got")


@pytest.mark.parametrize("name", ["pretrain.corruption_rate", "clustering.optimizer.momentum"])
def test_a_fraction_that_float32_rounds_to_1_is_invalid(name):
    rejected(lambda: Config(3).replace({name: 1 - 1e-12}), f"{name.split('.')[-1]}: expected")


def test_a_json_number_that_overflows_is_invalid():
    rejected(
        lambda: Config.from_json('{"n_clusters": 3, "scale": 1e400}'), "scale: expected", "inf"
    )


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({"clustering.max_intervals": 2**20, "clustering.update_interval": 2**20}, "max_intervals"),
        ({"network.hidden_dims": [2**20, 2**20]}, "hidden_dims: expected layers of at most"),
        ({"network.hidden_dims": [2**20], "network.latent_dim": 2**20}, "hidden_dims: expected"),
        ({"network.hidden_dims": [2] * 1000}, "hidden_dims: expected fewer than 100 layers"),
        (
            {"kmeans.overclustering_factors": [2] * 1000},
            "overclustering_factors: expected at least one value and at",
        ),
        ({"kmeans.n_init": 10**7}, "n_init: expected an integer <= 1000000, got 10000000"),
    ],
)
def test_sizes_that_are_too_large_together_are_invalid(fields, needed):
    rejected(lambda: Config(3).replace(fields), needed, "got")


class Odd:
    """Neither a number nor text, and of two lines when shown."""

    def __repr__(self):
        return "Odd\nthing"


anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([*HUGE[:-1], *(-value for value in HUGE[:-1])]),
        st.floats(),
        st.complex_numbers(),
        st.decimals(),
        st.text(max_size=5),
        st.binary(max_size=3),
        st.sampled_from(["sgd", "all", "rms", "random", "float32", "0.1", "3"]),
        st.sampled_from(
            [
                *(Odd(), Odd, len, object(), {1, 2}, {}, range(3), iter([3]), Config(3)),
                *(np.zeros(()), np.ones((1,)), np.zeros((2, 2)), np.array("a"), np.float16(2)),
                *(np.timedelta64(3, "s"), np.datetime64("2020"), np.int8(3), np.bool_(True)),
                *(jnp.float32(2), jnp.ones(2, int), Augmentation(1.0), OptimizerConfig("sgd")),
            ]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from(["name", "optimizer", "n_init", "x"]), inner, max_size=2),
    ),
    max_leaves=4,
)
LEAVES = {name.split(".")[-1] for name in CHANGES} | {"augmentation", "optimizer", "network"}
LEAVES |= {"pretrain", "kmeans", "clustering", *vars(Augmentation()), "config"}


def is_config_or_names_a_field(make):
    """Check that it makes a configuration, or raises one line that names a field."""
    try:
        config = make()
    except ValueError as error:
        message = str(error)
        assert "\n" not in message
        assert any(name in message for name in LEAVES)
        assert len(message) < 600
    else:
        assert Config.from_json(config.to_json()) == config
        assert hash(Config.from_dict(config.to_dict())) == hash(config)


fuzzed = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.usefixtures("unchecked")
@fuzzed
@given(name=st.sampled_from([*CHANGES, *sorted(LEAVES), "augmentation.max_zoom"]), value=anything)
def test_any_value_of_a_field_is_taken_or_named(name, value):
    base = Config(3, image_shape=(8, 8))
    is_config_or_names_a_field(lambda: base.replace({name: value}))
    *parents, leaf = name.split(".")
    values = base.to_dict()
    target = values
    for parent in parents:
        target = target[parent]
    target[leaf] = value
    is_config_or_names_a_field(lambda: Config.from_dict(values))


@pytest.mark.usefixtures("unchecked")
@fuzzed
@given(values=anything, key=anything)
def test_any_value_for_all_fields_is_taken_or_named(values, key):
    is_config_or_names_a_field(lambda: Config.from_dict(values))
    is_config_or_names_a_field(lambda: Config(3).replace(values))
    is_config_or_names_a_field(lambda: Config.from_json(values))
    is_config_or_names_a_field(lambda: Config(values))
    is_config_or_names_a_field(lambda: Config(3, values))
    is_config_or_names_a_field(lambda: Config(3, network=values, image_shape=values))
    is_config_or_names_a_field(
        lambda: preset_config("fast", n_clusters=3, n_rows=9, image_shape=values)
    )
    is_config_or_names_a_field(lambda: preset_config("fast", n_clusters=values, n_rows=9))
    for arguments in ({"preset": values}, {"n_rows": values}, {"dataset": values}):
        given = {"preset": "fast", "n_clusters": 3, "n_rows": 9} | arguments
        with contextlib.suppress(ValueError):
            assert preset_config(given.pop("preset"), **given)
    try:
        hash(key)
    except TypeError:
        return
    is_config_or_names_a_field(lambda: Config.from_dict({"n_clusters": 3, key: 1}))
    is_config_or_names_a_field(lambda: Config(3).replace({key: 1}))


def test_a_recursive_value_is_invalid():
    circle = {}
    circle["pretrain"] = circle
    rejected(lambda: Config(3).replace({"pretrain": circle}), "pretrain.pretrain")
    rejected(lambda: Config.from_dict(circle), "pretrain.pretrain")


@pytest.mark.parametrize(
    ("make", "needed"),
    [
        (lambda: Config(3, network={"latent_dim": 2}), "network: expected a NetworkConfig"),
        (lambda: Config(3, clustering=None), "clustering: expected a ClusteringConfig, got None"),
        (lambda: ClusteringConfig(optimizer="adam"), "optimizer: expected a OptimizerConfig"),
        (lambda: PretrainConfig(optimizer={}), "optimizer: expected a OptimizerConfig, got {}"),
        (lambda: NetworkConfig(hidden_dims=8), "hidden_dims: expected a list of integers, got 8"),
        (
            lambda: KMeansConfig(overclustering_factors=()),
            "overclustering_factors: expected at least one value",
        ),
        (lambda: GraphConfig(eigenvectors=()), "eigenvectors: expected at least one value"),
        (lambda: GraphConfig(diffusion_times=()), "diffusion_times: expected at least one value"),
        (
            lambda: KMeansConfig(select="modularity", overclustering_factors=(6,)),
            "overclustering_factors: expected 1 for select=modularity, got (6,); graph.subclusters",
        ),
        (lambda: ClusteringConfig(freeze_encoder="no"), "expected true or false, got 'no'"),
        (lambda: Config(3, augmentation=Augmentation(1.0)), "expected image_shape as well"),
    ],
)
def test_invalid_arguments_of_the_classes_are_named(make, needed):
    rejected(make, needed)


@pytest.mark.parametrize(
    ("values", "needed"),
    [
        ({}, "n_clusters"),
        ({"n_cluster": 3}, "unknown config field 'n_cluster'; known: n_clusters, scaling"),
        ({"n_clusters": 3, "clustering": {"alhpa": 1}}, "'clustering.alhpa'; known: alpha, tol"),
        (
            {"n_clusters": 3, "pretrain": {"optimizer": {"lr": 1}}},
            "'pretrain.optimizer.lr'; known: name, learning_rate",
        ),
        ({3: 3}, "unknown config field '3'"),
        ([], "config: expected an object, got []"),
        (None, "config: expected an object, got None"),
    ],
)
def test_invalid_dictionaries_raise(values, needed):
    rejected(lambda: Config.from_dict(values), needed)


@pytest.mark.parametrize(
    "name",
    ["alpha", "clustering.alhpa", "clusterin.alpha", "clustering.alpha.x", "", ".", "scale."],
)
def test_replace_raises_for_unknown_names(name):
    rejected(lambda: Config(3).replace({name: 1}), f"unknown config field {name!r}")


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("", "expected JSON, got an error"),
        ("{", "expected JSON, got an error"),
        ('{"n_clusters": 3', "expected JSON, got an error"),
        ("[3]", "expected a JSON object, got list"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"n_clusters": ' + "9" * 5000 + "}", "expected JSON, got an error"),
        ('{"n_clusters": 1e400}', "n_clusters: expected an integer >= 1, got inf"),
        ('{"n_clusters": -1e400}', "n_clusters: expected an integer >= 1, got -inf"),
        ("3", "expected a JSON object, got int"),
        ("null", "expected a JSON object, got NoneType"),
        ('{"n_clusters": NaN}', "n_clusters: expected an integer >= 1, got nan"),
        ('{"n_clusters": 3, "preset": "fast"}', "unknown config field 'preset'"),
    ],
)
def test_invalid_json_raises(tmp_path, text, needed):
    rejected(lambda: Config.from_json(text), needed)
    path = tmp_path / "config.json"
    path.write_text(text)
    rejected(lambda: read_config(path), str(path), needed)


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00{")
    for name in ("absent", "bytes", "."):
        rejected(lambda name=name: read_config(tmp_path / name), str(tmp_path / name))


def test_a_file_is_read(tmp_path):
    config = preset_config("paper", n_clusters=4, n_rows=1, dataset="reuters10k")
    (tmp_path / "config.json").write_text(config.to_json())
    assert read_config(tmp_path / "config.json") == config
    assert read_config(str(tmp_path / "config.json")) == config


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_alias_of_optax_is_an_optimizer_and_weight_decay_is_for_those_that_have_it(name):
    assert Config(3).replace({"pretrain.optimizer.name": name}).pretrain.optimizer.name == name
    changes = {"clustering.optimizer.name": name, "clustering.optimizer.weight_decay": 0.25}
    if takes_weight_decay(name):
        assert Config(3).replace(changes).clustering.optimizer.weight_decay == 0.25
    else:
        needed = f"weight_decay: expected 0 for {name}, which has none; got 0.25"
        rejected(lambda: Config(3).replace(changes), needed)
        rejected(lambda: OptimizerConfig(name, weight_decay=0.25), needed)


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({"network.kind": "conv", "image_shape": None}, "network.kind: expected image_shape"),
        ({"network.channels": []}, "kernel_sizes: expected one for each of channels, at least one"),
        ({"network.kernel_sizes": []}, "got () for channels (32, 64, 128)"),
        ({"network.channels": [], "network.kernel_sizes": []}, "at least one; got () for channels"),
        ({"network.channels": [8, 16]}, "got (5, 5, 3) for channels (8, 16)"),
        ({"network.kernel_sizes": [3] * 4}, "got (3, 3, 3, 3) for channels (32, 64, 128)"),
        ({"network.channels": [1] * 100}, "channels: expected fewer than 100 layers, got 100"),
        ({"network.kernel_sizes": [1] * 100}, "kernel_sizes: expected fewer than 100 layers"),
    ],
)
def test_convolutions_that_cannot_be_built_are_invalid(fields, needed):
    rejected(lambda: Config(3, image_shape=(8, 8)).replace(fields), needed)
