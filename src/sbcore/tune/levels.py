"""How high every load is filled: coverage is bought where it costs the barrier least.

S segments (see tune/concave.py), R ranks, M micro-batches of each. No bisection: segments are put
in the order in which a rising barrier pays for them, and the first that bring the coverage asked
for are taken. In pipelines that is done a few times over, since what a raise costs there follows
from the others that are taken (tune/pipelines.py). It ends within 0.3 % of the linear program's
optimum on 18 steps of real lengths, 2 to 8 ranks of 4 stages.
"""

from dataclasses import dataclass

import numpy as np

from sbcore.tune.concave import Segments
from sbcore.tune.loads import Loads, running, summed
from sbcore.types import FloatArray, IntArray

_ROUNDS = 12
"""Times that raises are chosen in pipelines; the best choice counts."""
_SAME_TIME = 1e-9
"""Relative difference below which two times are one."""
_ROUNDING = 1e-12
"""Share of all the coverage on offer that may be missing from what was asked for."""


def rows_to_raise(
    segments: Segments, micro_batch: IntArray, *, loads: Loads, start_ms: FloatArray, missing: float
) -> IntArray:
    """Returns the row of every segment to take: the least barrier time that pays for the gain.

    ``micro_batch`` [S] says where each segment is spent, ``start_ms`` [R * M] what micro-batches
    take before any of them, ``missing`` the gain that is asked for. What costs no barrier time is
    taken in any case. When all of it is not enough, all of it is taken.
    """
    level = loads.column_ms(loads.load_ms(start_ms))
    price = np.full(len(start_ms), 1.0 / loads.num_stages)

    def choose() -> IntArray:
        queue = make_queue(segments, micro_batch, loads=loads, start_ms=start_ms, price=price)
        return taken(queue, loads.column, level=level, missing=missing)

    if loads.num_stages == 1:
        return segments.row[choose()]
    best, best_ms = micro_batch[:0], np.inf
    for turn in range(_ROUNDS):
        chosen = choose()
        added = summed(segments.ms[chosen], micro_batch[chosen], len(start_ms))
        step_ms = loads.step_ms(start_ms + added)
        if step_ms < best_ms * (1.0 - _SAME_TIME):
            best, best_ms = chosen, step_ms
        new = loads.prices(start_ms + added)
        price += (new - price) / (turn + 2)
    return segments.row[best]


@dataclass(frozen=True, slots=True)
class Queue:
    """Segments in the order in which every load takes them, load by load."""

    segment: IntArray  # [S], its number
    load: IntArray  # [S]
    gain: FloatArray  # [S]
    slope: FloatArray  # [S], gain per millisecond of its micro-batch
    finish_ms: FloatArray  # [S], time of the load when the segment is taken


def taken(queue: Queue, column: IntArray, *, level: FloatArray, missing: float) -> IntArray:
    """Returns the numbers of the segments to take, as `rows_to_raise` says.

    ``column`` is that of every load, ``level`` the slowest load of each before anything is taken.
    """
    column, level = column[queue.load], level.copy()
    paid = np.flatnonzero(queue.finish_ms > level[column])
    in_turn = paid[_by_rate(queue, paid, column) if len(level) > 1 else _rising(queue, paid)]
    bought = np.cumsum(queue.gain[in_turn])
    lack = missing - (queue.gain.sum() - queue.gain[paid].sum()) - _ROUNDING * queue.gain.sum()
    last = in_turn[: np.searchsorted(bought, lack) + 1] if lack > 0 else in_turn[:0]
    np.maximum.at(level, column[last], queue.finish_ms[last])
    return queue.segment[queue.finish_ms <= level[column]]


def make_queue(
    segments: Segments,
    micro_batch: IntArray,
    *,
    loads: Loads,
    start_ms: FloatArray,
    price: FloatArray,
) -> Queue:
    """Returns each load's segments: first what fits under a floor, which is free, then the best.

    ``price`` [R * M] is what a millisecond of each micro-batch costs its load.
    """
    slope = segments.gain / (segments.ms * price[micro_batch])
    best_first = np.argsort(-slope, kind="stable")
    packed = best_first[grouped(micro_batch[best_first])]
    pack, ms = micro_batch[packed], segments.ms[packed]
    cost = np.empty_like(slope)
    cost[packed] = np.clip(start_ms[pack] + running(ms, pack) - loads.floor_ms, 0.0, ms)
    load = loads.load[micro_batch]
    order = best_first[grouped((2 * load + (cost > 0))[best_first])]
    finish = loads.finish_ms(start_ms, micro_batch[order], cost[order])
    return Queue(order, load[order], segments.gain[order], slope[order], finish)


def _rising(queue: Queue, paid: IntArray) -> IntArray:
    """Returns the order of one column: its level rises from segment to segment."""
    return np.argsort(queue.finish_ms[paid], kind="stable")


def _by_rate(queue: Queue, paid: IntArray, column: IntArray) -> IntArray:
    """Returns the order over columns: the gain that a millisecond of the barrier buys, falling.

    In a column whose level rises all loads below it go on at once, so their slopes add up; each
    segment done lowers the sum to its load's next one. So the rate never rises along a column.
    """
    slope, load, column = queue.slope[paid], queue.load[paid], column[paid]
    same = np.append(load[1:] == load[:-1], False)
    drop = slope - np.where(same, np.append(slope[1:], 0.0), 0.0)
    first = np.append(True, ~same[:-1])[: len(paid)]
    at_start = summed(slope[first], column[first], int(column.max(initial=-1)) + 1)
    rising = _rising(queue, paid)
    order = rising[grouped(column[rising])]
    column = column[order]
    begins = np.append(True, column[1:] != column[:-1])[: len(order)]
    # Only ever added to: taking the own drop off again would let rounding lift a rate, and with it
    # a column's end before its start where slopes are equal.
    passed = running(np.where(begins, 0.0, np.roll(drop[order], 1)), column)
    rate = at_start[column] - passed
    return order[np.argsort(-rate, kind="stable")]


def grouped(group: IntArray) -> IntArray:
    """Returns the order that puts equal groups together and keeps theirs; small numbers are fast.

    All sorts here are stable: ranks must agree also where their processors sort differently.
    """
    small = group.astype(np.min_scalar_type(int(group.max(initial=0))))
    return np.argsort(small, kind="stable")
