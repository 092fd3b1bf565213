import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from hypothesis import example, given
from hypothesis import strategies as st

from jdec.core.training import BATCH_ORDERS, Algorithm, batch_rows, make_optimizer, scan_steps

KEY = jax.random.key(0)

sequential = jax.jit(
    lambda step, n_rows, batch_size: batch_rows(KEY, step, n_rows, batch_size, "sequential"),
    static_argnums=(1, 2),
)


# Batches.


@pytest.mark.parametrize("n_rows", [1, 2, 5, 6, 7, 12, 13, 17])
def test_sequential_batches_are_cyclic(n_rows):
    batches = np.array([sequential(step, n_rows, 6) for step in range(2 * n_rows)])
    np.testing.assert_array_equal(batches.ravel(), np.arange(batches.size) % n_rows)
    assert np.bincount(batches[:n_rows].ravel()).tolist() == [6] * n_rows


@given(
    st.integers(0, 2**31 - 1),
    st.integers(1, 10**7),
    st.sampled_from([1, 2, 255, 256, 1000, 4096]),
)
@example(2**31 - 1, 10**7, 4096)
@example(2**31 - 1, 9_999_991, 256)
@example(2**24 + 1, 70_000, 256)
def test_sequential_batches_at_any_step(step, n_rows, batch_size):
    rows = batch_rows(KEY, step, n_rows, batch_size, "sequential")
    assert (rows.dtype, rows.shape) == (jnp.int32, (batch_size,))
    expected = [(step * batch_size + i) % n_rows for i in range(batch_size)]
    assert rows.tolist() == expected


@pytest.mark.parametrize("step", [2**31 - 1, jnp.int32(2**31 - 1), np.int32(2**31 - 1)])
def test_a_traced_step_is_the_same(step):
    expected = [((2**31 - 1) * 256 + i) % 70_001 for i in range(256)]
    assert sequential(step, 70_001, 256).tolist() == expected


@pytest.mark.parametrize("n_rows", [1, 3, 100])
def test_random_batches(n_rows):
    rows = batch_rows(KEY, 0, n_rows, 1000, "random")
    assert (rows.dtype, rows.shape) == (jnp.int32, (1000,))
    counts = np.bincount(rows, minlength=n_rows)
    assert len(counts) == n_rows
    assert counts.min() > 0
    assert counts.max() < 3 * 1000 / n_rows + 10
    np.testing.assert_array_equal(rows, batch_rows(KEY, 7, n_rows, 1000, "random"))
    if n_rows > 1:
        assert (rows != batch_rows(jax.random.key(1), 0, n_rows, 1000, "random")).any()


# The scan.


def noisy_descent():
    """Descent to the mean of the rows, with noise, momentum and all."""
    tx = optax.sgd(0.1, momentum=0.9)

    def init(value):
        return value, tx.init(value)

    def step(key, state, batch):
        value, opt_state = state
        grad = value - batch.mean() + jax.random.normal(key)
        updates, opt_state = tx.update(grad, opt_state)
        return (value + updates, opt_state), {"grad": grad, "batch": batch}

    return Algorithm(init, step)


DATA = jnp.asarray(np.random.default_rng(0).standard_normal(11), jnp.float32)


def run_steps(state, first_step, n_steps, order, key=KEY):
    def gather(batch_key, rows):
        return DATA[rows] + 0.01 * jax.random.normal(batch_key, rows.shape)

    run = jax.jit(
        lambda state, first_step: scan_steps(
            noisy_descent(),
            key,
            state,
            gather,
            first_step=first_step,
            n_steps=n_steps,
            n_rows=11,
            batch_size=4,
            order=order,
        )
    )
    return run(state, first_step)


@pytest.mark.parametrize("order", BATCH_ORDERS)
def test_pieces_of_a_scan_are_the_scan_to_the_bit(order):
    start = noisy_descent().init(jnp.float32(3))
    state, infos = run_steps(start, 0, 12, order)
    pieces, first = [], 0
    piecewise = start
    for n_steps in (5, 1, 6):
        piecewise, info = run_steps(piecewise, first, n_steps, order)
        pieces.append(info)
        first += n_steps
    jax.tree.map(np.testing.assert_array_equal, piecewise, state)
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *pieces)
    jax.tree.map(np.testing.assert_array_equal, joined, infos)
    assert infos["batch"].shape == (12, 4)


