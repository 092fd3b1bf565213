import json

import jax
import jax.numpy as jnp

from jdec.bench.timing import make_product, measure_bandwidth, measure_peak, time_jitted


def test_a_timing_takes_compilation_apart_and_carries_donated_arguments():
    function = jax.jit(lambda state, n: state * n, static_argnames="n", donate_argnames="state")
    timing = time_jitted(
        function, jnp.ones(4), static={"n": 2}, repeats=5, carry=lambda result, args: (result,)
    )
    assert len(timing.seconds) == 5
    assert timing.compile > 0
    assert timing.trace_and_lower > 0
    assert timing.iqr >= 0
    assert timing.flops == 4
    assert json.loads(json.dumps(timing.to_dict()))["median"] > 0


def test_the_peak_is_of_products_in_the_precision_of_the_layers():
    for precision, dtype in (("float32", "float32"), ("bfloat16", "bfloat16")):
        product = make_product(8, precision)()
        assert product.dtype == dtype
        assert (product == 8).all()
        assert measure_peak(8, 2, precision) > 0
    assert measure_bandwidth(8, 2) > 0
