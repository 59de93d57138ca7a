"""Bounds of 1F1B pipelines: paths against makespans, bounds against all plans."""

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sbcore.latency.packs import EVEN
from sbcore.plan.pipeline import makespan_ms
from sbcore.plan.pipeline_bound import bounds_by_count, pipeline_bound
from sbcore.plan.pipeline_prices import longest_paths, path_prices
from sbcore.plan.workload import Workload
from sbcore.types import Barrier, Topology

TIMES = st.lists(st.floats(0, 100), min_size=1, max_size=9)


def workload_of(costs: list[float], topology: Topology, *, floor: float) -> Workload:
    lengths = [1 + int(cost) for cost in costs]
    return Workload(lengths, costs, floor, 0.5, EVEN, topology)


def best_makespan(workload: Workload, num_micro: int) -> float:
    """Returns the least makespan of all ways to share sequences out to so many micro-batches."""
    topology = workload.topology
    slots = topology.num_ranks * num_micro
    loads = np.zeros((slots**workload.num_sequences, slots))
    for row, places in enumerate(product(range(slots), repeat=workload.num_sequences)):
        for cost, place in zip(workload.costs, places, strict=True):
            loads[row, place] += cost
    times = np.maximum(loads, workload.floor) + workload.constant
    spans = makespan_ms(times.reshape(-1, num_micro), topology.num_stages)
    return float(spans.reshape(len(loads), -1).max(axis=1).min())


@settings(deadline=None, max_examples=100)
@given(times=TIMES, num_stages=st.integers(1, 6))
def test_the_longest_path_takes_as_long_as_the_makespan(
    times: list[float], num_stages: int
) -> None:
    row = np.array([times])
    prices = longest_paths(row, num_stages)
    assert prices.min() >= 0.0
    assert (prices * row).sum() == pytest.approx(makespan_ms(row, num_stages)[0])


@pytest.mark.parametrize("num_stages", [2, 4])
@pytest.mark.parametrize("num_micro", [1, 3, 8])
def test_no_makespan_is_below_what_prices_say(num_micro: int, num_stages: int) -> None:
    """Prices are means of paths, and a makespan is the longest path."""
    rng = np.random.default_rng(0)
    times = np.concatenate(
        [rng.uniform(0, 9, (200, num_micro)), rng.lognormal(0, 2, (200, num_micro))]
    )
    priced = (times @ path_prices(num_micro, num_stages).T).max(axis=1)
    assert (priced <= makespan_ms(times, num_stages) * (1 + 1e-9)).all()


@settings(deadline=None, max_examples=60)
@given(
    costs=st.lists(st.floats(0.1, 100), min_size=1, max_size=5),
    num_ranks=st.integers(1, 2),
    num_stages=st.integers(2, 4),
    floor=st.sampled_from([0.0, 5.0, 40.0]),
    num_micro=st.integers(1, 3),
)
def test_each_number_of_micro_batches_has_a_bound_that_no_plan_beats(
    costs: list[float], num_ranks: int, num_stages: int, floor: float, num_micro: int
) -> None:
    topology = Topology(num_ranks, Barrier.PIPELINE, 10_000, 0, num_stages)
    workload = workload_of(costs, topology, floor=floor)
    assume(num_micro <= len(costs))
    bounds = dict(bounds_by_count(workload, up_to=np.inf))
    best = best_makespan(workload, num_micro)
    assert min(bounds.values()) == pipeline_bound(workload)
    assert bounds[num_micro] <= best * (1 + 1e-9)
    within = bounds_by_count(workload, up_to=best * (1 + 1e-9))
    assert num_micro in dict(within)
    assert all(bound <= best * (1 + 1e-9) for _, bound in within)
    assert within == sorted(within, key=lambda found: found[1])


def test_the_bound_is_met_where_sequences_are_as_good_as_divided() -> None:
    """Many equal sequences: the best of all orders of four is within 2 % of the bound."""
    topology = Topology(1, Barrier.PIPELINE, 10_000, 0, num_stages=4)
    workload = workload_of([1.0] * 40, topology, floor=8.0)
    bounds = dict(bounds_by_count(workload, up_to=np.inf))
    sizes = np.array(list(product(range(8, 17), repeat=3)))
    times = np.column_stack([sizes, 40 - sizes.sum(axis=1)]).astype(float)
    times = np.maximum(times[times.min(axis=1) > 0], 8.0) + 0.5
    assert makespan_ms(times, 4).min() == pytest.approx(bounds[4], rel=0.02)


def test_three_heavy_sequences_on_two_stages_wait_for_each_other() -> None:
    """Two of the three are in one lane in every order, and lanes add up whole."""
    topology = Topology(1, Barrier.PIPELINE, 10_000, 1, num_stages=2)
    workload = workload_of([30.0, 30.0, 30.0], topology, floor=0.0)
    best = float(makespan_ms(np.full((1, 3), 30.5), 2)[0])
    assert 60.5 <= pipeline_bound(workload) <= best


@pytest.mark.parametrize(
    ("costs", "num_ranks", "num_stages", "num_micro"),
    [
        ([1.0] * 4, 1, 2, 4),  # all at the floor
        ([14.0, 1.0, 1.0], 1, 2, 3),
        ([20.0, 1.0, 1.0, 1.0], 1, 2, 4),
        ([20.0, 1.0, 1.0, 1.0], 2, 2, 2),
        ([50.0, 1.0, 1.0, 1.0], 1, 2, 4),
        ([50.0, 1.0, 1.0], 1, 3, 3),
        ([50.0, 1.0, 1.0], 2, 3, 3),
    ],
)
def test_the_bound_is_met_by_one_longer_than_the_floor(
    costs: list[float], num_ranks: int, num_stages: int, num_micro: int
) -> None:
    topology = Topology(num_ranks, Barrier.PIPELINE, 10_000, 0, num_stages)
    workload = workload_of(costs, topology, floor=10.0)
    bound = dict(bounds_by_count(workload, up_to=np.inf))[num_micro]
    assert bound == pytest.approx(best_makespan(workload, num_micro))


@pytest.mark.parametrize("longest", [1.0, 14.0, 50.0, 90.0])
def test_bounds_of_many_micro_batches_are_nearly_met(longest: float) -> None:
    """One long among eight at the floor, in its best place; too many for prices of paths."""
    topology = Topology(1, Barrier.PIPELINE, 10_000, 1, num_stages=2)
    workload = workload_of([longest, *[1.0] * 8], topology, floor=10.0)
    orders = np.full((9, 9), 10.5)
    np.fill_diagonal(orders, max(longest, 10.0) + 0.5)
    bound = pipeline_bound(workload)
    assert bound <= makespan_ms(orders, 2).min() <= bound * 1.025
