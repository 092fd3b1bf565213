import jax
import numpy as np

from jdec.bench.phases import clustering_state, make_plan, make_rows, products_of
from jdec.trainer.config import Config
from jdec.trainer.programs import train

CONFIG = Config(n_clusters=2).replace(
    {
        "network.hidden_dims": [5],
        "network.latent_dim": 3,
        "pretrain.batch_size": 7,
        "clustering.update_interval": 4,
        "clustering.batch_size": 8,
    }
)


def test_products_of_a_step_are_counted_layer_by_layer():
    weights, first = 784 * 5 + 5 * 3, 784 * 5
    assert products_of("refresh", CONFIG, 7) == 2 * 7 * weights
    assert products_of("KL step", CONFIG, 7) == 6 * 7 * weights - 2 * 7 * first
    assert products_of("finetune", CONFIG, 7) == 12 * 7 * weights - 2 * 7 * first
    assert products_of("layer", CONFIG, 7, 1) == 2 * 7 * (first + 5 * 15)


def test_an_unrolled_loop_takes_the_same_steps():
    x, found = make_rows(20), []
    for unroll in (1, 2):
        plan = make_plan(CONFIG, len(x), unroll)
        state, targets = clustering_state(plan, x)
        found.append(train(jax.random.key(0), state, targets, x, plan=plan)[1])
    np.testing.assert_allclose(*found, rtol=1e-5)
