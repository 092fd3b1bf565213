"""Many fits as one program: seeds, α, learning rates and numbers of clusters at once.

A member has a key of its own, and may have its own α, learning rate and K. All of a turn's members
are pretrained and self-train side by side in programs that ``jax.vmap`` makes of the programs of
one fit; clusters beyond a member's own K are masked. A member whose labels have settled is held
where it is, and once half of them have, the others go on by themselves.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jdec._checks import (
    as_rows,
    as_tuple,
    check_feature_names,
    check_flag,
    check_float32,
    check_integer,
    check_n_clusters,
    is_key,
    shown,
)
from jdec._environment import free_device_bytes
from jdec._typing import Params
from jdec.core.autoencoder import encoder_params
from jdec.core.dec import DECState
from jdec.trainer.build import BLOCK_SIZE, RunKeys, Variant, pretraining_stages, split_run_key
from jdec.trainer.config import Config
from jdec.trainer.fit import DivergenceError
from jdec.trainer.inputs import check_callbacks, check_config, check_image_shape, look_at_columns
from jdec.trainer.members import (
    Layout,
    assign_member,
    choose_layout,
    init_members,
    init_members_stage,
    partition_members,
    pretrain_members,
    start_members,
    train_members,
)
from jdec.trainer.model import Model
from jdec.trainer.progress import Record, Reporter, chunks
from jdec.trainer.scaling import Scaling
from jdec.trainer.sharding import MEMBER, Mesh, check_mesh, replicate


class PopulationResult(NamedTuple):
    """What :func:`fit_population` found; arrays of M members."""

    scaling: Scaling
    params: Params  # of the encoders, each leaf [M …]
    centroids: Float[np.ndarray, "M K Z"]  # those beyond a member's own K mean nothing
    config: Config  # its K is the greatest of all members
    alphas: Float[np.ndarray, "M"]
    learning_rates: Float[np.ndarray, "M"]  # of the clustering phase
    n_clusters: Int[np.ndarray, "M"]
    labels: Int[np.ndarray, "M N"]
    soft_assignment: Float[np.ndarray, "M N K"]  # 0 beyond a member's own K
    initial_labels: Int[np.ndarray, "M N"]  # k-means on the pretrained embedding
    divergence: Float[np.ndarray, "M"]  # mean KL(P‖Q) over all rows at the end; NaN if it broke
    label_change: Float[np.ndarray, "M"]  # in the last interval
    n_intervals: Int[np.ndarray, "M"]
    history: list[Record]
    seconds: dict[str, float]
    members_at_once: int
    feature_names: tuple[str, ...] | None = None

    def member(self, index: int) -> Model:
        """Return one member as a model of its own."""
        n_clusters = int(self.n_clusters[index])
        config = self.config.replace(
            {
                "n_clusters": n_clusters,
                "clustering.alpha": float(self.alphas[index]),
                "clustering.optimizer.learning_rate": float(self.learning_rates[index]),
            }
        )
        params = jax.tree.map(lambda leaf: leaf[index], self.params)
        centroids = self.centroids[index, :n_clusters]
        return Model(self.scaling, params, centroids, config, self.feature_names)


def fit_population(
    keys: Key[Array, "M"] | Sequence[Key[Array, ""]],
    x: Any,
    config: Config,
    *,
    alphas: Sequence[float] | None = None,
    learning_rates: Sequence[float] | None = None,
    n_clusters: Sequence[int] | None = None,
    feature_names: Sequence[str] | None = None,
    members_at_once: int | None = None,
    vectorized: bool | None = None,
    mesh: Mesh | None = None,
    callbacks: Sequence[Callable[[Record], None]] = (),
    progress: bool = False,
) -> PopulationResult:
    """Fit many members to the same rows at once.

    Member i is what :func:`jdec.fit` makes of ``keys[i]`` and the configuration with the i-th α,
    learning rate and K, up to rounding. Members of equal key share their pretraining, but for a
    key whose members do not fit into one turn.

    Args:
        keys: Typed random keys, one a member.
        x: Rows, [N D], numeric and finite.
        config: What all members have in common.
        alphas: Degrees of freedom α of each member; by default as configured.
        learning_rates: Learning rate of the clustering phase of each member; by default as
            configured.
        n_clusters: K of each member; by default as configured.
        feature_names: As in :func:`jdec.fit`.
        members_at_once: How many to train in one program; by default as many as fit into memory.
        vectorized: Whether a device trains its members all at once, by ``jax.vmap``, or one after
            another within the program, by ``jax.lax.map``. By default the former, but for large
            networks on a CPU, which has no use for wider products and loses its caches.
        mesh: From :func:`jdec.trainer.member_mesh`: spreads members over devices.
        callbacks: Called with each record of the history as it is made.
        progress: Show progress bars on stderr.

    Returns:
        A :class:`PopulationResult`.

    Raises:
        ValueError: For bad input, no members, or lists of other lengths than ``keys``.
        DivergenceError: If no member stays finite. One that leaves the finite numbers does not
            stop the others: a warning names it, and its ``divergence`` is NaN.

    Examples:
        >>> config = Config(n_clusters=2).replace({
        ...     "network.hidden_dims": [8], "network.latent_dim": 2, "pretrain.finetune_steps": 20,
        ...     "clustering.update_interval": 5, "clustering.max_intervals": 2})
        >>> x = np.array([[0.0, 0.1], [0.1, 0.0], [5.0, 5.1], [5.1, 5.0]])
        >>> result = fit_population(jax.random.split(jax.random.key(0), 3), x, config)
        >>> result.labels.shape
        (3, 4)

    Source: Xie et al. 2016, section 3; members by ``jax.vmap``.
    """
    keys = _as_keys(keys)
    check_config(config)
    callbacks = check_callbacks(callbacks)
    check_flag("progress", progress)
    check_mesh(mesh, MEMBER)
    feature_names = check_feature_names(feature_names, x)
    rows = as_rows("x", x, columns=feature_names)
    check_image_shape(config, rows.shape[1])
    n_members = len(keys)
    values = {
        "alphas": _per_member("alphas", alphas, n_members),
        "learning_rates": _per_member("learning_rates", learning_rates, n_members),
    }
    ks = np.full(n_members, config.n_clusters)
    if n_clusters is not None:
        n_clusters = _one_for_each("n_clusters", n_clusters, n_members)
        for k in n_clusters:
            check_n_clusters(k, len(rows))
        ks = np.array(n_clusters, int)
    check_n_clusters(int(ks.max()), len(rows))
    if members_at_once is not None:
        check_integer("members_at_once", members_at_once)
    if mesh is not None and jax.process_count() > 1:
        raise ValueError("mesh: a population needs all its devices in one process")
    config = config.replace({"n_clusters": int(ks.max())})
    layout = choose_layout(count_parameters(config, rows.shape[1]), mesh)
    if vectorized is not None:
        check_flag("vectorized", vectorized)
        layout = layout._replace(vectorized=vectorized)
    reporter = Reporter(callbacks, progress=progress)
    population = _Population(
        keys,
        rows,
        config,
        **values,
        n_clusters=ks,
        layout=layout,
        reporter=reporter,
        feature_names=feature_names,
    )
    return population.run(members_at_once)


def _as_keys(keys: Any) -> Key[Array, "M"]:
    expected = "typed random keys in one dimension, as of jax.random.split(jax.random.key(0), 8)"
    if isinstance(keys, list | tuple):
        if not keys:
            raise ValueError("keys: expected at least one random key, got none")
        if not all(is_key(key) for key in keys):
            kinds = ", ".join(sorted({type(key).__name__ for key in keys if not is_key(key)}))
            raise ValueError(f"keys: expected {expected}; got a list with {kinds}")
        if len({(key.dtype, key.shape) for key in keys}) > 1:
            raise ValueError(f"keys: expected {expected}; got a list with keys of several kinds")
        keys = jnp.stack(keys)
    if not is_key(keys) or keys.ndim != 1:
        is_array = hasattr(keys, "dtype") and hasattr(keys, "shape")
        got = f"{keys.dtype} of shape {keys.shape}" if is_array else type(keys).__name__
        raise ValueError(f"keys: expected {expected}; got {got}")
    if not len(keys):
        raise ValueError("keys: expected at least one random key, got none")
    return keys


def _one_for_each(name: str, values: Any, n_members: int) -> tuple[Any, ...]:
    expected = f"{name}: expected one for each of {n_members} keys"
    try:
        values = as_tuple(name, values, "numbers")
    except ValueError as error:
        advice = "one for all members is a setting of config"
        raise ValueError(f"{expected}, got {shown(values)}; {advice}") from error
    if len(values) != n_members:
        raise ValueError(f"{expected}, got {len(values)}")
    return values


def _group_keys(keys: Key[Array, "M"]) -> Int[np.ndarray, "M"]:
    """Number the distinct keys by the first member of each."""
    bits = np.asarray(jax.random.key_data(keys))
    _, first, group = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group.reshape(-1)]


def _per_member(
    name: str, values: Sequence[float] | None, n_members: int
) -> Float[np.ndarray, "M"] | None:
    if values is None:
        return None
    values = _one_for_each(name, values, n_members)
    for value in values:
        check_float32(name, value)
    return np.array(list(map(float, values)))


def count_parameters(config: Config, n_features: int) -> int:
    """Return the number of weights of the autoencoder."""
    widths = (n_features, *config.network.hidden_dims, config.network.latent_dim)
    return 2 * sum(a * b for a, b in pairwise(widths))


class _Population:
    """A population on its way through its turns."""

    def __init__(
        self,
        keys: Key[Array, "M"],
        rows: Float[np.ndarray, "N D"],
        config: Config,
        *,
        alphas: Float[np.ndarray, "M"] | None,
        learning_rates: Float[np.ndarray, "M"] | None,
        n_clusters: Int[np.ndarray, "M"],
        layout: Layout,
        reporter: Reporter,
        feature_names: tuple[str, ...] | None,
    ) -> None:
        self.config, self.n_clusters = config, n_clusters
        self.feature_names = feature_names
        self.layout, self.reporter = layout, reporter
        self.alphas, self.learning_rates = alphas, learning_rates
        self.scaling, told = look_at_columns(rows, config, feature_names)
        self.x = replicate(jnp.asarray(self.scaling.apply(rows)), layout.mesh)
        for warning in told:
            warnings.warn(warning, stacklevel=3)
        self.keys: RunKeys = jax.vmap(split_run_key)(keys)
        self.key_of_member = _group_keys(keys)

    def run(self, members_at_once: int | None) -> PopulationResult:
        """Run all turns."""
        n_members = len(self.n_clusters)
        if members_at_once is None:
            members_at_once = self._members_that_fit(n_members)
        # Members of equal key into the same turn, where they fit, to be pretrained once.
        order = np.argsort(self.key_of_member, kind="stable")
        turns = [
            self._turn(order[first : first + members_at_once])
            for first in range(0, n_members, members_at_once)
        ]
        back = np.argsort(order)
        joined: Any = jax.tree.map(lambda *leaves: np.concatenate(leaves)[back], *turns)
        settings = self.config.clustering
        alphas, rates = self.alphas, self.learning_rates
        if alphas is None:
            alphas = np.full(n_members, settings.alpha)
        if rates is None:
            rates = np.full(n_members, settings.optimizer.learning_rate)
        _report_broken(joined["divergence"])
        return PopulationResult(
            scaling=self.scaling,
            config=self.config,
            alphas=alphas,
            learning_rates=rates,
            n_clusters=self.n_clusters,
            history=self.reporter.history,
            seconds=self.reporter.seconds,
            members_at_once=members_at_once,
            feature_names=self.feature_names,
            **joined,
        )

    # A turn -------------------------------------------------------------------------------------

    def _turn(self, members: Int[np.ndarray, "m"]) -> dict[str, Any]:
        """Train some of the members side by side, and return their arrays."""
        _, first, of_member = np.unique(
            self.key_of_member[members], return_index=True, return_inverse=True
        )
        params = self._pretrain(members[first])
        params = jax.tree.map(lambda leaf: leaf[of_member], encoder_params(params))
        variant = self._variant(members)
        with self.reporter.timed("kmeans"):
            centroids, initial_labels = self._partition(members, variant, params)
            states = start_members(
                params, centroids, variant, self.x, config=self.config, layout=self.layout
            )
            jax.block_until_ready(states)
        states = self._self_train(members, variant, states)
        return self._arrays(variant, states) | {"initial_labels": initial_labels}

    def _variant(self, members: Int[np.ndarray, "m"]) -> Variant:
        active = None
        if (self.n_clusters != self.config.n_clusters).any():
            clusters = np.arange(self.config.n_clusters)
            active = jnp.asarray(clusters[None, :] < self.n_clusters[members, None])
        return Variant(
            None if self.alphas is None else jnp.asarray(self.alphas[members], jnp.float32),
            None
            if self.learning_rates is None
            else jnp.asarray(self.learning_rates[members], jnp.float32),
            active,
        )

    def _pretrain(self, members: Int[np.ndarray, "u"]) -> Params:
        """Pretrain one member of each distinct key."""
        common: dict[str, Any] = {"config": self.config, "layout": self.layout}
        params = init_members(self.keys.init[members], self.x, **common)
        for index, stage in enumerate(pretraining_stages(self.config)):
            states = init_members_stage(params, self.x, stage=stage, **common)
            keys = jax.vmap(lambda key, index=index: jax.random.fold_in(key, index))(
                self.keys.pretraining[members]
            )
            description = f"pretraining {len(members)}, {stage.name}"
            with self.reporter.bar(description, stage.n_steps, "step") as bar:
                for start, n_steps in chunks(stage.n_steps):
                    with self.reporter.timed("pretraining"):
                        step = jnp.int32(start)
                        states, losses = pretrain_members(
                            keys, states, step, self.x, stage=stage, n_steps=n_steps, **common
                        )
                        loss = np.asarray(losses).tolist()
                    self.reporter.report(
                        {
                            "phase": stage.name,
                            "step": start + n_steps,
                            "members": members.tolist(),
                            "loss": loss,
                        }
                    )
                    bar.update(n_steps)
            params = states.params
        return params

    def _partition(
        self, members: Int[np.ndarray, "m"], variant: Variant, params: Params
    ) -> tuple[Float[Array, "m K Z"], Int[np.ndarray, "m N"]]:
        """Partition the embeddings, members of equal K together."""
        most, latent_dim = self.config.n_clusters, self.config.network.latent_dim
        centroids = np.zeros((len(members), most, latent_dim), np.float32)
        labels = np.zeros((len(members), len(self.x)), np.int32)
        for k in np.unique(self.n_clusters[members]).tolist():
            chosen = np.flatnonzero(self.n_clusters[members] == k)
            found, found_labels = partition_members(
                self.keys.kmeans[members[chosen]],
                jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], (params, variant.alpha)),
                self.x,
                config=self.config.replace({"n_clusters": k}),
                layout=self.layout,
            )
            centroids[chosen, :k] = found
            labels[chosen] = found_labels
        return jnp.asarray(centroids), labels

    def _self_train(
        self, members: Int[np.ndarray, "m"], variant: Variant, states: DECState
    ) -> DECState:
        """Run intervals until all members have settled; returns states of the host."""
        settings = self.config.clustering
        keys = self.keys.clustering[members]
        ended: dict[int, DECState] = {}
        left = np.arange(len(members))
        most = settings.max_intervals
        with self.reporter.bar(f"clustering {len(members)}", most, "interval") as bar:
            for interval in range(1, most + 1):
                with self.reporter.timed("clustering"):
                    states, losses = train_members(
                        keys, variant, states, self.x, config=self.config, layout=self.layout
                    )
                    label_change = np.asarray(states.label_change)
                ran = np.asarray(states.interval) == interval
                self.reporter.report(
                    {
                        "phase": "clustering",
                        "interval": interval,
                        "members": members[left][ran].tolist(),
                        "loss": np.asarray(losses)[ran].tolist(),
                        "label_change": label_change[ran].tolist(),
                    }
                )
                going = ran & (label_change >= settings.tol)
                bar.set_postfix(running=int(going.sum()), refresh=False)
                bar.update(1)
                if not going.any():
                    break
                if 2 * going.sum() <= len(left):
                    ended |= _on_host(states, np.flatnonzero(~going), left)
                    kept, left = np.flatnonzero(going), left[going]
                    keys, variant, states = jax.tree.map(
                        lambda leaf, kept=kept: leaf[kept], (keys, variant, states)
                    )
        ended |= _on_host(states, np.arange(len(left)), left)
        ordered = [ended[member] for member in range(len(members))]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *ordered)

    def _arrays(self, variant: Variant, states: DECState) -> dict[str, Any]:
        # One after another: what one member needs for all rows is enough at a time.
        with self.reporter.timed("assignment"):
            parts = [
                jax.device_get(
                    assign_member(
                        *jax.tree.map(lambda leaf, i=i: leaf[i], (variant, states)),
                        self.x,
                        config=self.config,
                    )
                )
                for i in range(len(states.interval))
            ]
        return {
            "params": states.params,
            "centroids": states.centroids,
            "labels": np.stack([labels for labels, _, _ in parts]),
            "soft_assignment": np.stack([q for _, q, _ in parts]),
            "divergence": np.stack([divergence for _, _, divergence in parts]),
            "label_change": states.label_change,
            "n_intervals": states.interval,
        }

    # Memory -------------------------------------------------------------------------------------

    def _members_that_fit(self, n_members: int) -> int:
        """Return how many members the free memory has room for, as XLA counts it."""
        budget = free_device_bytes()
        mesh = self.layout.mesh
        n_devices = 1 if mesh is None else mesh.size
        if budget is not None and jax.default_backend() == "cpu":
            budget //= n_devices  # which share the host's
        while budget is not None and n_members > 1:
            # Compiling to know takes seconds, and is left out where there is plenty.
            n_bytes = self._roughly(n_members) // n_devices
            if 4 * n_bytes <= budget:
                break
            n_bytes = self._exactly(n_members)
            if n_bytes <= budget:
                break
            n_members = max(1, min(n_members - 1, int(n_members * budget / n_bytes)))
        return n_members

    def _roughly(self, n_members: int) -> int:
        widths = (self.x.shape[1], *self.config.network.hidden_dims, self.config.network.latent_dim)
        parameters = count_parameters(self.config, self.x.shape[1])
        batches = 4 * max(self.config.pretrain.batch_size, BLOCK_SIZE) * sum(widths)
        return 4 * n_members * (4 * parameters + batches + 4 * len(self.x) * self.config.n_clusters)

    def _exactly(self, n_members: int) -> int:
        """Return the bytes on a device that the largest of the programs needs."""
        common: dict[str, Any] = {"config": self.config, "layout": self.layout}
        keys = jax.random.split(self.keys.init[0], n_members)
        programs = []
        params = jax.eval_shape(partial(init_members, **common), keys, self.x)
        for stage in pretraining_stages(self.config)[-1:]:
            states = jax.eval_shape(
                partial(init_members_stage, stage=stage, **common), params, self.x
            )
            step = jnp.int32(0)
            programs.append(
                pretrain_members.lower(keys, states, step, self.x, stage=stage, n_steps=1, **common)
            )
        shape = (n_members, self.config.n_clusters, self.config.network.latent_dim)
        centroids = jax.ShapeDtypeStruct(shape, jnp.float32)
        one_each = jax.ShapeDtypeStruct(shape[:1], jnp.float32)
        active = jax.ShapeDtypeStruct(shape[:2], jnp.bool_)
        variant: Any = Variant(one_each, one_each, active)  # type: ignore[arg-type]
        states = jax.eval_shape(
            partial(start_members, **common), encoder_params(params), centroids, variant, self.x
        )
        programs.append(train_members.lower(keys, variant, states, self.x, **common))
        traits = (encoder_params(params), one_each)
        programs.append(partition_members.lower(keys, traits, self.x, **common))
        return max(_bytes(program.compile().memory_analysis()) for program in programs)


def _on_host(
    states: DECState, rows: Int[np.ndarray, "e"], names: Int[np.ndarray, "m"]
) -> dict[int, DECState]:
    host = jax.device_get(states)
    return {
        int(names[row]): jax.tree.map(lambda leaf, row=row: leaf[row], host)
        for row in rows.tolist()
    }


def _bytes(analysis: Any) -> int:
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def _report_broken(divergence: Float[np.ndarray, "M"]) -> None:
    broken = np.flatnonzero(~np.isfinite(divergence)).tolist()
    if len(broken) == len(divergence):
        raise DivergenceError(
            "population: no member stayed finite; lower the learning rates or scale the data"
        )
    if broken:
        warnings.warn(
            f"members {', '.join(map(str, broken[:20]))} of {len(divergence)} left the finite "
            "numbers; lower their learning rate",
            RuntimeWarning,
            stacklevel=4,
        )
