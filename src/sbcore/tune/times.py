"""What a step takes by the budgets that its sequences use: read off the latency model once.

L layers, N sequences, K rungs of the ladder, R ranks, M micro-batches of each.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from sbcore.latency.packs import shares_of
from sbcore.tune.loads import Loads
from sbcore.tune.pipelines import loads_of
from sbcore.tune.policy import Observation
from sbcore.types import FloatArray, IntArray, LatencyModel

MOST_LENGTHS = 65_536
"""Lengths that a table of times holds: 19 MB and 0.6 s at 36 rungs."""


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
    """Returns the times of the observed step at every rung.

    A sequence's times are those in its micro-batch, which is recomputed or not.
    """
    latency, ladder = observation.latency, observation.coverage.ladder
    loads, shares = loads_of(observation), shares_of(latency)
    attention_ms = observation.attention_ms
    if attention_ms is None:
        attention_ms = latency.attention_ms(observation.lengths[:, None], ladder[None, :])
    linear_ms = latency.linear_ms(observation.lengths)
    if not shares.even:
        tokens = loads.micro_batch_ms(observation.lengths.astype(np.float64)).astype(np.int64)
        share = shares.of(tokens)[loads.micro_batch]
        attention_ms, linear_ms = attention_ms * share[:, None], linear_ms * share
    return StepTimes(attention_ms, linear_ms, loads)


class RungTimes:
    """A layer's attention at every rung, asked once for all lengths and looked up from then on.

    A third of a decision is asking: 0.25 ms, against 20 ms for all lengths up to 4,096 tokens.
    """

    def __init__(self, latency: LatencyModel, ladder: IntArray, *, longest: int) -> None:
        self._lengths = np.arange(1, min(longest, MOST_LENGTHS) + 1)[:, None]
        self._latency, self._ladder = latency, ladder

    @cached_property
    def _ms(self) -> FloatArray:
        return self._latency.attention_ms(self._lengths, self._ladder[None, :])

    def of(self, lengths: IntArray) -> FloatArray | None:
        """Returns the times of these lengths, [N, K]; None where one is longer than the table."""
        return self._ms[lengths - 1] if int(lengths.max()) <= len(self._lengths) else None


def between_rungs(attention_ms: FloatArray, ladder: IntArray) -> FloatArray:
    """Returns the times at every budget from the first rung to the last, [N, budgets].

    Linear between rungs, which are close: within 0.1 % of a measured table's own interpolation.
    """
    lower, upper, share = _places(tuple(ladder.tolist()))
    low = attention_ms[:, lower]
    times: FloatArray = low + share * (attention_ms[:, upper] - low)
    return times


@lru_cache(maxsize=8)
def _places(ladder: tuple[int, ...]) -> tuple[IntArray, IntArray, FloatArray]:
    """Returns each budget's neighbouring rungs, and the share of the way between them."""
    rungs = np.array(ladder)
    budgets = np.arange(ladder[0], ladder[-1] + 1)
    upper = np.searchsorted(rungs, budgets)
    lower = np.maximum(upper - 1, 0)
    return lower, upper, (budgets - rungs[lower]) / np.maximum(rungs[upper] - rungs[lower], 1)
