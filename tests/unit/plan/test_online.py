"""Plans during training: the averages of budgets, and what a plan made with them is worth."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbcore.config.data import SamplingConfig
from sbcore.config.method import SabBalancer
from sbcore.errors import SparseBalanceError
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.latency.model import TableLatencyModel
from sbcore.plan import bench
from sbcore.plan.budgets import BudgetAverages
from sbcore.plan.cost import KnownTimesCost
from sbcore.plan.objective import micro_batch_ms, step_ms
from sbcore.plan.online import rebalance
from sbcore.plan.simulate import Method, Scene, replay
from sbcore.types import Barrier, BatchPlan, IntArray, Topology

LATENCY = AnalyticLatencyModel(256, 4, 1.0, 5.0, 4e-4, np.array([0.05, 1e-4, 4e-8, 2e-7]))
ONLINE = SabBalancer(online=True)


def averages(decay: float = 0.9, num_layers: int = 4) -> BudgetAverages:
    config = SabBalancer(budget_decay=decay)
    return BudgetAverages(config, num_layers=num_layers, block_size=256, top_k=32)


def drawn(rng: np.random.Generator, count: int = 16) -> IntArray:
    return np.clip(rng.lognormal(9.0, 1.1, count), 64, 65536).astype(np.int64)


def test_nothing_seen_expects_the_fixed_budget() -> None:
    assert (averages().expect(np.array([1, 256, 65536, 2**40])) == 32).all()


def test_the_first_step_counts_in_full_and_the_next_by_the_decay() -> None:
    known, lengths = averages(decay=0.75), np.array([10_000, 16_000, 300])
    known.update(lengths, np.array([[8, 16, 2]] * 4))
    assert known.expect(np.array([9_000, 16_384]))[0].tolist() == [12, 12]
    assert known.expect(np.array([512, 100]))[0].tolist() == [2, 32]  # one block: never seen
    known.update(lengths, np.array([[20, 20, 6]] * 4))
    assert known.expect(lengths)[0].tolist() == [14, 14, 3]
    assert known.num_updates == 2


def test_averages_are_kept_to_the_nearest_part_of_a_block() -> None:
    known = averages(decay=0.5, num_layers=1)
    known.update(np.array([10_000, 12_000]), np.array([[3, 4]]))
    assert 256 * 3.5 in known.state_dict()["parts"]
    known.update(np.array([10_000, 12_000, 16_000]), np.array([[3, 3, 4]]))
    assert 875 in known.state_dict()["parts"]  # (896 + 853) / 2, rounded up


def test_a_constant_budget_is_expected_as_it_is_for_ever() -> None:
    known, lengths = averages(), np.array([10_000])
    for _ in range(100):
        known.update(lengths, np.full((4, 1), 7))
    assert (known.expect(lengths) == 7).all()
    for _ in range(100):
        known.update(lengths, np.full((4, 1), 9))
    assert (known.expect(lengths) == 9).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), stop=st.integers(0, 6))
def test_a_resumed_run_expects_what_an_uninterrupted_one_does(seed: int, stop: int) -> None:
    rng, whole, parts = np.random.default_rng(seed), averages(), averages()
    for step in range(6):
        lengths = drawn(rng)
        top_k = rng.integers(1, 200, (4, len(lengths)))
        if step == stop:
            resumed = averages()
            resumed.load_state_dict(parts.state_dict())
            parts = resumed
        whole.update(lengths, top_k)
        parts.update(lengths, top_k)
    lengths = drawn(rng, 50)
    assert np.array_equal(whole.expect(lengths), parts.expect(lengths))
    assert whole.num_updates == parts.num_updates
    assert whole.expect(lengths).min() >= 1


def test_averages_of_another_model_are_refused() -> None:
    with pytest.raises(SparseBalanceError, match="resume with the model that was trained"):
        averages(num_layers=3).load_state_dict(averages().state_dict())


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 999),
    barrier=st.sampled_from(list(Barrier)),
    num_ranks=st.integers(1, 8),
    count=st.integers(1, 24),
)
def test_a_new_plan_holds_every_sequence_once_and_is_repeatable(
    seed: int, barrier: Barrier, num_ranks: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    lengths, topology = drawn(rng, count), Topology(num_ranks, barrier, 40_000, 0)
    top_k = rng.integers(1, 64, (4, count))
    plans = [
        rebalance(lengths, topology, latency=LATENCY, top_k=top_k, config=ONLINE, seed=seed)
        for _ in range(2)
    ]
    assert plans[0] == plans[1]
    packs = [pack for rank in plans[0].micro_batches for pack in rank]
    assert sorted(i for pack in packs for i in pack) == list(range(count))
    assert all(len(p) == 1 or lengths[list(p)].sum() <= 40_000 for p in packs)
    assert len({len(rank) for rank in plans[0].micro_batches}) == 1


def by_length(lengths: IntArray, batch: BatchPlan) -> IntArray:
    """A tuner that cuts long sequences and raises short ones."""
    del batch
    return np.where(lengths > 16_384, 8, 64) * np.ones((4, 1), dtype=np.int64)


@pytest.mark.parametrize("barrier", Barrier)
def test_plans_that_know_the_budgets_are_faster(barrier: Barrier) -> None:
    lengths = drawn(np.random.default_rng(0), 32 * 40)
    topology = Topology(4, barrier, 65_536, 0)
    scene = Scene(lengths, LATENCY, 256, 32, SamplingConfig(global_batch=32), topology, seed=0)
    blind, aware = (
        replay(scene, Method(balancer, max_sequences=0, decide=by_length))
        for balancer in (SabBalancer(), ONLINE)
    )
    assert aware.speedup_over(blind) > 1.02
    assert aware.optimality_gap < blind.optimality_gap


def test_equal_budgets_give_the_plan_of_the_file() -> None:
    lengths = drawn(np.random.default_rng(1))
    topology = Topology(4, Barrier.STEP, 65_536, 0)
    fixed = np.full((4, 16), 32)
    plan = rebalance(lengths, topology, latency=LATENCY, top_k=fixed, config=ONLINE, seed=0)
    times = micro_batch_ms(plan, lengths, KnownTimesCost.at(LATENCY, lengths, fixed))
    scene = Scene(lengths, LATENCY, 256, 32, SamplingConfig(), topology, seed=0)
    done = replay(scene, Method(SabBalancer(), max_sequences=0, decide=None))
    assert step_ms(times, Barrier.STEP) == pytest.approx(done.step_ms[0], rel=0.02)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TableLatencyModel:
    folder: Path = tmp_path_factory.mktemp("table") / "profile"
    bench._write_profile(folder)
    return TableLatencyModel.read(folder, block_size=256)


def milliseconds(call: Callable[[], object]) -> float:
    """Of the processor, which others may use meanwhile."""
    started = time.process_time()
    call()
    return (time.process_time() - started) * 1e3


@pytest.mark.parametrize("barrier", Barrier)
def test_a_new_plan_is_fast_enough_for_every_step(
    table: TableLatencyModel, barrier: Barrier
) -> None:
    """The aim is 1 ms; the limit here leaves room for a slow machine."""
    rng, topology = np.random.default_rng(2), Topology(8, barrier, 65_536, 0)
    known, times = averages(num_layers=24), []
    for _ in range(40):
        lengths = drawn(rng)

        def plan(lengths: IntArray = lengths) -> None:
            top_k = known.expect(lengths)
            rebalance(lengths, topology, latency=table, top_k=top_k, config=ONLINE, seed=0)

        times.append(milliseconds(plan))
        known.update(lengths, rng.integers(1, 64, (24, 16)))
    assert np.median(times) < 5.0
