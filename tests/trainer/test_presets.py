import copy
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdec.trainer.config import Config, NetworkConfig, OptimizerConfig
from jdec.trainer.presets import PRESETS, StepBudget, preset_config

DATASETS = {
    "": None,
    "digits": (8, 8),
    "mnist": (28, 28),
    "fashion_mnist": (28, 28),
    "pendigits": None,
    "stl10": None,
    "cifar10": None,
    "reuters": None,
    "reuters10k": None,
}


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("preset", ["paper", "fast"])
def test_presets_round_trip_through_json(preset, dataset):
    config = preset_config(
        preset, n_clusters=7, n_rows=5000, dataset=dataset, image_shape=DATASETS[dataset]
    )
    again = Config.from_json(config.to_json())
    assert again == config
    assert hash(again) == hash(config)
    assert again.flat() == config.flat()
    assert Config.from_dict(config.to_dict()) == config


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
    assert paper("mnist").network == NetworkConfig(
        hidden_dims=(500, 500, 2000), latent_dim=10, initializer="normal"
    )


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
    assert (config.kmeans.n_init, config.kmeans.overclustering_factors) == (20, (1,))
    assert config.kmeans.select == "inertia"
    assert settings.warmup_steps == 0


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
def test_paper_augments_nothing_and_ignores_the_number_of_rows(dataset):
    assert not paper(dataset).augmentation
    assert paper(dataset, 100) == paper(dataset, 10**6)


@given(n_rows=st.integers(1, 10**8))
def test_steps_of_fast_grow_with_the_number_of_rows(n_rows):
    config = preset_config("fast", n_clusters=3, n_rows=n_rows)
    steps, interval = config.pretrain.finetune_steps, config.clustering.update_interval
    assert steps == min(max(math.ceil(2 * n_rows / 256), 1000), 6000)
    assert interval == min(max(math.ceil(n_rows / 256), 30), 300)
    assert config.clustering.warmup_steps == min(max(math.ceil(2 * n_rows / 256), 300), 600)
    assert config.pretrain.layerwise_steps == 0
    images = preset_config("fast", n_clusters=3, n_rows=n_rows, image_shape=(28, 28))
    steps = images.pretrain.finetune_steps
    assert steps == min(max(math.ceil(22 * n_rows / 256), 2000), 6000)
    assert images.clustering == config.clustering


@given(
    epochs=st.floats(1e-3, 1e3),
    min_steps=st.integers(1, 1000),
    more=st.integers(0, 1000),
    n_rows=st.integers(1, 10**9),
    batch_size=st.integers(1, 10**4),
)
def test_budgets_stay_within_bounds_and_grow(epochs, min_steps, more, n_rows, batch_size):
    budget = StepBudget(epochs, min_steps, min_steps + more)
    steps = budget.steps(n_rows, batch_size)
    assert min_steps <= steps <= min_steps + more
    assert steps <= budget.steps(2 * n_rows, batch_size)
    if min_steps < steps < min_steps + more:
        assert (steps - 1) * batch_size < epochs * n_rows * (1 + 1e-12)
        assert steps * batch_size >= epochs * n_rows * (1 - 1e-12)


@pytest.mark.parametrize(
    ("image_shape", "moved"),
    [((28, 28), True), ((16, 16, 3), True), ((8, 8), False), ((28, 8), False), (None, False)],
)
def test_fast_augments_images_that_are_large_enough(image_shape, moved):
    config = preset_config("fast", n_clusters=3, n_rows=500, image_shape=image_shape)
    assert bool(config.augmentation) is moved
    assert config.image_shape == image_shape


@pytest.mark.parametrize(
    ("image_shape", "space", "times"),
    [
        ((28, 28), "embedding", (0.0,)),
        ((16, 16, 3), "embedding", (0.0,)),
        ((8, 8), "data", (2.0, 8.0)),
        (None, "data", (2.0, 8.0)),
    ],
)
def test_fast_starts_from_the_graph_of_what_knows_more(image_shape, space, times):
    config = preset_config("fast", n_clusters=3, n_rows=500, image_shape=image_shape)
    assert (config.kmeans.select, config.graph.space) == ("modularity", space)
    assert config.graph.diffusion_times == times  # an embedding has lost its noise


def test_using_a_preset_does_not_change_it():
    """A recipe of one data set must not reach the next."""
    before = copy.deepcopy(PRESETS)
    for preset, recipe in before.items():
        plain = preset_config(preset, n_clusters=3, n_rows=500)
        for dataset in [*DATASETS, *recipe.by_dataset]:
            preset_config(preset, n_clusters=3, n_rows=500, dataset=dataset, image_shape=(28, 28))
        assert preset_config(preset, n_clusters=3, n_rows=500) == plain
    assert before == PRESETS


def test_fast_does_not_depend_on_the_name_of_the_data_set():
    for dataset in [*DATASETS, "own"]:
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
def test_invalid_arguments_raise(change, needed):
    arguments = {"preset": "fast", "n_clusters": 3, "n_rows": 500} | change
    with pytest.raises(ValueError, match=re.escape(needed)) as caught:
        preset_config(arguments.pop("preset"), **arguments)
    assert "\n" not in str(caught.value)


def test_there_are_two_presets():
    assert sorted(PRESETS) == ["fast", "paper"]
