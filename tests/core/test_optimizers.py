import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference

from jdec.core.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    apply_gradients,
    make_optimizer,
    state_factors,
    takes_weight_decay,
)
from jdec.core.pretraining import PretrainState

WITHOUT_DECAY = [name for name in OPTIMIZERS if not takes_weight_decay(name)]


def trajectory(tx, params, grad, n_steps):
    """Parameters after each step on the gradient function."""
    step = jax.jit(lambda params, opt_state: apply_gradients(tx, grad(params), opt_state, params))
    opt_state = tx.init(params)
    seen = []
    for _ in range(n_steps):
        params, opt_state = step(params, opt_state)
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
    theirs = trajectory(optax.adam(0.01), start_params(), grad, 5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), ours, theirs)


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_factors_of_adam_evaluated_ahead_are_those_of_each_step(schedule):
    tx = make_optimizer(
        "adam", 0.01, n_steps=9, schedule=schedule, weight_decay=0.1, bias_multiplier=2.0
    )

    def run(params, ahead):
        opt_state = tx.init(params)
        for step in range(9):
            grads = jax.tree.map(lambda w: jnp.sin(5 * w), params)
            entry = (
                None if ahead is None else jax.tree.map(lambda leaf, step=step: leaf[step], ahead)
            )
            params, opt_state = apply_gradients(tx, grads, opt_state, params, entry)
        return params, opt_state

    ahead = state_factors(tx, PretrainState(None, tx.init(start_params())), 9)
    assert all(leaf.shape == (9,) for leaf in ahead)
    ours, theirs = run(start_params(), ahead), run(start_params(), None)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), ours, theirs)
    # Of later steps as well.
    later = state_factors(tx, PretrainState(None, ours[1]), 2)
    continued = state_factors(tx, PretrainState(None, tx.init(start_params())), 11)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[9:], rtol=1e-6), later, continued)


def test_other_optimizers_have_no_factors():
    assert state_factors(optax.adam(0.1), None, 3) is None


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


@pytest.mark.parametrize("name", ["sgd", "adam", "lion"])
def test_the_bias_multiplier_is_on_biases_alone(name):
    params = start_params()
    moves = []
    for multiplier in (1.0, 3.0):
        tx = make_optimizer(name, 0.1, n_steps=9, bias_multiplier=multiplier)
        (after,) = trajectory(tx, params, lambda params: params, 1)
        moves.append(jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), after, params))
    expected = moves[0]
    expected["encoder_0"]["bias"] = 3 * expected["encoder_0"]["bias"]
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, moves[1], expected)


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


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n_steps", [0, 1, 2])
def test_schedules_of_very_short_phases(schedule, n_steps):
    assert np.isfinite(rates(schedule, n_steps)).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_traced_learning_rate(name, schedule):
    def moves(rate):
        tx = make_optimizer(name, rate, n_steps=9, schedule=schedule, decay_every=4)

        def step(carry, _):
            params, opt_state = apply_gradients(tx, jnp.float32(1), carry[1], carry[0])
            return (params, opt_state), params

        start = jnp.float32(0)
        return jax.lax.scan(step, (start, tx.init(start)), length=9)[1]

    together = jax.jit(jax.vmap(moves))(jnp.array([0.1, 0.2]))
    np.testing.assert_allclose(together, [moves(0.1), moves(0.2)], rtol=1e-5)


# Optax's aliases.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_a_quadratic(name):
    """Of matrices, of a bias and of centroids, compiled and under strict promotion."""
    params = start_params()

    def loss(params):
        return sum(((leaf - 0.3) ** 2).sum() for leaf in jax.tree.leaves(params))

    # Steps of signs or of norms are of the learning rate's size whatever the gradient; the first
    # of rprop is none.
    tx = make_optimizer(name, 1e-3, n_steps=9)
    steps = trajectory(tx, params, jax.grad(loss), 3)
    first, second, third = map(loss, steps)
    assert first < loss(params) or name == "rprop"
    assert third < second < loss(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(steps[-1])} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "lion", "lars"])
def test_aliases_are_optaxs(name):
    def grad(params):
        return jax.tree.map(lambda w: jnp.sin(5 * w), params)

    ours = trajectory(make_optimizer(name, 0.01, n_steps=9), start_params(), grad, 3)
    without = {} if name in WITHOUT_DECAY else {"weight_decay": 0.0}
    theirs = trajectory(getattr(optax, name)(0.01, **without), start_params(), grad, 3)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in WITHOUT_DECAY])
def test_weight_decay_is_on_kernels_alone(name):
    def after(weight_decay):
        tx = make_optimizer(name, 0.1, n_steps=9, momentum=0.0, weight_decay=weight_decay)
        params = start_params()
        (found,) = trajectory(tx, params, lambda params: jax.tree.map(jnp.cos, params), 1)
        return found

    decayed, plain = after(0.5), after(0.0)
    np.testing.assert_array_equal(decayed["encoder_0"]["bias"], plain["encoder_0"]["bias"])
    np.testing.assert_array_equal(decayed["centroids"], plain["centroids"])
    assert (decayed["encoder_0"]["kernel"] != plain["encoder_0"]["kernel"]).any()


def test_weight_decay_of_an_alias_without_is_refused():
    assert {"adagrad", "rmsprop", "fromage", "yogi"} <= set(WITHOUT_DECAY)
    # It has one of all parameters, as Optax has no mask for it.
    assert "novograd" in WITHOUT_DECAY
    for name in WITHOUT_DECAY:
        with pytest.raises(
            ValueError, match=f"weight_decay: expected 0 for {name}, which has none; got 0.01"
        ):
            make_optimizer(name, 0.1, n_steps=9, weight_decay=0.01)


def test_optimizers_are_all_aliases_that_need_a_learning_rate_alone():
    def is_alias(make):
        parameters = list(inspect.signature(make).parameters.values())
        needed = [
            p.name for p in parameters if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD
        ]
        return parameters[:1] and parameters[0].name == "learning_rate" and len(needed) <= 1

    assert len(set(OPTIMIZERS)) == len(OPTIMIZERS)
    assert all(is_alias(getattr(optax, name)) for name in OPTIMIZERS)


# Bad settings.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "lbfgs"}, "optimizer: expected one of sgd, adam, .*, yogi; got 'lbfgs'"),
        ({"name": "Adam"}, "optimizer: expected one of sgd, adam, .*, yogi; got 'Adam'"),
        ({"n_steps": -1}, "n_steps: expected an integer >= 0, got -1"),
        ({"momentum_warmup_steps": 0.5}, "momentum_warmup_steps: expected .*, got 0.5"),
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
def test_bad_settings_are_refused(unchecked, change, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(**({"name": "sgd", "learning_rate": 0.1, "n_steps": 9} | change))
