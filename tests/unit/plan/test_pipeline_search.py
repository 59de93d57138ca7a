"""The search in pipelines: nothing is lost, caps hold, and no step becomes longer."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbcore.latency.packs import EVEN, WorkShares
from sbcore.plan.caps import keeps_caps
from sbcore.plan.layout import layout_cost
from sbcore.plan.pipeline import makespan_ms
from sbcore.plan.pipeline_moves import State, apply, candidates, make_state
from sbcore.plan.pipeline_search import _gains, _times, improve_pipeline
from sbcore.plan.placement import Layout
from sbcore.plan.workload import Workload
from sbcore.types import Barrier, Topology


def dealt(num: int, num_ranks: int, num_micro: int) -> Layout:
    """Returns one sequence after the other, each in the next micro-batch."""
    layout: Layout = [[[] for _ in range(num_micro)] for _ in range(num_ranks)]
    for i in range(num):
        slot = i % (num_ranks * num_micro)
        layout[slot % num_ranks][slot // num_ranks].append(i)
    return layout


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 900), min_size=1, max_size=12),
    num_ranks=st.integers(1, 3),
    num_micro=st.integers(1, 4),
    shares=st.sampled_from([EVEN, WorkShares(400, 0.8, 1.0)]),
    factors=st.sampled_from([(), (1.0, 1.5, 1.25)]),
)
def test_the_search_loses_nothing_and_keeps_the_caps(
    lengths: list[int],
    num_ranks: int,
    num_micro: int,
    shares: WorkShares,
    factors: tuple[float, ...],
) -> None:
    topology = Topology(
        num_ranks, Barrier.PIPELINE, 20_000, 12, 3, speed_factors=factors[:num_ranks]
    )
    workload = Workload(lengths, [float(n) for n in lengths], 50.0, 1.5, shares, topology)
    start = dealt(len(lengths), num_ranks, num_micro)
    found = improve_pipeline(workload, start, rounds=50, enough=0.0)
    packs = [pack for rank in found for pack in rank]
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    assert [len(rank) for rank in found] == [num_micro] * num_ranks
    assert all(keeps_caps(pack, lengths, topology) for pack in packs)
    assert layout_cost(workload, found) <= layout_cost(workload, start) * (1 + 1e-9)


@pytest.mark.parametrize(("max_tokens", "max_sequences"), [(1000, 0), (20_000, 2)])
def test_moves_that_break_a_cap_are_not_made(max_tokens: int, max_sequences: int) -> None:
    lengths = np.random.default_rng(0).integers(300, 500, size=12).tolist()
    topology = Topology(2, Barrier.PIPELINE, max_tokens, max_sequences, 4)
    workload = Workload(lengths, [float(n) for n in lengths], 900.0, 0.0, EVEN, topology)
    found = improve_pipeline(workload, dealt(12, 2, 4), rounds=50, enough=0.0)
    assert max(len(pack) for rank in found for pack in rank) == 2
    assert all(keeps_caps(pack, lengths, topology) for rank in found for pack in rank)


def test_orders_found_are_near_the_best_of_all() -> None:
    rng, above = np.random.default_rng(0), []
    topology = Topology(1, Barrier.PIPELINE, 10_000, 1, 3)
    for _ in range(20):
        costs = rng.lognormal(3, 1, 5).tolist()
        workload = Workload([1] * 5, costs, 1.0, 0.0, EVEN, topology)
        found = improve_pipeline(workload, [[[i] for i in range(5)]], rounds=50, enough=0.0)
        best = makespan_ms(np.array(list(permutations(costs))), 3).min()
        above.append(layout_cost(workload, found) / best - 1.0)
    assert np.mean(above) < 0.01
    assert min(above) > -1e-9


def members_of(state: State, num_ranks: int) -> Layout:
    """Returns the layout that a state says."""
    num_micro = len(state.loads) // num_ranks
    layout: Layout = [[[] for _ in range(num_micro)] for _ in range(num_ranks)]
    for sequence, slot in enumerate(state.slot.tolist()):
        layout[slot // num_micro][slot % num_micro].append(sequence)
    return layout


@pytest.mark.parametrize("seed", range(4))
def test_what_a_change_is_said_to_gain_is_what_it_gains(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 751, size=11).tolist()
    topology = Topology(3, Barrier.PIPELINE, 1500, 4, 3, speed_factors=(1.0, 1.5, 1.25))
    shares = WorkShares(700, 0.8, 1.0)
    workload = Workload(lengths, [float(n) for n in lengths], 50.0, 1.5, shares, topology)
    start = dealt(11, 3, 3)

    def now(state: State) -> np.ndarray:
        times = _times(workload, state.loads, state.tokens).reshape(3, 3)
        return times * np.array(topology.factors)[:, None]

    state = make_state(workload, start)
    before = makespan_ms(now(state), 3)
    assert before.max() == pytest.approx(layout_cost(workload, start))
    tried = candidates(workload, state, spans=before)
    gains = _gains(workload, state, tried, times=now(state))
    assert len(gains) > 50
    for number, gain in enumerate(gains.tolist()):
        changed = make_state(workload, start)
        apply(changed, tried, number)
        layout = members_of(changed, 3)
        fresh = make_state(workload, layout)
        assert changed.loads == pytest.approx(fresh.loads)
        assert (changed.tokens == fresh.tokens).all()
        assert (changed.counts == fresh.counts).all()
        assert all(keeps_caps(pack, lengths, topology) for rank in layout for pack in rank)
        after = makespan_ms(now(changed), 3)
        shorter = before.max() - after.max()
        mean = 0.05 * (before.mean() - after.mean())
        assert gain == pytest.approx(shorter + mean if shorter >= -1e-9 else 0.0, abs=1e-6)


def test_every_move_and_swap_that_keeps_the_caps_is_tried() -> None:
    """Two ranks of two micro-batches; one of the slowest rank's sequences is above the cap."""
    lengths = [700, 300, 200, 400, 90, 80, 70]
    topology = Topology(2, Barrier.PIPELINE, 600, 3, 2)
    workload = Workload(lengths, [float(n) for n in lengths], 0.0, 0.0, EVEN, topology)
    start = [[[0], [1, 2]], [[4, 5, 6], [3]]]
    state = make_state(workload, start)
    tried = candidates(workload, state, spans=np.array([900.0, 200.0]))
    found = set(zip(tried.moved.tolist(), tried.back.tolist(), tried.other.tolist(), strict=True))
    packs = [pack for rank in start for pack in rank]
    expected = {(-1, -1, 1)}
    for own, other in product(range(2), range(4)):
        for moved, back in product(packs[own], [-1, *packs[other]]):
            left = [i for i in packs[own] if i != moved] + [i for i in [back] if i >= 0]
            right = [i for i in packs[other] if i != back] + [moved]
            kept = all(keeps_caps(pack, lengths, topology) for pack in (left, right))
            if own != other and kept:
                expected.add((moved, back, other))
    assert found == expected


