"""What a plan is predicted to take under a barrier, and how unevenly.

N sequences, R ranks, M micro-batches per rank.
"""

import numpy as np

from sbcore.types import Barrier, BatchPlan, CostModel, FloatArray, IntArray


def micro_batch_ms(batch: BatchPlan, lengths: IntArray, cost: CostModel) -> FloatArray:
    """Returns the predicted time of every micro-batch, dummies included, [R, M]."""
    times = cost.sequence_ms(lengths)
    return packed_ms(batch, times, floor_ms=cost.floor_ms, constant_ms=cost.constant_ms)


def packed_ms(
    batch: BatchPlan, sequence_ms: FloatArray, *, floor_ms: float, constant_ms: float
) -> FloatArray:
    """Returns what micro-batches take whose sequences take sequence_ms [N], [R, M]."""
    each = sequence_ms.tolist()
    loads = [[sum(each[i] for i in pack) for pack in rank] for rank in batch.micro_batches]
    times: FloatArray = np.maximum(np.array(loads, dtype=np.float64), floor_ms)
    return times + constant_ms


def step_ms(times: FloatArray, barrier: Barrier) -> float:
    """Returns the time of the step: `step` max_r sum_m, `micro` sum_m max_r of times [R, M]."""
    if barrier is Barrier.STEP:
        return float(times.sum(axis=1).max())
    return float(times.max(axis=0).sum())


def imbalance(times: FloatArray, barrier: Barrier) -> float:
    """Returns the step's time over the mean rank's own time, >= 1; times is [R, M]."""
    return max(step_ms(times, barrier) / float(times.sum(axis=1).mean()), 1.0)
