"""Choosing among fits without labels, and fits over a grid of settings."""

from jdec.selection.criteria import agreement_with_others as agreement_with_others
from jdec.selection.criteria import consensus as consensus
from jdec.selection.criteria import generalizability as generalizability
from jdec.selection.criteria import pairwise_agreement as pairwise_agreement
from jdec.selection.criteria import sampled_silhouette as sampled_silhouette

__all__ = [
    "agreement_with_others",
    "consensus",
    "generalizability",
    "pairwise_agreement",
    "sampled_silhouette",
]
