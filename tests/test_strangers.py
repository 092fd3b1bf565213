"""What strangers hand over: every odd value at every argument is refused in a line that names it.

Tables: each call is tried with every value but those that are right there.
"""

import datetime
import decimal
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
import scipy.sparse

import jdec
from jdec.baselines.spectral import nearest_neighbors
from jdec.trainer.config import Config, read_config
from jdec.trainer.distributed import initialize_distributed as join
from jdec.trainer.model import Model
from jdec.trainer.model_file import load_model, save_model
from jdec.trainer.presets import preset_config
from jdec.trainer.scaling import Scaling
from jdec.trainer.sharding import data_mesh, member_mesh

pytestmark = pytest.mark.usefixtures("unchecked")

CONFIG = Config(2).replace(
    {
        "network.hidden_dims": [4],
        "network.latent_dim": 2,
        "pretrain.finetune_steps": 2,
        "pretrain.batch_size": 4,
        "kmeans.n_init": 1,
        "clustering.update_interval": 1,
        "clustering.max_intervals": 1,
        "clustering.batch_size": 4,
    }
)
X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
Y = [0, 1] * 6
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY)
PARAMS = {
    "encoder_0": {"kernel": X[:3, :1].repeat(4, 1), "bias": np.zeros(4, np.float32)},
    "encoder_1": {"kernel": X[:4, :2].copy(), "bias": np.zeros(2, np.float32)},
}
MODEL = Model(Scaling(np.zeros(3), np.ones(3)), PARAMS, X[:2, :2].copy(), CONFIG)
P, MU = jnp.ones((4, 2)), jnp.ones((3, 2))
Q = np.full((2, 12, 2), 0.5)


class Silent:
    def __repr__(self):
        raise RuntimeError("it has no name")


class Verse:
    def __repr__(self):
        return "a line\nand another\n" * 50


class Elsewhere:
    """An array of another library that is not to be had here, as one with gradients or on a GPU."""

    shape, ndim = (12, 3), 2

    def __array__(self, *args, **kwargs):
        raise RuntimeError("cannot be read\nfrom here")


class Pretender:
    shape, ndim, dtype = (12, 3), 2, np.dtype("f4")

    def __len__(self):
        return 12


VALUES = {
    **{"None": None, "True": True, "...": ..., "NotImplemented": NotImplemented},
    **{"''": "", "ten": "ten", "b'10'": b"10", "lines": "a\nb", "nul": "a\0b", "long": "x" * 10**5},
    **{"-1": -1, "nan": np.nan, "inf": np.inf, "-inf": -np.inf, "1j": 1j, "c8": np.complex64(1)},
    **{"2**63": 2**63, "10**400": 10**400, "-10**400": -(10**400), "10**5000": 10**5000},
    **{"uint64": np.uint64(2**64 - 1), "int8": np.int8(-3), "f8": np.float64("nan")},
    **{"Decimal": decimal.Decimal("NaN"), "signal": decimal.Decimal("sNaN")},
    **{"date": datetime.date(2020, 1, 1), "time": datetime.datetime(2020, 1, 1)},
    **{"span": datetime.timedelta(1), "M8": np.datetime64("2020"), "m8": np.timedelta64(3, "s")},
    **{"NaT": np.datetime64("NaT"), "NA": pd.NA, "pd.NaT": pd.NaT, "void": np.void(b"ab")},
    **{
        "type": int,
        "print": print,
        "Path": pathlib.Path("new"),
        "module": os,
        "error": ValueError(),
    },
    **{"silent": Silent(), "verse": Verse(), "object": object(), "elsewhere": Elsewhere()},
    **{"pretender": Pretender(), "view": memoryview(b"abc"), "slice": slice(3)},
    **{"{}": {}, "{'a':1}": {"a": 1}, "[]": [], "['a']": ["a"], "()": (), "{1}": {1}},
    **{"generator": (value for value in ()), "0-d": np.array(3), "0-d-nan": np.array(np.nan)},
    **{"[nan]": np.array([np.nan]), "jax": jnp.array(np.nan), "key": KEY, "keys": KEYS},
    **{"raw-key": jax.random.PRNGKey(0), "raw": np.zeros(2, np.uint32)},
}
LARGE = "2**63 uint64 0-d"
EMPTY = "{} [] () generator void"
NAMES_OF_FILES = "ten lines Path b'10'"


def fit(**changes):
    arguments = {"key": KEY, "x": X, "config": CONFIG} | changes
    return jdec.fit(arguments.pop("key"), arguments.pop("x"), arguments.pop("config"), **arguments)


def fit_population(**changes):
    arguments = {"keys": KEYS, "x": X, "config": CONFIG} | changes
    keys, x, config = (arguments.pop(name) for name in ("keys", "x", "config"))
    return jdec.fit_population(keys, x, config, **arguments)


def frame(names):
    return pd.DataFrame(X, columns=[*names])


def calls(function, names, but="", **others):
    """Return calls of a function, each with a value for one of its arguments, and what is right."""
    return {
        (f"{function.__name__} {name}"): (
            lambda value, name=name: function(**others | {name: value}),
            name,
            but,
        )
        for name in names.split()
    }


def estimator(kind, names, but=""):
    return {
        f"{kind.__name__} {name}": (
            lambda value, name=name: kind(**{"n_clusters": 2} | {name: value}).fit(X),
            name,
            but,
        )
        for name in names.split()
    }


def settings(name, but=""):
    leaf = name.split(".")[-1]
    return {name: (lambda value: CONFIG.replace({name: value}), leaf, but)}


def saved():
    save_model("a.npz", MODEL)
    return "a.npz"


def cells(value):
    """Return rows with a value of any type among them."""
    rows = np.full((12, 2), 0.5, object)
    rows[3:4, 1] = holding(value)
    return rows


def holding(value):
    array = np.empty(1, object)
    array[0] = value
    return array


SGD = {"name": "sgd", "learning_rate": 0.1, "n_steps": 3, "schedule": "step"}
NETWORK = jdec.StackedDenoisingAutoencoder((4,), 2)
START = {"key": KEY, "embeddings": P, "n_clusters": 2}


def encode(params, x):
    return x @ params


