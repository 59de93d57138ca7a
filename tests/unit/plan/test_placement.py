"""Greedy placements by hand: what goes where, and in which order it runs."""

import numpy as np
import pytest

from sbcore.latency.packs import EVEN
from sbcore.plan.balancers.karmarkar_karp import difference
from sbcore.plan.filling import fill_emptiest
from sbcore.plan.layout import counts_above, layout_cost, placed, with_fewest
from sbcore.plan.local_search import improve
from sbcore.plan.placement import arrange, by_levels, onto_ranks, spread, tightly, without_idle
from sbcore.plan.workload import Workload, longest_first
from sbcore.types import Barrier, Topology

STEP, MICRO, PIPELINE = Barrier


def workload_of(
    costs: list[float],
    num_ranks: int,
    barrier: Barrier = STEP,
    *factors: float,
    lengths: list[int] | None = None,
    max_sequences: int = 0,
    num_stages: int = 1,
) -> Workload:
    """Returns sequences of a token each, unless lengths are given, under a cap of 100."""
    topology = Topology(num_ranks, barrier, 100, max_sequences, num_stages, factors)
    return Workload(lengths or [1] * len(costs), costs, 0.0, 0.0, EVEN, topology)


def test_the_heaviest_goes_to_the_emptiest_rank() -> None:
    layout = onto_ranks(workload_of([2, 9, 5, 4, 3], 2), 1)
    assert layout == [[[1, 4]], [[2, 3, 0]]]


def test_a_fast_rank_gets_more() -> None:
    layout = onto_ranks(workload_of([10, 10, 10], 2, STEP, 2.0, 1.0), 1)
    assert layout is not None
    assert [len(rank[0]) for rank in layout] == [1, 2]


def test_the_rank_that_would_be_done_first_is_tried_first() -> None:
    """9 and 4 end at 9 and 8; then 2 at 11 or 12, but 0.5 at 9.5 or 9."""
    assert onto_ranks(workload_of([9, 4, 2], 2, STEP, 1.0, 2.0), 1) == [[[0, 2]], [[1]]]
    assert onto_ranks(workload_of([9, 4, 0.5], 2, STEP, 1.0, 2.0), 1) == [[[0]], [[1, 2]]]


def test_under_micro_micro_batches_are_even_not_ranks() -> None:
    workload = workload_of([10.0] + [1.0] * 10, 2, MICRO)
    layout = onto_ranks(workload, 2)
    assert layout is not None
    assert layout_cost(workload, layout) == pytest.approx(13.0)


def test_a_level_is_the_longest_or_the_mean_of_what_is_left() -> None:
    """Beside 10 fit ten ones on the other rank; the rest is in the second micro-step."""
    workload = workload_of([10.0] + [1.0] * 14, 2, MICRO)
    layout = by_levels(workload, 2)
    assert layout is not None
    assert layout_cost(workload, layout) == pytest.approx(12.0)
    even = workload_of([5.0] * 8, 2, MICRO)
    split = by_levels(even, 2)
    assert split is not None
    assert sorted(len(pack) for rank in split for pack in rank) == [2, 2, 2, 2]


def test_the_last_micro_step_takes_what_is_left() -> None:
    layout = by_levels(workload_of([5.0, 5.0, 5.0], 2, MICRO), 1)
    assert layout is not None
    assert sorted(len(rank[0]) for rank in layout) == [1, 2]


def test_too_few_micro_batches_are_no_layout() -> None:
    workload = workload_of([3.0, 2.0, 1.0], 1, lengths=[60, 60, 60])
    assert onto_ranks(workload, 2) is None
    assert onto_ranks(workload, 3) is not None
    by_micro = workload_of([3.0, 2.0, 1.0], 1, MICRO, lengths=[60, 60, 60])
    assert by_levels(by_micro, 2) is None


def test_packs_by_tokens_are_spread_by_cost() -> None:
    """Pairs that fill the cap, of which the heaviest is alone on its rank."""
    workload = workload_of([9.0, 9.0, 1.0, 1.0, 2.0, 2.0], 2, lengths=[60, 40, 55, 45, 52, 48])
    layout = tightly(workload, 2)
    assert layout is not None
    ranks = sorted(sorted(i for pack in rank for i in pack) for rank in layout)
    assert ranks == [[0, 1], [2, 3, 4, 5]]


def test_a_rank_s_sequences_are_even_over_its_micro_batches() -> None:
    layout = spread(workload_of([1.0, 2.0, 3.0, 4.0], 1), [[0, 1, 2, 3]], 2)
    assert sorted(map(sorted, layout[0])) == [[0, 3], [1, 2]]


def test_what_evenly_breaks_a_cap_is_packed_tightly() -> None:
    workload = workload_of([4.0, 3.0, 2.0, 1.0], 1, lengths=[50, 30, 50, 70])
    layout = spread(workload, [[0, 1, 2, 3]], 2)
    assert sorted(map(sorted, layout[0])) == [[0, 2], [1, 3]]


def test_the_heaviest_run_first_and_dummies_last() -> None:
    workload = workload_of([1.0, 3.0, 2.0, 0.0], 2)
    layout = arrange(workload, [[], [0], [1], [], [3], [2]])
    assert layout == [[[1], [0]], [[2], [3]]]


