from functools import cache, partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

from jdec.core.augmentation import corrupt
from jdec.core.batches import Batches
from jdec.core.dec import (
    DECBatch,
    is_finished,
    run,
    run_interval,
    self_training,
    train_interval,
)
from jdec.core.functional import clustering_loss, log_soft_assignment, soft_assignment
from jdec.core.networks import StackedDenoisingAutoencoder
from jdec.core.optimizers import make_optimizer
from jdec.core.targets import cluster_sizes, embed_in_blocks, refresh_targets

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
embed = partial(embed_in_blocks, block_size=8)


@cache
def sgd(rate=0.1, momentum=None):
    return optax.sgd(rate, momentum=momentum)


def training(tx=None, encode=linear, **options):
    return self_training(encode, tx or sgd(), embed=embed, **options)


ALGORITHM = training()
SETTINGS = {"update_interval": 4, "batches": Batches(6)}
STATIC = ("algorithm", "update_interval", "batches", "reset_optimizer")

train = jax.jit(train_interval, static_argnames=STATIC)
jitted_interval = jax.jit(run_interval, static_argnames=STATIC)


def interval(key, state, targets, x=X, algorithm=ALGORITHM, **settings):
    return jitted_interval(key, state, targets, x, algorithm, **(SETTINGS | settings))


def start(algorithm=ALGORITHM, x=X, params=PARAMS, centroids=CENTROIDS, n_rows=None):
    """First state and targets."""
    state = algorithm.init(params, centroids)
    refresh = jax.jit(algorithm.refresh, static_argnames="n_rows")
    return state, refresh(state.params, x, n_rows=n_rows)


def check_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def check_close(found, expected, rtol=1e-5, atol=1e-6):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), found, expected)


def check_valid(state, targets, x, n_clusters):
    """Every array is finite and of its shape and dtype."""
    assert targets.p.shape == (len(x), n_clusters)
    np.testing.assert_allclose(targets.p.sum(axis=1), 1, rtol=1e-5)
    assert (targets.labels.shape, targets.labels.dtype) == ((len(x),), jnp.int32)
    assert targets.labels.min() >= 0
    assert targets.labels.max() < n_clusters
    for leaf in jax.tree.leaves((state.params, targets.p, targets.label_change, targets.kl)):
        assert jnp.isfinite(leaf).all()
        assert leaf.dtype == jnp.float32
    assert 0 <= targets.label_change <= 1
    assert state.interval.dtype == jnp.int32


# Against the oracle, with a network of two layers.


NETWORK = StackedDenoisingAutoencoder((5,), 3)
ENCODER = jax.tree.map(  # large enough weights, so that the network bends the data
    lambda leaf: 3 * leaf, NETWORK.encoder_params(NETWORK.init(KEY, 2))
)


Z = jax.jit(NETWORK.encode)(ENCODER, X)


def network_start(alpha=1.0, **options):
    algorithm = training(sgd(0.5), NETWORK.encode, alpha=alpha, **options)
    return algorithm, *start(algorithm, params=ENCODER, centroids=Z[:4])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_the_first_state_and_targets_are_the_oracles(alpha):
    _, state, targets = network_start(alpha)
    q = reference.soft_assignment(reference.encode(ENCODER, X), state.params.centroids, alpha)
    np.testing.assert_allclose(targets.p, reference.target_distribution(q), rtol=1e-4)
    np.testing.assert_array_equal(targets.labels, q.argmax(axis=1))
    assert (float(targets.label_change), int(state.interval)) == (1, 0)
    check_valid(state, targets, X, 4)
    check_same(state.params.encoder, ENCODER)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_a_step_is_the_oracles(alpha):
    algorithm, state, targets = network_start(alpha)
    rows = np.array([3, 1, 4, 1, 5])
    batch = DECBatch(X[rows], targets.p[rows])
    after, info = jax.jit(algorithm.step)(KEY, state, batch)
    kl, grads, grad_mu = reference.clustering_gradients(
        state.params.encoder, state.params.centroids, X[rows], targets.p[rows], alpha
    )
    np.testing.assert_allclose(info.kl, kl, rtol=1e-4)
    assert info.extra_loss == 0
    encoder, centroids = (reference.as_float64(tree) for tree in state.params)
    check_close(after.params.centroids, centroids - 0.5 * grad_mu)
    check_close(after.params.encoder, reference.sgd_step(encoder, grads, 0.5))
    assert after.interval == state.interval