TRAINING = {"encode": encode, "tx": optax.sgd(0.1)}
ALGORITHM = jdec.self_training(**TRAINING)
STATE = ALGORITHM.init(jnp.eye(3, 2), MU[:2])
ROWS_OF_PHASE = {"key": KEY, "state": STATE, "x": jnp.asarray(X), "algorithm": ALGORITHM}
INTERVAL = {**ROWS_OF_PHASE, "targets": jax.jit(ALGORITHM.refresh)(STATE.params, jnp.asarray(X))}
STEPS = {"algorithm": ALGORITHM, "key": KEY, "state": STATE, "data": X, "n_steps": 1}
DRAWN = {"key": KEY, "n_steps": 1, "n_rows": 12}
GATHERED = {"algorithm": ALGORITHM, "key": KEY, "state": STATE, "rows": X[None]}
REFRESH = {"params": STATE.params, "x": jnp.asarray(X), "encode": encode}
BLOCKS = {"encode": encode, "params": jnp.eye(3, 2), "x": jnp.asarray(X)}
CONVOLUTIONS = {"image_shape": (8, 8)}
CALLABLE = "type print"
TX = {"pretrain": optax.sgd(0.1), "clustering": optax.sgd(0.1)}
PRETRAINING = jdec.finetune(NETWORK, TX["pretrain"])
DECAYED = {"name": "yogi", "weight_decay": 1.0}
LAYERED = CONFIG.replace({"pretrain.layerwise_steps": 1})
FUNCTIONS = jdec.core.FunctionalAutoencoder(
    *(lambda key, n_features: jnp.ones((n_features, 2)), encode, lambda params, z: z @ params.T)
)
WIDER = jdec.core.FunctionalAutoencoder(
    *(FUNCTIONS.init, encode, lambda params, z: jnp.ones((len(z), 4)))
)


def scan_steps(**arguments):
    """Hand mini-batches over as what they are made of."""
    names = [name for name in arguments if name in jdec.core.Batches._fields]
    batches = jdec.core.Batches(**{name: arguments.pop(name) for name in names})
    return jdec.core.scan_steps(**arguments, batches=batches)


