import contextlib
import copy
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
from jdec.trainer.config import (
    PRESETS,
    Budget,
    ClusteringConfig,
    Config,
    KMeansConfig,
    NetworkConfig,
    OptimizerConfig,
    PretrainConfig,
    preset_config,
    read_config,
)

DATASETS = {
    "": None,
    "digits": (8, 8),
    "mnist": (28, 28),
    "fashion_mnist": (28, 28),
    "stl10": None,
    "cifar10": None,
    "reuters": None,
    "reuters10k": None,
}


def refused(make, *needed):
    with pytest.raises(ValueError, match=re.escape(needed[0])) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    for text in needed:
        assert text in message
    return message


def flat_names(values, prefix=""):
    names = []
    for name, value in values.items():
        names += (
            flat_names(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
        )
    return names


# To and from JSON.


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("preset", ["paper", "fast"])
def test_presets_survive_json(preset, dataset):
    config = preset_config(
        preset, n_clusters=7, n_rows=5000, dataset=dataset, image_shape=DATASETS[dataset]
    )
    again = Config.from_json(config.to_json())
    assert again == config
    assert hash(again) == hash(config)
    assert again.differences(config) == []
    assert Config.from_dict(config.to_dict()) == config


positive = st.floats(1e-30, 1e30)
not_negative = st.floats(0, 2.0**99, width=32, allow_subnormal=False)
fractions = st.floats(0, 1, exclude_max=True, width=32, allow_subnormal=False)
counts = st.integers(1, 2**31 - 1)
widths = st.integers(1, 40_000)
optimizers = st.builds(
    OptimizerConfig,
    name=st.sampled_from(["sgd", "adam"]),
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
    network=st.builds(NetworkConfig, st.lists(widths, max_size=5), widths),
    pretrain=st.builds(PretrainConfig, corrupt_data=st.booleans(), optimizer=optimizers),
    kmeans=st.builds(KMeansConfig, n_init=widths, tol=not_negative),
    clustering=st.builds(ClusteringConfig, freeze_encoder=st.booleans(), optimizer=optimizers),
)


@given(config=configs)
def test_any_config_survives_json(config):
    again = Config.from_json(config.to_json())
    assert again == config
    assert hash(again) == hash(config)


def test_left_out_fields_take_their_defaults():
    config = Config.from_json('{"n_clusters": 4, "clustering": {"optimizer": {"name": "sgd"}}}')
    assert config == Config(4, clustering=ClusteringConfig(optimizer=OptimizerConfig("sgd")))


def test_numbers_of_numpy_become_plain_ones():
    config = Config(
        np.int64(3),
        scale=np.float32(0.5),
        network=NetworkConfig(np.array([4, 5]), np.int32(2)),
        clustering=ClusteringConfig(freeze_encoder=np.bool_(True)),
    )
    plain = Config(
        3,
        scale=0.5,
        network=NetworkConfig((4, 5), 2),
        clustering=ClusteringConfig(freeze_encoder=True),
    )
    assert config.to_json() == plain.to_json()
    assert type(config.n_clusters) is type(config.network.hidden_dims[0]) is int
    assert type(config.scale) is float
    assert type(config.clustering.freeze_encoder) is bool
    assert Config.from_json(config.to_json()) == config == plain
    assert config.replace({"scale": 0.5}) == plain


def test_lists_become_tuples_so_that_it_can_be_hashed():
    config = Config(2, image_shape=[4, 4], network=NetworkConfig([3, 2]))
    assert config.image_shape == (4, 4)
    assert config.network.hidden_dims == (3, 2)
    assert {config: 1}[Config(2, image_shape=(4, 4), network=NetworkConfig((3, 2)))] == 1


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
    config = Config(3)
    others = [config.replace({name: value}) for name, value in CHANGES.items()]
    assert len({config, *others}) == len(others) + 1


# Another value for every field there is.
CHANGES = {
    "n_clusters": 4,
    "scaling": "minmax",
    "scale": 2.0,
    "image_shape": [5, 5],
    "network.hidden_dims": [3],
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
    "kmeans.oversampling": [1, 7],
    "kmeans.select": "divergence",
    "clustering.alpha": 2.0,
    "clustering.tol": 0.0,
    "clustering.update_interval": 1,
    "clustering.max_intervals": 0,
    "clustering.batch_size": 1,
    "clustering.batch_order": "sequential",
    "clustering.corruption_rate": 0.1,
    "clustering.freeze_encoder": True,
    "clustering.reset_optimizer": True,
}
for _phase in ("pretrain", "clustering"):
    CHANGES |= {
        f"{_phase}.optimizer.name": "sgd",
        f"{_phase}.optimizer.learning_rate": 0.5,
        f"{_phase}.optimizer.schedule": "cosine",
        f"{_phase}.optimizer.decay_every": 1,
        f"{_phase}.optimizer.decay_rate": 0.5,
        f"{_phase}.optimizer.momentum": 0.0,
        f"{_phase}.optimizer.momentum_warmup_steps": 1,
        f"{_phase}.optimizer.bias_multiplier": 3.0,
        f"{_phase}.optimizer.weight_decay": 0.5,
    }


def test_every_field_can_be_replaced_by_its_dotted_name():
    config = Config(3)
    names = [name for name in flat_names(config.to_dict()) if not name.startswith("augmentation")]
    assert sorted(names) == sorted(CHANGES)
    for name, value in CHANGES.items():
        changed = config.replace({name: value})
        assert config.differences(changed) == [
            f"{name}: {_at(config, name)!r} against {_at(changed, name)!r}"
        ]
        assert _at(changed, name) == value


def _at(config, name):
    values = config.to_dict()
    for part in name.split("."):
        values = values[part]
    return values


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


# Refusals.

BAD_VALUES = [
    *(("n_clusters", value) for value in (0, -1, 2.0, "3", True, None, [3], math.nan)),
    *(("scaling", value) for value in ("zscore", "", None, 1, ["rms"])),
    *(("scale", value) for value in (0, -1.0, math.nan, math.inf, "1", None, True, [1.0])),
    *(("image_shape", value) for value in ([8], [8, 0], [8, 8, 3, 1], 8, "88", [8.0, 8.0], [])),
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
    *(("kmeans.oversampling", value) for value in (3, [0], [2.0], None)),
    ("kmeans.select", "best"),
    *(("kmeans.tol", value) for value in (-1e-9, math.nan)),
    *(("clustering.alpha", value) for value in (0, -1, math.nan, math.inf, "1", None, True)),
    *(("clustering.tol", value) for value in (-0.1, math.nan, "0.1")),
    *(("clustering.update_interval", value) for value in (0, -10, 2.5)),
    *(("clustering.max_intervals", value) for value in (-1, 1.5, math.inf)),
    ("clustering.batch_size", 0),
    ("clustering.batch_order", "Random"),
    *(("clustering.corruption_rate", value) for value in (1, -0.1, "0.1")),
    *(("clustering.freeze_encoder", value) for value in ("no", 0, None)),
    ("clustering.reset_optimizer", "false"),
    ("clustering.optimizer.name", "adamw"),
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
def test_bad_values_are_refused_by_name(name, value):
    base = Config(3, image_shape=(8, 8))
    message = refused(lambda: base.replace({name: value}), name.split(".")[-1], "expected", "got")
    elements = value if isinstance(value, list) else []
    assert any(repr(got) in message for got in (value, _as_tuple(value), *elements))
    values = base.to_dict()
    *parents, leaf = name.split(".")
    target = values
    for parent in parents:
        target = target[parent]
    target[leaf] = value
    assert refused(lambda: Config.from_dict(values), leaf) == message
    assert refused(lambda: Config.from_json(json.dumps(values)), leaf, "expected", "got")


HUGE = [2**31, 2**63, 10**400, 10**5000]
COUNTS = [
    *("n_clusters", "network.latent_dim", "pretrain.layerwise_steps", "pretrain.finetune_steps"),
    *("pretrain.batch_size", "kmeans.n_init", "kmeans.max_iter", "clustering.batch_size"),
    *("clustering.update_interval", "clustering.max_intervals"),
    *("pretrain.optimizer.decay_every", "clustering.optimizer.momentum_warmup_steps"),
]
LISTS = ["image_shape", "network.hidden_dims", "kmeans.oversampling"]
FLOATS = [
    *("scale", "pretrain.loss_scale", "kmeans.tol", "clustering.alpha", "clustering.tol"),
    *("pretrain.optimizer.learning_rate", "clustering.optimizer.weight_decay"),
    *("clustering.optimizer.decay_rate", "clustering.optimizer.bias_multiplier"),
    *("augmentation.max_shift", "augmentation.max_rotation", "augmentation.max_shear"),
]


@pytest.mark.parametrize("value", HUGE, ids=["2^31", "2^63", "10^400", "10^5000"])
@pytest.mark.parametrize("name", COUNTS + LISTS)
def test_integers_that_no_count_can_be_are_refused_by_name(name, value):
    base = Config(3, image_shape=(8, 8))
    given = [4, value] if name in LISTS else value
    leaf = name.split(".")[-1]
    message = refused(lambda: base.replace({name: given}), f"{leaf}: expected", "got")
    assert len(message) < 300
    refused(lambda: base.replace({name: [4, -value] if name in LISTS else -value}), f"{leaf}: ")
    if value < 10**1000:  # beyond, Python reads no integers
        *parents, leaf = name.split(".")
        values = json.dumps({leaf: given})
        for parent in reversed(parents):
            values = json.dumps({parent: json.loads(values)})
        text = json.dumps({"n_clusters": 3} | json.loads(values))
        refused(lambda: Config.from_json(text), f"{leaf}: expected", "got")


@pytest.mark.parametrize("value", [1e39, 1e300, 10**400, math.inf, -math.inf, math.nan, 1e-40])
@pytest.mark.parametrize("name", FLOATS)
def test_numbers_beyond_float32_are_refused_by_name(name, value):
    base = Config(3, image_shape=(8, 8))
    refused(lambda: base.replace({name: value}), f"{name.split('.')[-1]}: expected", "got")


@pytest.mark.parametrize("name", ["pretrain.corruption_rate", "clustering.optimizer.momentum"])
def test_a_share_that_float32_rounds_to_all_is_refused(name):
    refused(lambda: Config(3).replace({name: 1 - 1e-12}), f"{name.split('.')[-1]}: expected")


def test_a_json_number_that_overflows_is_refused():
    refused(lambda: Config.from_json('{"n_clusters": 3, "scale": 1e400}'), "scale: expected", "inf")


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({"clustering.max_intervals": 2**20, "clustering.update_interval": 2**20}, "max_intervals"),
        ({"network.hidden_dims": [2**20, 2**20]}, "hidden_dims: expected layers of at most"),
        ({"network.hidden_dims": [2**20], "network.latent_dim": 2**20}, "hidden_dims: expected"),
        ({"network.hidden_dims": [2] * 1000}, "hidden_dims: expected fewer than 100 layers"),
        ({"kmeans.oversampling": [2] * 1000}, "oversampling: expected at least one value and at"),
        ({"kmeans.n_init": 10**7}, "n_init: expected an integer <= 1000000, got 10000000"),
    ],
)
def test_sizes_that_only_together_are_too_large_are_refused(fields, needed):
    refused(lambda: Config(3).replace(fields), needed, "got")


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


