"""The programs of the core lower for accelerators that are not here, and never call the host."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

from jdec.core import (
    Augmentation,
    Batches,
    ConvolutionalAutoencoder,
    DECBatch,
    StackedDenoisingAutoencoder,
    finetune,
    initial_partition,
    layerwise,
    make_optimizer,
    overclustered_kmeans,
    random_affine,
    run,
    run_interval,
    scan_steps,
    self_training,
)
from jdec.core.kmeans import kmeans

pytestmark = pytest.mark.usefixtures("full_compilation")

KEY = jax.random.key(0)
MLP = StackedDenoisingAutoencoder((8,), 3)
CONV = ConvolutionalAutoencoder((4, 4), (4,), (3,), 3)
X = jnp.zeros((20, 16))
MOVE = Augmentation(max_shift=1.0, max_rotation=10.0)
N_CLUSTERS = 4
CUSTOM_CALL = r"custom_call @([\w.$]+)"


def augmented(key, x, indices):
    return random_affine(key, x[indices], (4, 4), MOVE)


def augmented_batch(key, batch, indices):
    return DECBatch(augmented(key, batch.x, indices), batch.p[indices])


def reconstruction(network, key, params, batch):
    z = network.encode(params.encoder, batch.x)
    return jnp.mean((network.decode(params.encoder, z) - batch.x) ** 2)


def adam():
    return make_optimizer("adam", 1e-3, n_steps=9, schedule="one_cycle")


def clustering(function=run_interval, network=MLP, tx=None, batches=None, reset=False, **options):
    """Function of self-training, and arguments for it."""
    algorithm = self_training(network.encode, tx or adam(), **options)
    settings = {
        "update_interval": 3,
        "batches": batches or Batches(8, gather=augmented_batch),
        "reset_optimizer": reset,
    }

    def start():
        state = algorithm.init(network.init(KEY, 16), jnp.zeros((N_CLUSTERS, 3)))
        return state, algorithm.refresh(state.params, X)

    state, targets = jax.eval_shape(start)
    if function is run:
        return lambda key, state, x: run(key, state, x, algorithm, **settings), (KEY, state, X)
    return (
        lambda key, state, targets, x: run_interval(key, state, targets, x, algorithm, **settings),
        (KEY, state, targets, X),
    )


def pretraining(stage, network=MLP):
    """Scan of a stage of pretraining, and arguments for it."""
    batches = Batches(8, gather=augmented)
    state = jax.eval_shape(lambda: stage.init(network.init(KEY, 16)))
    return (
        lambda key, state, x: scan_steps(stage, key, state, x, n_steps=3, batches=batches),
        (KEY, state, X),
    )


def side_by_side():
    single, (key, state, x) = clustering(run, tx=optax.sgd(0.1))
    return jax.vmap(single, in_axes=(0, None, None)), (jax.random.split(key, 2), state, x)


def paper():
    tx = make_optimizer(
        "sgd", 0.1, n_steps=9, schedule="step", momentum_warmup_steps=5, bias_multiplier=2.0
    )
    return tx, Batches(8, "sequential")


def kmeans_program(function=kmeans, **options):
    return lambda key, x: function(key, x, N_CLUSTERS, n_init=3, **options), (KEY, X)


PROGRAMS = {
    "kmeans": kmeans_program,
    "kmeans, restarts side by side": lambda: kmeans_program(restarts_at_once=3),
    "overclustered_kmeans": lambda: kmeans_program(overclustered_kmeans),
    "initial_partition": lambda: kmeans_program(
        initial_partition, overclustering_factors=(1, 3), select="kl"
    ),
    "run_interval": clustering,
    "run_interval, paper": lambda: clustering(
        tx=paper()[0], batches=paper()[1], reset=True, freeze_encoder=True
    ),
    "run_interval, reconstruction": lambda: clustering(
        network=CONV, extra_loss=lambda *arguments: reconstruction(CONV, *arguments)
    ),
    "run": lambda: clustering(run),
    "run, seeds side by side": side_by_side,
    "layerwise": lambda: pretraining(layerwise(MLP, 1, paper()[0])),
    "finetune": lambda: pretraining(finetune(MLP, adam(), corruption_rate=0.2)),
    "finetune, convolutions": lambda: pretraining(finetune(CONV, adam()), CONV),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_lowers_without_a_call_to_the_host(name):
    function, arguments = PROGRAMS[name]()
    compiled = jax.jit(function)  # traced once, for all three
    for platform in ("cpu", "cuda", "tpu"):
        exported = jax.export.export(compiled, platforms=[platform])(*arguments)
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
