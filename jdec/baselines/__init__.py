"""The spectral methods that the paper compares with: SEC and LDMGI."""

from jdec.baselines.methods import LDMGI as LDMGI
from jdec.baselines.methods import SEC as SEC

__all__ = [
    "LDMGI",
    "SEC",
]
