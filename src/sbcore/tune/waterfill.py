"""Waterfill: the budgets of all layers and sequences of a step chosen together.

Minimises the time of the plan under its barrier, such that the token-weighted mean of coverage
over layers and sequences is not below that of k0, and no layer of a sequence changes by more than
p. Every layer of a sequence starts at the cheapest budget that p allows; raises are then bought in
the order in which they cost the barrier least (tune/levels.py), until coverage is back; what costs
the barrier nothing is raised as far as p allows. Beyond the paper (arXiv 2604.13847), whose anchor
gives all sequences of a load one budget and lets the sum of coverage fall.

What it gives up: budgets below the concave front of a curve, so it may end one raise per
micro-batch of a rank above the least time; and it knows sequences by their length bucket only, as
the coverage model does. 1 ms for 16 sequences of 24 layers, 6-19 ms for 256.
"""

import numpy as np
from numpy.typing import NDArray

from sbcore.config.method import WaterfillTuner
from sbcore.tune.concave import Points, concave_front, segments_of
from sbcore.tune.coverage import CoverageModel, budget_bounds
from sbcore.tune.levels import rows_to_raise
from sbcore.tune.policy import Observation
from sbcore.tune.times import StepTimes, step_times
from sbcore.types import FloatArray, IntArray


class WaterfillPolicy:
    """The least barrier time at no loss of mean coverage."""

    def __init__(self, config: WaterfillTuner) -> None:
        self.config = config

    def decide(self, observation: Observation) -> IntArray:
        """Returns target top_k, [num_layers, N]; where coverage is not known it is k0.

        k0 is first brought within floor and cap. Never slower, as predicted, than that k0
        everywhere (to rounding): where whole budgets cannot be cheaper, none is cut, and what is
        free is raised.
        """
        coverage, rungs = observation.coverage, np.arange(len(observation.coverage.ladder))
        lowest, base, highest = self._rungs(coverage.ladder, observation.top_k)
        change, allowed = _options(coverage, base, p=self.config.p)
        allowed &= (rungs == base) | ((lowest <= rungs) & (rungs <= highest))
        bucket, times = coverage.buckets(observation.lengths), step_times(observation)
        gain, allowed = change[:, bucket] * observation.lengths[:, None], allowed[:, bucket]
        chosen = _filled(times, gain, allowed)
        if times.barrier_ms(chosen) > times.barrier_ms(np.full_like(chosen, base)):
            chosen = _filled(times, gain, allowed & (rungs >= base))
        return np.clip(coverage.ladder[chosen], self.config.floor, self.config.cap or None)

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
    return np.nan_to_num(change), allowed


def _filled(times: StepTimes, gain: FloatArray, allowed: NDArray[np.bool_]) -> IntArray:
    """Returns the rung of each layer and sequence, [L, N], among those allowed [L, N, K].

    gain is each rung's change of coverage, weighted by the sequence's tokens.
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
        missing=-float(points.gain[first].sum()),
    )
    last = first + np.bincount(raised, minlength=len(first))
    return points.rung[last].reshape(num_layers, num_sequences)
