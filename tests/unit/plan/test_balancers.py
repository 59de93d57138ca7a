"""What holds for every row of the table of balancers."""

from dataclasses import dataclass
from itertools import chain

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from sbcore.config.method import BalancerConfig
from sbcore.errors import SparseBalanceError
from sbcore.latency.packs import EVEN
from sbcore.plan.balancers import BALANCERS, load_balancer
from sbcore.plan.bounds import lower_bound
from sbcore.plan.cost import KnownTimesCost, TokenCost
from sbcore.plan.objective import imbalance, micro_batch_ms, slowed, step_ms
from sbcore.plan.workload import make_workload
from sbcore.types import Barrier, BatchPlan, CostModel, FloatArray, IntArray, Topology


@dataclass(frozen=True)
class KinkedCost:
    """Like sparse attention: quadratic up to a budget, then linear."""

    floor_ms: float
    constant_ms: float

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        return 0.01 * lengths + 1e-4 * np.minimum(lengths, 256) * lengths


CONFIGS = {kind: TypeAdapter(BalancerConfig).validate_python({"kind": kind}) for kind in BALANCERS}

lengths_of = lambda most: st.lists(st.integers(1, 900), min_size=1, max_size=most)  # noqa: E731
costs = st.builds(KinkedCost, st.sampled_from([0.0, 3.0, 30.0]), st.sampled_from([0.0, 1.5]))


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    num_ranks = draw(st.integers(1, 5))
    speeds = st.lists(st.integers(16, 64), min_size=num_ranks, max_size=num_ranks)
    return Topology(
        num_ranks,
        draw(st.sampled_from(list(Barrier))),
        max_tokens=draw(st.sampled_from([300, 800, 5000])),
        max_sequences=draw(st.sampled_from([0, 1, 3])),
        num_stages=draw(st.integers(1, 4)),
        speed_factors=tuple(x / 32 for x in draw(st.one_of(st.just([]), speeds))),
    )


every_balancer = pytest.mark.parametrize("kind", BALANCERS)


def plan_with(
    kind: str, lengths: list[int], topology: Topology, cost: CostModel, seed: int
) -> BatchPlan:
    return load_balancer(kind)(
        np.array(lengths, dtype=np.int64), topology, cost=cost, seed=seed, config=CONFIGS[kind]
    )


def predicted(plan: BatchPlan, lengths: list[int], cost: CostModel, topology: Topology) -> float:
    times = slowed(micro_batch_ms(plan, np.array(lengths), cost), topology)
    return step_ms(times, topology.barrier, num_stages=topology.num_stages)


@every_balancer
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lengths=lengths_of(24), topology=topologies(), cost=costs, seed=st.integers(0, 99))
def test_keeps_the_contract(
    kind: str, lengths: list[int], topology: Topology, cost: KinkedCost, seed: int
) -> None:
    plan = plan_with(kind, lengths, topology, cost, seed)
    packs = list(chain(*plan.micro_batches))
    assert sorted(chain(*packs)) == list(range(len(lengths)))
    assert plan.num_ranks == topology.num_ranks
    assert len({len(rank) for rank in plan.micro_batches}) == 1
    assert all(any(step) for step in zip(*plan.micro_batches, strict=True)), "an idle micro-step"
    for pack in packs:
        assert len(pack) <= 1 or sum(lengths[i] for i in pack) <= topology.max_tokens
        assert not topology.max_sequences or len(pack) <= topology.max_sequences
    assert plan == plan_with(kind, lengths, topology, cost, seed)


@every_balancer
@pytest.mark.parametrize("barrier", Barrier)
def test_even_costs_do_not_break_a_cap(kind: str, barrier: Barrier) -> None:
    """Three long sequences that cost little, of which no two may meet, and a short dear one."""
    cost = KnownTimesCost(np.array([10.0, 1.0, 1.0, 1.0]), 0.0, 0.0, EVEN, None)
    plan = plan_with(kind, [10, 60, 60, 60], Topology(1, barrier, 100, 0), cost, 0)
    assert all(len({1, 2, 3} & set(pack)) < 2 for pack in chain(*plan.micro_batches))


