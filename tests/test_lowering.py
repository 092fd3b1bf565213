"""Each compiled entry point lowers for accelerators that are not here, and none calls the host."""

import importlib
import pkgutil
import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from tracing import equations

import jdec
from jdec.baselines import spectral
from jdec.core.autoencoder import encoder_params, init_params
from jdec.core.dec import init_state
from jdec.trainer import build, members, sharding
from jdec.trainer.build import (
    Rows,
    Stage,
    Variant,
    build_clustering,
    build_network,
    build_pretraining,
)
from jdec.trainer.config import Config
from jdec.trainer.sharding import data_mesh, member_mesh

KEY = jax.random.key(0)
N_ROWS, N_MEMBERS = 24, 4
X = jax.ShapeDtypeStruct((N_ROWS, 16), jnp.float32)
FAST = Config(3).replace(
    {
        "image_shape": (4, 4),
        "augmentation.max_shift": 1.0,
        "augmentation.max_rotation": 10.0,
        "network.hidden_dims": [8],
        "network.latent_dim": 5,
        "pretrain.batch_size": 8,
        "pretrain.corruption_rate": 0.2,
        "pretrain.corrupt_data": True,
        "pretrain.finetune_corruption_rate": 0.2,
        "kmeans.n_init": 2,
        "kmeans.oversampling": [1, 6],
        "kmeans.select": "divergence",
        "clustering.batch_size": 8,
        "clustering.corruption_rate": 0.1,
        "clustering.optimizer.schedule": "cosine",
    }
)
SGD = {"name": "sgd", "learning_rate": 0.1, "schedule": "step", "momentum_warmup_steps": 3}
PAPER = Config(3).replace(
    {
        "network.hidden_dims": [8],
        "network.latent_dim": 5,
        "pretrain.batch_order": "sequential",
        "pretrain.optimizer": SGD | {"bias_multiplier": 2.0, "weight_decay": 1e-3},
        "clustering.batch_order": "sequential",
        "clustering.reset_optimizer": True,
        "clustering.optimizer": SGD,
    }
)
CONFIGS = {
    "fast": FAST,
    "paper": PAPER,
    "frozen encoder": FAST.replace({"clustering.freeze_encoder": True}),
    "bfloat16": FAST.replace({"network.precision": "bfloat16"}),
    "tensorfloat32": FAST.replace({"network.precision": "tensorfloat32"}),
}
LAYER, FINETUNE = Stage("layer 1", 0, 9), Stage("finetune", None, 9)


def over_members(tree):
    """Shapes of as many as there are members."""
    return jax.eval_shape(jax.vmap(lambda _, tree: tree, (0, None)), jnp.zeros(N_MEMBERS), tree)


def parameters(config):
    return jax.eval_shape(lambda: init_params(KEY, build_network(config, 16)))


def pretraining_state(config, stage):
    return jax.eval_shape(build_pretraining(config, 16, stage).init, parameters(config))


def clustering_state(config, variant=build.AS_CONFIGURED):
    def start(params, x):
        clustering = build_clustering(config, 16, variant=variant)
        return init_state(encoder_params(params), jnp.zeros((3, 5)), x, clustering)

    return jax.eval_shape(start, parameters(config), X)


def program(name, config, mesh=None):
    """A compiled function and the arguments to lower it for."""
    rows = Rows() if mesh is None else Rows(N_ROWS - 1, mesh)
    keys = jax.random.split(KEY, N_MEMBERS)
    variant = Variant(jnp.ones(N_MEMBERS), jnp.ones(N_MEMBERS), jnp.ones((N_MEMBERS, 3), bool))
    params, state = parameters(config), clustering_state(config)
    centroids = jnp.zeros((3, 5))
    # On an accelerator members go side by side, on a mesh of it as well.
    for_members = {"config": config, "layout": members.choose_layout(10**9, mesh)}
    assert for_members["layout"].vectorized
    match name:
        case "pretrain_steps, layer" | "pretrain_steps, all":
            stage = LAYER if name.endswith("layer") else FINETUNE
            function = partial(
                build.pretrain_steps,
                config=config,
                stage=stage,
                n_steps=3,
                n_rows=N_ROWS - 1,
                mesh=mesh,
            )
            return function, (KEY, pretraining_state(config, stage), X, 0)
        case "start_clustering":
            return partial(build.start_clustering, config=config, rows=rows), (KEY, params, X)
        case "cluster_steps":
            return partial(build.cluster_steps, config=config, rows=rows), (KEY, state, X)
        case "refresh":
            return partial(build.refresh, config=config, rows=rows), (state, X)
        case "assign_block":
            return partial(build.assign_block, config=config), (params, centroids, X)
        case "init_stage":
            function = partial(build.init_stage, config=config, n_features=16, stage=LAYER)
            return function, (params,)
        case "is_finite":
            return build.is_finite, (params,)
        case "_concatenate":
            return partial(sharding._concatenate, n_a=N_ROWS - 1, n_b=N_ROWS, mesh=mesh), (X, X)
        case "init_members":
            return partial(members.init_members, **for_members), (keys, X)
        case "init_members_stage":
            function = partial(members.init_members_stage, stage=LAYER, **for_members)
            return function, (over_members(params), X)
        case "pretrain_members":
            states = over_members(pretraining_state(config, FINETUNE))
            function = partial(members.pretrain_members, stage=FINETUNE, n_steps=3, **for_members)
            return function, (keys, states, 0, X)
        case "partition_members":
            traits = (over_members(encoder_params(params)), variant.alpha)
            return partial(members.partition_members, **for_members), (keys, traits, X)
        case "start_members":
            arguments = (over_members(encoder_params(params)), over_members(centroids), variant, X)
            return partial(members.start_members, **for_members), arguments
        case "train_members":
            function = partial(members.train_members, **for_members)
            return function, (keys, variant, over_members(state), X)
        case "assign_member":
            one = jax.tree.map(lambda leaf: leaf[0], variant)
            return partial(members.assign_member, config=config), (one, state, X)
        case "_neighbors_of_block":
            function = partial(spectral._neighbors_of_block, rows=8, n_neighbors=3)
            return function, (X, jax.ShapeDtypeStruct((N_ROWS,), jnp.float32), jnp.int32(0))


