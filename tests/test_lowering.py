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
from jdec.core.targets import DECParams, Targets
from jdec.trainer import programs
from jdec.trainer.config import Config
from jdec.trainer.programs import Hooks, MemberMapping, MemberOverrides, Plan, Stage, build_network
from jdec.trainer.sharding import RowSharding, data_mesh, member_mesh

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
        "kmeans.overclustering_factors": [1, 6],
        "kmeans.select": "kl",
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
CONVOLUTIONS = {
    "network.kind": "conv",
    "network.channels": [4],
    "network.kernel_sizes": [3],
    "clustering.reconstruction_weight": 0.1,
}
CONFIGS = {
    "fast": FAST,
    "paper": PAPER,
    "frozen encoder": FAST.replace({"clustering.freeze_encoder": True}),
    "bfloat16": FAST.replace({"network.precision": "bfloat16"}),
    "tensorfloat32": FAST.replace({"network.precision": "tensorfloat32"}),
    "convolutions": FAST.replace(CONVOLUTIONS),
    "hooks": FAST,
}
HOOKS = Hooks(
    extra_loss=lambda key, params, batch: jnp.mean(params.centroids**2),
    augment=lambda key, x: x + jax.random.normal(key, x.shape),
)
LAYER, FINETUNE = Stage("layer 1", 0, 9), Stage("finetune", None, 9)

#: Meshes for one fit, and for the members of a population.
MESHES = {
    None: lambda: None,
    "rows": lambda: data_mesh(8),
    "members": lambda: member_mesh(3),
    "members and rows": lambda: member_mesh(2, data_devices=2),
}

#: Every compiled function of the library, by its name.
COMPILED = {
    name: function
    for module in pkgutil.walk_packages(jdec.__path__, "jdec.")
    if not module.name.endswith("__main__") and not module.name.startswith("jdec.bench")
    for name, function in vars(importlib.import_module(module.name)).items()
    if hasattr(function, "trace") and hasattr(function, "eval_shape")
}


def plan_of(config, kind, mesh):
    settings = CONFIGS[config]
    rows = RowSharding(N_ROWS - 1, mesh)
    # On an accelerator members go side by side, on a mesh of it as well.
    members = None if kind == "fit" else MemberMapping(mesh, vectorized=True)
    hooks = HOOKS if config == "hooks" else Hooks()
    return Plan(settings, build_network(settings), rows, hooks, members)


def program(name, config, kind, mesh):
    """A compiled function and the arguments to lower it for."""
    plan = plan_of(config, kind, mesh)
    function = COMPILED[name.split(",")[0]]
    stage = LAYER if name.endswith("layer") else FINETUNE
    keys, overrides = KEY, MemberOverrides()
    centroids = jax.ShapeDtypeStruct((3, 5), jnp.float32)
    p, labels = (
        jax.ShapeDtypeStruct((N_ROWS, 3), jnp.float32),
        jax.ShapeDtypeStruct((N_ROWS,), jnp.int32),
    )
    number = jax.ShapeDtypeStruct((), jnp.float32)
    targets = Targets(p, labels, number, number)
    if kind == "population":
        keys = jax.random.split(KEY, N_MEMBERS)
        ones = jnp.ones(N_MEMBERS)
        overrides = MemberOverrides(ones, ones, jnp.ones((N_MEMBERS, 3), bool))
        centroids, targets = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((N_MEMBERS, *leaf.shape), leaf.dtype),
            (centroids, targets),
        )
    init = partial(programs.init_params, plan=plan, n_features=16)
    params, _ = jax.eval_shape(init, keys)
    state = jax.eval_shape(partial(programs.init_state, plan=plan), params, centroids, overrides)
    match function.__name__:
        case "init_params":
            return init, (keys,)
        case "init_stage":
            return partial(function, plan=plan, stage=stage), (params,)
        case "pretrain_steps":
            states = jax.eval_shape(partial(programs.init_stage, plan=plan, stage=stage), params)
            steps = partial(function, plan=plan, stage=stage, n_steps=3, n_rows=N_ROWS - 1)
            return steps, (keys, states, X, 0)
        case "partition":
            neighbors, points = GRAPHS[name.partition(", ")[2]]
            if kind == "population" and neighbors is not None and points is None:
                neighbors = jax.ShapeDtypeStruct((N_MEMBERS, *neighbors.shape), jnp.int32)
            graph = programs.Graph(neighbors, points)
            leading = (N_MEMBERS,) if kind == "population" else ()
            embeddings = jax.ShapeDtypeStruct((*leading, N_ROWS, 5), jnp.float32)
            return partial(function, plan=plan), (keys, embeddings, overrides, graph)
        case "select_rows":
            indices = jax.ShapeDtypeStruct((8,), jnp.int32)
            return partial(function, rows=RowSharding(8, mesh)), (X, indices)
        case "components":
            return partial(function, plan=plan), (X,)
        case "warm_up":
            shape = (N_MEMBERS, N_ROWS - 1) if kind == "population" else (N_ROWS - 1,)
            labels = jax.ShapeDtypeStruct(shape, jnp.int32)
            return partial(function, plan=plan), (keys, params, centroids, labels, X, overrides)
        case "init_state":
            return partial(function, plan=plan), (params, centroids, overrides)
        case "train":
            return partial(function, plan=plan), (keys, state, targets, X, overrides)
        case "refresh":
            parameters = DECParams(*state.params)
            return partial(function, plan=plan), (parameters, targets.labels, X, overrides)
        case "embed":
            return partial(function, plan=plan), (state.params.encoder, X)
        case "assign":
            arguments = (DECParams(state.params.encoder, centroids), X, jnp.float32(1))
            return partial(function, plan=plan), arguments
        case "split_run_key":
            return function, (KEY,)
        case "seed_keys":
            return function, (jax.ShapeDtypeStruct((), jnp.uint32),)
        case "copy" | "all_finite":
            return function, (state,)
        case "_stage_key":
            return partial(function, stage=stage), (keys,)
        case "_baselines":
            return partial(function, config=plan.config, network=plan.network), (keys, X, params)
        case "_assign":
            arguments = (DECParams(state.params.encoder, centroids), jnp.float32(1), X)
            return partial(function, network=plan.network), arguments
        case "_concatenate":
            joined = RowSharding(2 * N_ROWS - 1, mesh)
            return partial(function, n_a=plan.rows.n_rows, joined=joined), (X, X)
        case "step_indices":
            return partial(function, n_steps=3, n_rows=N_ROWS), (keys,)
        case "_pretrain_batches":
            states = jax.eval_shape(partial(programs.init_stage, plan=plan, stage=stage), params)
            rows = jax.ShapeDtypeStruct((3, 8, 16), jnp.float32)
            return partial(function, plan=plan, stage=stage), (keys, states, rows, 0)
        case "_train_batches":
            rows, q, frequencies = (
                jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 8, 16), (3, 8, 3), (3,))
            )
            return partial(function, plan=plan), (keys, state, rows, q, frequencies, 0)
        case "_reset_optimizer":
            return partial(function, plan=plan), (state,)
        case "_assign_block":
            return partial(function, plan=plan), (DECParams(*state.params), X)
        case "_embed_block":
            return partial(function, plan=plan), (state.params.encoder, X)
        case "_sum_kl":
            return function, (p, jax.ShapeDtypeStruct((3,), jnp.float32))
        case "_neighbors_of_block":
            norms = jax.ShapeDtypeStruct((N_ROWS,), jnp.float32)
            return partial(function, rows=8, n_neighbors=3), (X, norms, jnp.int32(0))


