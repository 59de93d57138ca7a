"""Where sequences are in pipelines, and what may be tried to shorten the slowest of them.

N sequences, R ranks, M micro-batches per rank, S = R * M slots, slot = rank * M + m, C candidates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbcore.plan.placement import Layout
from sbcore.plan.workload import Workload
from sbcore.types import FloatArray, IntArray

_MAX_CANDIDATES = 1024
"""Timed in a round, the heaviest sequences and the fastest ranks first; about a millisecond."""


@dataclass(slots=True)
class State:
    """Where each sequence is, and what follows from it; N + 1 with nothing at the end."""

    slot: IntArray  # [N]
    loads: FloatArray  # [S]
    tokens: IntArray  # [S]
    counts: IntArray  # [S]
    costs: FloatArray  # [N + 1]
    lengths: IntArray  # [N + 1]


@dataclass(frozen=True, slots=True)
class Candidates:
    """A sequence goes from a slot of the slowest rank to another, and one or nothing comes back.

    Without a sequence that goes, the two micro-batches change places.
    """

    own: IntArray  # [C] slot
    other: IntArray  # [C] slot
    moved: IntArray  # [C] sequence or -1
    back: IntArray  # [C] sequence or -1

    def only(self, chosen: NDArray[np.bool_]) -> "Candidates":
        """Returns some of them."""
        return Candidates(
            self.own[chosen], self.other[chosen], self.moved[chosen], self.back[chosen]
        )


def make_state(workload: Workload, layout: Layout) -> State:
    """Returns the layout as arrays."""
    slot = np.empty(workload.num_sequences, dtype=np.int64)
    packs = [pack for rank in layout for pack in rank]
    for number, pack in enumerate(packs):
        slot[pack] = number
    lengths = np.array([*workload.lengths, 0])
    costs = np.array([*workload.costs, 0.0])
    return State(
        slot=slot,
        loads=np.bincount(slot, weights=costs[:-1], minlength=len(packs)).astype(np.float64),
        tokens=np.bincount(slot, weights=lengths[:-1], minlength=len(packs)).astype(np.int64),
        counts=np.bincount(slot, minlength=len(packs)),
        costs=costs,
        lengths=lengths,
    )


def candidates(workload: Workload, state: State, *, spans: FloatArray) -> Candidates:
    """Returns what may be done about the slowest rank: orders first, then moves and swaps.

    ``spans`` [R] are the ranks' makespans.
    """
    slowest, num_micro = int(spans.argmax()), len(state.loads) // len(spans)
    own, other = slowest * num_micro + np.stack(np.triu_indices(num_micro, k=1))
    nothing = np.full(len(own), -1)
    moves = _moves(state, spans, slowest=slowest)
    allowed = _keeps_caps(workload, state, moves)
    moves = moves.only(allowed)
    return Candidates(
        np.concatenate([own, moves.own]),
        np.concatenate([other, moves.other]),
        np.concatenate([nothing, moves.moved]),
        np.concatenate([nothing, moves.back]),
    )


def _moves(state: State, spans: FloatArray, *, slowest: int) -> Candidates:
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
    return Candidates(own[apart], other[apart], moved[apart], back[apart])


def _keeps_caps(workload: Workload, state: State, moves: Candidates) -> NDArray[np.bool_]:
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


def apply(state: State, tried: Candidates, best: int) -> None:
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
