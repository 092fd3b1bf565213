"""The jitted programs of a run: init, pretrain, partition, train, refresh, assign.

A fit and the members of a population share them: a plan with a member mapping has them mapped along
a leading axis of keys, states and targets. Plans are hashable static arguments, so a second run
with the same settings and shapes compiles nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from jdec._typing import EncodeFn, Params
from jdec.core.augmentation import (
    AffineTransform,
    corrupt,
    random_transform,
    transform_images,
)
from jdec.core.autoencoder import Autoencoder, encoder_params
from jdec.core.batches import Batches, take_rows
from jdec.core.convolutional import ConvolutionalAutoencoder
from jdec.core.dec import (
    DECBatch,
    DECState,
    ExtraLossFn,
    is_finished,
    self_training,
    train_interval,
)
from jdec.core.functional import soft_assignment
from jdec.core.graph import graph_partition, principal_components
from jdec.core.kmeans import KMeansResult
from jdec.core.networks import StackedDenoisingAutoencoder
from jdec.core.optimizers import make_optimizer
from jdec.core.pretraining import PretrainState, finetune, layerwise
from jdec.core.start import initial_partition, partition_of_labels
from jdec.core.targets import (
    DECParams,
    Targets,
    all_finite,
    cluster_sizes,
    embed_in_blocks,
    map_row_blocks,
)
from jdec.core.training import Algorithm, scan_steps
from jdec.trainer.config import Config, OptimizerConfig
from jdec.trainer.fingerprint import describe
from jdec.trainer.sharding import (
    DATA,
    MEMBER,
    Mesh,
    RowSharding,
    all_gather,
    map_over_devices,
    pad_items,
)
from jdec.trainer.streamed_rows import BLOCK_SIZE

#: ``augment(key, x [B D]) -> x [B D]``: a random variant of each row that keeps its cluster.
AugmentFn = Callable[[Key[Array, ""], Float[Array, "B D"]], Float[Array, "B D"]]


class RunKeys(NamedTuple):
    """The random keys of a run, one for each of its parts."""

    init: Key[Array, ""]
    pretraining: Key[Array, ""]
    kmeans: Key[Array, ""]
    clustering: Key[Array, ""]


@jax.jit
def split_run_key(key: Key[Array, ""]) -> RunKeys:
    """Split the key of a run."""
    return RunKeys(*jax.random.split(key, 4))


class Stage(NamedTuple):
    """One stage of pretraining."""

    name: str
    layer: int | None  # None trains the whole autoencoder
    n_steps: int
    number: int = 0  # among the stages: each has a key of its own

    def key(self, key: Any) -> Any:
        """Return the key of this stage, given that of pretraining."""
        return jax.random.fold_in(key, self.number)


class Hooks(NamedTuple):
    """What a caller brings beside the settings: optimizers, a loss, an augmentation."""

    pretrain_tx: optax.GradientTransformation | None = None
    clustering_tx: optax.GradientTransformation | None = None
    extra_loss: ExtraLossFn | None = None
    augment: AugmentFn | None = None


class MemberMapping(NamedTuple):
    """How members are mapped over: on which devices, and by ``jax.vmap`` or ``jax.lax.map``."""

    mesh: Mesh | None = None
    vectorized: bool = True


class MemberOverrides(NamedTuple):
    """Settings of self-training that may differ within a population; None: as configured."""

    alpha: Float[Array, "*M"] | None = None
    learning_rate: Float[Array, "*M"] | None = None
    cluster_mask: Bool[Array, "*M K"] | None = None


class Graph(NamedTuple):
    """Nearest neighbours, and the points among which they were found."""

    neighbors: Int[Array, "*M S k"]  # index of a row, followed by those of its nearest other rows
    points: Float[Array, "N d"] | None  # None: the embeddings of each member


@dataclass(frozen=True)
class Plan:
    """All that is static about a run."""

    config: Config
    network: Autoencoder
    rows: RowSharding
    hooks: Hooks = field(default_factory=Hooks)
    members: MemberMapping | None = None  # None for a fit, whose arrays have no member axis
    unroll: int = 1  # of the loops over steps

    @property
    def keeps_decoder(self) -> bool:
        """Whether the loss of self-training uses the decoder, which is then trained and saved."""
        weight = self.config.clustering.reconstruction_weight
        return weight > 0 or self.hooks.extra_loss is not None


def build_network(config: Config) -> Autoencoder:
    """Return the built-in autoencoder of a configuration."""
    settings = config.network
    common: Any = (settings.latent_dim, settings.initializer, settings.precision)
    if settings.kind == "conv" and config.image_shape is not None:
        sizes = (settings.channels, settings.kernel_sizes)
        return ConvolutionalAutoencoder(config.image_shape, *sizes, *common)
    return StackedDenoisingAutoencoder(settings.hidden_dims, *common)


def own_network(plan: Plan) -> Autoencoder | None:
    """Return the network of a plan where it is not the built-in one of its configuration."""
    return None if plan.network == build_network(plan.config) else plan.network


def describe_plan(plan: Plan) -> dict[str, str | None]:
    """Return what a plan has beside its settings, as texts for the fingerprint of a run."""
    parts = {"network": own_network(plan), **plan.hooks._asdict()}
    return {name: None if part is None else describe(part) for name, part in parts.items()}


def pretraining_stages(config: Config, network: Any) -> list[Stage]:
    """Return the stages that a configuration asks for, in order."""
    settings, stages = config.pretrain, []
    if settings.layerwise_steps:
        stages += [
            Stage(f"layer {layer + 1}", layer, settings.layerwise_steps, layer)
            for layer in range(network.n_layers)
        ]
    if settings.finetune_steps:
        stages.append(Stage("finetune", None, settings.finetune_steps, len(stages)))
    return stages


def build_optimizer(
    settings: OptimizerConfig,
    n_steps: int,
    *,
    learning_rate: float | Float[Array, ""] | None = None,
) -> optax.GradientTransformation:
    """Return the optimizer of a phase of ``n_steps`` steps, perhaps of another learning rate."""
    values = dict(vars(settings))
    name, rate = values.pop("name"), values.pop("learning_rate")
    rate = rate if learning_rate is None else learning_rate
    return make_optimizer(name, rate, n_steps=n_steps, **values)


def build_pretraining(plan: Plan, stage: Stage) -> Algorithm:
    """Return the algorithm of one stage of pretraining."""
    settings = plan.config.pretrain
    tx = plan.hooks.pretrain_tx or build_optimizer(settings.optimizer, stage.n_steps)
    options: Any = {"loss_scale": settings.loss_scale}
    if stage.layer is None:
        rate = settings.finetune_corruption_rate
        return finetune(plan.network, tx, corruption_rate=rate, **options)
    options |= {"corruption_rate": settings.corruption_rate, "corrupt_data": settings.corrupt_data}
    return layerwise(plan.network, stage.layer, tx, **options)


def build_self_training(
    plan: Plan,
    overrides: MemberOverrides = MemberOverrides(),  # noqa: B008 (immutable)
    tx: optax.GradientTransformation | None = None,
) -> Algorithm:
    """Return the algorithm of self-training, perhaps with another optimizer."""
    settings = plan.config.clustering
    n_steps = settings.max_intervals * settings.update_interval
    own_rate = tx is None and overrides.learning_rate is not None
    tx = tx or plan.hooks.clustering_tx
    if tx is None or own_rate:
        tx = build_optimizer(settings.optimizer, n_steps, learning_rate=overrides.learning_rate)
    return self_training(
        plan.network.encode,
        tx,
        alpha=settings.alpha if overrides.alpha is None else overrides.alpha,
        freeze_encoder=settings.freeze_encoder,
        extra_loss=partial(_extra_loss, plan) if plan.keeps_decoder else None,
        cluster_mask=overrides.cluster_mask,
        embed=partial(embed_all, plan.rows),
    )


def _extra_loss(
    plan: Plan, key: Key[Array, ""], params: DECParams, batch: DECBatch
) -> Float[Array, ""]:
    weight, total = plan.config.clustering.reconstruction_weight, jnp.zeros(())
    if weight:
        z = plan.network.encode(params.encoder, batch.x)
        total = weight * jnp.mean((plan.network.decode(params.encoder, z) - batch.x) ** 2)
    if plan.hooks.extra_loss is None:
        return total
    extra = plan.hooks.extra_loss(key, params, batch)
    return total + extra if weight else extra


def embed_all(
    rows: RowSharding, encode: EncodeFn, params: Params, x: Float[Array, "N D"]
) -> Float[Array, "N Z"]:
    """Embed all rows in blocks, each device its own."""
    return rows.map(partial(embed_in_blocks, encode, block_size=BLOCK_SIZE))(params, x)


class Drawn(NamedTuple):
    """The random numbers of a mini-batch; None where none are needed."""

    transform: AffineTransform | None
    augment: Key[Array, ""] | None  # of the caller's augmentation
    corrupt: Key[Array, ""] | None


def draw_pretraining(plan: Plan, key: Key[Array, ""]) -> Drawn:
    """Draw what :func:`alter_pretraining` takes."""
    return _draw(plan, key, plan.config.pretrain.batch_size)


def draw_clustering(plan: Plan, key: Key[Array, ""]) -> Drawn:
    """Draw what :func:`alter_clustering` takes."""
    augment_key, corrupt_key = jax.random.split(key)
    drawn = _draw(plan, augment_key, plan.config.clustering.batch_size)
    return drawn._replace(corrupt=corrupt_key)


def _draw(plan: Plan, key: Key[Array, ""], batch_size: int) -> Drawn:
    config, transform = plan.config, None
    if config.image_shape is not None and config.augmentation:
        transform = random_transform(key, batch_size, config.augmentation)
    own = None if plan.hooks.augment is None else jax.random.fold_in(key, 1)
    return Drawn(transform, own, None)


def _augment(plan: Plan, drawn: Drawn, x: Float[Array, "B D"]) -> Float[Array, "B D"]:
    config = plan.config
    if drawn.transform is not None and config.image_shape is not None:
        x = transform_images(drawn.transform, x, config.image_shape, config.augmentation)
    if plan.hooks.augment is not None and drawn.augment is not None:
        x = plan.hooks.augment(drawn.augment, x)
    return x


def alter_pretraining(plan: Plan, drawn: Drawn, x: Float[Array, "B D"]) -> Float[Array, "B D"]:
    """Augment the rows of a mini-batch of pretraining."""
    return plan.rows.constrain(_augment(plan, drawn, x))


def alter_clustering(plan: Plan, drawn: Drawn, batch: DECBatch) -> DECBatch:
    """Augment and corrupt the rows of a mini-batch of self-training."""
    x = _augment(plan, drawn, batch.x)
    if drawn.corrupt is not None:
        x = corrupt(drawn.corrupt, x, plan.config.clustering.corruption_rate)
    return DECBatch(plan.rows.constrain(x), plan.rows.constrain(batch.p))


def _gather(
    alter: Callable[..., Any], plan: Plan, drawn: Drawn, data: Any, indices: Int[Array, "B"]
) -> Any:
    # On every device: else each draws its share, and waits for those of the others.
    indices = all_gather(indices, plan.rows.mesh)
    return alter(plan, drawn, take_rows(drawn, data, indices))


def _map_members(plan: Plan, function: Callable[..., Any], items: Any, *shared: Any) -> Any:
    """Apply ``function(item, *shared)`` to a fit, or to each member."""
    if plan.members is None:
        return function(items, *shared)
    mesh, vectorized = plan.members
    if mesh is None or DATA not in mesh.axis_names:
        return map_over_devices(function, items, mesh, shared=shared, vectorized=vectorized)
    # Rows over devices: the compiler divides the work, as the constraints on rows say.
    n_items = len(jax.tree.leaves(items)[0])
    axis = MEMBER if MEMBER in mesh.axis_names else None
    padded = pad_items(items, -n_items % dict(mesh.shape).get(MEMBER, 1))
    mapped = jax.vmap(lambda item: function(item, *shared), spmd_axis_name=axis)(padded)
    return jax.tree.map(lambda leaf: leaf[:n_items], mapped)


@partial(jax.jit, static_argnames=("plan", "n_features"))
def init_params(key: Any, *, plan: Plan, n_features: int) -> tuple[Params, Bool[Array, "*M"]]:
    """Draw fresh parameters; returns whether they are finite as well."""

    def init(key: Any) -> Any:
        params = plan.network.init(key, n_features)
        return params, all_finite(params)

    return _map_members(plan, init, key)


@partial(jax.jit, static_argnames=("plan", "stage"))
def init_stage(params: Params, *, plan: Plan, stage: Stage) -> PretrainState:
    """Make the first state of a stage of pretraining."""
    state = _map_members(plan, build_pretraining(plan, stage).init, params)
    return jax.tree.map(jnp.copy, state)  # because the state is donated


@partial(jax.jit, static_argnames=("plan", "stage", "n_steps", "n_rows"), donate_argnames="state")
def pretrain_steps(
    key: Any,
    state: PretrainState,
    x: Float[Array, "N D"],
    first_step: Int[Array, ""] | int,
    *,
    plan: Plan,
    stage: Stage,
    n_steps: int,
    n_rows: int,
) -> tuple[PretrainState, Float[Array, "*M S"], Bool[Array, "*M"]]:
    """Run S steps of a stage on the first ``n_rows`` rows; ``state`` is donated.

    Returns the state, the loss of each step, and whether the parameters are finite.
    """
    settings = plan.config.pretrain
    batches = Batches(
        settings.batch_size,
        settings.batch_order,
        n_rows,
        partial(_gather, alter_pretraining, plan),
        partial(draw_pretraining, plan),
        plan.unroll,
    )

    def steps(item: Any, x: Any, first_step: Any) -> Any:
        key, state = item
        algorithm = build_pretraining(plan, stage)
        of_steps: Any = {"first_step": first_step, "n_steps": n_steps, "batches": batches}
        state, info = scan_steps(algorithm, stage.key(key), state, x, **of_steps)
        return state, info.loss, all_finite(state.params)

    return _map_members(plan, steps, (key, state), x, first_step)


@partial(jax.jit, static_argnames="plan")
def partition(
    key: Any,
    embeddings: Float[Array, "*M N Z"],
    overrides: MemberOverrides = MemberOverrides(),  # noqa: B008 (immutable)
    graph: Graph = Graph(None, None),  # type: ignore[arg-type]  # noqa: B008 (immutable)
    *,
    plan: Plan,
) -> KMeansResult:
    """Partition the rows, by their pretrained embedding or a graph: what self-training starts from.

    Without a graph, as of a single row, ``modularity`` is the same as ``inertia``.
    """
    mesh = plan.rows.mesh
    map_restarts = None
    if plan.members is None and mesh is not None:
        map_restarts = partial(_map_restarts, mesh=mesh)

    def one(item: Any, points: Any) -> KMeansResult:
        key, embeddings, overrides, neighbors = item
        # Embeddings are few numbers a row: every device has all, and takes some of the restarts.
        embeddings = all_gather(embeddings, mesh)[: plan.rows.n_rows]
        if neighbors is not None:
            labels = graph_partition(
                key,
                embeddings if points is None else points,
                neighbors,
                plan.config.n_clusters,
                **_graph_settings(plan.config),
            )
            return partition_of_labels(embeddings, labels, plan.config.n_clusters)
        return initial_partition(
            key,
            embeddings,
            plan.config.n_clusters,
            **_kmeans_settings(plan.config),
            alpha=plan.config.clustering.alpha if overrides.alpha is None else overrides.alpha,
            map_restarts=map_restarts,
        )

    if plan.members is not None:
        # As restarts of k-means: on a CPU the first to converge should not wait for the last.
        mapping = plan.members._replace(vectorized=jax.default_backend() != "cpu")
        plan = replace(plan, members=mapping)
    neighbors = graph.neighbors
    if plan.members is not None and graph.points is not None:  # one graph for all members
        neighbors = jnp.broadcast_to(neighbors, (len(key), *neighbors.shape))
    return _map_members(plan, one, (key, embeddings, overrides, neighbors), graph.points)


def _kmeans_settings(config: Config) -> dict[str, Any]:
    settings = vars(config.kmeans).copy()
    del settings["max_rows"]
    if config.kmeans.select == "modularity":
        settings["select"] = "inertia"
    return settings


def _graph_settings(config: Config) -> dict[str, Any]:
    settings = vars(config.graph).copy()
    for name in ("space", "n_components", "n_neighbors", "max_rows"):
        del settings[name]
    return settings | {"max_iter": config.kmeans.max_iter}


@partial(jax.jit, static_argnames="rows")
def select_rows(
    x: Float[Array, "N D"], indices: Int[Array, "S"], *, rows: RowSharding
) -> Float[Array, "S D"]:
    """Return the rows at some indices, which lie as ``rows`` says."""
    return rows.constrain(x[indices])


@partial(jax.jit, static_argnames="plan")
def components(x: Float[Array, "N D"], *, plan: Plan) -> Float[Array, "N d"]:
    """Project the rows on their principal components, for the graph."""
    # The same in all runs: the components do not depend on where the iteration starts.
    key, n_components = jax.random.key(0), plan.config.graph.n_components
    # Devices that share the rows sum their own.
    block_size = BLOCK_SIZE if plan.rows.n_shards == 1 else None
    options: Any = {"n_rows": plan.rows.n_rows, "block_size": block_size}
    return plan.rows.constrain(principal_components(key, x, n_components, **options))


def _map_restarts(
    function: Callable[..., Any], keys: Key[Array, "R"], shared: tuple[Any, ...], *, mesh: Mesh
) -> Any:
    found = map_over_devices(function, keys, mesh, shared=shared)
    return jax.tree.map(partial(all_gather, mesh=mesh), found)


@partial(jax.jit, static_argnames="plan")
def init_state(
    params: Params,
    centroids: Float[Array, "*M K Z"],
    overrides: MemberOverrides = MemberOverrides(),  # noqa: B008 (immutable)
    *,
    plan: Plan,
) -> DECState:
    """Make the first state of self-training from pretrained parameters and centroids."""
    state = _map_members(plan, partial(_init_state, plan), (params, centroids, overrides))
    return jax.tree.map(jnp.copy, state)  # because the state is donated


def _init_state(plan: Plan, item: Any) -> DECState:
    params, centroids, overrides = item
    if not plan.keeps_decoder:
        params = encoder_params(plan.network, params)
    return build_self_training(plan, overrides).init(params, centroids)


@partial(jax.jit, static_argnames="plan")
def warm_up(
    key: Any,
    params: Params,
    centroids: Float[Array, "*M K Z"],
    labels: Int[Array, "*M n"],
    x: Float[Array, "N D"],
    overrides: MemberOverrides = MemberOverrides(),  # noqa: B008 (immutable)
    *,
    plan: Plan,
) -> tuple[DECState, Float[Array, "*M S"]]:
    """Train the steps before the first refresh, with P the initial partition.

    Returns the first state of self-training, its optimizer fresh, and the mean KL of each
    mini-batch. One that assigns fewer rows as the partition does than :func:`init_state` is not
    taken.
    """
    settings = plan.config.clustering
    tx = build_optimizer(settings.warmup_optimizer, settings.warmup_steps)

    def steps(item: Any, x: Any) -> Any:
        key, params, centroids, labels, overrides = item
        state = _init_state(plan, (params, centroids, overrides))
        algorithm = build_self_training(plan, overrides, tx)
        # Padding is of no cluster, and is not drawn.
        labels = jnp.pad(labels, (0, len(x) - len(labels)), constant_values=-1)
        p = plan.rows.constrain(jax.nn.one_hot(labels, plan.config.n_clusters, dtype=x.dtype))
        warmed, infos = scan_steps(
            algorithm,
            # Of no step of self-training: these are counted in int32.
            jax.random.fold_in(key, 2**32 - 1),
            algorithm.init(*state.params),
            DECBatch(x, p),
            n_steps=settings.warmup_steps,
            batches=_clustering_batches(plan),
        )

        def disagreement(params: DECParams) -> Float[Array, ""]:
            targets: Targets = algorithm.refresh(params, x, labels, n_rows=plan.rows.n_rows)
            return targets.label_change

        # What is not finite compares false, and is taken to be told.
        is_worse = disagreement(warmed.params) > disagreement(state.params)
        params = jax.tree.map(partial(jnp.where, is_worse), state.params, warmed.params)
        return build_self_training(plan, overrides).init(*params), infos.kl

    state, kl = _map_members(plan, steps, (key, params, centroids, labels, overrides), x)
    return jax.tree.map(jnp.copy, state), kl  # because the state is donated


def _clustering_batches(plan: Plan) -> Batches:
    settings = plan.config.clustering
    seams = (partial(_gather, alter_clustering, plan), partial(draw_clustering, plan))
    size, order = settings.batch_size, settings.batch_order
    return Batches(size, order, plan.rows.n_rows, *seams, plan.unroll)


@partial(jax.jit, static_argnames="plan", donate_argnames="state")
def train(
    key: Any,
    state: DECState,
    targets: Targets,
    x: Float[Array, "N D"],
    overrides: MemberOverrides = MemberOverrides(),  # noqa: B008 (immutable)
    *,
    plan: Plan,
) -> tuple[DECState, Float[Array, "*M S"]]:
    """Train the steps of one interval, of members that have not finished; ``state`` is donated.

    Returns the state and the mean KL of each mini-batch.
    """
    settings = plan.config.clustering

    def interval(item: Any, x: Any) -> Any:
        key, state, targets, overrides = item
        state, infos = train_interval(
            key,
            state,
            targets,
            x,
            build_self_training(plan, overrides),
            update_interval=settings.update_interval,
            batches=_clustering_batches(plan),
            reset_optimizer=settings.reset_optimizer,
        )
        return state, infos.kl

    def unless_finished(item: Any, x: Any) -> Any:
        _, state, targets, _ = item
        finished = is_finished(
            state.interval,
            targets.label_change,
            tol=settings.tol,
            max_intervals=settings.max_intervals,
        )
        held = (state, jnp.full(settings.update_interval, jnp.nan, jnp.float32))
        if plan.members is not None and not plan.members.vectorized:
            # One after another, this saves the work.
            return jax.lax.cond(finished, lambda: held, lambda: interval(item, x))
        # Side by side, a condition would copy the rows for every member.
        trained = interval(item, x)
        return jax.tree.map(lambda a, b: jnp.where(finished, a, b), held, trained)

    function = interval if plan.members is None else unless_finished
    return _map_members(plan, function, (key, state, targets, overrides), x)


@partial(jax.jit, static_argnames="plan")
def refresh(
    params: DECParams,
    labels: Int[Array, "*M N"],
    x: Float[Array, "N D"],
    overrides: MemberOverrides = MemberOverrides(),  # noqa: B008 (immutable)
    *,
    plan: Plan,
) -> tuple[Targets, Int[Array, "*M K"]]:
    """Recompute the targets, and count the rows of each cluster.

    Compiled separately: a resumed run starts here and stays bit-identical.
    """

    def one(item: Any, x: Any) -> Any:
        params, labels, overrides = item
        algorithm = build_self_training(plan, overrides)
        targets: Targets = algorithm.refresh(params, x, labels, n_rows=plan.rows.n_rows)
        sizes = cluster_sizes(targets.labels, plan.config.n_clusters)
        constrain = plan.rows.constrain
        return targets._replace(p=constrain(targets.p), labels=constrain(targets.labels)), sizes

    return _map_members(plan, one, (params, labels, overrides), x)


@partial(jax.jit, static_argnames="plan")
def embed(params: Params, x: Float[Array, "N D"], *, plan: Plan) -> Float[Array, "*M N Z"]:
    """Embed all rows."""
    return _map_members(plan, partial(embed_all, plan.rows, plan.network.encode), params, x)


@partial(jax.jit, static_argnames="plan")
def assign(
    params: DECParams, x: Float[Array, "N D"], alpha: Float[Array, ""], *, plan: Plan
) -> tuple[Float[Array, "N Z"], Float[Array, "N K"]]:
    """Embed all rows of a fit and assign them to clusters, block by block."""

    def assign_rows(arrays: Any, x: Float[Array, "n D"]) -> Any:
        one = partial(_assign, *arrays, network=plan.network)
        return map_row_blocks(one, x, block_size=BLOCK_SIZE)

    assigned: Any = plan.rows.map(assign_rows)((params, alpha), x)
    return assigned


def _assign(
    params: DECParams, alpha: Float[Array, ""], x: Float[Array, "B D"], *, network: Autoencoder
) -> tuple[Float[Array, "B Z"], Float[Array, "B K"]]:
    embeddings = network.encode(params.encoder, x)
    return embeddings, soft_assignment(embeddings, params.centroids, alpha=alpha)


#: Embed a block of scaled rows and assign them to clusters, as :func:`assign` does.
assign_block = jax.jit(_assign, static_argnames="network")
