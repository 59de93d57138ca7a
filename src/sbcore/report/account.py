"""The time account: what a step's time went to, rank by rank."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sbcore.report.collect import RunRecord
from sbcore.report.steps import Steps

_MOST_RANKS = 4
"""More than these are shown by their two ends."""
_OF_STEP = ("compute", "waiting", "optimizer", "gap")
_OF_HOST = ("data", "plan", "tune")
_BEFORE = "checkpoint"


@dataclass(frozen=True)
class AccountRow:
    """Mean milliseconds of a measured step on a rank."""

    variant: str
    rank: int
    parts: dict[str, float]
    """One after the other; with the rest they add up to the step."""
    step_ms: float
    host: dict[str, float]
    """Of the host: in the gap on a processor, beside the work of a GPU."""
    checkpoint_ms: float
    """Before the step and not in it."""


@dataclass(frozen=True)
class TimeAccounts:
    """Rows of all variants that have trained."""

    rows: list[AccountRow]
    """All ranks of a variant, or the two that compute most and least."""
    every_rank: list[AccountRow]
    """All ranks of the variants whose ends alone stand in ``rows``."""
    most_ranks: int = _MOST_RANKS


def time_accounts(record: RunRecord) -> TimeAccounts:
    """Returns the accounts of all variants that have trained."""
    trained = [(v.variant, v.training.steps) for v in record.variants if v.training]
    variants = [list(_rows(name, steps)) for name, steps in trained]
    return TimeAccounts(
        [row for rows in variants for row in _shown(rows)],
        [row for rows in variants if len(rows) > _MOST_RANKS for row in rows],
    )


def _shown(rows: list[AccountRow]) -> list[AccountRow]:
    if len(rows) <= _MOST_RANKS:
        return rows
    return [end(rows, key=lambda row: row.parts["compute"]) for end in (max, min)]


def _rows(variant: str, steps: Steps) -> Iterator[AccountRow]:
    for rank in range(steps.compute_ms.shape[1]):
        at = steps.measured & np.isfinite(steps.compute_ms[:, rank])
        if not at.any():
            continue  # only in a part of the training that is not measured
        ms = {
            name: float(getattr(steps, f"{name}_ms")[at, rank].mean())
            for name in (*_OF_STEP, *_OF_HOST, _BEFORE)
        }
        step_ms = float(steps.step_ms[at].mean())
        parts = {name: ms[name] for name in _OF_STEP}
        yield AccountRow(
            variant,
            rank,
            parts | {"rest": step_ms - sum(parts.values())},
            step_ms,
            {name: ms[name] for name in _OF_HOST},
            ms[_BEFORE],
        )
