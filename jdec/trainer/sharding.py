"""Rows and members over devices, devices over processes: the only module that names a mesh.

Rows of the data lie in equal contiguous shards, one a device, the last of them padded; parameters
are on every device. A mini-batch holds the rows that it would hold on one device, drawn from all
shards, so that the number of devices changes the time and not the result.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.sharding import Mesh as Mesh
from jaxtyping import Array, Float, PyTree, Shaped

from jdec._checks import check_integer

DATA, MEMBER = "data", "member"


def data_mesh(n_devices: int | None = None) -> Mesh:
    """Return a mesh that spreads rows over devices, those of one process side by side.

    Args:
        n_devices: How many of JAX's devices; all by default, and always with several processes.

    Raises:
        ValueError: If there are fewer.

    Examples:
        >>> dict(data_mesh(1).shape)
        {'data': 1}
    """
    return _mesh(DATA, n_devices)


def member_mesh(n_devices: int | None = None) -> Mesh:
    """Return a mesh that spreads the members of a population over devices.

    Args:
        n_devices: How many of JAX's devices; all by default.

    Raises:
        ValueError: If there are fewer.

    Examples:
        >>> dict(member_mesh(1).shape)
        {'member': 1}
    """
    return _mesh(MEMBER, n_devices)


def _mesh(axis: str, n_devices: int | None) -> Mesh:
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if n_devices is None:
        n_devices = len(devices)
    check_integer("devices", n_devices)
    if n_devices > len(devices):
        hint = "; JAX_NUM_CPU_DEVICES makes more of one CPU" if devices[0].platform == "cpu" else ""
        raise ValueError(
            f"devices: expected at most {len(devices)}, which is how many JAX has here, "
            f"got {n_devices}{hint}"
        )
    if jax.process_count() > 1 and n_devices < len(devices):
        raise ValueError(
            f"devices: expected all {len(devices)} devices of the {jax.process_count()} "
            f"processes, got {n_devices}"
        )
    return Mesh(np.array(devices[:n_devices]), (axis,), axis_types=(AxisType.Auto,))


# Rows --------------------------------------------------------------------------------------------


def padded_length(n_rows: int, mesh: Mesh | None) -> int:
    """Return the number of rows with padding, a multiple of the number of devices."""
    n_devices = 1 if mesh is None else mesh.size
    return -(-n_rows // n_devices) * n_devices


def local_rows(n_rows: int, mesh: Mesh | None) -> slice:
    """Return which of N rows lie on devices of this process; padding is not counted."""
    if mesh is None:
        return slice(0, n_rows)
    rows_per_device = padded_length(n_rows, mesh) // mesh.size
    mine = [i for i, d in enumerate(mesh.devices.flat) if d.process_index == jax.process_index()]
    return slice(
        min(mine[0] * rows_per_device, n_rows), min((mine[-1] + 1) * rows_per_device, n_rows)
    )


def shard_rows(rows: Shaped[np.ndarray, "n ..."], n_rows: int, mesh: Mesh | None) -> Array:
    """Put rows onto the devices of a mesh, padded with zeros.

    Args:
        rows: Those that :func:`local_rows` names.
        n_rows: N, how many there are in all processes.
        mesh: From :func:`data_mesh`, or None for the default device.

    Returns:
        One array of all rows and the padding.
    """
    if mesh is None:
        return jnp.asarray(rows)
    offset = local_rows(n_rows, mesh).start

    def shard(index: Any) -> Shaped[np.ndarray, "m ..."]:
        first, last, _ = index[0].indices(padded_length(n_rows, mesh))
        part = rows[max(0, first - offset) : max(0, last - offset)]
        return np.pad(part, [(0, last - first - len(part))] + [(0, 0)] * (rows.ndim - 1))

    shape = (padded_length(n_rows, mesh), *rows.shape[1:])
    return jax.make_array_from_callback(shape, _by_rows(mesh), shard)


def concatenate_rows(
    a: Float[Array, "M D"], n_a: int, b: Float[Array, "L D"], n_b: int, mesh: Mesh | None
) -> Float[Array, "O D"]:
    """Put the rows of two arrays that lie over devices, less their padding, into one."""
    return _concatenate(a, b, n_a=n_a, n_b=n_b, mesh=mesh)


@partial(jax.jit, static_argnames=("n_a", "n_b", "mesh"))
def _concatenate(
    a: Float[Array, "M D"], b: Float[Array, "L D"], *, n_a: int, n_b: int, mesh: Mesh | None
) -> Float[Array, "O D"]:
    rows = jnp.concatenate([a[:n_a], b[:n_b]])
    rows = jnp.pad(rows, ((0, padded_length(len(rows), mesh) - len(rows)), (0, 0)))
    return spread_rows(rows, mesh)


def spread_rows(array: Array, mesh: Mesh | None) -> Array:
    """Within a compiled program: have the rows of an array lie over the devices."""
    return array if mesh is None else jax.lax.with_sharding_constraint(array, _by_rows(mesh))


def gather_rows(array: Array, mesh: Mesh | None) -> Array:
    """Within a compiled program: have all rows of an array on every device."""
    if mesh is None:
        return array
    return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, PartitionSpec()))


def map_shards(
    function: Callable[[Any, Array], Array], mesh: Mesh | None
) -> Callable[[Any, Array], Array]:
    """Turn ``function(params, rows)`` into one that each device applies to its own rows."""
    if mesh is None:
        return function
    everywhere, by_rows = PartitionSpec(), PartitionSpec(DATA)
    return jax.shard_map(
        function, mesh=mesh, in_specs=(everywhere, by_rows), out_specs=by_rows, check_vma=False
    )


def map_over_devices(
    function: Callable[..., Any],
    items: PyTree,
    mesh: Mesh | None,
    *,
    shared: tuple[Any, ...] = (),
    vectorized: bool = False,
) -> PyTree:
    """Apply ``function(item, *shared)`` along a leading axis, each device taking its share.

    Args:
        function: What to apply.
        items: Pytree whose leaves share a leading axis.
        mesh: A mesh of one axis, or None for one device.
        shared: More arguments, the same for all items.
        vectorized: Whether a device takes its items all at once, by ``jax.vmap``, or one after
            another.

    Returns:
        The results, stacked.
    """

    def apply(part: PyTree, shared: tuple[Any, ...]) -> PyTree:
        if vectorized:
            return jax.vmap(lambda item: function(item, *shared))(part)
        return jax.lax.map(lambda item: function(item, *shared), part)

    if mesh is None:
        return apply(items, shared)
    n_items = len(jax.tree.leaves(items)[0])
    n_padding = -n_items % mesh.size
    if n_padding:
        rows = np.minimum(np.arange(n_items + n_padding), n_items - 1)
        items = jax.tree.map(lambda leaf: leaf[rows], items)
    axis, everywhere = PartitionSpec(mesh.axis_names[0]), PartitionSpec()
    mapped = jax.shard_map(
        apply, mesh=mesh, in_specs=(axis, everywhere), out_specs=axis, check_vma=False
    )(items, shared)
    return jax.tree.map(lambda leaf: leaf[:n_items], mapped) if n_padding else mapped


def fetch_rows(array: Array, n_rows: int) -> np.ndarray:
    """Return all rows, without padding, to the host of every process."""
    if not (array.is_fully_addressable or array.is_fully_replicated):
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)[:n_rows]


def join_rows(rows: np.ndarray, n_rows: int, mesh: Mesh | None) -> np.ndarray:
    """Return the rows of all processes, each of which holds those of :func:`local_rows`."""
    if mesh is None or jax.process_count() == 1:
        return rows
    per_process = padded_length(n_rows, mesh) // jax.process_count()
    padding = [(0, per_process - len(rows))] + [(0, 0)] * (rows.ndim - 1)
    stacked = over_processes(np.pad(rows, padding))
    return stacked.reshape(-1, *rows.shape[1:])[:n_rows]


def _by_rows(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(DATA))


# Everything else ---------------------------------------------------------------------------------


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


def over_processes(array: np.ndarray) -> np.ndarray:
    """Stack an array of the host over all processes, [P …], bit by bit."""
    if jax.process_count() == 1:
        return array[None]
    # As bytes, since JAX would round 64 bits to 32.
    data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    gathered = np.asarray(multihost_utils.process_allgather(data))
    return gathered.reshape(-1).view(array.dtype).reshape(-1, *array.shape)


def from_each_process(value: Any) -> list[Any]:
    """Hand the JSON value of each process to all."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = over_processes(np.array(len(text)))
    texts = over_processes(np.pad(text, (0, int(lengths.max()) - len(text))))
    pairs = zip(texts, lengths.tolist(), strict=True)
    return [json.loads(text[:length].tobytes()) for text, length in pairs]


