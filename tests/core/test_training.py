import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jdec.core.batches import BATCH_ORDERS, Batches, batch_indices, take_rows
from jdec.core.optimizers import apply_gradients
from jdec.core.training import Algorithm, scan_batches, scan_steps, step_indices

pytestmark = pytest.mark.usefixtures("full_compilation")

KEY = jax.random.key(0)

sequential = jax.jit(
    lambda step, n_rows, batch_size: batch_indices(KEY, step, n_rows, batch_size, "sequential"),
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
    rows = batch_indices(KEY, step, n_rows, batch_size, "sequential")
    assert (rows.dtype, rows.shape) == (jnp.int32, (batch_size,))
    expected = [(step * batch_size + i) % n_rows for i in range(batch_size)]
    assert rows.tolist() == expected


@pytest.mark.parametrize("step", [2**31 - 1, jnp.int32(2**31 - 1), np.int32(2**31 - 1)])
def test_a_traced_step_is_the_same(step):
    expected = [((2**31 - 1) * 256 + i) % 70_001 for i in range(256)]
    assert sequential(step, 70_001, 256).tolist() == expected


@pytest.mark.parametrize("n_rows", [1, 3, 100])
def test_random_batches(n_rows):
    rows = batch_indices(KEY, 0, n_rows, 1000, "random")
    assert (rows.dtype, rows.shape) == (jnp.int32, (1000,))
    counts = np.bincount(rows, minlength=n_rows)
    assert len(counts) == n_rows
    assert counts.min() > 0
    assert counts.max() < 3 * 1000 / n_rows + 10
    np.testing.assert_array_equal(rows, batch_indices(KEY, 7, n_rows, 1000, "random"))
    if n_rows > 1:
        assert (rows != batch_indices(jax.random.key(1), 0, n_rows, 1000, "random")).any()


# The scan.


def noisy_descent():
    """Descent to the mean of the rows, with noise, momentum and all."""
    tx = optax.sgd(0.1, momentum=0.9)

    def init(value):
        return value, tx.init(value)

    def step(key, state, batch):
        value, opt_state = state
        grad = value - batch.mean() + jax.random.normal(key)
        value, opt_state = apply_gradients(tx, grad, opt_state, value)
        return (value, opt_state), {"grad": grad, "batch": batch}

    return Algorithm(init, step)


DATA = jnp.asarray(np.random.default_rng(0).standard_normal(11), jnp.float32)


def run_steps(state, first_step, n_steps, order, key=KEY):
    def gather(batch_key, data, indices):
        return data[indices] + 0.01 * jax.random.normal(batch_key, indices.shape)

    batches = Batches(4, order, gather=gather)
    run = jax.jit(
        lambda state, first_step: scan_steps(
            noisy_descent(),
            key,
            state,
            DATA,
            first_step=first_step,
            n_steps=n_steps,
            batches=batches,
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


@pytest.mark.parametrize("order", BATCH_ORDERS)
def test_rows_gathered_elsewhere_give_the_same_to_the_bit(order):
    def alter(key, batch):
        return batch + jax.random.normal(key, batch.shape)

    def step(key, state, batch):
        state = state + (batch * jax.random.uniform(key, batch.shape)).sum()
        return state, state

    algorithm = Algorithm(init=lambda: 0.0, step=step)
    data = jax.random.normal(jax.random.key(1), (13, 3))
    batches = Batches(4, order, gather=lambda key, data, i: alter(key, data[i]))
    steps = {"first_step": 5, "n_steps": 7}
    expected = scan_steps(algorithm, KEY, jnp.float32(0), data, **steps, batches=batches)
    indices = step_indices(KEY, **steps, n_rows=13, batches=batches)
    assert indices.shape == (7, 4)
    found = scan_batches(algorithm, KEY, jnp.float32(0), data[indices], first_step=5, alter=alter)
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("order", BATCH_ORDERS)
def test_what_is_drawn_before_the_scan_is_what_would_be_drawn_in_it(order):
    """For rows gathered here and elsewhere; the numbers of steps as well."""

    def draw(key):
        return jax.random.normal(key, (4, 3))

    def step(key, state, batch, ahead=0.0):
        state = state + (batch * jax.random.uniform(key, batch.shape)).sum() + ahead
        return state, state

    def counted(state, n_steps):
        return jnp.arange(n_steps, dtype=jnp.float32)

    data = jax.random.normal(jax.random.key(1), (13, 3))
    steps = {"first_step": 5, "n_steps": 7}
    inside = Batches(4, order, gather=lambda key, data, i: data[i] + draw(key))
    plain = Algorithm(init=lambda: 0.0, step=step)
    expected = scan_steps(plain, KEY, jnp.float32(0), data, **steps, batches=inside)[1]
    expected = np.asarray(expected) + np.cumsum(np.arange(7))
    before = Batches(4, order, gather=lambda drawn, data, i: data[i] + drawn, draw=draw)
    algorithm = Algorithm(init=lambda: 0.0, step=step, ahead=counted)
    found = scan_steps(algorithm, KEY, jnp.float32(0), data, **steps, batches=before)
    np.testing.assert_allclose(found[1], expected, rtol=1e-5)
    rows = data[step_indices(KEY, **steps, n_rows=13, batches=before)]
    seams = {"alter": lambda drawn, batch: batch + drawn, "draw": draw, "first_step": 5}
    found = scan_batches(algorithm, KEY, jnp.float32(0), rows, **seams)
    np.testing.assert_allclose(found[1], expected, rtol=1e-5)


def test_steps_draw_anew_and_other_keys_draw_otherwise():
    start = noisy_descent().init(jnp.float32(3))
    _, infos = run_steps(start, 0, 12, "random")
    assert len(set(np.asarray(infos["grad"]).tolist())) == 12
    _, others = run_steps(start, 0, 12, "random", jax.random.key(1))
    assert (infos["batch"] != others["batch"]).any()


def rows_of(data, *, first_step=0, n_steps=2, batches):
    """What a scan gives its steps, and its last state."""
    algorithm = Algorithm(lambda: None, lambda key, state, batch: (state + 1, batch))
    return scan_steps(
        algorithm, KEY, jnp.int32(0), data, first_step=first_step, n_steps=n_steps, batches=batches
    )


def test_a_scan_follows_the_batches():
    state, rows = rows_of(jnp.arange(5), first_step=3, batches=Batches(3, "sequential"))
    assert (int(state), rows.tolist()) == (2, [[4, 0, 1], [2, 3, 4]])


def test_a_scan_draws_what_batch_rows_says():
    _, rows = rows_of(jnp.arange(11), first_step=5, n_steps=3, batches=Batches(4))
    for step, found in enumerate(rows, 5):
        key = jax.random.split(jax.random.fold_in(KEY, step), 3)[0]
        np.testing.assert_array_equal(found, batch_indices(key, step, 11, 4, "random"))


def test_leaves_of_the_data_stay_together():
    data = {"x": 10 * jnp.arange(5), "p": (jnp.arange(5.0), jnp.ones((5, 2)))}
    _, rows = rows_of(data, batches=Batches(7))
    assert rows["x"].shape == (2, 7)
    assert rows["p"][1].shape == (2, 7, 2)
    np.testing.assert_array_equal(rows["x"], 10 * rows["p"][0].astype(jnp.int32))


@pytest.mark.parametrize("order", BATCH_ORDERS)
def test_rows_after_the_first_n_are_not_drawn(order):
    _, rows = rows_of(jnp.arange(9), n_steps=20, batches=Batches(4, order, n_rows=5))
    assert set(np.ravel(rows).tolist()) == set(range(5))


def test_rows_are_taken_unaltered():
    data = {"x": jnp.arange(4.0)}
    assert take_rows(KEY, data, jnp.array([3, 3, 0]))["x"].tolist() == [3, 3, 0]
    assert Batches() == Batches(256, "random", None, take_rows)


def test_row_batch_and_step_keys_differ():
    def step(key, state, batch):
        return state, {"step": jax.random.key_data(key), "batch": jax.random.key_data(batch)}

    _, seen = scan_steps(
        Algorithm(lambda: None, step),
        KEY,
        jnp.int32(0),
        jnp.arange(5),
        n_steps=3,
        batches=Batches(2, gather=lambda key, data, indices: key),
    )
    rows = [jax.random.key_data(jax.random.split(jax.random.fold_in(KEY, s), 3)[0]) for s in (0, 1)]
    keys = np.concatenate([seen["step"], seen["batch"], rows])
    assert len(np.unique(keys, axis=0)) == 8


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (Batches(order="shuffled"), "batch_order: expected one of random, sequential; got 'shuff"),
        (Batches(size=0), "batch_size: expected an integer >= 1, got 0"),
        (Batches(size=2.5), "batch_size: expected an integer >= 1, got 2.5"),
        ((4, "random"), r"batches: expected .*Batches, got \(4, 'random'\)"),
        (None, "batches: expected .*Batches, got None"),
    ],
)
def test_bad_batches_are_refused(unchecked, batches, message):
    with pytest.raises(ValueError, match=message):
        rows_of(jnp.arange(3), batches=batches)


# Gradients.


def test_a_step_of_adam_under_strict_promotion():
    """Optax adds its int32 counts to floats; the caller's promotion is strict again afterwards."""
    tx = optax.adam(0.1)
    params = {"w": jnp.ones(2)}
    grads, opt_state = {"w": jnp.array([1.0, -2.0])}, tx.init(params)
    with pytest.raises(ValueError, match="promotion"):
        tx.update(grads, opt_state, params)
    after, opt_state = apply_gradients(tx, grads, opt_state, params)
    np.testing.assert_allclose(after["w"], [0.9, 1.1], rtol=1e-5)
    assert opt_state[0].count == 1
    with pytest.raises(ValueError, match="promotion"):
        jnp.float32(1) + jnp.int32(1)


def test_an_optimizer_sees_the_parameters():
    tx = optax.add_decayed_weights(0.5)
    after, _ = apply_gradients(tx, jnp.zeros(2), tx.init(jnp.ones(2)), jnp.ones(2))
    np.testing.assert_allclose(after, 1.5)
