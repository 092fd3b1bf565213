"""Any network: the Autoencoder protocol, and what makes one of a Flax module or of functions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jdec._checks import check_integer, in_a_line, shown
from jdec._typing import EncodeFn, Params


@runtime_checkable
class Autoencoder(Protocol):
    """An encoder and its decoder as pure functions of a pytree of parameters.

    An object with these three methods will do; it must be hashable, and equal to another that
    computes the same, because programs are compiled for each network. Two more are optional:

    - ``encoder_params(params) -> params``: the part that :meth:`encode` uses, which is all that
      self-training trains and a model keeps, unless the loss uses the decoder. All by default.
    - ``n_layers``, ``layer_params``, ``encode_layers`` and ``reconstruct_layer``, as
      :class:`StackedDenoisingAutoencoder` has them: what greedy layer-wise pretraining needs.

    Examples:
        >>> from jdec.core import StackedDenoisingAutoencoder
        >>> isinstance(StackedDenoisingAutoencoder(), Autoencoder)
        True
    """

    def init(self, key: Key[Array, ""], n_features: int) -> Params:
        """Draw fresh parameters for rows of D columns."""

    def encode(self, params: Params, x: Float[Array, "B D"]) -> Float[Array, "B Z"]:
        """Embed rows."""

    def decode(self, params: Params, embeddings: Float[Array, "B Z"]) -> Float[Array, "B D"]:
        """Reconstruct rows from their embeddings."""


@dataclass(frozen=True)
class FlaxAutoencoder:
    """An autoencoder of any Flax (linen) module with methods ``encode(x)`` and ``decode(z)``.

    The module sees rows [B D], flattened, and makes its layers in ``setup``.

    Attributes:
        module: The module; it holds no parameters.
        encoder_layers: Those that ``encode`` uses, as :func:`as_autoencoder` finds; None for all.

    Examples:
        >>> import flax.linen as nn
        >>> class Linear(nn.Module):
        ...     def setup(self):
        ...         self.down, self.up = nn.Dense(2), nn.Dense(4)
        ...     def encode(self, x):
        ...         return self.down(x)
        ...     def decode(self, z):
        ...         return self.up(z)
        >>> network = as_autoencoder(Linear(), 4)
        >>> sorted(network.init(jax.random.key(0), 4)), network.encoder_layers
        (['down', 'up'], ('down',))
    """

    module: Any
    encoder_layers: tuple[str, ...] | None = None

    def init(self, key: Key[Array, ""], n_features: int) -> Params:
        """Draw fresh parameters for rows of D columns."""
        return self._init(key, n_features, lambda module, x: module.decode(module.encode(x)))

    def encode(self, params: Params, x: Float[Array, "B D"]) -> Float[Array, "B Z"]:
        """Embed rows."""
        return self.module.apply({"params": params}, x, method="encode")

    def decode(self, params: Params, embeddings: Float[Array, "B Z"]) -> Float[Array, "B D"]:
        """Reconstruct rows from their embeddings."""
        return self.module.apply({"params": params}, embeddings, method="decode")

    def encoder_params(self, params: Params) -> Params:
        """Return the layers that ``encode`` uses."""
        if self.encoder_layers is None:
            return params
        return {name: params[name] for name in self.encoder_layers}

    def with_layers(self, n_features: int) -> "FlaxAutoencoder":
        """Return a copy that knows which layers ``encode`` uses."""
        made = jax.eval_shape(lambda key: self._init(key, n_features, "encode"), jax.random.key(0))
        return FlaxAutoencoder(self.module, tuple(sorted(made)))

    def _init(self, key: Key[Array, ""], n_features: int, method: Any) -> Params:
        variables = self.module.init({"params": key}, jnp.zeros((1, n_features)), method=method)
        if others := sorted(set(variables) - {"params"}):
            raise ValueError(
                f"expected a module with parameters alone, got {', '.join(others)} as well (as "
                "BatchNorm has); LayerNorm and GroupNorm do without"
            )
        return dict(variables["params"])


@dataclass(frozen=True)
class FunctionalAutoencoder:
    """An autoencoder of three plain functions.

    Attributes:
        init: ``init(key, n_features) -> params``.
        encode: ``encode(params, x [B D]) -> embeddings [B Z]``.
        decode: ``decode(params, embeddings [B Z]) -> x [B D]``.

    Examples:
        >>> network = FunctionalAutoencoder(
        ...     lambda key, n_features: jax.random.normal(key, (n_features, 2)),
        ...     lambda w, x: x @ w, lambda w, z: z @ w.T)
        >>> isinstance(network, Autoencoder)
        True
    """

    init: Callable[[Key[Array, ""], int], Params]
    encode: EncodeFn
    decode: Callable[[Params, Float[Array, "B Z"]], Float[Array, "B D"]]


def as_autoencoder(network: Any, n_features: int) -> Autoencoder:
    """Return an autoencoder of what a user gives: one of the protocol, or a Flax module.

    Args:
        network: An :class:`Autoencoder`, or a Flax module with methods ``encode`` and ``decode``.
        n_features: D.

    Returns:
        The autoencoder.

    Raises:
        ValueError: If it is neither, is not hashable, or its functions do not fit together.

    Examples:
        >>> as_autoencoder("SDAE", 4)
        Traceback (most recent call last):
        ValueError: network: expected an object with init, encode and decode, or a Flax module ...
    """
    check_autoencoder(network)
    if hasattr(network, "apply") and hasattr(network, "bind"):  # a Flax module's init is another
        network = FlaxAutoencoder(network)
    network_shapes(network, n_features)
    if isinstance(network, FlaxAutoencoder) and network.encoder_layers is None:
        return network.with_layers(n_features)
    return network


def check_autoencoder(network: Any) -> None:
    """Raise unless ``network`` has the methods of an :class:`Autoencoder`."""
    if isinstance(network, type) or not isinstance(network, Autoencoder):
        advice = "; make an object of the class first" if isinstance(network, type) else ""
        raise ValueError(
            "network: expected an object with init, encode and decode, or a Flax module with "
            f"encode and decode, got {shown(network)}{advice}"
        )


class NetworkShapes(NamedTuple):
    """Shapes and dtypes of a network's parameters, all and of the encoder, and its width Z."""

    params: Params
    encoder: Params
    latent_dim: int


