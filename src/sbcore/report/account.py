"""The time account: what a step's time went to, rank by rank."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sbcore.report.collect import RunRecord, Training

_MOST_RANKS = 4
"""More than these are shown by their two ends."""


@dataclass(frozen=True)
class AccountRow:
    """Mean milliseconds of a measured step, by part."""

    variant: str
    rank: int
    is_first: bool
    """Whether it begins a variant."""
    parts: dict[str, float]
    step_ms: float
    most_ranks: int = _MOST_RANKS


def time_accounts(record: RunRecord) -> list[AccountRow]:
    """Returns the rows of all variants that have trained."""
    trained = [(v.variant, v.training) for v in record.variants if v.training]
    return [row for name, training in trained for row in _rows(name, training)]


def _rows(variant: str, training: Training) -> Iterator[AccountRow]:
    steps, at = training.steps, training.steps.measured
    compute, waiting = steps.compute_ms[at].mean(axis=0), steps.waiting_ms[at].mean(axis=0)
    step_ms = float(steps.step_ms[at].mean())
    shared = {
        "data": float(steps.data_ms[at].mean()),
        "plan": float(steps.plan_ms[at].mean()),
        "tune": float(steps.tune_ms[at].mean()),
        "optimizer": float(steps.optimizer_ms[at].mean()),
        "checkpoint": float(steps.checkpoint_ms[at].mean()),
    }
    ends = (int(np.argmax(compute)), int(np.argmin(compute)))
    for i, rank in enumerate(ends if len(compute) > _MOST_RANKS else range(len(compute))):
        parts = {"compute": float(compute[rank]), "waiting": float(waiting[rank])} | shared
        rest = step_ms - sum(parts.values())
        yield AccountRow(variant, rank, i == 0, parts | {"rest": rest}, step_ms)
