"""Rows that stay on the host: the same run as with all of them on the device."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_digits

from jdec.core.functional import soft_assignment, target_distribution
from jdec.core.targets import DECParams
from jdec.metrics import clustering_accuracy
from jdec.trainer import assign, data_mesh
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.programs import Hooks, Plan, build_network
from jdec.trainer.rows import Data, streams
from jdec.trainer.scaling import Scaling
from jdec.trainer.sharding import RowSharding
from jdec.trainer.streamed_rows import StreamedRows, read_ahead
from jdec.trainer.streaming import refresh

X, Y = load_digits(return_X_y=True)
X, Y = X[:500], Y[:500]
KEY = jax.random.key(2)
CONFIG = Config(10).replace(
    {
        "network.hidden_dims": [32],
        "network.latent_dim": 5,
        "pretrain.finetune_steps": 60,
        "pretrain.batch_size": 64,
        "kmeans.n_init": 2,
        "clustering.batch_size": 48,
        "clustering.update_interval": 20,
        "clustering.max_intervals": 3,
        "clustering.tol": 0.0,
    }
)
GRAPH = {
    "kmeans.select": "modularity",
    "graph.space": "data",
    "graph.n_components": 20,
    "graph.n_init": 2,
    "graph.kmeans_restarts": 3,
    "clustering.warmup_steps": 20,
}
AUTHORS = {
    "pretrain.layerwise_steps": 20,
    "pretrain.batch_order": "sequential",
    "pretrain.optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum_warmup_steps": 10},
    "clustering.batch_order": "sequential",
    "clustering.reset_optimizer": True,
}
IMAGES = {"image_shape": (8, 8), "augmentation.max_shift": 1.0, "clustering.corruption_rate": 0.1}
IDEC = {"clustering.reconstruction_weight": 0.5, "graph.space": "embedding"}


def largest_difference(a, b):
    return max(
        jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(initial=0.0), a, b)), default=0
    )


def assert_same_run(found, expected):
    assert largest_difference(found.autoencoder_params, expected.autoencoder_params) <= 3e-6
    assert largest_difference(found.model.params, expected.model.params) <= 3e-6
    assert largest_difference(found.model.centroids, expected.model.centroids) <= 3e-6
    np.testing.assert_array_equal(found.initial.labels, expected.initial.labels)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.soft_assignment, expected.soft_assignment, atol=1e-5)
    for a, b in zip(found.history, expected.history, strict=True):
        assert {**a, "seconds": 0}.keys() == {**b, "seconds": 0}.keys()
        for name in ("loss", "kl"):
            if a.get(name) is not None:
                assert a[name] == pytest.approx(b[name], abs=1e-5)
        # On its way a row between two clusters may fall to one or the other.
        if a.get("label_change") is not None:
            assert a["label_change"] == pytest.approx(b["label_change"], abs=1.5 / len(X))
        sizes = np.subtract(a.get("cluster_sizes", 0), b.get("cluster_sizes", 0))
        assert np.abs(sizes).sum() <= 2


@pytest.mark.parametrize("changes", [{}, GRAPH, AUTHORS, IMAGES, GRAPH | IDEC], ids=str)
def test_a_streamed_fit_is_the_resident_one(changes):
    """In 120 steps of two phases and three refreshes."""
    config = CONFIG.replace(changes)
    assert_same_run(fit(KEY, X, config, rows="stream"), fit(KEY, X, config, rows="device"))


@pytest.mark.parametrize("batch_size", [48, 47])
def test_over_devices(batch_size):
    """Each takes its part of every mini-batch and block; 3 have neither in equal parts."""
    config = CONFIG.replace(GRAPH | {"clustering.batch_size": batch_size})
    mesh = data_mesh(3)
    found = fit(KEY, X, config, rows="stream", mesh=mesh)
    assert_same_run(found, fit(KEY, X, config, rows="device", mesh=mesh))


def test_as_users_compile_it(full_compilation_here):
    assert_same_run(fit(KEY, X, CONFIG, rows="stream"), fit(KEY, X, CONFIG, rows="device"))


def test_pretraining_on_some_rows_and_on_others():
    config = CONFIG.replace({"pretrain.rows": "train"})
    more = load_digits().data[500:700]
    runs = [
        fit(KEY, X, config, n_train=300, unlabeled=more, rows=rows) for rows in ("stream", "device")
    ]
    assert_same_run(*runs)


@pytest.mark.parametrize("rows", ["stream", "device"])
@pytest.mark.parametrize("scaling", ["rms", "standard", "minmax"])
def test_sparse_rows_are_the_dense_ones(rows, scaling):
    config = CONFIG.replace({"scaling": scaling, "clustering.max_intervals": 1})
    sparse = scipy.sparse.csc_array(X)
    found, expected = fit(KEY, sparse, config, rows=rows), fit(KEY, X, config)
    assert_same_run(found, expected)
    z, q = assign(found.model, sparse)
    np.testing.assert_array_equal(z, found.embedding)
    np.testing.assert_array_equal(q, found.soft_assignment)


def test_a_memory_mapped_file(tmp_path):
    np.save(tmp_path / "x.npy", X.astype(np.float32))
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    config = CONFIG.replace(GRAPH)
    assert_same_run(fit(KEY, stored, config, rows="stream"), fit(KEY, X, config))


@pytest.mark.parametrize("change", ["shrinks", "is written to", "is removed"])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_a_file_that_changes_under_the_run_is_named(tmp_path, change, is_sparse):
    path = tmp_path / "x.npy"
    sparse = scipy.sparse.csr_array(X)
    np.save(path, sparse.data if is_sparse else X)
    rows = np.load(path, mmap_mode="r")
    if is_sparse:
        rows = scipy.sparse.csr_array((rows, sparse.indices, sparse.indptr), shape=X.shape)

    def interfere(record):
        if record["step"] == 30:
            if change == "shrinks":
                os.truncate(path, 4096)
            elif change == "is removed":
                path.unlink()
            else:
                np.save(path, np.load(path) + 1)

    message = (
        r"x\.npy cannot be read any more" if change == "is removed" else r"x\.npy changed while"
    )
    options = {"workdir": tmp_path / "run", "checkpoint_seconds": 0}
    with pytest.raises(ValueError, match=message):
        fit(KEY, rows, CONFIG, rows="stream", callbacks=[interfere], **options)
    assert any((tmp_path / "run" / "checkpoints").iterdir())


def test_a_file_that_is_mapped_to_be_written_to_is_not_taken_for_another(tmp_path):
    rows = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", X.dtype, X.shape)
    rows[:] = X
    streamed = StreamedRows(rows, Scaling(np.zeros(64), np.ones(64)))
    os.utime(tmp_path / "x.npy", (0, 0))  # as when it is written back
    np.testing.assert_array_equal(streamed.block(0, 500), X.astype(np.float32))


class StopError(BaseException):
    pass


@pytest.mark.parametrize("n_records", [1, 7, 21, 22, 24])
def test_it_resumes_with_the_same_bits(tmp_path, n_records):
    config = CONFIG.replace(GRAPH)
    expected = fit(KEY, X, config, rows="stream")
    seen = []

    def stop(record):
        seen.append(record)
        if len(seen) == n_records:
            raise StopError

    options = {"rows": "stream", "workdir": tmp_path, "checkpoint_seconds": 0}
    with pytest.raises(StopError):
        fit(KEY, X, config, callbacks=[stop], **options)
    found = fit(KEY, X, config, rows="stream", workdir=tmp_path, resume=True)
    assert found.soft_assignment.tobytes() == expected.soft_assignment.tobytes()
    # Where the rows are is no part of what a run is.
    again = fit(KEY, X, config, rows="device", workdir=tmp_path, resume=True)
    np.testing.assert_array_equal(again.labels, expected.labels)


@pytest.mark.parametrize("rows", ["stream", "device"])
def test_the_start_of_many_rows_is_found_on_a_sample(rows):
    """The others have the nearest centroid, and all are trained on."""
    config = CONFIG.replace(GRAPH | {"kmeans.max_rows": 200, "pretrain.finetune_steps": 300})
    found = fit(KEY, X, config, rows=rows)
    labels = np.asarray(found.initial.labels)
    assert labels.shape == (500,)
    assert labels.min() >= 0
    network = build_network(config)
    scaled = jnp.asarray(found.model.scaling.apply(X))
    z = np.asarray(network.encode(found.autoencoder_params, scaled), np.float64)
    distances = ((z[:, None] - np.asarray(found.initial.centroids)[None]) ** 2).sum(axis=2)
    nearest = distances.argmin(axis=1)
    assert 300 <= (labels == nearest).sum() < 500
    assert clustering_accuracy(Y, labels) > 0.5
    other = fit(KEY, X, config, rows="device" if rows == "stream" else "stream")
    assert_same_run(found, other)


def test_targets_are_those_of_float64():
    params = build_network(CONFIG).init(KEY, 64)
    centroids = jax.random.normal(jax.random.key(1), (10, 5)) / 10
    rows = StreamedRows(X, Scaling(np.zeros(64), np.full(64, 0.1)))
    plan = Plan(CONFIG, build_network(CONFIG), RowSharding(500), Hooks())
    labels = np.full(500, -1, np.int32)
    targets, sizes = refresh(DECParams(params, centroids), labels, rows, plan=plan)
    z = build_network(CONFIG).encode(params, jnp.asarray(0.1 * X, jnp.float32))
    q = np.asarray(soft_assignment(z, centroids), np.float64)
    np.testing.assert_allclose(targets.p.q, q, rtol=1e-5)
    np.testing.assert_allclose(targets.p.frequencies, q.sum(axis=0), rtol=1e-6)
    p = q**2 / q.sum(axis=0)
    p /= p.sum(axis=1, keepdims=True)
    frequencies = jnp.asarray(targets.p.frequencies, jnp.float32)
    found = target_distribution(jnp.asarray(targets.p.q), frequencies=frequencies)
    np.testing.assert_allclose(found, p, rtol=1e-5)
    assert float(targets.kl) == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-4)
    np.testing.assert_array_equal(targets.labels, q.argmax(axis=1))
    np.testing.assert_array_equal(sizes, np.bincount(q.argmax(axis=1), minlength=10))
    assert float(targets.label_change) == 1


def test_rows_are_read_where_they_are_asked_for():
    scaling = Scaling(np.ones(64), np.full(64, 2.0))
    rows = StreamedRows(X, scaling)
    expected = (2 * (X - 1)).astype(np.float32)
    indices = np.array([[3, 0], [499, 3]])
    np.testing.assert_array_equal(rows.take(indices), expected[indices])
    np.testing.assert_array_equal(rows.block(490, 600), expected[490:])
    starts, blocks = zip(*rows.blocks(64, slice(100, 300)), strict=True)
    assert starts == (0, 64, 128, 192)
    np.testing.assert_array_equal(np.concatenate(blocks), expected[100:300])
    # Another process has more: this one goes along without rows.
    starts, blocks = zip(*rows.blocks(64, slice(480, 500), 130), strict=True)
    assert (starts, [len(block) for block in blocks]) == ((0, 20, 20), [20, 0, 0])
    some = rows.subset(np.arange(0, 500, 7))
    assert some.shape == (72, 64)
    found = np.concatenate([block for _, block in some.blocks(10, slice(0, 72))])
    np.testing.assert_array_equal(found, expected[::7])
    few = some.subset(np.array([71, 2]))
    np.testing.assert_array_equal(few.block(0, 2), expected[[497, 14]])


def test_what_is_read_ahead_comes_in_order_and_raises_in_its_place():
    def read(item):
        if item == 3:
            raise OSError("gone")
        return item * 10

    found = read_ahead(read, range(5))
    assert [next(found) for _ in range(3)] == [0, 10, 20]
    with pytest.raises(OSError, match="gone"):
        next(found)
    assert list(read_ahead(read, [])) == []


@pytest.mark.parametrize(("shape", "is_streamed"), [((1000, 64), False), ((10**9, 1000), True)])
def test_rows_that_the_device_has_no_room_for_are_streamed(shape, is_streamed):
    data = Data(np.broadcast_to(np.float32(1), shape), RowSharding(shape[0]))
    assert streams("auto", data, CONFIG) is is_streamed
    assert streams("device", data, CONFIG) is False
    assert streams("stream", data, CONFIG) is True


def test_a_placement_that_is_none_is_refused():
    with pytest.raises(
        ValueError, match=r"^rows: expected one of auto, device, stream; got 'host'"
    ):
        fit(KEY, X, CONFIG, rows="host")


def test_what_overflows_when_scaled_is_named_before_any_work():
    x = X.astype(np.float64)
    x[321, 7] = 1e30
    config = CONFIG.replace({"scaling": "none", "scale": 1e10})
    with pytest.raises(
        ValueError, match=r"stay finite in float32 when scaled.* in row 321, column"
    ):
        fit(KEY, x, config, rows="stream")


def test_a_number_that_is_not_one_is_named():
    x = X.copy()
    x[499, 63] = np.nan
    for rows in (x, scipy.sparse.csr_array(x)):
        with pytest.raises(ValueError, match="NaN in row 499, column 63"):
            fit(KEY, rows, CONFIG, rows="stream")
