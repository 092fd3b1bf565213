import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from jdec.core.functional import target_distribution
from jdec.core.networks import StackedDenoisingAutoencoder
from jdec.core.targets import (
    DECParams,
    all_finite,
    cluster_sizes,
    embed_in_blocks,
    map_row_blocks,
    refresh_targets,
)

KEY = jax.random.key(0)
NETWORK = StackedDenoisingAutoencoder((5,), 3)
X = jnp.asarray(2 * np.random.default_rng(0).standard_normal((20, 2)), jnp.float32)


def params_of(n_clusters=4):
    # Large enough weights, so that the network bends the data.
    encoder = NETWORK.encoder_params(NETWORK.init(KEY, 2))
    encoder = jax.tree.map(lambda leaf: 3 * leaf, encoder)
    return DECParams(encoder, NETWORK.encode(encoder, X[:n_clusters]))


PARAMS = params_of()


@jax.jit
def refresh(params, x, labels=None, alpha=1.0, cluster_mask=None):
    return refresh_targets(
        params, x, labels, encode=NETWORK.encode, alpha=alpha, cluster_mask=cluster_mask
    )


@jax.jit
def refresh_padded(params, x, labels=None):
    """Of 20 rows; those after them are padding."""
    return refresh_targets(params, x, labels, encode=NETWORK.encode, n_rows=20)


def oracle(params, x, alpha=1.0):
    q = reference.soft_assignment(reference.encode(params.encoder, x), params.centroids, alpha)
    p = reference.target_distribution(q)
    return p, q.argmax(axis=1), reference.kl(p, q).mean()


