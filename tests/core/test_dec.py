from dataclasses import replace
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

from jdec.core.autoencoder import encoder_params, init_params, make_autoencoder, make_encode
from jdec.core.dec import (
    Clustering,
    DECBatch,
    cluster_sizes,
    clustering_algorithm,
    encode_rows,
    init_state,
    is_finished,
    refresh_targets,
    run,
    run_interval,
    train_interval,
)
from jdec.core.functional import soft_assignment, target_distribution
from jdec.core.training import make_optimizer

KEY = jax.random.key(0)


def linear(params, x):
    return x @ params["encoder_0"]["kernel"] + params["encoder_0"]["bias"][None, :]


def linear_params(width=2, latent=2):
    kernel = np.eye(width, latent) + 0.1 * np.arange(width)[:, None]
    return {
        "encoder_0": {
            "kernel": jnp.asarray(kernel, jnp.float32),
            "bias": jnp.linspace(-0.1, 0.1, latent),
        }
    }


def data(n_rows=20, width=2, n_groups=3, seed=0):
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((n_groups, width))
    x = centres[np.arange(n_rows) % n_groups] + 0.7 * rng.standard_normal((n_rows, width))
    return jnp.asarray(x, jnp.float32)


X = data()
PARAMS = linear_params()
CENTROIDS = linear(PARAMS, X[:3])
CLUSTERING = Clustering(linear, optax.sgd(0.1), update_interval=4, batch_size=6, block_size=8)


init = jax.jit(init_state, static_argnames="clustering")
refresh = jax.jit(refresh_targets, static_argnames="clustering")
train = jax.jit(train_interval, static_argnames="clustering")
interval = jax.jit(run_interval, static_argnames="clustering")


def start(clustering=CLUSTERING):
    return init(PARAMS, CENTROIDS, X, clustering)


def check_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def check_valid(state, x, n_clusters):
    """Every array is finite and of its shape and dtype."""
    assert state.targets.shape == (len(x), n_clusters)
    np.testing.assert_allclose(state.targets.sum(axis=1), 1, rtol=1e-5)
    assert (state.labels.shape, state.labels.dtype) == ((len(x),), jnp.int32)
    assert state.labels.min() >= 0
    assert state.labels.max() < n_clusters
    for leaf in jax.tree.leaves((state.params, state.centroids, state.label_change)):
        assert jnp.isfinite(leaf).all()
        assert leaf.dtype == jnp.float32
    assert 0 <= state.label_change <= 1
    assert state.interval.dtype == jnp.int32


# Against the oracle, with a network of two layers.


NETWORK = make_autoencoder(2, (5,), 3)


def network_state(alpha, freeze_encoder=False):
    params = encoder_params(init_params(KEY, NETWORK))
    # Large enough weights, so that the network bends the data.
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    clustering = Clustering(
        make_encode(NETWORK),
        optax.sgd(0.5),
        alpha=alpha,
        update_interval=2,
        batch_size=6,
        freeze_encoder=freeze_encoder,
    )
    embeddings = make_encode(NETWORK)(params, X)
    return clustering, init(params, embeddings[:4], X, clustering)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_the_first_state_is_the_oracles(alpha):
    clustering, state = network_state(alpha)
    q = reference.soft_assignment(reference.encode(state.params, X), state.centroids, alpha)
    np.testing.assert_allclose(state.targets, reference.target_distribution(q), rtol=1e-4)
    np.testing.assert_array_equal(state.labels, q.argmax(axis=1))
    assert (float(state.label_change), int(state.interval)) == (1, 0)
    check_valid(state, X, 4)
    again = refresh(state, X, clustering)
    assert again.label_change == 0
    check_same(again.targets, state.targets)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_a_step_is_the_oracles(alpha):
    clustering, state = network_state(alpha)
    rows = np.array([3, 1, 4, 1, 5])
    batch = DECBatch(X[rows], state.targets[rows])
    after, loss = clustering_algorithm(clustering).step(KEY, state, batch)
    expected_loss, grads, grad_mu = reference.clustering_gradients(
        state.params, state.centroids, X[rows], state.targets[rows], alpha
    )
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-4)
    params, centroids = (reference.as_float64(tree) for tree in (state.params, state.centroids))
    np.testing.assert_allclose(after.centroids, centroids - 0.5 * grad_mu, rtol=1e-5, atol=1e-6)
    jax.tree.map(
        lambda found, right: np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6),
        after.params,
        reference.sgd_step(params, grads, 0.5),
    )
    # P, labels and the rest wait for the refresh.
    check_same(after[3:], state[3:])


