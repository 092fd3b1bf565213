import dataclasses
import json

import jax
import matplotlib.image
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from jdec.cli.results import score_methods, seed_keys, write_results
from jdec.datasets import Dataset
from jdec.metrics import clustering_scores
from jdec.trainer.config import Config
from jdec.trainer.fit import fit
from jdec.trainer.model_file import load_model

X, Y = (array[:150] for array in load_digits(return_X_y=True))
CONFIG = Config(6).replace(
    {
        "network.hidden_dims": [8],
        "network.latent_dim": 3,
        "pretrain.finetune_steps": 40,
        "pretrain.batch_size": 32,
        "kmeans.n_init": 2,
        "clustering.update_interval": 5,
        "clustering.max_intervals": 2,
        "clustering.tol": 0.0,
    }
)
DATASET = Dataset(X.astype(np.float32), Y.astype(np.int64), "some digits", note="a sample")
ARRAYS = ["centroids.npy", "embedding.npy", "labels.npy", "soft_assignment.npy"]
FILES = sorted([*ARRAYS, "embedding.png", "history.png", "metrics.json", "model.npz"])


@pytest.fixture(scope="module")
def result():
    return fit(jax.random.key(0), X, CONFIG, y=Y)


@pytest.fixture(scope="module")
def scores(result):
    return score_methods(jax.random.key(1), DATASET, CONFIG, result)


def write(out, result, dataset=DATASET, config=CONFIG, scores=None, about=None):
    out.mkdir(exist_ok=True)
    metrics = write_results(out, dataset, config, result, scores=scores, about=about or {})
    assert json.loads((out / "metrics.json").read_text()) == metrics
    return metrics


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_arrays_are_those_of_the_result(tmp_path, result):
    write(tmp_path, result)
    assert files(tmp_path) == FILES
    for name, array in {
        "labels": result.labels,
        "soft_assignment": result.soft_assignment,
        "embedding": result.embedding,
        "centroids": np.asarray(result.model.centroids),
    }.items():
        stored = np.load(tmp_path / f"{name}.npy", allow_pickle=False)
        assert (stored.dtype, stored.shape) == (array.dtype, array.shape)
        assert stored.tobytes() == array.tobytes()
    labels = np.load(tmp_path / "labels.npy")
    np.testing.assert_array_equal(labels, np.load(tmp_path / "soft_assignment.npy").argmax(axis=1))


def test_the_model_holds_the_whole_result(tmp_path, result):
    write(tmp_path, result)
    model, extra = load_model(tmp_path / "model.npz")
    assert model.config == CONFIG
    np.testing.assert_array_equal(model.centroids, result.model.centroids)
    np.testing.assert_array_equal(extra["labels_"], result.labels)
    np.testing.assert_array_equal(extra["embedding_"], result.embedding)
    assert extra["n_iter_"] == 2
    assert extra["stop_reason_"] == "max_intervals"
    assert extra["history_"] == result.history


def test_metrics_tell_about_the_run(tmp_path, result, scores):
    about = {"recipe": "by hand", "seed": 7}
    metrics = write(tmp_path, result, scores=scores, about=about)
    assert list(metrics) == [
        *("dataset", "variant", "note", "n_rows", "n_features", "feature_names", "label_name"),
        *("n_clusters", "cluster_sizes", "rows", "start_rows"),
        *("stop_reason", "n_intervals", "label_change", "scores", "seconds", "environment"),
        *("recipe", "seed"),
    ]
    assert metrics["dataset"] == "some digits"
    assert metrics["note"] == "a sample"
    assert (metrics["n_rows"], metrics["n_features"], metrics["n_clusters"]) == (150, 64, 6)
    assert metrics["cluster_sizes"] == np.bincount(result.labels, minlength=6).tolist()
    assert (metrics["stop_reason"], metrics["n_intervals"]) == ("max_intervals", 2)
    assert metrics["label_change"] == result.history[-1]["label_change"]
    assert (metrics["rows"], metrics["start_rows"]) == ("device", None)
    assert metrics["scores"] == scores
    assert (metrics["recipe"], metrics["seed"]) == ("by hand", 7)
    assert metrics["environment"]["jax"] == jax.__version__
    names = {"pretraining", "kmeans", "clustering", "figures"}
    assert names <= set(metrics["seconds"])
    assert all(value >= 0 for value in metrics["seconds"].values())
    for name in names - {"figures"}:
        assert metrics["seconds"][name] == pytest.approx(result.seconds[name], abs=0.01)


