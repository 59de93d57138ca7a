"""ablation.csv: a row per setting and variant, medians over the measured steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sbcore.ablation.steps import MeasuredStep

Cell = str | int | float

COLUMNS = (
    "device",
    "shape",
    "lengths",
    "barrier",
    "global_batch",
    "variant",
    "steps",
    "step_ms_p20",
    "step_ms_p50",
    "step_ms_p80",
    "tokens_per_s",
    "imbalance",
    "coverage_delta",
    "overhead_pct",
    "waiting_pct",
    "predicted_ms",
    "run_id",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a comparison was measured; the same columns stand in both csv files."""

    device: str
    shape: str
    lengths: str
    barrier: str
    global_batch: int
    run_id: str


def variant_row(place: Place, variant: str, steps: Sequence[MeasuredStep]) -> dict[str, Cell]:
    """Returns the row of a variant's measured steps; an empty cell is what was not measured."""
    step_ms = np.array([step.step_ms for step in steps])
    p20, p50, p80 = np.percentile(step_ms, [20, 50, 80])
    total = float(step_ms.sum())
    changes = [step.coverage_delta for step in steps if step.coverage_delta is not None]
    return {
        "device": place.device,
        "shape": place.shape,
        "lengths": place.lengths,
        "barrier": place.barrier,
        "global_batch": place.global_batch,
        "variant": variant,
        "steps": len(steps),
        "step_ms_p20": round(float(p20), 2),
        "step_ms_p50": round(float(p50), 2),
        "step_ms_p80": round(float(p80), 2),
        "tokens_per_s": round(1e3 * sum(step.num_tokens for step in steps) / total, 1),
        "imbalance": round(float(np.mean([step.imbalance for step in steps])), 4),
        "coverage_delta": round(float(np.mean(changes)), 3) if changes else "",
        "overhead_pct": round(100 * sum(step.overhead_ms for step in steps) / total, 3),
        "waiting_pct": round(100 * sum(step.waiting_ms for step in steps) / total, 3),
        "predicted_ms": round(float(np.median([step.predicted_ms for step in steps])), 2),
        "run_id": place.run_id,
    }
