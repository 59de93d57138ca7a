"""Micro-batches that cost other than the sum of their sequences: not recomputed, or dense."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbcore.config.method import SabBalancer
from sbcore.latency.packs import Covered, WorkShares
from sbcore.plan.balancers import load_balancer
from sbcore.plan.bounds import lower_bound
from sbcore.plan.cost import KnownLengthsCost
from sbcore.plan.objective import micro_batch_ms, step_ms
from sbcore.plan.workload import least_workload
from sbcore.types import Barrier, BatchPlan, FloatArray, IntArray, Topology


@dataclass(frozen=True)
class UnevenCost:
    """A millisecond per token; covered sequences save a tenth."""

    floor_ms: float
    constant_ms: float
    shares: WorkShares
    reach: int

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        return lengths.astype(np.float64)

    def covered(self, lengths: IntArray) -> Covered:
        return Covered(np.full(len(lengths), self.reach), 0.1 * lengths)


COST = UnevenCost(20.0, 5.0, WorkShares(100, 0.75, 1.0), reach=40)
SHORT_FIRST = BatchPlan((((0, 1), (2,)), ((3,), ())))


def test_short_covered_and_empty_micro_batches_each_have_their_own_time() -> None:
    lengths = np.array([40, 40, 50, 200])
    times = micro_batch_ms(SHORT_FIRST, lengths, COST)
    covered, short = 0.9 * 0.75 * 80 + 5.0, 0.75 * 50 + 5.0
    assert times.ravel() == pytest.approx([covered, short, 200.0 + 5.0, 20.0 + 5.0])


def test_one_long_sequence_takes_dense_attention_from_its_whole_micro_batch() -> None:
    plan = BatchPlan((((0, 1),),))
    times = micro_batch_ms(plan, np.array([30, 41]), COST)
    assert times.item() == pytest.approx(0.75 * 71 + 5.0)


class EachReach(UnevenCost):
    """The first sequence's budget reaches further than its micro-batch needs, the second's not."""

    def covered(self, lengths: IntArray) -> Covered:
        return Covered(np.array([100, 20]), 0.1 * lengths)


def test_the_least_reach_must_cover_the_longest_of_a_micro_batch() -> None:
    cost, plan = EachReach(0.0, 0.0, WorkShares(0, 1.0, 1.0), reach=0), BatchPlan((((0, 1),),))
    assert micro_batch_ms(plan, np.array([30, 15]), cost).item() == pytest.approx(45.0)
    assert micro_batch_ms(plan, np.array([20, 15]), cost).item() == pytest.approx(0.9 * 35)


def test_looked_up_costs_are_those_asked_for() -> None:
    lengths = np.array([40, 40, 50, 200])
    known = KnownLengthsCost(COST, lengths)
    assert micro_batch_ms(SHORT_FIRST, lengths, known) == pytest.approx(
        micro_batch_ms(SHORT_FIRST, lengths, COST)
    )


def test_sab_splits_where_short_micro_batches_are_cheaper() -> None:
    lengths = np.full(16, 50)
    topology = Topology(2, Barrier.STEP, 400, 0)
    plan = load_balancer("sab")(lengths, topology, cost=COST, seed=0, config=SabBalancer())
    sizes = [len(pack) for rank in plan.micro_batches for pack in rank]
    assert max(sizes) == 2


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=4, max_size=14),
    barrier=st.sampled_from([Barrier.STEP, Barrier.MICRO]),
    num_stages=st.integers(1, 2),
    shares=st.sampled_from([(0.6, 1.0), (1.0, 1.4), (1.0, 1.0)]),
    constant_ms=st.sampled_from([0.0, 5.0, 60.0]),
    balancer=st.sampled_from(["sab", "random", "tokens"]),
    seed=st.integers(0, 99),
)
def test_no_plan_beats_the_bound(
    lengths: list[int],
    barrier: Barrier,
    num_stages: int,
    shares: tuple[float, float],
    constant_ms: float,
    balancer: str,
    seed: int,
) -> None:
    cost = UnevenCost(10.0, constant_ms, WorkShares(100, *shares), reach=40)
    topology, tokens = Topology(2, barrier, 400, 0, num_stages), np.array(lengths)
    config = SabBalancer()
    plan = load_balancer(balancer)(tokens, topology, cost=cost, seed=seed, config=config)
    taken = step_ms(micro_batch_ms(plan, tokens, cost), barrier, num_stages=num_stages)
    assert taken >= lower_bound(least_workload(tokens, topology, cost)) * (1.0 - 1e-9)


@pytest.mark.parametrize(
    ("lengths", "constant_ms", "best"),
    [
        ([50] * 8, 60.0, 400 + 60.0),  # a constant is dear: all in one, recomputed
        ([50] * 8, 5.0, 4 * (0.75 * 100 + 5.0)),  # cheap: pairs that are not recomputed
        ([100] * 4, 5.0, 4 * (0.75 * 100 + 5.0)),  # just short enough
        ([800], 5.0, 800 + 5.0),  # one constant, though twice the cap
    ],
)
def test_the_bound_is_met_where_tokens_decide(
    lengths: list[int], constant_ms: float, best: float
) -> None:
    cost = UnevenCost(0.0, constant_ms, WorkShares(100, 0.75, 1.0), reach=0)
    topology, tokens = Topology(1, Barrier.STEP, 400, 0), np.array(lengths)
    plan = load_balancer("sab")(tokens, topology, cost=cost, seed=0, config=SabBalancer())
    assert step_ms(micro_batch_ms(plan, tokens, cost), Barrier.STEP) == pytest.approx(best)
    assert lower_bound(least_workload(tokens, topology, cost)) == pytest.approx(best)