OF_ONE_FIT = ["pretrain_steps, layer", "pretrain_steps, all", "start_clustering"]
OF_ONE_FIT += ["cluster_steps", "refresh", "assign_block"]
OF_MEMBERS = ["init_members", "init_members_stage", "pretrain_members", "partition_members"]
OF_MEMBERS += ["start_members", "train_members", "assign_member"]
PROGRAMS = [
    *((name, "fast", None) for name in [*OF_ONE_FIT, *OF_MEMBERS, "_neighbors_of_block"]),
    *((name, "paper", None) for name in OF_ONE_FIT[:4]),
    ("cluster_steps", "frozen encoder", None),
    *(("cluster_steps", precision, None) for precision in ("bfloat16", "tensorfloat32")),
    ("pretrain_steps, all", "bfloat16", None),
    *((name, "fast", None) for name in ("init_stage", "is_finite", "_concatenate")),
    *((name, "fast", "data") for name in [*OF_ONE_FIT[1:-1], "_concatenate"]),
    *((name, "fast", "member") for name in ("pretrain_members", "train_members")),
]


@pytest.fixture(scope="module")
def _accelerator():
    """Have jdec do as it does on an accelerator: restarts of k-means side by side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        yield
    jax.clear_caches()  # of what was traced for that


@pytest.mark.parametrize(("name", "config", "axis"), PROGRAMS)
@pytest.mark.usefixtures("_accelerator")
def test_it_lowers_without_a_call_to_the_host(name, config, axis):
    meshes = {None: lambda: None, "data": lambda: data_mesh(8), "member": lambda: member_mesh(3)}
    mesh = meshes[axis]()
    function, arguments = program(name, CONFIGS[config], mesh)
    traced = jax.jit(function).trace(*arguments)
    called = {equation.primitive.name for equation in equations(traced.jaxpr)}
    assert called
    assert not [primitive for primitive in called if "callback" in primitive]
    for platform in ("cuda", "tpu"):
        exported = jax.export.export(jax.jit(function), platforms=[platform])(*arguments)
        assert exported.platforms == (platform,)
        assert exported.nr_devices == (1 if mesh is None else mesh.size)
        text = exported.mlir_module()
        calls = set(re.findall(r"custom_call @([\w.$]+)", text))
        assert not [call for call in calls if "callback" in call.lower() or "host" in call.lower()]
        assert not re.search(r"stablehlo\.(send|recv|infeed|outfeed)", text)
        assert "f64" not in text


def test_a_call_to_the_host_would_be_seen():
    def inner(carry, _):
        jax.debug.callback(lambda _: None, carry)
        return carry, carry

    traced = jax.jit(lambda x: jax.lax.scan(inner, x, length=2)[0]).trace(jnp.zeros(3))
    assert "debug_callback" in {equation.primitive.name for equation in equations(traced.jaxpr)}


def test_every_compiled_function_is_among_them():
    compiled = set()
    for module in pkgutil.iter_modules(jdec.__path__):
        if module.name != "__main__":
            functions = vars(importlib.import_module(f"jdec.{module.name}"))
            compiled |= {
                name
                for name, value in functions.items()
                if hasattr(value, "trace") and hasattr(value, "eval_shape")
            }
    assert compiled == {name.split(",")[0] for name, _, _ in PROGRAMS}
