import pytest

from jdec.bench.record import Options, measure_machine


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": ()}, "parts: expected some of steps, members, fits, got"),
        ({"parts": ("all",)}, "parts: expected one of"),
        ({"precision": "float16"}, "precision: expected one of"),
        ({"scan_unroll": 0}, "scan_unroll: expected"),
        ({"seeds": -1}, "seeds: expected"),
        ({"quick": 1}, "quick: expected"),
    ],
)
def test_options_are_validated(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_fits_need_rows():
    with pytest.raises(ValueError, match="task: expected rows and classes"):
        measure_machine(Options(quick=True))