def test_a_step_of_a_frozen_encoder_is_the_oracles():
    algorithm, state, targets = network_start(freeze_encoder=True)
    batch = DECBatch(X[:5], targets.p[:5])
    after, _ = jax.jit(algorithm.step)(KEY, state, batch)
    _, _, grad_mu = reference.clustering_gradients(*state.params, X[:5], targets.p[:5])
    expected = reference.as_float64(state.params.centroids) - 0.5 * grad_mu
    check_close(after.params.centroids, expected)
    check_same(after.params.encoder, state.params.encoder)


def test_an_interval_of_sequential_batches_is_the_oracles():
    sequential = Batches(6, "sequential")
    state, targets = start()
    after, new, info = interval(KEY, state, targets, batches=sequential)
    params, mu = (reference.as_float64(tree) for tree in (PARAMS, CENTROIDS))
    losses = []
    for step in range(4):
        rows = (6 * step + np.arange(6)) % len(X)
        loss, grads, grad_mu = reference.clustering_gradients(
            params, mu, X[rows], np.asarray(targets.p)[rows]
        )
        params, mu = reference.sgd_step(params, grads, 0.1), mu - 0.1 * grad_mu
        losses.append(loss)
    np.testing.assert_allclose(info.kl, losses, rtol=1e-4)
    np.testing.assert_array_equal(info.extra_loss, 0)
    np.testing.assert_allclose(after.params.centroids, mu, rtol=1e-4)
    q = reference.soft_assignment(reference.encode(params, X), mu)
    p = reference.target_distribution(q)
    np.testing.assert_allclose(new.p, p, rtol=1e-3)
    np.testing.assert_array_equal(new.labels, q.argmax(axis=1))
    np.testing.assert_allclose(new.kl, reference.kl(p, q).mean(), rtol=1e-3)
    changed = (q.argmax(axis=1) != np.asarray(targets.labels)).mean()
    np.testing.assert_allclose(new.label_change, changed, rtol=1e-6)
    # The second interval goes on where the first one ended among the rows.
    _, _, second = interval(KEY, after, new, batches=sequential)
    rows = (24 + np.arange(6)) % len(X)
    first_loss, _, _ = reference.clustering_gradients(params, mu, X[rows], np.asarray(new.p)[rows])
    np.testing.assert_allclose(second.kl[0], first_loss, rtol=1e-3)


# Another loss beside the KL.


def decode(params, z):
    return z @ params["decoder_0"]["kernel"]


WITH_DECODER = PARAMS | {"decoder_0": {"kernel": jnp.array([[0.05, 0.02], [-0.03, 0.08]])}}


def reconstruction(key, params, batch):
    """IDEC's, through a masked copy, so that the key matters."""
    noisy = corrupt(key, batch.x, 0.5)
    return jnp.mean((decode(params.encoder, linear(params.encoder, noisy)) - batch.x) ** 2)


