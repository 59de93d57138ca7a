"""How high every load is filled: coverage is bought where it costs the barrier least.

S segments (see tune/concave.py). A load is what one rank does between two barriers, and its column
holds the loads that wait for each other: under barrier `step` the ranks, all in one column; under
`micro` the m-th micro-batches. No bisection: segments are put in the order in which a rising
barrier pays for them, and the first that bring the coverage asked for are taken.
"""

from dataclasses import dataclass

import numpy as np

from sbcore.tune.concave import Segments
from sbcore.types import Barrier, BatchPlan, FloatArray, IntArray

_ROUNDING = 1e-12
"""Share of all the coverage on offer that may be missing from what was asked for."""


@dataclass(frozen=True, slots=True)
class Loads:
    """The plan as the barriers see it; micro-batch m of rank r has number r * M + m."""

    micro_batch: IntArray  # [N], of each sequence
    load: IntArray  # [R * M], of each micro-batch
    column: IntArray  # [num_loads], of each load
    floor_ms: float

    def micro_batch_ms(self, sequence_ms: FloatArray) -> FloatArray:
        """Returns the summed time of every micro-batch before the floor, [R * M]."""
        return _summed(sequence_ms, self.micro_batch, len(self.load))

    def load_ms(self, micro_batch_ms: FloatArray) -> FloatArray:
        """Returns the time of every load, [num_loads]: no micro-batch beats the floor."""
        floored = np.maximum(micro_batch_ms, self.floor_ms)
        return _summed(floored, self.load, len(self.column))

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
        total = _summed(load_ms[busy], self.column[busy], len(count))
        return total / np.maximum(count, 1)

    def _busy(self) -> IntArray:
        """Returns the loads that have sequences."""
        return np.unique(self.load[self.micro_batch])


def make_loads(batch: BatchPlan, barrier: Barrier, *, floor_ms: float) -> Loads:
    """Returns the loads of a plan; dummies and idle ranks are loads too.

    Under barrier `pipeline` a load is all that a pipeline does in the step, as under `step`: its
    bubbles of filling and draining are the order's, not the budgets'.
    """
    num_ranks, num_micro = batch.num_ranks, batch.num_micro_batches
    packs = [pack for rank in batch.micro_batches for pack in rank]
    micro_batch = np.zeros(sum(len(pack) for pack in packs), dtype=np.int64)
    for number, pack in enumerate(packs):
        micro_batch[list(pack)] = number
    numbers = np.arange(num_ranks * num_micro)
    if barrier is Barrier.MICRO:
        return Loads(micro_batch, numbers, numbers % num_micro, floor_ms)
    return Loads(micro_batch, numbers // num_micro, np.zeros(num_ranks, np.int64), floor_ms)


def rows_to_raise(
    segments: Segments, micro_batch: IntArray, *, loads: Loads, start_ms: FloatArray, missing: float
) -> IntArray:
    """Returns the row of every segment to take: the least barrier time that pays for the gain.

    ``micro_batch`` [S] says where each segment is spent, ``start_ms`` [R * M] what micro-batches
    take before any of them, ``missing`` the gain that is asked for. What costs no barrier time is
    taken in any case. When all of it is not enough, all of it is taken.
    """
    queue = _queue(segments, micro_batch, loads, start_ms)
    column = loads.column[queue.load]
    level = loads.column_ms(loads.load_ms(start_ms))
    paid = np.flatnonzero(queue.finish_ms > level[column])
    in_turn = paid[_by_rate(queue, paid, column) if len(level) > 1 else _rising(queue, paid)]
    bought = np.cumsum(queue.gain[in_turn])
    lack = missing - (queue.gain.sum() - queue.gain[paid].sum()) - _ROUNDING * queue.gain.sum()
    last = in_turn[: np.searchsorted(bought, lack) + 1] if lack > 0 else in_turn[:0]
    np.maximum.at(level, column[last], queue.finish_ms[last])
    return queue.row[queue.finish_ms <= level[column]]


@dataclass(frozen=True, slots=True)
class _Queue:
    """Segments in the order in which every load takes them, load by load."""

    row: IntArray  # [S]
    load: IntArray  # [S]
    gain: FloatArray  # [S]
    slope: FloatArray  # [S], gain per millisecond of its micro-batch
    finish_ms: FloatArray  # [S], time of the load when the segment is taken


def _queue(segments: Segments, micro_batch: IntArray, loads: Loads, start_ms: FloatArray) -> _Queue:
    """Returns each load's segments: first what fits under a floor, which is free, then the best."""
    slope = segments.gain / segments.ms
    best_first = np.argsort(-slope, kind="stable")
    packed = best_first[_grouped(micro_batch[best_first])]
    pack, ms = micro_batch[packed], segments.ms[packed]
    cost = np.empty_like(slope)
    cost[packed] = np.clip(start_ms[pack] + _running(ms, pack) - loads.floor_ms, 0.0, ms)
    load = loads.load[micro_batch]
    order = best_first[_grouped((2 * load + (cost > 0))[best_first])]
    load = load[order]
    finish = loads.load_ms(start_ms)[load] + _running(cost[order], load)
    return _Queue(segments.row[order], load, segments.gain[order], slope[order], finish)


def _rising(queue: _Queue, paid: IntArray) -> IntArray:
    """Returns the order of one column: its level rises from segment to segment."""
    return np.argsort(queue.finish_ms[paid], kind="stable")


def _by_rate(queue: _Queue, paid: IntArray, column: IntArray) -> IntArray:
    """Returns the order over columns: the gain that a millisecond of the barrier buys, falling.

    In a column whose level rises all loads below it go on at once, so their slopes add up; each
    segment done lowers the sum to its load's next one. So the rate never rises along a column.
    """
    slope, load, column = queue.slope[paid], queue.load[paid], column[paid]
    same = np.append(load[1:] == load[:-1], False)
    drop = slope - np.where(same, np.append(slope[1:], 0.0), 0.0)
    first = np.append(True, ~same[:-1])[: len(paid)]
    at_start = _summed(slope[first], column[first], int(column.max(initial=-1)) + 1)
    rising = _rising(queue, paid)
    order = rising[_grouped(column[rising])]
    rate = at_start[column[order]] + drop[order] - _running(drop[order], column[order])
    return order[np.argsort(-rate, kind="stable")]


def _grouped(group: IntArray) -> IntArray:
    """Returns the order that puts equal groups together and keeps theirs; small numbers are fast.

    All sorts here are stable: ranks must agree also where their processors sort differently.
    """
    small = group.astype(np.min_scalar_type(int(group.max(initial=0))))
    return np.argsort(small, kind="stable")


def _summed(values: FloatArray, group: IntArray, num_groups: int) -> FloatArray:
    """Returns the sum of each group, [num_groups]."""
    return np.bincount(group, weights=values, minlength=num_groups).astype(np.float64)


def _running(values: FloatArray, group: IntArray) -> FloatArray:
    """Returns the running sum within each group; equal groups stand together."""
    total = np.cumsum(values)
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1])[: len(group)])
    before = total[starts] - values[starts]
    lengths = np.diff(np.append(starts, len(group)))
    running: FloatArray = total - np.repeat(before, lengths)
    return running
