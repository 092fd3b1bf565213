import dataclasses
import io
import json
import os
import pickle
import zipfile

import jax
import numpy as np
import pytest

from jdec.core.autoencoder import FunctionalAutoencoder
from jdec.trainer import Model, assign, load_model, save_model
from jdec.trainer.config import Config
from jdec.trainer.programs import BLOCK_SIZE, build_network
from jdec.trainer.scaling import Scaling

pytestmark = pytest.mark.usefixtures("full_compilation")

D, K, Z = 6, 3, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, D)).astype(np.float32)


def make_model(hidden_dims=(5,), **changes):
    config = Config(K).replace({"network.hidden_dims": hidden_dims, "network.latent_dim": Z})
    config = config.replace({"clustering.alpha": 0.7, **changes})
    network = build_network(config)
    params = network.encoder_params(network.init(jax.random.key(1), D))
    rng = np.random.default_rng(1)
    shift, factor = rng.normal(size=(2, D)).astype(np.float32)
    centroids = rng.normal(size=(K, Z)).astype(np.float32)
    return Model(Scaling(shift, factor), params, centroids, config)


@pytest.fixture(scope="module")
def model():
    return make_model()


def same_model(one, other):
    leaves = zip(jax.tree.leaves(one[:3]), jax.tree.leaves(other[:3]), strict=True)
    return (
        jax.tree.structure(one[:3]) == jax.tree.structure(other[:3])
        and one.config == other.config
        and all(
            np.asarray(a).dtype == np.asarray(b).dtype
            and np.asarray(a).tobytes() == np.asarray(b).tobytes()
            for a, b in leaves
        )
    )


def files(folder):
    return sorted(path.name for path in folder.iterdir())


# Assigning rows.


