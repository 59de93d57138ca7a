"""Speedups, the summary's contract, the headline and the doubts."""

import dataclasses
import json
import math

import numpy as np
import polars as pl
import pytest
from fabricated_run import FACTORS, NUM_STEPS, found_doubts, report_stage, write_manifest

from sbcore.report.collect import collect
from sbcore.report.compare import compare, speedup_over, summary
from sbcore.report.doubts import doubts
from sbcore.report.headline import headline
from sbcore.report.numbers import ABSENT, milliseconds, number, signed
from sbcore.report.steps import read_steps

KEYS = {
    "variant",
    "speedup",
    "step_time_ms",
    "tokens_per_s",
    "imbalance",
    "predicted_imbalance",
    "optimality_gap",
    "coverage_delta",
    "overhead_pct",
    "loss_final",
    "scores",
    "score_mean",
}
WHERE_KNOWN = {"bubble_filled_pct", "coverage_bought", "mfu_useful", "mfu_dense_equivalent", "hfu"}


def with_step_ms(steps, step_ms, **changes):
    return dataclasses.replace(steps, step_ms=np.asarray(step_ms, dtype=float), **changes)


@pytest.fixture
def steps(run_dir):
    return read_steps(run_dir / "variants" / "baseline" / "train" / "metrics.jsonl")


def test_summary_has_the_contracts_shape_and_finite_numbers(run_dir):
    record = collect(report_stage(), run_dir)
    value = json.loads(json.dumps(summary(record, compare(record)), allow_nan=False))
    assert value.keys() == {"run", "baseline", "variants"}
    assert [row["variant"] for row in value["variants"]] == list(FACTORS)
    for row in value["variants"]:
        assert KEYS <= row.keys() <= KEYS | WHERE_KNOWN
        assert not any(row[key] is None for key in WHERE_KNOWN & row.keys())
        assert row["step_time_ms"].keys() == {"median", "p20", "p80"}
        assert row["speedup"] == pytest.approx(1 / FACTORS[row["variant"]])
        assert math.isfinite(row["tokens_per_s"])
        assert row["scores"].keys() == {"recall", "multi_value", "needle", "few_shot"}


def test_speedup_is_the_ratio_of_medians_and_its_spread_that_of_single_steps(steps):
    num = len(steps.step)
    baseline = with_step_ms(steps, np.full(num, 300.0))
    step_ms = np.where(np.arange(num) % 2, 100.0, 200.0)
    found = speedup_over(baseline, with_step_ms(steps, step_ms))
    assert found is not None
    measured = step_ms[steps.measured]
    assert found.ratio == pytest.approx(300 / np.median(measured))
    assert (found.p20, found.p80) == (1.5, 3.0)
    assert found.num_steps == NUM_STEPS - 3


def test_a_step_is_compared_with_the_same_step_whichever_others_were_measured(steps):
    num = len(steps.step)
    times = 100.0 + np.arange(num)
    late = steps.step >= 20
    found = speedup_over(with_step_ms(steps, 2 * times), with_step_ms(steps, times, measured=late))
    assert found is not None
    assert (found.ratio, found.p20, found.p80) == pytest.approx((2.0, 2.0, 2.0))
    spread = speedup_over(with_step_ms(steps, times), with_step_ms(steps, np.full(num, 100.0)))
    assert spread is not None
    shares = times[steps.measured] / 100
    assert (spread.p20, spread.p80) == pytest.approx(tuple(np.percentile(shares, [20, 80])))


def test_the_table_has_what_training_said_of_itself(run_dir):
    names = ("tokens_per_s", "imbalance", "predicted_imbalance", "coverage_delta", "overhead_pct")
    names += ("waiting_pct", "mfu_useful", "mfu_dense_equivalent", "hfu", "loss_final")
    path = run_dir / "variants" / "sab" / "train" / "summary.json"
    said = {name: 1.0 + place / 16 for place, name in enumerate(names)}
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    row = next(row for row in compare(collect(report_stage(), run_dir)) if row.variant == "sab")
    assert {name: getattr(row, name) for name in names} == said


