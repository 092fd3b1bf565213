"""The host loop is the functional core bit for bit, compiled with all optimisations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from jdec.core.batches import Batches
from jdec.core.dec import run, self_training
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.programs import build_network, build_optimizer
from jdec.trainer.scaling import fit_scaling

pytestmark = pytest.mark.usefixtures("full_compilation")

X = load_digits().data[:200]
KEY = jax.random.key(3)
CONFIG = Config(6).replace(
    {
        "network.hidden_dims": [16],
        "network.latent_dim": 4,
        "pretrain.layerwise_steps": 2,
        "pretrain.finetune_steps": 20,
        "pretrain.batch_size": 64,
        "kmeans.n_init": 2,
        "clustering.batch_size": 64,
        "clustering.update_interval": 10,
        "clustering.max_intervals": 4,
        "clustering.tol": 0.0,
        "clustering.optimizer.learning_rate": 1e-3,
    }
)


def same_bits(one, other):
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def timeless(history):
    return [{name: r[name] for name in r if name != "seconds"} for r in history]


class StopError(BaseException):
    """Ends a run, as an interrupt does."""


@pytest.fixture(scope="module")
def unbroken():
    return fit(KEY, X, CONFIG)


def test_a_fit_is_the_loop_of_the_core(unbroken):
    network, settings = build_network(CONFIG), CONFIG.clustering
    n_steps = settings.max_intervals * settings.update_interval
    algorithm = self_training(network.encode, build_optimizer(settings.optimizer, n_steps))
    params = network.encoder_params(unbroken.autoencoder_params)
    state = algorithm.init(*jax.device_put((params, unbroken.initial.centroids)))
    rows = X.astype(np.float32)
    final, targets = jax.jit(
        partial(
            run,
            algorithm=algorithm,
            tol=settings.tol,
            max_intervals=settings.max_intervals,
            update_interval=settings.update_interval,
            batches=Batches(settings.batch_size, settings.batch_order),
        )
    )(jax.random.split(KEY, 4)[3], state, jnp.asarray(fit_scaling(rows).apply(rows)))
    assert same_bits(final.params.encoder, unbroken.model.params)
    assert same_bits(final.params.centroids, unbroken.model.centroids)
    np.testing.assert_array_equal(targets.labels, unbroken.labels)
    last = unbroken.history[-1]
    assert (int(final.interval), float(targets.label_change)) == (4, last["label_change"])
    np.testing.assert_allclose(targets.kl, last["kl"], rtol=1e-6)


@pytest.mark.parametrize("n_records", [1, 3, 4, 10, 24, 25, 27])
def test_an_interrupted_fit_ends_with_the_same_bits(unbroken, tmp_path, n_records):
    seen = []

    def stop(record):
        seen.append(record)
        if len(seen) == n_records:
            raise StopError

    with pytest.raises(StopError):
        fit(KEY, X, CONFIG, workdir=tmp_path, callbacks=[stop], checkpoint_seconds=0)
    seen.clear()
    resumed = fit(KEY, X, CONFIG, workdir=tmp_path, resume=True, callbacks=[seen.append])
    assert same_bits((*resumed.model[1:3], *resumed[1:6]), (*unbroken.model[1:3], *unbroken[1:6]))
    assert timeless(resumed.history) == timeless(unbroken.history)
    assert len(seen) == len(unbroken.history) - n_records + 1