def stays_in_our_words(make):
    """Whether it makes a configuration; else the refusal is a line that names a field."""
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
def test_whatever_a_field_is_given_it_is_refused_by_name_or_taken(name, value):
    base = Config(3, image_shape=(8, 8))
    stays_in_our_words(lambda: base.replace({name: value}))
    *parents, leaf = name.split(".")
    values = base.to_dict()
    target = values
    for parent in parents:
        target = target[parent]
    target[leaf] = value
    stays_in_our_words(lambda: Config.from_dict(values))


@pytest.mark.usefixtures("unchecked")
@fuzzed
@given(values=anything, key=anything)
def test_whatever_stands_for_all_fields_is_refused_or_taken(values, key):
    stays_in_our_words(lambda: Config.from_dict(values))
    stays_in_our_words(lambda: Config(3).replace(values))
    stays_in_our_words(lambda: Config.from_json(values))
    stays_in_our_words(lambda: Config(values))
    stays_in_our_words(lambda: Config(3, values))
    stays_in_our_words(lambda: Config(3, network=values, image_shape=values))
    stays_in_our_words(lambda: preset_config("fast", n_clusters=3, n_rows=9, image_shape=values))
    stays_in_our_words(lambda: preset_config("fast", n_clusters=values, n_rows=9))
    for arguments in ({"preset": values}, {"n_rows": values}, {"dataset": values}):
        given = {"preset": "fast", "n_clusters": 3, "n_rows": 9} | arguments
        with contextlib.suppress(ValueError):
            assert preset_config(given.pop("preset"), **given)
    try:
        hash(key)
    except TypeError:
        return
    stays_in_our_words(lambda: Config.from_dict({"n_clusters": 3, key: 1}))
    stays_in_our_words(lambda: Config(3).replace({key: 1}))


