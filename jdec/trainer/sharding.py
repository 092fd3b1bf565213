"""Rows and members over devices: the only module that names a mesh.

The rows of a mini-batch do not depend on the devices, which change the time and not the result.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.sharding import Mesh as Mesh
from jaxtyping import Array, Float, PyTree, Shaped

from jdec._checks import check_integer
from jdec.trainer.processes import allgather

DATA, MEMBER = "data", "member"


def data_mesh(n_devices: int | None = None) -> Mesh:
    """Return a mesh that shards rows over devices, those of one process side by side.

    Args:
        n_devices: Number of JAX's devices; all by default, and always with several processes.

    Raises:
        ValueError: If there are fewer.

    Examples:
        >>> dict(data_mesh(1).shape)
        {'data': 1}
    """
    return _mesh((DATA,), (n_devices,))


def member_mesh(n_devices: int | None = None, *, data_devices: int | None = None) -> Mesh:
    """Return a mesh that shards the members of a population over devices.

    Args:
        n_devices: Number of JAX's devices for members; all by default.
        data_devices: Devices that share the rows of each member, beside those: the mesh then has
            ``n_devices × data_devices`` devices. By default each device has all rows.

    Raises:
        ValueError: If there are fewer.

    Examples:
        >>> dict(member_mesh(1).shape)
        {'member': 1}
    """
    if data_devices is None:
        return _mesh((MEMBER,), (n_devices,))
    check_integer("data_devices", data_devices)
    if n_devices is None:
        n_devices = max(1, jax.device_count() // data_devices)
    return _mesh((MEMBER, DATA), (n_devices, data_devices))


def _mesh(axes: tuple[str, ...], sizes: tuple[int | None, ...]) -> Mesh:
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    shape = [len(devices) if size is None else size for size in sizes]
    for size in shape:
        check_integer("devices", size)
    n_devices = math.prod(shape)
    if n_devices > len(devices):
        hint = "; JAX_NUM_CPU_DEVICES makes more of one CPU" if devices[0].platform == "cpu" else ""
        raise ValueError(
            f"devices: only {len(devices)} {'is' if len(devices) == 1 else 'are'} available, "
            f"got {n_devices}{hint}"
        )
    if jax.process_count() > 1 and n_devices < len(devices):
        raise ValueError(
            f"devices: expected all {len(devices)} devices of the {jax.process_count()} "
            f"processes, got {n_devices}"
        )
    grid = np.array(devices[:n_devices]).reshape(shape)
    return Mesh(grid, axes, axis_types=(AxisType.Auto,) * len(axes))


def check_mesh(mesh: Any, *allowed: tuple[str, ...]) -> None:
    """Raise unless ``mesh`` is None or a mesh of one of the allowed axes."""
    is_mesh = isinstance(mesh, Mesh)
    if mesh is not None and not (is_mesh and mesh.axis_names in allowed):
        got = f"a mesh of axes {', '.join(mesh.axis_names)}" if is_mesh else type(mesh).__name__
        raise ValueError(f"mesh: expected jdec.trainer.{allowed[0][0]}_mesh(), got {got}")


class RowSharding(NamedTuple):
    """Valid row count and mesh of a row-sharded array; without a mesh, one device has all rows.

    Shards are contiguous and equal, one a device, the last ones padded. Hashable: a static argument
    of compiled programs.
    """

    n_rows: int  # N; the rows after them are padding
    mesh: Mesh | None = None

    @property
    def n_shards(self) -> int:
        """Number of devices that share the rows."""
        return 1 if self.mesh is None else dict(self.mesh.shape).get(DATA, 1)

    @property
    def padded_length(self) -> int:
        """Number of rows with padding, a multiple of the number of shards."""
        return -(-self.n_rows // self.n_shards) * self.n_shards

    @property
    def _spec(self) -> PartitionSpec:
        names = () if self.mesh is None else self.mesh.axis_names
        return PartitionSpec(DATA) if DATA in names else PartitionSpec()

    def local(self) -> slice:
        """Return which rows are on devices of this process; padding is not counted."""
        if self.mesh is None or DATA not in self.mesh.axis_names:
            return slice(0, self.n_rows)
        size = self.padded_length // self.n_shards
        devices = self.mesh.devices.reshape(-1, self.n_shards)[0]
        here = jax.process_index()
        mine = [index for index, device in enumerate(devices) if device.process_index == here]
        return slice(min(mine[0] * size, self.n_rows), min((mine[-1] + 1) * size, self.n_rows))

    def put(self, rows: Shaped[np.ndarray, "n ..."]) -> Array:
        """Put the rows of this process, those of :meth:`local`, onto the devices, padded."""
        if self.mesh is None:
            return jax.device_put(rows)
        offset, length = self.local().start, self.padded_length

        def shard(index: Any) -> Shaped[np.ndarray, "m ..."]:
            first, last, _ = index[0].indices(length)
            part = rows[max(0, first - offset) : max(0, last - offset)]
            return np.pad(part, [(0, last - first - len(part))] + [(0, 0)] * (rows.ndim - 1))

        sharding = NamedSharding(self.mesh, self._spec)
        return jax.make_array_from_callback((length, *rows.shape[1:]), sharding, shard)

    def fetch(self, array: Array | np.ndarray) -> np.ndarray:
        """Return all rows, without padding, to the host of every process."""
        if isinstance(array, np.ndarray):
            return array
        if not (array.is_fully_addressable or array.is_fully_replicated):
            array = multihost_utils.process_allgather(array, tiled=True)
        return np.asarray(array)[: self.n_rows]

    def join(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of all processes, each of which holds those of :meth:`local`."""
        if self.mesh is None or jax.process_count() == 1:
            return rows
        per_process = self.padded_length // jax.process_count()
        padding = [(0, per_process - len(rows))] + [(0, 0)] * (rows.ndim - 1)
        return allgather(np.pad(rows, padding)).reshape(-1, *rows.shape[1:])[: self.n_rows]

    def constrain(self, array: Array) -> Array:
        """Constrain the leading axis to be sharded (inside jit)."""
        return _constrain(array, self.mesh, self._spec)

    def map(self, function: Callable[[Any, Array], Array]) -> Callable[[Any, Array], Array]:
        """Turn ``function(params, rows)`` into one that each device applies to its own rows."""
        if self.n_shards == 1:
            return function
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=(PartitionSpec(), self._spec),
            out_specs=self._spec,
            check_vma=False,
        )