def test_a_step_of_a_frozen_encoder_is_the_oracles():
    clustering, state = network_state(1.0, freeze_encoder=True)
    batch = DECBatch(X[:5], state.targets[:5])
    after, _ = clustering_algorithm(clustering).step(KEY, state, batch)
    _, _, grad_mu = reference.clustering_gradients(
        state.params, state.centroids, X[:5], state.targets[:5]
    )
    expected = reference.as_float64(state.centroids) - 0.5 * grad_mu
    np.testing.assert_allclose(after.centroids, expected, rtol=1e-5, atol=1e-6)
    check_same(after.params, state.params)


def test_an_interval_of_sequential_batches_is_the_oracles():
    clustering = replace(CLUSTERING, batch_order="sequential")
    state = start()
    after, info = interval(KEY, state, X, clustering)
    params, mu = (reference.as_float64(tree) for tree in (PARAMS, CENTROIDS))
    losses = []
    for step in range(4):
        rows = (6 * step + np.arange(6)) % len(X)
        loss, grads, grad_mu = reference.clustering_gradients(
            params, mu, X[rows], np.asarray(state.targets)[rows]
        )
        params, mu = reference.sgd_step(params, grads, 0.1), mu - 0.1 * grad_mu
        losses.append(loss)
    np.testing.assert_allclose(info.loss, losses, rtol=1e-4)
    np.testing.assert_allclose(after.centroids, mu, rtol=1e-4)
    q = reference.soft_assignment(reference.encode(params, X), mu)
    np.testing.assert_allclose(after.targets, reference.target_distribution(q), rtol=1e-3)
    np.testing.assert_array_equal(after.labels, q.argmax(axis=1))
    changed = (q.argmax(axis=1) != np.asarray(state.labels)).mean()
    np.testing.assert_allclose([after.label_change, info.label_change], changed, rtol=1e-6)
    np.testing.assert_array_equal(info.cluster_sizes, np.bincount(q.argmax(axis=1), minlength=3))
    # The second interval goes on where the first one ended among the rows.
    _, second = interval(KEY, after, X, clustering)
    rows = (24 + np.arange(6)) % len(X)
    first_loss, _, _ = reference.clustering_gradients(
        params, mu, X[rows], np.asarray(after.targets)[rows]
    )
    np.testing.assert_allclose(second.loss[0], first_loss, rtol=1e-3)


# What a refresh does.


def test_targets_come_from_all_rows():
    state, _ = interval(KEY, start(), X, CLUSTERING)
    q = soft_assignment(linear(state.params, X), state.centroids)
    np.testing.assert_allclose(state.targets, target_distribution(q), rtol=1e-4)
    by_batch = jnp.concatenate([target_distribution(q[:6]), target_distribution(q[6:])])
    assert jnp.abs(by_batch - state.targets).max() > 0.01


@pytest.mark.parametrize("n_changed", [0, 1, 7, 20])
def test_label_change_is_the_share_of_labels_that_changed(n_changed):
    state = start()
    labels = state.labels.at[:n_changed].add(1)
    after = refresh(state._replace(labels=labels), X, CLUSTERING)
    np.testing.assert_allclose(after.label_change, n_changed / 20, rtol=1e-6)
    np.testing.assert_array_equal(after.labels, state.labels)


