from jdec.bench.fits import time_to


def test_the_first_time_counts_even_if_the_accuracy_falls_again():
    timeline = [(1.0, None), (2.0, 0.86), (3.0, 0.7), (4.0, 0.91)]
    assert time_to(timeline, [0.8, 0.9, 0.95]) == {"0.8": 2.0, "0.9": 4.0, "0.95": None}
