from jdec.bench.table import figures_of, format_record

POINT = {"preset": "fast", "phase": "finetune", "step_ms": 1.5, "step_iqr_ms": 0.25}
POINT |= {"gflops": 100.0, "share_of_peak": 0.25, "share_of_bandwidth": None}
POINT |= {"timings": [{"compile": 2.0}]}
RUN = {"start": "cold", "seed": 0, "acc": 0.9, "seconds": 12.5, "seconds_to_level": None}
RUN |= {"compiling": {"seconds": 3.0, "cache_hits": 2}, "shares": {"pretraining": 0.8}}
RECORD = {
    "machine": {"cores": 2, "processor": "A"},
    "date": "2026-12-01",
    "environment": {"device": "gpu: H", "n_devices": 2, "jdec": "1", "jax": "2", "python": "3"},
    "options": {"precision": "float32", "scan_unroll": 4, "xla_flags": "--a " * 40, "quick": False},
    "peak_gflops": 400.0,
    "bandwidth_gbytes": 50.0,
    "steps": [POINT],
    "members": {
        "points": [
            {"members": 4, "pretraining_steps_per_second": 8.0, "interval_steps_per_second": 2e4}
        ],
        "left_out": [8, 16],
    },
    "fits": {"dataset": "digits", "level": 0.9, "runs": [RUN]},
}


def test_every_figure_is_a_line():
    figures = figures_of(RECORD)
    assert figures["device"] == "H × 2"
    assert figures["options"].startswith("float32, scan unroll 4, --a, --a")
    assert figures["fast: pretraining step"] == "1.50 ms ± 0.25, 100 GFLOP/s, 0.25 of peak"
    assert figures["fast: compiling its steps"] == "2.0 s"
    assert figures["members 4: steps/s (each)"] == "pretraining 8.00 (2.00), KL 20000 (5000)"
    assert figures["members left out for lack of memory"] == "8, 16"
    assert figures["digits, cold, seed 0: to ACC 0.9"] == "not reached"
    whole = "12.5 s, of which compiling 3.0 s (2 cache hits); ACC 0.900"
    assert figures["digits, cold, seed 0: whole fit"] == whole
    assert figures["digits, cold, seed 0: shares"] == "pretraining 80 %"


def test_a_table_is_aligned_and_at_most_100_columns_wide():
    lines = format_record(RECORD).splitlines()
    assert max(map(len, lines)) <= 100
    width = max(map(len, figures_of(RECORD)))
    assert all(line[width : width + 2] == "  " and line[width + 2] != " " for line in lines)