def test_a_broken_encoder_makes_label_change_nan():
    state = start()
    params = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), state.params)
    after = refresh(state._replace(params=params), X, CLUSTERING)
    assert jnp.isnan(after.label_change)
    # One bad row is enough.
    after = refresh(state, X.at[13, 0].set(jnp.nan), CLUSTERING)
    assert jnp.isnan(after.label_change)


@pytest.mark.parametrize("block_size", [1, 7, 8, 20, 64])
def test_rows_are_encoded_in_blocks(block_size):
    z = encode_rows(linear, PARAMS, X, block_size=block_size)
    np.testing.assert_allclose(z, linear(PARAMS, X), rtol=1e-6)


def test_an_embedding_does_not_depend_on_the_number_of_rows():
    params, encode = init_params(KEY, NETWORK), make_encode(NETWORK)
    all_rows = encode_rows(encode, params, X, block_size=8)
    for n_rows in (1, 7, 8, 9):
        check_same(encode_rows(encode, params, X[:n_rows], block_size=8), all_rows[:n_rows])


def test_blocks_bound_the_memory_of_a_refresh():
    network = make_autoencoder(4, (256,), 2)
    params = jax.eval_shape(lambda: init_params(KEY, network))

    def temporary_bytes(n_rows):
        x = jax.ShapeDtypeStruct((n_rows, 4), jnp.float32)
        encode = jax.jit(
            lambda params, x: encode_rows(make_encode(network), params, x, block_size=64)
        )
        return encode.lower(params, x).compile().memory_analysis().temp_size_in_bytes

    # The hidden layer of all rows would take 1 kB for each; x and the embeddings take 24 bytes.
    assert temporary_bytes(64 * 64) - temporary_bytes(64) < 64 * 64 * 100


# Intervals.


def test_intervals_differ_by_key_and_by_number():
    state = start()
    first, info = interval(KEY, state, X, CLUSTERING)
    again, _ = interval(KEY, state, X, CLUSTERING)
    check_same(again, first)
    other, _ = interval(jax.random.key(1), state, X, CLUSTERING)
    assert (other.centroids != first.centroids).any()
    _, later = interval(KEY, state._replace(interval=jnp.int32(5)), X, CLUSTERING)
    assert (later.loss != info.loss).any()
    assert first.interval == 1


def test_an_interval_sharpens_the_assignment():
    state = start()
    for _ in range(5):
        state, _ = interval(KEY, state, X, CLUSTERING)
    q_first = soft_assignment(linear(PARAMS, X), CENTROIDS)
    q_last = soft_assignment(linear(state.params, X), state.centroids)
    assert q_last.max(axis=1).mean() > q_first.max(axis=1).mean()


def test_run_is_a_loop_of_intervals_to_the_bit():
    clustering = CLUSTERING
    in_one = jax.jit(
        lambda key, state, x: run(key, state, x, clustering, tol=0.0, max_intervals=5)
    )(KEY, start(), X)
    state = start()
    for _ in range(5):
        state, _ = interval(KEY, state, X, CLUSTERING)
    check_same(in_one, state)
    assert in_one.interval == 5


def test_an_interval_is_its_two_halves_to_the_bit():
    state = start()
    trained, losses = train(KEY, state, X, CLUSTERING)
    assert trained.interval == 1
    assert (trained.centroids != state.centroids).any()
    check_same(
        (trained.targets, trained.labels, trained.label_change),
        (state.targets, state.labels, state.label_change),
    )
    whole, info = interval(KEY, state, X, CLUSTERING)
    check_same(refresh(trained, X, CLUSTERING), whole)
    check_same(losses, info.loss)


