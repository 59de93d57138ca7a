"""Comparisons: what must hold between variants, the same in every run, whatever is drawn."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sbcore.config.load import load_config
from sbcore.config.method import WaterfillTuner
from sbcore.config.simulation import CoverageLaw, SimulationConfig
from sbcore.plan.balancers import load_balancer
from sbcore.plan.cost import BudgetCost
from sbcore.plan.objective import micro_batch_ms, slowed, step_ms
from sbcore.plan.sampling import drawn_steps, step_seed
from sbcore.plan.simulate import Method, replay
from sbcore.simulate.coverage import LawfulCoverage, coverage_at
from sbcore.simulate.figure import global_batches, rank_counts
from sbcore.simulate.run import simulate
from sbcore.simulate.setting import ANALYTIC, Setting, load_latency
from sbcore.simulate.tuning import SimulatedTuning, make_law, teach
from sbcore.simulate.words import VARIANTS
from sbcore.tune.ladder import make_ladder
from sbcore.tune.policy import Observation
from sbcore.types import Barrier, BatchPlan, IntArray

CONFIG = SimulationConfig(num_steps=8, num_learning_steps=3)


def setting(barrier: Barrier, *, num_ranks: int = 4, global_batch: int = 32) -> Setting:
    drawn = np.random.default_rng(0).lognormal(9.0, 1.1, size=9 * global_batch + 5)
    lengths = np.clip(drawn, 64, 65536).astype(np.int64)
    latency, block_size, name = load_latency(ANALYTIC, block_size=256)
    return Setting(lengths, latency, name, block_size, num_ranks, global_batch, barrier, CONFIG)


class HalfBudgets:
    """Halves every budget, and remembers what it is shown and told."""

    def __init__(self) -> None:
        self.shown: list[Observation] = []
        self.told: list[tuple[int, float, float | None]] = []

    def decide(self, observation: Observation) -> IntArray:
        self.shown.append(observation)
        shape = (observation.latency.num_layers, len(observation.lengths))
        return np.full(shape, observation.top_k // 2)

    def p_at(self, step: int) -> float:
        return 1.0

    def learn(self, step: int, *, step_ms: float, coverage_delta: float | None) -> None:
        self.told.append((step, step_ms, coverage_delta))

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Has nothing to take over."""


