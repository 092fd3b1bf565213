import pytest

from jdec.bench.member_steps import measure_members
from jdec.trainer import memory
from jdec.trainer.config import Config


def test_members_without_memory_are_left_out_and_named(monkeypatch):
    config = Config(n_clusters=2).replace(
        {"network.hidden_dims": [4], "network.latent_dim": 2, "pretrain.batch_size": 8}
    )
    monkeypatch.setattr(memory, "free_device_bytes", lambda: 1)
    noted = []
    options = {"n_steps": 2, "repeats": 1, "n_rows": 16, "note": noted.append}
    measured = measure_members(config, (1, 2, 4), **options)
    assert [point["members"] for point in measured["points"]] == [1]
    assert measured["left_out"] == [2, 4]
    assert noted == ["1 members"]
    assert measured["points"][0]["pretraining_steps_per_second"] == pytest.approx(
        2 / measured["points"][0]["timings"][0]["median"], rel=1e-3
    )
