import numpy as np
import pytest

from jdec._host_arrays import empty_on_host


@pytest.mark.parametrize(("max_bytes", "in_a_file"), [(47, True), (48, False)])
def test_large_arrays_lie_in_a_file_without_a_name(max_bytes, in_a_file):
    array = empty_on_host((3, 4), np.float32, max_bytes=max_bytes)
    array[:] = np.arange(12).reshape(3, 4)
    assert isinstance(array, np.memmap) == in_a_file
    assert getattr(array, "filename", None) is None
    assert (array.dtype, array[2].tolist()) == (np.float32, [8, 9, 10, 11])


def test_arrays_without_entries_are_no_files():
    assert empty_on_host((0, 4), np.int64, max_bytes=0).shape == (0, 4)
