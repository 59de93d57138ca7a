"""What a plan is predicted to take under a barrier, and how unevenly.

N sequences, R ranks, M micro-batches per rank.
"""

import numpy as np

from sbcore.latency.packs import Covered, covered_of, shares_of
from sbcore.plan.pipeline import makespan_ms
from sbcore.types import Barrier, BatchPlan, CostModel, FloatArray, IntArray, Topology


def micro_batch_ms(batch: BatchPlan, lengths: IntArray, cost: CostModel) -> FloatArray:
    """Returns the predicted time of every micro-batch, dummies included, [R, M].

    Beyond the sum of its sequences: what short ones save that are not recomputed, and those that
    dense attention serves.
    """
    work = packed(batch, cost.sequence_ms(lengths))
    covered, shares = covered_of(cost, lengths), shares_of(cost)
    if covered is not None:
        work -= _saved_ms(batch, lengths, covered)
    if not shares.even:
        work *= shares.of(packed(batch, lengths))
    times: FloatArray = np.maximum(work, cost.floor_ms) + cost.constant_ms
    return times


def packed(batch: BatchPlan, values: FloatArray | IntArray) -> FloatArray:
    """Returns the sum over the sequences of every micro-batch, [N] -> [R, M]."""
    each = values.tolist()
    sums = [[sum(each[i] for i in pack) for pack in rank] for rank in batch.micro_batches]
    return np.array(sums, dtype=np.float64)


def _saved_ms(batch: BatchPlan, lengths: IntArray, covered: Covered) -> FloatArray:
    """Returns what dense attention saves in every micro-batch, [R, M]."""
    reach, tokens, saving = covered.reach.tolist(), lengths.tolist(), covered.saving_ms.tolist()

    def saved(pack: tuple[int, ...]) -> float:
        if not pack or min(reach[i] for i in pack) < max(tokens[i] for i in pack):
            return 0.0
        return float(sum(saving[i] for i in pack))

    return np.array([[saved(pack) for pack in rank] for rank in batch.micro_batches])


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
