import copy
import io
import pickle
import subprocess
import sys
import warnings

import jax
import joblib
import numpy as np
import pandas as pd
import pytest
import quick
import skops.io
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_array_api_input, parametrize_with_checks

from jdec.estimator import DEC
from jdec.trainer import EmptyClusterWarning, load_model, preset_config, save_model
from jdec.trainer.config import Config
from jdec.trainer.fit import fit

X, Y = (array[:120] for array in load_digits(return_X_y=True))
SMALL = {
    "hidden_dims": (8,),
    "latent_dim": 2,
    "pretrain_steps": 60,
    "update_interval": 10,
    "max_intervals": 3,
    # What compiles quickly.
    "settings": {"kmeans.overclustering_factors": (1,), "kmeans.select": "inertia"},
    "random_state": 0,
}


def small(n_clusters=4, **changes):
    return DEC(n_clusters, **SMALL | {"tol": 0.0} | changes)


@pytest.fixture(scope="module")
def fitted():
    """Return an estimator that no test changes."""
    return small().fit(X)


# scikit-learn's own checks.

ARRAY_API = """
import sys
from sklearn.utils.estimator_checks import check_array_api_input
from jdec import DEC

settings, keywords = (eval(text) for text in sys.argv[1:])
check_array_api_input("DEC", DEC(3, **settings), **keywords)
"""


@parametrize_with_checks([DEC(3, **SMALL)])
def test_scikit_learn_checks(estimator, check):
    if check.func is check_array_api_input:
        # It asks for a variable that SciPy reads when it is imported.
        subprocess.run(
            [sys.executable, "-c", ARRAY_API, repr(SMALL), repr(check.keywords)],
            env=quick.environment(SCIPY_ARRAY_API="1"),
            check=True,
        )
    else:
        check(estimator)


# What it says about the rows it was fitted to.


def test_attributes_and_methods_agree(fitted):
    q = fitted.predict_proba(X)
    assert q.shape == (120, 4)
    np.testing.assert_allclose(q.sum(axis=1), 1, rtol=1e-5)
    for labels in (fitted.labels_, fitted.predict(X)):
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, q.argmax(axis=1))
    assert fitted.transform(X).tobytes() == fitted.embedding_.tobytes()
    assert fitted.embedding_.shape == (120, 2)
    assert fitted.cluster_centers_.shape == (4, 2)
    np.testing.assert_array_equal(fitted.cluster_centers_, fitted.model_.centroids)
    assert fitted.n_features_in_ == 64
    assert (fitted.n_iter_, fitted.stop_reason_) == (3, "max_intervals")
    assert fitted.history_[-1]["interval"] == 3
    assert len(np.unique(fitted.labels_)) > 1


def test_a_single_row_gets_the_label_it_has_among_all(fitted):
    for row in (0, 50, 119):
        one = X[row : row + 1]
        assert fitted.predict(one)[0] == fitted.labels_[row]
        assert fitted.transform(one).tobytes() == fitted.embedding_[row].tobytes()


def test_fitting_in_one_call_is_fitting_and_predicting(fitted):
    np.testing.assert_array_equal(small().fit_predict(X), fitted.labels_)
    assert small().fit_transform(X).tobytes() == fitted.embedding_.tobytes()
    estimator = small()
    assert estimator.fit(X) is estimator


def test_classes_are_ignored(fitted):
    for y in (Y, Y[::-1], ["a"] * 120):
        estimator = small().fit(X, y)
        np.testing.assert_array_equal(estimator.predict_proba(X), fitted.predict_proba(X))
        assert "acc" not in estimator.history_[-1]
        np.testing.assert_array_equal(small().fit_predict(X, y), fitted.labels_)