def test_scores_are_those_of_the_labels(result, scores):
    assert list(scores) == ["k-means", "AE + k-means", "DEC initialisation", "DEC"]
    assert scores["DEC"] == clustering_scores(Y, result.labels)
    assert scores["DEC initialisation"] == clustering_scores(Y, result.initial.labels)
    assert scores["DEC"]["acc"] == result.history[-1]["acc"]
    for score in scores.values():
        assert set(score) == {"acc", "nmi", "ari"}
        assert all(isinstance(value, float) for value in score.values())


def test_the_baseline_is_k_means_on_the_scaled_input(result, scores):
    labels = KMeans(6, n_init=20, random_state=0).fit_predict(X)
    assert scores["k-means"]["nmi"] == pytest.approx(clustering_scores(Y, labels)["nmi"], abs=0.08)
    again = score_methods(jax.random.key(1), DATASET, CONFIG, result)
    assert again == scores


def test_ae_k_means_is_plain_k_means_on_the_pretrained_embedding(result, scores):
    pretrained = fit(jax.random.key(0), X, CONFIG.replace({"clustering.max_intervals": 0}))
    labels = KMeans(6, n_init=20, random_state=0).fit_predict(pretrained.embedding)
    expected = clustering_scores(Y, labels)["nmi"]
    assert scores["AE + k-means"]["nmi"] == pytest.approx(expected, abs=0.05)
    # Neither the initialisation nor DEC affects it.
    others = result._replace(initial=result.initial._replace(labels=Y), labels=Y)
    again = score_methods(jax.random.key(1), DATASET, CONFIG, others)
    assert again["AE + k-means"] == scores["AE + k-means"]
    assert again["DEC initialisation"]["acc"] == again["DEC"]["acc"] == 1


def test_the_key_of_the_baselines_is_not_one_that_fit_derives():
    keys = jax.random.split(jax.random.key(3), 1000)
    derived = [keys, *(jax.random.split(key, 50) for key in keys[:4])]
    derived = {tuple(data) for part in derived for data in jax.random.key_data(part).tolist()}
    assert tuple(jax.random.key_data(jax.random.fold_in(jax.random.key(3), 1)).tolist()) in derived
    key, scoring_key = seed_keys(np.uint32(3))
    assert key == jax.random.key(3)
    assert tuple(jax.random.key_data(scoring_key).tolist()) not in derived


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
def test_the_key_of_a_seed_is_that_of_jax(seed):
    assert seed_keys(np.uint32(seed))[0] == jax.random.key(seed)


def test_without_classes_there_are_no_scores(tmp_path, result):
    metrics = write(tmp_path, result, dataclasses.replace(DATASET, y=None))
    assert metrics["scores"] is None
    assert files(tmp_path) == FILES


def test_without_intervals_there_is_no_label_change(tmp_path, result):
    history = [record for record in result.history if not record.get("interval")]
    assert history[-1]["phase"] == "clustering"
    metrics = write(tmp_path, result._replace(history=history, n_intervals=0))
    assert (metrics["n_intervals"], metrics["label_change"]) == (0, None)


@pytest.mark.parametrize(
    ("image_shape", "drawn"),
    [
        ((8, 8), True),
        ((8, 8, 1), True),
        ((4, 16), True),
        ((8, 4, 2), False),  # neither grey nor coloured
        (None, False),
    ],
)
def test_pictures(tmp_path, result, image_shape, drawn):
    config = CONFIG.replace({"image_shape": image_shape})
    write(tmp_path, result, config=config)
    expected = FILES + ["top_samples.png"] * drawn
    assert files(tmp_path) == sorted(expected)
    for name in expected:
        if name.endswith(".png"):
            picture = matplotlib.image.imread(tmp_path / name)
            assert picture.shape[0] > 100
            assert picture.shape[1] > 100
            assert picture[..., :3].std() > 0.01


def test_coloured_images_are_drawn(tmp_path, result):
    x = np.abs(DATASET.x[:, :48])
    dataset = dataclasses.replace(DATASET, x=x)
    write(tmp_path, result, dataset, CONFIG.replace({"image_shape": (4, 4, 3)}))
    assert (tmp_path / "top_samples.png").exists()


def test_results_are_replaced_atomically(tmp_path, result):
    write(tmp_path, result)
    (tmp_path / "labels.npy").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("kept")
    write(tmp_path, result)
    assert files(tmp_path) == sorted([*FILES, "notes.txt"])
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), result.labels)
