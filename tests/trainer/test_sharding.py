import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from sklearn.datasets import load_digits

from jdec.core.autoencoder import encoder_params, init_params
from jdec.core.dec import DECState
from jdec.trainer.build import Rows, build_clustering, build_network, cluster_steps, refresh
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.sharding import (
    concatenate_rows,
    data_mesh,
    fetch_rows,
    join_rows,
    local_rows,
    map_over_devices,
    member_mesh,
    padded_length,
    replicate,
    shard_rows,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Neither rows nor mini-batches can be shared out evenly among 3 or 8 devices.
N_ROWS, BATCH_SIZE = 77, 22
X, Y = (array[:N_ROWS] for array in load_digits(return_X_y=True))
CONFIG = Config(4).replace(
    {
        "image_shape": (8, 8),
        "augmentation.max_shift": 1.0,
        "augmentation.max_rotation": 10.0,
        "network.hidden_dims": [16],
        "network.latent_dim": 4,
        "pretrain.finetune_steps": 60,
        "pretrain.finetune_corruption_rate": 0.1,
        "pretrain.batch_size": BATCH_SIZE,
        "kmeans.n_init": 3,
        "clustering.batch_size": BATCH_SIZE,
        "clustering.update_interval": 20,
        "clustering.max_intervals": 3,
        "clustering.tol": 0.0,
        "clustering.optimizer.learning_rate": 1e-3,
    }
)
KEY = jax.random.key(0)
DEVICES = [None, 3, 8]


def mesh_of(n_devices):
    return None if n_devices is None else data_mesh(n_devices)


def run(n_devices=None, **kwargs):
    return fit(
        **{"key": KEY, "x": X, "config": CONFIG, "y": Y, "mesh": mesh_of(n_devices)} | kwargs
    )


def check_close(one, other, atol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol), one, other)


def check_same_result(result, expected):
    np.testing.assert_array_equal(result.labels, expected.labels)
    np.testing.assert_allclose(result.soft_assignment, expected.soft_assignment, rtol=0, atol=1e-5)
    check_close(result.autoencoder_params, expected.autoencoder_params)
    check_close(result.model.params, expected.model.params)
    check_close(result.model.centroids, expected.model.centroids)
    np.testing.assert_array_equal(result.initial.labels, expected.initial.labels)
    assert (result.n_intervals, result.stop_reason) == (
        expected.n_intervals,
        expected.stop_reason,
    )
    for record, right in zip(result.history, expected.history, strict=True):
        assert list(record) == list(right)
        for name in set(record) - {"seconds", "loss"}:
            assert record[name] == right[name], name
        if right["loss"] is not None:
            np.testing.assert_allclose(record["loss"], right["loss"], rtol=1e-4)


@pytest.fixture(scope="module")
def expected():
    return run()


# The number of devices does not change the result.


@pytest.mark.parametrize("n_devices", [3, 8])
def test_rows_over_devices_give_the_same(expected, n_devices):
    result = run(n_devices)
    check_same_result(result, expected)
    assert result.history[-1]["step"] == 60
    assert np.abs(result.model.centroids - result.initial.centroids).max() > 0.01
    # All that is handed out is on one device, for callers that know nothing of the others.
    arrays = (result.model[:3], result.autoencoder_params, result.initial)
    for leaf in jax.tree.leaves(arrays):
        assert isinstance(leaf, np.ndarray) or len(leaf.devices()) == 1


def test_fewer_rows_than_devices():
    # One restart: of several that find the same clusters, rounding may choose another numbering.
    changes = {"n_clusters": 2, "kmeans.select": "divergence", "clustering.max_intervals": 1}
    changes |= {"kmeans.n_init": 1}
    config = CONFIG.replace(changes)
    few = {"x": X[:5], "y": Y[:5], "config": config}
    result = run(8, **few)
    check_same_result(result, run(**few))
    assert sum(result.history[-1]["cluster_sizes"]) == 5


def test_rows_of_pretraining_alone_and_a_training_split():
    changes = {
        "pretrain.rows": "train",
        "pretrain.batch_order": "sequential",
        "clustering.max_intervals": 0,
    }
    more = load_digits().data[100:121]
    arguments = {"config": CONFIG.replace(changes), "n_train": 40, "unlabeled": more}
    expected = run(**arguments)
    check_same_result(run(8, **arguments), expected)
    other = run(**arguments | {"unlabeled": more[::-1]})
    assert np.abs(other.embedding - expected.embedding).max() > 1e-3


