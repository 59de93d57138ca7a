"""The columns of the comparison and what they mean."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sbcore.report.compare import Row
from sbcore.report.numbers import ABSENT, milliseconds, number, signed


@dataclass(frozen=True)
class Column:
    """A column of the comparison: its words, and its text for a row."""

    label: str
    unit: str
    kind: Literal["measured", "predicted"]
    meaning: str
    text: Callable[[Row], str]
    optional: bool = False
    """Left out where no variant has a number."""


def shown_columns(rows: list[Row]) -> list[Column]:
    """Returns the columns, without optional ones that would be empty."""
    return [c for c in COLUMNS if not c.optional or any(c.text(row) != ABSENT for row in rows)]


def _percent(share: float | None) -> str:
    return number(None if share is None else 100 * share, 1)


COLUMNS = (
    Column(
        "speedup",
        "×",  # noqa: RUF001
        "measured",
        "Median step time of the baseline divided by that of the variant, over the measured steps "
        "that both have; both see the same global batch in a step. Below it, the 20th and 80th "
        "percentile of the same ratio in single steps: how much the gain depends on the batch.",
        lambda row: number(row.speedup.ratio if row.speedup else None, 2),
    ),
    Column(
        "step time",
        "ms",
        "measured",
        "Median time of an optimizer step, from reading its data to updated weights; below it the "
        "20th and 80th percentile. The first steps, which pay for caches, are left out.",
        lambda row: milliseconds(row.step_time_ms.median if row.step_time_ms else None),
    ),
    Column(
        "throughput",
        "tokens/s",
        "measured",
        "Tokens of all ranks divided by the time of all measured steps.",
        lambda row: number(row.tokens_per_s, 0),
    ),
    Column(
        "imbalance",
        "max / mean",
        "measured",
        "Computing time of the slowest rank divided by the mean of all, between two barriers; "
        "1 is perfect, and nobody waits.",
        lambda row: number(row.imbalance, 2),
    ),
    Column(
        "imbalance",
        "max / mean",
        "predicted",
        "The same ratio from the latency table, at the budgets in use. If it is far below the "
        "measured one, the table does not know this machine.",
        lambda row: number(row.predicted_imbalance, 2),
    ),
    Column(
        "optimality gap",
        "%",
        "predicted",
        "How much longer the plan takes, by its own prediction, than a bound that no plan can "
        "beat. Zero: only other budgets could help, no other order.",
        lambda row: number(None if row.optimality_gap is None else 100 * row.optimality_gap, 1),
    ),
    Column(
        "waiting",
        "%",
        "measured",
        "Share of the step time that a rank spends in collectives, mean over ranks: waiting for "
        "others, and the transfer itself.",
        lambda row: number(row.waiting_pct, 1),
    ),
    Column(
        "bubbles filled",
        "%",
        "predicted",
        "Of the time that ranks would wait for each other at the fixed budget, the share that "
        "tuning removed: faster ranks were given more blocks, slower ones fewer. Empty where less "
        "than 1 % of the time would be idle.",
        lambda row: number(row.bubble_filled_pct, 0),
        optional=True,
    ),
    Column(
        "overhead",
        "%",
        "measured",
        "Share of the step time spent on planning and tuning; it is contained in the step time.",
        lambda row: number(row.overhead_pct, 1),
    ),
    Column(
        "coverage_delta",
        "points",
        "measured",
        "Routing mass in the chosen blocks, minus that at the fixed budget, weighted by tokens. "
        "Negative: speed was bought by looking at less.",
        lambda row: signed(row.coverage_delta, 2),
    ),
    Column(
        "coverage bought",
        "points",
        "measured",
        "What raised budgets gained, by the same measure. Cut ones lost the difference to "
        "coverage_delta.",
        lambda row: signed(row.coverage_bought, 2),
        optional=True,
    ),
    Column(
        "useful MFU",
        "%",
        "measured",
        "Arithmetic that the model needs at the budgets used, over the device's peak. Work done "
        "twice, for recomputation, does not count.",
        lambda row: _percent(row.mfu_useful),
        optional=True,
    ),
    Column(
        "dense-equivalent MFU",
        "%",
        "measured",
        "The same, counting attention as if it were dense: comparable with dense training, and no "
        "measure of how well the device is used.",
        lambda row: _percent(row.mfu_dense_equivalent),
        optional=True,
    ),
    Column(
        "HFU",
        "%",
        "measured",
        "All arithmetic that was done, recomputation included, over the device's peak.",
        lambda row: _percent(row.hfu),
        optional=True,
    ),
    Column(
        "final loss",
        "nats",
        "measured",
        "Mean training loss of the last tenth of the steps, per target token.",
        lambda row: number(row.loss_final, 3),
    ),
    Column(
        "mean score",
        "%",
        "measured",
        "Mean over the tasks of the evaluation, each 0 to 100.",
        lambda row: number(row.score_mean, 1),
    ),
)
