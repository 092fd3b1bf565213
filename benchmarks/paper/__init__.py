"""The tables and figures of the paper, one module each: ``python -m benchmarks.paper --help``."""