def test_nothing_filled_and_nothing_bought_are_numbers_too(run_dir):
    record = collect(report_stage(), run_dir)
    rows = [
        dataclasses.replace(row, bubble_filled_pct=0.0, coverage_bought=None)
        for row in compare(record)
    ]
    (found, *_) = summary(record, rows)["variants"]
    assert found["bubble_filled_pct"] == 0.0
    assert "coverage_bought" not in found


def test_only_steps_measured_in_both_count(steps):
    late = steps.step >= NUM_STEPS - 10
    slow_early = np.where(late, 100.0, 9_999.0)
    found = speedup_over(
        with_step_ms(steps, np.full(len(late), 150.0)),
        with_step_ms(steps, slow_early, measured=late),
    )
    assert found is not None
    assert (found.ratio, found.num_steps) == (1.5, 10)


def test_no_common_step_means_no_speedup(steps):
    none = dataclasses.replace(steps, measured=np.zeros_like(steps.measured))
    assert speedup_over(steps, none) is None


def test_an_unfinished_variant_is_null_in_the_summary(run_dir):
    (run_dir / "variants" / "sab" / "train" / "summary.json").unlink()
    record = collect(report_stage(), run_dir)
    rows = compare(record)
    row = summary(record, rows)["variants"][1]
    assert (row["speedup"], row["step_time_ms"], row["loss_final"]) == (None, None, None)
    assert row["score_mean"] is not None
    assert "sab is unfinished: no results of train." in doubts(record, rows)


def test_without_a_trained_baseline_nothing_is_compared(run_dir):
    (run_dir / "variants" / "baseline" / "train" / "summary.json").unlink()
    record = collect(report_stage(), run_dir)
    rows = compare(record)
    assert all(row.speedup is None for row in rows)
    assert headline(record, rows).title == "Nothing to compare yet"


def speedups(record, ratio, p20):
    rows = compare(record)
    return [
        dataclasses.replace(row, speedup=dataclasses.replace(row.speedup, ratio=ratio, p20=p20))
        if row.variant != "baseline"
        else row
        for row in rows
    ]


@pytest.mark.parametrize(
    ("ratio", "p20", "title"),
    [
        (1.3, 1.1, "sab trains 1.30 times as fast as baseline"),
        (1.3, 0.9, "sab is not clearly faster than baseline"),
        (1.3, 1.0, "sab is not clearly faster than baseline"),
        (1.0, 0.8, "No variant is faster than baseline"),
        (0.9, 0.8, "No variant is faster than baseline"),
    ],
)
def test_the_headline_claims_no_more_than_the_spread_allows(run_dir, ratio, p20, title):
    record = collect(report_stage(), run_dir)
    assert headline(record, speedups(record, ratio, p20)).title == title


def test_the_headline_is_of_the_fastest_and_says_what_it_cost(run_dir):
    record = collect(report_stage(), run_dir)
    rows = [
        dataclasses.replace(
            row,
            speedup=dataclasses.replace(row.speedup, ratio=ratio, p20=1.1, p80=1.9, num_steps=7),
            step_time_ms=row.step_time_ms.model_copy(update={"median": 300.0 / ratio}),
            score_mean=50.0 / ratio,
            loss_final=3.0 * ratio,
            coverage_delta=-0.5,
        )
        for row, ratio in zip(compare(record), (9.0, 1.2, 1.5, 1.3), strict=True)
    ]
    rows[0] = dataclasses.replace(
        rows[0],
        step_time_ms=rows[0].step_time_ms.model_copy(update={"median": 300.0}),
        score_mean=50.0,
        loss_final=3.0,
    )
    found = headline(record, rows)
    assert found.title == "sab_dst trains 1.50 times as fast as baseline"
    assert found.sentence == (
        "A typical step takes 200 ms with sab_dst, 300 ms with baseline. In the middle 60 % of "
        "the 7 measured steps that both have, the ratio lies between 1.10 and 1.90. Its mean "
        "score is 33.3 against 50.0; its final loss 4.500 against 3.000; its coverage changed by "
        "\N{MINUS SIGN}0.50 points."
    )


