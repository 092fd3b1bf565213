import os

import jax
import pytest

from jdec.bench.flags import set_xla_flags


def test_flags_are_too_late_once_jax_has_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    jax.devices()
    before = jax.config.values["jax_num_cpu_devices"]
    with pytest.raises(ValueError, match="xla_flags: expected them before JAX uses a device"):
        set_xla_flags("xla_cpu_ftz=false")
    assert set_xla_flags(" ") == os.environ["XLA_FLAGS"]
    assert jax.config.values["jax_num_cpu_devices"] == before
