"""What a step takes by the budgets that its sequences use: read off the latency model once.

L layers, N sequences, K rungs of the ladder or other budgets, R ranks, M micro-batches of each.
"""

from dataclasses import dataclass

import numpy as np

from sbcore.latency.packs import shares_of
from sbcore.tune.loads import Loads
from sbcore.tune.pipelines import loads_of
from sbcore.tune.policy import Observation
from sbcore.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Times of a step, and what waits for what in it."""

    attention_ms: FloatArray  # [N, K], of one layer
    linear_ms: FloatArray  # [N]
    loads: Loads

    def micro_batch_ms(self, attention_ms: FloatArray) -> FloatArray:
        """Returns the time of every micro-batch before the floor, [R * M].

        attention_ms is [L, N], each layer's time at the budgets in question.
        """
        return self.loads.micro_batch_ms(attention_ms.sum(axis=0) + self.linear_ms)

    def at_rungs(self, rungs: IntArray) -> FloatArray:
        """Returns the time of every micro-batch before the floor, [R * M]; rungs are [L, N]."""
        return self.micro_batch_ms(self.attention_ms[np.arange(rungs.shape[1]), rungs])

    def barrier_ms(self, rungs: IntArray) -> float:
        """Returns the time of the step at these rungs, [L, N]."""
        return self.loads.step_ms(self.at_rungs(rungs))


def step_times(observation: Observation) -> StepTimes:
    """Returns the times of the observed step at every rung."""
    return times_at(observation, observation.coverage.ladder)


def times_at(observation: Observation, budgets: IntArray) -> StepTimes:
    """Returns the times of the observed step at these budgets, [K].

    A sequence's times are those in its micro-batch, which is recomputed or not.
    """
    latency = observation.latency
    loads, shares = loads_of(observation), shares_of(latency)
    attention_ms = latency.attention_ms(observation.lengths[:, None], budgets[None, :])
    linear_ms = latency.linear_ms(observation.lengths)
    if not shares.even:
        tokens = loads.micro_batch_ms(observation.lengths.astype(np.float64)).astype(np.int64)
        share = shares.of(tokens)[loads.micro_batch]
        attention_ms, linear_ms = attention_ms * share[:, None], linear_ms * share
    return StepTimes(attention_ms, linear_ms, loads)
