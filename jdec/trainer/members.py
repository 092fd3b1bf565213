"""The members of a population: what they differ in, and how they are batched and mapped over."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jdec._checks import as_tuple, check_float32, check_n_clusters, is_key, shown
from jdec.core.autoencoder import Autoencoder, count_params, network_shapes
from jdec.trainer.config import Config
from jdec.trainer.programs import MemberMapping, MemberOverrides
from jdec.trainer.sharding import Mesh

# A CPU takes small members side by side, as each operation is too little work for it. Members with
# more parameters than this would evict each other from its caches, and go one after another.
_MAX_PARAMETERS_SIDE_BY_SIDE = 2**18


class Traits(NamedTuple):
    """What the members differ in."""

    keys: Key[Array, "M"]
    alphas: Float[np.ndarray, "M"] | None
    learning_rates: Float[np.ndarray, "M"] | None
    n_clusters: Int[np.ndarray, "M"]

    def plain(self) -> list[Any]:
        """Return arrays that tell one population from another."""
        given = [part for part in self[1:] if part is not None]
        return [jax.random.key_data(self.keys), *given]

    def overrides(self, members: Int[np.ndarray, "m"], max_clusters: int) -> MemberOverrides:
        """Return the settings that differ among some members."""
        mask = None
        if (self.n_clusters != max_clusters).any():
            clusters = np.arange(max_clusters)
            mask = jnp.asarray(clusters[None, :] < self.n_clusters[members, None])
        alphas, rates = (
            None if values is None else jnp.asarray(values[members], jnp.float32)
            for values in (self.alphas, self.learning_rates)
        )
        return MemberOverrides(alphas, rates, mask)


def as_keys(keys: Any) -> Key[Array, "M"]:
    """Return random keys as one array [M], or raise."""
    expected = "typed random keys in one dimension, as of jax.random.split(jax.random.key(0), 8)"
    if isinstance(keys, list | tuple):
        if not keys:
            raise ValueError("keys: expected at least one random key, got none")
        if kinds := sorted({type(key).__name__ for key in keys if not is_key(key)}):
            raise ValueError(f"keys: expected {expected}; got a list with {', '.join(kinds)}")
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
        advice = "one value for all members is a setting of config"
        raise ValueError(f"{expected}, got {shown(values)}; {advice}") from error
    if len(values) != n_members:
        raise ValueError(f"{expected}, got {len(values)}")
    return values


def group_keys(keys: Key[Array, "M"]) -> Int[np.ndarray, "M"]:
    """Number the distinct keys by the first member of each."""
    bits = np.asarray(jax.random.key_data(keys))
    _, first, group = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group.reshape(-1)]


def per_member(name: str, values: Any, n_members: int) -> Float[np.ndarray, "M"] | None:
    """Return a number for each member, or None where all are as configured."""
    if values is None:
        return None
    values = _one_for_each(name, values, n_members)
    for value in values:
        check_float32(name, value)
    return np.array(list(map(float, values)))


def check_ks(config: Config, n_clusters: Any, n_members: int, n_rows: int) -> Int[np.ndarray, "M"]:
    """Return the number of clusters of each member."""
    if n_clusters is None:
        check_n_clusters(config.n_clusters, n_rows)
        return np.full(n_members, config.n_clusters)
    n_clusters = _one_for_each("n_clusters", n_clusters, n_members)
    for k in n_clusters:
        check_n_clusters(k, n_rows)
    return np.array(n_clusters, int)


def choose_mapping(
    network: Autoencoder, n_features: int, mesh: Mesh | None, vectorized: bool | None
) -> MemberMapping:
    """Return the faster way for members of so many parameters, or the one asked for."""
    if vectorized is None:
        params = network_shapes(network, n_features).params
        x = jax.ShapeDtypeStruct((1, n_features), np.float32)
        is_small = count_params(params) <= _MAX_PARAMETERS_SIDE_BY_SIDE
        # Side by side, convolutions become grouped ones, for which XLA has no fast code on a CPU.
        convolves = "conv_general_dilated" in str(jax.make_jaxpr(network.encode)(params, x))
        vectorized = jax.default_backend() != "cpu" or (is_small and not convolves)
    return MemberMapping(mesh, vectorized)


def batches_of(keys: Key[Array, "M"], size: int) -> list[Int[np.ndarray, "m"]]:
    """Share members out among batches, those of equal key together, to be pretrained once."""
    order = np.argsort(group_keys(keys), kind="stable")
    return [order[first : first + size] for first in range(0, len(order), size)]
