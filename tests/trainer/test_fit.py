import subprocess
import sys
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits, make_blobs

from jdec.core.batches import Batches
from jdec.core.dec import run, self_training
from jdec.core.optimizers import apply_gradients
from jdec.core.pretraining import finetune
from jdec.core.training import scan_steps
from jdec.metrics import clustering_accuracy
from jdec.trainer import programs
from jdec.trainer.config import Config, OptimizerConfig
from jdec.trainer.fit import fit
from jdec.trainer.history import chunks
from jdec.trainer.model import assign
from jdec.trainer.programs import Plan, build_network, build_optimizer, pretraining_stages
from jdec.trainer.results import EmptyClusterWarning, warn_of_empty_clusters
from jdec.trainer.run import NotFiniteError
from jdec.trainer.scaling import fit_scaling
from jdec.trainer.sharding import RowSharding

X, Y = (array[:300] for array in load_digits(return_X_y=True))
SMALL = Config(10).replace(
    {
        "network.hidden_dims": [16],
        "network.latent_dim": 4,
        "pretrain.finetune_steps": 40,
        "pretrain.batch_size": 64,
        "kmeans.n_init": 2,
        "clustering.batch_size": 64,
        "clustering.update_interval": 10,
        "clustering.max_intervals": 3,
        "clustering.tol": 0.0,
        "clustering.optimizer.learning_rate": 1e-3,
    }
)
TINY = SMALL.replace(
    {
        "n_clusters": 2,
        "network.hidden_dims": [4],
        "network.latent_dim": 2,
        "pretrain.finetune_steps": 20,
        "pretrain.batch_size": 8,
        "clustering.batch_size": 8,
        "clustering.update_interval": 3,
        "clustering.max_intervals": 2,
    }
)
SCORES = ("acc", "nmi", "ari")


def same_bits(one, other):
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.asarray(a).dtype == np.asarray(b).dtype
        and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(leaves, others, strict=True)
    )


def arrays(result):
    """Return all arrays of a result."""
    return (
        result.model.scaling,
        result.model.params,
        result.model.centroids,
        result.labels,
        result.soft_assignment,
        result.embedding,
        result.autoencoder_params,
        result.initial,
    )


def scaled(x):
    x = x.astype(np.float32)
    return jnp.asarray(fit_scaling(x).apply(x))


def encoder_of(result):
    """Return the encoder's part of the pretrained parameters."""
    return build_network(result.model.config).encoder_params(result.autoencoder_params)


def without(history, *names):
    names = ("seconds", *names)
    return [{key: record[key] for key in record if key not in names} for record in history]


