"""Arrays of the host that may be larger than its memory."""

import math
import tempfile
from typing import Any

import numpy as np

#: Larger arrays lie in a file, which the system reads and writes as they are used.
MAX_BYTES = 2**28
_ALIGNMENT = 64  # bytes


def empty_aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array to fill whose memory a CPU backend of JAX can use without a copy."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(n_bytes + _ALIGNMENT, np.uint8)
    offset = -memory.ctypes.data % _ALIGNMENT
    return memory[offset : offset + n_bytes].view(dtype).reshape(shape)


def empty_on_host(shape: tuple[int, ...], dtype: Any, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Return an array to fill; beyond ``max_bytes``, one in a temporary file that has no name.

    Examples:
        >>> array = empty_on_host((3, 2), np.float32, max_bytes=0)
        >>> array[:] = 1
        >>> array.sum()
        np.float32(6.0)
    """
    if math.prod(shape) * np.dtype(dtype).itemsize <= max_bytes:
        return np.empty(shape, dtype)
    # The array keeps it; where it is ($TMPDIR) there has to be room.
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)
