"""Moves and swaps of single sequences between micro-batches while they shorten the step.

R ranks, M micro-batches per rank, S = R * M slots, slot = rank * M + m, C candidates. The step is
a sum over columns of the slowest unit in each: under `step` there is one column and a unit is a
rank; under `micro` a column is a micro-step and a unit is a slot.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbcore.plan.layout import best_of
from sbcore.plan.placement import Layout, arrange, without_idle
from sbcore.plan.workload import Workload
from sbcore.types import Barrier, FloatArray, IntArray

_MAX_MOVED = 32
"""Sequences of the slowest units that are tried in a round, the heaviest first."""
_MAX_PARTNERS = 256
"""Sequences elsewhere that they are tried against; 32 * 256 candidates take about a millisecond."""


@dataclass(slots=True)
class _State:
    """Where each sequence is, and what follows from it."""

    slot: IntArray  # [N]
    loads: FloatArray  # [S]
    tokens: IntArray  # [S]
    counts: IntArray  # [S]
    costs: FloatArray  # [N], one entry of nothing at the end
    lengths: IntArray  # [N], one entry of nothing at the end


@dataclass(slots=True)
class _Candidates:
    """Sequence `moved` goes to slot `to`; `partner` comes back, the last entry being nothing."""

    moved: IntArray  # [C]
    partner: IntArray  # [C]
    to: IntArray  # [C]


def improve(workload: Workload, layout: Layout, *, rounds: int, enough: float) -> Layout:
    """Returns the layout after at most `rounds` improving moves or swaps; never a slower one.

    Stops when the step costs no more than `enough`.
    """
    num_micro_batches = len(layout[0])
    state = _make_state(workload, layout)
    units = _Units(workload, num_micro_batches)
    for _ in range(rounds):
        times = units.times(state)
        slowest = times.max(axis=1)
        if slowest.sum() <= enough:
            break
        candidates = _candidates(state, units, times)
        change = units.change(state, candidates, times)
        change[~_allowed(workload, state, candidates)] = np.inf
        best = int(change.argmin()) if len(change) else -1
        if best < 0 or change[best] >= -1e-9 * slowest.sum():
            break
        _apply(state, candidates, best)
    members: list[list[int]] = [[] for _ in range(len(state.loads))]
    for sequence, slot in enumerate(state.slot[:-1].tolist()):
        members[slot].append(sequence)
    arranged = arrange(workload, members)
    if not workload.topology.speed_factors:
        return arranged
    ranks = range(0, len(members), num_micro_batches)
    as_found = without_idle([members[at : at + num_micro_batches] for at in ranks])
    return best_of(workload, [arranged, as_found])


class _Units:
    """The units that wait for each other, and what a candidate changes for them."""

    def __init__(self, workload: Workload, num_micro_batches: int) -> None:
        slots = np.arange(workload.topology.num_ranks * num_micro_batches)
        ranks, micro_steps = np.divmod(slots, num_micro_batches)
        by_rank = workload.topology.barrier is not Barrier.MICRO
        self.floor, self.constant = workload.floor, workload.constant
        self.shares = workload.shares
        self.factor = np.array(workload.topology.factors)[ranks]  # [S]
        self.row = ranks  # [S]
        self.column = np.zeros_like(slots) if by_rank else micro_steps  # [S]
        self.shape = (1 if by_rank else num_micro_batches, workload.topology.num_ranks)

    def times(self, state: _State) -> FloatArray:
        """Returns the time of each unit, [columns, R]."""
        times = np.zeros(self.shape)
        slot_ms = (self._work(state.loads, state.tokens) + self.constant) * self.factor
        np.add.at(times, (self.column, self.row), slot_ms)
        return times

    def change(self, state: _State, tried: _Candidates, times: FloatArray) -> FloatArray:
        """Returns the change of the step's time for each candidate, [C]."""
        out = state.slot[tried.moved]
        delta = state.costs[tried.moved] - state.costs[tried.partner]
        tokens = state.lengths[tried.moved] - state.lengths[tried.partner]
        fewer = self._slot_change(state, out, -delta, -tokens) * self.factor[out]
        more = self._slot_change(state, tried.to, delta, tokens) * self.factor[tried.to]
        column_a, row_a = self.column[out], self.row[out]
        column_b, row_b = self.column[tried.to], self.row[tried.to]
        same = (column_a == column_b) & (row_a == row_b)
        time_a = times[column_a, row_a] + fewer + np.where(same, more, 0.0)
        time_b = np.where(same, time_a, times[column_b, row_b] + more)
        slowest = times.max(axis=1)
        rest_a = _slowest_but(times, column_a, np.stack([row_a, row_b]))
        rest_b = _slowest_but(times, column_b, np.stack([row_a, row_b]))
        one = np.maximum(np.maximum(time_a, time_b), rest_a) - slowest[column_a]
        # Another column: only its own unit is set aside there.
        rest_a = np.maximum(rest_a, np.where(row_a != row_b, times[column_a, row_b], -np.inf))
        rest_b = np.maximum(rest_b, np.where(row_a != row_b, times[column_b, row_a], -np.inf))
        two = np.maximum(time_a, rest_a) + np.maximum(time_b, rest_b)
        two -= slowest[column_a] + slowest[column_b]
        change: FloatArray = np.where(column_a == column_b, one, two)
        return change

    def _slot_change(
        self, state: _State, slot: IntArray, delta: FloatArray, tokens: IntArray
    ) -> FloatArray:
        """Returns what so much more cost and so many more tokens change for each slot."""
        before = self._work(state.loads, state.tokens)[slot]
        return self._work(state.loads[slot] + delta, state.tokens[slot] + tokens) - before

    def _work(self, loads: FloatArray, tokens: IntArray) -> FloatArray:
        """Returns the work of micro-batches, none below the floor."""
        work = loads if self.shares.even else loads * self.shares.of(tokens)
        floored: FloatArray = np.maximum(work, self.floor)
        return floored


