"""Loads where a rank is a 1F1B pipeline: a raise costs what it adds to the critical path.

R ranks (pipelines), M micro-batches of each, S segments (see tune/concave.py), Q samples. The sum
of a rank's micro-batches says little there: stages wait while the first comes in and the last goes
out, and beside any that is longer than its neighbours. So micro-batches have prices: the share of
one more millisecond that reaches the end of the step. The makespan is convex in their times, so
raising by gain per priced millisecond, with prices that agree with the times at which it ends, is
the best there is; running means of the prices of a few rounds come close to that.

What it gives up: 10 to 50 ms for a step of 16 to 64 sequences, where sums take 1 to 6.
"""

from dataclasses import dataclass

import numpy as np

from sbcore.plan.pipeline import makespan_ms
from sbcore.tune.loads import Loads, make_loads
from sbcore.tune.policy import Observation
from sbcore.types import Barrier, FloatArray, IntArray

_SAMPLES = 48
"""Points of every rank's queue at which its makespan is computed; linear in between."""
_NUDGE = 0.05
"""By which micro-batches are varied to see what they cost, as a share of their mean time."""
_LEAST_PRICE = 0.02
"""Of the mean: what waits anyway still takes its best raises first."""


@dataclass(frozen=True, slots=True)
class Pipelines(Loads):
    """Every rank is a pipeline, and a load; they meet at the end of the step, in one column."""

    @property
    def to_tune(self) -> list[Loads]:
        """The ranks, and all micro-batches of all ranks: equal ones leave the least bubble."""
        apart = np.arange(len(self.load))
        together = np.zeros_like(apart)
        return [self, Loads(self.micro_batch, apart, together, self.floor_ms, self.constant_ms, 1)]

    def load_ms(self, micro_batch_ms: FloatArray) -> FloatArray:
        """Returns the makespan of every rank, [R], of micro-batches [R * M] before the floor."""
        return makespan_ms(self._times_ms(micro_batch_ms), self.num_stages)

    def finish_ms(
        self, start_ms: FloatArray, micro_batch: IntArray, cost_ms: FloatArray
    ) -> FloatArray:
        """Returns the makespan of each segment's rank when the segment is taken, [S].

        Computed at up to Q points of each rank's queue; linear in between.
        """
        times = self._times_ms(start_ms)
        num_ranks, num_micro = times.shape
        load = self.load[micro_batch]
        count = np.bincount(load, minlength=num_ranks)
        place = np.arange(1, len(load) + 1) - np.repeat(np.cumsum(count) - count, count)
        share = place * (np.minimum(count, _SAMPLES) / np.maximum(count, 1))[load]
        sample = np.ceil(share - 1e-9).astype(np.int64)
        path = np.zeros((num_ranks, _SAMPLES + 1, num_micro))
        path[:, 0] = times
        np.add.at(path, (load, sample, micro_batch % num_micro), cost_ms)
        rows = np.cumsum(path, axis=1).reshape(-1, num_micro)
        span = makespan_ms(rows, self.num_stages).reshape(num_ranks, -1)
        after, before = span[load, sample], span[load, sample - 1]
        finish: FloatArray = after - (sample - share) * (after - before)
        return finish

    def prices(self, micro_batch_ms: FloatArray) -> FloatArray:
        """Returns what a millisecond more of each micro-batch adds to its makespan, [R * M]."""
        return _prices(self._times_ms(micro_batch_ms), self.num_stages).ravel()

    def _times_ms(self, micro_batch_ms: FloatArray) -> FloatArray:
        floored: FloatArray = np.maximum(micro_batch_ms, self.floor_ms) + self.constant_ms
        return floored.reshape(len(self.column), -1)


@dataclass(frozen=True, slots=True)
class Lockstep(Loads):
    """Ranks are pipelines that wait for each other at every micro-batch: barrier `micro`."""

    def step_ms(self, micro_batch_ms: FloatArray) -> float:
        """Returns the makespan of the slowest micro-batches."""
        return float(makespan_ms(self._slowest_ms(micro_batch_ms), self.num_stages)[0])

    def prices(self, micro_batch_ms: FloatArray) -> FloatArray:
        """Returns what a millisecond more of each column adds to the makespan, [R * M]."""
        return _prices(self._slowest_ms(micro_batch_ms), self.num_stages)[0][self.column]

    def _slowest_ms(self, micro_batch_ms: FloatArray) -> FloatArray:
        slowest: FloatArray = self.column_ms(self.load_ms(micro_batch_ms))
        return slowest[None]


def loads_of(observation: Observation) -> Loads:
    """Returns the loads of an observed step, of pipelines where ranks have stages."""
    latency, stages = observation.latency, observation.num_stages
    loads = make_loads(
        observation.batch,
        observation.barrier,
        floor_ms=latency.floor_ms,
        constant_ms=latency.constant_ms,
    )
    if stages == 1:
        return loads
    make = Lockstep if observation.barrier is Barrier.MICRO else Pipelines
    return make(
        loads.micro_batch, loads.load, loads.column, loads.floor_ms, loads.constant_ms, stages
    )


def _prices(times: FloatArray, num_stages: int) -> FloatArray:
    """Returns the slope of the makespan in each micro-batch's time, [R, M]; times are [R, M].

    Over a stretch of times around the present one, since the longest path changes along it.
    """
    num_ranks, num_micro = times.shape
    more = np.full(times.shape, _NUDGE * max(times.mean(), 1.0))
    less = np.minimum(more, times)
    varied = np.broadcast_to(times[:, None, None], (num_ranks, 2, num_micro, num_micro)).copy()
    at = np.arange(num_micro)
    varied[:, 0, at, at] += more
    varied[:, 1, at, at] -= less
    span = makespan_ms(varied.reshape(-1, num_micro), num_stages).reshape(num_ranks, 2, num_micro)
    price = (span[:, 0] - span[:, 1]) / (more + less)
    return np.maximum(price, _LEAST_PRICE * price.mean(axis=1, keepdims=True))
