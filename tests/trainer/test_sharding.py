"""Rows over devices: the results of one device, and padding that has no part in them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from sklearn.datasets import load_digits

from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.programs import Plan, build_network, init_state, refresh, train
from jdec.trainer.sharding import (
    RowSharding,
    concatenate_rows,
    data_mesh,
    map_over_devices,
    member_mesh,
    replicate,
)

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
    shared = {"key": KEY, "x": X, "config": CONFIG, "y": Y, "checkpoint_seconds": 0}
    return fit(**shared | {"mesh": mesh_of(n_devices)} | kwargs)


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
        for name in set(record) - {"seconds", "loss", "kl"}:
            assert record[name] == right[name], name
        for name in {"loss", "kl"} & set(record):
            if right[name] is not None:
                np.testing.assert_allclose(record[name], right[name], rtol=1e-4)


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
    # All results are on one device, for callers that know nothing of the others.
    arrays = (result.model[:3], result.autoencoder_params, result.initial)
    for leaf in jax.tree.leaves(arrays):
        assert isinstance(leaf, np.ndarray) or len(leaf.devices()) == 1


@pytest.mark.parametrize("space", ["data", "embedding"])
def test_rows_over_devices_have_the_same_graph(space):
    changes = {
        "kmeans.select": "modularity",
        "graph.space": space,
        "graph.n_components": 8,
        "graph.n_init": 2,
        "graph.kmeans_restarts": 3,
        "graph.max_rows": 60,
        "clustering.warmup_steps": 60,
        "clustering.warmup_optimizer.learning_rate": 1e-2,
    }
    config = CONFIG.replace(changes)
    result, expected = run(8, config=config), run(config=config)
    np.testing.assert_array_equal(result.initial.labels, expected.initial.labels)
    check_same_result(result, expected)


def test_fewer_rows_than_devices():
    # One restart: of several that find the same clusters, rounding may choose another numbering.
    changes = {"n_clusters": 2, "kmeans.select": "kl", "clustering.max_intervals": 1}
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


def test_pretrained_parameters_are_replicated(expected):
    result = run(8, autoencoder_params=expected.autoencoder_params)
    np.testing.assert_allclose(result.soft_assignment, expected.soft_assignment, rtol=0, atol=1e-5)
    assert [record["phase"] for record in result.history] == ["clustering"] * 4


class StopError(BaseException):
    pass


def stop_at(phase, name, value):
    def callback(record):
        if record["phase"] == phase and record[name] == value:
            raise StopError

    return callback


@pytest.mark.parametrize("order", [[8, 3, None], [None, 8, 3]])
def test_a_run_resumes_on_another_number_of_devices(tmp_path, expected, order):
    stops = [stop_at("finetune", "step", 30), stop_at("clustering", "interval", 2)]
    for n_devices, stop in zip(order, stops, strict=False):
        with pytest.raises(StopError):
            run(n_devices, workdir=tmp_path, resume=True, callbacks=[stop])
    seen = []
    result = run(order[-1], workdir=tmp_path, resume=True, callbacks=[seen.append])
    check_same_result(result, expected)
    assert len(seen) <= 2  # it was resumed


# Padding.


def started(rows):
    """Return a plan, the first state of a fit whose rows lie apart, and the rows."""
    network = build_network(CONFIG)
    params = jax.tree.map(lambda leaf: 3 * leaf, network.init(KEY, 64))
    centroids = jnp.asarray(reference.encode(params, X[:4] / 16), jnp.float32)
    plan = Plan(CONFIG, network, rows)
    state = init_state(*replicate((params, centroids), rows.mesh), plan=plan)
    return plan, state, rows.put((X / 16).astype(np.float32))


def no_labels(rows):
    return rows.put(np.full(N_ROWS, -1, np.int32))


@pytest.mark.parametrize("n_devices", [7, 8])  # without padding, and with
def test_padding_has_no_part_in_the_targets(n_devices):
    rows = RowSharding(N_ROWS, data_mesh(n_devices))
    plan, state, x = started(rows)
    assert len(x) == rows.padded_length == {7: 77, 8: 80}[n_devices]
    params, centroids = jax.device_get(state.params)
    targets, sizes = refresh(state.params, no_labels(rows), x, plan=plan)
    q = reference.soft_assignment(reference.encode(params, X / 16), centroids)
    p = reference.target_distribution(q)
    np.testing.assert_allclose(targets.p[:N_ROWS], p, rtol=1e-4, atol=1e-6)
    # With a row of zeros among them, as padding is, f would be another.
    padded = np.concatenate([X / 16, np.zeros((3, 64))])
    other = reference.soft_assignment(reference.encode(params, padded), centroids)
    assert np.abs(reference.target_distribution(other)[:N_ROWS] - p).max() > 1e-3
    np.testing.assert_array_equal(targets.p[N_ROWS:], 0)
    kl = np.sum(p * np.log(p / q)) / N_ROWS
    np.testing.assert_allclose(targets.kl, kl, rtol=1e-3)
    np.testing.assert_array_equal(targets.labels[:N_ROWS], q.argmax(axis=1))
    np.testing.assert_array_equal(targets.labels[N_ROWS:], -1)
    np.testing.assert_array_equal(sizes, np.bincount(q.argmax(axis=1), minlength=4))
    changed = targets.labels.at[:7].add(1)
    targets, _ = refresh(state.params, changed, x, plan=plan)
    np.testing.assert_allclose(targets.label_change, 7 / N_ROWS, rtol=1e-6)


def test_each_device_trains_on_its_share_of_the_batch():
    def products(rows):
        plan, state, x = started(rows)
        assert {shard.data.shape[0] for shard in x.addressable_shards} == {
            rows.padded_length // rows.n_shards
        }
        targets, _ = refresh(state.params, no_labels(rows), x, plan=plan)
        lowered = train.lower(KEY, state, targets, x, plan=plan)
        text = lowered.compile().as_text()
        return {int(n) for n in re.findall(r"f32\[(\d+),\d+\]\S* dot\(", text)}

    # 22 rows among 8 devices are 3 for each; the others are gradients of kernels and centroids.
    assert products(RowSharding(N_ROWS, data_mesh(8))) - {64, 16, 4} == {3}
    assert products(RowSharding(N_ROWS)) - {64, 16, 4} == {22}


# The pieces.


@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 7, 8, 9, 80])
@pytest.mark.parametrize("n_devices", [None, 1, 3, 8])
def test_rows_on_devices_and_back(n_rows, n_devices):
    sharding = RowSharding(n_rows, mesh_of(n_devices))
    size = n_devices or 1
    assert sharding.n_shards == size
    assert sharding.padded_length % size == 0
    assert n_rows <= sharding.padded_length < n_rows + size
    # All devices are of this process.
    assert sharding.local() == slice(0, n_rows)
    rows = np.random.default_rng(n_rows).normal(size=(n_rows, 2)).astype(np.float32)
    sharded = sharding.put(rows)
    assert sharded.shape == (sharding.padded_length, 2)
    np.testing.assert_array_equal(sharded[:n_rows], rows)
    np.testing.assert_array_equal(sharded[n_rows:], 0)
    assert len({shard.data.shape for shard in sharded.addressable_shards}) == 1
    assert len(sharded.devices()) == size
    np.testing.assert_array_equal(sharding.fetch(sharded), rows)
    np.testing.assert_array_equal(sharding.join(rows), rows)


def test_a_mesh_of_members_shards_no_rows():
    rows = RowSharding(5, member_mesh(3))
    assert (rows.n_shards, rows.padded_length, rows.local()) == (1, 5, slice(0, 5))
    placed = rows.put(np.arange(5.0, dtype=np.float32))
    assert placed.is_fully_replicated
    assert len(placed.devices()) == 3
    np.testing.assert_array_equal(rows.fetch(placed), np.arange(5))


@pytest.mark.parametrize("n_rows", [1, 4, 7])
def test_members_and_rows_share_a_mesh(n_rows):
    rows = RowSharding(n_rows, member_mesh(3, data_devices=2))
    assert rows.n_shards == 2
    assert rows.padded_length == n_rows + n_rows % 2
    assert rows.local() == slice(0, n_rows)
    x = np.random.default_rng(n_rows).normal(size=(n_rows, 2)).astype(np.float32)
    sharded = rows.put(x)
    assert len(sharded.devices()) == 6
    halves = {shard.data.shape for shard in sharded.addressable_shards}
    assert halves == {(rows.padded_length // 2, 2)}
    np.testing.assert_array_equal(rows.fetch(sharded), x)
    np.testing.assert_array_equal(rows.join(x), x)


@pytest.mark.parametrize("n_devices", [None, 8])
def test_a_function_of_the_rows_of_each_device(n_devices):
    rows = RowSharding(N_ROWS, mesh_of(n_devices))
    seen = []

    def function(weights, x):
        seen.append(len(x))
        return x @ weights

    x = rows.put(X.astype(np.float32))
    weights = replicate(np.eye(64, 3, dtype=np.float32), rows.mesh)
    product = jax.jit(lambda weights, x: rows.constrain(rows.map(function)(weights, x)))(weights, x)
    assert seen == [rows.padded_length // rows.n_shards]
    assert {len(shard.data) for shard in product.addressable_shards} == {*seen}
    np.testing.assert_array_equal(rows.fetch(product), X[:, :3])


@pytest.mark.parametrize(("n_devices", "n_rows", "n_others"), [(3, 7, 2), (8, 1, 1), (None, 2, 3)])
def test_rows_of_two_arrays_without_the_padding_between(n_devices, n_rows, n_others):
    of_a, of_b = (RowSharding(n, mesh_of(n_devices)) for n in (n_rows, n_others))
    a = np.arange(2.0 * n_rows, dtype=np.float32).reshape(-1, 2) + 1
    b = -np.arange(2.0 * n_others, dtype=np.float32).reshape(-1, 2) - 1
    joined, rows = concatenate_rows(of_a.put(a), of_a, of_b.put(b), of_b)
    assert rows == RowSharding(n_rows + n_others, of_a.mesh)
    assert len(joined) == rows.padded_length
    np.testing.assert_array_equal(joined[: rows.n_rows], np.concatenate([a, b]))
    np.testing.assert_array_equal(joined[rows.n_rows :], 0)
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


# Meshes.


def test_a_mesh_takes_the_first_devices():
    for make, axis in ((data_mesh, "data"), (member_mesh, "member")):
        assert dict(make().shape) == {axis: 8}
        assert make(3).devices.tolist() == jax.devices()[:3]


@pytest.mark.parametrize("make", [data_mesh, member_mesh])
@pytest.mark.parametrize(
    ("n_devices", "message"),
    [
        (9, "devices: only 8 are available, got 9; JAX_NUM_CPU_DEVICES makes more of one CPU"),
        (0, "devices: expected an integer >= 1, got 0"),
        (-1, "devices: expected an integer >= 1, got -1"),
        (2.0, "devices: expected an integer >= 1, got 2.0"),
    ],
)
def test_invalid_numbers_of_devices_raise(make, n_devices, message):
    with pytest.raises(ValueError, match=message):
        make(n_devices)


def test_a_mesh_of_members_and_rows():
    mesh = member_mesh(2, data_devices=3)
    assert dict(mesh.shape) == {"member": 2, "data": 3}
    assert mesh.devices.ravel().tolist() == jax.devices()[:6]
    assert dict(member_mesh(data_devices=3).shape) == {"member": 2, "data": 3}  # of 8 devices
    with pytest.raises(ValueError, match="devices: only 8 are available, got 9"):
        member_mesh(3, data_devices=3)
    with pytest.raises(ValueError, match="data_devices: expected an integer >= 1, got 0"):
        member_mesh(2, data_devices=0)
