"""Moves, swaps and another order of micro-batches while they shorten the 1F1B makespan.

N sequences, R ranks, M micro-batches per rank, S = R * M slots, slot = rank * M + m, P stages,
C candidates. A candidate changes one or two slots of the slowest rank and at most one other rank;
only those are timed again, all candidates at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbcore.plan.pipeline import makespan_ms
from sbcore.plan.placement import Layout
from sbcore.plan.workload import Workload
from sbcore.types import FloatArray, IntArray

_MAX_CANDIDATES = 1024
"""Timed in a round, the heaviest sequences and the fastest ranks first; about a millisecond."""
_MEAN_WEIGHT = 0.05
"""What the mean rank counts beside the slowest: ranks that do not wait leave room for later."""


@dataclass(slots=True)
class _State:
    """Where each sequence is, and what follows from it; N + 1 with nothing at the end."""

    slot: IntArray  # [N]
    loads: FloatArray  # [S]
    tokens: IntArray  # [S]
    counts: IntArray  # [S]
    costs: FloatArray  # [N + 1]
    lengths: IntArray  # [N + 1]


@dataclass(frozen=True, slots=True)
class _Candidates:
    """A sequence goes from a slot of the slowest rank to another, and one or nothing comes back.

    Without a sequence that goes, the two micro-batches change places.
    """

    own: IntArray  # [C] slot
    other: IntArray  # [C] slot
    moved: IntArray  # [C] sequence or -1
    back: IntArray  # [C] sequence or -1

    def only(self, chosen: NDArray[np.bool_]) -> "_Candidates":
        """Returns some of them."""
        return _Candidates(
            self.own[chosen], self.other[chosen], self.moved[chosen], self.back[chosen]
        )


def improve_pipeline(workload: Workload, layout: Layout, *, rounds: int, enough: float) -> Layout:
    """Returns the layout after at most `rounds` improving changes; never a slower one."""
    topology, num_micro = workload.topology, len(layout[0])
    state = _make_state(workload, layout)
    for _ in range(rounds):
        times = _times(workload, state.loads, state.tokens)
        times = times.reshape(-1, num_micro) * np.array(topology.factors)[:, None]
        spans = makespan_ms(times, topology.num_stages)
        if spans.max() <= enough:
            break
        tried = _candidates(workload, state, spans, num_micro)
        gain = _gains(workload, state, tried, times=times)
        if len(gain) == 0:
            break
        best = int(gain.argmax())
        if gain[best] <= 1e-9 * spans.max():
            break
        _apply(state, tried, best)
    packs: Layout = [[[] for _ in rank] for rank in layout]
    for sequence, slot in enumerate(state.slot.tolist()):
        packs[slot // num_micro][slot % num_micro].append(sequence)
    return packs


def _make_state(workload: Workload, layout: Layout) -> _State:
    slot = np.empty(workload.num_sequences, dtype=np.int64)
    packs = [pack for rank in layout for pack in rank]
    for number, pack in enumerate(packs):
        slot[pack] = number
    lengths = np.array([*workload.lengths, 0])
    costs = np.array([*workload.costs, 0.0])
    return _State(
        slot=slot,
        loads=np.bincount(slot, weights=costs[:-1], minlength=len(packs)).astype(np.float64),
        tokens=np.bincount(slot, weights=lengths[:-1], minlength=len(packs)).astype(np.int64),
        counts=np.bincount(slot, minlength=len(packs)),
        costs=costs,
        lengths=lengths,
    )


def _times(workload: Workload, loads: FloatArray, tokens: IntArray) -> FloatArray:
    """Returns the times of micro-batches of these sums on a rank of usual speed."""
    work = loads if workload.shares.even else loads * workload.shares.of(tokens)
    times: FloatArray = np.maximum(work, workload.floor) + workload.constant
    return times


def _candidates(
    workload: Workload, state: _State, spans: FloatArray, num_micro: int
) -> _Candidates:
    """Returns what may be done about the slowest rank: orders first, then moves and swaps."""
    slowest = int(spans.argmax())
    own, other = slowest * num_micro + np.stack(np.triu_indices(num_micro, k=1))
    nothing = np.full(len(own), -1)
    moves = _moves(state, spans, slowest=slowest)
    allowed = _keeps_caps(workload, state, moves)
    moves = moves.only(allowed)
    return _Candidates(
        np.concatenate([own, moves.own]),
        np.concatenate([other, moves.other]),
        np.concatenate([nothing, moves.moved]),
        np.concatenate([nothing, moves.back]),
    )


def _moves(state: _State, spans: FloatArray, *, slowest: int) -> _Candidates:
    """Returns sequences of the slowest rank with slots and sequences anywhere else."""
    num_slots = len(state.loads)
    num_micro = num_slots // len(spans)
    members = np.flatnonzero(state.slot // num_micro == slowest)
    members = members[np.argsort(-state.costs[members], kind="stable")]
    back = np.concatenate([np.full(num_slots, -1), np.arange(len(state.slot))])
    other = np.concatenate([np.arange(num_slots), state.slot])
    fastest_first = np.argsort(spans[other // num_micro], kind="stable")
    moved = np.repeat(members, len(other))
    back = np.tile(back[fastest_first], len(members))
    other = np.tile(other[fastest_first], len(members))
    own = state.slot[moved]
    apart = np.flatnonzero(own != other)[:_MAX_CANDIDATES]
    return _Candidates(own[apart], other[apart], moved[apart], back[apart])


def _keeps_caps(workload: Workload, state: _State, moves: _Candidates) -> NDArray[np.bool_]:
    """Returns which moves leave both micro-batches within the caps, [C]."""
    tokens = state.lengths[moves.moved] - state.lengths[moves.back]
    more = (moves.back < 0).astype(np.int64)
    cap, most = workload.topology.max_tokens, workload.topology.max_sequences
    kept = np.ones(len(tokens), dtype=np.bool_)
    for slots, sign in ((moves.own, -1), (moves.other, 1)):
        count = state.counts[slots] + sign * more
        kept &= (count < 2) | (state.tokens[slots] + sign * tokens <= cap)
        if most:
            kept &= (count < 2) | (count <= most)
    return kept


def _gains(
    workload: Workload, state: _State, tried: _Candidates, *, times: FloatArray
) -> FloatArray:
    """Returns by how much each candidate shortens the step, and a little the mean rank, [C].

    Those that make the step longer gain nothing.
    """
    num_stages, num_micro = workload.topology.num_stages, times.shape[1]
    ranks = np.stack([tried.own, tried.other]) // num_micro  # [2, C]
    after = _changed_times(workload, state, tried, times=times)
    changed = makespan_ms(after.reshape(-1, num_micro), num_stages).reshape(2, -1)
    changed[1, ranks[0] == ranks[1]] = 0.0
    spans = makespan_ms(times, num_stages)
    slowest = np.maximum(changed.max(axis=0), _slowest_of_others(spans, ranks))
    before = spans[ranks[0]] + np.where(ranks[0] == ranks[1], 0.0, spans[ranks[1]])
    gain = spans.max() - slowest
    total = gain + _MEAN_WEIGHT / len(spans) * (before - changed.sum(axis=0))
    return np.where(gain >= 0.0, total, 0.0)


def _changed_times(
    workload: Workload, state: _State, tried: _Candidates, *, times: FloatArray
) -> FloatArray:
    """Returns the micro-batches of both ranks after each candidate, [2, C, M]."""
    whole, num_micro = tried.moved < 0, times.shape[1]
    loads, tokens = state.loads, state.tokens
    load = np.where(
        whole,
        loads[tried.own] - loads[tried.other],
        state.costs[tried.moved] - state.costs[tried.back],
    )
    length = np.where(
        whole,
        tokens[tried.own] - tokens[tried.other],
        state.lengths[tried.moved] - state.lengths[tried.back],
    )
    ranks = np.stack([tried.own, tried.other]) // num_micro
    after, at = times[ranks], np.arange(len(load))
    factors = np.array(workload.topology.factors)
    own = _times(workload, loads[tried.own] - load, tokens[tried.own] - length)
    other = _times(workload, loads[tried.other] + load, tokens[tried.other] + length)
    same = ranks[0] == ranks[1]
    after[0, at, tried.own % num_micro] = own * factors[ranks[0]]
    after[1, at, tried.other % num_micro] = other * factors[ranks[1]]
    after[0, at[same], tried.other[same] % num_micro] = after[
        1, at[same], tried.other[same] % num_micro
    ]
    return after


def _slowest_of_others(spans: FloatArray, ranks: IntArray) -> FloatArray:
    """Returns the longest makespan of all ranks but these two, [C]; ranks are [2, C]."""
    three = np.argsort(-spans, kind="stable")[:3]
    taken = (three[:, None] == ranks[0]) | (three[:, None] == ranks[1])
    longest: FloatArray = np.where(taken, 0.0, spans[three][:, None]).max(axis=0)
    return longest


def _apply(state: _State, tried: _Candidates, best: int) -> None:
    """Makes the change."""
    own, other = int(tried.own[best]), int(tried.other[best])
    moved, back = int(tried.moved[best]), int(tried.back[best])
    if moved < 0:
        was = state.slot.copy()
        state.slot[was == own], state.slot[was == other] = other, own
    else:
        state.slot[moved] = other
        if back >= 0:
            state.slot[back] = own
    for values, sums in ((state.costs, state.loads), (state.lengths, state.tokens)):
        sums[:] = np.bincount(state.slot, weights=values[:-1], minlength=len(sums))
    state.counts = np.bincount(state.slot, minlength=len(state.counts))