def test_of_too_many_moves_the_heaviest_to_the_fastest_ranks_are_tried() -> None:
    """180 sequences: the slowest rank's moves alone are ten times what is timed in a round."""
    costs = np.random.default_rng(0).permutation(180).astype(float).tolist()
    topology = Topology(3, Barrier.PIPELINE, 10_000, 0, 2)
    workload = Workload([1] * 180, costs, 0.0, 0.0, EVEN, topology)
    state = make_state(workload, dealt(180, 3, 2))
    spans = np.array([5.0, 9.0, 1.0])
    tried = candidates(workload, state, spans=spans)
    moved, own, other = (of[tried.moved >= 0] for of in (tried.moved, tried.own, tried.other))
    assert len(moved) == 1024
    assert (own // 2 == 1).all()
    members = np.flatnonzero(state.slot // 2 == 1)
    heaviest = sorted(members.tolist(), key=lambda i: -costs[i])
    assert list(dict.fromkeys(moved.tolist())) == heaviest[: len(set(moved.tolist()))]
    waits = spans[other[moved == heaviest[0]] // 2]
    assert (np.diff(waits) >= 0).all()
    assert set(waits) == {1.0, 5.0, 9.0}


def test_the_search_ends_when_the_step_is_short_enough_and_not_before() -> None:
    lengths = [400, 300, 200, 100, 90, 80, 70]
    topology = Topology(2, Barrier.PIPELINE, 10_000, 0, 2)
    workload = Workload(lengths, [float(n) for n in lengths], 0.0, 0.0, EVEN, topology)
    start: Layout = [[[0, 1, 2], [3]], [[4, 5], [6]]]
    cost = layout_cost(workload, start)
    assert improve_pipeline(workload, start, rounds=50, enough=cost) == start
    found = improve_pipeline(workload, start, rounds=50, enough=0.95 * cost)
    assert layout_cost(workload, found) <= 0.95 * cost
