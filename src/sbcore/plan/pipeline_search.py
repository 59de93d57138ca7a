"""Moves, swaps and another order of micro-batches while they shorten the 1F1B makespan.

N sequences, R ranks, M micro-batches per rank, S = R * M slots, slot = rank * M + m, P stages,
C candidates. A candidate changes one or two slots of the slowest rank and at most one other rank;
only those are timed again, all candidates at once.
"""

import numpy as np

from sbcore.plan.pipeline import makespan_ms
from sbcore.plan.pipeline_moves import Candidates, State, apply, candidates, make_state
from sbcore.plan.placement import Layout
from sbcore.plan.workload import Workload
from sbcore.types import FloatArray, IntArray

_MEAN_WEIGHT = 0.05
"""What the mean rank counts beside the slowest: ranks that do not wait leave room for later."""


def improve_pipeline(workload: Workload, layout: Layout, *, rounds: int, enough: float) -> Layout:
    """Returns the layout after at most `rounds` improving changes; never a slower one."""
    topology, num_micro = workload.topology, len(layout[0])
    state = make_state(workload, layout)
    for _ in range(rounds):
        times = _times(workload, state.loads, state.tokens)
        times = times.reshape(-1, num_micro) * np.array(topology.factors)[:, None]
        spans = makespan_ms(times, topology.num_stages)
        if spans.max() <= enough:
            break
        tried = candidates(workload, state, spans=spans)
        gain = _gains(workload, state, tried, times=times)
        if len(gain) == 0:
            break
        best = int(gain.argmax())
        if gain[best] <= 1e-9 * spans.max():
            break
        apply(state, tried, best)
    packs: Layout = [[[] for _ in rank] for rank in layout]
    for sequence, slot in enumerate(state.slot.tolist()):
        packs[slot // num_micro][slot % num_micro].append(sequence)
    return packs


def _times(workload: Workload, loads: FloatArray, tokens: IntArray) -> FloatArray:
    """Returns the times of micro-batches of these sums on a rank of usual speed."""
    work = loads if workload.shares.even else loads * workload.shares.of(tokens)
    times: FloatArray = np.maximum(work, workload.floor) + workload.constant
    return times


def _gains(workload: Workload, state: State, tried: Candidates, *, times: FloatArray) -> FloatArray:
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
    workload: Workload, state: State, tried: Candidates, *, times: FloatArray
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
