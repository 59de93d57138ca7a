"""What a plan is predicted to take under a barrier, and how unevenly.

N sequences, R ranks, M micro-batches per rank.
"""

import numpy as np

from sbcore.plan.pipeline import makespan_ms
from sbcore.types import Barrier, BatchPlan, CostModel, FloatArray, IntArray, Topology


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


def slowed(times: FloatArray, topology: Topology) -> FloatArray:
    """Returns predicted times [R, M] as the ranks' speed factors make them, [R, M]."""
    return times * np.array(topology.factors)[:, None]


def step_ms(times: FloatArray, barrier: Barrier, *, num_stages: int = 1) -> float:
    """Returns the time of the step of times [R, M].

    `step` max_r sum_m, `micro` sum_m max_r. With stages the sum over m becomes the 1F1B makespan,
    and `pipeline` is another word for `step`.
    """
    waiting = times.max(axis=0, keepdims=True) if barrier is Barrier.MICRO else times
    spans = waiting.sum(axis=1) if num_stages == 1 else makespan_ms(waiting, num_stages)
    return float(spans.max())


def imbalance(times: FloatArray, barrier: Barrier, *, num_stages: int = 1) -> float:
    """Returns the step's time over the mean device's own time, >= 1; times is [R, M].

    Each device of a pipeline has 1 / num_stages of its rank's work, so that the bubble of filling
    and draining counts.
    """
    own = float(times.sum(axis=1).mean()) / num_stages
    return max(step_ms(times, barrier, num_stages=num_stages) / own, 1.0)