def check_result(result, x, config):
    """Check what is true of any result."""
    n, k, z = len(x), config.n_clusters, config.network.latent_dim
    assert result.labels.shape == (n,)
    assert result.labels.dtype == np.int32
    assert result.soft_assignment.shape == (n, k)
    assert result.soft_assignment.dtype == np.float32
    assert result.embedding.shape == (n, z)
    assert result.model.centroids.shape == (k, z)
    assert np.isfinite(result.embedding).all()
    np.testing.assert_allclose(result.soft_assignment.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(result.labels, result.soft_assignment.argmax(axis=1))
    assert result.model.config == config
    last = result.history[-1]
    assert last["interval"] == result.n_intervals
    np.testing.assert_array_equal(last["cluster_sizes"], np.bincount(result.labels, minlength=k))
    embedding, q = assign(result.model, np.asarray(x))
    assert same_bits((embedding, q), (result.embedding, result.soft_assignment))


@pytest.fixture(scope="module")
def result():
    return fit(jax.random.key(0), X, SMALL, y=Y)


# Result and history.


def test_result_is_consistent(result):
    check_result(result, X, SMALL)
    assert (result.n_intervals, result.stop_reason) == (3, "max_intervals")
    assert set(result.seconds) == {"pretraining", "kmeans", "clustering", "target refresh"}
    assert all(value > 0 for value in result.seconds.values())


def test_history_tells_the_phases_in_order(result):
    pretraining, clustering = result.history[:20], result.history[20:]
    assert [record["step"] for record in pretraining] == list(range(2, 41, 2))
    for record in pretraining:
        assert list(record) == ["phase", "step", "loss", "seconds"]
        assert record["phase"] == "finetune"
    assert pretraining[-1]["loss"] < 0.9 * pretraining[0]["loss"]
    assert [record["interval"] for record in clustering] == [0, 1, 2, 3]
    assert [record["step"] for record in clustering] == [0, 10, 20, 30]
    for record in clustering:
        fields = ["phase", "interval", "step", "loss", "kl", "label_change", "cluster_sizes"]
        assert list(record) == [*fields, *SCORES, "seconds"]
        assert record["phase"] == "clustering"
        assert sum(record["cluster_sizes"]) == len(X)
    assert (clustering[0]["loss"], clustering[0]["label_change"]) == (None, None)
    for record in clustering[1:]:
        assert record["loss"] > 0
        assert 0 <= record["label_change"] < 1
    seconds = [record["seconds"] for record in result.history]
    assert seconds == sorted(seconds)
    assert clustering[-1]["acc"] == clustering_accuracy(Y, result.labels)


def test_the_first_labels_are_those_of_k_means(result):
    initial = result.initial
    record = result.history[20]
    np.testing.assert_array_equal(record["cluster_sizes"], np.bincount(initial.labels))
    assert record["acc"] == clustering_accuracy(Y, initial.labels)


def test_callbacks_get_each_record_as_it_is_made():
    seen, lengths = [], []
    result = fit(
        jax.random.key(0), X, SMALL, callbacks=[seen.append, lambda _: lengths.append(len(seen))]
    )
    assert all(a is b for a, b in zip(seen, result.history, strict=True))
    assert lengths == list(range(1, len(seen) + 1))


def test_callbacks_of_two_arguments_get_a_snapshot(result):
    seen = []

    def keep(record, snapshot):
        parts = snapshot.params, snapshot.centroids, snapshot.embeddings
        seen.append((record["phase"], *parts))

    again = fit(jax.random.key(0), X, SMALL, callbacks=[keep, lambda record, extra=3: None])
    assert same_bits(arrays(again), arrays(result))
    for _, params, centroids, embeddings in seen[:20]:
        assert (centroids, embeddings) == (None, None)
        assert jax.tree.structure(params) == jax.tree.structure(result.autoencoder_params)
    assert same_bits(seen[19][1], result.autoencoder_params)
    phase, params, centroids, embeddings = seen[-1]
    assert phase == "clustering"
    assert same_bits((params, centroids), (result.model.params, result.model.centroids))
    np.testing.assert_allclose(embeddings, result.embedding, rtol=1e-5, atol=1e-5)
    assert not same_bits(seen[20][2], centroids)
    # What was kept is the caller's: training went on with other buffers.
    assert all(leaf.flags.owndata for leaf in jax.tree.leaves((params, centroids, embeddings)))


def test_a_callback_that_raises_is_named_and_does_not_end_the_fit(result):
    seen = []

    def broken(record):
        if record["phase"] == "clustering":
            raise ZeroDivisionError("no score")

    with pytest.warns(RuntimeWarning, match="callback broken raised ZeroDivisionError: no score"):
        again = fit(jax.random.key(0), X, SMALL, callbacks=[broken, seen.append])
    assert same_bits(arrays(again), arrays(result))
    assert len(seen) == len(result.history)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_callback_may_end_the_fit(error):
    def leave(record):
        raise error

    with pytest.raises(error):
        fit(jax.random.key(0), X, SMALL, callbacks=[leave])


def test_labels_have_no_influence(result):
    """Training with classes, with shuffled ones, with text and without gives the same bits."""
    shuffled = np.random.default_rng(0).permutation(Y)
    for y in (None, shuffled, [f"class {label}" for label in Y], np.zeros(len(X))):
        other = fit(jax.random.key(0), X, SMALL, y=y)
        assert same_bits(arrays(other), arrays(result))
        assert without(other.history, *SCORES) == without(result.history, *SCORES)
        assert ("acc" in other.history[-1]) is (y is not None)


def test_the_key_determines_the_result(result):
    again = fit(jax.random.key(0), X, SMALL, y=Y)
    assert same_bits(arrays(again), arrays(result))
    assert without(again.history) == without(result.history)
    other = fit(jax.random.key(1), X, SMALL, y=Y)
    assert not same_bits(other.embedding, result.embedding)
    assert other.history[0]["loss"] != result.history[0]["loss"]


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.float32),
        lambda x: x.astype(np.int16),
        lambda x: x.tolist(),
        lambda x: np.asfortranarray(x),
        lambda x: jnp.asarray(x, jnp.float32),
    ],
)
def test_the_same_numbers_in_another_form_give_the_same_bits(result, convert):
    other = fit(jax.random.key(0), convert(X), SMALL)
    assert same_bits(arrays(other), arrays(result))


