import itertools

import jax
import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score, silhouette_score

from jdec.selection.criteria import (
    consensus,
    generalizability,
    mean_ari,
    pairwise_ari,
    sampled_silhouette,
)
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.model import assign

RNG = np.random.default_rng(0)


def noisy(labels, share, rng, n_clusters=4):
    """Return the labels with a share of them redrawn."""
    drawn = rng.integers(0, n_clusters, len(labels))
    return np.where(rng.random(len(labels)) < share, drawn, labels)


def soft(labels, n_clusters, certainty=0.9):
    q = np.full((len(labels), n_clusters), (1 - certainty) / (n_clusters - 1))
    q[np.arange(len(labels)), labels] = certainty
    return q


def test_ari_of_each_pair():
    labels = RNG.integers(0, 3, (4, 60))
    ari = pairwise_ari(labels)
    for i, j in itertools.product(range(4), repeat=2):
        assert ari[i, j] == pytest.approx(adjusted_rand_score(labels[i], labels[j]))
    others = [np.delete(ari[i], i).mean() for i in range(4)]
    assert mean_ari(labels) == pytest.approx(others)


def test_an_unrelated_partition_has_the_min_ari():
    truth = RNG.integers(0, 4, 300)
    labels = np.stack([*(noisy(truth, 0.1, RNG) for _ in range(3)), RNG.integers(0, 4, 300)])
    assert mean_ari(labels).argmin() == 3


def test_the_mean_ari_of_a_single_partition_is_nan():
    assert np.isnan(mean_ari(np.zeros((1, 5), int))).all()


def test_silhouette_of_few_rows_is_that_of_all():
    x, y = make_blobs(80, centers=3, random_state=1)
    assert sampled_silhouette(x, y) == pytest.approx(silhouette_score(x, y))
    sampled = sampled_silhouette(x, y, sample_size=40, seed=1)
    assert sampled == pytest.approx(silhouette_score(x, y), abs=0.1)
    assert sampled == sampled_silhouette(x, y, sample_size=40, seed=1)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_silhouette_is_not_defined_for_one_cluster_or_for_single_rows(labels):
    assert np.isnan(sampled_silhouette(np.arange(4.0)[:, None], np.array(labels)))


def test_silhouette_of_a_broken_embedding_is_nan():
    assert np.isnan(sampled_silhouette(np.array([[0.0], [np.nan], [1.0]]), np.array([0, 0, 1])))


def test_consensus_is_better_than_its_members():
    truth = np.repeat(np.arange(4), 60)
    # Every member numbers its clusters differently.
    members = []
    for _ in range(9):
        order = RNG.permutation(4)
        members.append(soft(order[noisy(truth, 0.4, RNG)], 4))
    members = np.stack(members).astype(np.float32)
    joint = consensus(jax.random.key(0), members, 4).labels
    singles = [adjusted_rand_score(truth, q.argmax(1)) for q in members]
    assert adjusted_rand_score(truth, joint) > max(singles) + 0.2
    assert adjusted_rand_score(truth, joint) > 0.9


def test_consensus_clusters_the_co_association_matrix():
    """Against the N×N matrix that the library never builds."""
    truth = np.repeat(np.arange(3), 20)
    members = np.stack([soft(noisy(truth, 0.2, RNG, 3), 3) for _ in range(5)])
    q = np.concatenate(list(members), axis=1)
    similarity = q @ q.T
    degrees = similarity.sum(1)
    normalised = similarity / np.sqrt(degrees[:, None] * degrees)
    vectors = np.linalg.eigh(normalised)[1]
    rows = vectors[:, -3:] / np.linalg.norm(vectors[:, -3:], axis=1, keepdims=True)
    result = consensus(jax.random.key(0), members, 3)
    # The same rows up to a rotation: equal products, hence equal inertia for equal labels.
    inertia = sum(
        ((part - part.mean(0)) ** 2).sum()
        for part in (rows[np.asarray(result.labels) == k] for k in range(3))
    )
    assert float(result.inertia) == pytest.approx(inertia, rel=1e-3)


def test_consensus_handles_empty_clusters_and_drops_members_that_are_not_finite():
    truth = np.repeat(np.arange(2), 30)
    members = np.zeros((3, 60, 4))
    members[0, :, :2] = members[1, :, :2] = soft(truth, 2)
    members[2] = np.nan
    joint = consensus(jax.random.key(0), members, 2).labels
    assert adjusted_rand_score(truth, joint) == 1


def test_consensus_validates_its_arguments():
    with pytest.raises(ValueError, match="at least one finite member"):
        consensus(jax.random.key(0), np.full((2, 5, 2), np.nan), 2)
    with pytest.raises(ValueError, match="n_clusters"):
        consensus(jax.random.key(0), np.full((1, 3, 2), 0.5), 4)
    with pytest.raises(ValueError, match="soft_assignments"):
        consensus(jax.random.key(0), np.ones((3, 2)), 2)


@pytest.mark.parametrize(
    ("q", "message"),
    [
        (np.zeros((2, 5, 2)), r"probabilities that sum to one, got \[0.0, 0.0\] for row 0"),
        (np.full((2, 5, 2), -0.5), "probabilities that sum to one"),
        (np.array([[0, 1, 7], [2, 0, 1]]), "not labels"),
        ([["a"]], "expected q of each member"),
        (None, "got an array of shape ()"),
    ],
)
def test_invalid_probabilities_raise(q, message):
    with pytest.raises(ValueError, match="soft_assignments: .*" + message.replace("()", r"\(\)")):
        consensus(jax.random.key(0), q, 2)


def test_a_silhouette_needs_a_label_for_each_row():
    with pytest.raises(ValueError, match="labels: expected as many entries as embeddings"):
        sampled_silhouette(np.zeros((3, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="embeddings: expected an array of 2"):
        sampled_silhouette(np.zeros(3), np.zeros(3))


def test_generalizability_is_the_ratio_of_losses_with_the_frequencies_of_the_training_rows():
    x, _ = make_blobs(200, n_features=6, centers=3, random_state=0)
    x = x.astype(np.float32)
    config = Config(3).replace(
        {
            "network.hidden_dims": [8],
            "network.latent_dim": 2,
            "pretrain.finetune_steps": 40,
            "kmeans.n_init": 2,
            "clustering.update_interval": 20,
            "clustering.max_intervals": 2,
        }
    )
    model = fit(jax.random.key(0), x, config).model
    assert generalizability(model, x, x) == pytest.approx(1)
    others = (x[RNG.permutation(200)] + x[RNG.permutation(200)])[:50] / 2

    def loss(q, frequencies):
        p = q**2 / frequencies
        p /= p.sum(1, keepdims=True)
        return (p * np.log(p / q)).sum(1).mean()

    q, q_others = (assign(model, rows)[1].astype(np.float64) for rows in (x, others))
    expected = loss(q, q.sum(0)) / loss(q_others, q.sum(0))
    assert abs(expected - 1) > 0.05
    assert generalizability(model, x, others) == pytest.approx(expected, rel=1e-3)
