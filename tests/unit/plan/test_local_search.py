"""Moves and swaps of the local search against layouts made anew, and restarts."""

from itertools import product

import numpy as np
import pytest

from sbcore.latency.packs import EVEN, WorkShares
from sbcore.plan.caps import keeps_caps
from sbcore.plan.layout import layout_cost
from sbcore.plan.local_search import _allowed, _apply, _candidates, _make_state, _Units, improve
from sbcore.plan.placement import Layout
from sbcore.plan.restarts import Start, _Kept, restarted, shaken
from sbcore.plan.workload import Workload
from sbcore.types import Barrier, Topology

LAYOUT = [[[0, 1], [2], [3, 4]], [[5], [6, 7], []], [[8, 9], [10], [11]], [[12], [], []]]


def workload_of(seed: int, barrier: Barrier, *factors: float, longest: int = 1500) -> Workload:
    """Returns 13 sequences for four ranks: pairs keep the cap, the last may be above it alone."""
    lengths = [*(100 * np.random.default_rng(seed).integers(1, 7, size=12)).tolist(), longest]
    topology = Topology(4, barrier, 1200, 3, speed_factors=factors)
    shares = WorkShares(700, 0.8, 1.0)
    return Workload(lengths, [float(n) for n in lengths], 50.0, 1.5, shares, topology)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("factors", [(), (1.0, 1.5, 1.25, 0.75)])
@pytest.mark.parametrize("barrier", [Barrier.STEP, Barrier.MICRO])
def test_what_a_candidate_is_said_to_change_is_what_it_changes(
    seed: int, factors: tuple[float, ...], barrier: Barrier
) -> None:
    workload = workload_of(seed, barrier, *factors)
    units, state = _Units(workload, 3), _make_state(workload, LAYOUT)
    times, before = units.times(state), layout_cost(workload, LAYOUT)
    assert times.max(axis=1).sum() == pytest.approx(before)
    tried = _candidates(state, units, times)
    change, allowed = units.change(state, tried, times), _allowed(workload, state, tried)
    for number in range(0, len(change), 3):
        changed = _make_state(workload, LAYOUT)
        _apply(changed, tried, number)
        packs: list[list[int]] = [[] for _ in range(12)]
        for sequence, slot in enumerate(changed.slot[:-1].tolist()):
            packs[slot].append(sequence)
        layout = [packs[at : at + 3] for at in range(0, 12, 3)]
        fresh = _make_state(workload, layout)
        assert changed.loads == pytest.approx(fresh.loads)
        assert (changed.tokens == fresh.tokens).all()
        assert (changed.counts == fresh.counts).all()
        kept = all(keeps_caps(pack, workload.lengths, workload.topology) for pack in packs)
        moves = state.slot[tried.moved[number]] != tried.to[number]
        assert allowed[number] == (kept and moves)
        if moves:
            after = layout_cost(workload, layout)
            assert change[number] == pytest.approx(after - before, abs=1e-6)


@pytest.mark.parametrize("barrier", [Barrier.STEP, Barrier.MICRO])
def test_moves_out_of_the_slowest_and_swaps_into_it_are_tried(barrier: Barrier) -> None:
    workload = workload_of(0, barrier)
    units, state = _Units(workload, 3), _make_state(workload, LAYOUT)
    tried = _candidates(state, units, units.times(state))
    loads = np.array([[workload.work(pack) for pack in rank] for rank in LAYOUT])
    if barrier is Barrier.MICRO:
        slowest = [LAYOUT[int(rank)][m] for m, rank in enumerate(loads.argmax(axis=0))]
    else:
        slowest = LAYOUT[int(np.maximum(loads, 50.0).sum(axis=1).argmax())]
    hot = [i for pack in slowest for i in pack]
    slots = [(13, to) for to in range(12)] + [(i, int(state.slot[i])) for i in range(13)]
    expected = {(moved, partner, to) for moved, (partner, to) in product(hot, slots)}
    found = zip(tried.moved.tolist(), tried.partner.tolist(), tried.to.tolist(), strict=True)
    assert set(found) == expected


def test_a_search_ends_where_no_move_nor_swap_is_better_and_before_where_that_is_enough() -> None:
    workload = workload_of(0, Barrier.STEP, longest=100)
    start = layout_cost(workload, LAYOUT)
    found = improve(workload, LAYOUT, rounds=100, enough=0.0)
    best = layout_cost(workload, found)
    assert best < 0.9 * start
    units, state = _Units(workload, 3), _make_state(workload, found)
    tried = _candidates(state, units, units.times(state))
    allowed = _allowed(workload, state, tried)
    assert units.change(state, tried, units.times(state))[allowed].min() >= -1e-6
    between = (best + start) / 2
    assert best < layout_cost(workload, improve(workload, LAYOUT, rounds=100, enough=between))
    assert layout_cost(workload, improve(workload, LAYOUT, rounds=0, enough=0.0)) <= start


