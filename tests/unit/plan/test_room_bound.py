"""The bound by the token cap's room under barrier `micro`, by hand and against drawn plans."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbcore.latency.packs import EVEN
from sbcore.plan.bounds import lower_bound
from sbcore.plan.caps import min_micro_batches
from sbcore.plan.placement import by_levels, onto_ranks
from sbcore.plan.room_bound import room_bound
from sbcore.plan.workload import Workload
from sbcore.types import Barrier, Topology


def workload(
    lengths: list[int],
    costs: list[float],
    *,
    num_ranks: int,
    floor: float = 0.0,
    max_sequences: int = 0,
) -> Workload:
    topology = Topology(num_ranks, Barrier.MICRO, 100, max_sequences)
    return Workload(lengths, costs, floor, 0.0, EVEN, topology)


def test_work_that_finds_no_room_beside_the_longest_makes_other_micro_steps_longer() -> None:
    """Beside 100 there is room for 14 of 20 short ones of 5; the other 6 take 15 on two ranks."""
    short = [10] * 20, [5.0] * 20
    seen = workload([60, *short[0]], [100.0, *short[1]], num_ranks=2)
    assert room_bound(seen, min_micro_batches(seen.lengths, seen.topology)) == pytest.approx(115.0)
    roomy = workload([60, *short[0][:5]], [100.0, *short[1][:5]], num_ranks=2)
    assert room_bound(roomy, 1) == pytest.approx(100.0)


def test_the_second_of_the_sequences_that_cannot_meet_counts_too() -> None:
    seen = workload([90, 80, 70], [9.0, 8.0, 7.0], num_ranks=2)
    assert room_bound(seen, 2) == pytest.approx(9.0 + 7.0)
    assert room_bound(workload([10, 20], [1.0, 2.0], num_ranks=2), 1) == 0.0
    waiting = workload([90, 10], [9.0, 1.0], num_ranks=1, floor=4.0)
    assert room_bound(waiting, 3) == pytest.approx(9.0 + 2 * 4.0)
    single = workload([9, 8, 7], [9.0, 8.0, 7.0], num_ranks=2, max_sequences=1)
    assert room_bound(single, 2) == pytest.approx(9.0 + 7.0)


def test_one_short_sequence_that_costs_much_does_not_hide_what_finds_no_room() -> None:
    """As above with one of a single token: 139 others find room, 30.5 remain for two ranks."""
    seen = workload([60, 1, *[10] * 20], [100.0, 5.0, *[5.0] * 20], num_ranks=2)
    assert lower_bound(seen) == pytest.approx(100.0 + 30.5 / 2)


def test_the_number_of_micro_steps_that_says_most_counts() -> None:
    """Beside 100 there is room for 4 short ones of 5; beside 1 for 4 more, which cost more."""
    seen = workload([60, 60, *[10] * 20], [100.0, 1.0, *[5.0] * 20], num_ranks=1)
    assert room_bound(seen, 4) == pytest.approx(100.0 + 1.0 + 16 * 5.0)


def test_idle_time_of_many_micro_steps_counts() -> None:
    """Four ranks take 40, 39, ... 1 in tens of four, with room for 0.5 beside each.

    So three of each four wait 0.5, 1.5 and 2.5: 45 in all, beside 820 and 30 of work.
    """
    costs = [float(cost) for cost in range(40, 0, -1)]
    seen = workload([60] * 40 + [50] * 48, costs + [0.625] * 48, num_ranks=4)
    assert lower_bound(seen) == pytest.approx((820 + 30 + 45) / 4)


def test_micro_steps_of_short_sequences_take_the_floor() -> None:
    """Ten micro-steps of two that cannot meet; the tokens of all ask for 26."""
    costs = [float(cost) for cost in range(20, 0, -1)]
    seen = workload([60] * 20 + [50] * 80, costs + [0.01] * 80, num_ranks=2, floor=2.5)
    assert lower_bound(seen) == pytest.approx(sum(range(4, 21, 2)) + 2.5 + 16 * 2.5)


def test_what_costs_most_per_token_may_travel_without_a_long_sequence() -> None:
    """20 beside ten short ones, then 0.1 alone."""
    seen = workload([60, 60, *[10] * 10], [20.0, 0.1, *[1.0] * 10], num_ranks=2)
    layout = [[[0], [1]], [list(range(2, 12)), []]]
    taken = seen.objective([[seen.work(pack) for pack in rank] for rank in layout])
    assert taken == pytest.approx(20.1)
    assert lower_bound(seen) <= taken


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 120), min_size=1, max_size=14),
    num_ranks=st.integers(1, 4),
    floor=st.sampled_from([0.0, 3.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_plan_is_below(lengths: list[int], num_ranks: int, floor: float, seed: int) -> None:
    costs = np.random.default_rng(seed).exponential(lengths).tolist()
    seen = workload(lengths, costs, num_ranks=num_ranks, floor=floor)
    fewest = min_micro_batches(lengths, seen.topology)
    bound = max(room_bound(seen, fewest), lower_bound(seen))
    for place in (onto_ranks, by_levels):
        for count in range(fewest, len(lengths) + 1):
            layout = place(seen, count)
            if layout is not None:
                loads = [[seen.work(pack) for pack in rank] for rank in layout]
                assert bound <= seen.objective(loads) * (1 + 1e-9)
