"""The tuner between plan and layers: it learns, remembers, and leaves alone what k0 covers."""

import numpy as np
import pytest
import torch

from sbcore.config.schema import Config
from sbcore.config.stages import train_stage
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.plan.read import StepPlan
from sbcore.train.tuning import StepTuner
from sbcore.types import BatchPlan

BLOCK, TOP_K, LAYERS = 32, 8, 2
LENGTHS = np.array([1024, 900, 700, TOP_K * BLOCK])
PLAN = StepPlan(np.arange(4), LENGTHS, BatchPlan((((0, 3),), ((1, 2),))))
LATENCY = AnalyticLatencyModel(
    block_size=BLOCK,
    num_layers=LAYERS,
    floor_ms=0.0,
    constant_ms=0.0,
    ms_per_token=1e-3,
    coefficients=np.array([0.05, 1e-4, 7e-6, 1e-6]),
)


def tuner(**keys):
    attention = {"block_size": BLOCK, "top_k": TOP_K}
    values = {"attention": attention, "variants": {"v": {"tuner": keys}}, "baseline": "v"}
    stage = train_stage(Config.model_validate(values), "v")
    return StepTuner(stage, LATENCY, lengths=np.array([1024]), device=torch.device("cpu"))


def curves_of(tuned):
    ladder = tuned.coverage.ladder
    rates = np.linspace(0.05, 0.15, LAYERS * len(LENGTHS)).reshape(LAYERS, -1, 1)
    return (1 - np.exp(-rates * ladder)) / (1 - np.exp(-rates * ladder[-1]))


def taught(**keys):
    found = tuner(**keys)
    found.learn(LENGTHS, curves_of(found))
    return found


@pytest.mark.parametrize("kind", ["anchor", "waterfill", "auto"])
def test_what_was_measured_moves_budgets_but_for_sequences_that_k0_covers(kind):
    assert (tuner(kind=kind).targets(PLAN, 0) == TOP_K).all()
    targets = taught(kind=kind).targets(PLAN, 0)
    assert (targets[:, :3] != TOP_K).any()
    assert (targets[:, 3] == TOP_K).all()


@pytest.mark.parametrize("kind", ["anchor", "waterfill", "auto"])
def test_a_resumed_tuner_decides_as_the_first(kind):
    first, resumed = taught(kind=kind), tuner(kind=kind)
    for step in range(3):
        first.targets(PLAN, step)
        first.review({"step": step, "step_ms": 10.0 + step, "coverage_delta": -2.0})
    resumed.load({name: np.array(value) for name, value in first.state().items()})
    np.testing.assert_array_equal(resumed.targets(PLAN, 3), first.targets(PLAN, 3))
    for name, value in first.state().items():
        np.testing.assert_array_equal(resumed.state()[name], value)


def test_what_steps_lost_is_asked_for_in_the_next():
    found, fresh = taught(kind="waterfill"), taught(kind="waterfill")
    found.review({"step": 0, "step_ms": 10.0, "coverage_delta": -4.0})
    deltas = [x.expected_delta(PLAN, x.targets(PLAN, 1)) for x in (fresh, found)]
    assert deltas[0] >= -1e-9
    assert deltas[1] >= 1.0 - 1e-9


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_layer_teaches_nothing_and_keeps_k0(value):
    found = tuner(kind="waterfill")
    broken = curves_of(found)
    broken[1, :, 0] = value
    found.learn(LENGTHS, broken)
    assert (found.targets(PLAN, 1) == TOP_K).all()
    found.learn(LENGTHS, curves_of(found))
    assert (found.targets(PLAN, 2) != TOP_K).any()
