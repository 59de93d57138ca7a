"""One step in numbers: the row of metrics.jsonl and the rows of the two tables.

R ranks, M micro-batches of each, N sequences, L layers, K rungs of the ladder.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbcore.latency.additive import AdditiveLatency
from sbcore.plan.cost import KnownTimesCost
from sbcore.plan.objective import imbalance, micro_batch_ms, step_ms
from sbcore.plan.read import StepPlan
from sbcore.train.records import StepReport
from sbcore.tune.coverage import CoverageModel, coverage_at
from sbcore.tune.ledger import LedgerPart
from sbcore.types import Barrier, FloatArray, IntArray

PARTS = ("data", "plan", "tune", "gap", "optimizer", "checkpoint")
"""What a rank's time goes to beside computing and waiting."""

SPAN_COLUMNS = (
    "step",
    "rank",
    "micro_batch",
    "num_tokens",
    "num_sequences",
    "start_ms",
    "compute_ms",
    "waiting_ms",
    "predicted_ms",
    "predicted_k0_ms",
)


@dataclass(frozen=True)
class StepFacts:
    """What rank 0 knows of a step once all reports are there."""

    step: int
    plan: StepPlan
    reports: Sequence[StepReport]
    top_k: IntArray  # [L, N], used
    curves: FloatArray  # [L, N, K], NaN where not measured


def used_top_k(reports: Sequence[StepReport], shape: tuple[int, int]) -> IntArray:
    """Returns the budgets really used in the plan's order, [L, N]."""
    used = np.zeros(shape, dtype=np.int64)
    for part in (part for report in reports for part in report.ledger):
        used[:, list(part.sequences)] = part.top_k
    return used


def predicted_micro_ms(plan: StepPlan, latency: AdditiveLatency, top_k: IntArray) -> FloatArray:
    """Returns the predicted time of every micro-batch, [R, M], at the budgets given."""
    cost = KnownTimesCost.at(latency, plan.lengths, top_k)
    return micro_batch_ms(plan.batch, plan.lengths, cost)


def compute_micro_ms(reports: Sequence[StepReport]) -> FloatArray:
    """Returns the measured compute time of every micro-batch, [R, M]."""
    return np.array([[span.compute_ms for span in report.spans] for report in reports])


def coverage_delta(facts: StepFacts, coverage: CoverageModel, *, top_k: int) -> float | None:
    """Returns the mean of C(k used) - C(k0) by this step's curves, points; None if not measured."""
    return coverage.delta(facts.plan.lengths, facts.top_k, top_k=top_k, curves=facts.curves)


def metrics_row(
    facts: StepFacts, latency: AdditiveLatency, *, barrier: Barrier, delta: float | None
) -> dict[str, Any]:
    """Returns what metrics.jsonl holds of timing, load and coverage; milliseconds and points.

    The time account is a list over ranks for each of compute, waiting and ``PARTS``.
    """
    compute = compute_micro_ms(facts.reports)
    predicted = predicted_micro_ms(facts.plan, latency, facts.top_k)
    return {
        "step": facts.step,
        "loss": _finite(sum(report.loss for report in facts.reports)),
        "grad_norm": _finite(facts.reports[0].grad_norm),
        "step_ms": max(report.step_ms for report in facts.reports),
        "num_tokens": int(facts.plan.lengths.sum()),
        "predicted_ms": step_ms(predicted, barrier) + latency.update_ms,
        "imbalance": imbalance(compute, barrier),
        "predicted_imbalance": imbalance(predicted, barrier),
        "compute_ms": compute.sum(axis=1).round(3).tolist(),
        "waiting_ms": [round(sum(s.waiting_ms for s in r.spans), 3) for r in facts.reports],
        "coverage_delta": delta,
    } | {f"{name}_ms": _part_ms(facts.reports, name) for name in PARTS}


def _part_ms(reports: Sequence[StepReport], name: str) -> list[float]:
    return [round(report.parts.get(name, 0.0), 3) for report in reports]


def tracked_numbers(row: dict[str, Any]) -> dict[str, float | None]:
    """Returns the row for tracking: plain numbers.

    Computing and waiting are spread out by rank; of every other part a chart for each rank would
    be too many, so it is the slowest rank's.
    """
    numbers: dict[str, float | None] = {}
    for key, value in row.items():
        if key in ("compute_ms", "waiting_ms"):
            numbers |= {f"{key}.rank{rank}": ms for rank, ms in enumerate(value)}
        elif isinstance(value, list):
            numbers[key] = max(value)
        elif key != "step" and not isinstance(value, bool):
            numbers[key] = value
    return numbers


def _finite(value: float) -> float | None:
    """Returns the value, None where a metrics file could not hold it."""
    return value if math.isfinite(value) else None


def span_rows(facts: StepFacts, latency: AdditiveLatency, *, top_k: int) -> dict[str, Any]:
    """Returns the rows of micro_batches.parquet by column; k0 is top_k."""
    predicted = predicted_micro_ms(facts.plan, latency, facts.top_k)
    fixed = predicted_micro_ms(facts.plan, latency, np.full_like(facts.top_k, top_k))
    rows: list[tuple[Any, ...]] = []
    for rank, report in enumerate(facts.reports):
        for m, span in enumerate(report.spans):
            members = list(facts.plan.batch.micro_batches[rank][m])
            tokens = int(facts.plan.lengths[members].sum())
            times = (span.start_ms, span.compute_ms, span.waiting_ms)
            models = (predicted[rank, m], fixed[rank, m])
            rows.append((facts.step, rank, m, tokens, len(members), *times, *models))
    columns = (np.array(column) for column in zip(*rows, strict=True))
    return dict(zip(SPAN_COLUMNS, columns, strict=True))


def ledger_rows(
    facts: StepFacts, latency: AdditiveLatency, ladder: IntArray, *, top_k: int
) -> dict[str, Any]:
    """Returns the rows of ledger.parquet by column, a row per layer and sequence."""
    predicted = latency.predict(facts.plan.lengths, facts.top_k)
    parts: list[dict[str, Any]] = []
    for rank, report in enumerate(facts.reports):
        for m, sequences in enumerate(facts.plan.batch.micro_batches[rank]):
            part = next((p for p in report.ledger if p.sequences == sequences), None)
            if part is not None:
                rows = _part_rows(
                    facts, part, predicted=predicted, ladder=ladder, place=(rank, m), top_k=top_k
                )
                parts.append(rows)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _part_rows(
    facts: StepFacts,
    part: LedgerPart,
    *,
    predicted: FloatArray,
    ladder: IntArray,
    place: tuple[int, int],
    top_k: int,
) -> dict[str, Any]:
    num_layers, num_sequences = part.top_k.shape
    members, shape = list(part.sequences), part.top_k.shape
    curves = facts.curves[:, members]
    return {
        "step": np.full(part.top_k.size, facts.step),
        "rank": np.full(part.top_k.size, place[0]),
        "micro_batch": np.full(part.top_k.size, place[1]),
        "layer": np.repeat(np.arange(num_layers), num_sequences),
        "sample_id": np.tile(facts.plan.sample_ids[members], num_layers),
        "num_tokens": np.tile(facts.plan.lengths[members], num_layers),
        "top_k_target": part.top_k_target.ravel(),
        "top_k": part.top_k.ravel(),
        "coverage_k0": curves[:, :, np.searchsorted(ladder, top_k)].ravel(),
        "coverage": coverage_at(curves, ladder, part.top_k).ravel(),
        "predicted_ms": np.broadcast_to(predicted[members], shape).ravel(),
    }