def test_steps_draw_anew_and_other_keys_draw_otherwise():
    start = noisy_descent().init(jnp.float32(3))
    _, infos = run_steps(start, 0, 12, "random")
    assert len(set(np.asarray(infos["grad"]).tolist())) == 12
    _, others = run_steps(start, 0, 12, "random", jax.random.key(1))
    assert (infos["batch"] != others["batch"]).any()


def test_a_scan_follows_the_batches():
    algorithm = Algorithm(lambda: None, lambda key, state, batch: (state + 1, batch))
    state, rows = scan_steps(
        algorithm,
        KEY,
        jnp.int32(0),
        lambda key, rows: rows,
        first_step=3,
        n_steps=2,
        n_rows=5,
        batch_size=3,
        order="sequential",
    )
    assert (int(state), rows.tolist()) == (2, [[4, 0, 1], [2, 3, 4]])


def test_row_batch_and_step_keys_differ():
    def step(key, state, batch):
        return state, {"step": jax.random.key_data(key), "batch": jax.random.key_data(batch)}

    _, seen = scan_steps(
        Algorithm(lambda: None, step),
        KEY,
        jnp.int32(0),
        lambda key, rows: key,
        first_step=0,
        n_steps=3,
        n_rows=5,
        batch_size=2,
    )
    keys = np.concatenate([seen["step"], seen["batch"]])
    assert len(np.unique(keys, axis=0)) == 6


def test_an_unknown_batch_order_is_refused():
    with pytest.raises(
        ValueError, match="batch_order: expected one of random, sequential; got 'shuffled'"
    ):
        scan_steps(
            noisy_descent(),
            KEY,
            0,
            lambda key, rows: rows,
            first_step=0,
            n_steps=1,
            n_rows=1,
            batch_size=1,
            order="shuffled",
        )


# Optimizers.


def trajectory(tx, params, grad, n_steps):
    """Parameters after each step on the gradient function."""
    update = jax.jit(tx.update)
    opt_state = tx.init(params)
    seen = []
    for _ in range(n_steps):
        updates, opt_state = update(grad(params), opt_state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params)
    return seen


def start_params():
    rng = np.random.default_rng(1)
    return {
        "encoder_0": {
            "kernel": jnp.asarray(rng.standard_normal((3, 2)), jnp.float32),
            "bias": jnp.asarray(rng.standard_normal(2), jnp.float32),
        },
        "centroids": jnp.asarray(rng.standard_normal((2, 2)), jnp.float32),
    }


