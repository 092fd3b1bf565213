import jax
import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import silhouette_score

from jdec.metrics import clustering_accuracy
from jdec.selection import Grid, run_sweep
from jdec.trainer.config import Config

X, Y = make_blobs(120, n_features=5, centers=3, random_state=0)
X = X.astype(np.float32)
CONFIG = Config(3).replace(
    {
        "network.hidden_dims": [8],
        "network.latent_dim": 2,
        "pretrain.finetune_steps": 20,
        "pretrain.batch_size": 16,
        "kmeans.n_init": 2,
        "clustering.batch_size": 16,
        "clustering.update_interval": 5,
        "clustering.max_intervals": 2,
    }
)


def sweep(grid=None, **kwargs):
    grid = grid or Grid((0, 1, 2), (3,), (1.0,), (1e-3,))
    return run_sweep(jax.random.key(9), X, CONFIG, grid, **{"y": Y} | kwargs)


@pytest.fixture(scope="module")
def over_k():
    return sweep(Grid((0, 1), (2, 3), (1.0,), (1e-3,)))


def test_every_member_is_a_row_of_the_table(over_k):
    assert [(row["seed"], row["n_clusters"]) for row in over_k.members] == [
        *((0, 2), (1, 2), (0, 3), (1, 3))
    ]
    for i, row in enumerate(over_k.members):
        assert row["kl"] == pytest.approx(float(over_k.population.kl[i]))
        assert row["acc"] == pytest.approx(
            clustering_accuracy(held_in(Y), over_k.population.labels[i])
        )


def held_in(rows, share=0.2):
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[np.sort(order[int(share * len(rows)) :])]


def test_rows_are_held_out_where_k_is_to_be_chosen(over_k):
    assert over_k.population.labels.shape == (4, 96)
    assert len(over_k.labels) == len(over_k.consensus_labels) == 120
    assert all(np.isfinite(row["generalizability"]) for row in over_k.members)


def test_settings_are_means_over_seeds(over_k):
    for setting, pair in zip(
        over_k.settings, (over_k.members[:2], over_k.members[2:]), strict=True
    ):
        values = [row["silhouette"] for row in pair]
        assert setting["silhouette"] == pytest.approx(np.mean(values))
        assert setting["silhouette_std"] == pytest.approx(np.std(values, ddof=1))
        assert setting["n_seeds"] == 2


def test_silhouettes_of_all_members_are_taken_in_the_space_of_the_scaled_rows(over_k):
    population = over_k.population
    space = population.scaling.apply(held_in(X))
    for row, labels in zip(over_k.members, population.labels, strict=True):
        assert row["silhouette"] == pytest.approx(silhouette_score(space, labels), abs=1e-6)


def test_a_member_that_is_not_finite_is_neither_chosen_nor_in_the_consensus():
    with pytest.warns(RuntimeWarning, match="became NaN or infinite"):
        result = sweep(Grid((0, 1), (3,), (1.0,), (1e-3, 1e38)))
    assert np.isfinite([row["silhouette"] for row in result.members]).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert result.best < 2


def test_the_best_has_the_best_criterion():
    for criterion, best in (("agreement", max), ("silhouette", max), ("kl", min)):
        result = sweep(criterion=criterion)
        values = [row[criterion] for row in result.members]
        assert values[result.best] == best(values)


def test_classes_do_not_affect_the_choice():
    """Classes score the table: with others, or none, the same member is chosen."""
    results = [sweep(y=y) for y in (Y, np.zeros_like(Y), None)]
    assert len({result.best for result in results}) == 1
    for result in results[1:]:
        assert np.array_equal(result.labels, results[0].labels)
        assert np.array_equal(result.consensus_labels, results[0].consensus_labels)
    assert "acc" not in results[2].members[0]
    assert results[2].consensus_scores is None


def test_one_seed_is_chosen_by_silhouette():
    assert sweep(Grid((0,), (3,), (0.5, 1.0), (1e-3,))).criterion == "silhouette"


def test_kl_of_several_k_is_not_compared():
    with pytest.raises(ValueError, match="cannot be compared"):
        sweep(Grid((0,), (2, 3), (1.0,), (1e-3,)), criterion="kl")


def test_classes_are_one_per_row():
    with pytest.raises(ValueError, match="y: expected as many entries as x"):
        sweep(y=Y[1:])


@pytest.mark.parametrize("values", [(), (1, 1)])
def test_a_grid_has_different_values(values):
    with pytest.raises(ValueError, match="seeds: expected"):
        Grid(values, (3,), (1.0,), (1e-3,))


def test_a_grid_holds_rows_out_for_several_numbers_of_clusters():
    assert Grid((0,), (3,), (1.0,), (1e-3,)).n_held_out(120) == 0
    assert Grid((0,), (3, 4), (1.0,), (1e-3,)).n_held_out(120) == 24
    assert Grid((0,), (3, 4), (1.0,), (1e-3,), held_out=0.5).n_held_out(120) == 60
    with pytest.raises(ValueError, match="held_out: expected"):
        Grid((0,), (3,), (1.0,), (1e-3,), held_out=1.5)
