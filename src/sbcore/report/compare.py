"""The comparison of variants: speedups over the same steps, and the rows of the table.

A speedup is the ratio of two medians of the step time, over the measured steps that both variants
have; both saw the same global batch in each. Its spread is the 20th and 80th percentile of the
ratio within single steps: how much the gain changes from batch to batch, not an error bar.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sbcore.report.bubbles import coverage_bought, find_bubbles
from sbcore.report.collect import RunRecord, VariantRecord
from sbcore.report.contracts import Spread
from sbcore.report.steps import Steps, is_fixed


@dataclass(frozen=True)
class Speedup:
    """Times as fast as the baseline; p20 and p80 are of single steps."""

    ratio: float
    p20: float
    p80: float
    num_steps: int


@dataclass(frozen=True)
class Row:
    """One variant in the table; None is what was not measured or is not there."""

    variant: str
    missing: tuple[str, ...]
    speedup: Speedup | None
    step_time_ms: Spread | None
    tokens_per_s: float | None
    imbalance: float | None
    predicted_imbalance: float | None
    optimality_gap: float | None
    coverage_delta: float | None
    overhead_pct: float | None
    waiting_pct: float | None
    bubble_filled_pct: float | None
    coverage_bought: float | None
    mfu_useful: float | None
    mfu_dense_equivalent: float | None
    hfu: float | None
    loss_final: float | None
    scores: dict[str, float]
    score_mean: float | None
    partial: bool


def compare(record: RunRecord) -> list[Row]:
    """Returns a row per variant, in the configuration's order."""
    return [_row(variant, record) for variant in record.variants]


def speedup_over(baseline: Steps, steps: Steps) -> Speedup | None:
    """Returns the speedup over the measured steps of both, None if they share none."""
    shared, ours, theirs = np.intersect1d(
        steps.step[steps.measured], baseline.step[baseline.measured], return_indices=True
    )
    if not len(shared):
        return None
    step_ms = steps.step_ms[steps.measured][ours]
    baseline_ms = baseline.step_ms[baseline.measured][theirs]
    p20, p80 = np.percentile(baseline_ms / step_ms, [20, 80])
    ratio = np.median(baseline_ms) / np.median(step_ms)
    return Speedup(float(ratio), float(p20), float(p80), len(shared))


def summary(record: RunRecord, rows: list[Row]) -> dict[str, Any]:
    """Returns the content of ``report/summary.json``; null is what is not there."""
    return {
        "run": record.run,
        "baseline": record.baseline.variant,
        "variants": [_summary_row(row) for row in rows],
    }


def _row(variant: VariantRecord, record: RunRecord) -> Row:
    training, result = variant.training, variant.evaluation
    trained, reference = training.summary if training else None, record.baseline.training
    tuned = training if training and not is_fixed(training.ledger) else None
    bubbles = find_bubbles(tuned, record.barrier) if tuned else None
    return Row(
        variant=variant.variant,
        missing=variant.missing,
        speedup=speedup_over(reference.steps, training.steps) if training and reference else None,
        step_time_ms=trained.step_time_ms if trained else None,
        tokens_per_s=trained.tokens_per_s if trained else None,
        imbalance=trained.imbalance if trained else None,
        predicted_imbalance=trained.predicted_imbalance if trained else None,
        optimality_gap=variant.plan.optimality_gap if variant.plan else None,
        coverage_delta=trained.coverage_delta if trained else None,
        overhead_pct=trained.overhead_pct if trained else None,
        waiting_pct=trained.waiting_pct if trained else None,
        bubble_filled_pct=bubbles.filled_pct if bubbles else None,
        coverage_bought=coverage_bought(tuned) if tuned else None,
        mfu_useful=trained.mfu_useful if trained else None,
        mfu_dense_equivalent=trained.mfu_dense_equivalent if trained else None,
        hfu=trained.hfu if trained else None,
        loss_final=trained.loss_final if trained else None,
        scores=result.scores if result else {},
        score_mean=result.score_mean if result else None,
        partial=result.partial if result else False,
    )


def _summary_row(row: Row) -> dict[str, Any]:
    """Returns the row of summary.json; what a machine cannot tell (MFU on a CPU) is left out."""
    more = {
        "bubble_filled_pct": row.bubble_filled_pct,
        "coverage_bought": row.coverage_bought,
        "mfu_useful": row.mfu_useful,
        "mfu_dense_equivalent": row.mfu_dense_equivalent,
        "hfu": row.hfu,
    }
    known = {key: value for key, value in more.items() if value is not None}
    return known | {
        "variant": row.variant,
        "speedup": row.speedup.ratio if row.speedup else None,
        "step_time_ms": row.step_time_ms.model_dump() if row.step_time_ms else None,
        "tokens_per_s": row.tokens_per_s,
        "imbalance": row.imbalance,
        "predicted_imbalance": row.predicted_imbalance,
        "optimality_gap": row.optimality_gap,
        "coverage_delta": row.coverage_delta,
        "overhead_pct": row.overhead_pct,
        "loss_final": row.loss_final,
        "scores": row.scores,
        "score_mean": row.score_mean,
    }
