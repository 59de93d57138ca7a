import numpy as np
import pytest

from sbcore.config.schema import Config
from sbcore.config.stages import train_stage
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.plan.read import StepPlan
from sbcore.train.layout import OnlineLayout, PlannedLayout, make_layout
from sbcore.types import BatchPlan

LENGTHS = np.array([900, 800, 300, 200, 100, 100])
PLANNED = BatchPlan((((0, 1, 2),), ((3, 4, 5),)))


def layout_of(latency, *, online, max_tokens):
    keys = {"balancer": {"kind": "sab", "online": online}}
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