def test_a_step_with_an_extra_loss_follows_the_gradient_of_the_sum():
    algorithm = training(extra_loss=reconstruction)
    state, targets = start(algorithm, params=WITH_DECODER)
    key, batch = jax.random.key(5), DECBatch(X[:6], targets.p[:6])

    def total(params):
        squared = ((linear(params.encoder, batch.x)[:, None] - params.centroids[None]) ** 2).sum(2)
        kernel = 1 / (1 + squared)
        q = kernel / kernel.sum(axis=1, keepdims=True)
        kl = (batch.p * (jnp.log(batch.p) - jnp.log(q))).sum(axis=1).mean()
        extra = reconstruction(key, params, batch)
        return kl + extra, (kl, extra)

    grads, (kl, extra) = jax.jit(jax.grad(total, has_aux=True))(state.params)
    after, info = jax.jit(algorithm.step)(key, state, batch)
    np.testing.assert_allclose(info.kl, kl, rtol=1e-4)
    np.testing.assert_allclose(info.extra_loss, extra, rtol=1e-5)
    expected = jax.tree.map(lambda leaf, grad: leaf - 0.1 * grad, state.params, grads)
    check_close(after.params, expected)
    # It does matter, and another key masks other entries.
    plain, _ = jax.jit(ALGORITHM.step)(key, state, batch)
    assert (
        plain.params.encoder["encoder_0"]["kernel"] != after.params.encoder["encoder_0"]["kernel"]
    ).all()
    _, other = jax.jit(algorithm.step)(KEY, state, batch)
    assert other.extra_loss != info.extra_loss
    np.testing.assert_allclose(other.kl, info.kl, rtol=1e-6)


def test_a_reconstruction_loss_trains_the_decoder():
    algorithm = training(extra_loss=reconstruction)
    state, targets = start(algorithm, params=WITH_DECODER)

    def error(params):
        return float(((decode(params, linear(params, X)) - X) ** 2).mean())

    after = state
    for _ in range(10):
        after, targets, info = interval(KEY, after, targets, algorithm=algorithm)
    assert (
        after.params.encoder["decoder_0"]["kernel"] != WITH_DECODER["decoder_0"]["kernel"]
    ).all()
    assert error(after.params.encoder) < 0.4 * error(WITH_DECODER)
    assert info.extra_loss.shape == info.kl.shape == (4,)
    assert (info.extra_loss > 0).all()
    # Without, the decoder has no gradient.
    plain, _, info = interval(KEY, *start(params=WITH_DECODER))
    check_same(plain.params.encoder["decoder_0"], WITH_DECODER["decoder_0"])
    np.testing.assert_array_equal(info.extra_loss, 0)


def test_an_extra_loss_sees_a_frozen_encoder_and_moves_the_centroids_alone():
    def near_the_origin(key, params, batch):
        check_same(jax.tree.structure(params.encoder), jax.tree.structure(PARAMS))
        return 0.5 * (params.centroids**2).sum()

    algorithm = training(freeze_encoder=True, extra_loss=near_the_origin)
    state, targets = start(algorithm)
    batch = DECBatch(X[:6], targets.p[:6])
    after, _ = jax.jit(algorithm.step)(KEY, state, batch)
    plain, _ = jax.jit(training(freeze_encoder=True).step)(KEY, state, batch)
    check_close(after.params.centroids, plain.params.centroids - 0.1 * CENTROIDS)
    check_same(after.params.encoder, PARAMS)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (lambda x: x.sum(axis=1), r"\(6,\)"),
        (lambda x: x.mean(keepdims=True), r"\(1, 1\)"),
        (lambda x: 0.5, "float"),
        (lambda x: None, "NoneType"),
    ],
)
def test_an_extra_loss_that_is_no_scalar_is_refused(unchecked, value, got):
    algorithm = training(extra_loss=lambda key, params, batch: value(batch.x))
    state, targets = start()
    message = f"extra_loss: expected a function that returns a scalar, got {got}; take the mean"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(algorithm.step, KEY, state, DECBatch(X[:6], targets.p[:6]))


def test_an_extra_loss_of_bfloat16_is_added_in_float32():
    def small(key, params, batch):
        return jnp.mean(linear(params.encoder, batch.x).astype(jnp.bfloat16))

    step = training(extra_loss=small).step
    state, targets = start()
    after, info = jax.eval_shape(step, KEY, state, DECBatch(X[:6], targets.p[:6]))
    assert {leaf.dtype for leaf in jax.tree.leaves((after.params, info))} == {jnp.dtype("float32")}