def test_it_is_the_function_fit(fitted):
    config = preset_config("fast", n_clusters=4, n_rows=120).replace(
        {
            "network.hidden_dims": (8,),
            "network.latent_dim": 2,
            "pretrain.finetune_steps": 60,
            "clustering.update_interval": 10,
            "clustering.max_intervals": 3,
            "clustering.tol": 0.0,
            **SMALL["settings"],
        }
    )
    assert fitted.model_.config == config
    result = fit(jax.random.key(0), X, config, y=Y)
    assert result.embedding.tobytes() == fitted.embedding_.tobytes()
    np.testing.assert_array_equal(result.labels, fitted.labels_)
    whole = DEC(4, config=config, random_state=0).fit(X)
    assert whole.embedding_.tobytes() == fitted.embedding_.tobytes()


# Settings.


def test_arguments_reach_the_configuration():
    given = {
        "hidden_dims": (7, 6),
        "latent_dim": 5,
        "pretrain_steps": 11,
        "update_interval": 12,
        "max_intervals": 13,
        "alpha": 1.5,
        "tol": 0.25,
        "scaling": "minmax",
        "image_shape": (8, 8),
        "settings": {"kmeans.n_init": 3, "clustering.optimizer.learning_rate": 0.5},
    }
    config = DEC(9, preset="paper", **given)._config(100)
    expected = preset_config("paper", n_clusters=9, n_rows=100).replace(
        {
            "network.hidden_dims": (7, 6),
            "network.latent_dim": 5,
            "pretrain.finetune_steps": 11,
            "clustering.update_interval": 12,
            "clustering.max_intervals": 13,
            "clustering.alpha": 1.5,
            "clustering.tol": 0.25,
            "scaling": "minmax",
            "image_shape": (8, 8),
            "kmeans.n_init": 3,
            "clustering.optimizer.learning_rate": 0.5,
        }
    )
    assert config == expected


def test_what_is_not_given_is_the_presets():
    for preset in ("fast", "paper"):
        config = DEC(5, preset=preset)._config(10_000)
        assert config == preset_config(preset, n_clusters=5, n_rows=10_000)


def test_zero_is_a_value_and_not_the_absence_of_one():
    config = DEC(5, tol=0.0, max_intervals=0, pretrain_steps=0)._config(100)
    assert config.clustering.tol == 0
    assert config.clustering.max_intervals == 0
    assert config.pretrain.finetune_steps == 0


def test_a_whole_configuration_has_its_own_number_of_clusters(fitted):
    # That of the argument would be more than there are rows.
    estimator = DEC(1000, config=fitted.model_.config, random_state=0).fit(X)
    assert estimator.embedding_.tobytes() == fitted.embedding_.tobytes()


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_numpy_will_do(fitted):
    changes = {"latent_dim": np.int64(2), "tol": np.float32(0), "random_state": np.int64(0)}
    estimator = small(np.int64(4), **changes, hidden_dims=np.array([8])).fit(X)
    np.testing.assert_array_equal(estimator.labels_, fitted.labels_)


def test_the_seed_decides(fitted):
    other = small(random_state=1).fit(X)
    assert other.embedding_.tobytes() != fitted.embedding_.tobytes()
    states = [np.random.RandomState(5), np.random.RandomState(5), np.random.RandomState(6)]
    one, same, another = (small(random_state=state).fit(X).embedding_ for state in states)
    assert one.tobytes() == same.tobytes()
    assert one.tobytes() != another.tobytes()


