import functools

import jax
import numpy as np
import pytest
import reference
from sklearn.datasets import make_blobs

from jdec.core.networks import StackedDenoisingAutoencoder
from jdec.trainer import memory
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.members import choose_mapping
from jdec.trainer.memory import members_that_fit
from jdec.trainer.model import assign
from jdec.trainer.population import fit_population
from jdec.trainer.programs import MemberMapping, Plan, build_network
from jdec.trainer.run import NotFiniteError
from jdec.trainer.sharding import RowSharding, data_mesh, member_mesh

# Groups that overlap, so that labels go on changing, and with each key for a time of its own.
X, _ = make_blobs(75, n_features=6, centers=4, cluster_std=3.0, random_state=0)
CONFIG = Config(4).replace(
    {
        "network.hidden_dims": [8],
        "network.latent_dim": 3,
        "pretrain.finetune_steps": 20,
        "pretrain.batch_size": 16,
        "kmeans.n_init": 2,
        "kmeans.select": "kl",
        "clustering.batch_size": 16,
        "clustering.update_interval": 5,
        "clustering.max_intervals": 3,
        "clustering.tol": 0.0,
        "clustering.optimizer.learning_rate": 1e-2,
    }
)
SETTLING = CONFIG.replace({"clustering.max_intervals": 6, "clustering.tol": 0.03})
KEYS = jax.random.split(jax.random.key(0), 16)[np.array([0, 1, 4, 8])]
# Each with one value that is not the configured one: every value is a program of the single runs.
ALPHAS = [1.0, 0.5, 1.0, 0.5]
RATES = [3e-2, 1e-2, 1e-2, 3e-2]
N_CLUSTERS = [4, 2, 2, 4]


@functools.cache
def alone(index, config=CONFIG):
    """Return the single run of one of the keys."""
    return fit(KEYS[index], X, config)


def check_members(population, config=CONFIG, **changes):
    """Check that each member equals the single run of its key and settings."""
    for index in range(len(population.labels)):
        mine = {name: values[index] for name, values in changes.items()}
        check_member(population, index, alone(index, config.replace(mine)))


def check_member(population, index, single):
    k = single.model.config.n_clusters
    q = population.soft_assignment[index]
    np.testing.assert_allclose(q[:, :k], single.soft_assignment, atol=1e-5)
    assert (q[:, k:] == 0).all()
    np.testing.assert_array_equal(population.labels[index], single.labels)
    np.testing.assert_array_equal(population.initial_labels[index], single.initial.labels)
    assert population.n_intervals[index] == single.n_intervals
    np.testing.assert_allclose(
        population.label_change[index], single.history[-1]["label_change"], rtol=1e-6
    )
    np.testing.assert_allclose(
        population.centroids[index, :k], single.model.centroids, rtol=1e-4, atol=1e-5
    )
    jax.tree.map(
        lambda found, right: np.testing.assert_allclose(found[index], right, atol=1e-5),
        population.params,
        dict(single.model.params),
    )