def test_a_clean_run_raises_no_doubt(run_dir):
    assert found_doubts(run_dir) == []


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"commit": "b" * 40}, "different commits of the code (aaaaaaa, bbbbbbb)"),
        ({"commit": None}, "commit of the code is unknown"),
        ({"dirty": True}, "uncommitted edits in 1 of"),
        ({"device": "NVIDIA H100"}, "different devices (NVIDIA H100, cpu)"),
        ({"inputs": {"index": "2" * 64}}, "different versions of index"),
    ],
)
def test_what_manifests_reveal_is_said(run_dir, changes, doubt):
    write_manifest(run_dir / "variants" / "sab" / "train" / "manifest.json", "train", **changes)
    assert any(doubt in sentence for sentence in found_doubts(run_dir))


@pytest.mark.parametrize(
    ("file", "changes", "doubt"),
    [
        ("variants/sab/eval/result.json", {"partial": True}, "evaluated in part"),
        ("variants/sab/eval/result.json", {"num_available": {}}, "some of the tasks' examples"),
        ("variants/sab/eval/result.json", {"chance": {"needle": 99.0}}, "no better than chance"),
        ("variants/sab/train/summary.json", {"loss_final": 9.0}, "loss of sab did not fall"),
        (
            "variants/sab/plan/summary.json",
            {"overall": {"optimality_gap": 0.1, "extrapolated": 3}},
            "beyond the longest measured length (sab)",
        ),
        (
            "profile/latency.json",
            {"error": {"mape": 0.5, "rank_correlation": 0.9, "regret": 0.2}},
            "errs by 50 %",
        ),
    ],
)
def test_what_results_reveal_is_said(run_dir, file, changes, doubt):
    path = run_dir / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert any(doubt in sentence for sentence in found_doubts(run_dir))


def predict_all(run_dir, divisors):
    """Rewrites predictions: a variant's steps take so many times as long."""
    for variant, divisor in divisors.items():
        path = run_dir / "variants" / variant / "train" / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows = [row | {"predicted_ms": row["step_ms"] / divisor} for row in rows]
        path.write_text("\n".join(map(json.dumps, rows)))


def test_steps_that_take_longer_than_predicted_are_one_doubt(run_dir):
    predict_all(run_dir, dict.fromkeys(FACTORS, 1.8) | {"sab": 2.0})
    (doubt,) = found_doubts(run_dir)
    times = "baseline 1.8 times, sab 2.0 times, sab_dst 1.8 times, dense 1.8 times"
    assert doubt.startswith(f"Steps take longer than predicted ({times}): ")


def test_a_machine_that_was_slower_for_a_variant_is_a_doubt(run_dir):
    predict_all(run_dir, dict.fromkeys(FACTORS, 1.0) | {"sab": 1.4, "dense": 0.9})
    (doubt,) = found_doubts(run_dir)
    assert doubt.startswith("Measured over predicted step time is 0.9 for dense and 1.4 for sab:")


@pytest.mark.parametrize(("longer", "named"), [(1.24, "sab 51 %"), (1.26, None)])
def test_micro_batches_that_launching_rules_are_a_doubt(run_dir, longer, named):
    """2 ms in the fabricated profile; half of a variant's micro-batches is not most of them."""
    for variant, share in {"sab": 0.51, "baseline": 0.5}.items():
        path = run_dir / "variants" / variant / "train" / "micro_batches.parquet"
        spans = pl.read_parquet(path)
        predicted = np.where(np.arange(len(spans)) < share * len(spans), 2.0 * longer, 90.0)
        spans.with_columns(predicted_ms=predicted).write_parquet(path)
    doubts = found_doubts(run_dir)
    assert len(doubts) == (named is not None)
    for doubt in doubts:
        assert doubt.startswith(
            f"Most micro-batches should take hardly longer than an empty one, 2 ms ({named}): "
        )


def test_few_steps_are_said(run_dir):
    path = run_dir / "variants" / "sab" / "train" / "metrics.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:10]))
    assert any("rest on 7 steps" in sentence for sentence in found_doubts(run_dir))


def test_numbers_read_well():
    texts = [milliseconds(x) for x in (7.414, 10.0, 74.14, 100.0, 7414.1, None)]
    assert texts == ["7.41", "10.0", "74.1", "100", "7,414", ABSENT]
    assert number(-1234.5, 1) == "\N{MINUS SIGN}1,234.5"
    assert [signed(x, 2) for x in (0.1, -0.1, -0.001, None)] == [
        "+0.10",
        "\N{MINUS SIGN}0.10",
        "0.00",
        ABSENT,
    ]
