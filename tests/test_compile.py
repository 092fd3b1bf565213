"""The programs of the core lower for accelerators that are not here, and never call the host."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

from jdec import finetune, kmeans, layerwise, run
from jdec.core import (
    Augmentation,
    Clustering,
    init_params,
    init_state,
    make_autoencoder,
    make_encode,
    make_optimizer,
    random_affine,
    run_interval,
    scan_steps,
)
from jdec.core.autoencoder import encoder_params
from jdec.core.kmeans import merged_kmeans

KEY = jax.random.key(0)
NETWORK = make_autoencoder(16, (8,), 3, corruption_rate=0.2)
X = jnp.zeros((20, 16))
MOVE = Augmentation(max_shift=1.0, max_rotation=10.0)
N_CLUSTERS = 4
CUSTOM_CALL = r"custom_call @([\w.$]+)"


def augment(key, x):
    return random_affine(key, x, (4, 4), MOVE)


def clustering(**changes):
    settings = {
        "encode": make_encode(NETWORK),
        "tx": make_optimizer("adam", 1e-3, n_steps=9, schedule="one_cycle"),
        "update_interval": 3,
        "batch_size": 8,
        "block_size": 8,
    }
    return Clustering(**(settings | changes))


def state_of(settings):
    def start():
        params = encoder_params(init_params(KEY, NETWORK))
        return init_state(params, jnp.zeros((N_CLUSTERS, 3)), X, settings)

    return jax.eval_shape(start)


def pretraining(stage):
    """Scan of a stage of pretraining, and a state for it."""

    def steps(key, state, x):
        return scan_steps(
            stage,
            key,
            state,
            lambda batch_key, rows: augment(batch_key, x[rows]),
            first_step=0,
            n_steps=3,
            n_rows=20,
            batch_size=8,
        )

    return steps, jax.eval_shape(lambda: stage.init(init_params(KEY, NETWORK)))


def program(name):
    """A function and the arguments to lower it for."""
    if name == "kmeans":
        return lambda key, x: kmeans(key, x, N_CLUSTERS, n_init=3), (KEY, X)
    if name == "merged_kmeans":
        return lambda key, x: merged_kmeans(key, x, N_CLUSTERS, n_init=3), (KEY, X)
    if name == "kmeans, restarts side by side":
        return lambda key, x: kmeans(key, x, N_CLUSTERS, n_init=3, restarts_at_once=3), (KEY, X)
    if name == "run_interval":
        settings = clustering(augment=augment)
        return lambda key, state, x: run_interval(key, state, x, settings), (
            KEY,
            state_of(settings),
            X,
        )
    if name == "run_interval, paper":
        tx = make_optimizer("sgd", 0.01, n_steps=9)
        settings = clustering(
            tx=tx, batch_order="sequential", reset_optimizer=True, freeze_encoder=True
        )
        return lambda key, state, x: run_interval(key, state, x, settings), (
            KEY,
            state_of(settings),
            X,
        )
    if name == "run":
        settings = clustering()
        return lambda key, state, x: run(key, state, x, settings), (KEY, state_of(settings), X)
    if name == "run, seeds side by side":
        settings = clustering(tx=optax.sgd(0.1))
        single = lambda key, state, x: run(key, state, x, settings)  # noqa: E731
        return jax.vmap(single, in_axes=(0, None, None)), (
            jax.random.split(KEY, 2),
            state_of(settings),
            X,
        )
    if name == "layerwise":
        tx = make_optimizer(
            "sgd", 0.1, n_steps=9, schedule="step", momentum_warmup_steps=5, bias_multiplier=2.0
        )
        steps, state = pretraining(layerwise(NETWORK, 1, tx))
    else:
        steps, state = pretraining(finetune(NETWORK, make_optimizer("adam", 0.1, n_steps=9)))
    return steps, (KEY, state, X)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize(
    "name",
    [
        *("kmeans", "kmeans, restarts side by side", "merged_kmeans"),
        *("run_interval", "run_interval, paper", "run", "run, seeds side by side"),
        *("layerwise", "finetune"),
    ],
)
def test_it_lowers_without_a_call_to_the_host(platform, name):
    function, arguments = program(name)
    exported = jax.export.export(jax.jit(function), platforms=[platform])(*arguments)
    assert exported.platforms == (platform,)
    text = exported.mlir_module()
    calls = set(re.findall(CUSTOM_CALL, text))
    assert not [call for call in calls if "callback" in call.lower() or "host" in call.lower()]
    assert not re.search(r"stablehlo\.(send|recv|infeed|outfeed)", text)
    assert "f64" not in text


def test_a_call_to_the_host_would_be_seen():
    def function(x):
        jax.debug.print("{}", x)
        return x

    with pytest.raises(NotImplementedError, match="host_callbacks"):
        jax.export.export(jax.jit(function), platforms=["cpu"])(X)
    text = jax.jit(function).lower(X).as_text()
    assert any("callback" in call for call in re.findall(CUSTOM_CALL, text))