def test_pretrained_parameters_are_put_on_all_devices(expected):
    result = run(8, autoencoder_params=expected.autoencoder_params)
    np.testing.assert_allclose(result.soft_assignment, expected.soft_assignment, rtol=0, atol=1e-5)
    assert [record["phase"] for record in result.history] == ["clustering"] * 4


class StopError(Exception):
    pass


def stop_at(phase, name, value):
    def callback(record):
        if record["phase"] == phase and record[name] == value:
            raise StopError

    return callback


@pytest.mark.parametrize("order", [[8, 3, None], [None, 8, 3]])
def test_a_run_goes_on_with_another_number_of_devices(tmp_path, expected, order):
    stops = [stop_at("finetune", "step", 30), stop_at("clustering", "interval", 2)]
    for n_devices, stop in zip(order, stops, strict=False):
        with pytest.raises(StopError):
            run(n_devices, workdir=tmp_path, resume=True, callbacks=[stop])
    seen = []
    result = run(order[-1], workdir=tmp_path, resume=True, callbacks=[seen.append])
    check_same_result(result, expected)
    assert len(seen) <= 2  # it did go on


# Padding.


def state_of(x, n_rows, mesh):
    """A state whose P and labels are still to be made."""
    params = encoder_params(init_params(KEY, build_network(CONFIG, 64)))
    params = jax.tree.map(lambda leaf: 3 * leaf, params)  # so that the rows lie apart
    centroids = jnp.asarray(reference.encode(params, X[:4] / 16), jnp.float32)
    tx = build_clustering(CONFIG, 64).tx
    state = {
        "params": params,
        "centroids": centroids,
        "opt_state": tx.init({"params": params, "centroids": centroids}),
        "label_change": jnp.float32(1),
        "interval": jnp.int32(0),
    }
    rows = np.zeros((n_rows, 4), np.float32)
    return DECState(
        targets=shard_rows(rows, n_rows, mesh),
        labels=shard_rows(rows[:, 0].astype(np.int32) - 1, n_rows, mesh),
        **replicate(state, mesh),
    )


@pytest.mark.parametrize("n_devices", [7, 8])  # without padding, and with
def test_padding_has_no_part_in_the_targets(n_devices):
    mesh = data_mesh(n_devices)
    x = (X / 16).astype(np.float32)
    sharded = shard_rows(x, N_ROWS, mesh)
    assert len(sharded) == {7: 77, 8: 80}[n_devices]
    state = state_of(x, N_ROWS, mesh)
    params, centroids = jax.device_get((state.params, state.centroids))
    state, sizes = refresh(state, sharded, config=CONFIG, rows=Rows(N_ROWS, mesh))
    q = reference.soft_assignment(reference.encode(params, x), centroids)
    p = reference.target_distribution(q)
    np.testing.assert_allclose(state.targets[:N_ROWS], p, rtol=1e-4, atol=1e-6)
    # With a row of zeros among them, as padding is, f would be another.
    padded = np.concatenate([x, np.zeros((3, 64))])
    other = reference.soft_assignment(reference.encode(params, padded), centroids)
    assert np.abs(reference.target_distribution(other)[:N_ROWS] - p).max() > 1e-3
    np.testing.assert_array_equal(state.targets[N_ROWS:], 0)
    np.testing.assert_array_equal(state.labels[:N_ROWS], q.argmax(axis=1))
    np.testing.assert_array_equal(state.labels[N_ROWS:], -1)
    np.testing.assert_array_equal(sizes, np.bincount(q.argmax(axis=1), minlength=4))
    changed = state._replace(labels=state.labels.at[:7].add(1))
    state, _ = refresh(changed, sharded, config=CONFIG, rows=Rows(N_ROWS, mesh))
    np.testing.assert_allclose(state.label_change, 7 / N_ROWS, rtol=1e-6)


def test_each_device_trains_on_its_share_of_the_batch():
    mesh = data_mesh(8)
    sharded = shard_rows((X / 16).astype(np.float32), N_ROWS, mesh)
    assert {shard.data.shape for shard in sharded.addressable_shards} == {(10, 64)}

    def products(rows, x):
        state = state_of(X, N_ROWS, rows.mesh)
        lowered = cluster_steps.lower(KEY, state, x, config=CONFIG, rows=rows)
        text = lowered.compile().as_text()
        return {int(n) for n in re.findall(r"f32\[(\d+),\d+\]\S* dot\(", text)}

    # 22 rows among 8 devices are 3 for each; the others are gradients of kernels and centroids.
    assert products(Rows(N_ROWS, mesh), sharded) - {64, 16, 4} == {3}
    assert products(Rows(), jnp.asarray(X / 16, jnp.float32)) - {64, 16, 4} == {22}