def test_without_a_seed_every_fit_is_another():
    keys = [jax.random.key_data(small(random_state=None)._key()).tolist() for _ in range(3)]
    assert len({str(key) for key in keys}) == 3


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({"n_clusters": 0}, "n_clusters: expected an integer >= 1, got 0"),
        ({"n_clusters": 2.0}, "n_clusters: expected an integer >= 1, got 2.0"),
        ({"n_clusters": "3"}, "n_clusters: expected an integer >= 1, got '3'"),
        ({"n_clusters": 121}, "got n_clusters=121 for n_samples=120"),
        ({"preset": "slow"}, "preset: expected one of paper, fast; got 'slow'"),
        ({"hidden_dims": 8}, "hidden_dims: expected a list of integers, got 8"),
        ({"hidden_dims": (8, 0)}, "hidden_dims: expected an integer >= 1, got 0"),
        ({"latent_dim": 0}, "latent_dim: expected an integer >= 1, got 0"),
        ({"pretrain_steps": -1}, "finetune_steps: expected an integer >= 0, got -1"),
        ({"update_interval": 0}, "update_interval: expected an integer >= 1, got 0"),
        ({"max_intervals": -1}, "max_intervals: expected an integer >= 0, got -1"),
        ({"alpha": 0}, "alpha: expected a finite number > 0, got 0"),
        ({"alpha": "1"}, "alpha: expected a finite number > 0, got '1'"),
        ({"tol": -1e-3}, "tol: expected a finite number >= 0, got -0.001"),
        ({"scaling": "max"}, "scaling: expected one of rms, standard, minmax, none; got 'max'"),
        ({"image_shape": (8, 9)}, "image_shape: expected 64 entries as x has columns"),
        ({"settings": {"clustering.beta": 1}}, "unknown config field 'clustering.beta'"),
        ({"settings": {"kmeans.n_init": 0}}, "n_init: expected an integer >= 1, got 0"),
        ({"random_state": -1}, "random_state: expected an integer >= 0, got -1"),
        ({"random_state": 2**32}, "random_state: expected an integer below 2**32"),
        (
            {"random_state": "zero"},
            "RandomState or None, got 'zero'",
        ),
    ],
)
def test_bad_settings_are_refused_when_fitting(changes, needed):
    estimator = small(**changes)  # never in the constructor
    with pytest.raises(ValueError, match=r".") as caught:
        estimator.fit(X)
    assert needed in str(caught.value)
    assert not hasattr(estimator, "labels_")


# scikit-learn's company.


def test_clones_have_the_same_settings_and_no_result(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "labels_")
    assert copy.fit(X).embedding_.tobytes() == fitted.embedding_.tobytes()
    copy.set_params(n_clusters=3, latent_dim=3)
    assert (copy.get_params()["n_clusters"], copy._config(99).network.latent_dim) == (3, 3)


def test_a_refit_forgets_the_first_fit(fitted):
    estimator = small().fit(X[::-1])
    assert estimator.embedding_.tobytes() != fitted.embedding_.tobytes()
    estimator.fit(X)
    assert estimator.embedding_.tobytes() == fitted.embedding_.tobytes()
    assert len(estimator.history_) == len(fitted.history_)


def test_it_is_a_step_of_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), small(scaling="none"))
    labels = pipeline.fit_predict(X)
    np.testing.assert_array_equal(labels, pipeline.predict(X))
    scaled = StandardScaler().fit_transform(X)
    np.testing.assert_array_equal(labels, small(scaling="none").fit_predict(scaled))
    assert pipeline.transform(X).shape == (120, 2)
    assert list(pipeline.get_feature_names_out()) == ["dec0", "dec1"]
    assert pipeline.set_params(dec__n_clusters=3)[-1].n_clusters == 3


@pytest.fixture(scope="module")
def frame():
    names = [f"pixel {i}" for i in range(64)]
    return pd.DataFrame(X, columns=names, index=np.arange(120) + 7)


