"""A step's numbers, by hand: two ranks of two micro-batches, one of them a dummy."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sbcore.latency.additive import AdditiveLatency
from sbcore.plan.read import StepPlan
from sbcore.train.account import (
    StepFacts,
    ledger_rows,
    metrics_row,
    span_rows,
    tracked_numbers,
    used_top_k,
)
from sbcore.train.clock import KnownTimes, Span, StepTimes
from sbcore.train.records import PendingReport, StepReport, copy_later, curves_of_step
from sbcore.tune.ledger import LedgerPart
from sbcore.types import Barrier, BatchPlan

LENGTHS = np.array([10, 20, 30])
PLAN = StepPlan(np.array([70, 71, 72]), LENGTHS, BatchPlan((((2,), (0,)), ((1,), ()))))
USED = np.array([[1, 2, 3], [4, 5, 6]])
TARGETS = USED + 6
LADDER = np.array([1, 4, 16])
CURVES = np.arange(18).reshape(2, 3, 3) / 100


class TokensAndBudgets(AdditiveLatency):
    """A millisecond for each token, and one for each block of each layer's budget."""

    num_layers, ms_per_token, floor_ms, constant_ms, update_ms = 2, 1.0, 0.0, 1.0, 5.0

    def attention_ms(self, lengths, top_k):
        return top_k + 0.0 * lengths

    def extrapolates(self, lengths, top_k):
        return np.zeros(lengths.shape, dtype=np.bool_)


LATENCY = TokensAndBudgets()


def part_of(n, *, measured=True):
    curves = CURVES[:, [n]] if measured else None
    return LedgerPart((n,), TARGETS[:, [n]], USED[:, [n]], curves)


def facts(*, loss=0.25, norms=(3.0, 3.0)):
    reports = [
        StepReport(
            loss,
            norms[0],
            100.0,
            [Span(1.0, 60.0, 10.0), Span(61.0, 20.0, 5.0)],
            {"tune": 2.0, "optimizer": 4.0},
            [part_of(0, measured=False), part_of(2)],  # in another order than the plan's
        ),
        StepReport(
            1.5,
            norms[1],
            103.0,
            [Span(2.0, 50.0, 20.0), Span(53.0, 45.0, 44.0)],
            {"tune": 1.0},
            [part_of(1)],
        ),
    ]
    return StepFacts(7, PLAN, reports, USED, curves_of_step(reports, CURVES.shape))


def test_a_row_sums_micro_batches_and_takes_the_slowest_rank():
    row = metrics_row(facts(), LATENCY, barrier=Barrier.STEP, delta=-0.5)
    assert (row["step"], row["num_tokens"], row["coverage_delta"]) == (7, 60, -0.5)
    assert (row["loss"], row["grad_norm"], row["step_ms"]) == (1.75, 3.0, 103.0)
    assert row["compute_ms"] == [65.0, 31.0]
    assert row["waiting_ms"] == [15.0, 64.0]
    assert row["tune_ms"] == [2.0, 1.0]
    assert row["optimizer_ms"] == [4.0, 0.0]


def test_a_row_compares_what_was_predicted_for_the_budgets_used_with_what_was_measured():
    row = metrics_row(facts(), LATENCY, barrier=Barrier.STEP, delta=None)
    first, second = (30 + 9 + 1) + (10 + 5 + 1), (20 + 7 + 1) + 1  # ranks
    assert row["predicted_ms"] == first + 5.0
    assert row["predicted_imbalance"] == pytest.approx(first / ((first + second) / 2))
    assert row["imbalance"] == pytest.approx(65 / 48)
    each = metrics_row(facts(), LATENCY, barrier=Barrier.MICRO, delta=None)
    assert each["predicted_ms"] == 40 + 16 + 5.0
    assert each["imbalance"] == pytest.approx((50 + 15) / 48)


