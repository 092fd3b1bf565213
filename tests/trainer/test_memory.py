"""Settings that take too much memory, and what a population takes; nothing is run."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from jdec.trainer import memory, programs
from jdec.trainer.config import Config
from jdec.trainer.memory import check_memory
from jdec.trainer.programs import MemberMapping, Plan, build_network
from jdec.trainer.sharding import RowSharding

pytestmark = pytest.mark.usefixtures("full_compilation")

N, D, M = 50_000, 40, 16
CONFIG = Config(4).replace(
    {
        "network.hidden_dims": [8],
        "network.latent_dim": 2,
        "clustering.update_interval": 3,
        "clustering.batch_size": 64,
    }
)


@pytest.mark.parametrize("vectorized", [True, False])
def test_members_share_their_rows(vectorized):
    """A condition under vmap would copy them for every member."""
    plan = Plan(
        CONFIG, build_network(CONFIG), RowSharding(N), members=MemberMapping(None, vectorized)
    )
    x = jax.ShapeDtypeStruct((N, D), jnp.float32)
    keys = jax.random.split(jax.random.key(0), M)
    params, _ = jax.eval_shape(partial(programs.init_params, plan=plan, n_features=D), keys)
    centroids = jax.ShapeDtypeStruct((M, 4, 2), jnp.float32)
    state = jax.eval_shape(partial(programs.init_state, plan=plan), params, centroids)
    labels = jax.ShapeDtypeStruct((M, N), jnp.int32)
    targets, _ = jax.eval_shape(partial(programs.refresh, plan=plan), state.params, labels, x)
    program = programs.train.lower(keys, state, targets, x, plan=plan).compile()
    one_copy = 4 * N * D
    assert program.memory_analysis().temp_size_in_bytes < 2 * one_copy


@pytest.mark.parametrize(
    ("fields", "sizes", "name"),
    [
        ({"network.hidden_dims": [2**15]}, (100, 2**14), r"network\.hidden_dims"),
        ({"pretrain.batch_size": 2**20}, (100, 784), "batch_size × network.hidden_dims"),
        ({"n_clusters": 2**15}, (10**6, 10), "n_clusters × rows"),
        ({"kmeans.n_init": 10**6, "n_clusters": 1000}, (1000, 10), "kmeans.n_init × n_clusters"),
        (
            {"network.kind": "conv", "image_shape": (2**10, 2**10), "network.channels": [8, 8, 8]},
            (100, 2**20),
            "batch_size × network.channels",
        ),
    ],
)
def test_what_takes_the_most_is_named(fields, sizes, name, monkeypatch):
    config = CONFIG.replace(fields)
    monkeypatch.setattr(memory, "free_device_bytes", lambda: 2**29)
    message = rf"({name}): expected settings that take at most 0\.5 GiB, which are free, got some"
    with pytest.raises(ValueError, match=message) as caught:
        check_memory(config, *sizes)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(memory, "free_device_bytes", lambda: None)  # where nobody knows
    check_memory(config, *sizes)
    monkeypatch.setattr(memory, "free_device_bytes", lambda: 2**50)
    check_memory(config, *sizes)


def test_rows_over_devices_take_less_memory_on_each(monkeypatch):
    monkeypatch.setattr(memory, "free_device_bytes", lambda: 2**29)
    config = CONFIG.replace({"n_clusters": 100})
    with pytest.raises(ValueError, match="n_clusters × rows"):
        check_memory(config, 10**6, 10)
    check_memory(config, 10**6, 10, n_devices=8)


def test_a_phase_that_is_left_out_takes_no_memory(monkeypatch):
    monkeypatch.setattr(memory, "free_device_bytes", lambda: 2**29)
    config = CONFIG.replace({"pretrain.batch_size": 2**20, "pretrain.finetune_steps": 0})
    check_memory(config, 100, 784)
