"""What is proved to be impossible is, and what is possible is found, against all plans."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbcore.latency.packs import EVEN
from sbcore.plan.bounds import lower_bound
from sbcore.plan.pipeline import makespan_ms
from sbcore.plan.pipeline_bound import pipeline_bound
from sbcore.plan.pipeline_proof import is_possible, proved_bound
from sbcore.plan.workload import Workload
from sbcore.types import Barrier, Topology


def workload_of(costs: list[float], *, num_ranks: int, num_stages: int, floor: float) -> Workload:
    topology = Topology(num_ranks, Barrier.PIPELINE, 10_000, 0, num_stages)
    return Workload([1] * len(costs), costs, floor, 0.5, EVEN, topology)


def best_makespan(workload: Workload) -> float:
    """Returns the least makespan of all plans with one to as many micro-batches as sequences."""
    topology, num = workload.topology, workload.num_sequences
    best = np.inf
    for num_micro in range(1, num + 1):
        slots = topology.num_ranks * num_micro
        places = np.array(list(product(range(slots), repeat=num)))
        loads = (np.eye(slots)[places] * np.array(workload.costs)[:, None]).sum(axis=1)
        times = np.maximum(loads, workload.floor) + workload.constant
        spans = makespan_ms(times.reshape(-1, num_micro), topology.num_stages)
        best = min(best, float(spans.reshape(len(loads), -1).max(axis=1).min()))
    return best


@settings(deadline=None, max_examples=60)
@given(
    costs=st.lists(st.floats(0.1, 100), min_size=1, max_size=4),
    num_ranks=st.integers(1, 2),
    num_stages=st.integers(2, 4),
    floor=st.sampled_from([0.0, 5.0, 40.0]),
)
def test_just_above_the_optimum_is_possible_and_just_below_is_not(
    costs: list[float], num_ranks: int, num_stages: int, floor: float
) -> None:
    workload = workload_of(costs, num_ranks=num_ranks, num_stages=num_stages, floor=floor)
    best = best_makespan(workload)
    assert is_possible(workload, best * (1 + 1e-6), max_layouts=100_000) is True
    assert is_possible(workload, best * (1 - 1e-6), max_layouts=100_000) is False
    assert proved_bound(workload, pipeline_bound(workload)) <= best * (1 + 1e-9)


def test_too_many_layouts_are_no_answer() -> None:
    rng = np.random.default_rng(0)
    workload = workload_of(rng.lognormal(3, 1, 16).tolist(), num_ranks=2, num_stages=4, floor=2.0)
    assert is_possible(workload, 1.5 * lower_bound(workload), max_layouts=10) is None
    large = workload_of([1.0] * 200, num_ranks=200, num_stages=4, floor=0.0)
    assert is_possible(large, 100.0, max_layouts=10) is None


def test_heavy_sequences_prove_more_than_work_that_may_be_divided() -> None:
    """Nine of a size on two ranks of two stages, in three lanes' worth of micro-batches."""
    workload = workload_of([10.0] * 9, num_ranks=2, num_stages=2, floor=1.0)
    divided = pipeline_bound(workload)
    assert proved_bound(workload, divided) > divided * 1.01


@pytest.mark.parametrize(
    ("costs", "num_ranks", "floor", "more"),
    [
        ([24, 23, 22, 21, 19, 18, 17, 7, 7, 6, 3], 2, 10.0, 0.015),
        ([37, 25, 17, 14, 14, 12, 10, 9, 5], 1, 3.0, 0.01),
    ],
)
def test_few_layouts_prove_much_where_the_heaviest_come_first(
    costs: list[float], num_ranks: int, floor: float, more: float
) -> None:
    """What is above the floor and what fills it up both need room."""
    workload = workload_of(costs, num_ranks=num_ranks, num_stages=3, floor=floor)
    divided = pipeline_bound(workload)
    assert proved_bound(workload, divided) >= divided * (1.0 + more)


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_a_bound_scales_with_the_fastest_rank(factor: float) -> None:
    costs = [50.0, 40.0, 30.0, 20.0, 10.0, 5.0]
    workload = workload_of(costs, num_ranks=2, num_stages=3, floor=2.0)
    slower = Topology(2, Barrier.PIPELINE, 10_000, 0, 3, (factor, factor))
    slowed = Workload([1] * 6, costs, 2.0, 0.5, EVEN, slower)
    assert lower_bound(slowed) == pytest.approx(factor * lower_bound(workload))