def test_a_pipeline_whose_work_is_free_has_no_idle_micro_step() -> None:
    topology = Topology(1, Barrier.STEP, 300, 0, num_stages=2)
    plan = plan_with("sab", [1, 1, 3, 8], topology, KinkedCost(0.0, 0.0), 0)
    assert all(any(step) for step in zip(*plan.micro_batches, strict=True))


@every_balancer
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lengths=lengths_of(24), topology=topologies(), cost=costs, seed=st.integers(0, 99))
def test_is_between_the_bound_and_random_by_its_own_cost(
    kind: str, lengths: list[int], topology: Topology, cost: KinkedCost, seed: int
) -> None:
    own = TokenCost() if kind == "length" else cost
    time = predicted(plan_with(kind, lengths, topology, cost, seed), lengths, own, topology)
    random = plan_with("random", lengths, topology, cost, seed)
    bound = lower_bound(make_workload(np.array(lengths), topology, own))
    assert bound * (1 - 1e-9) <= time
    assert time <= predicted(random, lengths, own, topology) * (1 + 1e-9)


@pytest.mark.parametrize("barrier", Barrier)
def test_sab_is_near_the_bound_when_no_sequence_binds(barrier: Barrier) -> None:
    rng = np.random.default_rng(1)
    topology, cost = Topology(8, barrier, 4000, 0), KinkedCost(10.0, 1.0)
    gaps = []
    for _ in range(20):
        lengths = rng.integers(200, 900, size=64)
        plan = plan_with("sab", lengths.tolist(), topology, cost, 0)
        time = predicted(plan, lengths.tolist(), cost, topology)
        gaps.append(time / lower_bound(make_workload(lengths, topology, cost)) - 1)
    assert np.quantile(gaps, 0.95) < 0.02


@pytest.mark.parametrize("barrier", Barrier)
def test_sab_beats_length_where_cost_is_not_length(barrier: Barrier) -> None:
    """Under `micro` it also fills each micro-step beside its longest sequence."""
    rng = np.random.default_rng(2)
    topology, cost = Topology(8, barrier, 4096, 0), KinkedCost(10.0, 1.0)
    times = dict.fromkeys(("length", "sab"), 0.0)
    for _ in range(20):
        lengths = np.clip(rng.lognormal(5.8, 1.1, size=64), 64, 4096).astype(int).tolist()
        for kind in times:
            plan = plan_with(kind, lengths, topology, cost, 0)
            times[kind] += predicted(plan, lengths, cost, topology)
    assert times["sab"] < times["length"]


def test_fewer_sequences_than_ranks_leaves_dummies() -> None:
    plan = plan_with("sab", [100, 50], Topology(4, Barrier.STEP, 1000, 0), KinkedCost(1.0, 0.0), 0)
    assert sorted(len(pack) for rank in plan.micro_batches for pack in rank) == [0, 0, 1, 1]


def test_a_longer_sequence_than_the_cap_travels_alone() -> None:
    plan = plan_with("sab", [900, 10, 10], Topology(1, Barrier.STEP, 500, 0), TokenCost(), 0)
    assert plan.micro_batches[0] == ((0,), (1, 2))


def test_random_order_follows_the_seed() -> None:
    lengths, topology = list(range(1, 33)), Topology(2, Barrier.STEP, 10_000, 0)
    assert plan_with("random", lengths, topology, TokenCost(), 0) != plan_with(
        "random", lengths, topology, TokenCost(), 1
    )


def test_unknown_balancer_offers_the_near_name() -> None:
    with pytest.raises(SparseBalanceError, match=r"unknown\. Did you mean 'sab'\? Available: "):
        load_balancer("sub")


def test_imbalance_is_one_when_all_ranks_are_equally_busy() -> None:
    times = np.array([[2.0, 1.0], [1.0, 2.0]])
    assert imbalance(times, Barrier.STEP) == 1.0
    assert imbalance(times, Barrier.MICRO) == pytest.approx(4 / 3)


def test_the_bubble_of_a_pipeline_is_imbalance() -> None:
    """M + P - 1 slots for M micro-batches."""
    assert imbalance(np.full((2, 4), 3.0), Barrier.PIPELINE, num_stages=4) == pytest.approx(7 / 4)