def check_processes_agree(values: Mapping[str, Any], refusal: str | None = None) -> None:
    """Raise on every process if one refuses, or if a named value is another one somewhere.

    Before any work: processes that differ would wait for each other in programs that do not match,
    or end with a result that is nobody's.

    Args:
        values: Name to JSON value, of this process.
        refusal: Why this process refuses to go on, if it does.

    Raises:
        ValueError: Names the process and what differs; the same on all of them.
    """
    if jax.process_count() == 1:
        if refusal is not None:
            raise ValueError(refusal)
        return
    everywhere = from_each_process([refusal, dict(values)])
    for theirs, _ in everywhere:
        if theirs is not None:
            raise ValueError(theirs)
    expected = everywhere[0][1]
    for process, (_, values) in enumerate(everywhere):
        differences = [
            f"{name}: {_shown(values.get(name))} against {_shown(expected.get(name))}"
            for name in dict.fromkeys([*expected, *values])
            if values.get(name) != expected.get(name)
        ]
        if differences:
            raise ValueError(
                f"process {process} differs from process 0 in {'; '.join(differences[:5])}; "
                "start all processes with the same command and data"
            )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"


def check_mesh(mesh: Any, axis: str) -> None:
    """Raise unless ``mesh`` is None or a mesh of one axis of that name."""
    if mesh is None:
        return
    if not isinstance(mesh, Mesh):
        raise ValueError(f"mesh: expected jdec.trainer.{axis}_mesh(), got {type(mesh).__name__}")
    if mesh.axis_names != (axis,):
        raise ValueError(
            f"mesh: expected jdec.trainer.{axis}_mesh(), got a mesh of axes {', '.join(mesh.axis_names)}"
        )


def arrays_from_first_process(tree: PyTree) -> PyTree:
    """Hand arrays of process 0 to all, whose own have the same shapes."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.broadcast_one_to_all(tree)


def is_first_process() -> bool:
    """Whether this process writes the files."""
    return jax.process_index() == 0
