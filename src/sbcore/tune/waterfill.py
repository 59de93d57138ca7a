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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbcore.config.method import WaterfillTuner
from sbcore.tune.concave import Points, concave_front, segments_of
from sbcore.tune.coverage import CoverageModel, buckets_of, budget_bounds
from sbcore.tune.levels import Loads, make_loads, rows_to_raise
from sbcore.tune.policy import Observation
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
        step = _Step.of(observation)
        chosen = _filled(step, change, allowed)
        if step.barrier_ms(chosen) > step.barrier_ms(np.full_like(chosen, base)):
            chosen = _filled(step, change, allowed & (rungs >= base))
        return np.clip(coverage.ladder[chosen], self.config.floor, self.config.cap or None)

    def _rungs(self, ladder: IntArray, top_k: int) -> tuple[int, int, int]:
        """Returns the first rung of floor or more, k0's within both, and the last within cap."""
        highest = len(ladder) - 1
        if self.config.cap:
            highest = int(np.searchsorted(ladder, self.config.cap, side="right")) - 1
        lowest = min(int(np.searchsorted(ladder, self.config.floor)), highest)
        return lowest, min(max(int(np.searchsorted(ladder, top_k)), lowest), highest), highest


@dataclass(frozen=True, slots=True)
class _Step:
    """The sequences of a step, and what it takes by the rungs that they use."""

    lengths: IntArray  # [N]
    bucket: IntArray  # [N]
    attention_ms: FloatArray  # [N, K], of one layer
    linear_ms: FloatArray  # [N]
    loads: Loads

    @staticmethod
    def of(observation: Observation) -> "_Step":
        latency, ladder = observation.latency, observation.coverage.ladder
        lengths, which = np.unique(observation.lengths, return_inverse=True)
        return _Step(
            observation.lengths,
            buckets_of(observation.lengths, observation.coverage.block_size),
            latency.attention_ms(lengths[:, None], ladder[None, :])[which],
            latency.linear_ms(observation.lengths),
            make_loads(observation.batch, observation.barrier, floor_ms=latency.floor_ms),
        )

    def micro_batch_ms(self, rungs: IntArray) -> FloatArray:
        """Returns the time of every micro-batch before the floor, [R * M]; rungs are [L, N]."""
        layers = np.take_along_axis(self.attention_ms, rungs.T, axis=1)
        return self.loads.micro_batch_ms(layers.sum(axis=1) + self.linear_ms)

    def barrier_ms(self, rungs: IntArray) -> float:
        """Returns the time of the step but for the micro-batches' constant."""
        load_ms = self.loads.load_ms(self.micro_batch_ms(rungs))
        return float(self.loads.column_ms(load_ms).sum())


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


def _filled(step: _Step, change: FloatArray, allowed: NDArray[np.bool_]) -> IntArray:
    """Returns the rung of each layer and sequence, [L, N], among those allowed."""
    shape = num_layers, num_sequences = len(change), len(step.lengths)
    layer, sequence, rung = np.nonzero(allowed[:, step.bucket])
    gain = change[layer, step.bucket[sequence], rung] * step.lengths[sequence]
    row = layer * num_sequences + sequence
    points = concave_front(Points(row, rung, step.attention_ms[sequence, rung], gain))
    first = np.searchsorted(points.row, np.arange(num_layers * num_sequences))
    segments = segments_of(points)
    raised = rows_to_raise(
        segments,
        step.loads.micro_batch[segments.row % num_sequences],
        loads=step.loads,
        start_ms=step.micro_batch_ms(points.rung[first].reshape(shape)),
        missing=-float(points.gain[first].sum()),
    )
    last = first + np.bincount(raised, minlength=len(first))
    return points.rung[last].reshape(shape)