def test_arguments_are_left_as_they_are():
    # Without a copy, donation would delete the caller's array.
    x = jnp.asarray(X / 16, jnp.float32)
    key = jax.random.key(0)
    before = np.array(x)
    fit(key, x, SMALL.replace({"scaling": "none"}))
    np.testing.assert_array_equal(x, before)
    assert jax.random.key_data(key).tolist() == [0, 0]


def test_nothing_is_printed_unless_asked_for(capfd):
    fit(jax.random.key(0), X, SMALL)
    assert capfd.readouterr() == ("", "")
    fit(jax.random.key(0), X, SMALL, progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "pretraining, finetune: 100%" in shown.err
    assert "clustering: 100%" in shown.err
    assert "3/3" in shown.err


def test_nothing_is_written_without_a_workdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(jax.random.key(0), X, SMALL)
    assert list(tmp_path.iterdir()) == []


# Learning.


def test_clustering_improves_on_the_pretrained_embedding():
    """Measured over keys 0, 1, 2: from 0.67, 0.69, 0.78 to 0.72, 0.72, 0.80."""
    x, y = load_digits(return_X_y=True)
    config = Config(10).replace(
        {
            "network.hidden_dims": [128],
            "pretrain.finetune_steps": 1000,
            "kmeans.n_init": 5,
            "clustering.update_interval": 20,
            "clustering.max_intervals": 15,
            "clustering.optimizer.learning_rate": 1e-3,
        }
    )
    results = [fit(jax.random.key(seed), x, config, y=y) for seed in range(3)]
    start = [next(r["acc"] for r in result.history if "acc" in r) for result in results]
    end = [result.history[-1]["acc"] for result in results]
    assert min(end) > 0.6
    assert np.mean(end) > np.mean(start) + 0.01
    for result in results:
        losses = [r["loss"] for r in result.history if r["phase"] == "finetune"]
        assert losses[-1] < 0.5 * losses[0]
        # Self-training sharpens the assignment.
        _, before = assign(result.model._replace(**_start(result)), x)
        assert result.soft_assignment.max(axis=1).mean() > before.max(axis=1).mean() + 0.05


def test_bfloat16_learns_as_float32_does():
    """Measured over keys 0, 1, 2: 0.80, 0.78, 0.84 against 0.80, 0.76, 0.84."""
    config = SMALL.replace(
        {
            "network.hidden_dims": [64],
            "pretrain.finetune_steps": 500,
            "kmeans.n_init": 5,
            "clustering.max_intervals": 5,
        }
    )
    results = [
        fit(jax.random.key(0), X, config.replace({"network.precision": precision}), y=Y)
        for precision in ("float32", "bfloat16")
    ]
    accuracies = [result.history[-1]["acc"] for result in results]
    assert min(accuracies) > 0.6
    assert abs(accuracies[0] - accuracies[1]) < 0.1
    check_result(results[1], X, config.replace({"network.precision": "bfloat16"}))
    for leaf in jax.tree.leaves((results[1].model.params, results[1].model.centroids)):
        assert leaf.dtype == np.float32
    # It is another computation, and not the same under another name.
    assert not same_bits(results[0].embedding, results[1].embedding)


def _start(result):
    return {"params": encoder_of(result), "centroids": result.initial.centroids}


def test_separate_blobs_are_found():
    x, y = make_blobs(300, centers=10, n_features=64, cluster_std=0.3, random_state=0)
    config = SMALL.replace({"pretrain.finetune_steps": 800, "kmeans.n_init": 20})
    result = fit(jax.random.key(0), x, config, y=y)
    assert result.history[-1]["acc"] == 1


# The same as the functional core.


def test_host_loop_is_dec_run_bit_for_bit(result):
    """As test_self_training.py shows at full optimisation."""
    *_, cluster_key = jax.random.split(jax.random.key(0), 4)
    settings = SMALL.clustering
    algorithm = self_training(
        build_network(SMALL).encode, build_optimizer(settings.optimizer, 30), alpha=settings.alpha
    )
    start = jax.device_put((encoder_of(result), result.initial.centroids))
    final, targets = jax.jit(
        partial(
            run,
            algorithm=algorithm,
            tol=settings.tol,
            max_intervals=settings.max_intervals,
            update_interval=settings.update_interval,
            batches=Batches(settings.batch_size, settings.batch_order),
        )
    )(cluster_key, algorithm.init(*start), scaled(X))
    assert same_bits(final.params.encoder, result.model.params)
    assert same_bits(final.params.centroids, result.model.centroids)
    np.testing.assert_array_equal(targets.labels, result.labels)
    last = result.history[-1]
    assert (float(targets.label_change), float(targets.kl)) == (last["label_change"], last["kl"])
    assert int(final.interval) == result.n_intervals


def test_run_stops_where_the_host_loop_stops(result):
    """With each tolerance between two label changes that were seen."""
    changes = [record["label_change"] for record in result.history[21:]]
    tol = sorted(changes)[1] + 1e-6
    expected = 1 + next(i for i, change in enumerate(changes) if change < tol)
    config = SMALL.replace({"clustering.tol": tol})
    other = fit(jax.random.key(0), X, config)
    assert (other.n_intervals, other.stop_reason) == (expected, "tol")
    assert without(other.history) == without(result.history[: 21 + expected], *SCORES)


def test_one_interval_is_run_in_any_case():
    result = fit(jax.random.key(0), X, SMALL.replace({"clustering.tol": 2.0}))
    assert (result.n_intervals, result.stop_reason) == (1, "tol")


# Switches.


def test_a_frozen_encoder_keeps_its_parameters():
    config = SMALL.replace({"clustering.freeze_encoder": True})
    result = fit(jax.random.key(0), X, config)
    check_result(result, X, config)
    assert same_bits(result.model.params, encoder_of(result))
    assert not same_bits(result.model.centroids, result.initial.centroids)


def test_an_encoder_that_is_not_frozen_moves(result):
    assert not same_bits(result.model.params, encoder_of(result))


def test_without_intervals_the_k_means_result_is_kept(result):
    config = SMALL.replace({"clustering.max_intervals": 0})
    other = fit(jax.random.key(0), X, config)
    check_result(other, X, config)
    assert (other.n_intervals, other.stop_reason) == (0, "max_intervals")
    assert same_bits(other.model.params, encoder_of(other))
    assert same_bits(other.model.centroids, other.initial.centroids)
    np.testing.assert_array_equal(other.labels, other.initial.labels)
    assert same_bits(other.initial, result.initial)


def test_the_greedy_stage_trains_layer_by_layer():
    config = SMALL.replace({"pretrain.layerwise_steps": 4, "pretrain.finetune_steps": 4})
    result = fit(jax.random.key(0), X, config)
    check_result(result, X, config)
    expected = [(name, step) for name in ("layer 1", "layer 2", "finetune") for step in range(1, 5)]
    pretraining = [record for record in result.history if record["phase"] != "clustering"]
    assert [(record["phase"], record["step"]) for record in pretraining] == expected
    assert [stage.layer for stage in pretraining_stages(config, build_network(config))] == [
        *(0, 1, None)
    ]


@pytest.mark.parametrize("layerwise_steps", [0, 4])
def test_stages_of_no_steps_are_left_out(layerwise_steps):
    config = SMALL.replace(
        {"pretrain.layerwise_steps": layerwise_steps, "pretrain.finetune_steps": 0}
    )
    result = fit(jax.random.key(0), X, config)
    check_result(result, X, config)
    phases = [record["phase"] for record in result.history]
    assert phases.count("finetune") == 0
    assert phases.count("layer 1") == phases.count("layer 2") == layerwise_steps
    init_key = jax.random.split(jax.random.key(0), 4)[0]
    untrained = jax.jit(partial(build_network(config).init, n_features=64))(init_key)
    assert same_bits(result.autoencoder_params, untrained) is (layerwise_steps == 0)


@pytest.mark.parametrize("order", ["random", "sequential"])
def test_rows_beyond_the_training_split_are_not_pretrained_on(order):
    config = SMALL.replace(
        {"scaling": "none", "pretrain.rows": "train", "pretrain.batch_order": order}
    )
    x, n_train = X / 6, 200
    changed = x.copy()
    changed[n_train:] *= 0.9
    one = fit(jax.random.key(0), x, config, n_train=n_train)
    other = fit(jax.random.key(0), changed, config, n_train=n_train)
    pretraining = [
        [r["loss"] for r in result.history if r["phase"] == "finetune"] for result in (one, other)
    ]
    assert pretraining[0] == pretraining[1]
    assert same_bits(one.autoencoder_params, other.autoencoder_params)
    # All rows are clustered.
    assert not same_bits(one.initial.centroids, other.initial.centroids)
    assert len(one.labels) == len(x)


def test_all_rows_are_pretrained_on_unless_asked_otherwise(result):
    other = fit(jax.random.key(0), X, SMALL, n_train=200)
    assert same_bits(arrays(other), arrays(result))
    config = SMALL.replace({"pretrain.rows": "train"})
    restricted = fit(jax.random.key(0), X, config, n_train=200)
    assert not same_bits(restricted.autoencoder_params, result.autoencoder_params)
    everything = fit(jax.random.key(0), X, config)
    assert same_bits(everything.autoencoder_params, result.autoencoder_params)


def test_unlabeled_rows_are_pretrained_on_and_nothing_else():
    config = SMALL.replace({"scaling": "none"})
    joined = fit(jax.random.key(0), X, config)
    extra = fit(jax.random.key(0), X[:200], config, unlabeled=X[200:])
    assert extra.labels.shape == (200,)
    assert same_bits(joined.autoencoder_params, extra.autoencoder_params)
    fewer = fit(jax.random.key(0), X[:200], config)
    assert not same_bits(fewer.autoencoder_params, extra.autoencoder_params)


def test_unlabeled_rows_follow_the_training_split():
    config = SMALL.replace({"scaling": "none", "pretrain.rows": "train"})
    joined = np.concatenate([X[:100], X[200:]])
    one = fit(jax.random.key(0), joined, config)
    other = fit(jax.random.key(0), X[:200], config, n_train=100, unlabeled=X[200:])
    assert same_bits(one.autoencoder_params, other.autoencoder_params)


@pytest.mark.parametrize(
    ("unlabeled", "message"),
    [
        (np.ones((3, 5)), "unlabeled: expected 64 columns as x has, got 5"),
        (np.full((3, 64), np.nan), "unlabeled: "),
    ],
)
def test_bad_unlabeled_rows_are_refused(unlabeled, message):
    with pytest.raises(ValueError, match=message):
        fit(jax.random.key(0), X, SMALL, unlabeled=unlabeled)


def test_pretrained_parameters_give_the_same_result(result):
    again = fit(jax.random.key(0), X, SMALL, autoencoder_params=result.autoencoder_params)
    assert same_bits(arrays(again), arrays(result))
    assert [record["phase"] for record in again.history] == ["clustering"] * 4
    assert "pretraining" not in again.seconds
    # They are still there: nothing of the caller's was donated.
    assert np.isfinite(result.autoencoder_params["encoder_0"]["kernel"]).all()


def test_a_workdir_belongs_to_its_pretrained_parameters(result, tmp_path):
    fit(
        jax.random.key(0),
        X,
        SMALL,
        autoencoder_params=result.autoencoder_params,
        workdir=tmp_path / "run",
    )
    again = fit(
        jax.random.key(0),
        X,
        SMALL,
        autoencoder_params=result.autoencoder_params,
        workdir=tmp_path / "run",
        resume=True,
    )
    assert same_bits(arrays(again), arrays(result))
    with pytest.raises(ValueError, match=r"data autoencoder_params: .* in run.json, None req"):
        fit(jax.random.key(0), X, SMALL, workdir=tmp_path / "run", resume=True)


def test_parameters_of_another_network_are_refused(result):
    config = SMALL.replace({"network.latent_dim": 5})
    with pytest.raises(ValueError, match=r"autoencoder_params: expected .*\(16, 5\).*\(16, 4\)"):
        fit(jax.random.key(0), X, config, autoencoder_params=result.autoencoder_params)


def test_the_learning_rate_schedule_spans_the_phase():
    """A run cut into twenty calls has one schedule, not twenty."""
    changes = {"pretrain.optimizer.schedule": "cosine", "pretrain.finetune_steps": 20}
    config = SMALL.replace(changes)
    result = fit(jax.random.key(0), X, config)
    init_key, pretrain_key, *_ = jax.random.split(jax.random.key(0), 4)
    network = build_network(config)
    algorithm = finetune(network, build_optimizer(config.pretrain.optimizer, 20))
    state, _ = scan_steps(
        algorithm,
        jax.random.fold_in(pretrain_key, 0),
        algorithm.init(network.init(init_key, 64)),
        scaled(X),
        n_steps=20,
        batches=Batches(64),
    )
    for one, other in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(result.autoencoder_params), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_settings_reach_the_optimizer():
    settings = OptimizerConfig(
        "sgd", 0.1, "step", decay_every=2, momentum=0.5, momentum_warmup_steps=1, bias_multiplier=2
    )
    tx = build_optimizer(settings, 10)
    params = {"encoder_0": {"kernel": jnp.zeros(1), "bias": jnp.zeros(1)}}
    state, moves = tx.init(params), []
    for _ in range(3):
        moved, state = apply_gradients(tx, jax.tree.map(jnp.ones_like, params), state, params)
        updates = jax.tree.map(jnp.subtract, moved, params)["encoder_0"]
        moves.append((float(updates["kernel"][0]), float(updates["bias"][0])))
    kernel, bias = np.array(moves).T
    np.testing.assert_allclose(kernel, [-0.1, -0.1 - 0.05, -0.01 - 0.075], rtol=1e-5)
    np.testing.assert_allclose(bias, 2 * kernel, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::jdec.trainer.EmptyClusterWarning")
def test_augmentation_is_part_of_the_run():
    """It alters mini-batches, and neither P nor the labels of the rows as they are."""
    plain = SMALL.replace({"image_shape": (8, 8)})
    moved = plain.replace({"augmentation.max_shift": 2.0})
    one, other = (fit(jax.random.key(0), X, config) for config in (plain, moved))
    check_result(other, X, moved)
    assert one.history[0]["loss"] != other.history[0]["loss"]
    assert one.history[-1]["loss"] != other.history[-1]["loss"]


# Guards.


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({"pretrain.optimizer.learning_rate": 1e30}, "pretraining, finetune.* at step 2;"),
        (
            {"pretrain.optimizer.learning_rate": 1e30, "pretrain.layerwise_steps": 40},
            "pretraining, layer 1.* at step 2;",
        ),
        (
            {"clustering.optimizer.learning_rate": 1e30},
            r"clustering: (the loss|weights or embedding) .* step .*; lower",
        ),
        (
            {"clustering.optimizer.learning_rate": 1e30, "clustering.update_interval": 1},
            r"clustering: weights or embedding are not finite after step 1; .*learning_rate",
        ),
        (
            {"pretrain.optimizer.learning_rate": 1e30, "pretrain.finetune_steps": 1},
            r"k-means: the pretrained embedding is not finite; .*learning_rate",
        ),
    ],
)
def test_divergence_is_an_error_that_names_phase_and_step(changes, needed):
    with pytest.raises(NotFiniteError, match=needed):
        fit(jax.random.key(0), X, SMALL.replace(changes))