def test_assign_is_the_formula(model):
    z = (X - model.scaling.shift) * model.scaling.factor
    for layer in ("encoder_0", "encoder_1"):
        leaves = {name: np.asarray(leaf) for name, leaf in model.params[layer].items()}
        z = z @ leaves["kernel"] + leaves["bias"]
        z = np.maximum(z, 0) if layer == "encoder_0" else z
    distances = ((z[:, None] - model.centroids) ** 2).sum(axis=-1)
    weights = (1 + distances / 0.7) ** -0.85
    embedding, q = assign(model, X)
    np.testing.assert_allclose(embedding, z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(q, weights / weights.sum(axis=1, keepdims=True), rtol=1e-4)
    assert (embedding.shape, q.shape) == ((20, Z), (20, K))
    assert (embedding.dtype, q.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("n_rows", [1, 2, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1])
def test_a_row_does_not_depend_on_the_rows_around_it(model, n_rows):
    rows = np.random.default_rng(n_rows).normal(size=(n_rows, D)).astype(np.float32)
    embedding, q = assign(model, rows)
    assert (embedding.shape, q.shape) == ((n_rows, Z), (n_rows, K))
    for row in {0, n_rows // 2, n_rows - 1}:
        one_embedding, one_q = assign(model, rows[row : row + 1])
        assert one_embedding.tobytes() == embedding[row].tobytes()
        assert one_q.tobytes() == q[row].tobytes()
    backwards, _ = assign(model, rows[::-1])
    assert backwards[::-1].tobytes() == embedding.tobytes()


def test_rows_in_another_form_give_the_same_bits(model):
    expected = [array.tobytes() for array in assign(model, X)]
    for rows in (X.astype(np.float64), X.tolist(), np.asfortranarray(X), jax.numpy.asarray(X)):
        assert [array.tobytes() for array in assign(model, rows)] == expected


@pytest.mark.parametrize(
    ("rows", "needed"),
    [
        (X[:, :-1], "X has 5 features, but the model is expecting 6 features"),
        (np.zeros((3, 7)), "X has 7 features, but the model is expecting 6 features"),
        (X[0], "Expected 2D array"),
        (X[:0], "expected at least one row"),
        ([["a"] * D], "x: expected numbers, got dtype"),
        (np.where(np.arange(20)[:, None] == 7, np.nan, X), "got NaN in row 7"),
        (np.full((2, D), 3e38), "expected values that stay finite in float32 when scaled"),
    ],
)
def test_bad_rows_are_refused(model, rows, needed):
    scaling = Scaling(model.scaling.shift, np.full(D, 9, np.float32))
    with pytest.raises(ValueError, match=r"(?i)expect") as caught:
        assign(model._replace(scaling=scaling), rows)
    assert needed in str(caught.value)


# To and from a file.


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("hidden_dims", [(), (5,), (4, 3, 7)])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, hidden_dims, as_text):
    model = make_model(hidden_dims, image_shape=(2, 3))
    path = tmp_path / "model.npz"
    extra = {"labels": np.arange(4, dtype=np.int32), "why": "tol", "n": 3, "nothing": None}
    save_model(str(path) if as_text else path, model, extra)
    loaded, kept = load_model(str(path) if as_text else path)
    assert same_model(loaded, model)
    assert not same_model(loaded, make_model((5, 5)))
    for one, other in zip(assign(loaded, X), assign(model, X), strict=True):
        assert one.tobytes() == other.tobytes()
    assert kept.pop("labels").tolist() == [0, 1, 2, 3]
    assert kept == {"why": "tol", "n": 3, "nothing": None}


def test_extra_may_be_left_out(tmp_path, model):
    save_model(tmp_path / "model", model)
    loaded, kept = load_model(tmp_path / "model")
    assert same_model(loaded, model)
    assert kept == {}
    assert files(tmp_path) == ["model"]  # np.savez would have added .npz


def test_nothing_in_the_file_is_a_pickle(tmp_path, model):
    save_model(tmp_path / "model.npz", model, {"labels": np.arange(3), "history": [{"a": 1}]})
    with np.load(tmp_path / "model.npz", allow_pickle=False) as stored:
        assert all(stored[name].dtype.kind != "O" for name in stored.files)


def test_a_model_is_replaced_as_a_whole(tmp_path, model):
    path = tmp_path / "model.npz"
    path.write_text("something else")
    save_model(path, model)
    other = make_model((4, 3))
    save_model(path, other)
    assert same_model(load_model(path)[0], other)
    assert files(tmp_path) == ["model.npz"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_model_is_as_readable_as_any_file(tmp_path, model):
    save_model(tmp_path / "model.npz", model)
    (tmp_path / "other").touch()
    assert (tmp_path / "model.npz").stat().st_mode == (tmp_path / "other").stat().st_mode


# Failing to write.


@pytest.mark.parametrize("there_before", [True, False])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_nothing_half_written(
    tmp_path, model, monkeypatch, there_before, error
):
    path = tmp_path / "model.npz"
    if there_before:
        save_model(path, model)
    before = path.read_bytes() if there_before else None

    def write_array(file, array, **options):
        file.write(b"\x93NUMPY and then")
        raise error

    monkeypatch.setattr(np.lib.format, "write_array", write_array)
    if isinstance(error, OSError):
        with pytest.raises(ValueError, match=r"cannot write .*: No space left on") as caught:
            save_model(path, make_model((4, 3)))
        assert str(path) in str(caught.value)
    else:
        with pytest.raises(KeyboardInterrupt):
            save_model(path, make_model((4, 3)))
    assert files(tmp_path) == (["model.npz"] if there_before else [])
    if there_before:
        assert path.read_bytes() == before


@pytest.mark.parametrize("place", ["absent/model.npz", "file/model.npz", "folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, model, place):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="model: cannot write") as caught:
        save_model(tmp_path / place, model)
    assert str(tmp_path / place) in str(caught.value)
    assert files(tmp_path) == ["file", "folder"]
    assert files(tmp_path / "folder") == []


# Failing to read.


def refused(path, *needed):
    with pytest.raises(ValueError, match="model: ") as caught:
        load_model(path)
    message = str(caught.value)
    for text in (str(path), *needed):
        assert text in message
    return message


def test_missing_files_are_named(tmp_path):
    refused(tmp_path / "absent.npz", "no file", "fit one first")
    refused(tmp_path / "far" / "absent.npz", "no file")
    refused(tmp_path, "damaged or not a jdec model")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file" / "below", "damaged or not a jdec model")


def npy(array, **kwargs):
    buffer = io.BytesIO()
    np.save(buffer, array, **kwargs)
    return buffer.getvalue()


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


FOREIGN = {
    "empty": b"",
    "text": b"no model",
    "a plain array": npy(np.zeros(3)),
    "a pickle": pickle.dumps(Bomb()),
    "a pickled array": npy(np.array([Bomb()], dtype=object), allow_pickle=True),
    "a pickled npz": npz(header=np.array([Bomb()], dtype=object)),
    "another npz": npz(x=np.zeros(3), y=np.zeros(3)),
    "a header that is no JSON": npz(header=np.array("{")),
    "a header that is no object": npz(header=np.array("[]")),
    "a header of numbers": npz(header=np.arange(3)),
    "another format": npz(header=np.array('{"format": "jdec model 0"}')),
    "no content": npz(header=np.array('{"format": "jdec model 1", "extra": {}, "arrays": []}')),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_refused(tmp_path, name):
    path = tmp_path / "model.npz"
    path.write_bytes(FOREIGN[name])
    refused(path, "is damaged or not a jdec model")


def test_truncated_files_are_refused(tmp_path, model):
    path = tmp_path / "model.npz"
    save_model(path, model)
    content = path.read_bytes()
    for length in (*range(0, len(content), 97), len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, "is damaged or not a jdec model")


def test_no_flipped_bit_gives_another_model(tmp_path, model):
    path = tmp_path / "model.npz"
    save_model(path, model, {"labels": np.arange(4), "why": "tol"})
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    # The table of contents at the end is where the archive itself checks least.
    end = content.index(b"PK\1\2")
    refusals = 0
    for position in {*range(end, len(content)), *rng.integers(0, end, 400).tolist()}:
        flipped = bytearray(content)
        flipped[position] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            loaded, extra = load_model(path)
        except ValueError:
            refusals += 1
        else:
            assert same_model(loaded, model), position
            assert extra["labels"].tolist() == [0, 1, 2, 3], position
            assert extra["why"] == "tol"
    assert refusals > 300


def rewrite(path, change):
    """Apply ``change(header, arrays)`` to a saved model."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    header = json.loads(str(arrays.pop("header")))
    change(header, arrays)
    header["arrays"] = list(arrays)
    path.write_bytes(npz(header=np.array(json.dumps(header)), **arrays))


CHANGES = {
    "kernel": lambda h, a: a.update({"params/encoder_0/kernel": np.zeros((D, 4))}),
    "later kernel": lambda h, a: a.update({"params/encoder_1/kernel": np.zeros((4, Z))}),
    "bias": lambda h, a: a.update({"params/encoder_0/bias": np.zeros(4)}),
    "no bias": lambda h, a: a.pop("params/encoder_1/bias"),
    "no layer": lambda h, a: [a.pop(f"params/encoder_1/{name}") for name in ("kernel", "bias")],
    "no kernel": lambda h, a: a.pop("params/encoder_0/kernel"),
    "flat kernel": lambda h, a: a.update({"params/encoder_0/kernel": np.zeros(D)}),
    "no centroids": lambda h, a: a.pop("centroids"),
    "centroids": lambda h, a: a.update({"centroids": np.zeros((K + 1, Z))}),
    "wide centroids": lambda h, a: a.update({"centroids": np.zeros((K, Z + 1))}),
    "no shift": lambda h, a: a.pop("scaling/shift"),
    "shift": lambda h, a: a.update({"scaling/shift": np.zeros(D + 1)}),
    "factor": lambda h, a: a.update({"scaling/factor": np.zeros(D + 1)}),
    "clusters": lambda h, a: h["config"].update(n_clusters=K + 1),
    "width": lambda h, a: h["config"]["network"].update(hidden_dims=[7]),
    "depth": lambda h, a: h["config"]["network"].update(hidden_dims=[5, 5]),
    "latent": lambda h, a: h["config"]["network"].update(latent_dim=Z + 1),
    "setting": lambda h, a: h["config"]["clustering"].update(alpha=-1),
    "unknown setting": lambda h, a: h["config"].update(beta=1),
    "no config": lambda h, a: h.pop("config"),
    "config": lambda h, a: h.update(config=[1]),
    "extra": lambda h, a: h.update(extra=[1]),
    "no format": lambda h, a: h.pop("format"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_contents_that_do_not_fit_together_are_refused(tmp_path, model, name):
    path = tmp_path / "model.npz"
    save_model(path, model)
    rewrite(path, lambda header, arrays: None)
    assert same_model(load_model(path)[0], model)
    rewrite(path, CHANGES[name])
    refused(path, "is damaged or not a jdec model")


def test_a_missing_array_is_named(tmp_path, model):
    path = tmp_path / "model.npz"
    save_model(path, model, {"labels": np.arange(3)})
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    del members["extra/labels.npy"]
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)
    refused(path, "extra/labels")


def test_sizes_are_told(tmp_path, model):
    path = tmp_path / "model.npz"
    save_model(path, model)
    rewrite(path, CHANGES["width"])
    refused(path, "expected shape (7,) in params.encoder_0.bias, got (5,)")
    save_model(path, model)
    rewrite(path, CHANGES["centroids"])
    refused(path, "expected shape (3, 2) in centroids, got (4, 2)")


def test_the_config_is_kept_whole(tmp_path, model):
    save_model(tmp_path / "model.npz", model)
    config = load_model(tmp_path / "model.npz")[0].config
    assert dataclasses.asdict(config) == dataclasses.asdict(model.config)


# Methods.


def test_methods_are_those_of_scikit_learn(model):
    embedding, q = assign(model, X)
    assert model.transform(X).tobytes() == embedding.tobytes()
    assert model.predict_proba(X).tobytes() == q.tobytes()
    labels = model.predict(X)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, q.argmax(axis=1))


def with_decoder():
    """Return a model that was trained with its decoder."""
    model = make_model()
    params = build_network(model.config).init(jax.random.key(1), D)
    return model._replace(params=params, has_decoder=True)


def test_rows_are_reconstructed_in_the_units_of_the_data():
    model = with_decoder()
    z = np.random.default_rng(0).normal(size=(7, Z)).astype(np.float32)
    layers = {name: jax.tree.map(np.asarray, layer) for name, layer in model.params.items()}
    first, last = layers["decoder_1"], layers["decoder_0"]
    hidden = np.maximum(z @ first["kernel"] + first["bias"], 0)
    expected = (hidden @ last["kernel"] + last["bias"]) / model.scaling.factor + model.scaling.shift
    found = model.inverse_transform(z)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.inverse_transform(z.tolist()), found)


@pytest.mark.parametrize(
    ("z", "message"),
    [
        (np.zeros((3, Z + 1)), "embeddings: expected 2 columns, got 3"),
        (np.full((3, Z), np.nan), "embeddings: expected finite numbers, got NaN in row 0"),
        (np.zeros(Z), "Expected 2D array"),
    ],
)
def test_bad_embeddings_are_refused(z, message):
    with pytest.raises(ValueError, match=message):
        with_decoder().inverse_transform(z)


def test_a_model_without_its_decoder_reconstructs_nothing(model):
    with pytest.raises(ValueError, match=r"trained with its decoder, .*reconstruction_weight"):
        model.inverse_transform(np.zeros((1, Z)))


def test_a_decoder_is_saved(tmp_path):
    model = with_decoder()
    save_model(tmp_path / "model.npz", model)
    loaded, _ = load_model(tmp_path / "model.npz")
    assert loaded.has_decoder
    assert same_model(loaded, model)
    z = np.ones((2, Z), np.float32)
    assert loaded.inverse_transform(z).tobytes() == model.inverse_transform(z).tobytes()
    rewrite(tmp_path / "model.npz", lambda header, arrays: header.update(has_decoder=False))
    refused(tmp_path / "model.npz", "unexpected array: params.decoder_")


# Networks that are not built in.


def linear_init(key, n_features):
    return {"down": jax.random.normal(key, (n_features, Z)), "shift": jax.numpy.zeros((1, Z))}


def linear_encode(params, x):
    return x @ params["down"] + params["shift"]


def linear_decode(params, z):
    return (z - params["shift"]) @ params["down"].T


LINEAR = FunctionalAutoencoder(linear_init, linear_encode, linear_decode)


def narrow_init(key, n_features):
    return linear_init(key, n_features) | {"shift": jax.numpy.zeros((1, 1))}


def more_init(key, n_features):
    return linear_init(key, n_features) | {"unused": jax.numpy.zeros(3)}


def without_shift_init(key, n_features):
    return {"down": jax.random.normal(key, (n_features, Z))}


OTHERS = {
    "another shape": (
        FunctionalAutoencoder(narrow_init, linear_encode, linear_decode),
        "expected shape (1, 1) in params.shift, got (1, 2)",
    ),
    "an array more": (
        FunctionalAutoencoder(more_init, linear_encode, linear_decode),
        "missing array: params.unused",
    ),
    "an array less": (
        FunctionalAutoencoder(
            without_shift_init, lambda w, x: x @ w["down"], lambda w, z: z @ w["down"].T
        ),
        "unexpected array: params.shift",
    ),
    "another latent width": (
        FunctionalAutoencoder(
            linear_init, lambda w, x: linear_encode(w, x)[:, :1], lambda w, z: z @ w["down"].T[:1]
        ),
        "expected shape (3, 1) in centroids, got (3, 2)",
    ),
}


def own_model():
    params = linear_init(jax.random.key(0), D)
    return make_model()._replace(params=params, network=LINEAR, has_decoder=True)


def test_a_model_of_an_own_network_needs_it_to_be_loaded(tmp_path):
    path = tmp_path / "model.npz"
    model = own_model()
    save_model(path, model)
    message = refused(path, "was trained with a network that is not built in", "linear_init")
    assert message.endswith("pass it as network=")
    assert "\n" not in message
    loaded, _ = load_model(path, network=LINEAR)
    assert loaded.network == LINEAR
    assert same_model(loaded, model)
    assert loaded.predict_proba(X).tobytes() == model.predict_proba(X).tobytes()
    centres = loaded.inverse_transform(loaded.centroids)
    np.testing.assert_allclose(centres, model.inverse_transform(model.centroids), rtol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_another_network_is_refused_with_what_differs(tmp_path, name):
    path = tmp_path / "model.npz"
    save_model(path, own_model())
    network, needed = OTHERS[name]
    with pytest.raises(ValueError, match="model: ") as caught:
        load_model(path, network=network)
    assert needed in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_network_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    save_model(path, own_model())
    with pytest.raises(ValueError, match=r"network: expected an object with init, encode and dec"):
        load_model(path, network="linear")