# Intervals.


def test_intervals_differ_by_key_and_by_number():
    state, targets = start()
    first, new, info = interval(KEY, state, targets)
    check_same(interval(KEY, state, targets), (first, new, info))
    other, _, _ = interval(jax.random.key(1), state, targets)
    assert (other.params.centroids != first.params.centroids).any()
    _, _, later = interval(KEY, state._replace(interval=jnp.int32(5)), targets)
    assert (later.kl != info.kl).any()
    assert first.interval == 1


def test_an_interval_sharpens_the_assignment():
    state, targets = start()
    for _ in range(5):
        state, targets, _ = interval(KEY, state, targets)
    q_first = soft_assignment(linear(PARAMS, X), CENTROIDS)
    q_last = soft_assignment(linear(state.params.encoder, X), state.params.centroids)
    assert q_last.max(axis=1).mean() > q_first.max(axis=1).mean()


@pytest.mark.usefixtures("full_compilation_here")
@pytest.mark.parametrize("reset", [False, True])
def test_run_is_a_loop_of_intervals_to_the_bit(reset):
    # Optimised in full, as users compile them; momentum, so that a reset matters.
    algorithm = training(sgd(0.1, momentum=0.9))
    settings = SETTINGS | {"reset_optimizer": reset}
    state, targets = start(algorithm)
    in_one = jax.jit(
        lambda key, state, x: run(key, state, x, algorithm, tol=0.0, max_intervals=5, **settings)
    )(KEY, state, X)
    for _ in range(5):
        state, targets, _ = interval(KEY, state, targets, algorithm=algorithm, **settings)
    # XLA of JAX before 0.10 compiles the body of the loop to other roundings.
    check = check_same if jax.__version_info__ >= (0, 10) else check_close
    check(in_one, (state, targets))
    assert in_one[0].interval == 5


def test_run_passes_its_padding_on():
    padded = jnp.concatenate([X, jnp.full((4, 2), 50.0)])
    batches = Batches(6, n_rows=20)

    @jax.jit
    def both(state):
        whole = run(KEY, state, X, ALGORITHM, max_intervals=2, **SETTINGS)
        settings = SETTINGS | {"batches": batches}
        return whole, run(KEY, state, padded, ALGORITHM, max_intervals=2, **settings)

    (state, targets), (padded_state, padded_targets) = both(start()[0])
    check_close(padded_state, state)
    check_same(padded_targets.labels[:20], targets.labels)
    assert (padded_targets.labels[20:] == -1).all()


@pytest.mark.usefixtures("full_compilation_here")
def test_an_interval_is_its_two_halves_to_the_bit():
    state, targets = start()
    trained, infos = train(KEY, state, targets, X, ALGORITHM, **SETTINGS)
    assert trained.interval == 1
    assert (trained.params.centroids != state.params.centroids).any()
    whole, new, info = interval(KEY, state, targets)
    check_same(trained, whole)
    check_same(jax.jit(ALGORITHM.refresh)(trained.params, X, targets.labels), new)
    check_same(infos, info)


def test_the_refresh_of_an_algorithm_has_its_settings():
    mask = jnp.array([True, True, False])
    algorithm = training(alpha=3.0, cluster_mask=mask)
    state = algorithm.init(PARAMS, CENTROIDS)
    settings = {"alpha": 3.0, "cluster_mask": mask, "embed": embed}
    expected = jax.jit(partial(refresh_targets, encode=linear, **settings))(state.params, X)
    check_same(jax.jit(algorithm.refresh)(state.params, X), expected)
    plain = jax.jit(ALGORITHM.refresh)(state.params, X)
    assert (plain.p != expected.p).any()


