"""The budgets at which coverage is known: every small one, then about 15 % apart."""

import numpy as np

from sbcore.types import IntArray


def make_ladder(num_blocks: int, top_k: int) -> IntArray:
    """Returns the rungs, int64 [K] ascending: 1 .. num_blocks with top_k among them.

    All up to 16, since small budgets differ most; then geometric, which keeps K near 30 for a
    sequence of 256 blocks.
    """
    rungs = {*range(1, 17), top_k, num_blocks}
    rung = 16.0
    while rung < num_blocks:
        rungs.add(round(rung))
        rung *= 1.15
    return np.array(sorted(r for r in rungs if r <= max(num_blocks, top_k)), dtype=np.int64)
