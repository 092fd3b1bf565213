"""The programs of a fit on MNIST, and the shapes they are compiled for: what ``aot`` compiles."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from jdec.core.targets import Targets
from jdec.trainer import programs
from jdec.trainer.config import Config
from jdec.trainer.history import chunks
from jdec.trainer.presets import preset_config
from jdec.trainer.programs import Graph, MemberMapping, MemberOverrides, Plan, Stage, build_network
from jdec.trainer.sharding import DATA, MEMBER, Mesh, RowSharding

N_ROWS, IMAGE_SHAPE, N_CLUSTERS = 70_000, (28, 28), 10
N_FEATURES = IMAGE_SHAPE[0] * IMAGE_SHAPE[1]
MANY_ROWS, N_MEMBERS, N_DEVICES = 1_000_000, 32, 4

EVERYWHERE = ""  # no axis of a mesh


class Case(NamedTuple):
    """A program, and the fit or the members it is compiled for."""

    program: str  # of jdec.trainer.programs, and which one of several
    recipe: str = "fast"
    n_members: int | None = None  # None for a fit
    n_devices: int = 1  # which share the rows of a fit, or the members
    n_rows: int = N_ROWS

    @property
    def name(self) -> str:
        """A name by which to choose it.

        Examples:
            >>> Case("train", n_members=32, n_devices=4).name
            'train/fast/32 members/4 devices'
        """
        parts = [self.program, self.recipe]
        parts += [] if self.n_members is None else [f"{self.n_members} members"]
        parts += [] if self.n_devices == 1 else [f"{self.n_devices} devices"]
        parts += [] if self.n_rows == N_ROWS else [f"{self.n_rows} rows"]
        return "/".join(parts)


_PRETRAINING = ("init_params", "init_stage", "pretrain_steps, finetune")
_START = ("embed", "partition, graph", "partition, k-means", "init_state", "warm_up")
_OF_A_FIT = (*_PRETRAINING, *_START, "refresh", "train")
_OF_PAPER = (
    *(f"pretrain_steps, layer {layer}" for layer in (1, 2, 3, 4)),
    *("pretrain_steps, finetune", "partition, k-means", "train"),
)
_OF_MANY_ROWS = (
    "pretrain_steps, finetune",
    "embed",
    "select_rows",
    "components",
    "refresh",
    "train",
    "assign",
)

#: Every program of a fit, of one member and of 32, on one device and on four.
CASES = (
    *(Case(program) for program in (*_OF_A_FIT, "components", "assign", "assign_block")),
    *(Case(program, "paper") for program in _OF_PAPER),
    *(Case(program, n_rows=MANY_ROWS) for program in _OF_MANY_ROWS),
    Case("partition, k-means", "paper", n_rows=MANY_ROWS),
    *(Case(program, n_members=N_MEMBERS) for program in _OF_A_FIT),
    *(Case(program, n_members=N_MEMBERS, n_rows=MANY_ROWS) for program in ("refresh", "train")),
    *(Case(program, n_devices=N_DEVICES) for program in (*_OF_A_FIT, "components", "assign")),
    *(Case(program, n_members=N_MEMBERS, n_devices=N_DEVICES) for program in _OF_A_FIT),
)


def configuration(recipe: str) -> Config:
    """Return a preset for MNIST, both with the network of the paper."""
    config = preset_config(
        recipe, n_clusters=N_CLUSTERS, n_rows=N_ROWS, dataset="mnist", image_shape=IMAGE_SHAPE
    )
    return config.replace({"network.hidden_dims": [500, 500, 2000]})


def plan_of(case: Case, devices: list[Any]) -> Plan:
    """Return the plan of a case, as a fit on accelerators would make it."""
    config, mesh = configuration(case.recipe), None
    if case.n_devices > 1:
        axes = (DATA if case.n_members is None else MEMBER,)
        mesh = Mesh(np.array(devices[: case.n_devices]), axes, axis_types=(AxisType.Auto,))
    # On an accelerator members go side by side.
    members = None if case.n_members is None else MemberMapping(mesh, vectorized=True)
    return Plan(config, build_network(config), RowSharding(case.n_rows, mesh), members=members)


class Shapes:
    """Shapes of what the programs of a plan pass on to each other, placed on its devices."""

    def __init__(self, case: Case, devices: list[Any]) -> None:
        self.case, self.plan, self.device = case, plan_of(case, devices), devices[0]
        self.leading = () if case.n_members is None else (case.n_members,)
        # What has an entry a row: of a fit sharded by rows, of members by member.
        self.rows_axis = DATA if case.n_members is None else MEMBER

    def place(self, tree: Any, axis: str = MEMBER) -> Any:
        """Shard every leaf along an axis, if the mesh has it; else it is everywhere."""
        mesh = self.plan.rows.mesh
        if mesh is None:
            sharding: Any = SingleDeviceSharding(self.device)
        else:
            spec = PartitionSpec(axis) if axis in mesh.axis_names else PartitionSpec()
            sharding = NamedSharding(mesh, spec)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    def array(self, *shape: int, dtype: Any = jnp.float32, axis: str = MEMBER) -> Any:
        """Return the shape of an array of the fit, or of one of each member."""
        return self.place(jax.ShapeDtypeStruct((*self.leading, *shape), dtype), axis)

    def shared(self, *shape: int, dtype: Any = jnp.float32, axis: str = DATA) -> Any:
        """Return the shape of an array that all members share."""
        return self.place(jax.ShapeDtypeStruct(shape, dtype), axis)

    @property
    def keys(self) -> Any:
        """Random keys."""
        return self.array(dtype=jax.random.key(0).dtype)

    @property
    def x(self) -> Any:
        """The rows."""
        return self.shared(self.plan.rows.padded_length, N_FEATURES)

    @cached_property
    def params(self) -> Any:
        """Parameters of the autoencoder."""
        init = partial(programs.init_params, plan=self.plan, n_features=N_FEATURES)
        params, _ = jax.eval_shape(init, self.keys)
        return self.place(params)

    @property
    def latent_dim(self) -> int:
        """Width of an embedding."""
        return self.plan.config.network.latent_dim

    @cached_property
    def state(self) -> Any:
        """State of self-training."""
        centroids = self.array(N_CLUSTERS, self.latent_dim)
        init = partial(programs.init_state, plan=self.plan)
        return self.place(jax.eval_shape(init, self.params, centroids))

    def labels(self, n_rows: int) -> Any:
        """Labels of some rows."""
        return self.array(n_rows, dtype=jnp.int32, axis=self.rows_axis)

    @property
    def targets(self) -> Any:
        """Targets of self-training, as a refresh returns them."""
        n_rows, number = self.plan.rows.padded_length, self.array()
        p = self.array(n_rows, N_CLUSTERS, axis=self.rows_axis)
        return Targets(p, self.labels(n_rows), number, number)

    def graph(self) -> Graph:
        """Neighbours among the embeddings, as found on the host."""
        settings = self.plan.config.graph
        n_rows = min(self.plan.rows.n_rows, settings.max_rows)
        shape = (n_rows, settings.n_neighbors + 1)
        return Graph(self.array(*shape, dtype=jnp.int32), None)


def traced(case: Case, devices: list[Any]) -> Any:
    """Trace the program of a case for some devices."""
    name, _, variant = case.program.partition(", ")
    shapes = Shapes(case, devices)
    arguments, static = _ARGUMENTS[name](shapes, variant)
    return getattr(programs, name).trace(*arguments, **static)


def n_steps(case: Case) -> int:
    """Return how many steps the longest loop of a program runs; 1 where it runs none."""
    config = configuration(case.recipe)
    name, _, variant = case.program.partition(", ")
    if name == "pretrain_steps":
        return next(length for _, length in chunks(_stage(config, variant).n_steps))
    steps = {"train": config.clustering.update_interval, "warm_up": config.clustering.warmup_steps}
    return steps.get(name, 1)


def _stage(config: Config, name: str) -> Stage:
    stages = programs.pretraining_stages(config, build_network(config))
    return next(stage for stage in stages if stage.name == (name or "finetune"))


def _init_stage(shapes: Shapes, variant: str) -> Any:
    stage = _stage(shapes.plan.config, variant)
    return (shapes.params,), {"plan": shapes.plan, "stage": stage}


def _pretrain_steps(shapes: Shapes, variant: str) -> Any:
    (params,), static = _init_stage(shapes, variant)
    state = shapes.place(jax.eval_shape(partial(programs.init_stage, **static), params))
    static |= {"n_steps": n_steps(shapes.case), "n_rows": shapes.case.n_rows}
    first_step = shapes.shared(dtype=jnp.int32, axis=EVERYWHERE)
    return (shapes.keys, state, shapes.x, first_step), static


def _partition(shapes: Shapes, variant: str) -> Any:
    shape = (shapes.plan.rows.padded_length, shapes.latent_dim)
    embeddings = shapes.array(*shape, axis=shapes.rows_axis)
    graph: Any = shapes.graph() if variant == "graph" else Graph(None, None)  # type: ignore[arg-type]
    plan = shapes.plan
    if variant == "k-means":  # as preset paper has it
        plan = replace(plan, config=plan.config.replace({"kmeans.select": "inertia"}))
    return (shapes.keys, embeddings, MemberOverrides(), graph), {"plan": plan}


def _select_rows(shapes: Shapes, _: str) -> Any:
    n_selected = min(shapes.plan.config.kmeans.max_rows, shapes.case.n_rows)
    rows = shapes.plan.rows._replace(n_rows=n_selected)
    indices = shapes.place(jax.ShapeDtypeStruct((rows.padded_length,), jnp.int32), EVERYWHERE)
    return (shapes.x, indices), {"rows": rows}


def _with_plan(*names: str) -> Callable[[Shapes, str], Any]:
    def arguments(shapes: Shapes, _: str) -> Any:
        return tuple(getattr(shapes, name) for name in names), {"plan": shapes.plan}

    return arguments


def _warm_up(shapes: Shapes, _: str) -> Any:
    labels = shapes.array(shapes.plan.rows.n_rows, dtype=jnp.int32)
    arguments = (shapes.keys, shapes.params, shapes.state.params.centroids, labels, shapes.x)
    return arguments, {"plan": shapes.plan}


def _refresh(shapes: Shapes, _: str) -> Any:
    labels = shapes.labels(shapes.plan.rows.padded_length)
    return (shapes.state.params, labels, shapes.x), {"plan": shapes.plan}


def _assign(shapes: Shapes, _: str) -> Any:
    alpha = shapes.shared(axis=EVERYWHERE)
    return (shapes.state.params, shapes.x, alpha), {"plan": shapes.plan}


def _assign_block(shapes: Shapes, _: str) -> Any:
    block, alpha = shapes.shared(programs.BLOCK_SIZE, N_FEATURES), shapes.shared()
    return (shapes.state.params, alpha, block), {"network": shapes.plan.network}


def _embed(shapes: Shapes, _: str) -> Any:
    return (shapes.state.params.encoder, shapes.x), {"plan": shapes.plan}


def _init_state(shapes: Shapes, _: str) -> Any:
    return (shapes.params, shapes.state.params.centroids), {"plan": shapes.plan}


def _init_params(shapes: Shapes, _: str) -> Any:
    return (shapes.keys,), {"plan": shapes.plan, "n_features": N_FEATURES}


#: ``arguments(shapes, variant)``: those of each program, and its static ones.
_ARGUMENTS: dict[str, Callable[[Shapes, str], Any]] = {
    "init_params": _init_params,
    "init_stage": _init_stage,
    "pretrain_steps": _pretrain_steps,
    "select_rows": _select_rows,
    "components": _with_plan("x"),
    "embed": _embed,
    "partition": _partition,
    "init_state": _init_state,
    "warm_up": _warm_up,
    "refresh": _refresh,
    "train": _with_plan("keys", "state", "targets", "x"),
    "assign": _assign,
    "assign_block": _assign_block,
}