def test_a_value_within_itself_is_refused():
    circle = {}
    circle["pretrain"] = circle
    refused(lambda: Config(3).replace({"pretrain": circle}), "pretrain.pretrain")
    refused(lambda: Config.from_dict(circle), "pretrain.pretrain")


@pytest.mark.parametrize(
    ("make", "needed"),
    [
        (lambda: Config(3, network={"latent_dim": 2}), "network: expected a NetworkConfig"),
        (lambda: Config(3, clustering=None), "clustering: expected a ClusteringConfig, got None"),
        (lambda: ClusteringConfig(optimizer="adam"), "optimizer: expected a OptimizerConfig"),
        (lambda: PretrainConfig(optimizer={}), "optimizer: expected a OptimizerConfig, got {}"),
        (lambda: NetworkConfig(hidden_dims=8), "hidden_dims: expected a list of integers, got 8"),
        (lambda: KMeansConfig(oversampling=()), "oversampling: expected at least one value"),
        (lambda: ClusteringConfig(freeze_encoder="no"), "expected true or false, got 'no'"),
        (lambda: Config(3, augmentation=Augmentation(1.0)), "expected image_shape as well"),
    ],
)
def test_bad_arguments_of_the_classes_are_refused(make, needed):
    refused(make, needed)


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
def test_bad_dictionaries_are_refused(values, needed):
    refused(lambda: Config.from_dict(values), needed)