# The pieces.


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 7, 8, 9, 80])
@pytest.mark.parametrize("n_devices", [None, 1, 3, 8])
def test_rows_on_devices_and_back(n_rows, n_devices):
    mesh = mesh_of(n_devices)
    size = n_devices or 1
    assert padded_length(n_rows, mesh) % size == 0
    assert n_rows <= padded_length(n_rows, mesh) < n_rows + size
    # All devices are of this process.
    assert local_rows(n_rows, mesh) == slice(0, n_rows)
    rows = np.random.default_rng(n_rows).normal(size=(n_rows, 2)).astype(np.float32)
    sharded = shard_rows(rows, n_rows, mesh)
    assert sharded.shape == (padded_length(n_rows, mesh), 2)
    np.testing.assert_array_equal(sharded[:n_rows], rows)
    np.testing.assert_array_equal(sharded[n_rows:], 0)
    assert len({shard.data.shape for shard in sharded.addressable_shards}) == 1
    assert len(sharded.devices()) == size
    np.testing.assert_array_equal(fetch_rows(sharded, n_rows), rows)
    np.testing.assert_array_equal(join_rows(rows, n_rows, mesh), rows)


@pytest.mark.parametrize(("n_devices", "n_rows", "n_others"), [(3, 7, 2), (8, 1, 1), (None, 2, 3)])
def test_rows_of_two_arrays_without_the_padding_between(n_devices, n_rows, n_others):
    mesh = mesh_of(n_devices)
    a = np.arange(2.0 * n_rows, dtype=np.float32).reshape(-1, 2) + 1
    b = -np.arange(2.0 * n_others, dtype=np.float32).reshape(-1, 2) - 1
    joined = concatenate_rows(
        shard_rows(a, n_rows, mesh), n_rows, shard_rows(b, n_others, mesh), n_others, mesh
    )
    assert len(joined) == padded_length(n_rows + n_others, mesh)
    np.testing.assert_array_equal(joined[: n_rows + n_others], np.concatenate([a, b]))
    np.testing.assert_array_equal(joined[n_rows + n_others :], 0)
    assert len(joined.devices()) == (n_devices or 1)


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("n_items", [1, 3, 5])
def test_a_function_over_devices(n_items, vectorized):
    keys = jax.random.split(KEY, n_items)
    items = (keys, jnp.arange(n_items, dtype=jnp.float32))

    def function(item, offset):
        key, number = item
        return {"number": 2 * number + offset, "drawn": jax.random.bits(key, (3,))}

    mapped = jax.jit(
        lambda items, offset: map_over_devices(
            function, items, data_mesh(3), shared=(offset,), vectorized=vectorized
        )
    )(items, jnp.float32(1))
    np.testing.assert_array_equal(mapped["number"], 2 * np.arange(n_items) + 1)
    expected = np.stack([jax.random.bits(key, (3,)) for key in keys])
    np.testing.assert_array_equal(mapped["drawn"], expected)


def test_replicas_are_on_every_device():
    tree = {"key": KEY, "scalar": jnp.float32(2), "rows": np.arange(3)}
    assert replicate(tree, None) is tree
    placed = replicate(tree, data_mesh(8))
    for leaf in jax.tree.leaves(placed):
        assert len(leaf.devices()) == 8
        assert leaf.is_fully_replicated
    np.testing.assert_array_equal(placed["rows"], np.arange(3))
    assert jax.random.key_data(placed["key"]).tolist() == [0, 0]


# Bad input.


def test_a_mesh_takes_the_first_devices():
    for make, axis in ((data_mesh, "data"), (member_mesh, "member")):
        assert dict(make().shape) == {axis: 8}
        assert make(3).devices.tolist() == jax.devices()[:3]


@pytest.mark.parametrize("make", [data_mesh, member_mesh])
@pytest.mark.parametrize(
    ("n_devices", "message"),
    [
        (9, "devices: expected at most 8, which is how many JAX has here, got 9; JAX_NUM_CPU"),
        (0, "devices: expected an integer >= 1, got 0"),
        (-1, "devices: expected an integer >= 1, got -1"),
        (2.0, "devices: expected an integer >= 1, got 2.0"),
    ],
)
def test_more_devices_than_there_are_and_none(make, n_devices, message):
    with pytest.raises(ValueError, match=message):
        make(n_devices)
