"""Bubbles, what their filling bought, and the time account, by hand-made numbers."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from fabricated_run import report_stage

from sbcore.report.bubbles import coverage_bought, find_bubbles
from sbcore.report.charts.curves import expected_and_measured
from sbcore.report.collect import collect
from sbcore.report.columns import shown_columns
from sbcore.report.compare import compare
from sbcore.types import Barrier


@pytest.fixture
def record(run_dir):
    return collect(report_stage(), run_dir)


@pytest.fixture
def tuned(record):
    return next(v.training for v in record.variants if v.variant == "sab_dst")


def with_spans(training, rows):
    """Returns the training with micro-batches (rank, micro_batch, before, after) in step 5."""
    columns = ["step", "rank", "micro_batch", "predicted_k0_ms", "predicted_ms"]
    spans = pl.DataFrame([(5, *row) for row in rows], schema=columns, orient="row")
    return dataclasses.replace(training, spans=spans)


ROWS = [(0, 0, 6.0, 5.0), (0, 1, 4.0, 4.0), (1, 0, 2.0, 4.0), (1, 1, 4.0, 4.0)]


def test_ranks_that_meet_once_a_step_idle_by_the_difference_of_their_sums(tuned):
    found = find_bubbles(with_spans(tuned, ROWS), Barrier.STEP)
    assert found.step.tolist() == [5]
    assert found.idle_before_ms.tolist() == [[0.0, 4.0]]
    assert found.idle_after_ms.tolist() == [[0.0, 1.0]]
    assert found.before_pct.tolist() == [[0.0, 40.0]]
    assert found.after_pct[0, 1] == pytest.approx(100 / 9)
    assert found.filled_pct == pytest.approx(75.0)


def test_ranks_that_meet_at_every_micro_batch_idle_in_each(tuned):
    rows = [(0, 0, 6.0, 5.0), (0, 1, 2.0, 3.0), (1, 0, 2.0, 4.0), (1, 1, 4.0, 4.0)]
    found = find_bubbles(with_spans(tuned, rows), Barrier.MICRO)
    assert found.idle_before_ms.tolist() == [[2.0, 4.0]]
    assert found.idle_after_ms.tolist() == [[1.0, 1.0]]
    assert found.step_before_ms.tolist() == [10.0]
    assert found.filled_pct == pytest.approx(100 * (1 - 2 / 6))


@pytest.mark.parametrize("of_rank_1", [3.0, 2.95])
def test_with_next_to_no_idle_time_nothing_can_be_filled(tuned, of_rank_1):
    rows = [(0, 0, 3.0, 2.0), (1, 0, of_rank_1, 3.0)]
    assert find_bubbles(with_spans(tuned, rows), Barrier.STEP).filled_pct is None


def test_two_hundredths_of_idle_time_are_worth_filling(tuned):
    rows = [(0, 0, 3.0, 2.0), (1, 0, 2.91, 2.0)]
    assert find_bubbles(with_spans(tuned, rows), Barrier.STEP).filled_pct == 100.0


def test_in_a_pipeline_ranks_idle_by_their_sums_too(tuned):
    rows = [(0, 0, 6.0, 5.0), (0, 1, 2.0, 3.0), (1, 0, 2.0, 4.0), (1, 1, 4.0, 4.0)]
    found = find_bubbles(with_spans(tuned, rows), Barrier.PIPELINE)
    assert found.idle_before_ms.tolist() == [[0.0, 2.0]]


def test_files_without_the_fixed_budgets_prediction_have_no_bubbles(tuned):
    spans = tuned.spans.drop("predicted_k0_ms")
    assert find_bubbles(dataclasses.replace(tuned, spans=spans), Barrier.STEP) is None


def test_only_measured_steps_count(tuned):
    found = find_bubbles(tuned, Barrier.STEP)
    assert found.step.tolist() == tuned.steps.step[tuned.steps.measured].tolist()


def test_bought_coverage_is_what_raised_budgets_gained_over_all_tokens(tuned):
    """Sequence 3 kept k0 and was not measured; step 6 changed nothing; step 0 warms up."""
    ledger = pl.DataFrame(
        {
            "step": [5, 5, 5, 6, 0],
            "num_tokens": [100, 300, 50, 350, 400],
            "coverage_k0": [0.5, 0.8, np.nan, np.nan, 0.1],
            "coverage": [0.7, 0.6, np.nan, np.nan, 0.9],
        }
    )

    def bought(rows):
        return coverage_bought(dataclasses.replace(tuned, ledger=rows))

    assert not tuned.steps.measured[0]
    assert bought(ledger) == pytest.approx(100 * 0.2 * 100 / 800)
    assert bought(ledger.filter(pl.col("step") == 6)) is None
    delta = tuned.steps.coverage_delta.copy()
    delta[6] = np.nan
    tuned = dataclasses.replace(tuned, steps=dataclasses.replace(tuned.steps, coverage_delta=delta))
    assert bought(ledger) == pytest.approx(100 * 0.2 * 100 / 450)


def test_the_table_has_the_tuned_variants_numbers_and_hides_what_nobody_has(record):
    rows = {row.variant: row for row in compare(record)}
    assert rows["sab_dst"].bubble_filled_pct is not None
    assert rows["sab"].bubble_filled_pct is rows["sab"].coverage_bought is None
    labels = [column.label for column in shown_columns(list(rows.values()))]
    assert {"bubbles filled", "coverage bought"} <= set(labels)
    assert "HFU" not in labels
    fast = dataclasses.replace(rows["sab"], hfu=0.42)
    shown = {column.label: column for column in shown_columns([fast])}
    assert shown["HFU"].text(fast) == "42.0"
    assert "bubbles filled" not in shown


def test_expected_coverage_is_compared_where_it_was_measured(tuned):
    expected, measured = expected_and_measured(tuned.steps)
    assert len(expected) == int(tuned.steps.measured.sum())
    assert np.abs(measured - expected) == pytest.approx(0.2)