def test_sgd_is_caffes():
    settings = {"decay_every": 4, "decay_rate": 0.1, "momentum": 0.9}
    tx = make_optimizer(
        "sgd",
        0.2,
        n_steps=99,
        schedule="step",
        momentum_warmup_steps=6,
        bias_multiplier=2.0,
        **settings,
    )
    params = start_params()
    seen = trajectory(tx, params, lambda params: jax.tree.map(lambda w: 3 * w - 1, params), 12)
    for read, multiplier in (
        (lambda params: params["encoder_0"]["kernel"], 1),
        (lambda params: params["encoder_0"]["bias"], 2),
        (lambda params: params["centroids"], 1),
    ):
        value = reference.as_float64(read(params))
        velocity = np.zeros_like(value)
        for step, found in enumerate(seen):
            rate, momentum = reference.caffe_settings(step, 0.2, warmup_steps=6, **settings)
            value, velocity = reference.caffe_step(
                value, velocity, 3 * value - 1, multiplier * rate, momentum
            )
            np.testing.assert_allclose(read(found), value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_sgd_without_ramp_has_its_momentum_at_once(momentum):
    tx = make_optimizer("sgd", 0.1, n_steps=9, momentum=momentum)
    seen = trajectory(tx, jnp.float32(0), lambda _: jnp.float32(1), 3)
    steps = np.diff([0, *np.asarray(seen)])
    np.testing.assert_allclose(
        steps, [-0.1, -0.1 * (1 + momentum), -0.1 * (1 + momentum + momentum**2)], rtol=1e-5
    )


def test_adam_is_optaxs():
    def grad(params):
        return jax.tree.map(lambda w: jnp.sin(5 * w), params)

    ours = trajectory(make_optimizer("adam", 0.01, n_steps=9), start_params(), grad, 5)
    adam = optax.adam(0.01)
    with jax.numpy_dtype_promotion("standard"):
        theirs = trajectory(adam, start_params(), grad, 5)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weight_decay_is_decoupled_and_spares_all_but_kernels(name):
    tx = make_optimizer(name, 0.1, n_steps=9, momentum=0.0, weight_decay=0.5)
    params = start_params()
    (after,) = trajectory(tx, params, lambda params: jax.tree.map(jnp.zeros_like, params), 1)
    np.testing.assert_allclose(
        after["encoder_0"]["kernel"], 0.95 * params["encoder_0"]["kernel"], rtol=1e-6
    )
    np.testing.assert_array_equal(after["encoder_0"]["bias"], params["encoder_0"]["bias"])
    np.testing.assert_array_equal(after["centroids"], params["centroids"])


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_bias_multiplier_is_on_biases_alone(name):
    params = start_params()
    updates = []
    for multiplier in (1.0, 3.0):
        tx = make_optimizer(name, 0.1, n_steps=9, bias_multiplier=multiplier)
        updates.append(tx.update(params, tx.init(params), params)[0])
    expected = jax.tree.map(np.asarray, updates[0])
    expected["encoder_0"]["bias"] = 3 * expected["encoder_0"]["bias"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates[1], expected)


def rates(schedule, n_steps, **settings):
    tx = make_optimizer("sgd", 0.2, n_steps=n_steps, schedule=schedule, momentum=0.0, **settings)
    seen = trajectory(tx, jnp.float32(0), lambda _: jnp.float32(1), n_steps + 2)
    return -np.diff([0, *np.asarray(seen, np.float64)])


def test_schedules():
    steps = np.arange(42)
    np.testing.assert_allclose(rates("constant", 40), 0.2, rtol=1e-4)
    np.testing.assert_allclose(
        rates("step", 40, decay_every=15, decay_rate=0.5), 0.2 * 0.5 ** (steps // 15), rtol=1e-4
    )
    cosine = 0.1 * (1 + np.cos(np.pi * np.minimum(steps, 40) / 40))
    np.testing.assert_allclose(rates("cosine", 40), cosine, rtol=1e-4, atol=1e-6)
    # One cycle: 15 % of the steps up from a tenth, then down to a thousandth.
    one_cycle = rates("one_cycle", 40)
    np.testing.assert_allclose(one_cycle[:7], np.linspace(0.02, 0.2, 7), rtol=1e-4)
    share = np.minimum(steps[6:] - 6, 34) / 34
    down = 0.0002 + (0.2 - 0.0002) * (1 + np.cos(np.pi * share)) / 2
    np.testing.assert_allclose(one_cycle[6:], down, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one_cycle"])
@pytest.mark.parametrize("n_steps", [0, 1, 2])
def test_schedules_of_very_short_phases(schedule, n_steps):
    assert np.isfinite(rates(schedule, n_steps)).all()


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one_cycle"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_traced_learning_rate(name, schedule):
    def moves(rate):
        tx = make_optimizer(name, rate, n_steps=9, schedule=schedule, decay_every=4)

        def step(state, _):
            updates, state = tx.update(jnp.float32(1), state)
            return state, updates

        return jax.lax.scan(step, tx.init(jnp.float32(0)), length=9)[1]

    together = jax.jit(jax.vmap(moves))(jnp.array([0.1, 0.2]))
    np.testing.assert_allclose(together, [moves(0.1), moves(0.2)], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "lamb"}, "optimizer: expected one of sgd, adam; got 'lamb'"),
        ({"schedule": "poly"}, "schedule: expected one of constant, step, .*; got 'poly'"),
        ({"learning_rate": 0.0}, "learning_rate: expected a finite number > 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected .*, got nan"),
        ({"momentum": 1.0}, r"momentum: expected a number in \[0, 1\), got 1.0"),
        ({"bias_multiplier": -1.0}, "bias_multiplier: expected a finite number > 0, got -1.0"),
        ({"weight_decay": -0.1}, "weight_decay: expected a finite number >= 0, got -0.1"),
        ({"schedule": "step", "decay_every": 0}, "decay_every: expected .*, got 0"),
        ({"schedule": "step", "decay_rate": 0.0}, "decay_rate: expected .*, got 0.0"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(**({"name": "sgd", "learning_rate": 0.1, "n_steps": 9} | change))
