"""Moves, swaps and another order of micro-batches while they shorten the 1F1B makespan.

R ranks, M micro-batches per rank, P stages, C candidates. A candidate changes one or two
micro-batches of the slowest rank and at most one other rank; only those are timed again.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from sbcore.plan.caps import keeps_caps
from sbcore.plan.pipeline import makespan_ms
from sbcore.plan.placement import Layout
from sbcore.plan.workload import Workload
from sbcore.types import FloatArray

_MAX_CANDIDATES = 512
"""Timed in a round, the heaviest sequences and the fastest ranks first; 2 to 4 milliseconds."""

Place = tuple[int, int]
"""Rank and number of a micro-batch."""


@dataclass(frozen=True, slots=True)
class _Change:
    """New members of some micro-batches of ranks `ranks`, the slowest one first."""

    ranks: tuple[int, ...]
    packs: dict[Place, list[int]]


def improve_pipeline(workload: Workload, layout: Layout, *, rounds: int, enough: float) -> Layout:
    """Returns the layout after at most `rounds` improving changes; never a slower one."""
    found = [[list(pack) for pack in rank] for rank in layout]
    for _ in range(rounds):
        times = _times(workload, found)
        spans = makespan_ms(times, workload.topology.num_stages)
        if spans.max() <= enough:
            break
        changes = _changes(workload, found, spans)[:_MAX_CANDIDATES]
        if not changes:
            break
        after = _after(workload, times, spans, changes)
        best = int(after.argmin())
        if after[best] >= spans.max() * (1.0 - 1e-9):
            break
        for (rank, m), members in changes[best].packs.items():
            found[rank][m] = members
    return found


def _times(workload: Workload, layout: Layout) -> FloatArray:
    """Returns the time of every micro-batch, [R, M]."""
    loads = np.array([[workload.work(pack) for pack in rank] for rank in layout])
    return _timed(workload, loads) * np.array(workload.topology.factors)[:, None]


def _timed(workload: Workload, loads: FloatArray) -> FloatArray:
    times: FloatArray = np.maximum(loads, workload.floor) + workload.constant
    return times


def _after(
    workload: Workload, times: FloatArray, spans: FloatArray, changes: list[_Change]
) -> FloatArray:
    """Returns the step's time after each change, [C]."""
    factors = workload.topology.factors
    rows = np.array([times[list((c.ranks * 2)[:2])] for c in changes])  # [C, 2, M]
    for number, change in enumerate(changes):
        for (rank, m), members in change.packs.items():
            ms = max(workload.work(members), workload.floor) + workload.constant
            row = 0 if rank == change.ranks[0] else 1
            rows[number, row, m] = ms * factors[rank]
    changed = makespan_ms(rows.reshape(-1, times.shape[1]), workload.topology.num_stages)
    worse = changed.reshape(-1, 2)
    worse[[len(c.ranks) == 1 for c in changes], 1] = 0.0
    others = np.array([np.delete(spans, list(c.ranks)).max(initial=0.0) for c in changes])
    after: FloatArray = np.maximum(worse.max(axis=1), others)
    return after


def _changes(workload: Workload, layout: Layout, spans: FloatArray) -> list[_Change]:
    """Returns what may be done about the slowest rank: orders first, then moves and swaps."""
    slowest, fastest_first = int(spans.argmax()), np.argsort(spans, kind="stable").tolist()
    own = layout[slowest]
    changes = [
        _Change((slowest,), {(slowest, a): own[b], (slowest, b): own[a]})
        for a, b in combinations(range(len(own)), 2)
    ]
    movable = [(i, m) for m, pack in enumerate(own) for i in pack]
    movable.sort(key=lambda place: -workload.costs[place[0]])
    for sequence, m in movable:
        if len(changes) >= _MAX_CANDIDATES:
            break
        for rank in fastest_first:
            for n, pack in enumerate(layout[rank]):
                if (rank, n) != (slowest, m):
                    changes += _exchanges(workload, own[m], pack, sequence, (slowest, m), (rank, n))
    return changes


def _exchanges(
    workload: Workload, own: list[int], other: list[int], sequence: int, at: Place, to: Place
) -> list[_Change]:
    """Returns the sequence's move to another micro-batch, and its swaps with what is there."""
    ranks = (at[0],) if at[0] == to[0] else (at[0], to[0])
    rest = [i for i in own if i != sequence]
    tried = [(rest, [*other, sequence])]
    tried += [([*rest, i], [*(j for j in other if j != i), sequence]) for i in other]
    lengths, topology = workload.lengths, workload.topology
    return [
        _Change(ranks, {at: left, to: right})
        for left, right in tried
        if keeps_caps(left, lengths, topology) and keeps_caps(right, lengths, topology)
    ]