IMAGES = {
    "key": KEY,
    "x": P,
    "image_shape": (1, 2),
    "augmentation": jdec.core.Augmentation(max_shift=1.0),
}
SOFT = {"embeddings": P, "centroids": MU}
DATA = jdec.datasets.Dataset(X, np.array(Y), "data")
SUBSET = {"dataset": DATA, "min_retention_rate": 0.5, "seed": 0}
PRESET = {"preset": "fast", "n_clusters": 2, "n_rows": 10}
JOIN = {"coordinator": "localhost:1", "num_processes": 2, "process_id": 1, "timeout": 1}
MEANS = {"key": KEY, "x": X, "n_clusters": 2}
CALLS = {
    # The two fits.
    **calls(fit, "key", "key"),
    **calls(fit, "x config"),
    **calls(fit, "y unlabeled autoencoder_params n_train mesh", "None"),
    **calls(fit, "feature_names", "None"),
    **calls(fit, "workdir", f"None {NAMES_OF_FILES}"),
    **calls(fit, "resume progress", "True"),
    **calls(fit, "network extra_loss augment", "None"),
    **calls(fit, "rows"),
    **calls(fit, "tx", "None {}"),
    "fit tx, one": (lambda value: fit(tx={"clustering": value}), "tx", ""),
    **calls(fit, "callbacks", "[] () generator void"),
    "fit y, one": (lambda value: fit(y=[0] * 11 + [value]), "y", "True -1 uint64 int8 2**63"),
    "fit x, one": (lambda value: fit(x=cells(value)), "x", f"True -1 {LARGE} int8"),
    "fit feature_names, one": (
        *(lambda value: fit(feature_names=["a", "b", value]), "feature_names"),
        "'' ten lines nul long",
    ),
    "fit callbacks, one": (lambda value: fit(callbacks=[value]), "callbacks", "type print"),
    "fit autoencoder_params, one": (
        *(lambda value: fit(autoencoder_params={"encoder_0": value}), "autoencoder_params", ""),
    ),
    **calls(fit_population, "keys", "keys"),
    **calls(fit_population, "x config"),
    **calls(fit_population, "alphas learning_rates n_clusters", "None"),
    **calls(fit_population, "members_at_once mesh feature_names", "None"),
    **calls(fit_population, "vectorized", "None True"),
    **calls(fit_population, "resume progress", "True"),
    **calls(fit_population, "workdir", f"None {NAMES_OF_FILES}"),
    **calls(fit_population, "network extra_loss augment", "None"),
    **calls(fit_population, "tx", "None {}"),
    "fit_population tx, one": (lambda value: fit_population(tx={"pretrain": value}), "tx", ""),
    **calls(fit_population, "callbacks", "[] () generator void"),
    "fit_population keys, each": (lambda value: fit_population(keys=[KEY, value]), "keys", "key"),
    **{
        f"fit_population {name}, one": (
            *(lambda value, name=name: fit_population(**{name: [1.0, value]}), name),
            LARGE,
        )
        for name in ("alphas", "learning_rates")
    },
    "fit_population n_clusters, one": (
        *(lambda value: fit_population(n_clusters=[2, value]), "n_clusters", ""),
    ),
    # Estimators.
    **estimator(jdec.DEC, "n_clusters preset"),
    **estimator(jdec.DEC, "latent_dim update_interval max_intervals image_shape", "None [] ()"),
    **estimator(jdec.DEC, "hidden_dims", "None [] () view"),
    **estimator(jdec.DEC, "alpha", f"None {LARGE}"),
    **estimator(jdec.DEC, "tol", f"None {LARGE}"),
    **estimator(jdec.DEC, "scaling config", "None"),
    **estimator(jdec.DEC, "settings", "None {} {'a':1}"),
    **estimator(jdec.DEC, "random_state", "None module True"),
    **estimator(jdec.DEC, "workdir", f"None {NAMES_OF_FILES}"),
    **estimator(jdec.DEC, "resume verbose", "True"),
    **estimator(jdec.DEC, "network extra_loss augment", "None"),
    **estimator(jdec.DEC, "tx", "None {}"),
    **estimator(jdec.DEC, "rows"),
    **estimator(jdec.DEC, "callbacks", "[] () generator void"),
    **estimator(jdec.baselines.SEC, "n_clusters n_neighbors n_init weights"),
    **estimator(jdec.baselines.SEC, "mu gamma", LARGE),
    **estimator(jdec.baselines.SEC, "random_state", "None module True"),
    **estimator(jdec.baselines.LDMGI, "n_clusters n_neighbors n_init"),
    **estimator(jdec.baselines.LDMGI, "regularization", LARGE),
    "SEC neighbors": (
        lambda value: jdec.baselines.SEC(2).fit(X, neighbors=value),
        "neighbors",
        "None",
    ),
    # Models.
    "assign model": (lambda value: jdec.trainer.assign(value, X), "model", ""),
    "assign x": (lambda value: jdec.trainer.assign(MODEL, value), "x", ""),
    "assign feature_names": (
        *(
            lambda value: jdec.trainer.assign(MODEL, X, feature_names=value),
            "feature_names",
            "None",
        ),
    ),
    **{
        f"{act} a model with {field}": (
            *(lambda value, act=act, field=field: act_on(act, field, value), "model"),
            "None" if field == "feature_names" else "",
        )
        for act in ("assign", "save")
        for field in ("scaling", "params", "centroids", "config", "feature_names")
    },
    "save_model path": (lambda value: save_model(value, MODEL), "path", f"{NAMES_OF_FILES}"),
    "save_model model": (lambda value: save_model("new", value), "model", ""),
    "save_model extra": (
        *(lambda value: save_model("new", MODEL, value), "extra", "None {} {'a':1}"),
    ),
    "save_model extra, one": (
        *(lambda value: save_model("new", MODEL, {"a": value}), "model"),
        "None True '' ten lines nul long -1 nan f8 inf -inf 2**63 10**400 -10**400 {} {'a':1} []"
        " ['a'] () 0-d 0-d-nan [nan] raw {'a':1} 10**5000",
    ),
    "load_model path": (lambda value: load_model(value), "path", "ten lines nul Path long"),
    **{
        f"{load.__qualname__} network": (
            *(lambda value, load=load: load(saved(), network=value), "network"),
            "None",
        )
        for load in (load_model, jdec.DEC.load)
    },
    "DEC.load path": (lambda value: jdec.DEC.load(value), "path", "ten lines nul Path long"),
    "generalizability model": (
        *(lambda value: jdec.selection.generalizability(value, X, X), "model", ""),
    ),
    "generalizability x": (lambda value: jdec.selection.generalizability(MODEL, value, X), "x", ""),
    "generalizability x_validation": (
        *(lambda value: jdec.selection.generalizability(MODEL, X, value), "x_validation", ""),
    ),
    # k-means, selection, metrics.
    **calls(jdec.kmeans, "key", "key", **MEANS),
    **calls(jdec.kmeans, "x n_clusters n_init max_iter", **MEANS),
    **calls(jdec.kmeans, "tol", LARGE, **MEANS),
    **calls(jdec.kmeans, "restarts_at_once", "None", **MEANS),
    **calls(jdec.kmeans, "map_restarts", "None type print", **MEANS),
    **calls(jdec.core.overclustered_kmeans, "key", "key", **MEANS),
    **calls(
        jdec.core.overclustered_kmeans,
        "x n_clusters n_init max_iter overclustering_factor",
        **MEANS,
    ),
    "consensus key": (lambda value: jdec.selection.consensus(value, Q, 2), "key", "key"),
    "consensus q": (lambda value: jdec.selection.consensus(KEY, value, 2), "soft_assignments", ""),
    "consensus n_clusters": (
        lambda value: jdec.selection.consensus(KEY, Q, value),
        "n_clusters",
        "",
    ),
    "consensus n_init": (
        lambda value: jdec.selection.consensus(KEY, Q, 2, n_init=value),
        "n_init",
        "",
    ),
    "pairwise_ari": (jdec.selection.pairwise_ari, "labels", ""),
    "mean_ari": (jdec.selection.mean_ari, "labels", ""),
    "sampled_silhouette embeddings": (
        *(lambda value: jdec.selection.sampled_silhouette(value, Y), "embeddings", ""),
    ),
    "sampled_silhouette labels": (
        lambda value: jdec.selection.sampled_silhouette(X, value),
        "labels",
        "",
    ),
    "sampled_silhouette sample_size": (
        *(
            lambda value: jdec.selection.sampled_silhouette(X, Y, sample_size=value),
            "sample_size",
            "",
        ),
    ),
    "sampled_silhouette seed": (
        *(lambda value: jdec.selection.sampled_silhouette(X, Y, seed=value), "seed", ""),
    ),
    "clustering_accuracy labels_true": (
        *(lambda value: jdec.clustering_accuracy(value, Y), "labels_true", ""),
    ),
    "clustering_scores labels_pred": (
        *(lambda value: jdec.metrics.clustering_scores(Y, value), "labels_pred", ""),
    ),
    "clustering_scores, one": (
        *(lambda value: jdec.metrics.clustering_scores([0] * 11 + [value], Y), "labels_true"),
        f"True -1 int8 {LARGE}",
    ),
    # Settings.
    "Config.from_dict": (Config.from_dict, "config", ""),
    "Config.from_json": (Config.from_json, "config", ""),
    "Config.replace": (CONFIG.replace, "config", "{}"),
    **settings("n_clusters"),
    **settings("scaling"),
    **settings("scale", LARGE),
    **settings("image_shape", "None view"),
    **settings("augmentation", "{}"),
    **settings("network", "{}"),
    **settings("network.hidden_dims", "[] () view"),
    **settings("network.kind"),
    **settings("network.channels", "view"),
    **settings("network.kernel_sizes", "view"),
    **settings("clustering.reconstruction_weight", LARGE),
    **settings("clustering.optimizer.name"),
    **settings("clustering.optimizer.weight_decay", LARGE),
    **settings("kmeans.overclustering_factors", "view"),
    **settings("clustering.alpha", LARGE),
    **settings("clustering.freeze_encoder", "True"),
    **settings("pretrain.optimizer.momentum"),
    **settings("pretrain.optimizer.schedule"),
    **calls(preset_config, "preset n_clusters", **PRESET),
    **calls(preset_config, "n_rows", LARGE, **PRESET),
    **calls(preset_config, "dataset", "'' ten lines nul long", **PRESET),
    **calls(preset_config, "image_shape", "None view", **PRESET),
    # Data.
    **calls(jdec.load_dataset, "name", name="digits"),
    **calls(
        jdec.load_dataset,
        "data_dir",
        f"None nul {NAMES_OF_FILES}".replace("b'10'", ""),
        name="x.csv",
    ),
    **calls(jdec.load_dataset, "label id", "None ''", name="x.csv"),
    **calls(jdec.load_dataset, "drop", f"{EMPTY} ['a']", name="x.csv"),
    **calls(jdec.load_dataset, "image_shape", "None", name="x.csv"),
    "load_dataset drop, one": (lambda value: jdec.load_dataset("x.csv", drop=[value]), "drop", ""),
    **calls(jdec.datasets.imbalanced_subset, "dataset min_retention_rate seed", **SUBSET),
    "imbalanced_subset y": (
        *(
            lambda value: jdec.datasets.imbalanced_subset(
                jdec.datasets.Dataset(X, value, "d"), 0.5, seed=0
            ),
            "y",
        ),
        "None",
    ),
    # Parts.
    **calls(jdec.soft_assignment, "embeddings centroids", **SOFT),
    **calls(jdec.soft_assignment, "alpha", LARGE, **SOFT),
    **calls(jdec.log_soft_assignment, "cluster_mask", "None", **SOFT),
    **calls(jdec.core.cluster_frequencies, "q"),
    **calls(jdec.target_distribution, "q"),
    **calls(jdec.target_distribution, "frequencies", "None raw raw-key", q=P),
    **calls(jdec.clustering_loss, "log_q", p=P),
    **calls(jdec.clustering_loss, "p", log_q=P),
    **calls(jdec.core.random_affine, "key", "key", **IMAGES),
    **calls(jdec.core.random_affine, "x image_shape augmentation", **IMAGES),
    **calls(jdec.core.Augmentation, "max_zoom"),
    **calls(jdec.core.Augmentation, "max_shift max_rotation max_shear", LARGE),
    **calls(jdec.core.make_optimizer, "n_steps momentum_warmup_steps", "2**63", **SGD),
    **calls(jdec.core.make_optimizer, "schedule momentum", **SGD),
    **calls(jdec.core.make_optimizer, "learning_rate bias_multiplier decay_rate", LARGE, **SGD),
    "make_optimizer name": (
        *(lambda value: jdec.core.make_optimizer(value, 0.1, n_steps=3), "optimizer", ""),
    ),
    **calls(jdec.core.make_optimizer, "weight_decay", LARGE, **SGD),
    **calls(jdec.StackedDenoisingAutoencoder, "latent_dim initializer precision"),
    **calls(jdec.StackedDenoisingAutoencoder, "hidden_dims", EMPTY),
    **calls(jdec.core.ConvolutionalAutoencoder, "image_shape"),
    **calls(jdec.core.ConvolutionalAutoencoder, "channels kernel_sizes", "view", **CONVOLUTIONS),
    **calls(jdec.core.ConvolutionalAutoencoder, "latent_dim initializer precision", **CONVOLUTIONS),
    "init key": (lambda value: NETWORK.init(value, 3), "key", "key"),
    "init n_features": (lambda value: NETWORK.init(KEY, value), "n_features", ""),
    **calls(jdec.core.as_autoencoder, "network", n_features=3),
    **calls(jdec.core.as_autoencoder, "n_features", network=NETWORK),
    **calls(jdec.core.network_shapes, "network", n_features=3),
    **calls(jdec.core.network_shapes, "n_features", network=NETWORK),
    # Algorithms.
    **calls(jdec.layerwise, "network layer tx", "", network=NETWORK, layer=0, tx=optax.sgd(1.0)),
    **calls(jdec.finetune, "network tx corruption_rate", network=NETWORK, tx=optax.sgd(1.0)),
    **calls(jdec.finetune, "loss_scale", LARGE, network=NETWORK, tx=optax.sgd(1.0)),
    **calls(jdec.self_training, "encode", CALLABLE, **TRAINING),
    **calls(jdec.self_training, "tx", **TRAINING),
    **calls(jdec.self_training, "alpha", LARGE, **TRAINING),
    **calls(jdec.self_training, "freeze_encoder", "True", **TRAINING),
    **calls(jdec.self_training, "extra_loss", f"None {CALLABLE}", **TRAINING),
    **calls(jdec.self_training, "cluster_mask", "None [nan] keys raw raw-key", **TRAINING),
    **calls(jdec.self_training, "embed", CALLABLE, **TRAINING),
    **calls(scan_steps, "algorithm n_steps", **STEPS),
    "scan_steps size": (lambda value: scan_steps(**STEPS, size=value), "batch_size", ""),
    "scan_steps order": (lambda value: scan_steps(**STEPS, order=value), "batch_order", ""),
    **calls(scan_steps, "key", "key", **STEPS),
    **calls(scan_steps, "data", "[nan] keys raw raw-key", **STEPS),
    **calls(scan_steps, "n_rows", "None", **STEPS),
    **calls(scan_steps, "gather", CALLABLE, **STEPS),
    **calls(jdec.core.scan_steps, "batches", **STEPS),
    **calls(jdec.core.step_indices, "n_steps n_rows batches", **DRAWN),
    **calls(jdec.core.step_indices, "key", "key", **DRAWN),
    **calls(jdec.core.scan_batches, "algorithm", **GATHERED),
    **calls(jdec.core.scan_batches, "key", "key", **GATHERED),
    **calls(jdec.core.scan_batches, "rows", "[nan] keys raw raw-key", **GATHERED),
    **calls(jdec.core.scan_batches, "alter", CALLABLE, **GATHERED),
    **calls(jdec.run, "state x algorithm max_intervals update_interval", **ROWS_OF_PHASE),
    **calls(jdec.run, "key", "key", **ROWS_OF_PHASE),
    **calls(jdec.run, "tol", LARGE, **ROWS_OF_PHASE),
    **calls(jdec.run, "batches", **ROWS_OF_PHASE),
    **calls(jdec.run, "reset_optimizer", "True", **ROWS_OF_PHASE),
    **calls(jdec.core.run_interval, "state targets x algorithm update_interval", **INTERVAL),
    **calls(jdec.core.run_interval, "key", "key", **INTERVAL),
    **calls(jdec.core.run_interval, "batches", **INTERVAL),
    **calls(jdec.core.run_interval, "reset_optimizer", "True", **INTERVAL),
    **calls(jdec.core.refresh_targets, "params x", **REFRESH),
    **calls(jdec.core.refresh_targets, "labels n_rows", "None", **REFRESH),
    **calls(jdec.core.refresh_targets, "alpha", LARGE, **REFRESH),
    **calls(jdec.core.refresh_targets, "cluster_mask", "None", **REFRESH),
    **calls(jdec.core.refresh_targets, "encode embed", CALLABLE, **REFRESH),
    **calls(jdec.core.embed_in_blocks, "encode", CALLABLE, **BLOCKS),
    **calls(jdec.core.embed_in_blocks, "x block_size", **BLOCKS),
    **calls(jdec.core.initial_partition, "key", "key", **START),
    **calls(jdec.core.initial_partition, "embeddings n_clusters n_init max_iter", **START),
    **calls(jdec.core.initial_partition, "overclustering_factors select", **START),
    **calls(jdec.core.initial_partition, "tol alpha", LARGE, **START),
    **calls(jdec.core.initial_partition, "map_restarts", f"None {CALLABLE}", **START),
    "data_mesh": (data_mesh, "devices", "None"),
    "member_mesh": (member_mesh, "devices", "None"),
    **calls(jdec.trainer.initialize_distributed, "coordinator num_processes process_id", **JOIN),
    "initialize_distributed timeout": (
        lambda value: jdec.trainer.initialize_distributed("nowhere.:1", 2, 1, timeout=value),
        "timeout",
        "",
    ),
}


