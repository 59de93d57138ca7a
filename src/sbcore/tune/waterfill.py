"""Waterfill: the budgets of all layers and sequences of a step chosen together.

Minimises the time of the plan under its barrier, such that the token-weighted mean of coverage
over layers and sequences is not below that of k0, and no layer of a sequence changes by more than
p. Every layer of a sequence starts at the cheapest budget that p allows; raises are then bought in
the order in which they cost the barrier least (tune/levels.py), until coverage is back; what costs
the barrier nothing is raised as far as p allows. Beyond the paper (arXiv 2604.13847), whose anchor
gives all sequences of a load one budget and lets the sum of coverage fall.

The mean holds over steps: measured coverage_delta is booked, losses are asked for in the steps that
follow, and gains, which come free where one sequence is the step, may be spent there. Without that,
averages by length bucket, which are all that the coverage model knows, cost 0.3 points on
LongBench's lengths.

What it gives up: budgets below the concave front of a curve, so it may end one raise per
micro-batch of a rank above the least time. 1 ms for 16 sequences of 24 layers, 6-19 ms for 256.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbcore.config.method import WaterfillTuner
from sbcore.tune.concave import Points, concave_front, segments_of
from sbcore.tune.coverage import CoverageModel, budget_bounds
from sbcore.tune.judged import first_no_slower
from sbcore.tune.levels import rows_to_raise
from sbcore.tune.policy import Observation
from sbcore.tune.times import StepTimes, step_times
from sbcore.types import FloatArray, IntArray

_SHARE = 0.25
"""Of the balance that a step evens out; decisions may be three steps ahead of measurements."""
_MOST_POINTS = 2.0
"""Coverage_delta that a step may ask for or spend."""


class WaterfillPolicy:
    """The least barrier time at no loss of mean coverage; a learning policy for that mean."""

    def __init__(self, config: WaterfillTuner) -> None:
        self.config = config
        self._balance = 0.0  # coverage_delta summed over steps, points

    def decide(self, observation: Observation) -> IntArray:
        """Returns target top_k, [num_layers, N]; where coverage is not known it is k0.

        k0 is first brought within floor and cap. Never slower, as predicted, than that k0
        everywhere (to rounding): where whole budgets cannot be cheaper, none is cut, and what is
        free is raised.
        """
        coverage, ladder = observation.coverage, observation.coverage.ladder
        lowest, base, highest = self._rungs(ladder, observation.top_k)
        change, allowed = _options(coverage, base, p=self.config.p)
        rungs, bucket = np.arange(len(ladder)), coverage.buckets(observation.lengths)
        allowed &= (rungs == base) | ((lowest <= rungs) & (rungs <= highest))
        gain, allowed = change[:, bucket] * observation.lengths[:, None], allowed[:, bucket]
        times, asked = step_times(observation), self._asked() * gain.shape[0]
        # Where all that is owed would make the step slower than k0, a part of it is asked for.
        shares = (1.0, 0.75, 0.5, 0.25) if asked > 0 else (1.0,)
        tried = [(allowed, share * asked * observation.lengths.sum()) for share in shares]
        tried.append((allowed & (rungs >= base), 0.0))
        found = (_filled(times, gain, within, asked=float(more)) for within, more in tried)
        k0 = self._clipped(np.full(gain.shape[:2], ladder[base]))
        return first_no_slower(observation, k0, (self._clipped(ladder[rung]) for rung in found))

    def _clipped(self, top_k: IntArray) -> IntArray:
        return np.clip(top_k, self.config.floor, self.config.cap or None)

    def _asked(self) -> float:
        """Returns the coverage_delta to ask for, 0..1, or less than 0 to spend."""
        return min(-_SHARE * self._balance, _MOST_POINTS) / 100.0

    def p_at(self, step: int) -> float:
        """Returns the bound, which is that of all steps."""
        return self.config.p

    def learn(self, step: int, *, step_ms: float, coverage_delta: float | None) -> None:
        """Takes in what a step covered; gains beyond what a step may spend are not kept."""
        if coverage_delta is not None and np.isfinite(coverage_delta):
            self._balance = min(self._balance + coverage_delta, _MOST_POINTS / _SHARE)

    def state(self) -> dict[str, Any]:
        """Returns the balance, for the checkpoint."""
        return {"coverage_balance": np.array(self._balance)}

    def load(self, state: dict[str, Any]) -> None:
        """Takes over the balance; checkpoints from before it was kept have none."""
        self._balance = float(state.get("coverage_balance", 0.0))

    def _rungs(self, ladder: IntArray, top_k: int) -> tuple[int, int, int]:
        """Returns the first rung of floor or more, k0's within both, and the last within cap."""
        highest = len(ladder) - 1
        if self.config.cap:
            highest = int(np.searchsorted(ladder, self.config.cap, side="right")) - 1
        lowest = min(int(np.searchsorted(ladder, self.config.floor)), highest)
        return lowest, min(max(int(np.searchsorted(ladder, top_k)), lowest), highest), highest


def _options(
    coverage: CoverageModel, base: int, *, p: float
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Returns each rung's change of coverage, and whether p allows it, by layer and bucket.

    Unlike `budget_bounds` alone this keeps p also from above: its last raise may gain more.
    """
    ladder = coverage.ladder
    low, high = budget_bounds(coverage.curves, ladder, top_k=int(ladder[base]), p=p)
    change = coverage.curves - coverage.curves[..., base, None]
    allowed = (low[..., None] <= ladder) & (ladder <= high[..., None]) & (np.abs(change) <= p)
    allowed[..., base] = True
    change[np.isnan(change)] = 0.0
    return change, allowed


def _filled(
    times: StepTimes, gain: FloatArray, allowed: NDArray[np.bool_], *, asked: float
) -> IntArray:
    """Returns the rung of each layer and sequence, [L, N], among those allowed [L, N, K].

    gain is each rung's change of coverage, weighted by the sequence's tokens; their sum is to be
    what is asked for.
    """
    num_layers, num_sequences, _ = allowed.shape
    layer, sequence, rung = np.nonzero(allowed)
    row = layer * num_sequences + sequence
    points = concave_front(
        Points(row, rung, times.attention_ms[sequence, rung], gain[layer, sequence, rung])
    )
    first = np.searchsorted(points.row, np.arange(num_layers * num_sequences))
    segments = segments_of(points)
    raised = rows_to_raise(
        segments,
        times.loads.micro_batch[segments.row % num_sequences],
        loads=times.loads,
        start_ms=times.at_rungs(points.rung[first].reshape(num_layers, num_sequences)),
        missing=asked - float(points.gain[first].sum()),
    )
    last = first + np.bincount(raised, minlength=len(first))
    return points.rung[last].reshape(num_layers, num_sequences)
