"""What a plan promises, step by step and over all: ``plan/summary.json``."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sbcore.plan.bounds import lower_bound, optimality_gap
from sbcore.plan.objective import imbalance, micro_batch_ms, slowed, step_ms
from sbcore.plan.workload import least_workload
from sbcore.types import BatchPlan, CostModel, IntArray, Topology


@dataclass(frozen=True, slots=True)
class StepSummary:
    """One step as predicted; the gap is relative to the lower bound."""

    step: int
    predicted_ms: float
    bound_ms: float
    optimality_gap: float
    imbalance: float
    num_micro_batches: int
    num_sequences: int
    num_tokens: int


def summarise_step(
    step: int, batch: BatchPlan, lengths: IntArray, *, topology: Topology, cost: CostModel
) -> StepSummary:
    """Returns what the step is predicted to take, and what no plan could beat."""
    times = slowed(micro_batch_ms(batch, lengths, cost), topology)
    barrier, num_stages = topology.barrier, topology.num_stages
    predicted = step_ms(times, barrier, num_stages=num_stages)
    bound = lower_bound(least_workload(lengths, topology, cost))
    return StepSummary(
        step=step,
        predicted_ms=predicted,
        bound_ms=bound,
        optimality_gap=optimality_gap(predicted, bound),
        imbalance=imbalance(times, barrier, num_stages=num_stages),
        num_micro_batches=batch.num_micro_batches,
        num_sequences=len(lengths),
        num_tokens=int(lengths.sum()),
    )


def summarise_plan(steps: list[StepSummary]) -> dict[str, Any]:
    """Returns the spread of each prediction over the steps, and totals.

    `imbalance` and `optimality_gap` are the means; the gap is that of the summed times, so that
    long steps weigh more.
    """
    predicted = np.array([step.predicted_ms for step in steps])
    bound = np.array([step.bound_ms for step in steps])
    return {
        "predicted_ms": _spread(predicted),
        "bound_ms": _spread(bound),
        "optimality_gap": optimality_gap(float(predicted.sum()), float(bound.sum())),
        "optimality_gap_p95": float(np.quantile([step.optimality_gap for step in steps], 0.95)),
        "imbalance": float(np.mean([step.imbalance for step in steps])),
        "num_steps": len(steps),
        "num_sequences": sum(step.num_sequences for step in steps),
        "num_tokens": sum(step.num_tokens for step in steps),
        "num_micro_batches": sum(step.num_micro_batches for step in steps),
    }


def to_rows(steps: list[StepSummary]) -> list[dict[str, Any]]:
    """Returns the steps as json objects."""
    return [asdict(step) for step in steps]


def _spread(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> dict[str, float]:
    p50, p95 = np.quantile(values, [0.5, 0.95])
    return {"mean": float(values.mean()), "p50": float(p50), "p95": float(p95)}
