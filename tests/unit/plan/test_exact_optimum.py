"""Tiny global batches, where the best plan is known by trying all: the oracle of the bounds."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from sbcore.config.method import BalancerConfig
from sbcore.latency.packs import EVEN, WorkShares
from sbcore.plan.balancers import BALANCERS, load_balancer
from sbcore.plan.bounds import first_bound, lower_bound, optimality_gap
from sbcore.plan.objective import micro_batch_ms, slowed, step_ms
from sbcore.plan.pipeline import makespan_ms
from sbcore.plan.workload import Workload, make_workload
from sbcore.types import Barrier, FloatArray, IntArray, Topology


@dataclass(frozen=True)
class KinkedCost:
    """Like sparse attention: quadratic up to a budget, then linear."""

    floor_ms: float
    constant_ms: float

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        return 0.01 * lengths + 1e-4 * np.minimum(lengths, 256) * lengths


def planned_cost(kind: str, lengths: list[int], topology: Topology, cost: KinkedCost) -> float:
    config = TypeAdapter(BalancerConfig).validate_python({"kind": kind})
    array = np.array(lengths, dtype=np.int64)
    plan = load_balancer(kind)(array, topology, cost=cost, seed=0, config=config)
    times = slowed(micro_batch_ms(plan, array, cost), topology)
    return step_ms(times, topology.barrier, num_stages=topology.num_stages)


def best_cost(workload: Workload) -> float:
    """Returns the least cost of any plan; up to five sequences."""
    sequences = list(range(workload.num_sequences))
    return min(
        cost
        for packs in partitions(sequences)
        if all(fits(workload, pack) for pack in packs)
        for cost in costs_of_packs(workload, packs)
    )


def costs_of_packs(workload: Workload, packs: list[list[int]]) -> Iterator[float]:
    """Yields what each way of running these micro-batches costs."""
    topology, idle = workload.topology, workload.floor + workload.constant
    loads = [max(sum(workload.costs[i] for i in pack), workload.floor) for pack in packs]
    times = [load + workload.constant for load in loads]
    if topology.barrier is Barrier.MICRO:
        for micro_steps in partitions(list(range(len(packs)))):
            if all(len(micro_step) <= topology.num_ranks for micro_step in micro_steps):
                steps = [slowest(topology, [times[p] for p in m], idle) for m in micro_steps]
                yield shortest(steps, topology.num_stages)
        return
    for ranks in product(range(topology.num_ranks), repeat=len(packs)):
        counts = [ranks.count(rank) for rank in range(topology.num_ranks)]
        own = [
            [t for t, r in zip(times, ranks, strict=True) if r == rank]
            + [idle] * (max(counts) - counts[rank])
            for rank in range(topology.num_ranks)
        ]
        yield max(
            factor * shortest(work, topology.num_stages)
            for factor, work in zip(topology.factors, own, strict=True)
        )


def slowest(topology: Topology, times: list[float], idle: float) -> float:
    """Returns the least time of a micro-step: the heaviest go to the fastest ranks."""
    work = sorted(times + [idle] * (topology.num_ranks - len(times)), reverse=True)
    return max(f * t for f, t in zip(sorted(topology.factors), work, strict=True))


def shortest(work: list[float], num_stages: int) -> float:
    """Returns the makespan of the best order."""
    if num_stages == 1:
        return sum(work)
    orders = np.array(list(set(permutations(work))))
    return float(makespan_ms(orders, num_stages).min())


def fits(workload: Workload, pack: list[int]) -> bool:
    topology = workload.topology
    tokens = sum(workload.lengths[i] for i in pack)
    if topology.max_sequences and len(pack) > topology.max_sequences:
        return False
    return len(pack) == 1 or tokens <= topology.max_tokens


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    if not items:
        yield []
        return
    first, *rest = items
    for smaller in partitions(rest):
        yield [[first], *smaller]
        for at, pack in enumerate(smaller):
            yield [*smaller[:at], [first, *pack], *smaller[at + 1 :]]


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    num_ranks = draw(st.integers(1, 3))
    speeds = st.lists(st.sampled_from([0.75, 1.0, 1.5]), min_size=num_ranks, max_size=num_ranks)
    return Topology(
        num_ranks,
        draw(st.sampled_from(list(Barrier))),
        max_tokens=draw(st.sampled_from([300, 900, 5000])),
        max_sequences=draw(st.sampled_from([0, 1, 2])),
        num_stages=draw(st.integers(1, 3)),
        speed_factors=tuple(draw(st.one_of(st.just([]), speeds))),
    )


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 900), min_size=1, max_size=5),
    topology=topologies(),
    cost=st.builds(KinkedCost, st.sampled_from([0.0, 3.0, 30.0]), st.sampled_from([0.0, 1.5])),
)
def test_bound_and_plans_enclose_the_exact_optimum(
    lengths: list[int], topology: Topology, cost: KinkedCost
) -> None:
    if topology.num_stages > 1:
        lengths = lengths[:4]
    workload = make_workload(np.array(lengths), topology, cost)
    best = best_cost(workload)
    assert lower_bound(workload) <= best * (1 + 1e-9)
    for kind in BALANCERS:
        assert planned_cost(kind, lengths, topology, cost) >= best * (1 - 1e-9)


@pytest.mark.parametrize("barrier", Barrier)
@pytest.mark.parametrize("speed_factors", [(), (1.0, 1.5)])
@pytest.mark.parametrize("num_stages", [1, 2])
def test_sab_is_near_the_exact_optimum(
    barrier: Barrier, speed_factors: tuple[float, ...], num_stages: int
) -> None:
    """Under `micro` in pipelines it searches for the least sum, not for the least makespan."""
    mean = 0.03 if barrier is Barrier.MICRO and num_stages > 1 else 0.01
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(30):
        lengths = rng.integers(20, 900, size=4 if num_stages > 1 else 5).tolist()
        cost = KinkedCost(3.0, 1.5)
        topology = Topology(2, barrier, 1200, 0, num_stages, speed_factors)
        time = planned_cost("sab", lengths, topology, cost)
        gaps.append(time / best_cost(make_workload(np.array(lengths), topology, cost)) - 1)
    assert np.mean(gaps) < mean
    assert np.max(gaps) < 0.1


STEP, MICRO, PIPELINE = Barrier


def alone(num_ranks: int, barrier: Barrier, num_stages: int = 1, *factors: float) -> Topology:
    """Returns ranks on which each sequence is a micro-batch of its own."""
    return Topology(num_ranks, barrier, 100, 1, num_stages, speed_factors=factors)


MET: dict[str, tuple[list[float], float, float, Topology, float]] = {
    "ranks of different speed share work and constants": (
        [7, 5, 4, 3],
        0.0,
        1.5,
        alone(2, STEP, 1, 1.0, 1.5),
        15.0,  # 7 + 5 and 4 + 3 with two constants each
    ),
    "micro-batches beside the longest take the floor": (
        [100, 1],
        30.0,
        0.0,
        alone(1, STEP),
        130.0,
    ),
    "the slowest rank runs as many micro-batches": (
        [1, 1, 1, 1],
        30.0,
        1.0,
        alone(2, STEP, 1, 1.0, 2.0),
        124.0,
    ),
    "the longest is on the fastest rank": ([100, 1], 0.0, 5.0, alone(2, STEP, 1, 1.0, 2.0), 105.0),
    "of five on two ranks three are together": ([5, 5, 4, 3, 3], 0.0, 0.0, alone(2, STEP), 10.0),
    "of seven on two ranks four are together": ([30.0] * 7, 0.0, 0.0, alone(2, STEP), 120.0),
    "two gaps that nothing fills": ([7, 7, 4, 4, 4], 0.0, 0.0, alone(3, STEP), 11.0),
    "such gaps on ranks of different speed": (
        [7, 7, 4, 4, 4],
        0.0,
        0.0,
        alone(3, STEP, 1, 1.0, 1.0, 1.03125),
        11.0,
    ),
    "sorted micro-steps, the last at the floor": (
        [float(cost) for cost in range(20, 0, -1)],
        2.5,
        0.0,
        alone(2, MICRO),
        20 + 18 + 16 + 14 + 12 + 10 + 8 + 6 + 4 + 2.5,
    ),
    "three of a size on two stages": ([30.0] * 3, 20.0, 0.5, alone(1, PIPELINE, 2), 4 * 30.5 / 2),
    "four of a size in one pipeline": ([30.0] * 7, 20.0, 0.0, alone(2, PIPELINE, 4), 7 * 30 / 4),
}
"""Costs, floor, constant, topology and the best step, by what decides it."""


@pytest.mark.parametrize("what", MET)
def test_the_bound_is_met_where_one_thing_decides(what: str) -> None:
    costs, floor, constant, topology, best = MET[what]
    workload = Workload([1] * len(costs), costs, floor, constant, EVEN, topology)
    if len(costs) <= 5:
        assert best_cost(workload) == pytest.approx(best)
    assert lower_bound(workload) == pytest.approx(best, rel=2e-4)  # bins are bisected
    assert lower_bound(workload) <= best * (1 + 1e-9)


def test_two_halves_of_the_cap_may_share_a_micro_batch() -> None:
    topology = Topology(2, Barrier.MICRO, 100, 0)
    workload = Workload([60, 50, 50], [10.0, 6.0, 4.0], 0.0, 0.0, EVEN, topology)
    assert lower_bound(workload) == pytest.approx(10.0)
    assert best_cost(workload) == pytest.approx(10.0)


def test_a_slow_pipeline_runs_as_many_micro_batches() -> None:
    """Two of the floor on the slow rank; at least one fast one before or after each."""
    workload = Workload([1] * 4, [1.0] * 4, 10.0, 0.0, EVEN, alone(2, PIPELINE, 2, 1.0, 2.0))
    assert best_cost(workload) == pytest.approx(30.0)
    assert 25.0 <= lower_bound(workload) <= 30.0


def test_heavy_sequences_in_pipelines_raise_the_bound() -> None:
    topology = Topology(2, Barrier.PIPELINE, 10_000, 0, 2)
    workload = Workload([1] * 9, [10.0] * 9, 1.0, 0.5, EVEN, topology)
    assert lower_bound(workload) > first_bound(workload) * 1.005


def test_work_that_is_not_recomputed_has_the_bound_of_its_share() -> None:
    """Three sequences of 50 that take 0.6 of it are three of 30, see above."""
    shares = WorkShares(10, 0.6, 1.0)
    workload = Workload([1] * 3, [50.0] * 3, 20.0, 0.5, shares, alone(1, PIPELINE, 2))
    assert lower_bound(workload) == pytest.approx(4 * 30.5 / 2)


def test_a_gap_is_a_share_of_the_bound_and_never_below_zero() -> None:
    assert optimality_gap(3.0, 2.0) == pytest.approx(0.5)
    assert optimality_gap(2.0, 2.0 * (1 + 1e-12)) == 0.0