def act_on(act, field, value):
    broken = MODEL._replace(**{field: value})
    return jdec.trainer.assign(broken, X) if act == "assign" else save_model("new.npz", broken)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Return the current folder of a test; afterwards nothing in it has changed."""
    table = tmp_path / "x.csv"
    np.savetxt(table, np.c_[X, Y], delimiter=",", header="a,b,c,label", comments="")
    before = table.read_bytes()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert table.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name not in GOOD_PLACES] == ["x.csv"]


GOOD_PLACES = {"a.npz", "pipe"}  # made by tests of what is right


def complaint(call, name):
    """Return what is wrong with how a call is refused, or nothing."""
    try:
        result = call()
    except (ValueError, TypeError) as error:
        text = str(error)
        wrong = [] if re.search(rf"(^|\W){name}\W", text) else [f"no {name}"]
        wrong += ["several lines"] if "\n" in text else []
        wrong += [f"{len(text)} characters"] if len(text) >= 500 else []
        return f"{type(error).__name__} {', '.join(wrong)}: {text[:200]}" if wrong else ""
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return f"accepted, {type(result).__name__}"


def cases(call):
    right = CALLS[call][2].split()
    assert set(right) <= set(VALUES)
    return [value for value in VALUES if value not in right]


@pytest.mark.parametrize("name", CALLS)
def test_every_odd_value_is_refused_by_name(name):
    call, argument, _ = CALLS[name]
    found = {
        value: complaint(lambda value=value: call(VALUES[value]), argument) for value in cases(name)
    }
    assert {value: text for value, text in found.items() if text} == {}


def test_there_are_many_cases():
    assert sum(len(cases(call)) for call in CALLS) >= 10_000


# Rows.


def deleted():
    array = jnp.ones((12, 3))
    array.delete()
    return array


def with_nan(dtype):
    x = X.astype(dtype)
    x[3, 1] = np.nan
    return x


ROWS = {
    "a masked array": lambda: np.ma.masked_array(X, X > 1),
    "a masked array of objects": lambda: np.ma.array([[1, 2.0]], mask=[[1, 0]], dtype=object),
    "a deleted array": deleted,
    "float16 infinity": lambda: np.full((12, 3), np.inf, np.float16),
    "float16 NaN": lambda: with_nan(np.float16),
    "longdouble NaN": lambda: with_nan(np.longdouble),
    "a structured array": lambda: np.zeros(12, [("a", "f4"), ("b", "f4")]),
    "a record array": lambda: np.rec.array(np.zeros((12, 2), [("a", "f4")])),
    "void": lambda: np.zeros((12, 2), "V8"),
    "bytes": lambda: np.full((12, 2), b"1"),
    "text": lambda: np.full((12, 2), "1"),
    "text of any length": lambda: np.full((12, 2), "1", np.dtypes.StringDType()),
    "text among objects": lambda: np.full((12, 2), "1_2", object),
    "times": lambda: np.zeros((12, 2), "M8[s]"),
    "spans": lambda: np.zeros((12, 2), "m8[s]"),
    "complex numbers": lambda: X + 1j,
    "complex objects": lambda: np.full((12, 2), 1j, object),
    "lists among objects": lambda: np.array([[[1], [2]], [[1], [2, 3]]], object),
    "huge integers": lambda: [[10**400, 1]] * 12,
    "ragged lists": lambda: [[1.0, 2.0], [3.0]] * 6,
    "ragged lists of lists": lambda: [[[1.0], [2.0]], [[1.0, 2.0], [3.0]]] * 6,
    "lists of dicts": lambda: [{"a": 1}] * 12,
    "lists of sets": lambda: [{1, 2}] * 12,
    "empty lists": lambda: [[]] * 12,
    "no rows": lambda: np.zeros((0, 3)),
    "no columns": lambda: np.zeros((12, 0)),
    "one dimension": lambda: np.zeros(12),
    "one dimension of many": lambda: np.arange(900.0),
    "three dimensions": lambda: np.zeros((12, 3, 2)),
    "sparse complex numbers": lambda: scipy.sparse.csr_matrix(X + 1j),
    "sparse without rows": lambda: scipy.sparse.csc_array((0, 3)),
    "sparse in one dimension": lambda: scipy.sparse.coo_array(X[:, 0]),
    "sparse with NaN": lambda: scipy.sparse.coo_array(np.where(X[3, 0] == X, np.nan, X)),
    "keys": lambda: jax.random.split(KEY, (12, 3)),
    "raw keys in three dimensions": lambda: jnp.zeros((4, 3, 2), jnp.uint32),
    "a frame with NA": lambda: pd.DataFrame({"a": pd.array([1, None] * 6, "Int64"), "b": 1.0}),
    "a frame of categories": lambda: pd.DataFrame({"a": pd.Categorical(["u", "v"] * 6)}),
    "a frame of times": lambda: pd.DataFrame({"a": pd.date_range("2020", periods=12), "b": 1.0}),
    "a frame of zones": lambda: pd.DataFrame(
        {"a": pd.date_range("2020", periods=12, tz="UTC"), "b": 1.0}
    ),
    "a frame of spans": lambda: pd.DataFrame({"a": pd.timedelta_range("1D", periods=12)}),
    "a frame of periods": lambda: pd.DataFrame(
        {"a": pd.period_range("2020", periods=12, freq="D")}
    ),
    "a frame of text": lambda: pd.DataFrame({"a": pd.array(["1_2"] * 12, "string"), "b": 1.0}),
    "a frame of complex numbers": lambda: pd.DataFrame({"a": [1j] * 12}),
    "an empty frame": pd.DataFrame,
    "a series": lambda: pd.Series(range(12)),
}


@pytest.fixture(scope="module")
def fitted():
    dec = jdec.DEC(2, config=CONFIG)
    dec.model_, dec.n_features_in_ = MODEL, 3
    return dec


TAKERS_OF_ROWS = {
    "fit": lambda x, _: fit(x=x),
    "fit, unlabeled": lambda x, _: fit(unlabeled=x),
    "fit_population": lambda x, _: fit_population(x=x),
    "assign": lambda x, _: jdec.trainer.assign(MODEL, x),
    "kmeans": lambda x, _: jdec.kmeans(KEY, x, 2),
    "jdec.core.overclustered_kmeans": lambda x, _: jdec.core.overclustered_kmeans(KEY, x, 2),
    "generalizability": lambda x, _: jdec.selection.generalizability(MODEL, x, X),
    "generalizability, validation": lambda x, _: jdec.selection.generalizability(MODEL, X, x),
    "nearest_neighbors": lambda x, _: nearest_neighbors(x, 2),
    "DEC.fit": lambda x, _: jdec.DEC(2, config=CONFIG).fit(x),
    "DEC.predict": lambda x, dec: dec.predict(x),
    "DEC.predict_proba": lambda x, dec: dec.predict_proba(x),
    "DEC.transform": lambda x, dec: dec.transform(x),
    "SEC": lambda x, _: jdec.baselines.SEC(2).fit(x),
    "LDMGI": lambda x, _: jdec.baselines.LDMGI(2).fit(x),
}


@pytest.mark.filterwarnings("ignore:X has feature names")  # scikit-learn, before it refuses them
@pytest.mark.parametrize("taker", TAKERS_OF_ROWS)
def test_rows_that_are_none_are_refused_by_name(taker, fitted):
    call = TAKERS_OF_ROWS[taker]
    name = "unlabeled" if "unlabeled" in taker else "x_validation" if "val" in taker else "[xX]"
    name = "(x|x_validation)" if name == "x_validation" and "," not in taker else name
    found = {rows: complaint(lambda rows=rows: call(ROWS[rows](), fitted), name) for rows in ROWS}
    assert {rows: text for rows, text in found.items() if text} == {}


TAKERS_OF_DENSE_ROWS = ("kmeans", "jdec.core.overclustered_kmeans", "nearest_neighbors", "DEC.fit")


@pytest.mark.parametrize("taker", TAKERS_OF_DENSE_ROWS)
def test_sparse_rows_are_refused_where_they_would_become_dense(taker, fitted):
    for make in (scipy.sparse.csr_matrix, scipy.sparse.coo_array):
        assert complaint(lambda make=make: TAKERS_OF_ROWS[taker](make(X), fitted), "[xX]") == ""


def test_columns_of_held_out_rows_are_put_into_the_order_of_the_model():
    model = MODEL._replace(feature_names=("a", "b", "c"))
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    expected = jdec.selection.generalizability(model, frame, frame[:6])
    assert jdec.selection.generalizability(model, frame[["c", "a", "b"]], frame[:6]) == expected
    assert jdec.selection.generalizability(model, frame, frame[:6][["c", "a", "b"]]) == expected


# Labels.

LABELS = {
    "None among them": [*Y[:11], None],
    "NA": pd.array([1, None] * 6, "Int64"),
    "NaN": [1.0, np.nan] * 6,
    "infinity": [1.0, np.inf] * 6,
    "NaT": np.full(12, np.datetime64("NaT")),
    "times": pd.date_range("2020", periods=12),
    "text and numbers": [1, "1"] * 6,
    "bytes and text": [b"1", "1"] * 6,
    "complex numbers": [1j] * 12,
    "decimals": [decimal.Decimal(1)] * 12,
    "lists": [[0], [1]] * 6,
    "lists of several lengths": [[0], [1, 2]] * 6,
    "a column": np.zeros((12, 1)),
    "a frame": pd.DataFrame({"y": Y}),
    "masked": np.ma.masked_array(Y, [True] + [False] * 11),
    "a dict": dict(enumerate(Y)),
    "a set": {0, 1},
    "a generator": (y for y in Y),
    "text": "0101",
    "a number": 3,
    "keys": jax.random.split(KEY, 12),
    "too few": Y[:11],
    "too many": [*Y, 0],
    "none": [],
    "numbers that float64 merges": [2**63, 2**63 + 1, -1] * 4,
    "text that NumPy cuts": ["a", "a\0"] * 6,
}
TAKERS_OF_LABELS = {
    "y": lambda y: fit(y=y),
    "labels_true": lambda y: jdec.clustering_accuracy(y, Y),
    "labels_pred": lambda y: jdec.metrics.clustering_scores(Y, y),
    "labels": lambda y: jdec.selection.sampled_silhouette(X, y),
    "labels ": lambda y: jdec.selection.pairwise_ari([Y, y]),
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("taker", TAKERS_OF_LABELS)
def test_labels_that_are_none_are_refused_by_name(taker, labels):
    assert not complaint(
        lambda: TAKERS_OF_LABELS[taker](LABELS[labels]), f"({taker.strip()}|labels_pred)"
    )


@pytest.mark.parametrize(
    "labels", [[0.5, 1.5] * 6, [b"a", b"b"] * 6, [True, False] * 6, [2**63, 0] * 6, ["a", "ä"] * 6]
)
def test_labels_of_any_one_kind_are_compared(labels):
    assert jdec.metrics.clustering_scores(Y, labels)["ari"] == 1
    assert jdec.selection.pairwise_ari([labels, Y]).tolist() == [[1, 1], [1, 1]]
    assert np.isfinite(jdec.selection.sampled_silhouette(X.tolist(), labels))
    array = np.array(labels, np.dtypes.StringDType() if isinstance(labels[0], str) else None)
    assert jdec.clustering_accuracy(array, Y) == 1


# Whole arguments that fit each other or do not.


def test_lists_are_arrays():
    x = X.tolist()
    found = [
        jdec.core.overclustered_kmeans(KEY, rows, 2, overclustering_factor=1, n_init=1, max_iter=5)
        for rows in (X, x)
    ]
    assert found[0].labels.tolist() == found[1].labels.tolist()
    assert jdec.trainer.assign(MODEL, x)[1].tolist() == jdec.trainer.assign(MODEL, X)[1].tolist()
    assert jdec.selection.consensus(KEY, Q.tolist(), 1, n_init=1).labels.shape == (12,)


def broken_params(layer, name, leaf):
    params = {
        **PARAMS,
        "decoder_0": {"kernel": PARAMS["encoder_0"]["kernel"].T, "bias": np.zeros(3, np.float32)},
        "decoder_1": {"kernel": PARAMS["encoder_1"]["kernel"].T, "bias": np.zeros(4, np.float32)},
    }
    return {**params, layer: {**params[layer], name: leaf}}


TREES = {
    "another shape": broken_params("encoder_0", "bias", np.zeros(5)),
    "NaN": broken_params("encoder_0", "bias", np.full(4, np.nan)),
    "beyond float32": broken_params("encoder_0", "bias", np.full(4, 1e300)),
    "text": broken_params("encoder_0", "bias", np.full(4, "1")),
    "complex numbers": broken_params("encoder_0", "bias", np.full(4, 1j)),
    "objects": broken_params("encoder_0", "bias", np.full(4, None)),
    "None": broken_params("encoder_0", "bias", None),
    "a list": broken_params("encoder_0", "bias", [0.0] * 4),
    "one more": broken_params("encoder_0", "scale", np.zeros(4)),
    "one layer more": broken_params("encoder_0", "bias", np.zeros(4)) | {"encoder_2": {}},
    "the encoder alone": PARAMS,
    "many": {f"layer_{i}": {"kernel": np.zeros((3, 3))} for i in range(100)},
    "tuples": tuple(broken_params("encoder_0", "bias", np.zeros(4)).values()),
}


@pytest.mark.parametrize("tree", TREES)
def test_parameters_of_another_network_are_refused(tree):
    assert not complaint(lambda: fit(autoencoder_params=TREES[tree]), "autoencoder_params")


MESHES = {
    "devices": jax.devices(),
    "a device": jax.devices()[0],
    "an axis of another name": jax.make_mesh((1,), ("rows",)),
    "two axes": jax.make_mesh((1, 1), ("data", "member")),
    "a sharding": jax.sharding.SingleDeviceSharding(jax.devices()[0]),
}


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("call", [fit, fit_population])
def test_other_meshes_are_refused(call, mesh):
    assert not complaint(lambda: call(mesh=MESHES[mesh]), "mesh")


MASKED = np.ma.masked_array(Q, Q > 0)
MOVED = jdec.core.Augmentation(1.0)


def imbalanced(y):
    return jdec.datasets.imbalanced_subset(jdec.datasets.Dataset(X, y, "d"), 0.5, seed=0)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: fit(mesh=member_mesh(1)), "mesh"),
        (lambda: fit(unlabeled=X[:, :2]), "unlabeled"),
        (lambda: fit(unlabeled=frame("cba"), feature_names=[*"abc"]), "unlab.*"),
        (lambda: fit(n_train=13), "n_train"),
        (lambda: fit(n_train=0), "n_train"),
        (lambda: fit(feature_names=["a", "b"]), "feature_names"),
        (lambda: fit(feature_names=np.array([["a", "b", "c"]])), "feature_names"),
        (lambda: fit(key=jnp.stack([KEY])), "key"),
        (lambda: fit(resume="yes"), "resume"),
        (lambda: fit(workdir="x.csv"), "workdir"),
        (lambda: fit(workdir="x.csv/below"), "workdir"),
        (lambda: fit(workdir="/dev/null/below"), "workdir"),
        (lambda: fit(workdir="\ud800"), "workdir"),
        (lambda: fit(workdir="~nobody-at-all/run"), "workdir"),
        (lambda: fit(workdir="a/" + "b" * 300), "workdir"),
        (lambda: fit(workdir=b"run"), "workdir"),
        (lambda: fit(callbacks=[print, 3]), "callbacks"),
        (lambda: fit(network=NETWORK, config=LAYERED.replace({"n_clusters": 13})), "n_clusters"),
        (lambda: fit(network=jdec.StackedDenoisingAutoencoder), "network"),
        (lambda: fit(network=WIDER), "network"),
        (lambda: fit(network=jdec.core.ConvolutionalAutoencoder((2, 2))), "network"),
        (lambda: fit(network=FUNCTIONS, config=LAYERED), "layerwise_steps"),
        (lambda: fit(network=jdec.core.FunctionalAutoencoder(1, 2, 3)), "network"),
        (lambda: fit(augment=lambda key, x: x[:, :2]), "augment"),
        (lambda: fit(augment=lambda key, x: x.astype(jnp.float16)), "augment"),
        (lambda: fit(augment=lambda x: x), "augment"),
        (lambda: fit(extra_loss=lambda key, params, batch: batch.x), "extra_loss"),
        (lambda: fit(extra_loss=lambda key, params, batch: 0.0), "extra_loss"),
        (lambda: fit(extra_loss=lambda key, params, batch: jnp.int32(1)), "extra_loss"),
        (lambda: fit(extra_loss=lambda params: jnp.float32(1)), "extra_loss"),
        (lambda: fit(tx={"finetune": optax.sgd(1.0)}), "tx"),
        (lambda: fit(tx={"pretrain": optax.sgd}), "tx"),
        (lambda: fit(tx=optax.sgd(1.0)), "tx"),
        (lambda: fit_population(tx=TX, learning_rates=[1.0, 2.0]), "learning_rates"),
        (lambda: fit_population(workdir="x.csv"), "workdir"),
        (lambda: fit_population(workdir="a/" + "b" * 300), "workdir"),
        (lambda: fit_population(resume=1), "resume"),
        (lambda: fit_population(network=WIDER), "network"),
        (lambda: fit_population(extra_loss=lambda key, params, batch: batch.x), "extra_loss"),
        (lambda: fit_population(augment=lambda key, x: x[:, :2]), "augment"),
        (lambda: jdec.DEC(2, config=CONFIG, network=WIDER).fit(X), "network"),
        (lambda: jdec.DEC(2, config=CONFIG, tx={"all": optax.sgd(1.0)}).fit(X), "tx"),
        (lambda: jdec.core.as_autoencoder(jdec.StackedDenoisingAutoencoder, 3), "network"),
        (lambda: jdec.layerwise(NETWORK, 2, optax.sgd(1.0)), "layer"),
        (lambda: jdec.layerwise(FUNCTIONS, 0, optax.sgd(1.0)), "network"),
        (lambda: jdec.self_training(**TRAINING, cluster_mask=jnp.ones((2, 2))), "cluster_mask"),
        (lambda: jdec.run(**ROWS_OF_PHASE | {"algorithm": PRETRAINING}), "algorithm"),
        (lambda: jdec.run(**ROWS_OF_PHASE | {"x": X[0]}), "x"),
        (lambda: jdec.core.refresh_targets(**REFRESH, labels=jnp.zeros(3, int)), "labels"),
        (lambda: jdec.core.refresh_targets(**REFRESH, n_rows=13), "n_rows"),
        (lambda: scan_steps(**STEPS | {"data": {"x": X, "y": X[:3]}}), "data"),
        (lambda: jdec.core.initial_partition(**START, overclustering_factors=[1, 0]), "overc.*"),
        (lambda: jdec.core.initial_partition(KEY, P, 5), "n_clusters"),
        (lambda: jdec.core.make_optimizer("lion", 0.1, n_steps=1, momentum=1), "momentum"),
        (lambda: jdec.core.make_optimizer("sm3", 0.1, n_steps=1, weight_decay=1), "weight_decay"),
        (lambda: CONFIG.replace({"pretrain.optimizer": DECAYED}), "weight_decay"),
        (lambda: CONFIG.replace({"network.kind": "conv"}), "network.kind"),
        (lambda: fit_population(keys=[]), "keys"),
        (lambda: fit_population(keys=KEYS[:0]), "keys"),
        (lambda: fit_population(keys=[KEY, jax.random.key(0, impl="rbg")]), "keys"),
        (lambda: fit_population(keys=[KEYS, KEYS]), "keys"),
        (lambda: fit_population(keys=[KEY, KEYS]), "keys"),
        (lambda: fit_population(alphas=[1e300, 1.0]), "alphas"),
        (lambda: fit_population(alphas=[1e-300, 1.0]), "alphas"),
        (lambda: fit_population(learning_rates=[1e39, 1.0]), "learning_rates"),
        (lambda: fit_population(alphas=np.ones((2, 1))), "alphas"),
        (lambda: fit_population(n_clusters={2, 3}), "n_clusters"),
        (lambda: fit_population(n_clusters=[2, 13]), "n_clusters"),
        (lambda: fit_population(n_clusters=np.array([2.0, 3.0])), "n_clusters"),
        (lambda: jdec.soft_assignment(P, MU, alpha=1e300), "alpha"),
        (lambda: jdec.soft_assignment(P, MU[:, :1]), "centroids"),
        (lambda: jdec.log_soft_assignment(P, MU, cluster_mask=jnp.ones(2, bool)), "cluster_mask"),
        (lambda: jdec.log_soft_assignment(P, MU, cluster_mask=jnp.ones(3)), "cluster_mask"),
        (lambda: jdec.target_distribution(P, frequencies=jnp.ones(3)), "frequencies"),
        (lambda: jdec.clustering_loss(P, MU), "p"),
        (lambda: jdec.clustering_loss(P, P.astype(jnp.complex64)), "p"),
        (lambda: jdec.core.cluster_frequencies(np.zeros((2, 2), "m8[s]")), "q"),
        (lambda: jdec.core.cluster_frequencies(np.ma.masked_array(X, X > 0)), "q"),
        (lambda: jdec.selection.consensus(KEY, Q[:, :, :1], 2), "soft_assignments"),
        (lambda: jdec.selection.consensus(KEY, -Q, 2), "soft_assignments"),
        (lambda: jdec.selection.consensus(KEY, Q * np.nan, 2), "soft_assignments"),
        (lambda: jdec.selection.consensus(KEY, Q.astype(str), 2), "soft_assignments"),
        (lambda: jdec.selection.consensus(KEY, MASKED, 2), "soft_assignments"),
        (lambda: jdec.selection.consensus(KEY, Q, 13), "n_clusters"),
        (lambda: jdec.selection.consensus(KEY, [Y, Y], 2), "soft_assignments"),
        (lambda: jdec.selection.generalizability(MODEL, X, X[:, :2]), "x_validation"),
        (lambda: jdec.selection.generalizability(MODEL, X[:, :2], X), "x"),
        (lambda: jdec.trainer.assign(MODEL, X[:, :2]), "x"),
        (lambda: jdec.trainer.assign(MODEL, X, feature_names=["a"]), "feature_names"),
        (lambda: jdec.trainer.assign(MODEL._replace(feature_names=("a", "b")), X), "model"),
        (lambda: jdec.trainer.assign(MODEL._replace(centroids=X), X), "model"),
        (lambda: jdec.trainer.assign(MODEL._replace(params={}), X), "model"),
        (lambda: jdec.kmeans(KEY, X, 13), "n_clusters"),
        (lambda: jdec.kmeans(KEY, jnp.zeros((12, 0)), 2), "x"),
        (lambda: jdec.kmeans(KEY, jax.random.split(KEY, (12, 3)), 2), "x"),
        (lambda: jdec.core.random_affine(KEY, P, (2, 2), MOVED), "image_shape"),
        (lambda: jdec.core.random_affine(KEY, P, (1, 2, 1, 1), MOVED), "image_shape"),
        (lambda: jdec.core.random_affine(KEY, P, (-1, -2), MOVED), "image_shape"),
        (lambda: join("localhost:99999", 2, 1, timeout=1), "coordinator"),
        (lambda: join("localhost", 2, 1, timeout=1), "coordinator"),
        (lambda: join("localhost:1", 2, 2, timeout=1), "process_id"),
        (lambda: jdec.trainer.initialize_distributed("localhost:1", 2, timeout=1), "process_id"),
        (lambda: jdec.load_dataset("x.csv", label="z"), "label"),
        (lambda: jdec.load_dataset("x.csv", label="z" * 10**5), "label"),
        (lambda: jdec.load_dataset("x.csv", id="a", drop=["a"]), "id"),
        (lambda: jdec.load_dataset("x.csv", drop={"a", "b"}), "drop"),
        (lambda: jdec.load_dataset("x.csv", drop=["a", "b", "c"]), "x.csv"),
        (lambda: jdec.load_dataset("x.csv", image_shape=(2, 2)), "image_shape"),
        (lambda: jdec.load_dataset("digits", label="a"), "label"),
        (lambda: jdec.load_dataset("."), r"\."),
        (lambda: imbalanced(np.array(Y[:3])), "y"),
        (lambda: imbalanced(-np.array(Y)), "y"),
        (lambda: jdec.datasets.imbalanced_subset(DATA, 1.5, seed=0), "min_retention_rate"),
        (lambda: load_model("x.csv"), "model"),
        (lambda: load_model("."), "model"),
        (lambda: save_model(".", MODEL), "model"),
        (lambda: save_model("nowhere/a.npz", MODEL), "model"),
        (lambda: save_model("a.npz", MODEL, {"a": np.array(["x"])}), "model"),
        (lambda: read_config("x.csv"), "config"),
        (lambda: read_config("."), "config"),
        (lambda: read_config("c" * 300), "config"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused_by_name(call, name):
    assert not complaint(call, name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
@pytest.mark.parametrize("read", [read_config, load_model, jdec.DEC.load])
def test_a_pipe_is_not_waited_for(read):
    os.mkfifo("pipe")
    with pytest.raises(ValueError, match=r"pipe.*: expected a file, got a pipe"):
        read("pipe")


def test_no_callback_is_called_and_no_file_written_before_all_is_checked(place):
    records = []
    for change in ({"y": LABELS["NaN"]}, {"unlabeled": ROWS["no rows"]()}, {"x": ROWS["text"]()}):
        change |= {"callbacks": [records.append], "workdir": place / "run"}
        assert not complaint(lambda change=change: fit(**change), "(y|unlabeled|x)")
    assert records == []
    assert not (place / "run").exists()