def _slowest_but(times: FloatArray, column: IntArray, rows: IntArray) -> FloatArray:
    """Returns the slowest unit of each column other than two rows, -inf if there is none. [C]."""
    rest: FloatArray = np.full(len(column), -np.inf)
    for row in np.argsort(times, axis=1)[:, -3:].T:  # rising, so the slowest is written last
        here = row[column]
        other = (here != rows[0]) & (here != rows[1])
        rest = np.where(other, times[column, here], rest)
    return rest


def _candidates(state: _State, units: _Units, times: FloatArray) -> _Candidates:
    """Returns every move out of the slowest units, and every swap into them, within limits."""
    slot, nothing = state.slot[:-1], len(state.slot) - 1
    hot = units.row[slot] == times.argmax(axis=1)[units.column[slot]]
    moved = np.flatnonzero(hot)
    moved = moved[np.argsort(-state.costs[moved], kind="stable")][:_MAX_MOVED]
    waiting = times[units.column, units.row] - times.max(axis=1)[units.column]  # [S], <= 0
    partners = np.argsort(waiting[slot], kind="stable")[:_MAX_PARTNERS]
    slots = np.argsort(waiting, kind="stable")[:_MAX_PARTNERS]
    partner = np.concatenate([partners, np.full(len(slots), nothing)])
    to = np.concatenate([slot[partners], slots])
    return _Candidates(
        moved=np.repeat(moved, len(to)),
        partner=np.tile(partner, len(moved)),
        to=np.tile(to, len(moved)),
    )


def _allowed(workload: Workload, state: _State, tried: _Candidates) -> NDArray[np.bool_]:
    """Returns which candidates keep both caps, [C]."""
    topology, out = workload.topology, state.slot[tried.moved]
    tokens = state.lengths[tried.moved] - state.lengths[tried.partner]
    back = (tried.partner < len(state.slot) - 1).astype(np.int64)
    allowed: NDArray[np.bool_] = out != tried.to
    for total, number in (
        (state.tokens[out] - tokens, state.counts[out] - 1 + back),
        (state.tokens[tried.to] + tokens, state.counts[tried.to] + 1 - back),
    ):
        allowed &= (total <= topology.max_tokens) | (number <= 1)
        if topology.max_sequences:
            allowed &= number <= topology.max_sequences
    return allowed


def _make_state(workload: Workload, layout: Layout) -> _State:
    packs = [pack for rank in layout for pack in rank]
    slot = np.full(workload.num_sequences + 1, -1, dtype=np.int64)
    for number, pack in enumerate(packs):
        slot[pack] = number
    costs = np.array([*workload.costs, 0.0])
    lengths = np.array([*workload.lengths, 0], dtype=np.int64)
    return _State(
        slot=slot,
        loads=np.array([costs[pack].sum() for pack in packs]),
        tokens=np.array([lengths[pack].sum() for pack in packs]),
        counts=np.array([len(pack) for pack in packs]),
        costs=costs,
        lengths=lengths,
    )


def _apply(state: _State, tried: _Candidates, which: int) -> None:
    """Carries out one candidate."""
    moved, partner = int(tried.moved[which]), int(tried.partner[which])
    out, to = int(state.slot[moved]), int(tried.to[which])
    _shift(state, moved, out, to)
    if partner < len(state.slot) - 1:
        _shift(state, partner, to, out)


def _shift(state: _State, sequence: int, out: int, to: int) -> None:
    for slot, sign in ((out, -1), (to, 1)):
        state.loads[slot] += sign * state.costs[sequence]
        state.tokens[slot] += sign * state.lengths[sequence]
        state.counts[slot] += sign
    state.slot[sequence] = to
