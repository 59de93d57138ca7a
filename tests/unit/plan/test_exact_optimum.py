"""Tiny global batches, where the best plan is known by trying all: the oracle of the bounds."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from sbcore.config.method import BalancerConfig
from sbcore.plan.balancers import BALANCERS, load_balancer
from sbcore.plan.bounds import lower_bound
from sbcore.plan.objective import micro_batch_ms, step_ms
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
    return step_ms(micro_batch_ms(plan, array, cost), topology.barrier)


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
    num_ranks = workload.topology.num_ranks
    times = [max(sum(workload.costs[i] for i in pack), workload.floor) for pack in packs]
    if workload.topology.barrier is Barrier.MICRO:
        for micro_steps in partitions(list(range(len(packs)))):
            if all(len(micro_step) <= num_ranks for micro_step in micro_steps):
                slowest = sum(max(times[p] for p in micro_step) for micro_step in micro_steps)
                yield slowest + len(micro_steps) * workload.constant
        return
    for ranks in product(range(num_ranks), repeat=len(packs)):
        counts = [ranks.count(rank) for rank in range(num_ranks)]
        sums = [
            sum(t for t, r in zip(times, ranks, strict=True) if r == rank)
            + (max(counts) - counts[rank]) * workload.floor
            for rank in range(num_ranks)
        ]
        yield max(sums) + max(counts) * workload.constant


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


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 900), min_size=1, max_size=5),
    topology=st.builds(
        Topology,
        st.integers(1, 3),
        st.sampled_from(list(Barrier)),
        st.sampled_from([300, 900, 5000]),
        st.sampled_from([0, 1, 2]),
    ),
    cost=st.builds(KinkedCost, st.sampled_from([0.0, 3.0, 30.0]), st.sampled_from([0.0, 1.5])),
)
def test_bound_and_plans_enclose_the_exact_optimum(
    lengths: list[int], topology: Topology, cost: KinkedCost
) -> None:
    workload = make_workload(np.array(lengths), topology, cost)
    best = best_cost(workload)
    assert lower_bound(workload) <= best * (1 + 1e-9)
    for kind in BALANCERS:
        assert planned_cost(kind, lengths, topology, cost) >= best * (1 - 1e-9)


def test_sab_is_near_the_exact_optimum() -> None:
    rng = np.random.default_rng(0)
    gaps = []
    for trial in range(60):
        lengths = rng.integers(20, 900, size=5).tolist()
        barrier = list(Barrier)[trial % 2]
        topology, cost = Topology(2, barrier, 1200, 0), KinkedCost(3.0, 1.5)
        time = planned_cost("sab", lengths, topology, cost)
        gaps.append(time / best_cost(make_workload(np.array(lengths), topology, cost)) - 1)
    assert np.mean(gaps) < 0.01
    assert np.max(gaps) < 0.1