def test_a_report_has_the_tuning_in_layers_beside_that_before_them():
    times = KnownTimes(StepTimes(9.0, {"tune": 2.0, "plan": 1.0}, [Span(0.0, 5.0, 1.0)]))
    ledger = SimpleNamespace(result=lambda: [part_of(0)])
    scalars = copy_later(torch.tensor(0.25), torch.tensor(3.0, dtype=torch.bfloat16))
    report = PendingReport(scalars, times, ledger, tune_ms=0.5).read()
    assert (report.loss, report.grad_norm, report.step_ms) == (0.25, 3.0, 9.0)
    assert report.parts == {"tune": 2.5, "plan": 1.0}
    assert report.spans == [Span(0.0, 5.0, 1.0)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_null_in_a_row(value):
    row = metrics_row(
        facts(loss=value, norms=(value, value)), LATENCY, barrier=Barrier.STEP, delta=None
    )
    assert row["loss"] is row["grad_norm"] is None


def test_budgets_and_curves_come_back_in_the_order_of_the_plan():
    found = facts()
    assert used_top_k(found.reports, (2, 3)).tolist() == USED.tolist()
    expected = CURVES.copy()
    expected[:, 0] = np.nan  # not measured
    np.testing.assert_array_equal(found.curves, expected)


def test_every_micro_batch_has_a_row_and_a_dummy_an_empty_one():
    rows = {name: values.tolist() for name, values in span_rows(facts(), LATENCY, top_k=2).items()}
    assert rows == {
        "step": [7] * 4,
        "rank": [0, 0, 1, 1],
        "micro_batch": [0, 1, 0, 1],
        "num_tokens": [30, 10, 20, 0],
        "num_sequences": [1, 1, 1, 0],
        "start_ms": [1.0, 61.0, 2.0, 53.0],
        "compute_ms": [50.0, 15.0, 30.0, 1.0],
        "waiting_ms": [10.0, 5.0, 20.0, 44.0],
        "predicted_ms": [40.0, 16.0, 28.0, 1.0],
        "predicted_k0_ms": [35.0, 15.0, 25.0, 1.0],
    }


def test_the_ledger_has_a_row_for_each_layer_of_each_sequence():
    rows = ledger_rows(facts(), LATENCY, LADDER, top_k=4)
    assert rows["step"].tolist() == [7] * 6
    assert rows["rank"].tolist() == [0, 0, 0, 0, 1, 1]
    assert rows["micro_batch"].tolist() == [0, 0, 1, 1, 0, 0]
    assert rows["layer"].tolist() == [0, 1] * 3
    assert rows["sample_id"].tolist() == [72, 72, 70, 70, 71, 71]
    assert rows["num_tokens"].tolist() == [30, 30, 10, 10, 20, 20]
    assert rows["top_k"].tolist() == [3, 6, 1, 4, 2, 5]
    assert rows["top_k_target"].tolist() == [9, 12, 7, 10, 8, 11]
    assert rows["predicted_ms"].tolist() == [39, 39, 15, 15, 27, 27]
    np.testing.assert_allclose(rows["coverage_k0"], [0.07, 0.16, np.nan, np.nan, 0.04, 0.13])
    used = [0.06 + 0.01 * 2 / 3, 0.16 + 0.01 / 6, np.nan, np.nan, 0.03 + 0.01 / 3, 0.13 + 0.01 / 12]
    np.testing.assert_allclose(rows["coverage"], used)


def test_sequences_of_a_pack_keep_their_own_values_in_every_layer():
    pack = (2, 0)
    plan = StepPlan(PLAN.sample_ids, LENGTHS, BatchPlan(((pack,), ((1,),))))
    packed = LedgerPart(pack, TARGETS[:, pack], USED[:, pack], CURVES[:, pack])
    reports = [StepReport(0.0, 0.0, 1.0, [Span()], {}, [part]) for part in (packed, part_of(1))]
    rows = ledger_rows(StepFacts(0, plan, reports, USED, CURVES), LATENCY, LADDER, top_k=1)
    assert rows["layer"].tolist() == [0, 0, 1, 1, 0, 1]
    assert rows["sample_id"].tolist() == [72, 70, 72, 70, 71, 71]
    assert rows["num_tokens"].tolist() == [30, 10, 30, 10, 20, 20]
    assert rows["top_k"].tolist() == [3, 1, 6, 4, 2, 5]
    assert rows["predicted_ms"].tolist() == [39, 15, 39, 15, 27, 27]
    assert rows["coverage_k0"].tolist() == [0.06, 0.0, 0.15, 0.09, 0.03, 0.12]


def test_ranks_are_tracked_one_by_one_for_computing_and_waiting_alone():
    row = {
        "step": 3,
        "loss": None,
        "step_ms": 10.0,
        "compute_ms": [6.0, 7.0],
        "waiting_ms": [2.0, 1.0],
        "data_ms": [0.5, 0.25],
        "checkpoint_ms": [0.0, 40.0],
        "measured": True,
    }
    assert tracked_numbers(row) == {
        "loss": None,
        "step_ms": 10.0,
        "compute_ms.rank0": 6.0,
        "compute_ms.rank1": 7.0,
        "waiting_ms.rank0": 2.0,
        "waiting_ms.rank1": 1.0,
        "data_ms": 0.5,
        "checkpoint_ms": 40.0,
    }
