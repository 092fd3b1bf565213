import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
import reference
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from jdec.core.functional import (
    cluster_frequencies,
    clustering_loss,
    log_soft_assignment,
    mean_kl,
    soft_assignment,
    squared_distances,
    target_distribution,
)

pytestmark = pytest.mark.usefixtures("full_compilation")

ALPHAS = [0.5, 1.0, 3.0]

assign = jax.jit(lambda z, mu, alpha: soft_assignment(z, mu, alpha=alpha))
log_assign = jax.jit(lambda z, mu, alpha: log_soft_assignment(z, mu, alpha=alpha))
target = jax.jit(target_distribution)
kl_of_all = jax.jit(mean_kl)


def loss_sum(z, mu, p, alpha):
    return clustering_loss(log_soft_assignment(z, mu, alpha=alpha), p).sum()


gradients = jax.jit(jax.grad(loss_sum, argnums=(0, 1)))


def points(seed, n_rows, n_clusters, width, size=1.5):
    rng = np.random.default_rng(seed)
    z = size * rng.standard_normal((n_rows, width))
    mu = size * rng.standard_normal((n_clusters, width))
    return jnp.asarray(z, jnp.float32), jnp.asarray(mu, jnp.float32)


# Few distinct shapes (N, K, Z), so that the time goes into values and not into compiling.
shapes = st.sampled_from(
    [(1, 1, 1), (1, 6, 7), (2, 1, 3), (2, 2, 3), (9, 1, 7), (9, 2, 1), (9, 6, 3)]
)
seeds = st.integers(0, 2**32 - 1)
alphas = st.sampled_from([0.1, *ALPHAS, 30.0])


# Facts worked out by hand.


@pytest.mark.parametrize(
    ("z", "mu", "q"),
    [
        ([[-2, -2]], [[-1, -1], [1, 1]], [[19 / 22, 3 / 22]]),
        ([[0, 0]], [[0, 0], [2, 0]], [[5 / 6, 1 / 6]]),
        ([[0, 0], [5, 5]], [[3, 1]], [[1], [1]]),
    ],
)
def test_soft_assignment_by_hand(z, mu, q):
    q_found = soft_assignment(jnp.array(z, jnp.float32), jnp.array(mu, jnp.float32))
    np.testing.assert_allclose(q_found, q, rtol=1e-6)


