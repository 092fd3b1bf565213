"""Selection among fits without labels, and fits over a grid of settings."""

from jdec.selection.criteria import consensus as consensus
from jdec.selection.criteria import generalizability as generalizability
from jdec.selection.criteria import mean_ari as mean_ari
from jdec.selection.criteria import pairwise_ari as pairwise_ari
from jdec.selection.criteria import sampled_silhouette as sampled_silhouette
from jdec.selection.sweep import Grid as Grid
from jdec.selection.sweep import SweepResult as SweepResult
from jdec.selection.sweep import run_sweep as run_sweep

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