def test_data_frames_are_read_by_their_names(fitted, frame):
    estimator = small().fit(frame)
    assert estimator.embedding_.tobytes() == fitted.embedding_.tobytes()
    assert estimator.feature_names_in_.tolist() == frame.columns.tolist()
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(frame.rename(columns={"pixel 3": "other"}))
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(frame[frame.columns[::-1]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        estimator.predict(X)


def test_data_frames_of_numbered_columns_are_put_in_order(fitted):
    """Of which scikit-learn's check knows nothing."""
    turned = pd.DataFrame(X).iloc[:, ::-1]
    np.testing.assert_array_equal(fitted.predict(turned), fitted.labels_)
    numbered = turned.set_axis(range(100, 164), axis=1)
    estimator = small().fit(numbered)
    np.testing.assert_array_equal(estimator.predict(numbered.iloc[:, ::-1]), estimator.labels_)
    with pytest.raises(ValueError, match="unexpected: '99'"):
        estimator.predict(numbered.set_axis(range(99, 163), axis=1))


def test_embeddings_can_be_data_frames(frame):
    estimator = small().set_output(transform="pandas")
    embedding = estimator.fit_transform(frame)
    assert embedding.columns.tolist() == ["dec0", "dec1"]
    assert embedding.index.tolist() == frame.index.tolist()
    np.testing.assert_array_equal(embedding.to_numpy(), estimator.embedding_)


def test_nothing_is_said_before_fitting():
    for method in ("predict", "predict_proba", "transform", "inverse_transform"):
        with pytest.raises(NotFittedError):
            getattr(small(), method)(X)
    with pytest.raises(NotFittedError):
        small().save("never")


@pytest.mark.parametrize("method", ["predict", "predict_proba", "transform"])
def test_rows_of_another_width_are_refused(fitted, method):
    for rows in (X[:, :-1], np.zeros((2, 65))):
        with pytest.raises(ValueError, match=r"X has 6[35] features, but DEC is expecting 64"):
            getattr(fitted, method)(rows)
    with pytest.raises(ValueError, match="NaN"):
        getattr(fitted, method)(np.full((2, 64), np.nan))


def by_skops(estimator):
    content = skops.io.dumps(estimator)
    return skops.io.loads(content, trusted=skops.io.get_untrusted_types(data=content))


def by_joblib(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize(
    "copied", [lambda dec: pickle.loads(pickle.dumps(dec)), copy.deepcopy, by_joblib, by_skops]
)
def test_it_can_be_pickled(fitted, copied):
    assert copied(fitted).predict_proba(X).tobytes() == fitted.predict_proba(X).tobytes()


def test_what_a_fit_leaves_is_of_the_host():
    def arrays(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list | tuple):
            return [array for part in value for array in arrays(part)]
        return [value] if hasattr(value, "dtype") else []

    found = arrays(vars(small().fit(X)))
    assert len(found) > 8
    assert all(type(array) is np.ndarray for array in found)


def test_empty_clusters_are_warned_of():
    with pytest.warns(EmptyClusterWarning, match="of 4 clusters are empty: "):
        small().fit(np.repeat(X[[0, 40, 90]], 40, axis=0))


def test_a_healthy_fit_is_silent(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small().fit(X)
    assert capfd.readouterr() == ("", "")
    small(verbose=True).fit(X)
    assert "clustering: 100%" in capfd.readouterr().err


# Files.


def test_a_saved_estimator_comes_back(tmp_path, fitted, frame):
    path = tmp_path / "dec.npz"
    for estimator, rows in ((fitted, X), (small().fit(frame), frame)):
        estimator.save(path)
        loaded = DEC.load(str(path))
        assert isinstance(loaded, DEC)
        for name in ("labels_", "embedding_", "cluster_centers_"):
            one, other = getattr(loaded, name), getattr(estimator, name)
            assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())
        for name in ("n_iter_", "stop_reason_", "history_", "n_features_in_"):
            assert getattr(loaded, name) == getattr(estimator, name)
        for method in ("predict", "predict_proba", "transform"):
            one, other = (getattr(dec, method)(rows) for dec in (loaded, estimator))
            assert (one.dtype, one.tobytes()) == (other.dtype, other.tobytes())
        names = getattr(estimator, "feature_names_in_", None)
        assert (names is None) == (not hasattr(loaded, "feature_names_in_"))
        if names is not None:
            assert loaded.feature_names_in_.tolist() == names.tolist()
    assert [p.name for p in tmp_path.iterdir()] == ["dec.npz"]
    assert load_model(path)[0].config == fitted.model_.config


def test_a_loaded_estimator_can_be_fitted_with_the_same_settings(tmp_path, fitted):
    fitted.save(tmp_path / "dec.npz")
    loaded = DEC.load(tmp_path / "dec.npz").set_params(random_state=0)
    assert loaded.get_params()["config"] == fitted.model_.config
    assert loaded.n_clusters == 4
    assert loaded.fit(X).embedding_.tobytes() == fitted.embedding_.tobytes()


def test_files_that_are_no_models_are_refused(tmp_path):
    (tmp_path / "text").write_text("no model")
    for name in ("absent", "text", "."):
        with pytest.raises(ValueError, match="model: ") as caught:
            DEC.load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("predict", "not a method"),
        ("workdir", "/tmp/elsewhere"),
        ("config", {}),
        ("_validate", 1),
        ("__class__", "dict"),
        ("model_", [1]),
        ("labels_", "text"),
        ("history_", 3),
        ("n_iter_", [1]),
    ],
)
def test_nothing_but_results_is_taken_from_a_file(tmp_path, fitted, name, value):
    path = tmp_path / "dec.npz"
    save_model(path, fitted.model_, {name: value})
    with pytest.raises(ValueError, match=f"model: .* is damaged or not .* got '{name}'"):
        DEC.load(path)


def test_the_model_of_a_sweep_is_loaded_and_saved(tmp_path, fitted):
    save_model(tmp_path / "model.npz", fitted.model_)
    loaded = DEC.load(tmp_path / "model.npz")
    assert not hasattr(loaded, "labels_")
    loaded.save(tmp_path / "copy.npz")
    copied = DEC.load(tmp_path / "copy.npz")
    assert copied.predict(X).tolist() == fitted.predict(X).tolist()


def test_a_file_of_the_command_line_keeps_its_names(tmp_path, fitted):
    names = tuple(f"pixel {i}" for i in range(64))
    save_model(tmp_path / "model.npz", fitted.model_._replace(feature_names=names))
    assert tuple(DEC.load(tmp_path / "model.npz").feature_names_in_) == names


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch, fitted):
    monkeypatch.setenv("HOME", str(tmp_path))
    fitted.save("~/dec.npz")
    assert (tmp_path / "dec.npz").exists()
    assert DEC.load("~/dec.npz").predict(X).tolist() == fitted.predict(X).tolist()
    small(workdir="~/run").fit(X)
    assert (tmp_path / "run" / "run.json").exists()


