"""One step of one variant in numbers, and the raw csv that holds them all."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """A row of the raw csv behind the words of its setting; steps of a round are comparable."""

    variant: str
    round: int
    measured: bool
    """False for warm-up."""
    step_ms: float
    predicted_ms: float
    num_tokens: int
    imbalance: float
    predicted_imbalance: float
    coverage_delta: float | None
    """Points; None where it was not measured."""
    compute_ms: float
    """Mean over ranks, as the next one."""
    waiting_ms: float
    data_ms: float
    """Of the slowest rank, as the rest."""
    plan_ms: float
    """Of the host, as tune_ms: most of it passes while the device computes."""
    tune_ms: float
    gap_ms: float | None
    """What the device waited for either between two steps; None where it was not measured."""
    optimizer_ms: float
    useful_tflop: float
    """Work of the step, all ranks, by the three counts of `sbcore.train.flops`."""
    dense_equivalent_tflop: float
    executed_tflop: float
    loss: float | None
    """None where it was not finite and the step was skipped."""

    @property
    def overhead_ms(self) -> float:
        """What the method itself costs the host."""
        return self.plan_ms + self.tune_ms


STEP_COLUMNS = tuple(field.name for field in fields(MeasuredStep))
_MEANS = frozenset({"compute_ms", "waiting_ms"})
"""Columns that are a mean over ranks; of the others that have ranks the slowest is taken."""


def measured_step(variant: str, row: Mapping[str, Any], *, measured: bool) -> MeasuredStep:
    """Returns the numbers of a trainer's row; lists over ranks become their mean or greatest."""
    names = [name for name in STEP_COLUMNS if name not in ("variant", "round", "measured")]
    values = {name: _over_ranks(name, row[name]) for name in names}
    return MeasuredStep(variant, row["step"], measured, **values)


def _over_ranks(name: str, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return float(np.mean(value)) if name in _MEANS else max(value)


def parse_step(cells: Mapping[str, str]) -> MeasuredStep:
    """Returns the step of a line of the raw csv."""
    values: dict[str, Any] = {name: cells[name] for name in STEP_COLUMNS}
    for name in STEP_COLUMNS:
        if name in ("round", "num_tokens"):
            values[name] = int(cells[name])
        elif name == "measured":
            values[name] = cells[name] == "True"
        elif name != "variant":
            values[name] = float(cells[name]) if cells[name] else None
    return MeasuredStep(**values)
