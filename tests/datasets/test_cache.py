import numpy as np
import pytest

from jdec.datasets._cache import cached


@pytest.mark.parametrize("error", [ValueError, KeyError, OSError, TypeError])
def test_an_error_of_the_program_is_no_damage(tmp_path, cache_dir, monkeypatch, error):
    def compute():
        return np.zeros(3)

    def read(path):
        raise error("a mistake in the program")

    def save(file, array):
        np.save(file, array)

    cached("a", ".npy", ["digest"], {}, compute, save, np.load)
    (kept,) = (cache_dir / "features").iterdir()
    with pytest.raises(error, match="a mistake in the program"):
        cached("a", ".npy", ["digest"], {}, compute, save, read)
    assert kept.exists()