def test_divergence_is_found_at_its_step_also_later_on():
    # The rate of the first steps is harmless.
    optimizer = {"name": "sgd", "learning_rate": 1e-3, "schedule": "step"}
    optimizer |= {"decay_every": 7, "decay_rate": 1e30, "momentum": 0.0}
    with pytest.raises(NotFiniteError, match=r"finetune: the loss became .* at step 9;"):
        fit(jax.random.key(0), X, SMALL.replace({"pretrain.optimizer": optimizer}))


def test_empty_clusters_are_named():
    with pytest.warns(EmptyClusterWarning, match="1 of 2 clusters are empty: ") as caught:
        result = fit(jax.random.key(0), np.full((20, 2), 5.0), TINY)
    empty = np.flatnonzero(np.bincount(result.labels, minlength=2) == 0)
    assert f"empty: {empty[0]};" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_clusters_on_one_centroid_are_named():
    centroids = np.array([[0.0, 0], [5, 5], [0, 1e-6], [9, 0]], np.float32)
    with pytest.warns(EmptyClusterWarning, match="clusters 0, 2 have collapsed"):
        warn_of_empty_clusters(np.array([0, 1, 2, 3]), centroids)


def test_a_long_list_of_empty_clusters_is_cut():
    centroids = np.arange(60, dtype=np.float32).reshape(30, 2)
    with pytest.warns(EmptyClusterWarning, match=r"29 of 30 .* 18, 19, 20 and 9 more;"):
        warn_of_empty_clusters(np.zeros(5, int), centroids)