def test_a_workdir_is_of_one_fit_and_says_so_at_once(tmp_path):
    estimator = small(workdir=tmp_path / "run").fit(X)
    with pytest.raises(ValueError, match="GridSearchCV, needs workdir=None"):
        estimator.fit(None)  # before the rows are looked at


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"n_clusters": 2}}, "config: expected a jdec.Config, got dict"),
        ({"config": "config.json"}, "config: expected a jdec.Config, got str"),
        ({"settings": ["kmeans.n_init"]}, "settings: expected a mapping"),
        ({"workdir": 3}, "workdir: expected a path"),
    ],
)
def test_arguments_of_another_type_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes).fit(X)


def test_a_workdir_lets_a_fit_be_resumed(tmp_path, fitted):
    changes = {"workdir": tmp_path / "run"}
    small(**changes).fit(X)
    with pytest.raises(ValueError, match="already holds a run"):
        small(**changes).fit(X)
    resumed = small(**changes, resume=True).fit(X)
    assert resumed.embedding_.tobytes() == fitted.embedding_.tobytes()
    with pytest.raises(ValueError, match="data digest"):
        small(**changes, resume=True).fit(X[::-1])


def test_the_configuration_of_a_fit_is_a_plain_one(fitted):
    assert Config.from_json(fitted.model_.config.to_json()) == fitted.model_.config


def test_rows_may_be_streamed(tmp_path):
    """As those of a memory-mapped file."""
    np.save(tmp_path / "x.npy", X)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    labels = [small(rows=rows).fit_predict(stored) for rows in ("stream", "device")]
    np.testing.assert_array_equal(*labels)