@pytest.mark.parametrize("order", ["random", "sequential"])
def test_rows_of_padding_change_nothing(order):
    # Their numbers would be seen: the cluster nearest to them would be another.
    padded = jnp.concatenate([X, jnp.full((4, 2), 50.0)])
    whole, expected, info = interval(KEY, *start(), batches=Batches(6, order))
    state, targets = start(x=padded, n_rows=20)
    batches = Batches(6, order, n_rows=20)
    state, targets, padded_info = interval(KEY, state, targets, padded, batches=batches)
    check_close(state, whole)
    check_close(padded_info, info)
    check_close(targets.p[:20], expected.p)
    check_close(targets.kl, expected.kl)
    check_same(targets.labels[:20], expected.labels)
    check_same(targets.label_change, expected.label_change)
    assert (targets.p[20:] == 0).all()
    assert (targets.labels[20:] == -1).all()
    without = jax.jit(ALGORITHM.refresh)(state.params, padded)
    assert jnp.abs(without.p[:20] - expected.p).max() > 1e-3


@pytest.mark.usefixtures("full_compilation_here")
def test_masked_clusters_stay_where_they_are():
    # Adam would move them by the whole learning rate for the smallest gradient.
    adam = make_optimizer("adam", 0.1, n_steps=8)
    algorithm = training(adam)
    whole, expected, _ = interval(KEY, *start(algorithm), algorithm=algorithm)
    more = jnp.concatenate([CENTROIDS[:1] + 1, CENTROIDS, CENTROIDS[:1] - 1])
    unused = jnp.array([0, 4])

    @jax.jit
    def masked_interval(centroids, mask):
        algorithm = training(adam, cluster_mask=mask)  # traced, as for the members of a population
        state = algorithm.init(PARAMS, centroids)
        targets = algorithm.refresh(state.params, X)
        return run_interval(KEY, state, targets, X, algorithm, **SETTINGS)

    state, targets, info = masked_interval(more, jnp.array([False, True, True, True, False]))
    check_same(state.params.centroids[unused], more[unused])
    assert (targets.p[:, unused] == 0).all()
    check_close(state.params.centroids[1:4], whole.params.centroids, rtol=1e-4, atol=1e-5)
    check_close(targets.p[:, 1:4], expected.p, rtol=1e-4, atol=1e-5)
    check_same(targets.labels - 1, expected.labels)
    assert jnp.isfinite(info.kl).all()
    sizes = cluster_sizes(targets.labels, 5).tolist()
    assert sizes == [0, *cluster_sizes(expected.labels, 3).tolist(), 0]


@pytest.mark.usefixtures("full_compilation_here")
def test_run_under_vmap_equals_single_runs():
    # Rows without groups, so that the runs end at intervals of their own.
    x = data(n_groups=1)
    algorithm = training(sgd(1.0))
    state = algorithm.init(PARAMS, x[:3])
    settings = SETTINGS | {"update_interval": 2}

    def one(key):
        return run(key, state, x, algorithm, tol=0.04, max_intervals=6, **settings)

    keys = jax.random.split(KEY, 4)
    together = jax.jit(jax.vmap(one))(keys)
    single = jax.jit(one)
    alone = [single(key) for key in keys]
    assert len({int(state.interval) for state, _ in alone}) > 1
    for i, expected in enumerate(alone):
        found = jax.tree.map(itemgetter(i), together)
        assert found[0].interval == expected[0].interval
        check_close(found, expected)


def test_an_encoder_is_traced_once_for_all_intervals():
    traces = []

    def encode(params, x):
        traces.append(x.shape)
        return linear(params, x)

    algorithm = training(encode=encode)
    state, targets = start()
    state, targets, _ = interval(KEY, state, targets, algorithm=algorithm)
    once = list(traces)
    # A step's batch and a refresh's block, and nothing of all rows.
    assert set(once) == {(6, 2), (8, 2)}
    for seed in range(3):
        state, targets, _ = interval(
            jax.random.key(seed), state, targets, X + 1, algorithm=algorithm
        )
    assert traces == once


