"""Bubbles: the time in which ranks would wait for each other, before tuning and after it.

All of it predicted, at the fixed budget and at the budgets used, since no step is run twice. What
waiting was measured stands in the time account. S steps, R ranks.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sbcore.report.collect import Training
from sbcore.report.steps import BUDGET_COLUMN
from sbcore.types import Barrier, FloatArray, IntArray

if TYPE_CHECKING:
    import polars as pl

_NOTHING_TO_FILL = 0.01
"""Share of the ranks' time below which a ratio of idle times would be one of rounding errors."""


@dataclass(frozen=True)
class Bubbles:
    """Predicted idle time and step time, milliseconds; [S, R] and [S].

    R is the largest number of ranks that any step had; NaN for a rank that a step had not.
    """

    step: IntArray
    idle_before_ms: FloatArray
    idle_after_ms: FloatArray
    step_before_ms: FloatArray
    step_after_ms: FloatArray

    @property
    def before_pct(self) -> FloatArray:
        """Share of the step that each rank would idle at the fixed budget, per cent, [S, R]."""
        return 100 * self.idle_before_ms / self.step_before_ms[:, None]

    @property
    def after_pct(self) -> FloatArray:
        """The same at the budgets used."""
        return 100 * self.idle_after_ms / self.step_after_ms[:, None]

    @property
    def filled_pct(self) -> float | None:
        """Share of all idle time that tuning removed, per cent; None if there was next to none."""
        before, after = (float(np.nansum(ms)) for ms in (self.idle_before_ms, self.idle_after_ms))
        num_ranks = np.isfinite(self.idle_before_ms).sum(axis=1)
        if before < _NOTHING_TO_FILL * float(num_ranks @ self.step_before_ms):
            return None
        return 100 * (1 - after / before)


def find_bubbles(training: Training, barrier: Barrier) -> Bubbles | None:
    """Returns the bubbles of the measured steps; None where the fixed budget is not predicted."""
    import polars as pl

    if BUDGET_COLUMN not in training.spans.columns:
        return None
    steps = training.steps.step[training.steps.measured]
    spans = training.spans.filter(pl.col("step").is_in(steps.tolist()))
    if spans.is_empty():
        return None
    (before, step_before), (after, step_after) = (
        _idle(spans, name, barrier) for name in (BUDGET_COLUMN, "predicted_ms")
    )
    return Bubbles(spans["step"].unique().sort().to_numpy(), before, after, step_before, step_after)


def coverage_bought(training: Training) -> float | None:
    """Returns the points of coverage that raised budgets gained, over all tokens and layers.

    Of the measured steps whose coverage_delta is known; what was not measured in them kept its
    blocks and gained nothing. What cut budgets lost is not subtracted: both together are
    coverage_delta. None if no curve was measured.
    """
    import polars as pl

    steps = training.steps
    known = steps.step[steps.measured & np.isfinite(steps.coverage_delta)]
    ledger = training.ledger.filter(pl.col("step").is_in(known.tolist()))
    change = pl.col("coverage") - pl.col("coverage_k0")
    if ledger.filter(change.is_finite()).is_empty():
        return None
    gained = change.clip(lower_bound=0).fill_nan(0.0) * pl.col("num_tokens")
    return 100 * float(ledger.select(gained.sum() / pl.col("num_tokens").sum()).item())


def _idle(spans: "pl.DataFrame", name: str, barrier: Barrier) -> tuple[FloatArray, FloatArray]:
    """Returns idle time [S, R] and the barrier's time [S] by the column of times."""
    import polars as pl

    keys = ["step", "micro_batch"] if barrier is Barrier.MICRO else ["step"]
    own = spans.group_by([*keys, "rank"]).agg(pl.col(name).sum())
    until = own.with_columns(barrier_ms=pl.col(name).max().over(keys))
    ranks = (
        until.group_by("step", "rank")
        .agg(
            idle=(pl.col("barrier_ms") - pl.col(name)).sum(), barrier_ms=pl.col("barrier_ms").sum()
        )
        .pivot("rank", index="step", values=["idle", "barrier_ms"], sort_columns=True)
        .sort("step")
    )
    idle, barrier_ms = (
        ranks.select(pl.col(f"^{name}_.*$")).fill_null(float("nan")).to_numpy()
        for name in ("idle", "barrier_ms")
    )
    return idle, np.nanmax(barrier_ms, axis=1)