def test_cluster_sizes_do_not_count_padding():
    state = start()._replace(labels=jnp.array([2, -1, 0, 2, -1, 2], jnp.int32))
    assert cluster_sizes(state).tolist() == [1, 0, 3]
    assert cluster_sizes(state._replace(labels=jnp.full(6, -1, jnp.int32))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("order", ["random", "sequential"])
def test_rows_of_padding_change_nothing(order):
    clustering = replace(CLUSTERING, batch_order=order, update_interval=8)
    # Their numbers would be seen: the cluster nearest to them would be another.
    padded = jnp.concatenate([X, jnp.full((4, 2), 50.0)])
    whole, info = interval(KEY, start(clustering), X, clustering)
    with_padding = replace(clustering, n_rows=20)
    state = init(PARAMS, CENTROIDS, padded, with_padding)
    assert state.label_change == 1
    state, padded_info = interval(KEY, state, padded, with_padding)
    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)
    jax.tree.map(close, state.params, whole.params)
    close(state.centroids, whole.centroids)
    close(state.targets[:20], whole.targets)
    check_same(state.labels[:20], whole.labels)
    check_same(state.label_change, whole.label_change)
    check_same(padded_info.cluster_sizes, info.cluster_sizes)
    assert (state.targets[20:] == 0).all()
    assert (state.labels[20:] == -1).all()
    without, _ = interval(KEY, init(PARAMS, CENTROIDS, padded, clustering), padded, clustering)
    assert jnp.abs(without.targets[:20] - whole.targets).max() > 1e-3


def test_clusters_that_take_no_part_stay_where_they_are():
    # Adam would move them by the whole learning rate for the least gradient.
    adam = make_optimizer("adam", 0.1, n_steps=8)
    clustering = replace(CLUSTERING, tx=adam, update_interval=8)
    whole, _ = interval(KEY, init(PARAMS, CENTROIDS, X, clustering), X, clustering)
    more = jnp.concatenate([CENTROIDS[:1] + 1, CENTROIDS, CENTROIDS[:1] - 1])
    masked = replace(clustering, active=jnp.array([False, True, True, True, False]))

    def masked_interval(centroids):
        return run_interval(KEY, init_state(PARAMS, centroids, X, masked), X, masked)

    state, info = jax.jit(masked_interval)(more)
    check_same(state.centroids[jnp.array([0, 4])], more[jnp.array([0, 4])])
    assert (state.targets[:, jnp.array([0, 4])] == 0).all()
    np.testing.assert_allclose(state.centroids[1:4], whole.centroids, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.targets[:, 1:4], whole.targets, rtol=1e-4, atol=1e-5)
    check_same(state.labels - 1, whole.labels)
    assert info.cluster_sizes.tolist() == [0, *cluster_sizes(whole).tolist(), 0]


def test_run_under_vmap_equals_single_runs():
    # Rows without groups, so that the runs end at intervals of their own.
    x = data(n_groups=1)
    clustering = replace(CLUSTERING, update_interval=2, tx=optax.sgd(1.0))
    state = init(PARAMS, x[:3], x, clustering)

    def one(key):
        return run(key, state, x, clustering, tol=0.04, max_intervals=6)

    keys = jax.random.split(KEY, 4)
    together = jax.jit(jax.vmap(one))(keys)
    single = jax.jit(one)
    alone = [single(key) for key in keys]
    assert len({int(state.interval) for state in alone}) > 1
    for i, expected in enumerate(alone):
        found = jax.tree.map(itemgetter(i), together)
        assert found.interval == expected.interval
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected
        )


def test_an_encoder_is_traced_once_for_all_intervals():
    traces = []

    def encode(params, x):
        traces.append(x.shape)
        return linear(params, x)

    clustering = replace(CLUSTERING, encode=encode)
    state = start()
    state, _ = interval(KEY, state, X, clustering)
    once = list(traces)
    # A step's batch and a refresh's block, and nothing of all rows.
    assert set(once) == {(6, 2), (8, 2)}
    for seed in range(3):
        state, _ = interval(jax.random.key(seed), state, X + 1, clustering)
    assert traces == once