@pytest.mark.usefixtures("full_compilation_here")
def test_a_frozen_encoder_keeps_every_bit():
    algorithm = training(sgd(0.1, momentum=0.9), freeze_encoder=True)
    state, targets = start(algorithm)
    sizes = {leaf.shape for leaf in jax.tree.leaves(state.opt_state)}
    assert sizes == {CENTROIDS.shape}
    after, new, _ = interval(KEY, state, targets, algorithm=algorithm)
    check_same(after.params.encoder, PARAMS)
    assert (after.params.centroids != CENTROIDS).all()
    assert (new.p != targets.p).any()
    assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.parametrize("reset", [False, True])
def test_the_optimizer_starts_afresh_when_asked_to(reset):
    algorithm = training(sgd(0.1, momentum=0.9))
    fresh, targets = start(algorithm)
    moving = fresh._replace(opt_state=jax.tree.map(lambda leaf: leaf + 1, fresh.opt_state))
    after_fresh, after_moving = (
        interval(KEY, state, targets, algorithm=algorithm, reset_optimizer=reset)[0]
        for state in (fresh, moving)
    )
    if reset:
        check_same(after_moving, after_fresh)
    else:
        assert (after_moving.params.centroids != after_fresh.params.centroids).all()
    # What the interval ends with is the momentum of its own steps.
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(after_fresh.opt_state))


def test_a_reset_restarts_the_schedule_as_well():
    tx = make_optimizer("sgd", 0.1, n_steps=99, schedule="step", decay_every=4, momentum=0.0)
    algorithm = training(tx)
    moves = []
    for reset in (False, True):
        again = partial(interval, algorithm=algorithm, reset_optimizer=reset)
        state, targets, _ = again(KEY, *start(algorithm))
        moved, _, _ = again(KEY, state, targets)
        moves.append(jnp.abs(moved.params.centroids - state.params.centroids).max())
    assert moves[0] < 0.3 * moves[1]


def test_what_gather_alters_touches_mini_batches_alone():
    def far_away(key, batch, indices):
        x = batch.x[indices]
        return DECBatch(x + 10 * jax.random.normal(key, x.shape), batch.p[indices])

    still = training(sgd(0.0))
    state, targets = start(still)
    _, plain, plain_info = interval(KEY, state, targets, algorithm=still)
    batches = Batches(6, gather=far_away)
    _, shaken, shaken_info = interval(KEY, state, targets, algorithm=still, batches=batches)
    assert (shaken_info.kl != plain_info.kl).all()
    assert len(set(shaken_info.kl.tolist())) == 4
    check_same(shaken, plain)


def test_targets_go_with_their_rows():
    """A batch's targets are those of its rows: with P = Q the loss of any batch is zero."""
    still = training(sgd(0.0))
    state, targets = start(still)
    q = soft_assignment(linear(PARAMS, X), CENTROIDS)
    again = partial(interval, KEY, state, algorithm=still)
    _, _, info = again(targets._replace(p=q))
    np.testing.assert_allclose(info.kl, 0, atol=1e-6)
    _, _, info = again(targets._replace(p=jnp.roll(q, 1, axis=0)))
    assert (info.kl > 0.01).all()


def test_the_kl_of_a_step_is_that_of_its_batch():
    state, targets = start()
    _, info = jax.jit(ALGORITHM.step)(KEY, state, DECBatch(X, targets.p))
    log_q = log_soft_assignment(linear(PARAMS, X), CENTROIDS)
    np.testing.assert_allclose(info.kl, clustering_loss(log_q, targets.p).mean(), rtol=1e-5)
    np.testing.assert_allclose(info.kl, targets.kl, rtol=1e-5)


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
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_is_finished(interval, label_change, finished, array):
    interval, label_change = array(interval, np.int32), array(label_change, np.float32)
    assert bool(is_finished(interval, label_change, tol=0.1, max_intervals=7)) == finished
    # Of many members, each by itself.
    many = is_finished(
        array([0, interval], np.int32),
        array([1, label_change], np.float32),
        tol=0.1,
        max_intervals=7,
    )
    assert many.tolist() == [False, finished]