def test_shaking_keeps_every_sequence_and_the_caps_and_the_layout_shaken() -> None:
    workload, rng = workload_of(0, Barrier.STEP), np.random.default_rng(0)
    changed = 0
    for _ in range(100):
        again = shaken(workload, LAYOUT, rng)
        assert sorted(i for rank in again for pack in rank for i in pack) == list(range(13))
        packs = [pack for rank in again for pack in rank]
        assert all(keeps_caps(pack, workload.lengths, workload.topology) for pack in packs)
        changed += again != LAYOUT
    assert changed > 50
    assert LAYOUT[0] == [[0, 1], [2], [3, 4]]
    single: Layout = [[[0, 1, 2]]]
    topology = Topology(1, Barrier.STEP, 1000, 0)
    alone = Workload([1, 2, 3], [1.0, 2.0, 3.0], 0.0, 0.0, EVEN, topology)
    assert shaken(alone, single, rng) == single


def restarts_seen(
    starts: list[Start], num_stages: int, *, restarts: int, enough: float
) -> list[float]:
    """Returns what the layouts cost that a search of nothing is given, in turn."""
    topology = Topology(1, Barrier.PIPELINE, 1000, 0, num_stages)
    workload = Workload([1] * 4, [8.0, 4.0, 2.0, 1.0], 0.0, 0.0, EVEN, topology)
    seen: list[float] = []

    def search(workload: Workload, layout: Layout) -> Layout:
        seen.append(layout_cost(workload, layout))
        return layout

    found = restarted(workload, starts, search, restarts=restarts, enough=enough, seed=0)
    seen.append(layout_cost(workload, found))
    return seen


def test_the_cheapest_start_comes_first_then_the_others_then_shaken_ones() -> None:
    topology = Topology(1, Barrier.PIPELINE, 1000, 0, 2)
    workload = Workload([1] * 4, [8.0, 4.0, 2.0, 1.0], 0.0, 0.0, EVEN, topology)
    layouts: list[Layout] = [[[[0, 1, 2, 3]]], [[[0], [1, 2, 3]]], [[[3], [0], [1], [2]]]]
    starts = [(layout_cost(workload, layout), layout) for layout in layouts]
    costs = sorted(cost for cost, _ in starts)
    seen = restarts_seen(starts, 2, restarts=8, enough=0.0)
    assert seen[:3] == pytest.approx(costs)
    assert len(seen) == 1 + 8 + 1
    assert seen[-1] == min(seen)
    assert restarts_seen(starts, 2, restarts=8, enough=costs[0]) == pytest.approx([costs[0]] * 2)


def test_longer_pipelines_are_begun_again_less_often() -> None:
    """2,048 restarts times sequences, times half the stages."""
    start: Layout = [[[0, 1, 2, 3]]]
    for num_stages, restarts in ((2, 512), (8, 128)):
        seen = restarts_seen([(15.0, start)], num_stages, restarts=1000, enough=0.0)
        assert len(seen) == 1 + restarts + 1


def test_what_is_shaken_is_nearly_as_cheap_as_the_best_in_turn() -> None:
    topology = Topology(1, Barrier.PIPELINE, 1000, 0, 2)
    kept = _Kept(Workload([1] * 3, [1.0] * 3, 0.0, 0.0, EVEN, topology))
    layouts: list[Layout] = [[[[0, 1, 2]]], [[[0], [1, 2]]], [[[0], [1], [2]]]]
    for cost, layout in zip((10.2, 10.0, 11.0), layouts, strict=True):
        kept.add(cost, layout)
    assert [kept.base(number) for number in range(3)] == [layouts[1], layouts[0], layouts[1]]
    kept.add(10.1, [[[1], [0, 2]]])
    assert kept.best == (10.0, layouts[1])


def test_where_nothing_may_move_sequences_change_places() -> None:
    topology, rng = Topology(2, Barrier.STEP, 1000, 1), np.random.default_rng(0)
    workload = Workload([1] * 4, [1.0] * 4, 0.0, 0.0, EVEN, topology)
    start: Layout = [[[0], [1]], [[2], [3]]]
    assert any(shaken(workload, start, rng) != start for _ in range(10))


def test_of_too_many_partners_those_with_most_time_to_spare_are_tried() -> None:
    costs = np.random.default_rng(0).permutation(900).astype(float).tolist()
    topology = Topology(3, Barrier.STEP, 10**6, 0)
    workload = Workload([1] * 900, costs, 0.0, 0.0, EVEN, topology)
    layout: Layout = [[list(range(400))], [list(range(400, 700))], [list(range(700, 900))]]
    units, state = _Units(workload, 1), _make_state(workload, layout)
    tried = _candidates(state, units, units.times(state))
    partners = set(tried.partner.tolist()) - {900}
    assert set(range(700, 900)) < partners
    assert len(partners - set(range(700, 900))) == 56
    assert not partners & set(range(400))
    heaviest = sorted(range(400), key=lambda i: -costs[i])[:32]
    assert list(dict.fromkeys(tried.moved.tolist())) == heaviest
