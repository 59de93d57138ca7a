"""What the charts compute before they draw."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from fabricated_run import FACTORS, report_stage

from sbcore.report.charts.profiles import short_count
from sbcore.report.charts.speed import parts_pct, variant_colours
from sbcore.report.charts.style import DARK, Chart
from sbcore.report.charts.timeline import typical_step
from sbcore.report.charts.training import smooth
from sbcore.report.collect import collect
from sbcore.report.steps import is_fixed, read_steps


@pytest.fixture
def steps(run_dir):
    return read_steps(run_dir / "variants" / "baseline" / "train" / "metrics.jsonl")


def test_the_typical_step_is_measured_and_nearest_to_the_median(steps):
    step_ms = np.arange(len(steps.step), dtype=float)
    step_ms[0] = np.median(step_ms[steps.measured])  # nearest of all, but not measured
    changed = dataclasses.replace(steps, step_ms=step_ms)
    assert typical_step(changed) == int(np.median(np.arange(3, len(step_ms))))


def test_shares_of_the_time_add_up_and_come_from_measured_steps_only(steps):
    num = len(steps.step)
    changed = dataclasses.replace(
        steps,
        step_ms=np.where(steps.measured, 100.0, 1e9),
        compute_ms=np.tile([60.0, 40.0], (num, 1)),
        waiting_ms=np.tile([0.0, 20.0], (num, 1)),
    )
    assert parts_pct(changed) == (50.0, 10.0, 40.0)


def test_only_the_tuned_variant_has_budgets_to_draw(run_dir):
    record = collect(report_stage(), run_dir)
    fixed = {v.variant: is_fixed(v.training.ledger) for v in record.variants if v.training}
    assert fixed == {"baseline": True, "sab": True, "dense": True, "sab_dst": False}


def test_budgets_that_fall_with_length_are_tuned_even_if_each_length_occurs_once():
    ledger = pl.DataFrame({"num_tokens": [100, 200, 300], "top_k_target": [8, 9, 5]})
    assert not is_fixed(ledger)
    assert is_fixed(ledger.with_columns(top_k_target=pl.Series([4, 7, 10])))


def test_smoothing_keeps_a_constant_and_the_mean_of_a_window():
    assert smooth(np.full(100, 2.5)) == pytest.approx(np.full(100, 2.5))
    ramp = smooth(np.arange(100.0))
    assert ramp[50] == pytest.approx(50)
    assert ramp[0] == pytest.approx(1.0)  # 0, 1, 2: the window is cut at the start
    with_gap = np.where(np.arange(100) == 50, np.nan, 2.5)
    assert smooth(with_gap) == pytest.approx(np.full(100, 2.5))
    assert np.isnan(smooth(np.full(3, np.nan))).all()


def test_the_baseline_is_grey_and_colours_differ():
    colours = variant_colours(["a", "base", "b", "c"], "base")
    assert len(set(colours.values())) == 4
    assert all(colour in DARK for colour in colours.values())
    assert variant_colours(["base", *map(str, range(20))], "base").keys() >= {"19"}


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    high, low = sorted([luminance(one), luminance(other)], reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_seen_on_both_pages():
    from sbcore.report.charts import style

    for light, needed in [(style.INK, 7), (style.MUTED, 4.5), *((c, 3) for c in style.SERIES)]:
        assert contrast(light, style.SURFACE) >= needed
        assert contrast(DARK[light], DARK[style.SURFACE]) >= needed


def test_lengths_are_written_as_they_are_said():
    assert [short_count(x) for x in (512, 1024, 1536, 65536)] == ["512", "1K", "1.5K", "64K"]


def test_a_charts_file_name_has_nothing_to_escape():
    assert Chart('timeline-a/b "c"', "", "", None).slug == "timeline-a-b-c-"


def test_every_variant_of_the_fixture_is_drawn_on_one_time_axis(run_dir):
    from sbcore.report.charts.timeline import timelines

    record = collect(report_stage(), run_dir)
    trained = {v.variant: v.training for v in record.variants if v.training}
    charts = timelines(trained, 7)
    limits = {chart.figure.axes[0].get_xlim() for chart in charts}
    assert [chart.title for chart in charts] == list(FACTORS)
    assert len(limits) == 1
    assert timelines(trained, 10_000) == []
