"""Selection among fits without labels, and fits over a grid of settings."""

from jdec.selection.criteria import (
    consensus,
    generalizability,
    mean_ari,
    pairwise_ari,
    sampled_silhouette,
)
from jdec.selection.sweep import Grid, SweepResult, run_sweep

__all__ = [
    "Grid",
    "SweepResult",
    "consensus",
    "generalizability",
    "mean_ari",
    "pairwise_ari",
    "run_sweep",
    "sampled_silhouette",
]