def test_a_tolerance_of_zero_goes_on_to_the_last_interval():
    interval, label_change = jnp.int32(1), jnp.float32(0)
    assert not is_finished(interval, label_change, tol=0.0, max_intervals=7)
    assert is_finished(interval, label_change, tol=1e-3, max_intervals=7)


@pytest.mark.usefixtures("full_compilation_here")
def test_run_ends_at_a_broken_state():
    algorithm = training(sgd(float("inf")))
    state, targets = jax.jit(
        lambda state: run(KEY, state, X, algorithm, max_intervals=9, **SETTINGS)
    )(algorithm.init(PARAMS, CENTROIDS))
    assert state.interval == 1
    assert jnp.isnan(targets.label_change)
    assert jnp.isnan(targets.kl)


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
    state, targets = start(x=x, params=params, centroids=linear(params, x[:n_clusters]))
    check_valid(state, targets, x, n_clusters)
    state, targets, info = interval(
        KEY, state, targets, x, update_interval=3, batches=Batches(6, order)
    )
    check_valid(state, targets, x, n_clusters)
    assert info.kl.shape == (3,)
    assert jnp.isfinite(info.kl).all()
    assert cluster_sizes(targets.labels, n_clusters).sum() == n_rows
    if n_clusters == 1:
        np.testing.assert_array_equal(info.kl, 0)
        check_same(state.params.encoder, params)


def test_duplicate_rows_and_centroids():
    x = jnp.tile(X[:5], (4, 1))
    state, targets = start(x=x, centroids=jnp.tile(CENTROIDS[:1], (3, 1)))
    np.testing.assert_allclose(targets.p, 1 / 3, rtol=1e-6)
    state, targets, info = interval(KEY, state, targets, x)
    check_valid(state, targets, x, 3)
    np.testing.assert_allclose(info.kl, 0, atol=1e-6)
    check_same(targets.labels[:5], targets.labels[5:10])


@pytest.mark.usefixtures("full_compilation_here")
def test_a_far_row_does_not_break_an_interval():
    x = X.at[0].set(1e18)
    state, targets, info = interval(KEY, *start(x=x), x)
    assert jnp.isfinite(info.kl).all()
    check_valid(state, targets, x, 3)


# Bad settings.


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf"), None, "1"])
def test_a_bad_alpha_is_refused(unchecked, alpha):
    with pytest.raises(ValueError, match=f"alpha: expected a finite number > 0, got {alpha!r}"):
        self_training(linear, sgd(), alpha=alpha)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"update_interval": 0}, "update_interval: expected an integer >= 1, got 0"),
        ({"batches": Batches(2.5)}, "batch_size: expected an integer >= 1, got 2.5"),
        (
            {"batches": Batches(order="sorted")},
            "batch_order: expected one of random, seq.*'sorted'",
        ),
        ({"batches": None}, "batches: expected .*Batches, got None"),
        ({"batches": 64}, "batches: expected .*Batches, got 64"),
    ],
)
@pytest.mark.parametrize("function", [run, run_interval, train_interval])
def test_bad_settings_are_refused(unchecked, function, change, message):
    state, targets = start()
    arguments = (
        (KEY, state, X, ALGORITHM) if function is run else (KEY, state, targets, X, ALGORITHM)
    )
    with pytest.raises(ValueError, match=message):
        function(*arguments, **change)


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
        run(KEY, ALGORITHM.init(PARAMS, CENTROIDS), X, ALGORITHM, **limits)
