"""What waits for what: a step's micro-batches as the barriers see them.

A load is what one rank does between two barriers, and its column holds the loads that wait for each
other: under barrier `step` the ranks, all in one column; under `micro` the m-th micro-batches.
N sequences, R ranks, M micro-batches of each, S segments (see tune/concave.py).
"""

from dataclasses import dataclass

import numpy as np

from sbcore.types import Barrier, BatchPlan, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Loads:
    """The plan as the barriers see it; micro-batch m of rank r has number r * M + m."""

    micro_batch: IntArray  # [N], of each sequence
    load: IntArray  # [R * M], of each micro-batch
    column: IntArray  # [num_loads], of each load
    floor_ms: float
    constant_ms: float
    num_stages: int

    @property
    def to_tune(self) -> "list[Loads]":
        """The ways to see what waits for what, of which a policy may try each."""
        return [self]

    def micro_batch_ms(self, sequence_ms: FloatArray) -> FloatArray:
        """Returns the summed time of every micro-batch before the floor, [R * M]."""
        return summed(sequence_ms, self.micro_batch, len(self.load))

    def load_ms(self, micro_batch_ms: FloatArray) -> FloatArray:
        """Returns the time of every load, [num_loads]: no micro-batch beats the floor."""
        floored = np.maximum(micro_batch_ms, self.floor_ms) + self.constant_ms
        return summed(floored, self.load, len(self.column))

    def finish_ms(
        self, start_ms: FloatArray, micro_batch: IntArray, cost_ms: FloatArray
    ) -> FloatArray:
        """Returns the time of each segment's load when the segment is taken, [S].

        Segments stand load by load in the order of being taken; ``micro_batch`` and ``cost_ms``
        [S] are where each is spent and what it adds above the floor.
        """
        load = self.load[micro_batch]
        finish: FloatArray = self.load_ms(start_ms)[load] + running(cost_ms, load)
        return finish

    def prices(self, micro_batch_ms: FloatArray) -> FloatArray:
        """Returns what a millisecond more of each micro-batch adds to its load, [R * M]."""
        return np.ones_like(micro_batch_ms)

    def step_ms(self, micro_batch_ms: FloatArray) -> float:
        """Returns the time of the step: the sum over columns of the slowest load."""
        return float(self.column_ms(self.load_ms(micro_batch_ms)).sum())

    def column_ms(self, load_ms: FloatArray) -> FloatArray:
        """Returns the slowest load of every column, [num_columns]; their sum is the step."""
        slowest = np.zeros(int(self.column.max()) + 1)
        np.maximum.at(slowest, self.column, load_ms)
        return slowest

    def column_min_ms(self, load_ms: FloatArray) -> FloatArray:
        """Returns the fastest load of every column that has sequences, [num_columns]."""
        fastest = np.full(int(self.column.max()) + 1, np.inf)
        busy = self._busy()
        np.minimum.at(fastest, self.column[busy], load_ms[busy])
        return fastest

    def column_mean_ms(self, load_ms: FloatArray) -> FloatArray:
        """Returns the mean of every column's loads that have sequences, [num_columns]."""
        busy = self._busy()
        count = np.bincount(self.column[busy], minlength=int(self.column.max()) + 1)
        total = summed(load_ms[busy], self.column[busy], len(count))
        return total / np.maximum(count, 1)

    def _busy(self) -> IntArray:
        """Returns the loads that have sequences."""
        return np.flatnonzero(np.bincount(self.load[self.micro_batch]))


def make_loads(batch: BatchPlan, barrier: Barrier, *, floor_ms: float, constant_ms: float) -> Loads:
    """Returns the loads of a plan; dummies and idle ranks are loads too.

    A pipeline of one stage is a rank under `step`; of more stages: `tune/pipelines.py`.
    """
    num_ranks, num_micro = batch.num_ranks, batch.num_micro_batches
    packs = [pack for rank in batch.micro_batches for pack in rank]
    number_of = {n: number for number, pack in enumerate(packs) for n in pack}
    micro_batch = np.array([number_of[n] for n in range(len(number_of))], dtype=np.int64)
    numbers = np.arange(num_ranks * num_micro)
    if barrier is Barrier.MICRO:
        load, column = numbers, numbers % num_micro
    else:
        load, column = numbers // num_micro, np.zeros(num_ranks, dtype=np.int64)
    return Loads(micro_batch, load, column, floor_ms, constant_ms, num_stages=1)


def summed(values: FloatArray, group: IntArray, num_groups: int) -> FloatArray:
    """Returns the sum of each group, [num_groups]."""
    return np.bincount(group, weights=values, minlength=num_groups).astype(np.float64)


def running(values: FloatArray, group: IntArray) -> FloatArray:
    """Returns the running sum within each group; equal groups stand together."""
    total = np.cumsum(values)
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1])[: len(group)])
    before = total[starts] - values[starts]
    lengths = np.diff(np.append(starts, len(group)))
    running: FloatArray = total - np.repeat(before, lengths)
    return running