def test_healthy_clusters_give_no_warning(result):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_empty_clusters(result.labels, np.asarray(result.model.centroids))


# Compilation.


@pytest.fixture
def traces(monkeypatch):
    """Count how often each phase is traced."""
    names = ("scan_steps", "initial_partition", "train_interval", "cluster_sizes")
    counts = dict.fromkeys((*names, "soft_assignment"), 0)

    def counted(name, function):
        def wrapper(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        return wrapper

    for name in counts:
        monkeypatch.setattr(programs, name, counted(name, getattr(programs, name)))
    return counts


def test_each_phase_is_compiled_once(traces):
    config = SMALL.replace({"network.latent_dim": 3})  # that no other test has
    expected = dict.fromkeys(traces, 1)
    first = fit(jax.random.key(0), X, config)
    assert len(first.history) == 24
    assert traces == expected
    fit(jax.random.key(1), X[::-1] + 1, Config.from_json(config.to_json()))
    assert traces == expected
    assign(first.model, X[:7])
    expected["soft_assignment"] = 2  # of all rows where they are, and of a block that was sent
    assert traces == expected
    assign(first.model, X[:9])
    assert traces == expected
    fit(jax.random.key(0), X, config.replace({"pretrain.finetune_steps": 30}))
    assert traces == dict.fromkeys(traces, 2) | {"soft_assignment": 3}  # they are counted


def test_the_state_of_an_interval_is_donated(result):
    x, plan = jnp.zeros((300, 64)), Plan(SMALL, build_network(SMALL), RowSharding(300))
    state = programs.init_state(result.autoencoder_params, result.initial.centroids, plan=plan)
    targets, _ = programs.refresh(state.params, jnp.full(300, -1, jnp.int32), x, plan=plan)
    programs.train(jax.random.key(0), state, targets, x, plan=plan)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert not targets.p.is_deleted()


@given(n_steps=st.integers(1, 10**6), data=st.data())
def test_chunks_cover_all_steps_and_do_not_depend_on_where_one_resumes(n_steps, data):
    parts = list(chunks(n_steps, 0))
    assert [start for start, _ in parts] == [0, *np.cumsum([size for _, size in parts])[:-1]]
    assert sum(size for _, size in parts) == n_steps
    assert len({size for _, size in parts[:-1]}) <= 1
    assert max(size for _, size in parts) <= 2000
    assert len(parts) <= 20 or parts[0][1] == 2000
    resumed = data.draw(st.integers(0, len(parts) - 1))
    assert list(chunks(n_steps, parts[resumed][0])) == parts[resumed:]
    assert list(chunks(n_steps, n_steps)) == []


# Sizes that others crash on.


@pytest.mark.parametrize("n_rows", [5, 8, 16, 17])
def test_any_number_of_rows_against_the_batch(n_rows):
    order = {f"{phase}.batch_order": "sequential" for phase in ("pretrain", "clustering")}
    config = TINY.replace(order)
    assert config.pretrain.batch_size == config.clustering.batch_size == 8
    x, _ = make_blobs(n_rows, n_features=2, centers=2, random_state=0)
    result = fit(jax.random.key(0), x, config)
    check_result(result, x, config)
    assert sorted(np.unique(result.labels)) == [0, 1]


RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(20, 2))
ONE_CONSTANT = np.c_[RNG.normal(size=20), np.full(20, 7.0)]
ODD_DATA = {
    "K = N": (NORMAL[:6], {"n_clusters": 6}),
    "K = 1": (NORMAL, {"n_clusters": 1}),
    "D = 1": (np.r_[RNG.normal(size=(10, 1)), 9 + RNG.normal(size=(10, 1))], {}),
    "no hidden layer": (NORMAL, {"network.hidden_dims": []}),
    "constant column, rms": (ONE_CONSTANT, {}),
    "constant column, standard": (ONE_CONSTANT, {"scaling": "standard"}),
    "constant column, minmax": (ONE_CONSTANT, {"scaling": "minmax"}),
    "constant column, none": (ONE_CONSTANT, {"scaling": "none"}),
    "all zero": (np.zeros((20, 2)), {}),
    "all equal": (np.full((20, 2), 5.0), {}),
    "duplicate rows": (np.repeat([[0.0, 1.0], [3.0, -2.0]], 10, axis=0), {}),
    "huge numbers": (1e30 * NORMAL, {}),
    "tiny numbers": (1e-30 * NORMAL, {}),
    "far from the origin": (1e5 + NORMAL, {"scaling": "standard"}),
}


@pytest.mark.filterwarnings("ignore::jdec.trainer.EmptyClusterWarning")
@pytest.mark.parametrize("name", ODD_DATA)
def test_odd_data_gives_a_result(name):
    x, changes = ODD_DATA[name]
    config = TINY.replace(changes)
    result = fit(jax.random.key(0), x, config)
    check_result(result, np.asarray(x), config)
    if name in ("D = 1", "duplicate rows"):
        assert len(np.unique(result.labels)) == 2
    # Equal rows are in the same cluster.
    _, inverse = np.unique(np.asarray(x), axis=0, return_inverse=True)
    for row in np.unique(inverse):
        assert len(np.unique(result.labels[inverse.ravel() == row])) == 1


def test_one_cluster_holds_all_rows():
    result = fit(jax.random.key(0), NORMAL, TINY.replace({"n_clusters": 1}))
    assert result.labels.tolist() == [0] * 20
    np.testing.assert_allclose(result.soft_assignment, 1)
    assert result.n_intervals == 2


# What is told on the way.


def test_importing_asks_for_no_widgets():
    """tqdm.auto does, by a warning, in a notebook without ipywidgets."""
    code = "import sys, jdec; print('tqdm.auto' in sys.modules, 'tqdm.notebook' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