def test_a_frozen_encoder_keeps_every_bit():
    clustering = replace(CLUSTERING, freeze_encoder=True, tx=optax.sgd(0.1, momentum=0.9))
    state = start(clustering)
    sizes = {leaf.shape for leaf in jax.tree.leaves(state.opt_state)}
    assert sizes == {CENTROIDS.shape}
    after, _ = interval(KEY, state, X, clustering)
    check_same(after.params, PARAMS)
    assert (after.centroids != CENTROIDS).all()
    assert (after.targets != state.targets).any()


@pytest.mark.parametrize("reset", [False, True])
def test_the_optimizer_starts_afresh_when_asked_to(reset):
    tx = optax.sgd(0.1, momentum=0.9)
    clustering = replace(CLUSTERING, tx=tx, reset_optimizer=reset)
    fresh = start(clustering)
    moving = fresh._replace(opt_state=jax.tree.map(lambda leaf: leaf + 1, fresh.opt_state))
    after_fresh, _ = interval(KEY, fresh, X, clustering)
    after_moving, _ = interval(KEY, moving, X, clustering)
    if reset:
        check_same(after_moving, after_fresh)
    else:
        assert (after_moving.centroids != after_fresh.centroids).all()
    # What the interval ends with is the momentum of its own steps.
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(after_fresh.opt_state))


def test_a_reset_restarts_the_schedule_as_well():
    tx = make_optimizer("sgd", 0.1, n_steps=99, schedule="step", decay_every=4, momentum=0.0)
    states = []
    for reset in (False, True):
        clustering = replace(CLUSTERING, tx=tx, reset_optimizer=reset)
        state, _ = interval(KEY, start(clustering), X, clustering)
        moved, _ = interval(KEY, state, X, clustering)
        states.append(jnp.abs(moved.centroids - state.centroids).max())
    assert states[0] < 0.3 * states[1]


def test_augmentation_touches_mini_batches_alone():
    def far_away(key, x):
        return x + 10 * jax.random.normal(key, x.shape)

    still = replace(CLUSTERING, tx=optax.sgd(0.0))
    state = start(still)
    plain, plain_info = interval(KEY, state, X, still)
    shaken, shaken_info = interval(KEY, state, X, replace(still, augment=far_away))
    assert (shaken_info.loss != plain_info.loss).all()
    assert len(set(shaken_info.loss.tolist())) == 4
    check_same((shaken.targets, shaken.labels), (plain.targets, plain.labels))
    check_same(start(replace(still, augment=far_away)), state)


def test_targets_go_with_their_rows():
    """A batch's targets are those of its rows: with P = Q the loss of any batch is zero."""
    state = start()
    q = soft_assignment(linear(PARAMS, X), CENTROIDS)
    still = replace(CLUSTERING, tx=optax.sgd(0.0), update_interval=8)
    _, info = interval(KEY, state._replace(targets=q), X, still)
    np.testing.assert_allclose(info.loss, 0, atol=1e-6)
    _, info = interval(KEY, state._replace(targets=jnp.roll(q, 1, axis=0)), X, still)
    assert (info.loss > 0.01).all()


# The end.


@pytest.mark.parametrize(
    ("interval", "label_change", "finished"),
    [
        (0, 1.0, False),
        (0, 0.0, False),  # never before one interval
        (0, np.nan, False),
        (1, 0.0, True),
        (1, 0.0999, True),
        (1, 0.1, False),  # fewer than tol, so not at tol
        (1, 0.5, False),
        (1, np.nan, True),
        (6, 0.5, False),
        (7, 0.5, True),
        (8, 0.5, True),
    ],
)
def test_is_finished(interval, label_change, finished):
    state = start()._replace(interval=jnp.int32(interval), label_change=jnp.float32(label_change))
    assert bool(is_finished(state, tol=0.1, max_intervals=7)) == finished