def network_shapes(network: Autoencoder, n_features: int) -> NetworkShapes:
    """Return the shapes of a network for rows of D columns: traced once, nothing is computed.

    Args:
        network: The autoencoder.
        n_features: D.

    Returns:
        Pytrees of ``jax.ShapeDtypeStruct``, and Z.

    Raises:
        ValueError: If the network is not hashable, or its functions fail or do not fit together.

    Examples:
        >>> from jdec.core import StackedDenoisingAutoencoder
        >>> network_shapes(StackedDenoisingAutoencoder((8,), 2), 4).latent_dim
        2
    """
    check_autoencoder(network)
    check_integer("n_features", n_features)
    try:
        hash(network)
    except TypeError as error:
        raise ValueError(
            f"network: expected a hashable object, as a frozen dataclass of numbers and "
            f"tuples; {error}"
        ) from error
    # The dtypes depend on whether JAX has double precision.
    arguments: Any = (network, n_features, jax.dtypes.canonicalize_dtype(np.float64))
    return _traced_shapes(*arguments)


@lru_cache(maxsize=256)
def _traced_shapes(network: Any, n_features: int, dtype: Any) -> NetworkShapes:
    del dtype  # a part of the cache's key alone

    def shape_of(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return jax.eval_shape(function, *arguments)
        except Exception as error:  # whatever a user's function raises
            raise ValueError(
                f"network: {name} fails for rows of {n_features} columns: "
                f"{type(error).__name__}: {in_a_line(error)}"
            ) from error

    key = jax.eval_shape(lambda: jax.random.key(0))  # nothing is computed, on no device
    params = shape_of("init", lambda key: network.init(key, n_features), key)
    x = jax.ShapeDtypeStruct((3, n_features), jnp.float32)
    z = shape_of("encode", network.encode, params, x)
    shape = getattr(z, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != x.shape[0] or not shape[1]:
        raise ValueError(
            f"network: expected encode to return embeddings [B Z] for rows [B D], got shape "
            f"{shape} for {x.shape}"
        )
    if not jnp.issubdtype(z.dtype, jnp.floating):
        raise ValueError(f"network: expected floating-point embeddings, got dtype {z.dtype}")
    decoded = getattr(shape_of("decode", network.decode, params, z), "shape", None)
    if decoded != x.shape:
        raise ValueError(
            f"network: expected decode to return rows of shape {x.shape}, got {decoded}"
        )
    encoder = encoder_params(network, params)
    if shape_of("encode", network.encode, encoder, x).shape != shape:
        raise ValueError("network: expected encode to do with what encoder_params returns")
    return NetworkShapes(params, encoder, shape[1])


def encoder_params(network: Autoencoder, params: Params) -> Params:
    """Return the part of a network's parameters that its ``encode`` uses, as far as it says.

    Examples:
        >>> from jdec.core import StackedDenoisingAutoencoder
        >>> encoder_params(StackedDenoisingAutoencoder(), {"encoder_0": 1, "decoder_0": 2})
        {'encoder_0': 1}
    """
    select = getattr(network, "encoder_params", None)
    return params if select is None else select(params)


def is_layered(network: Autoencoder) -> bool:
    """Whether a network has what greedy layer-wise pretraining needs."""
    names = ("n_layers", "layer_params", "encode_layers", "reconstruct_layer")
    return all(hasattr(network, name) for name in names)


def count_params(params: Params) -> int:
    """Return the number of weights of a pytree of arrays or of their shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
