"""DST of the paper (arXiv 2604.13847): loads are tuned to an anchor latency, both ways.

What is tuned is whatever waits for the others: a rank's whole step under barrier `step`, the m-th
micro-batches of all ranks under barrier `micro` (the paper names micro-batches only). A load
slower than the anchor gets the largest budget that reaches it, among those that lose at most p of
coverage; when none does, the smallest that keeps the bound, a case the paper leaves open. A faster
one is raised until the anchor or until more blocks would cover nothing more.

One difference, for the mean: a load takes the budget whose time is *nearest* to the anchor, be it
above or below. A budget is a whole number of blocks, so "the largest within the anchor" takes a
block from every load that is a hair above the mean: at k0 = 8 that cost 1.5 points of coverage on
plans that were balanced to 1 % already, and bought next to no time.

What it gives up: one budget for all sequences of a load (each then clipped to its own bounds), so
time is not spent where a block covers most. 0.4 ms for 16 sequences of 24 layers.
"""

from collections.abc import Callable

import numpy as np

from sbcore.config.method import AnchorTuner
from sbcore.tune.coverage import budget_bounds
from sbcore.tune.levels import Loads
from sbcore.tune.policy import Observation
from sbcore.tune.times import between_rungs, step_times
from sbcore.types import FloatArray, IntArray

_ANCHORS: dict[str, Callable[[Loads, FloatArray], FloatArray]] = {
    "mean": Loads.column_mean_ms,
    "min": Loads.column_min_ms,
    "max": Loads.column_ms,
}


class AnchorPolicy:
    """Tunes every load to the anchor of the loads that wait for each other."""

    def __init__(self, config: AnchorTuner) -> None:
        self.config = config

    def decide(self, observation: Observation) -> IntArray:
        """Returns target top_k, [num_layers, N]; without known coverage it is k0."""
        low, high = self._bounds(observation)
        loads_ms = _LoadTimes(observation, low, high)
        anchors = _ANCHORS[self.config.anchor](loads_ms.loads, loads_ms.at_k0)
        anchor = anchors[loads_ms.loads.column]
        top_k = _largest_within(loads_ms, anchor)
        if self.config.anchor == "mean":
            top_k = _nearest(loads_ms, anchor, top_k)
        return loads_ms.budgets(top_k)

    def _bounds(self, observation: Observation) -> tuple[IntArray, IntArray]:
        """Returns the least and the greatest top_k of each layer and sequence."""
        coverage = observation.coverage
        low, high = budget_bounds(
            coverage.curves, coverage.ladder, top_k=observation.top_k, p=self.config.p
        )[:, :, coverage.buckets(observation.lengths)]
        cap = self.config.cap or int(coverage.ladder[-1])
        return np.clip(low, self.config.floor, cap), np.clip(high, self.config.floor, cap)


class _LoadTimes:
    """Times of all loads when each has one budget, clipped to the bounds of its sequences."""

    def __init__(self, observation: Observation, low: IntArray, high: IntArray) -> None:
        times, ladder = step_times(observation), observation.coverage.ladder
        self.low, self.high, self.loads = low, high, times.loads
        self._step, self._ms = times, between_rungs(times.attention_ms, ladder)
        self._first, self._last = int(ladder[0]), int(ladder[-1])
        self._of_sequence = times.loads.load[times.loads.micro_batch]
        self.at_k0 = self._load_ms(np.full_like(low, observation.top_k))

    def budgets(self, top_k: IntArray) -> IntArray:
        """Returns every layer's and sequence's budget, [L, N], for a budget of each load."""
        return np.clip(top_k[self._of_sequence], self.low, self.high)

    def load_ms(self, top_k: IntArray) -> FloatArray:
        """Returns the time of every load at these budgets, [num_loads]: the floor holds."""
        return self._load_ms(self.budgets(top_k))

    def range_of_loads(self) -> tuple[IntArray, IntArray]:
        """Returns the budgets below and above which nothing of a load moves, [num_loads] each."""
        least = np.full(len(self.loads.column), self._last)
        most = np.full(len(self.loads.column), self._first)
        np.minimum.at(least, self._of_sequence, self.low.min(axis=0))
        np.maximum.at(most, self._of_sequence, self.high.max(axis=0))
        return np.minimum(least, most), most

    def _load_ms(self, top_k: IntArray) -> FloatArray:
        column = np.clip(top_k, self._first, self._last) - self._first
        attention_ms = self._ms[np.arange(column.shape[1]), column]
        return self.loads.load_ms(self._step.micro_batch_ms(attention_ms))


def _largest_within(times: _LoadTimes, anchor: FloatArray) -> IntArray:
    """Returns each load's largest budget that keeps its anchor, else its least, [num_loads]."""
    least, most = times.range_of_loads()
    while (least < most).any():
        middle = (least + most + 1) // 2
        within = times.load_ms(middle) <= anchor
        least, most = np.where(within, middle, least), np.where(within, most, middle - 1)
    return least


def _nearest(times: _LoadTimes, anchor: FloatArray, top_k: IntArray) -> IntArray:
    """Returns each load's budget, or one block more where that ends nearer to the anchor."""
    _, most = times.range_of_loads()
    above = np.minimum(top_k + 1, most)
    nearer = times.load_ms(above) - anchor < anchor - times.load_ms(top_k)
    return np.where(nearer, above, top_k)
