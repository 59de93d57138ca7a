"""The time account: every rank with its own parts."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from fabricated_run import FACTORS, report_stage

from sbcore.report.account import time_accounts
from sbcore.report.bubbles import find_bubbles
from sbcore.report.charts.speed import parts_pct
from sbcore.report.collect import collect
from sbcore.report.run import report
from sbcore.types import Barrier


@pytest.fixture
def record(run_dir):
    return collect(report_stage(), run_dir)


def tuned_training(run_dir):
    record = collect(report_stage(), run_dir)
    return next(x.training for x in record.variants if x.variant == "sab_dst")


def with_steps(record, **changes):
    """The baseline alone, its steps changed."""
    training = record.baseline.training
    training = dataclasses.replace(training, steps=dataclasses.replace(training.steps, **changes))
    baseline = dataclasses.replace(record.baseline, training=training)
    return dataclasses.replace(record, baseline=baseline, variants=[baseline])


def change_rows(run_dir, variant, change):
    path = run_dir / "variants" / variant / "train" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | change(row)) + "\n" for row in rows))


def test_parts_of_a_rank_add_up_to_the_step_and_are_its_own(record):
    rows = time_accounts(record).rows
    assert [(row.variant, row.rank) for row in rows] == [(v, r) for v in FACTORS for r in range(2)]
    for row in rows:
        assert sum(row.parts.values()) == pytest.approx(row.step_ms)
        assert row.parts["optimizer"] == pytest.approx([4.0, 4.5][row.rank])
        assert row.parts["gap"] == pytest.approx([5.5, 3.0][row.rank])
        tune = [2.0, 1.5][row.rank] if row.variant == "sab_dst" else 0.0
        assert row.host == pytest.approx({"data": [3.0, 1.0][row.rank], "plan": 0, "tune": tune})
        assert row.checkpoint_ms == pytest.approx([0.5, 0.75][row.rank])


def test_a_checkpoint_is_taken_between_steps_and_takes_nothing_of_them(record):
    changed = with_steps(record, checkpoint_ms=np.full((40, 2), 1e6))
    before, after = (time_accounts(r).rows[0] for r in (record, changed))
    assert after.parts == before.parts
    assert after.checkpoint_ms == 1e6


def test_steps_that_are_not_measured_are_left_out(record):
    measured = record.baseline.training.steps.measured
    data = np.where(measured[:, None], [[1.0, 2.0]], 1e6)
    rows = time_accounts(with_steps(record, data_ms=data)).rows
    assert [row.host["data"] for row in rows] == [1.0, 2.0]


def test_of_many_ranks_the_busiest_and_the_idlest_are_shown_and_all_are_there(record):
    def spread(ms):
        return np.tile(ms, (len(record.baseline.training.steps.step), 1))

    compute = spread([5.0, 9.0, 4.0, 6.0, 3.0, 7.0, 8.0, 5.0])
    names = ("data_ms", "plan_ms", "tune_ms", "gap_ms", "checkpoint_ms")
    parts = dict.fromkeys(names, spread(np.arange(8.0)))
    accounts = time_accounts(
        with_steps(
            record, compute_ms=compute, waiting_ms=9.0 - compute, optimizer_ms=compute, **parts
        )
    )
    assert [(row.rank, row.parts["compute"]) for row in accounts.rows] == [(1, 9.0), (4, 3.0)]
    assert [row.host["data"] for row in accounts.every_rank] == list(range(8))
    assert time_accounts(record).every_rank == []


def with_ranks(record, num_ranks, **changes):
    """The baseline on so many ranks, each with 1 ms of every part but for the changes."""
    num_steps = len(record.baseline.training.steps.step)
    names = ("compute", "waiting", "data", "plan", "tune", "gap", "optimizer", "checkpoint")
    parts = {f"{name}_ms": np.ones((num_steps, num_ranks)) for name in names}
    return with_steps(record, **(parts | changes))


def test_four_ranks_are_all_shown_in_their_order(record):
    accounts = time_accounts(with_ranks(record, 4))
    assert [row.rank for row in accounts.rows] == [0, 1, 2, 3]
    assert accounts.every_rank == []
    assert len(time_accounts(with_ranks(record, 5)).every_rank) == 5


def test_a_part_is_the_mean_of_its_steps_and_a_rank_of_warm_up_alone_is_left_out(record):
    measured = record.baseline.training.steps.measured
    compute = np.where(np.arange(len(measured))[:, None] % 2, 3.0, 1.0) * np.ones(2)
    compute[measured, 1] = np.nan
    (row,) = time_accounts(with_ranks(record, 2, compute_ms=compute)).rows
    assert row.rank == 0
    assert row.parts["compute"] == pytest.approx(compute[measured, 0].mean())


def go_on_with_one_rank(run_dir, variant):
    """From step 20 on."""

    def keep_first(row):
        lists = {name: ranks for name, ranks in row.items() if isinstance(ranks, list)}
        return {name: ranks[: 2 if row["step"] < 20 else 1] for name, ranks in lists.items()}

    change_rows(run_dir, variant, keep_first)
    path = run_dir / "variants" / variant / "train" / "micro_batches.parquet"
    spans = pl.read_parquet(path)
    spans.filter((pl.col("step") < 20) | (pl.col("rank") == 0)).write_parquet(path)


def test_a_training_that_went_on_with_fewer_ranks_has_an_account(run_dir):
    go_on_with_one_rank(run_dir, "baseline")
    steps = collect(report_stage(), run_dir).baseline.training.steps
    assert np.isfinite(steps.compute_ms).sum() == 20 * 2 + 20
    first, second = time_accounts(collect(report_stage(), run_dir)).rows[:2]
    assert first.step_ms == pytest.approx(steps.step_ms[steps.measured].mean())
    assert second.step_ms == pytest.approx(steps.step_ms[3:20].mean())
    assert second.host["data"] == pytest.approx(1.0)
    assert sum(parts_pct(steps)) == pytest.approx(100)


def test_bubbles_of_a_training_that_went_on_with_fewer_ranks_are_those_of_the_ranks_it_had(run_dir):
    before = find_bubbles(tuned_training(run_dir), Barrier.STEP)
    go_on_with_one_rank(run_dir, "sab_dst")
    after = find_bubbles(tuned_training(run_dir), Barrier.STEP)
    at = after.step < 20
    assert np.array_equal(after.idle_before_ms[at], before.idle_before_ms[at])
    assert (after.idle_before_ms[~at, 0] == 0).all(), "a rank alone waits for nobody"
    assert np.isnan(after.idle_after_ms[~at, 1]).all()
    assert 0 < after.filled_pct <= 100
    report(report_stage(), run_dir=run_dir, out=run_dir / "report")


def test_the_page_has_every_part_of_every_rank(run_dir):
    change_rows(run_dir, "sab", lambda _: {"data_ms": [7.77, 66.6], "tune_ms": [3.33, 22.2]})
    report(report_stage(), run_dir=run_dir, out=run_dir / "report")
    page = (run_dir / "report" / "index.html").read_text()
    section = page[page.index('<section id="time">') : page.index('<section id="doubts"')]
    parts = ("compute", "waiting", "optimizer", "gap", "rest", "step")
    places = [section.index(f">{x}</th>") for x in (*parts, "data", "plan", "tune", "checkpoint")]
    assert places == sorted(places)
    first, second = section[section.index(">sab</th>") :].split("<tr", 2)[:2]
    assert [ms in first for ms in ("7.77", "3.33", "66.6", "22.2")] == [True, True, False, False]
    assert [ms in second for ms in ("7.77", "3.33", "66.6", "22.2")] == [False, False, True, True]