@pytest.mark.parametrize(
    "name",
    ["alpha", "clustering.alhpa", "clusterin.alpha", "clustering.alpha.x", "", ".", "scale."],
)
def test_replace_refuses_unknown_names(name):
    refused(lambda: Config(3).replace({name: 1}), f"unknown config field {name!r}")


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
def test_bad_json_is_refused(tmp_path, text, needed):
    refused(lambda: Config.from_json(text), needed)
    path = tmp_path / "config.json"
    path.write_text(text)
    refused(lambda: read_config(path), str(path), needed)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00{")
    for name in ("absent", "bytes", "."):
        refused(lambda name=name: read_config(tmp_path / name), str(tmp_path / name))


def test_a_file_is_read(tmp_path):
    config = preset_config("paper", n_clusters=4, n_rows=1, dataset="reuters10k")
    (tmp_path / "config.json").write_text(config.to_json())
    assert read_config(tmp_path / "config.json") == config
    assert read_config(str(tmp_path / "config.json")) == config


def test_differences_name_both_values():
    one = Config(3)
    other = one.replace({"clustering.alpha": 2.0, "network.hidden_dims": [4]})
    assert one.differences(other) == [
        "network.hidden_dims: [500, 500, 2000] against [4]",
        "clustering.alpha: 1.0 against 2.0",
    ]
    assert other.differences(one)[1] == "clustering.alpha: 2.0 against 1.0"


# Presets.


def paper(dataset="", n_rows=70_000):
    return preset_config(
        "paper",
        n_clusters=10,
        n_rows=n_rows,
        dataset=dataset,
        image_shape=DATASETS[dataset],
    )


def test_paper_has_the_authors_pretraining():
    settings = paper("mnist").pretrain
    assert settings.layerwise_steps == 50_000
    assert settings.finetune_steps == 100_000
    assert settings.batch_size == 256
    assert settings.batch_order == "sequential"
    assert settings.loss_scale == 0.5
    assert settings.rows == "train"
    # Noise on codes and on the inputs of later layers; none on the data, none in fine-tuning.
    assert settings.corruption_rate == 0.2
    assert settings.corrupt_data is False
    assert settings.finetune_corruption_rate == 0


def test_paper_has_the_authors_solver():
    assert paper("mnist").pretrain.optimizer == OptimizerConfig(
        name="sgd",
        learning_rate=0.1,
        schedule="step",
        decay_every=20_000,
        decay_rate=0.1,
        momentum=0.9,
        momentum_warmup_steps=1000,
        bias_multiplier=2.0,
        weight_decay=0.0,
    )


def test_paper_has_the_authors_network():
    assert paper("mnist").network == NetworkConfig((500, 500, 2000), 10, "normal")


def test_paper_has_the_authors_clustering():
    config = paper("mnist")
    settings = config.clustering
    assert settings.alpha == 1
    assert settings.tol == 0.001
    assert settings.batch_size == 256
    assert settings.batch_order == "sequential"
    assert settings.reset_optimizer is True
    assert settings.corruption_rate == 0
    assert settings.freeze_encoder is False
    assert (settings.optimizer.name, settings.optimizer.schedule) == ("sgd", "constant")
    assert (settings.optimizer.learning_rate, settings.optimizer.momentum) == (0.01, 0.9)
    assert settings.optimizer.momentum_warmup_steps == 0
    assert settings.optimizer.weight_decay == 0
    assert settings.max_intervals >= 100
    assert (config.kmeans.n_init, config.kmeans.oversampling) == (20, (1,))
    assert config.kmeans.select == "inertia"


@pytest.mark.parametrize(
    ("dataset", "update_interval", "scaling", "scale"),
    [
        ("mnist", 160, "none", 0.02),
        ("stl10", 40, "none", 1),
        ("cifar10", 40, "none", 1),
        ("reuters", 20, "none", math.sqrt(2000)),
        ("reuters10k", 20, "none", math.sqrt(2000)),
    ],
)
def test_paper_has_the_authors_constants_of_each_data_set(dataset, update_interval, scaling, scale):
    config = paper(dataset)
    assert config.clustering.update_interval == update_interval
    assert (config.scaling, config.scale) == (scaling, scale)


@pytest.mark.parametrize("dataset", DATASETS)
def test_paper_moves_no_images_and_ignores_the_number_of_rows(dataset):
    assert not paper(dataset).augmentation
    assert paper(dataset, 100) == paper(dataset, 10**6)


@given(n_rows=st.integers(1, 10**8))
def test_steps_of_fast_follow_the_number_of_rows(n_rows):
    config = preset_config("fast", n_clusters=3, n_rows=n_rows)
    steps, interval = config.pretrain.finetune_steps, config.clustering.update_interval
    assert steps == min(max(math.ceil(15 * n_rows / 256), 2000), 4000)
    assert interval == min(max(math.ceil(n_rows / 256), 30), 300)
    assert config.pretrain.layerwise_steps == 0


@given(
    epochs=st.floats(1e-3, 1e3),
    at_least=st.integers(1, 1000),
    more=st.integers(0, 1000),
    n_rows=st.integers(1, 10**9),
    batch_size=st.integers(1, 10**4),
)
def test_budgets_stay_within_bounds_and_grow(epochs, at_least, more, n_rows, batch_size):
    budget = Budget(epochs, at_least, at_least + more)
    steps = budget.steps(n_rows, batch_size)
    assert at_least <= steps <= at_least + more
    assert steps <= budget.steps(2 * n_rows, batch_size)
    if at_least < steps < at_least + more:
        assert (steps - 1) * batch_size < epochs * n_rows * (1 + 1e-12)
        assert steps * batch_size >= epochs * n_rows * (1 - 1e-12)


@pytest.mark.parametrize(
    ("image_shape", "moved"),
    [((28, 28), True), ((16, 16, 3), True), ((8, 8), False), ((28, 8), False), (None, False)],
)
def test_fast_moves_images_that_are_large_enough(image_shape, moved):
    config = preset_config("fast", n_clusters=3, n_rows=500, image_shape=image_shape)
    assert bool(config.augmentation) is moved
    assert config.image_shape == image_shape


def test_steps_that_a_data_set_has_of_its_own_stay():
    for dataset, fields in PRESETS["fast"].by_dataset.items():
        for n_rows in (100, 10**7):
            config = preset_config("fast", n_clusters=3, n_rows=n_rows, dataset=dataset)
            for name, value in fields.items():
                assert config.replace({name: value}) == config


def test_using_a_preset_does_not_change_it():
    """A recipe of one data set must not reach the next."""
    before = copy.deepcopy(PRESETS)
    for preset, recipe in before.items():
        plain = preset_config(preset, n_clusters=3, n_rows=500)
        for dataset in [*DATASETS, *recipe.by_dataset]:
            preset_config(preset, n_clusters=3, n_rows=500, dataset=dataset, image_shape=(28, 28))
        assert preset_config(preset, n_clusters=3, n_rows=500) == plain
    assert before == PRESETS


def test_presets_know_no_labels():
    # The same settings whatever the data set is called, except where the authors have constants.
    for dataset in ("digits", "mnist", "fashion_mnist", "own"):
        assert preset_config("fast", n_clusters=3, n_rows=500, dataset=dataset) == preset_config(
            "fast", n_clusters=3, n_rows=500
        )


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        ({"preset": "slow"}, "preset: expected one of paper, fast; got 'slow'"),
        ({"preset": None}, "preset: expected one of paper, fast; got None"),
        ({"n_rows": 0}, "n_rows: expected an integer >= 1, got 0"),
        ({"n_rows": 2**63}, "n_rows: expected an integer <= 9223372036854775807"),
        (
            {"n_rows": 10**400},
            "n_rows: expected an integer <= 9223372036854775807, got an integer of",
        ),
        ({"n_clusters": 10**400}, "n_clusters: expected an integer <= 2147483647, got an integer"),
        ({"image_shape": (2**40, 8)}, "image_shape: expected an integer <= 2147483647, got 1099"),
        ({"image_shape": 8}, "image_shape: expected a list of integers, got 8"),
        ({"image_shape": ()}, "image_shape: expected (height, width)"),
        ({"dataset": None}, "dataset: expected a name, got None"),
        ({"n_clusters": 0}, "n_clusters: expected an integer >= 1, got 0"),
        ({"image_shape": (8,)}, "image_shape: expected (height, width)"),
    ],
)
def test_bad_arguments_of_presets_are_refused(change, needed):
    arguments = {"preset": "fast", "n_clusters": 3, "n_rows": 500} | change
    refused(lambda: preset_config(arguments.pop("preset"), **arguments), needed)


def test_there_are_two_presets():
    assert sorted(PRESETS) == ["fast", "paper"]