def test_a_tuner_is_shown_and_told_what_training_would_tell_it() -> None:
    where, policy = setting(Barrier.STEP), HalfBudgets()
    law, k0 = make_law(where), where.config.top_k
    tuner = WaterfillTuner()
    tuning = SimulatedTuning(where, policy, law=law, taught=teach(where, law, tuner))
    lengths, lost = where.lengths[:8], []
    batch = BatchPlan(tuple(((2 * rank, 2 * rank + 1),) for rank in range(4)))
    half = np.full((where.latency.num_layers, 8), k0 // 2)
    for step in range(3):
        assert (tuning(lengths, batch) == half).all()
        curves = law.curves(lengths, draw=CONFIG.num_learning_steps + step)  # not those of before
        rungs = np.searchsorted(law.ladder, [k0 // 2, k0])
        change = (curves[..., rungs[0]] - curves[..., rungs[1]]).mean(axis=0)
        lost.append(100 * np.average(change, weights=lengths))
    assert [seen.step for seen in policy.shown] == [step for step, _, _ in policy.told] == [0, 1, 2]
    assert [delta for _, _, delta in policy.told] == pytest.approx(lost)
    assert tuning.coverage_delta == pytest.approx(np.mean(lost))
    assert len(set(lost)) == 3
    each = where.latency.predict(lengths, half)
    expected = max(each.reshape(4, 2).sum(axis=1).max(), where.latency.floor_ms)
    assert policy.told[0][1] == pytest.approx(expected + where.latency.constant_ms)
    counts = [seen.coverage.counts.sum() for seen in policy.shown]
    assert np.diff(counts).tolist() == [8, 8]
    short = 2 ** np.arange(policy.shown[0].coverage.curves.shape[1]) <= k0
    assert np.isnan(policy.shown[-1].coverage.curves[:, short]).all()


@pytest.mark.parametrize(("longest", "num_blocks"), [(256, 1), (257, 2), (512, 2)])
def test_a_last_block_counts_though_it_is_not_full(longest: int, num_blocks: int) -> None:
    where = replace(setting(Barrier.STEP), lengths=np.array([64, longest]))
    assert where.num_blocks == num_blocks


def test_one_global_batch_is_enough() -> None:
    where = setting(Barrier.STEP)
    one = replace(where, lengths=where.lengths[: where.global_batch])
    one.check()
    assert one.num_steps == 1


@pytest.mark.parametrize("barrier", [Barrier.STEP, Barrier.MICRO])
def test_what_must_hold_between_variants(barrier: Barrier) -> None:
    where = setting(barrier)
    found = {result.variant: result for result in simulate(where, list(VARIANTS))}
    assert list(found) == list(VARIANTS)
    speedup = {name: result.speedup for name, result in found.items()}
    assert speedup["baseline"] == 1.0
    assert speedup["baseline_packed"] < speedup["lbb"] <= speedup["sab"] < speedup["sab_waterfill"]
    assert found["dense"].coverage_delta > 5
    assert found["dst"].coverage_delta < found["sab_waterfill"].coverage_delta
    assert abs(found["sab_waterfill"].coverage_delta) < 3
    fixed = ("baseline", "baseline_packed", "lbb", "sab")
    assert all(found[name].coverage_delta == 0.0 for name in fixed)
    for result in found.values():
        assert result.imbalance >= 1
        assert result.gap >= 0
        assert 0 <= result.bubble < 1


@pytest.mark.parametrize("barrier", Barrier)
@pytest.mark.parametrize(("num_ranks", "global_batch"), [(2, 16), (8, 16), (64, 64), (16, 128)])
def test_sab_is_never_slower_than_random_nor_faster_than_the_bound(
    barrier: Barrier, num_ranks: int, global_batch: int
) -> None:
    where = setting(barrier, num_ranks=num_ranks, global_batch=global_batch)
    if barrier is Barrier.PIPELINE:
        few = CONFIG.model_copy(update={"num_steps": 2})
        where = replace(where, num_stages=3, config=few)
    scene = where.scene(top_k=32)
    sab, random = (
        replay(scene, Method(VARIANTS[name].balancer, 0, None))
        for name in ("sab", "baseline_packed")
    )
    assert (sab.step_ms <= random.step_ms * (1 + 1e-9)).all()
    for done in (sab, random):
        assert (done.step_ms >= done.bound_ms * (1 - 1e-9)).all()


def test_equal_seeds_give_equal_results_and_others_do_not() -> None:
    where, names = setting(Barrier.MICRO), ["dst", "sab_waterfill"]
    first = simulate(where, names)
    assert simulate(where, names) == first
    other = replace(where, config=CONFIG.model_copy(update={"seed": 1}))
    assert simulate(other, names) != first


@pytest.mark.parametrize("barrier", [Barrier.STEP, Barrier.MICRO])
def test_plans_that_know_a_slow_rank_are_faster(barrier: Barrier) -> None:
    """One rank of four takes half as long again: blind plans wait for it."""
    where = replace(setting(barrier), speed_factors=(1.0, 1.5, 1.0, 1.0))
    scene, blind = where.scene(top_k=32), setting(barrier).scene(top_k=32)
    sab = Method(VARIANTS["sab"].balancer, 0, None)
    cost, plan = BudgetCost(scene.latency, 32), load_balancer("sab")
    waiting = 0.0
    for number, chosen in enumerate(drawn_steps(scene.lengths, scene.sampling, seed=0)):
        lengths, seed = scene.lengths[chosen], step_seed(0, number)
        batch = plan(lengths, blind.topology, cost=cost, seed=seed, config=sab.balancer)
        times = slowed(micro_batch_ms(batch, lengths, cost), scene.topology)
        waiting += step_ms(times, barrier)
    assert replay(scene, sab).step_ms.sum() < 0.9 * waiting


def test_a_pipeline_of_one_stage_is_a_step() -> None:
    found = [
        simulate(replace(setting(Barrier.STEP), barrier=barrier), ["sab"])[0]
        for barrier in (Barrier.STEP, Barrier.PIPELINE)
    ]
    assert found[0] == found[1]


def test_in_a_pipeline_order_and_number_of_micro_batches_pay() -> None:
    where = replace(setting(Barrier.PIPELINE, num_ranks=2, global_batch=16), num_stages=4)
    names = ["baseline", "baseline_packed", "lbb", "sab"]
    speedup = {result.variant: result.speedup for result in simulate(where, names)}
    assert speedup["sab"] >= speedup["lbb"] > speedup["baseline_packed"]
    assert speedup["sab"] > 1.2


def test_a_thousand_ranks() -> None:
    where = setting(Barrier.MICRO, num_ranks=1024, global_batch=1024)
    (sab,) = simulate(replace(where, config=SimulationConfig(num_steps=1)), ["sab"])
    assert sab.speedup >= 1


def test_the_law_of_coverage_is_the_sum_of_powers() -> None:
    ladder = make_ladder(40, 8)
    law = LawfulCoverage(
        CoverageLaw(alpha_layer_std=0, alpha_sequence_std=0),
        ladder,
        num_layers=2,
        block_size=256,
        seed=0,
    )
    lengths = np.array([40 * 256, 3 * 256 - 1])
    curves = law.curves(lengths, draw=0)
    mass = 1 / np.arange(1, 41)
    expected = np.cumsum(mass)[ladder - 1] / mass.sum()
    assert curves.shape == (2, 2, len(ladder))
    assert curves[1, 0] == pytest.approx(expected)
    assert curves[0, 1, :3] == pytest.approx(np.array([6, 9, 11]) / 11)
    assert curves[0, 1, 3:] == pytest.approx(1.0)
    spread = LawfulCoverage(CoverageLaw(), ladder, num_layers=2, block_size=256, seed=0)
    assert np.array_equal(spread.curves(lengths, draw=1), spread.curves(lengths, draw=1))
    assert not np.array_equal(spread.curves(lengths, draw=1), spread.curves(lengths, draw=2))


def test_coverage_between_rungs_is_linear() -> None:
    ladder, curves = np.array([1, 2, 6]), np.array([[[0.2, 0.4, 0.8]]])
    budgets = (1, 2, 3, 6, 99)
    found = [coverage_at(curves, ladder, np.array([[k]]))[0, 0] for k in budgets]
    assert found == pytest.approx([0.2, 0.4, 0.5, 0.8, 0.8])


def test_the_figure_stays_within_the_lengths() -> None:
    where = setting(Barrier.STEP, num_ranks=6, global_batch=32)
    assert rank_counts(where) == [2, 4, 6, 8, 16, 32]
    assert global_batches(where) == [6, 12, 24, 32, 48, 96]


def test_variants_are_those_of_the_paper_s_configuration(repository: Path) -> None:
    configured = load_config(repository / "config" / "paper.yaml").variants
    shared = configured.keys() & VARIANTS.keys()
    assert len(shared) >= 8
    assert {name: configured[name] for name in shared} == {name: VARIANTS[name] for name in shared}