def check_oracle(targets, params, x, alpha=1.0):
    p, labels, kl = oracle(params, x, alpha)
    np.testing.assert_allclose(targets.p, p, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(targets.labels, labels)
    np.testing.assert_allclose(targets.kl, kl, rtol=1e-4)
    assert targets.labels.dtype == jnp.int32
    dtypes = {leaf.dtype for leaf in (targets.p, targets.label_change, targets.kl)}
    assert dtypes == {jnp.dtype(jnp.float32)}


# Against the oracle.


@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
def test_targets_are_the_oracles(alpha):
    targets = refresh(PARAMS, X, alpha=alpha)
    check_oracle(targets, PARAMS, X, alpha)
    assert targets.kl > 0.01
    assert targets.label_change == 1
    again = refresh(PARAMS, X, targets.labels, alpha)
    assert again.label_change == 0
    np.testing.assert_array_equal(again.p, targets.p)
    np.testing.assert_array_equal(again.kl, targets.kl)


def test_targets_come_from_all_rows():
    targets = refresh(PARAMS, X)
    q = jnp.asarray(
        reference.soft_assignment(reference.encode(PARAMS.encoder, X), PARAMS.centroids),
        jnp.float32,
    )
    by_batch = jnp.concatenate([target_distribution(q[:6]), target_distribution(q[6:])])
    assert jnp.abs(by_batch - targets.p).max() > 0.01


@pytest.mark.parametrize("n_changed", [0, 1, 7, 20])
def test_label_change_is_the_share_of_labels_that_changed(n_changed):
    labels = refresh(PARAMS, X).labels
    after = refresh(PARAMS, X, labels.at[:n_changed].add(1))
    np.testing.assert_allclose(after.label_change, n_changed / 20, rtol=1e-6)
    np.testing.assert_array_equal(after.labels, labels)


# Padding and masks.


@pytest.mark.parametrize("value", [0.0, 50.0])
def test_padding_changes_nothing(value):
    # Its numbers would be seen: far rows would have the cluster nearest to them to themselves.
    padded = jnp.concatenate([X, jnp.full((4, 2), value)])
    targets = refresh_padded(PARAMS, padded)
    check_oracle(targets._replace(p=targets.p[:20], labels=targets.labels[:20]), PARAMS, X)
    assert (targets.p[20:] == 0).all()
    assert (targets.labels[20:] == -1).all()
    assert targets.label_change == 1
    again = refresh_padded(PARAMS, padded, targets.labels.at[3].set(9))
    np.testing.assert_allclose(again.label_change, 1 / 20, rtol=1e-6)
    # Without being told, they do count.
    assert jnp.abs(refresh(PARAMS, padded).kl - targets.kl) > 1e-3


@pytest.mark.usefixtures("full_compilation_here")
def test_masked_clusters_have_no_rows():
    mask = jnp.array([True, False, True, True])
    p, labels, kl = oracle(PARAMS._replace(centroids=PARAMS.centroids[mask]), X)
    for elsewhere in (0.0, 1e30, np.nan):
        masked = PARAMS._replace(centroids=PARAMS.centroids.at[1].set(elsewhere))
        targets = refresh(masked, X, cluster_mask=mask)
        np.testing.assert_allclose(targets.p[:, mask], p, rtol=1e-4, atol=1e-6)
        assert (targets.p[:, 1] == 0).all()
        np.testing.assert_array_equal(targets.labels, np.array([0, 2, 3])[labels])
        np.testing.assert_allclose(targets.kl, kl, rtol=1e-4)
        assert targets.label_change == 1


# NaN.


def broken(where, value):
    """Parameters and rows, one number of which is another."""
    if where == "encoder":
        bias = PARAMS.encoder["encoder_0"]["bias"].at[2].set(value)
        layer = PARAMS.encoder["encoder_0"] | {"bias": bias}
        return PARAMS._replace(encoder=PARAMS.encoder | {"encoder_0": layer}), X
    if where == "centroids":
        return PARAMS._replace(centroids=PARAMS.centroids.at[1, 1].set(value)), X
    return PARAMS, X.at[13, 0].set(value)


@pytest.mark.usefixtures("full_compilation_here")
def test_what_is_not_finite_shows():
    labels = refresh(PARAMS, X).labels
    values = {
        "encoder": (np.nan, np.inf, -np.inf),
        "centroids": (np.nan, np.inf, -np.inf),
        "a row": (np.nan,),  # a rectifier may hide an infinite number; fits refuse such rows
    }
    for where, several in values.items():
        for value in several:
            targets = refresh(*broken(where, value), labels)
            assert jnp.isnan(targets.label_change)
            assert jnp.isnan(targets.kl)


@pytest.mark.usefixtures("full_compilation_here")
def test_nan_behind_a_rectifier_shows():
    """Compiled for a CPU, relu gives 0 for NaN: the embedding may look sound."""
    targets = jax.jit(
        lambda params: refresh_targets(
            params, X, encode=lambda w, x: x * jax.nn.relu(w["scale"])[None, :] + 1
        )
    )(DECParams({"scale": jnp.array([1.0, jnp.nan])}, X[:3]))
    assert jnp.isnan(targets.label_change)


def test_all_finite():
    assert all_finite({})
    assert all_finite({"w": jnp.ones(2), "step": jnp.int32(3), "key": jnp.bool_(False)})
    for value in (jnp.nan, jnp.inf, -jnp.inf):
        assert not all_finite({"w": jnp.ones(2), "b": (jnp.array([0.0, value]),)})


def test_cluster_sizes_do_not_count_padding():
    assert cluster_sizes(jnp.array([2, -1, 0, 2, -1, 2]), 3).tolist() == [1, 0, 3]
    assert cluster_sizes(jnp.full(6, -1), 3).tolist() == [0, 0, 0]


# Blocks.


@pytest.mark.parametrize("block_size", [1, 7, 8, 20, 64])
def test_rows_are_embedded_in_blocks(block_size):
    z = embed_in_blocks(NETWORK.encode, PARAMS.encoder, X, block_size=block_size)
    np.testing.assert_allclose(z, reference.encode(PARAMS.encoder, X), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("full_compilation_here")
def test_an_embedding_does_not_depend_on_the_number_of_rows():
    embed = jax.jit(lambda x: embed_in_blocks(NETWORK.encode, PARAMS.encoder, x, block_size=8))
    all_rows = embed(X)
    for n_rows in (1, 7, 8, 9):
        np.testing.assert_array_equal(embed(X[:n_rows]), all_rows[:n_rows])


@pytest.mark.usefixtures("full_compilation_here")
def test_blocks_bound_the_memory_of_a_refresh():
    network = StackedDenoisingAutoencoder((256,), 2)
    params = jax.eval_shape(lambda: network.init(KEY, 4))

    def temporary_bytes(n_rows):
        x = jax.ShapeDtypeStruct((n_rows, 4), jnp.float32)
        embed = jax.jit(lambda params, x: embed_in_blocks(network.encode, params, x, block_size=64))
        return embed.lower(params, x).compile().memory_analysis().temp_size_in_bytes

    # The hidden layer of all rows would take 1 kB for each; x and the embeddings take 24 bytes.
    assert temporary_bytes(64 * 64) - temporary_bytes(64) < 64 * 64 * 100


@pytest.mark.parametrize("n_rows", [1, 7, 8, 9, 15, 16, 17, 40])
def test_blocks_cover_each_row_once(n_rows):
    x = jnp.arange(3.0 * n_rows).reshape(n_rows, 3)
    found = map_row_blocks(lambda block: {"sum": block.sum(axis=1), "x": block}, x, block_size=8)
    np.testing.assert_array_equal(found["sum"], x.sum(axis=1))
    np.testing.assert_array_equal(found["x"], x)


@pytest.mark.usefixtures("full_compilation_here")
def test_blocks_do_not_copy_all_rows():
    x = jax.ShapeDtypeStruct((64 * 100 + 1, 256), jnp.float32)
    total = jax.jit(lambda x: map_row_blocks(lambda block: block.sum(1), x, block_size=64))
    used = total.lower(x).compile().memory_analysis()
    assert used.temp_size_in_bytes < used.argument_size_in_bytes / 10


def test_all_rows_are_embedded_by_what_is_given():
    """The seam of rows over devices: one call, with encoder, its parameters and all rows."""
    calls = []

    def embed(encode, params, x):
        calls.append((encode, params, x.shape))
        return embed_in_blocks(encode, params, x)

    targets = refresh_targets(PARAMS, X, encode=NETWORK.encode, embed=embed)
    assert calls == [(NETWORK.encode, PARAMS.encoder, (20, 2))]
    check_oracle(targets, PARAMS, X)


@pytest.mark.parametrize("block_size", [0, -1, 2.5])
def test_a_bad_block_size_is_refused(unchecked, block_size):
    with pytest.raises(ValueError, match=f"block_size: expected an integer >= 1, got {block_size}"):
        embed_in_blocks(NETWORK.encode, PARAMS.encoder, X, block_size=block_size)