def test_under_micro_equals_meet_and_the_fastest_rank_takes_the_heaviest() -> None:
    members = [[0], [1], [2], [3]]
    costs = [8.0, 1.0, 2.0, 7.0]
    assert arrange(workload_of(costs, 2, MICRO), members) == [[[0], [2]], [[3], [1]]]
    slow = workload_of(costs, 2, MICRO, 1.5, 1.0)
    assert arrange(slow, members) == [[[3], [1]], [[0], [2]]]


def test_in_pipelines_the_small_ones_are_first_and_last() -> None:
    members = [[0], [1], [2], [3]]
    own = workload_of([4.0, 1.0, 3.0, 2.0], 1, PIPELINE, num_stages=2)
    assert arrange(own, members) == [[[1], [2], [0], [3]]]
    steps = workload_of([9.0, 1.0, 5.0, 5.5, 4.0, 2.0], 2, MICRO, num_stages=2)
    layout = arrange(steps, [[i] for i in range(6)])
    slowest = [max(steps.work(pack) for pack in step) for step in zip(*layout, strict=True)]
    assert slowest == [2.0, 9.0, 5.0]


def test_idle_micro_steps_are_left_out_and_short_ranks_get_dummies() -> None:
    assert without_idle([[[], [0], []], [[1], [], [2]]]) == [[[0], []], [[1], [2]]]


@pytest.mark.parametrize(
    ("costs", "factors", "start", "best"),
    [
        ([8.0, 1.0, 1.0, 8.0], (1.0, 1.5), [[[0], [1]], [[2], [3]]], 12.0 + 1.5),
        ([8.0, 8.0, 4.0, 4.0], (1.0, 2.0), [[[0], [1]], [[2], [3]]], 8.0 + 8.0),
    ],
)
def test_without_a_round_the_better_of_both_orders_counts(
    costs: list[float], factors: tuple[float, ...], start: list[list[list[int]]], best: float
) -> None:
    """Sorted micro-steps, or those that were found: neither is always better on uneven ranks."""
    workload = workload_of(costs, 2, MICRO, *factors)
    assert layout_cost(workload, improve(workload, start, rounds=0, enough=0.0)) == best


def test_groups_are_filled_from_the_emptiest_that_has_room() -> None:
    """The emptiest is full by tokens for 2, not for 3; it is tried again for the next."""
    workload = workload_of([5.0, 4.0, 3.0, 2.0], 2, lengths=[10, 95, 50, 5])
    members, left = fill_emptiest(
        workload, longest_first(workload), factors=(1.0, 1.0), per_group=1, level=float("inf")
    )
    assert (members, left) == ([[0, 2], [1, 3]], [])


def test_what_passes_the_level_is_left_and_lighter_ones_go_on() -> None:
    workload = workload_of([6.0, 5.0, 4.0, 1.0], 1)
    members, left = fill_emptiest(workload, [0, 1, 2, 3], factors=(1.0,), per_group=1, level=7.5)
    assert (members, left) == ([[0, 3]], [1, 2])


def test_when_not_even_the_lightest_fits_the_rest_is_left_in_order() -> None:
    workload = workload_of([6.0, 5.0, 4.0, 3.0], 1)
    members, left = fill_emptiest(workload, [0, 1, 2, 3], factors=(1.0,), per_group=1, level=7.5)
    assert (members, left) == ([[0]], [1, 2, 3])


def test_a_rank_s_micro_batches_are_filled_from_the_emptiest() -> None:
    workload = workload_of([5.0, 4.0, 3.0, 2.0], 1)
    members, _ = fill_emptiest(
        workload, [0, 1, 2, 3], factors=(1.0,), per_group=2, level=float("inf")
    )
    assert members == [[0, 3], [1, 2]]


def test_differences_are_evened_out() -> None:
    """The example of the literature: 8 7 6 5 4 differ by 2 in the end, greedily by 4."""
    costs = [8.0, 7.0, 6.0, 5.0, 4.0]
    sums = sorted(sum(costs[i] for i in part) for part in difference(costs, 2))
    assert sums == [14.0, 16.0]
    rng = np.random.default_rng(0)
    many = rng.uniform(1, 2, 60).tolist()
    loads = [sum(many[i] for i in part) for part in difference(many, 4)]
    assert max(loads) - min(loads) < 0.02


def test_the_fewest_micro_batches_that_can_be_done_are_found() -> None:
    workload = workload_of([1.0] * 5, 1, lengths=[40] * 5)
    layout, count = with_fewest(workload, onto_ranks)
    assert count == len(layout[0]) == 3  # two hold all tokens, but no five of 40


def test_pipelines_may_have_more_micro_batches_than_needed() -> None:
    workload = workload_of([1.0] * 16, 2, PIPELINE, num_stages=4)
    assert counts_above(workload, 1) == [2, 3, 4, 6]
    fewest, _ = with_fewest(workload, onto_ranks)
    assert layout_cost(workload, fewest) == pytest.approx(8.0)
    assert layout_cost(workload, placed(workload, onto_ranks)) < 4.0
