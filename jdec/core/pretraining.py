r"""Pretraining of the autoencoder: greedy layer by layer, then all of it end to end.

Both minimise :math:`s \cdot \mathrm{mean}\,(\hat h - h)^2` over batch and features, between a clean
input h and its reconstruction from a noisy copy (Xie et al. 2016, section 3.2).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jdec import _checks as checks
from jdec._typing import Params
from jdec.core.augmentation import INPUT_STREAM, corrupt
from jdec.core.autoencoder import Autoencoder, check_autoencoder, is_layered
from jdec.core.optimizers import apply_gradients, state_factors
from jdec.core.training import Algorithm


class PretrainState(NamedTuple):
    """State of pretraining."""

    params: Params  # of the whole autoencoder
    opt_state: optax.OptState  # of the parameters that this stage trains


class PretrainInfo(NamedTuple):
    """Diagnostics of one step (not carried)."""

    loss: Float[Array, ""]


def layerwise(
    network: Any,  # an Autoencoder with greedy layers
    layer: int,
    tx: optax.GradientTransformation,
    *,
    corruption_rate: float = 0.2,
    corrupt_data: bool = False,
    loss_scale: float = 1.0,
) -> Algorithm:
    """Greedy stage: one layer learns to reconstruct its own input, all layers below it held.

    Noise masks that input, unless it is the data, and the code, unless it is the embedding.

    Args:
        network: An autoencoder with greedy layers, as :class:`StackedDenoisingAutoencoder`.
        layer: Which layer, from 0.
        tx: Optimizer of this layer's parameters.
        corruption_rate: Share of the entries masked.
        corrupt_data: Whether the data are masked too, as in the paper's text but not its code.
        loss_scale: Factor s on the mean squared error; the authors' code has 1/2.

    Returns:
        ``init(params) -> state`` and ``step(key, state, batch [B D])``.

    Raises:
        ValueError: If an argument is out of range, or the network has no greedy layers.

    Source: Xie et al. 2016, section 3.2, Eqs. 6-9.
    """
    checks.check_optimizer("tx", tx)
    checks.check_fraction("corruption_rate", corruption_rate)
    checks.check_flag("corrupt_data", corrupt_data)
    checks.check_positive("loss_scale", loss_scale)
    if not is_layered(network):
        raise ValueError(
            "network: expected n_layers, layer_params, encode_layers and reconstruct_layer for "
            f"layer-wise pretraining, got {checks.shown(network)}; layerwise_steps=0 does without"
        )
    checks.check_integer("layer", layer, minimum=0, maximum=network.n_layers - 1)
    corruption = {
        "input_corruption": corruption_rate if layer > 0 or corrupt_data else 0.0,
        "code_corruption": corruption_rate if layer < network.n_layers - 1 else 0.0,
    }

    def init(params: Params) -> PretrainState:
        return PretrainState(params, tx.init(network.layer_params(params, layer)))

    def step(
        key: Key[Array, ""], state: PretrainState, batch: Float[Array, "B D"], *, ahead: Any = None
    ) -> tuple[PretrainState, PretrainInfo]:
        h = network.encode_layers(state.params, batch, layer)
        trained = network.layer_params(state.params, layer)

        def loss(trained: Params) -> Float[Array, ""]:
            params = state.params | trained
            reconstruction = network.reconstruct_layer(key, params, h, layer, **corruption)
            return loss_scale * jnp.mean((reconstruction - h) ** 2)

        value, grads = jax.value_and_grad(loss)(trained)
        trained, opt_state = apply_gradients(tx, grads, state.opt_state, trained, ahead)
        return PretrainState(state.params | trained, opt_state), PretrainInfo(value)

    return Algorithm(init, step, ahead=partial(state_factors, tx))


def finetune(
    network: Autoencoder,
    tx: optax.GradientTransformation,
    *,
    corruption_rate: float = 0.0,
    loss_scale: float = 1.0,
) -> Algorithm:
    """End-to-end stage: the whole autoencoder reconstructs the data.

    Args:
        network: The autoencoder.
        tx: Optimizer of all parameters.
        corruption_rate: Share of the data's entries masked; 0 in the paper.
        loss_scale: Factor s on the mean squared error.

    Returns:
        ``init(params) -> state`` and ``step(key, state, batch [B D])``.

    Raises:
        ValueError: If ``corruption_rate`` is not in [0, 1) or ``loss_scale`` is not positive.

    Examples:
        >>> from jdec.core import StackedDenoisingAutoencoder
        >>> network = StackedDenoisingAutoencoder((8,), 2)
        >>> algorithm = finetune(network, optax.sgd(0.1))
        >>> state = algorithm.init(network.init(jax.random.key(0), 4))
        >>> state, info = algorithm.step(jax.random.key(1), state, jnp.ones((3, 4)))
        >>> info.loss.shape
        ()

    Source: Xie et al. 2016, section 3.2.
    """
    check_autoencoder(network)
    checks.check_optimizer("tx", tx)
    checks.check_fraction("corruption_rate", corruption_rate)
    checks.check_positive("loss_scale", loss_scale)

    def init(params: Params) -> PretrainState:
        return PretrainState(params, tx.init(params))

    def step(
        key: Key[Array, ""], state: PretrainState, batch: Float[Array, "B D"], *, ahead: Any = None
    ) -> tuple[PretrainState, PretrainInfo]:
        noisy = corrupt(jax.random.fold_in(key, INPUT_STREAM), batch, corruption_rate)

        def loss(params: Params) -> Float[Array, ""]:
            reconstruction = network.decode(params, network.encode(params, noisy))
            return loss_scale * jnp.mean((reconstruction - batch) ** 2)

        value, grads = jax.value_and_grad(loss)(state.params)
        params, opt_state = apply_gradients(tx, grads, state.opt_state, state.params, ahead)
        return PretrainState(params, opt_state), PretrainInfo(value)

    return Algorithm(init, step, ahead=partial(state_factors, tx))
