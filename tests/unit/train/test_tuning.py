import numpy as np
import pytest
import torch

from sbcore.config.schema import Config
from sbcore.config.stages import train_stage
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.plan.read import StepPlan
from sbcore.train.batches import PackedBatch
from sbcore.train.tuning import StepTuner
from sbcore.types import BatchPlan

LATENCY = AnalyticLatencyModel(
    block_size=32,
    num_layers=2,
    floor_ms=0.0,
    constant_ms=0.0,
    ms_per_token=1e-3,
    coefficients=np.array([0.05, 1e-4, 7e-6, 1e-6]),
)


def tuner(**keys):
    values = {"variants": {"v": {"tuner": keys}}, "baseline": "v"}
    stage = train_stage(Config.model_validate(values), "v")
    return StepTuner(stage, LATENCY, lengths=np.array([1024]), device=torch.device("cpu"))


BLOCK_SIZE, TOP_K = 32, 8


def batch(sequences, length):
    none = torch.zeros(0)
    return PackedBatch(none, none, none, none, none, (length,) * max(len(sequences), 1), sequences)


def budgets(step, sequences=(0, 1), length=512, target=5, **keys):
    targets = np.full((2, 3), target)
    return tuner(**keys).budgets(targets, batch(sequences, length), step=step)


def test_a_tuned_step_clamps_within_p_floor_and_cap():
    limits = budgets(0, kind="anchor", p=0.2, floor=2, cap=9).limits
    assert (limits.p, limits.floor, limits.cap) == (0.2, 2, 9)
    assert budgets(0, kind="anchor").limits.cap == 32  # all blocks of the longest


def test_between_clamped_steps_budgets_hold_and_nothing_is_measured():
    for step, measures in ((0, True), (1, False), (2, False), (3, True)):
        found = budgets(step, kind="waterfill", clamp_every_steps=3)
        assert found.measures == measures
        assert (found.limits is not None) == measures
    assert budgets(1, kind="waterfill", clamp_every_steps=3).top_k_range == (5, 5)


def test_fixed_budgets_are_measured_now_and_then_and_never_clamped():
    assert [budgets(s, kind="fixed").measures for s in range(6)] == [True, *[False] * 4, True]
    assert budgets(0, kind="fixed").limits is None


def test_a_dummy_takes_the_own_block_and_measures_nothing():
    found = budgets(0, sequences=(), kind="anchor")
    assert found.targets.tolist() == [[1], [1]]
    assert not found.measures


@pytest.mark.parametrize(
    ("length", "target", "measures"),
    [
        (TOP_K * BLOCK_SIZE, TOP_K, False),
        (TOP_K * BLOCK_SIZE, TOP_K - 1, True),
        ((TOP_K - 1) * BLOCK_SIZE, TOP_K - 1, False),
        (TOP_K * BLOCK_SIZE + 1, TOP_K + 1, True),
    ],
)
def test_what_k0_covers_is_dense_for_the_host_and_not_measured(length, target, measures):
    found = budgets(0, length=length, target=target, kind="waterfill")
    assert found.measures == measures
    assert found.top_k_range == (None if measures else (target, target))
    assert budgets(0, length=length, target=target, kind="fixed").measures


def test_budgets_of_k0_need_no_curve_but_for_averages():
    """Every curve allows k0; a new length is measured at once, known ones now and then."""
    found, whole = tuner(kind="anchor"), np.full((2, 2), TOP_K)
    pack = batch((0, 1), 512)
    assert found.budgets(whole, pack, step=1).measures
    curves = np.linspace(0.5, 1.0, len(found.coverage.ladder))
    found.learn(np.full(10, 512), np.broadcast_to(curves, (2, 10, len(curves))))
    steps = [found.budgets(whole, pack, step=step) for step in range(6)]
    assert [budgets.measures for budgets in steps] == [True, *[False] * 4, True]
    assert steps[1].limits is None
    assert steps[1].top_k_range == (TOP_K, TOP_K)
    moved = whole.copy()
    moved[1, 0] -= 1
    assert found.budgets(moved, pack, step=1).limits is not None
    assert found.budgets(whole, batch((0, 1), 1024), step=1).measures


def test_the_ladder_reaches_the_last_block_of_the_longest_sequence():
    values = {"variants": {"v": {}}, "baseline": "v"}
    stage = train_stage(Config.model_validate(values), "v")
    found = StepTuner(stage, LATENCY, lengths=np.array([64, 1025]), device=torch.device("cpu"))
    assert found.coverage.ladder[-1] == 33


def test_dense_attention_is_a_target_of_all_blocks():
    values = {"variants": {"v": {"attention": "dense"}}, "baseline": "v"}
    stage = train_stage(Config.model_validate(values), "v")
    found = StepTuner(stage, LATENCY, lengths=np.array([1024]), device=torch.device("cpu"))
    plan = StepPlan(np.arange(2), np.array([1024, 64]), BatchPlan((((0,),), ((1,),))))
    assert found.targets(plan, 0).tolist() == [[32, 32], [32, 32]]


def test_curves_of_earlier_steps_are_remembered_where_something_is_tuned():
    """By the tuner's decay; a fixed budget only shows what its last step measured."""
    lengths = np.array([512])
    for kind, kept in (("anchor", 0.75), ("fixed", 0.0)):
        found = tuner(kind=kind, **({"ema_decay": 0.75} if kind == "anchor" else {}))
        num_rungs = len(found.coverage.ladder)
        for value in (0.2, 1.0):
            found.learn(lengths, np.full((2, 1, num_rungs), value))
        (known,) = {round(float(x), 9) for x in found.coverage.curves.ravel() if np.isfinite(x)}
        assert known == pytest.approx(0.2 * kept + (1.0 - kept)), kind


def test_a_survey_is_one_of_the_steps_that_clamp():
    found = tuner(kind="anchor", clamp_every_steps=2)
    assert [step for step in range(21) if found.measures(step)] == [0, 10, 20]