def test_a_tolerance_of_zero_goes_on_to_the_last_interval():
    state = start()._replace(interval=jnp.int32(1), label_change=jnp.float32(0))
    assert not is_finished(state, tol=0.0, max_intervals=7)
    assert is_finished(state, tol=1e-3, max_intervals=7)


def test_run_ends_at_a_broken_state():
    clustering = replace(CLUSTERING, tx=optax.sgd(float("inf")))
    state = jax.jit(lambda state: run(KEY, state, X, clustering, max_intervals=9))(start())
    assert state.interval == 1
    assert jnp.isnan(state.label_change)


# Edge sizes.


@pytest.mark.parametrize(
    ("n_rows", "n_clusters", "width", "order"),
    [
        (4, 2, 2, "random"),  # N < B
        (4, 2, 2, "sequential"),
        (6, 2, 2, "random"),  # N = B
        (12, 2, 2, "sequential"),  # N mod B = 0
        (13, 2, 2, "sequential"),  # N mod B = 1
        (5, 5, 2, "random"),  # K = N
        (7, 1, 2, "random"),  # K = 1
        (7, 2, 1, "random"),  # D = 1
        (1, 1, 1, "random"),
        (1, 1, 1, "sequential"),
    ],
)
def test_edge_sizes(n_rows, n_clusters, width, order):
    x, params = data(n_rows, width), linear_params(width)
    clustering = replace(CLUSTERING, batch_order=order, update_interval=3)
    state = init(params, linear(params, x[:n_clusters]), x, clustering)
    check_valid(state, x, n_clusters)
    state, info = interval(KEY, state, x, clustering)
    check_valid(state, x, n_clusters)
    assert info.loss.shape == (3,)
    assert jnp.isfinite(info.loss).all()
    assert info.cluster_sizes.sum() == n_rows
    if n_clusters == 1:
        np.testing.assert_array_equal(info.loss, 0)
        check_same(state.params, params)


def test_duplicate_rows_and_centroids():
    x = jnp.tile(X[:5], (4, 1))
    state = init(PARAMS, jnp.tile(CENTROIDS[:1], (3, 1)), x, CLUSTERING)
    np.testing.assert_allclose(state.targets, 1 / 3, rtol=1e-6)
    state, info = interval(KEY, state, x, CLUSTERING)
    check_valid(state, x, 3)
    np.testing.assert_allclose(info.loss, 0, atol=1e-6)
    check_same(state.labels[:5], state.labels[5:10])


def test_a_far_row_does_not_break_an_interval():
    x = X.at[0].set(1e18)
    state, info = interval(KEY, init(PARAMS, CENTROIDS, x, CLUSTERING), x, CLUSTERING)
    assert jnp.isfinite(info.loss).all()
    check_valid(state, x, 3)


# Bad settings.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "alpha: expected a finite number > 0, got 0.0"),
        ({"alpha": float("nan")}, "alpha: expected a finite number > 0, got nan"),
        ({"update_interval": 0}, "update_interval: expected an integer >= 1, got 0"),
        ({"batch_size": 2.5}, "batch_size: expected an integer >= 1, got 2.5"),
        (
            {"batch_order": "sorted"},
            "batch_order: expected one of random, sequential; got 'sorted'",
        ),
        ({"block_size": -1}, "block_size: expected an integer >= 1, got -1"),
    ],
)
def test_bad_settings_are_refused(unchecked, change, message):
    with pytest.raises(ValueError, match=message):
        replace(CLUSTERING, **change)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"tol": -0.1}, "tol: expected a finite number >= 0, got -0.1"),
        ({"tol": float("nan")}, "tol: expected a finite number >= 0, got nan"),
        ({"max_intervals": 0}, "max_intervals: expected an integer >= 1, got 0"),
    ],
)
def test_bad_limits_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        run(KEY, start(), X, CLUSTERING, **limits)