def check_same(one, other):
    """Check that two populations are the same but for rounding."""

    def check(name, **tolerance):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), **tolerance)

    for name in ("labels", "initial_labels", "n_intervals", "n_clusters"):
        check(name, rtol=0)
    for name in ("alphas", "learning_rates", "label_change"):
        check(name, rtol=1e-6)
    check("soft_assignment", rtol=0, atol=1e-5)
    check("kl", rtol=1e-4, atol=1e-6)
    check("centroids", rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def seeds():
    return fit_population(KEYS, X, SETTLING)


@pytest.fixture(scope="module")
def alphas():
    return fit_population(KEYS, X, CONFIG, alphas=ALPHAS)


@pytest.fixture(scope="module")
def ks():
    return fit_population(KEYS, X, CONFIG, n_clusters=N_CLUSTERS)


# A member is a run of its own.


def test_members_of_other_seeds_equal_single_runs(seeds):
    assert seeds.members_at_once == 4
    check_members(seeds, SETTLING)
    # So that one member may not stand for another.
    assert len({labels.tobytes() for labels in seeds.labels}) == 4
    np.testing.assert_array_equal(seeds.n_clusters, 4)
    np.testing.assert_array_equal(seeds.alphas, 1)
    np.testing.assert_allclose(seeds.learning_rates, 1e-2, rtol=1e-6)


def test_members_of_other_alphas_equal_single_runs(alphas):
    check_members(alphas, **{"clustering.alpha": ALPHAS})
    np.testing.assert_array_equal(alphas.alphas, ALPHAS)
    assert np.abs(alphas.soft_assignment[1] - alone(1).soft_assignment).max() > 0.01


def test_members_of_other_learning_rates_equal_single_runs():
    population = fit_population(KEYS, X, CONFIG, learning_rates=RATES)
    check_members(population, **{"clustering.optimizer.learning_rate": RATES})
    np.testing.assert_allclose(population.learning_rates, RATES, rtol=1e-6)
    assert np.abs(population.soft_assignment[0] - alone(0).soft_assignment).max() > 0.01


def test_members_of_other_numbers_of_clusters_equal_single_runs(ks):
    check_members(ks, n_clusters=N_CLUSTERS)
    assert ks.soft_assignment.shape == (4, 75, 4)
    assert ks.config.n_clusters == 4
    np.testing.assert_array_equal(ks.n_clusters, N_CLUSTERS)
    assert [len(np.unique(labels)) for labels in ks.labels] == N_CLUSTERS


def test_the_greatest_k_may_be_beyond_the_configured(ks):
    other = fit_population(KEYS, X, CONFIG.replace({"n_clusters": 2}), n_clusters=N_CLUSTERS)
    assert other.config == ks.config
    np.testing.assert_array_equal(other.soft_assignment, ks.soft_assignment)


def test_clusters_that_take_no_part_get_no_gradient(ks):
    """Adam would move them by the whole learning rate for the least gradient."""
    config = CONFIG.replace({"clustering.max_intervals": 0})
    start = fit_population(KEYS, X, config, n_clusters=N_CLUSTERS)
    np.testing.assert_array_equal(start.n_intervals, 0)
    for before, after, k in zip(start.centroids, ks.centroids, N_CLUSTERS, strict=True):
        np.testing.assert_array_equal(after[k:], before[k:])
        assert (np.abs(after[:k] - before[:k]).max(axis=1) > 1e-3).all()


def test_the_kl_is_the_oracles(ks):
    for index in (0, 1):
        q = ks.soft_assignment[index, :, : N_CLUSTERS[index]]
        expected = reference.kl(reference.target_distribution(q), q).mean()
        np.testing.assert_allclose(ks.kl[index], expected, rtol=1e-4)


# The end of a member is its own.


def test_members_stop_when_their_own_labels_have_settled(seeds):
    # The first to settle is held beside the others; once half of them have, those are left behind
    # and the others go on by themselves.
    running = [int((seeds.n_intervals > interval).sum()) for interval in range(6)]
    assert {3, 2} <= set(running)
    for index in range(4):
        settled = seeds.label_change[index] < SETTLING.clustering.tol
        assert settled or seeds.n_intervals[index] == SETTLING.clustering.max_intervals


def test_history_names_the_members_that_ran(seeds):
    clustering = [record for record in seeds.history if record["phase"] == "clustering"]
    assert [record["interval"] for record in clustering] == list(range(len(clustering)))
    assert len(clustering) == 1 + seeds.n_intervals.max()
    start = clustering[0]
    assert (start["members"], start["loss"], start["label_change"]) == ([0, 1, 2, 3], None, None)
    for record in clustering:
        interval = record["interval"]
        ran = np.flatnonzero(seeds.n_intervals >= interval).tolist()
        assert record["members"] == ran
        theirs = [
            next(r for r in alone(i, SETTLING).history if r.get("interval") == interval)
            for i in ran
        ]
        assert record["cluster_sizes"] == [r["cluster_sizes"] for r in theirs]
        np.testing.assert_allclose(record["kl"], [r["kl"] for r in theirs], rtol=1e-4)
        for name in ("loss", "label_change") if interval else ():
            np.testing.assert_allclose(record[name], [r[name] for r in theirs], rtol=1e-4)


def test_history_tells_of_pretraining(seeds):
    pretraining = [record for record in seeds.history if record["phase"] == "finetune"]
    assert [record["step"] for record in pretraining] == list(range(1, 21))
    for index in range(4):
        expected = [r["loss"] for r in alone(index, SETTLING).history if r["phase"] == "finetune"]
        found = [record["loss"][record["members"].index(index)] for record in pretraining]
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    phases = {"pretraining", "kmeans", "clustering", "target refresh", "assignment"}
    assert set(seeds.seconds) == phases
    seconds = [record["seconds"] for record in seeds.history]
    assert seconds == sorted(seconds)


def test_callbacks_get_each_record_as_it_is_made(capfd):
    seen = []
    population = fit_population(KEYS, X, SETTLING, callbacks=[seen.append])
    assert all(a is b for a, b in zip(seen, population.history, strict=True))
    assert capfd.readouterr() == ("", "")


def pretrained_together(population):
    """Return the members that each record of pretraining names."""
    return {tuple(sorted(r["members"])) for r in population.history if r["phase"] == "finetune"}


def test_equal_keys_share_their_pretraining(ks):
    keys = KEYS[np.array([1, 0, 1, 1])]
    population = fit_population(keys, X, CONFIG, n_clusters=[2, 4, 4, 2])
    assert pretrained_together(population) == {(0, 1)}
    check_member(population, 0, alone(1, CONFIG.replace({"n_clusters": 2})))
    check_member(population, 1, alone(0))
    check_member(population, 2, alone(1))
    np.testing.assert_array_equal(population.labels[3], population.labels[0])


def test_equal_keys_share_their_pretraining_across_batches(ks):
    """Two seeds with two K each, two members in a batch: not four but two."""
    order = np.array([1, 0, 1, 0])
    n_clusters = [2, 2, 4, 4]
    population = fit_population(KEYS[order], X, CONFIG, n_clusters=n_clusters, members_at_once=2)
    finetuned = [r for r in population.history if r["phase"] == "finetune"]
    assert [r["members"] for r in finetuned if r["step"] == 1] == [[0], [1]]
    for index, (of_key, k) in enumerate(zip(order, n_clusters, strict=True)):
        check_member(population, index, alone(of_key, CONFIG.replace({"n_clusters": k})))
    np.testing.assert_array_equal(population.n_clusters, n_clusters)


# In batches, and over devices.


@pytest.mark.parametrize("members_at_once", [1, 2])
def test_batches_give_the_same(ks, members_at_once):
    turns = fit_population(KEYS, X, CONFIG, n_clusters=N_CLUSTERS, members_at_once=members_at_once)
    check_same(turns, ks)
    assert turns.members_at_once == members_at_once
    firsts = range(0, 4, members_at_once)
    assert pretrained_together(turns) == {
        tuple(range(first, first + members_at_once)) for first in firsts
    }


def test_members_one_after_another_give_the_same(ks):
    """As on a CPU with a large network; members that have settled are left out, not computed."""
    one_by_one = fit_population(KEYS, X, CONFIG, n_clusters=N_CLUSTERS, vectorized=False)
    check_same(one_by_one, ks)


@pytest.mark.parametrize(("width", "vectorized"), [(1000, True), (3000, False)])
def test_large_members_go_one_after_another_on_a_cpu(width, vectorized):
    network = StackedDenoisingAutoencoder((width,), 10)
    assert choose_mapping(network, 50, None, None) == MemberMapping(None, vectorized)
    assert choose_mapping(network, 50, None, not vectorized).vectorized is not vectorized


@pytest.mark.parametrize("mesh", ["3 of members", "2 of members by 2 of rows", "4 of rows"])
def test_members_and_rows_over_devices_give_the_same(seeds, mesh):
    # Neither four nor the two that go on by themselves can be shared out evenly among three; and 75
    # rows neither among two nor among four.
    meshes = {
        "3 of members": lambda: member_mesh(3),
        "2 of members by 2 of rows": lambda: member_mesh(2, data_devices=2),
        "4 of rows": lambda: data_mesh(4),
    }
    sharded = fit_population(KEYS, X, SETTLING, mesh=meshes[mesh]())
    check_same(sharded, seeds)
    records = (sharded.history, seeds.history)
    for mine, theirs in zip(*records, strict=True):
        names = ("phase", "interval", "step", "members", "cluster_sizes")
        assert [mine.get(name) for name in names] == [theirs.get(name) for name in names]


def test_three_members_on_two_devices(seeds):
    sharded = fit_population(KEYS[:3], X, SETTLING, mesh=member_mesh(2))
    np.testing.assert_array_equal(sharded.labels, seeds.labels[:3])
    np.testing.assert_allclose(sharded.soft_assignment, seeds.soft_assignment[:3], atol=1e-5)


# As many as fit in memory.


def make_plan(mesh=None):
    rows = RowSharding(len(X), mesh)
    return Plan(CONFIG, build_network(CONFIG), rows, members=MemberMapping(mesh))


ROWS = jax.numpy.asarray(X, np.float32)


@pytest.fixture(scope="module")
def needed():
    """Return the bytes that 1 and 64 members take, as XLA counts them."""
    return [memory.compiled_bytes(make_plan(), ROWS, n_members) for n_members in (1, 64)]


@pytest.mark.parametrize(
    ("free", "expected"),
    [(None, 64), (10**12, 64), ("all", 64), ("most", range(48, 64)), ("one", {1}), (1, {1})],
)
def test_as_many_members_as_memory_has_room_for(needed, monkeypatch, free, expected):
    one, all_ = needed
    free = {"all": all_, "most": int(0.9 * all_), "one": one}.get(free, free)
    asked, count = [], memory.compiled_bytes

    def counted(plan, x, n_members):
        asked.append(n_members)
        return count(plan, x, n_members)

    monkeypatch.setattr(memory, "free_device_bytes", lambda: free)
    monkeypatch.setattr(memory, "compiled_bytes", counted)
    found = members_that_fit(make_plan(), ROWS, 64)
    if free in (None, 10**12):
        assert (found, asked) == (64, [])  # nothing is compiled just to know
    else:
        assert found in ({expected} if expected == 64 else expected)
        assert 1 <= len(asked) <= 4


def test_devices_of_a_cpu_share_its_memory(monkeypatch):
    monkeypatch.setattr(memory, "free_device_bytes", lambda: 60_000)
    monkeypatch.setattr(memory, "compiled_bytes", lambda plan, x, n: 500 + 1000 * n)
    assert members_that_fit(make_plan(), ROWS, 64) in (58, 59)
    assert members_that_fit(make_plan(member_mesh(4)), ROWS, 64) in (13, 14)


def test_the_compiled_programs_tell_what_they_need(needed):
    # The autoencoder with two moments is the minimum; twice all activations of a block are more.
    minimum, block = 3 * 2 * (6 * 8 + 8 * 3), 2048 * (6 + 8 + 3)
    assert 4 * 64 * minimum < needed[1] < 4 * 64 * 2 * block
    assert needed[1] > 32 * needed[0]


def test_little_memory_means_batches(ks, monkeypatch):
    monkeypatch.setattr(memory, "free_device_bytes", lambda: 1)
    batches = fit_population(KEYS, X, CONFIG, n_clusters=N_CLUSTERS)
    assert batches.members_at_once == 1
    check_same(batches, ks)


# A member as a model.


def test_a_member_is_a_model_of_its_own_k(ks):
    for index, k in enumerate(N_CLUSTERS):
        model = ks.member(index)
        _, q = assign(model, X)
        assert q.shape == (75, k)
        np.testing.assert_allclose(q, ks.soft_assignment[index, :, :k], atol=1e-5)


def test_a_member_is_a_model_of_its_own_alpha(alphas):
    for index in (0, 1):
        _, q = assign(alphas.member(index), X)
        np.testing.assert_allclose(q, alphas.soft_assignment[index], atol=1e-5)


def test_a_member_has_the_settings_of_its_single_run(seeds, alphas, ks):
    assert seeds.member(0).config == SETTLING
    for index in (0, 1):
        expected = CONFIG.replace({"clustering.alpha": ALPHAS[index]})
        assert alphas.member(index).config == expected
        assert ks.member(index).config == CONFIG.replace({"n_clusters": N_CLUSTERS[index]})


# Guards.


def test_a_broken_member_does_not_stop_the_others():
    rates = [3e-2, 1e30, 1e-2, 3e-2]
    with pytest.warns(RuntimeWarning, match="members 1 of 4 became NaN or infinite") as caught:
        population = fit_population(KEYS, X, CONFIG, learning_rates=rates)
    assert caught[0].filename == __file__
    assert np.isnan(population.kl).tolist() == [False, True, False, False]
    assert np.isnan(population.label_change[1])
    assert population.n_intervals.tolist() == [3, 1, 3, 3]
    for index in (0, 2, 3):
        config = CONFIG.replace({"clustering.optimizer.learning_rate": rates[index]})
        check_member(population, index, alone(index, config))


def test_all_broken_is_an_error():
    with pytest.raises(NotFiniteError, match="no member stayed finite"):
        fit_population(KEYS, X, CONFIG, learning_rates=[1e30] * 4)


def with_nan():
    x = X.copy()
    x[3, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": []}, "keys: expected at least one random key, got none"),
        ({"keys": KEYS[:0]}, "keys: expected at least one random key, got none"),
        ({"keys": KEYS[0]}, r"keys: expected typed random keys in one dimension.*shape \(\)"),
        (
            {"keys": jax.vmap(jax.random.key_data)(KEYS)},
            r"keys: expected typed random keys in one dimension.*uint32 of shape \(4, 2\)",
        ),
        ({"keys": [0, 1, 2]}, "keys: expected typed random keys.*; got a list with int$"),
        ({"keys": 5}, "keys: expected typed random keys.*; got int$"),
        ({"keys": None}, "keys: expected typed random keys.*; got NoneType$"),
        ({"alphas": 0.5}, r"alphas: expected one for each of 4 keys, got 0\.5; one value for all"),
        (
            {"learning_rates": 1},
            "learning_rates: expected one for each of 4 keys, got 1; one value for",
        ),
        (
            {"n_clusters": 3},
            "n_clusters: expected one for each of 4 keys, got 3; one value for all",
        ),
        (
            {"n_clusters": np.ones((4, 1), int)},
            r"n_clusters: expected an integer >= 1, got array\(\[1\]\)",
        ),
        ({"alphas": [1.0]}, "alphas: expected one for each of 4 keys, got 1"),
        ({"learning_rates": [1e-3] * 6}, "learning_rates: expected one for each of 4 keys, got 6"),
        ({"n_clusters": [2, 3]}, "n_clusters: expected one for each of 4 keys, got 2"),
        ({"alphas": [1, 1, 0, 1]}, "alphas: expected a finite number > 0, got 0"),
        ({"alphas": [1, 1, -1.0, 1]}, "alphas: expected a finite number > 0, got -1.0"),
        ({"alphas": [1, np.nan, 1, 1]}, "alphas: expected a finite number > 0, got nan"),
        ({"learning_rates": [1, 1, 1, 0.0]}, "learning_rates: expected a finite number > 0"),
        ({"n_clusters": [2, 3, 76, 2]}, "n_clusters: .*n_clusters=76 for n_samples=75"),
        ({"n_clusters": [2, 0, 3, 2]}, "n_clusters: expected an integer >= 1, got 0"),
        ({"n_clusters": [2, 2.5, 3, 2]}, r"n_clusters: expected an integer >= 1, got 2\.5"),
        ({"members_at_once": 0}, "members_at_once: expected an integer >= 1, got 0"),
        ({"x": with_nan()}, "x: expected finite numbers, got NaN in row 3"),
        ({"x": X[:0]}, "x: expected at least one row"),
        ({"x": X[:3]}, "n_clusters: .*n_clusters=4 for n_samples=3"),
        (
            {"config": CONFIG.replace({"image_shape": (2, 2)})},
            r"image_shape: expected 6 entries as x has columns, got \(2, 2\)",
        ),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"keys": KEYS, "x": X, "config": CONFIG} | change
    with pytest.raises(ValueError, match=message):
        fit_population(**arguments)