@pytest.mark.parametrize(
    ("q", "p"),
    [
        ([[0.5, 0.5], [0.0, 1.0]], [[0.75, 0.25], [0.0, 1.0]]),
        ([[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]),
        ([[0.2, 0.8]], [[0.2, 0.8]]),
    ],
)
def test_target_distribution_by_hand(q, p):
    p_found = target_distribution(jnp.array(q))
    np.testing.assert_allclose(p_found, p, rtol=1e-6)
    assert (p_found[jnp.array(q) == 0] == 0).all()


def test_loss_by_hand():
    p, q = jnp.array([[0.8, 0.2], [0.3, 0.7]]), jnp.array([[0.6, 0.4], [0.4, 0.6]])
    loss = clustering_loss(jnp.log(q), p)
    np.testing.assert_allclose(loss, [0.8 * np.log(4 / 3) + 0.2 * np.log(0.5), 0.0216], atol=2e-5)
    np.testing.assert_allclose(loss.mean(), 0.05656, atol=5e-6)
    np.testing.assert_allclose(clustering_loss(jnp.log(p), p), 0, atol=1e-7)


@pytest.mark.parametrize(
    ("q", "kl"),
    [
        ([[0.5, 0.5], [0.5, 0.5]], 0.0),
        ([[1.0, 0.0], [0.0, 1.0]], 0.0),
        # f = (1/2, 3/2), so p = (3/4, 1/4) and (0, 1).
        ([[0.5, 0.5], [0.0, 1.0]], (0.75 * np.log(1.5) + 0.25 * np.log(0.5)) / 2),
    ],
)
def test_mean_kl_by_hand(q, kl):
    log_q = jnp.maximum(jnp.log(jnp.array(q)), -1e30)
    np.testing.assert_allclose(mean_kl(log_q), kl, rtol=1e-6, atol=1e-7)


def test_loss_of_a_zero_target_is_zero():
    log_q = jnp.log(jnp.array([[0.25, 0.75]]))
    np.testing.assert_allclose(
        clustering_loss(log_q, jnp.array([[0.0, 1.0]])), [np.log(4 / 3)], rtol=1e-6
    )
    grad = jax.grad(lambda log_q: clustering_loss(log_q, jnp.array([[0.0, 1.0]])).sum())(log_q)
    np.testing.assert_array_equal(grad, [[0, -1]])


# Against the oracle.


@given(seeds, shapes, alphas)
def test_soft_assignment_is_the_oracles(seed, shape, alpha):
    z, mu = points(seed, *shape)
    expected = reference.soft_assignment(z, mu, alpha)
    q = assign(z, mu, alpha)
    assert q.dtype == jnp.float32
    np.testing.assert_allclose(q, expected, rtol=2e-5)
    np.testing.assert_allclose(log_assign(z, mu, alpha), np.log(expected), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-6)


@given(seeds, shapes)
def test_target_distribution_is_the_oracles(seed, shape):
    z, mu = points(seed, *shape)
    q = reference.soft_assignment(z, mu)
    p = target(jnp.asarray(q, jnp.float32))
    np.testing.assert_allclose(p, reference.target_distribution(q), rtol=1e-5)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(
        cluster_frequencies(jnp.asarray(q, jnp.float32)), q.sum(axis=0), rtol=1e-6
    )


@given(seeds, shapes, st.sampled_from(ALPHAS))
def test_mean_kl_is_the_oracles(seed, shape, alpha):
    z, mu = points(seed, *shape)
    q = reference.soft_assignment(z, mu, alpha)
    expected = reference.kl(reference.target_distribution(q), q).mean()
    found = kl_of_all(log_assign(z, mu, alpha))
    assert (found.dtype, found.shape) == (jnp.float32, ())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@given(seeds, shapes, st.sampled_from(ALPHAS))
def test_gradients_are_equations_4_and_5(seed, shape, alpha):
    z, mu = points(seed, *shape)
    p = reference.target_distribution(reference.soft_assignment(z, mu, alpha))
    grad_z, grad_mu = gradients(z, mu, jnp.asarray(p, jnp.float32), alpha)
    expected_z, expected_mu = reference.kl_gradients(z, mu, p, alpha)
    np.testing.assert_allclose(grad_z, expected_z, rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(grad_mu, expected_mu, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_oracles_gradients_are_those_of_its_loss(alpha):
    z, mu = (reference.as_float64(array) for array in points(3, 5, 3, 2))
    p = reference.target_distribution(reference.soft_assignment(z, mu))

    def difference(index, at):
        step = np.zeros_like((z, mu)[at])
        step[index] = 1e-5
        losses = []
        for sign in (1, -1):
            moved = [z, mu]
            moved[at] = moved[at] + sign * step
            losses.append(reference.kl(p, reference.soft_assignment(*moved, alpha)).sum())
        return (losses[0] - losses[1]) / 2e-5

    for at, grad in enumerate(reference.kl_gradients(z, mu, p, alpha)):
        for index in np.ndindex(grad.shape):
            np.testing.assert_allclose(grad[index], difference(index, at), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_float64_stays_float64(alpha):
    with quick.float64():
        z, mu = (jnp.asarray(array, jnp.float64) for array in points(1, 9, 6, 3))
        q = soft_assignment(z, mu, alpha=alpha)
        p = target_distribution(q)
        loss = clustering_loss(log_soft_assignment(z, mu, alpha=alpha), p)
        grads = jax.grad(loss_sum, argnums=(0, 1))(z, mu, p, alpha)
        for array in (q, p, loss, *grads):
            assert array.dtype == jnp.float64
        expected_q = reference.soft_assignment(z, mu, alpha)
        expected_p = reference.target_distribution(expected_q)
        np.testing.assert_allclose(q, expected_q, rtol=1e-12)
        np.testing.assert_allclose(p, expected_p, rtol=1e-12)
        np.testing.assert_allclose(loss, reference.kl(expected_p, expected_q), rtol=1e-11)
        for found, expected in zip(
            grads, reference.kl_gradients(z, mu, expected_p, alpha), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtypes", [("bfloat16", "bfloat16"), ("bfloat16", "float32")])
def test_bfloat16_is_computed_in_float32(dtypes):
    z, mu = (array.astype(dtype) for array, dtype in zip(points(2, 9, 6, 7), dtypes, strict=True))
    q = soft_assignment(z, mu)
    assert q.dtype == jnp.float32
    np.testing.assert_allclose(q, reference.soft_assignment(z, mu), rtol=2e-5)
    grad = jax.grad(lambda z: loss_sum(z, mu, target_distribution(q), 1.0))(z)
    assert grad.dtype == jnp.bfloat16


# Properties.


@given(seeds, shapes, st.randoms(use_true_random=False))
def test_order_of_rows_and_clusters_does_not_matter(seed, shape, random):
    z, mu = points(seed, *shape)
    rows = np.array(random.sample(range(shape[0]), shape[0]))
    clusters = np.array(random.sample(range(shape[1]), shape[1]))
    q, permuted = assign(z, mu, 1.0), assign(z[rows], mu[clusters], 1.0)
    np.testing.assert_allclose(permuted, q[rows][:, clusters], rtol=1e-5)
    np.testing.assert_allclose(target(permuted), target(q)[rows][:, clusters], rtol=2e-5)


@given(seeds, shapes)
def test_rotation_does_not_matter(seed, shape):
    z, mu = points(seed, *shape)
    width = shape[2]
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((width, width)))[0].astype(np.float32)
    np.testing.assert_allclose(
        assign(z @ rotation, mu @ rotation, 1.0), assign(z, mu, 1.0), rtol=1e-4
    )


@given(seeds, shapes, st.sampled_from([-1e4, 10.0, 1e4]))
def test_translation_does_not_matter(seed, shape, offset):
    # On a grid of 1/256 the shifted points are exact in float32, so nothing but the library's own
    # rounding is left. A plain expansion |z|² - 2zμ + |μ|² would be off by tens at 1e4.
    z, mu = (jnp.round(array * 256) / 256 for array in points(seed, *shape))
    # For a single row XLA computes the mean centroid once rounded and once not, so that distances
    # are off by an ulp of the offset (1e-3) times those to the mean.
    rtol = 2e-5 if len(z) > 1 else 1e-2
    np.testing.assert_allclose(assign(z + offset, mu + offset, 1.0), assign(z, mu, 1.0), rtol=rtol)


def test_far_from_the_origin_the_oracle_is_met():
    # Off the grid the inputs themselves are rounded to 1e-3; of those values q is as exact as ever.
    z, mu = (array + 1e4 for array in points(5, 9, 6, 3))
    np.testing.assert_allclose(assign(z, mu, 1.0), reference.soft_assignment(z, mu), rtol=5e-5)


def test_a_large_alpha_gives_the_gaussian_kernel():
    z, mu = points(4, 9, 6, 3)
    distances = reference.squared_distances(z, mu)
    gaussian = np.exp(-distances / 2)
    gaussian /= gaussian.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(assign(z, mu, 1e6), gaussian, rtol=1e-3)
    assert np.abs(assign(z, mu, 1.0) - gaussian).max() > 0.05


@given(seeds, shapes)
def test_blocks_with_frequencies_give_the_target_of_all(seed, shape):
    q = assign(*points(seed, *shape), 1.0)
    frequencies = cluster_frequencies(q)
    blocks = [target_distribution(q[i : i + 1], frequencies=frequencies) for i in range(len(q))]
    np.testing.assert_allclose(jnp.concatenate(blocks), target(q), rtol=1e-6)


def test_a_mini_batchs_own_target_is_another():
    q = assign(*points(6, 9, 6, 3), 1.0)
    by_batch = jnp.concatenate([target_distribution(q[:4]), target_distribution(q[4:])])
    assert jnp.abs(by_batch - target_distribution(q)).max() > 0.01


def test_zeros_stay_zeros():
    q = jnp.array([[0.0, 0.3, 0.7], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    p = target_distribution(q)
    np.testing.assert_array_equal(p == 0, q == 0)
    np.testing.assert_allclose(p.sum(axis=1), [1, 1, 0])


def test_small_probabilities_are_not_squared_away():
    q = jnp.array([[1.0, 1e-25], [1.0, 2e-25]])
    p = target_distribution(q)
    np.testing.assert_allclose(p[:, 1], [1e-50 / 3e-25 / 0.5, 4e-50 / 3e-25 / 0.5], rtol=1e-5)


# Extremes.


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("value", [1e19, -1e30, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["embedding", "centroid", "both"])
def test_extreme_coordinates_stay_finite(alpha, value, where):
    z, mu = points(7, 4, 3, 2)
    if where != "centroid":
        z = z.at[0, 1].set(value)
    if where != "embedding":
        mu = mu.at[1, 0].set(value)
    log_q = log_assign(z, mu, alpha)
    assert jnp.isfinite(log_q).all()
    np.testing.assert_allclose(jnp.exp(log_q).sum(axis=1), 1, rtol=1e-6)
    p = target(jnp.exp(log_q))
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    assert jnp.isfinite(clustering_loss(log_q, p)).all()
    for grad in gradients(z, mu, p, alpha):
        assert jnp.isfinite(grad).all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_far_row_goes_to_the_nearest_centroid(alpha):
    q = assign(jnp.array([[1e6, 0.0]]), jnp.array([[1e5, 0.0], [0.0, 0.0]]), alpha)
    expected = reference.soft_assignment([[1e6, 0.0]], [[1e5, 0.0], [0.0, 0.0]], alpha)
    np.testing.assert_allclose(q, expected, rtol=1e-5)


def test_underflowing_probabilities_do_not_make_the_loss_infinite():
    z, mu = jnp.array([[0.0]]), jnp.array([[0.0], [1e4]])
    assert assign(z, mu, 30.0)[0, 1] == 0
    log_q = log_assign(z, mu, 30.0)
    expected = -15.5 * np.log1p(1e8 / 30)
    np.testing.assert_allclose(log_q[0, 1], expected, rtol=1e-6)
    np.testing.assert_allclose(
        clustering_loss(log_q, jnp.array([[0.0, 1.0]])), [-expected], rtol=1e-6
    )


def test_nan_is_not_hidden():
    z, mu = points(8, 3, 2, 2)
    q = assign(z.at[1, 0].set(jnp.nan), mu, 1.0)
    assert jnp.isnan(q[1]).all()
    assert jnp.isfinite(q[::2]).all()


def test_a_row_on_its_centroid_has_a_gradient():
    mu = jnp.array([[1.0, 2.0], [0.0, 0.0]])
    p = jnp.array([[0.5, 0.5]])
    for found, expected in zip(
        gradients(mu[:1], mu, p, 1.0), reference.kl_gradients(mu[:1], mu, p), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


# Masked clusters.

MASK = jnp.array([True, False, True, True, False])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_masked_clusters_are_as_if_they_were_not_there(alpha):
    z, mu = points(3, 9, 5, 3)
    q = soft_assignment(z, mu, alpha=alpha, cluster_mask=MASK)
    assert (q[:, ~MASK] == 0).all()
    np.testing.assert_allclose(q[:, MASK], assign(z, mu[MASK], alpha), rtol=1e-5)
    p = target(q)
    assert (p[:, ~MASK] == 0).all()
    np.testing.assert_allclose(p[:, MASK], target(q[:, MASK]), rtol=1e-5)
    loss = clustering_loss(log_soft_assignment(z, mu, alpha=alpha, cluster_mask=MASK), p)
    expected = reference.soft_assignment(z, mu[MASK], alpha)
    expected_loss = reference.kl(reference.target_distribution(expected), expected)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("far", [1.0, 1e3])
def test_masked_clusters_get_no_gradient(far):
    z, mu = points(3, 9, 5, 3)
    mu = mu.at[1].multiply(far)
    p = target(soft_assignment(z, mu, cluster_mask=MASK))

    def loss(z, mu):
        return clustering_loss(log_soft_assignment(z, mu, cluster_mask=MASK), p).sum()

    grad_z, grad_mu = jax.jit(jax.grad(loss, argnums=(0, 1)))(z, mu)
    assert (grad_mu[~MASK] == 0).all()
    expected = reference.kl_gradients(z, mu[MASK], p[:, MASK])
    np.testing.assert_allclose(grad_z, expected[0], rtol=1e-3, atol=1e-3 * far**0.5)
    np.testing.assert_allclose(grad_mu[MASK], expected[1], rtol=1e-3, atol=1e-3 * far**0.5)


@pytest.mark.parametrize("far", [1e8, 1e30, np.inf, np.nan])
@pytest.mark.parametrize("cluster_mask", [MASK, ~MASK])
def test_where_masked_clusters_lie_does_not_matter(far, cluster_mask):
    z, mu = points(3, 9, 5, 3)
    p = target(soft_assignment(z, mu, cluster_mask=cluster_mask))

    def loss(z, mu):
        return clustering_loss(log_soft_assignment(z, mu, cluster_mask=cluster_mask), p).sum()

    expected = soft_assignment(z, mu, cluster_mask=cluster_mask)
    (grad_z, grad_mu) = jax.grad(loss, argnums=(0, 1))(z, mu)
    elsewhere = jnp.where(cluster_mask[:, None], mu, far)
    assert (soft_assignment(z, elsewhere, cluster_mask=cluster_mask) == expected).all()
    (found_z, found_mu) = jax.grad(loss, argnums=(0, 1))(z, elsewhere)
    assert (found_z == grad_z).all()
    assert (found_mu == grad_mu).all()


def test_masks_may_differ_under_vmap():
    z, mu = points(3, 9, 5, 3)
    masks = jnp.stack([MASK, ~MASK, jnp.ones(5, bool)])
    together = jax.jit(
        jax.vmap(lambda cluster_mask: soft_assignment(z, mu, cluster_mask=cluster_mask))
    )(masks)
    for q, cluster_mask in zip(together, masks, strict=True):
        assert (q[:, ~cluster_mask] == 0).all()
        np.testing.assert_allclose(q[:, cluster_mask], assign(z, mu[cluster_mask], 1.0), rtol=1e-5)
    # A mask of all clusters is no mask.
    np.testing.assert_allclose(together[2], assign(z, mu, 1.0), rtol=1e-6)


# Transformations, and memory.


def test_eager_jit_vmap_and_scan_agree():
    z, mu = points(9, 8, 3, 2)
    eager = soft_assignment(z, mu, alpha=2.0)
    blocks = z.reshape(4, 2, 2)
    vmapped = jax.vmap(lambda block: soft_assignment(block, mu, alpha=2.0))(blocks)
    _, scanned = jax.lax.scan(lambda _, block: (None, assign(block, mu, 2.0)), None, blocks)
    by_alpha = jax.vmap(lambda alpha: soft_assignment(z, mu, alpha=alpha))(jnp.array([1.0, 2.0]))
    for other in (assign(z, mu, 2.0), vmapped, scanned, by_alpha[1]):
        np.testing.assert_allclose(other.reshape(8, 3), eager, rtol=1e-6)


def sizes_of(jaxpr):
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield variable.aval.size
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from sizes_of(inner)


def test_no_array_of_rows_times_clusters_times_width():
    z, mu = points(0, 50, 20, 30)
    p = jnp.full((50, 20), 0.05)
    sizes = list(
        sizes_of(jax.make_jaxpr(jax.value_and_grad(loss_sum, (0, 1)))(z, mu, p, 1.0).jaxpr)
    )
    assert max(sizes) == 50 * 30
    assert 50 * 20 in sizes
    # The walk itself does see into what is nested.
    naive = jax.make_jaxpr(jax.jit(lambda z, mu: (z[:, None] - mu[None]).sum(axis=2)))(z, mu)
    assert max(sizes_of(naive.jaxpr)) == 50 * 20 * 30


# Bad arguments.


Z, MU = np.zeros((4, 2), np.float32), np.zeros((3, 2), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: soft_assignment(Z[0], MU), r"embeddings: expected .* 2 dim.*, got shape \(2,\)"),
        (
            lambda: soft_assignment(Z, MU[None]),
            r"centroids: expected .* 2 dim.*, got .*\(1, 3, 2\)",
        ),
        (lambda: squared_distances(Z, MU[:, :1]), "centroids: expected width 2 .*, got 1"),
        (lambda: cluster_frequencies(Z[0]), r"q: expected .* 2 dim.*, got shape \(2,\)"),
        (lambda: target_distribution(Z[0]), r"q: expected .* 2 dim.*, got shape \(2,\)"),
        (
            lambda: target_distribution(Z, frequencies=np.ones(3)),
            r"frequencies: expected shape \(2,\), got \(3,\)",
        ),
        (
            lambda: soft_assignment(Z, MU, cluster_mask=np.ones(2, bool)),
            r"cluster_mask: expected shape \(3,\), got \(2,\)",
        ),
        (
            lambda: log_soft_assignment(Z, MU, cluster_mask=np.ones((3, 1), bool)),
            r"cluster_mask: expected shape \(3,\), got \(3, 1\)",
        ),
        (
            lambda: log_soft_assignment(Z, MU, cluster_mask=np.ones(3)),
            "cluster_mask: expected booleans, got dtype float64",
        ),
        (lambda: clustering_loss(Z, MU), r"p: expected shape \(4, 2\), got \(3, 2\)"),
        (lambda: clustering_loss(Z[0], Z[0]), r"log_q: expected .* 2 dim.*, got shape \(2,\)"),
    ],
)
def test_bad_shapes_are_refused(unchecked, call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("alpha", [0, -1.0, np.nan, np.inf, "one", None, np.float32(-2)])
@pytest.mark.parametrize("function", [soft_assignment, log_soft_assignment])
def test_bad_alpha_is_refused(unchecked, function, alpha):
    with pytest.raises(ValueError, match=r"alpha: expected a finite number > 0, got ") as caught:
        function(Z, MU, alpha=alpha)
    assert repr(alpha) in str(caught.value)


def test_annotations_are_checked_in_these_tests():
    with pytest.raises(TypeCheckError):
        soft_assignment(jnp.asarray(Z), jnp.asarray(MU)[:, :1])