NEIGHBORS = jax.ShapeDtypeStruct((N_ROWS - 1, 4), jnp.int32)
GRAPHS = {
    "": (None, None),
    "data": (NEIGHBORS, jax.ShapeDtypeStruct((N_ROWS - 1, 3), jnp.float32)),
    "embedding": (NEIGHBORS, None),
}
TRAINING = ["pretrain_steps, layer", "pretrain_steps, all", "partition", "train", "refresh"]
STARTS = ["partition, data", "partition, embedding", "warm_up"]
OF_A_FIT = ["init_params", "init_stage, layer", "init_state", "embed", "assign_block"]
OF_A_FIT += ["assign", "split_run_key", "seed_keys", "copy", "_all_finite", "_stage_key"]
OF_A_FIT += ["_baselines", "components", *STARTS, "_concatenate", "_neighbors_of_block"]
STREAMED = ["_pretrain_batches", "_train_batches", "_assign_block", "_embed_block"]
OF_A_FIT += [*STREAMED, "_step_indices", "_reset_optimizer", "_sum_kl", "select_rows"]
OF_MEMBERS = ["init_params", "init_stage, layer", "init_state", "embed"]
PROGRAMS = [
    *((name, "fast", "fit", None) for name in [*TRAINING, *OF_A_FIT]),
    *((name, "paper", "fit", None) for name in TRAINING),
    *(("train", config, "fit", None) for config in CONFIGS if config not in ("fast", "paper")),
    *(("pretrain_steps, all", config, "fit", None) for config in ("bfloat16", "convolutions")),
    *(
        (name, "fast", "fit", "rows")
        for name in [
            *(*TRAINING[1:], *STARTS, "components", "embed", "assign", "_concatenate"),
            *(*STREAMED, "select_rows"),
        ]
    ),
    *((name, "fast", "population", None) for name in [*TRAINING[1:], *STARTS, *OF_MEMBERS]),
    *((name, "fast", "population", "members") for name in [*TRAINING[1:], *STARTS]),
    *((name, "fast", "population", "members and rows") for name in [*TRAINING[1:], *STARTS]),
]


@pytest.fixture(scope="module")
def _accelerator():
    """Have jdec do as it does on an accelerator: restarts of k-means side by side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        yield
    jax.clear_caches()  # of what was traced for that


@pytest.mark.parametrize(("name", "config", "kind", "axes"), PROGRAMS)
@pytest.mark.usefixtures("_accelerator")
def test_it_lowers_without_a_call_to_the_host(name, config, kind, axes):
    mesh = MESHES[axes]()
    function, arguments = program(name, config, kind, mesh)
    compiled = jax.jit(function)
    called = {equation.primitive.name for equation in equations(compiled.trace(*arguments).jaxpr)}
    assert called
    assert not [primitive for primitive in called if "callback" in primitive]
    for platform in ("cuda", "tpu"):
        exported = jax.export.export(compiled, platforms=[platform])(*arguments)
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
    assert set(COMPILED) == {name.split(",")[0] for name, *_ in PROGRAMS}