def concatenate_rows(
    a: Float[Array, "M D"], of_a: RowSharding, b: Float[Array, "L D"], of_b: RowSharding
) -> tuple[Float[Array, "O D"], RowSharding]:
    """Join the rows of two arrays, less their padding, and say how they lie."""
    joined = of_a._replace(n_rows=of_a.n_rows + of_b.n_rows)
    return _concatenate(a, b, n_a=of_a.n_rows, joined=joined), joined


@partial(jax.jit, static_argnames=("n_a", "joined"))
def _concatenate(a: Array, b: Array, *, n_a: int, joined: RowSharding) -> Array:
    rows = jnp.concatenate([a[:n_a], b[: joined.n_rows - n_a]])
    return joined.constrain(jnp.pad(rows, ((0, joined.padded_length - len(rows)), (0, 0))))


def replicate(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Put arrays of the host, the same in all processes, onto every device."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec())

    def place(leaf: Any) -> Array:
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(place(jax.random.key_data(leaf)))
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(place, tree)


def all_gather(array: Array, mesh: Mesh | None) -> Array:
    """Constrain to be replicated: all rows on every device (inside jit)."""
    return _constrain(array, mesh, PartitionSpec())


def _constrain(array: Array, mesh: Mesh | None, spec: PartitionSpec) -> Array:
    if mesh is None or DATA not in mesh.axis_names:  # then every device has all rows already
        return array
    return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, spec))


def map_over_devices(
    function: Callable[..., Any],
    items: PyTree,
    mesh: Mesh | None,
    *,
    shared: tuple[Any, ...] = (),
    vectorized: bool = False,
) -> PyTree:
    """Apply ``function(item, *shared)`` along a leading axis, each device taking its share.

    The mesh has one axis. A device takes its items all at once, by ``jax.vmap``, if ``vectorized``
    is set, and one after another otherwise.
    """

    def apply(part: PyTree, shared: tuple[Any, ...]) -> PyTree:
        def one(item: Any) -> Any:
            return function(item, *shared)

        return jax.vmap(one)(part) if vectorized else jax.lax.map(one, part)

    if mesh is None:
        return apply(items, shared)
    n_items = len(jax.tree.leaves(items)[0])
    items = pad_items(items, -n_items % mesh.size)
    axis, everywhere = PartitionSpec(mesh.axis_names[0]), PartitionSpec()
    mapped = jax.shard_map(
        apply, mesh=mesh, in_specs=(axis, everywhere), out_specs=axis, check_vma=False
    )(items, shared)
    return jax.tree.map(lambda leaf: leaf[:n_items], mapped)


def pad_items(items: PyTree, n_padding: int) -> PyTree:
    """Repeat the last of some items along their leading axis."""
    if not n_padding:
        return items
    n_items = len(jax.tree.leaves(items)[0])
    indices = np.minimum(np.arange(n_items + n_padding), n_items - 1)
    return jax.tree.map(lambda leaf: leaf[indices], items)
