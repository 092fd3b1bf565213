"""A trained model: assigns rows to clusters, embeds and reconstructs them."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jdec._checks import shown
from jdec._columns import check_feature_names, column_names, names_to_compare
from jdec._host_arrays import empty_on_host
from jdec._rows import as_rows
from jdec._sources import RowSource, as_source
from jdec._typing import Params
from jdec.core.autoencoder import Autoencoder, network_shapes
from jdec.core.targets import DECParams
from jdec.trainer.config import Config
from jdec.trainer.programs import assign_block, build_network
from jdec.trainer.scaling import Scaling
from jdec.trainer.streamed_rows import BLOCK_SIZE


class Model(NamedTuple):
    """What assigns rows to clusters.

    Examples:
        >>> import jax.numpy as jnp
        >>> config = Config(2).replace({"network.hidden_dims": [], "network.latent_dim": 1})
        >>> params = {"encoder_0": {"kernel": jnp.ones((3, 1)), "bias": jnp.zeros(1)}}
        >>> scaling = Scaling(np.zeros(3), np.ones(3))
        >>> model = Model(scaling, params, np.array([[0.0], [9.0]], np.float32), config)
        >>> model.predict([[0.0, 0.1, 0.0], [3.0, 3.0, 2.0]])
        array([0, 1], dtype=int32)
    """

    scaling: Scaling
    params: Params  # of the encoder, after self-training; with the decoder's if has_decoder
    centroids: Float[np.ndarray, "K Z"]
    config: Config
    feature_names: tuple[str, ...] | None = None  # of the columns it was trained on, if they had
    network: Autoencoder | None = None  # None: the built-in one of the configuration
    has_decoder: bool = False  # trained with the decoder, as with a reconstruction term

    def transform(self, x: Any) -> Float[np.ndarray, "N Z"]:
        """Return the embeddings of rows, as :func:`assign` does."""
        return assign(self, x)[0]

    def predict_proba(self, x: Any) -> Float[np.ndarray, "N K"]:
        """Return the soft assignment q of rows, as :func:`assign` does."""
        return assign(self, x)[1]

    def predict(self, x: Any) -> Int[np.ndarray, "N"]:
        """Return the cluster of each row: the largest entry of :meth:`predict_proba`."""
        return self.predict_proba(x).argmax(axis=1).astype(np.int32)

    def inverse_transform(self, embeddings: Any) -> Float[np.ndarray, "N D"]:
        """Reconstruct rows from embeddings, such as the cluster centres, in the units of the data.

        Args:
            embeddings: Rows z, [N Z].

        Returns:
            Rows, [N D], float64.

        Raises:
            ValueError: If the model was trained without its decoder, or the width is another.
        """
        if not self.has_decoder:
            raise ValueError(
                "model: expected one trained with its decoder, which a "
                "clustering.reconstruction_weight above 0 trains and keeps"
            )
        z = as_rows("embeddings", embeddings).astype(np.float32)
        if z.shape[1] != self.centroids.shape[1]:
            raise ValueError(
                f"embeddings: expected {self.centroids.shape[1]} columns, got {z.shape[1]}"
            )
        params, z = jax.device_put((self.params, z))
        return self.scaling.invert(np.asarray(network_of(self).decode(params, z)))


def network_of(model: Model) -> Autoencoder:
    """Return the autoencoder of a model: its own, or the built-in one of its configuration."""
    return build_network(model.config) if model.network is None else model.network


def align_columns(model: Model, feature_names: Sequence[str] | None, x: RowSource) -> RowSource:
    """Return rows with their columns in the order that a model was trained on.

    ``x`` itself where the order is that of the model, or either has no names. Numbers from 0 on are
    the places of columns without names, and mean nothing to one with names.
    """
    names = names_to_compare(model.feature_names, feature_names)
    if names is None or names[0] == names[1]:
        return x
    mine, theirs = names
    missing = [repr(name) for name in dict.fromkeys(mine) if name not in theirs]
    unexpected = [repr(name) for name in dict.fromkeys(theirs) if name not in mine]
    if missing or unexpected:
        parts = (("missing", missing), ("unexpected", unexpected))
        told = "; ".join(f"{what}: {_few(names)}" for what, names in parts if names)
        raise ValueError(
            f"x: expected the columns that the model was trained on, {_few(list(mine))}; {told}"
        )
    if len(set(mine)) < len(mine) or len(mine) != len(theirs):
        raise ValueError(
            "x: expected the columns in the order that the model was trained on, since some share "
            f"a name: {_few(list(mine))}"
        )
    position = {name: index for index, name in enumerate(theirs)}
    return x[:, [position[name] for name in mine]]


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def assign(
    model: Model, x: Any, *, feature_names: Sequence[str] | None = None
) -> tuple[Float[np.ndarray, "N Z"], Float[np.ndarray, "N K"]]:
    """Embed rows and assign them to clusters, block by block.

    Blocks have one size whatever N is: nothing is compiled for another N, and a row's result
    does not depend on the rows around it.

    Args:
        model: From :func:`jdec.fit` or :func:`load_model`.
        x: Unscaled rows, [N D], numeric and finite; as in :func:`jdec.fit`.
        feature_names: Names of the columns of ``x``; those of a data frame by default. Where the
            model has names as well, columns in another order are put into the model's.

    Returns:
        Embeddings [N Z] and the soft assignment [N K].

    Raises:
        ValueError: For bad input, rows of another width or other columns than the model's, rows
            whose embedding is not finite, or a model with NaN.

    Source: Xie et al. 2016, Eq. 1.
    """
    check_model(model)
    names = check_feature_names(feature_names, x)
    rows = as_source("x", x, columns=names)
    x = align_columns(model, names or column_names(x, numbers=True), rows)
    blocks = (
        model.scaling.apply(x[start : start + BLOCK_SIZE], first_row=start)
        for start in range(0, len(x), BLOCK_SIZE)
    )
    return assign_scaled(model, blocks, len(x))


def assign_scaled(
    model: Model, blocks: Iterable[Float[np.ndarray, "B D"]], n_rows: int
) -> tuple[Float[np.ndarray, "N Z"], Float[np.ndarray, "N K"]]:
    """Embed and assign N rows that are scaled and checked, at most ``BLOCK_SIZE`` at a time."""
    arrays: Any = (model.params, model.centroids)
    params = jax.device_put(DECParams(*arrays))  # once for all blocks
    alpha, network = np.float32(model.config.clustering.alpha), network_of(model)
    widths = (model.centroids.shape[1], len(model.centroids))
    embeddings, assignments = (empty_on_host((n_rows, width), np.float32) for width in widths)
    start = 0
    for block in blocks:
        padded = np.zeros((BLOCK_SIZE, block.shape[1]), np.float32)
        padded[: len(block)] = block
        z, q = assign_block(params, alpha, padded, network=network)
        z, q = np.asarray(z)[: len(block)], np.asarray(q)[: len(block)]
        broken = ~(np.isfinite(z).all(axis=1) & np.isfinite(q).all(axis=1))
        if broken.any():
            raise ValueError(
                f"x: the embedding of row {start + int(np.argmax(broken))} is not finite; it is "
                "far from the rows that the model was trained on"
            )
        embeddings[start : start + len(block)] = z
        assignments[start : start + len(block)] = q
        start += len(block)
    return embeddings, assignments


def check_model(model: Any) -> None:
    """Raise unless a model is one, its parts fit together, and all its numbers are finite."""
    if not isinstance(model, Model):
        raise ValueError(f"model: expected a jdec.Model, got {type(model).__name__}")
    try:
        for name, kind in (("scaling", Scaling), ("config", Config)):
            part = getattr(model, name)
            if not isinstance(part, kind):
                raise ValueError(f"expected a {kind.__name__} in {name}, got {shown(part)}")
        _check_is_array("centroids", model.centroids)
        _check_is_array("scaling.shift", model.scaling.shift)
        check_arrays(model)
        check_feature_names(model.feature_names, np.empty((1, len(model.scaling.shift))))
    except ValueError as error:
        raise ValueError(f"model: {error}") from error


def _check_is_array(name: str, array: Any) -> None:
    if not isinstance(array, np.ndarray | np.generic | jax.Array):
        raise ValueError(f"expected an array in {name}, got {shown(array)}")


def _shapes_of(model: Model) -> tuple[Params, int]:
    """Return shapes and dtypes of the parameters as the network has them, and its latent width."""
    shapes = network_shapes(network_of(model), np.size(model.scaling.shift))
    return shapes.params if model.has_decoder else shapes.encoder, shapes.latent_dim


def named_leaves(name: str, tree: Any, separator: str = ".") -> dict[str, Any]:
    """Return the leaves of a pytree by their paths, with a name before each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of JAX, about objects that are no leaves
        leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        name + separator + jax.tree_util.keystr(path, simple=True, separator=separator): leaf
        for path, leaf in leaves
    }


