"""How long a 1F1B pipeline takes whose micro-batches differ in size.

Order matters as much as size: stages wait while the first micro-batch comes in and the last one
goes out, so both should be small. R pipelines (ranks), M micro-batches of each in the order of
execution, P stages. Layers are shared out evenly, so a micro-batch takes 1/P of its time on each
stage; what sending between stages costs is left out.
"""

import numpy as np

from sbcore.types import FloatArray, IntArray

FORWARD_SHARE = 1.0 / 3.0
"""Share of a micro-batch's time before its backward pass; layers that are recomputed lower it."""


def makespan_ms(times: FloatArray, num_stages: int) -> FloatArray:
    """Returns when the last backward pass ends, [R], of times [R, M].

    1F1B: stage s runs P - 1 - s forward passes ahead, then one forward and one backward in turn.
    Forward i of stage s and backward m = i - (P - 1 - s) are neighbours there, so all of them with
    one m make a wave, and a wave needs only itself and earlier ones.
    """
    num_ranks, num_micro = times.shape
    forward = (times * (FORWARD_SHARE / num_stages)).T
    backward = (times * ((1.0 - FORWARD_SHARE) / num_stages)).T
    free = np.zeros((num_stages, num_ranks))  # when the stage is done with what it began
    arrived = np.zeros((num_stages + 1, num_ranks))  # end of each stage's latest forward, one below
    for wave in range(1 - num_stages, num_micro):
        for stage in range(num_stages - 1, -1, -1):  # downwards: reads the forward of a wave ago
            i = wave + num_stages - 1 - stage
            if 0 <= i < num_micro:
                before = arrived[stage] if stage else 0.0
                free[stage] = np.maximum(free[stage], before) + forward[i]
                arrived[stage + 1] = free[stage]
        if wave >= 0:
            done = free[num_stages - 1]
            for stage in range(num_stages - 1, -1, -1):
                done = np.maximum(free[stage], done) + backward[wave]
                free[stage] = done
    return free[0]


def small_ends(loads: FloatArray) -> IntArray:
    """Returns the order of micro-batches with the smallest first and last, the largest inside."""
    rising = np.argsort(loads, kind="stable")
    return np.concatenate([rising[::2], rising[1::2][::-1]])
