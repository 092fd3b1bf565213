"""How a compiled function is timed, and what this machine can do at most.

What jit hides in a first call is taken apart: tracing and lowering, compiling, the first call of
the compiled program, and the steady state as median and interquartile range over repeats after it.
Every call is waited for. FLOPs and bytes are those that XLA counts in the compiled program: it
counts the body of a loop once, however often the loop runs, and every operand of every operation,
whether it comes from memory or from a cache.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

#: Side of the product whose rate is the peak.
PEAK_SIDE = 2048
#: Numbers in each array of the triad: 128 MiB, more than any cache holds.
TRIAD_SIZE = 2**25


@dataclass(frozen=True)
class Timing:
    """What a jitted function costs, in seconds.

    Attributes:
        trace_and_lower: From Python to XLA's input.
        compile: From there to a program.
        first_call: The first call of that program.
        seconds: Its calls after that, one each.
        flops: Operations that XLA counts, a loop's body once; None where it does not say.
        bytes_accessed: Bytes that XLA counts, likewise.
        temporary_bytes: Memory beside arguments and results; None where XLA does not say.
    """

    trace_and_lower: float
    compile: float
    first_call: float
    seconds: tuple[float, ...]
    flops: float | None
    bytes_accessed: float | None
    temporary_bytes: int | None

    @property
    def median(self) -> float:
        """Median of the steady state."""
        return statistics.median(self.seconds)

    @property
    def iqr(self) -> float:
        """Interquartile range of the steady state."""
        return interquartile_range(self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        values = asdict(self) | {"median": self.median, "iqr": self.iqr}
        return {name: _rounded(value) for name, value in values.items()}


def time_jitted(
    function: Any,
    *args: Any,
    static: Mapping[str, Any] | None = None,
    repeats: int = 5,
    carry: Callable[[Any, tuple[Any, ...]], tuple[Any, ...]] | None = None,
) -> Timing:
    """Take apart what a jitted function costs; it should not have been called before.

    Args:
        function: Made by ``jax.jit``.
        *args: Its arguments that are arrays.
        static: Its static arguments, by name.
        repeats: Calls in the steady state.
        carry: ``carry(result, args)`` gives the arguments of the next call, for a function that
            donates some of them; by default they stay the same.

    Returns:
        The timing.

    Examples:
        >>> len(time_jitted(jax.jit(jnp.sin), jnp.ones(3), repeats=4).seconds)
        4
    """
    began = time.perf_counter()
    lowered = function.trace(*args, **(static or {})).lower()
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    calls = []
    for _ in range(repeats + 1):
        called = time.perf_counter()
        result = jax.block_until_ready(compiled(*args))
        calls.append(time.perf_counter() - called)
        if carry is not None:
            args = carry(result, args)
    flops, bytes_accessed = cost(compiled)
    return Timing(
        trace_and_lower=traced - began,
        compile=done - traced,
        first_call=calls[0],
        seconds=tuple(calls[1:]),
        flops=flops,
        bytes_accessed=bytes_accessed,
        temporary_bytes=_temporary_bytes(compiled),
    )


def cost(compiled: Any) -> tuple[float | None, float | None]:
    """Return the FLOPs and bytes that XLA counts in a compiled program, where it does."""
    try:
        counted = compiled.cost_analysis() or {}
    except (NotImplementedError, RuntimeError):  # a backend that does not count
        return None, None
    return counted.get("flops"), counted.get("bytes accessed")


def seconds_of(piece: Callable[[], Any]) -> float:
    """Return the seconds of one call, its result waited for."""
    began = time.perf_counter()
    jax.block_until_ready(piece())
    return time.perf_counter() - began


def interquartile_range(values: Sequence[float]) -> float:
    """Return the distance between the quartiles.

    Examples:
        >>> interquartile_range([1.0, 2.0, 3.0, 4.0, 5.0])
        2.0
    """
    low, high = np.percentile(values, [25, 75])
    return float(high - low)


def make_product(side: int = PEAK_SIDE, precision: str = "float32") -> Callable[[], Any]:
    """Return a call that multiplies two square matrices as the layers do, already compiled."""
    # By default, an accelerator rounds the factors of a product in float32.
    level = {"float32": jax.lax.Precision.HIGHEST, "tensorfloat32": jax.lax.Precision.HIGH}
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    square = jnp.ones((side, side), dtype)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=level.get(precision)))
    jax.block_until_ready(product(square))
    return lambda: product(square)


def measure_peak(side: int = PEAK_SIDE, repeats: int = 5, precision: str = "float32") -> float:
    """Return the FLOP/s of the product of two square matrices, the median of some.

    Args:
        side: Of the matrices.
        repeats: Products that are timed.
        precision: Of the product, as of a network.

    Returns:
        Operations a second, 2·side³ for a product.

    Examples:
        >>> measure_peak(64, repeats=2) > 0
        True
    """
    product = make_product(side, precision)
    return float(2 * side**3 / statistics.median(seconds_of(product) for _ in range(repeats)))


def measure_bandwidth(size: int = TRIAD_SIZE, repeats: int = 5) -> float:
    """Return the bytes/s of the triad y ← a·x + y over arrays that no cache holds.

    y is updated in place: fresh memory for each result would be timed as well, page by page.

    Args:
        size: Numbers in each array.
        repeats: Triads that are timed, of which the median counts.

    Returns:
        Bytes a second, 12·size for a triad.

    Examples:
        >>> measure_bandwidth(1000, repeats=2) > 0
        True
    """
    triad = jax.jit(lambda x, y: 0.5 * x + y, donate_argnums=1)
    x, y = jnp.ones(size, jnp.float32), jnp.zeros(size, jnp.float32)
    y = jax.block_until_ready(triad(x, y))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        y = jax.block_until_ready(triad(x, y))
        seconds.append(time.perf_counter() - began)
    return float(3 * 4 * size / statistics.median(seconds))


def _temporary_bytes(compiled: Any) -> int | None:
    try:
        memory = compiled.memory_analysis()
    except (NotImplementedError, RuntimeError):
        return None
    return None if memory is None else int(memory.temp_size_in_bytes)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, tuple):
        return [_rounded(part) for part in value]
    return value
