import numpy as np
import pytest

from sbcore.config.schema import Config
from sbcore.config.stages import train_stage
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.plan.read import StepPlan
from sbcore.train.account import StepFacts
from sbcore.train.clock import Span
from sbcore.train.layout import OnlineLayout, PlannedLayout, make_layout
from sbcore.train.records import StepReport
from sbcore.types import BatchPlan

LENGTHS = np.array([900, 800, 300, 200, 100, 100])
PLANNED = BatchPlan((((0, 1, 2),), ((3, 4, 5),)))


def layout_of(latency, *, online, max_tokens, **variant):
    keys = {"balancer": {"kind": "sab", "online": online}} | variant
    config = Config.model_validate({"variants": {"v": keys}, "baseline": "v"})
    return make_layout(train_stage(config, "v"), latency, max_tokens=max_tokens)


@pytest.fixture
def latency():
    return AnalyticLatencyModel(
        block_size=32,
        num_layers=2,
        floor_ms=0.1,
        constant_ms=0.1,
        ms_per_token=0.01,
        coefficients=np.array([0.0, 1e-3, 1e-5, 0.0]),
    )


def plan():
    return StepPlan(np.arange(6), LENGTHS, PLANNED)


def test_a_planned_layout_is_the_plan(latency):
    layout = layout_of(latency, online=False, max_tokens=4096)
    assert isinstance(layout, PlannedLayout)
    assert layout.lay_out(plan(), 0).batch is PLANNED


@pytest.mark.parametrize("max_tokens", [1000, 4096])
def test_an_online_layout_keeps_every_sequence_and_the_cap_of_the_plan(latency, max_tokens):
    layout = layout_of(latency, online=True, max_tokens=max_tokens)
    assert isinstance(layout, OnlineLayout)
    packs = [pack for rank in layout.lay_out(plan(), 0).batch.micro_batches for pack in rank]
    assert sorted(i for pack in packs for i in pack) == list(range(6))
    assert max(LENGTHS[list(pack)].sum() for pack in packs if pack) <= max_tokens


def test_what_was_learned_survives_a_checkpoint(latency):
    layout = layout_of(latency, online=True, max_tokens=4096)
    layout.budgets.update(LENGTHS, np.full((2, 6), 3))
    layout.speeds.update(np.array([2.0, 1.0]), np.array([1.0, 1.0]))
    other = layout_of(latency, online=True, max_tokens=4096)
    other.load(layout.state())
    assert other.budgets.expect(LENGTHS).tolist() == layout.budgets.expect(LENGTHS).tolist()
    assert other.speeds.factors.tolist() == layout.speeds.factors.tolist() == [2.0, 1.0]


def learned(layout, latency, *, slowdown):
    """Shows the layout a step at one budget whose first rank took so much longer than the other."""
    top_k = np.full((2, 6), 3)
    times = [
        float(latency.predict(LENGTHS[list(pack)], top_k[:, list(pack)]).sum()) + 0.1
        for (pack,) in PLANNED.micro_batches
    ]
    reports = [
        StepReport(0.0, 0.0, 1.0, [Span(0.0, 5.0 + slow * ms, 5.0)], {}, [])
        for slow, ms in zip((slowdown, 1.0), times, strict=True)
    ]
    layout.learn(StepFacts(0, plan(), reports, top_k, np.full((2, 6, 1), np.nan)))
    return layout


def test_a_step_teaches_the_budgets_it_used_and_how_fast_each_rank_computed(latency):
    layout = learned(layout_of(latency, online=True, max_tokens=4096), latency, slowdown=2.0)
    assert (layout.budgets.expect(LENGTHS) == 3).all()
    assert layout.speeds.factors.tolist() == [2.0, 1.0]
    again = learned(layout, latency, slowdown=1.0)
    kept = layout.balancer.budget_decay
    assert again.speeds.factors[0] == pytest.approx(1.0 + kept, abs=1 / 64)


def test_a_slow_rank_gets_less_to_do(latency):
    layout = learned(layout_of(latency, online=True, max_tokens=4096), latency, slowdown=3.0)
    slow, fast = (
        sum(LENGTHS[list(pack)].sum() for pack in packs)
        for packs in layout.lay_out(plan(), 0).batch.micro_batches
    )
    assert slow < fast / 2


def test_who_takes_one_sequence_at_a_time_does_so_in_a_new_layout(latency):
    layout = layout_of(latency, online=True, max_tokens=4096, max_sequences=1)
    ranks = layout.lay_out(plan(), 0).batch.micro_batches
    assert max(len(pack) for rank in ranks for pack in rank) == 1


def test_budgets_are_expected_of_each_sequence_by_its_own_length(latency, monkeypatch):
    """And each step has a seed of its own."""
    layout, asked = layout_of(latency, online=True, max_tokens=4096), []
    long = LENGTHS >= 300
    layout.budgets.update(LENGTHS, np.where(long, 2, 7) * np.ones((2, 1), dtype=np.int64))

    def take(lengths, topology, *, latency, top_k, config, seed):
        asked.append((top_k, seed))
        return PLANNED

    monkeypatch.setattr("sbcore.train.layout.rebalance", take)
    for step in (0, 1):
        layout.lay_out(plan(), step)
    assert asked[0][0].tolist() == [np.where(long, 2, 7).tolist()] * 2
    assert asked[0][1] != asked[1][1]
