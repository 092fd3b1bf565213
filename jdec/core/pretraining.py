r"""Pretraining of the autoencoder: greedy layer by layer, then all of it end to end.

Both stages minimise :math:`s \cdot \mathrm{mean}\,(\hat h - h)^2` over batch and features, between
a clean input h and its reconstruction from a noisy copy.

Source: Xie et al. 2016, section 3.2, Eqs. 6-9; Vincent et al. 2010.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jdec._checks import check_fraction, check_positive
from jdec._typing import Params
from jdec.core.autoencoder import StackedDenoisingAutoencoder, layer_params
from jdec.core.training import Algorithm


class PretrainState(NamedTuple):
    """What pretraining carries from step to step."""

    params: Params  # of the whole autoencoder
    opt_state: optax.OptState  # of the parameters that this stage trains


class PretrainInfo(NamedTuple):
    """What one step tells."""

    loss: Float[Array, ""]


def layerwise(
    network: StackedDenoisingAutoencoder,
    layer: int,
    tx: optax.GradientTransformation,
    *,
    corruption_rate: float = 0.2,
    corrupt_data: bool = False,
    loss_scale: float = 1.0,
) -> Algorithm:
    """Greedy stage: one layer learns to reconstruct its own input, all layers below it held.

    Noise masks the layer's input and its code, but neither the data itself (unless
    ``corrupt_data``) nor the embedding.

    Args:
        network: The autoencoder.
        layer: Which layer, from 0.
        tx: Optimizer of this layer's parameters.
        corruption_rate: Share of the entries masked.
        corrupt_data: Whether the first layer's input is masked too. The paper's text says so; the
            authors' code does not.
        loss_scale: Factor s on the mean squared error; the authors' code has 1/2.

    Returns:
        ``init(params) -> state`` and ``step(key, state, batch [B D])``.

    Raises:
        ValueError: If ``corruption_rate`` is not in [0, 1) or ``loss_scale`` is not positive.

    Source: Xie et al. 2016, section 3.2, Eqs. 6-9.
    """
    check_fraction("corruption_rate", corruption_rate)
    check_positive("loss_scale", loss_scale)
    input_corruption = corruption_rate if layer > 0 or corrupt_data else 0.0
    code_dropout = corruption_rate if layer < len(network.dims) - 2 else 0.0

    def init(params: Params) -> PretrainState:
        return PretrainState(params, tx.init(layer_params(params, layer)))

    def step(
        key: Key[Array, ""], state: PretrainState, batch: Float[Array, "B D"]
    ) -> tuple[PretrainState, PretrainInfo]:
        h = network.apply({"params": state.params}, batch, layer, method="encode")
        trained = layer_params(state.params, layer)

        def loss(trained: Params) -> Float[Array, ""]:
            reconstruction = network.apply(
                {"params": state.params | trained},
                h,
                layer,
                input_corruption=input_corruption,
                code_dropout=code_dropout,
                rngs={"corruption": key},
                method="reconstruct_layer",
            )
            return loss_scale * jnp.mean((reconstruction - h) ** 2)

        value, grads = jax.value_and_grad(loss)(trained)
        updates, opt_state = tx.update(grads, state.opt_state, trained)
        params = state.params | optax.apply_updates(trained, updates)
        return PretrainState(params, opt_state), PretrainInfo(value)

    return Algorithm(init, step)


def finetune(
    network: StackedDenoisingAutoencoder,
    tx: optax.GradientTransformation,
    *,
    loss_scale: float = 1.0,
) -> Algorithm:
    """End-to-end stage: the whole autoencoder reconstructs the data.

    The data is masked at the network's own ``corruption_rate``: 0 in the paper, where fine-tuning
    sees clean rows.

    Args:
        network: The autoencoder.
        tx: Optimizer of all parameters.
        loss_scale: Factor s on the mean squared error.

    Returns:
        ``init(params) -> state`` and ``step(key, state, batch [B D])``.

    Raises:
        ValueError: If ``loss_scale`` is not positive.

    Examples:
        >>> from jdec.core.autoencoder import init_params, make_autoencoder
        >>> network = make_autoencoder(4, (8,), 2)
        >>> algorithm = finetune(network, optax.sgd(0.1))
        >>> state = algorithm.init(init_params(jax.random.key(0), network))
        >>> state, info = algorithm.step(jax.random.key(1), state, jnp.ones((3, 4)))
        >>> info.loss.shape
        ()

    Source: Xie et al. 2016, section 3.2.
    """
    check_positive("loss_scale", loss_scale)

    def init(params: Params) -> PretrainState:
        return PretrainState(params, tx.init(params))

    def step(
        key: Key[Array, ""], state: PretrainState, batch: Float[Array, "B D"]
    ) -> tuple[PretrainState, PretrainInfo]:
        def loss(params: Params) -> Float[Array, ""]:
            reconstruction = network.apply(
                {"params": params}, batch, deterministic=False, rngs={"corruption": key}
            )
            return loss_scale * jnp.mean((reconstruction - batch) ** 2)

        value, grads = jax.value_and_grad(loss)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return PretrainState(params, opt_state), PretrainInfo(value)

    return Algorithm(init, step)
