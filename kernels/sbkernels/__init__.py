"""Block-sparse (MoBA) attention for packed sequences, with a budget that is device data.

The package depends on torch alone; triton is imported when its backend is first used.
"""

from sbkernels.moba.attention import coverage_curve, moba_attention, select_blocks
from sbkernels.moba.reference import moba_attention_reference
from sbkernels.moba.selection import BlockSelection

__all__ = [
    "BlockSelection",
    "coverage_curve",
    "moba_attention",
    "moba_attention_reference",
    "select_blocks",
]