def check_arrays(model: Model) -> None:
    """Raise unless the arrays are of the network and configuration, and finite."""
    of_columns = jax.ShapeDtypeStruct((np.size(model.scaling.shift),), np.float64)
    params, latent_dim = _shapes_of(model)
    wanted = named_leaves("params", params) | {
        "centroids": jax.ShapeDtypeStruct((model.config.n_clusters, latent_dim), np.float32),
        "scaling.shift": of_columns,
        "scaling.factor": of_columns,
    }
    given = named_leaves("params", model.params) | named_leaves("scaling", model.scaling)
    given["centroids"] = model.centroids
    _compare_arrays(wanted, given)
    for name, array in given.items():
        # Compared, since not every dtype has an isfinite.
        if not (np.abs(np.asarray(array)) < np.inf).all():
            raise ValueError(f"expected finite numbers in {name}, got NaN or infinity")


def with_params(model: Model, given: Mapping[str, Any]) -> Model:
    """Return a model whose parameters, given by dotted names, are in the tree of its network."""
    shapes, _ = _shapes_of(model)
    wanted = named_leaves("params", shapes)
    _compare_arrays(wanted, given)
    leaves = [given[name] for name in wanted]
    return model._replace(params=jax.tree.unflatten(jax.tree.structure(shapes), leaves))


def _compare_arrays(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise unless arrays have the names, shapes and dtypes wanted."""
    for name in dict.fromkeys([*wanted, *given]):
        if name not in given or name not in wanted:
            raise ValueError(f"{'missing' if name in wanted else 'unexpected'} array: {name}")
        array, expected = given[name], wanted[name]
        _check_is_array(name, array)
        if np.shape(array) != expected.shape:
            raise ValueError(f"expected shape {expected.shape} in {name}, got {np.shape(array)}")
        dtypes = [str(expected.dtype)]
        dtypes += ["float32"] if name.startswith("scaling") else []
        if str(array.dtype) not in dtypes:
            raise ValueError(f"expected {' or '.join(dtypes)} in {name}, got {array.dtype}")
