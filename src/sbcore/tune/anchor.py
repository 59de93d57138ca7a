"""DST of the paper (arXiv 2604.13847): loads are tuned to an anchor latency, both ways.

What is tuned is whatever waits for the others: a rank's whole step under barrier `step`, the m-th
micro-batches of all ranks under barrier `micro` (the paper names micro-batches only). In pipelines
micro-batches also wait for those before them: ranks are tuned, then all micro-batches instead, and
the shorter step counts. A load
slower than the anchor gets the largest budget that reaches it, among those that lose at most p of
coverage; when none does, the smallest that keeps the bound, a case the paper leaves open. A faster
one is raised until the anchor or until more blocks would cover nothing more.

One difference, for the mean: a load takes the budget whose time is *nearest* to the anchor, be it
above or below, but never above the slowest load at k0. A budget is a whole number of blocks, so
"the largest within the anchor" takes a block from every load that is a hair above the mean: at k0 =
8 that cost 1.5 points of coverage on plans that were balanced to 1 % already, and bought next to no
time.

What it gives up: one budget for all sequences of a load (each then clipped to its own bounds), so
time is not spent where a block covers most. About 1 ms for 16 sequences of 24 layers.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np

from sbcore.config.method import AnchorTuner
from sbcore.tune.coverage import CoverageModel, budget_bounds
from sbcore.tune.judged import first_no_slower
from sbcore.tune.loads import Loads
from sbcore.tune.policy import Observation
from sbcore.tune.times import StepTimes, times_at
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
        self._of_buckets: tuple[CoverageModel, int, IntArray] | None = None

    def decide(self, observation: Observation) -> IntArray:
        """Returns target top_k, [num_layers, N]; without known coverage it is k0.

        Never slower, as predicted, than k0 within floor and cap.
        """
        bounds, k0 = self._bounds(observation), observation.top_k
        times = times_at(observation, _all_within(bounds, k0))
        tried = [_LoadTimes(k0, bounds, times=times, loads=loads) for loads in times.loads.to_tune]
        found = [self._tuned(loads) for loads in tried]
        best = found[0] if len(found) == 1 else min(found, key=tried[0].step_ms)
        return first_no_slower(observation, tried[0].k0, [best])

    def _tuned(self, times: "_LoadTimes") -> IntArray:
        """Returns every layer's and sequence's budget, [num_layers, N], for these loads."""
        anchor = _ANCHORS[self.config.anchor](times.loads, times.at_k0)[times.loads.column]
        top_k = _largest_within(times, anchor, times.top_k)
        if self.config.anchor == "mean":
            top_k = _nearest(times, anchor, top_k)
        return times.budgets(top_k)

    def _bounds(self, observation: Observation) -> "_Bounds":
        """Returns the least and the greatest top_k of each layer and sequence."""
        coverage = observation.coverage
        known = self._of_buckets
        if known is None or known[0] is not coverage or known[1] != observation.top_k:
            # Kept until something is learned: most steps measure nothing that averages lack.
            bounds = budget_bounds(
                coverage.curves, coverage.ladder, top_k=observation.top_k, p=self.config.p
            )
            cap = self.config.cap or int(coverage.ladder[-1])
            known = coverage, observation.top_k, np.clip(bounds, self.config.floor, cap)
            self._of_buckets = known
        low, high = known[2][:, :, coverage.buckets(observation.lengths)]
        return low, high


_Bounds = tuple[IntArray, IntArray]
"""The least and the greatest top_k, [num_layers, N] each."""


def _all_within(bounds: _Bounds, top_k: int) -> IntArray:
    """Returns the budgets that any layer of any sequence may have, ascending."""
    return np.arange(bounds[0].min(initial=top_k), bounds[1].max(initial=top_k) + 1)


class _LoadTimes:
    """Times of all loads when each has one budget, clipped to the bounds of its sequences."""

    def __init__(self, top_k: int, bounds: _Bounds, *, times: StepTimes, loads: Loads) -> None:
        (self.low, self.high), self.loads, self.top_k = bounds, loads, top_k
        self._step, self._budgets = times, _all_within(bounds, top_k)
        self._sequence = np.arange(len(loads.micro_batch))
        self._of_sequence = loads.load[loads.micro_batch]
        self.k0 = np.clip(top_k, self.low, self.high)
        self.at_k0 = self.load_ms(np.full(len(loads.column), top_k))

    def budgets(self, top_k: IntArray) -> IntArray:
        """Returns every layer's and sequence's budget, [L, N], for a budget of each load."""
        return np.clip(top_k[self._of_sequence], self.low, self.high)

    def load_ms(self, top_k: IntArray) -> FloatArray:
        """Returns the time of every load at these budgets, [num_loads]: the floor holds."""
        return self.loads.load_ms(self._micro_batch_ms(self.budgets(top_k)))

    def step_ms(self, budgets: IntArray) -> float:
        """Returns the time of the step at budgets [L, N]."""
        return self._step.loads.step_ms(self._micro_batch_ms(budgets))

    @cached_property
    def range_of_loads(self) -> tuple[IntArray, IntArray]:
        """The budgets below and above which nothing of a load moves, [num_loads] each."""
        least = np.full(len(self.loads.column), self._budgets[-1])
        most = np.full(len(self.loads.column), self._budgets[0])
        np.minimum.at(least, self._of_sequence, self.low.min(axis=0))
        np.maximum.at(most, self._of_sequence, self.high.max(axis=0))
        return np.minimum(least, most), most

    def _micro_batch_ms(self, budgets: IntArray) -> FloatArray:
        at = self._sequence, budgets - self._budgets[0]
        return self._step.micro_batch_ms(self._step.attention_ms[at])


def _largest_within(times: _LoadTimes, anchor: FloatArray, top_k: int) -> IntArray:
    """Returns each load's largest budget that keeps its anchor, else its least, [num_loads].

    Looks around top_k first, where budgets of balanced loads are; then by bisection.
    """
    least, most = times.range_of_loads
    tried = 0
    while (least < most).any():
        around = np.clip(top_k, least + 1, most) if tried < 2 else (least + most + 1) // 2
        within = times.load_ms(around) <= anchor
        least, most = np.where(within, around, least), np.where(within, most, around - 1)
        tried += 1
    return least


def _nearest(times: _LoadTimes, anchor: FloatArray, top_k: IntArray) -> IntArray:
    """Returns each load's budget, or one block more where that ends nearer to the anchor."""
    _, most = times.range_of_loads
    above = np.minimum(top_k + 1, most)
    above_ms = times.load_ms(above)
    slowest = times.loads.column_ms(times.at_k0)[times.loads.column]
    nearer = (above_ms - anchor < anchor - times.load_ms(top_k)) & (above_ms <= slowest)
    return np.where(nearer, above, top_k)
