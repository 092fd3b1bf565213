import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdec._host_arrays import ReusedMemory, empty_on_host


@pytest.mark.parametrize(("max_bytes", "in_a_file"), [(47, True), (48, False)])
def test_large_arrays_lie_in_a_file_without_a_name(max_bytes, in_a_file):
    array = empty_on_host((3, 4), np.float32, max_bytes=max_bytes)
    array[:] = np.arange(12).reshape(3, 4)
    assert isinstance(array, np.memmap) == in_a_file
    assert getattr(array, "filename", None) is None
    assert (array.dtype, array[2].tolist()) == (np.float32, [8, 9, 10, 11])


def test_arrays_without_entries_are_no_files():
    assert empty_on_host((0, 4), np.int64, max_bytes=0).shape == (0, 4)


@pytest.mark.parametrize("n_rows", [3, 4000, 300_000])
def test_memory_is_not_used_again_while_an_array_is_kept(n_rows):
    """Also by JAX, which copies nothing on a CPU, and may still be computing."""
    memory, places, kept, sums = ReusedMemory(), set(), [], []
    total = jax.jit(lambda x: jnp.sin(x).sum())
    for value in range(12):
        array = memory.empty((n_rows, 8), np.float32)
        array[...] = value
        places.add(array.ctypes.data)
        on_device = jax.device_put(array.reshape(2, -1) if n_rows % 2 == 0 else array)
        sums.append(total(on_device))
        if value % 4 == 0:
            kept.append((value, on_device, array[1:2]))
        del array, on_device
        if value % 3 == 0:
            jax.block_until_ready(sums)
    for value, on_device, part in kept:
        assert (np.asarray(on_device) == value).all()
        assert (part == value).all()
    expected = np.sin(np.arange(12.0)) * 8 * n_rows
    np.testing.assert_allclose(sums, expected, rtol=1e-3, atol=1e-2)
    assert n_rows == 300_000 or len(places) < 12  # which is more than is kept at once


@pytest.mark.parametrize(
    "code",
    [
        "empty_on_host((2**20, 4), np.float32)[:] = 1",
        "empty_on_host((2**20, 4), np.float32, max_bytes=0)[:] = 1",
        "rows = RowBuffer(4, np.float32, max_bytes=2**19)\nfor _ in range(64):"
        " rows.append(np.ones((2**14, 4)))\nrows.finish()",
    ],
)
def test_a_disk_without_room_is_told_of_before_anything_is_lost(tmp_path, code):
    mount = f"mount -t tmpfs -o size=1m none {tmp_path}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("needs to mount a small disk")
    start = "import numpy as np\nfrom jdec._host_arrays import RowBuffer, empty_on_host\n"
    command = f'{mount} && TMPDIR={tmp_path} exec "$0" -c "$1"'
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, sys.executable, start + code],
        capture_output=True,
        text=True,
    )
    if "max_bytes" not in code:  # memory has room
        assert ended.returncode == 0, ended.stderr
        return
    assert ended.returncode == 1
    message = ended.stderr.splitlines()[-1]
    assert f"No space left on device in {tmp_path}, where" in message
    assert "set TMPDIR" in message
