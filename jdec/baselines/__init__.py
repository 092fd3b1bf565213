"""The spectral methods that the paper compares with: SEC and LDMGI."""

from jdec.baselines.ldmgi import LDMGI as LDMGI
from jdec.baselines.sec import SEC as SEC

__all__ = ["LDMGI", "SEC"]
