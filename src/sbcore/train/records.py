"""What a rank reports of a step, and the files that rank 0 makes of all reports.

L layers, N sequences of the step, K rungs of the ladder.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist

from sbcore.artifacts import replace_when_done
from sbcore.train.batches import PackedBatch
from sbcore.train.clock import Span, StepClock
from sbcore.tune.clamp import TargetBudgets
from sbcore.types import FloatArray, IntArray


@dataclass(frozen=True)
class LedgerPart:
    """Budgets and coverage of one micro-batch."""

    sequences: tuple[int, ...]
    top_k_target: IntArray  # [L, n]
    top_k: IntArray  # [L, n]
    curves: FloatArray | None  # [L, n, K]


@dataclass(frozen=True)
class StepReport:
    """One rank's account of one step; milliseconds."""

    loss: float
    spans: list[Span]
    parts: dict[str, float]
    ledger: list[LedgerPart]


def make_report(
    loss: torch.Tensor,
    clock: StepClock,
    batches: Sequence[PackedBatch],
    budgets: Sequence[TargetBudgets],
) -> StepReport:
    """Returns this rank's report; the first place where the host reads the step's tensors."""
    ledger = [
        _ledger_part(batch, source)
        for batch, source in zip(batches, budgets, strict=True)
        if not batch.is_dummy
    ]
    inside = sum(source.host_ms for source in budgets)
    parts = clock.parts | {"tune": clock.parts["tune"] + inside}
    return StepReport(float(loss), clock.spans, parts, ledger)


def gather_reports(
    report: StepReport, group: dist.ProcessGroup, world_size: int
) -> list[StepReport]:
    """Returns the reports of all ranks, in rank order, on all ranks."""
    reports: list[Any] = [None] * world_size
    dist.all_gather_object(reports, report, group=group)
    return reports


def curves_of_step(reports: Sequence[StepReport], shape: tuple[int, int, int]) -> FloatArray:
    """Returns the measured curves in the plan's order, [L, N, K], NaN where not measured."""
    curves = np.full(shape, np.nan)
    for report in reports:
        for part in report.ledger:
            if part.curves is not None:
                curves[:, list(part.sequences)] = part.curves
    return curves


def _ledger_part(batch: PackedBatch, source: TargetBudgets) -> LedgerPart:
    records = [source.records[layer] for layer in sorted(source.records)]
    curves = [record.curve for record in records if record.curve is not None]
    return LedgerPart(
        sequences=batch.sequences,
        top_k_target=torch.stack([r.top_k_target for r in records]).cpu().numpy().astype(np.int64),
        top_k=torch.stack([r.top_k for r in records]).cpu().numpy().astype(np.int64),
        curves=torch.stack(curves).double().cpu().numpy() if curves else None,
    )


class Table:
    """Rows that grow step by step and are written whole."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []

    def add(self, columns: dict[str, Any]) -> None:
        """Appends rows given by column."""
        self._parts.append(pa.table(columns))

    def write(self, path: Path) -> None:
        """Writes all rows so far."""
        with replace_when_done(path) as part:
            pq.write_table(pa.concat_tables(self._parts), part)

    def load(self, path: Path) -> None:
        """Takes over the rows of an interrupted run."""
        self._parts = [pq.read_table(path)]


class MetricsFile:
    """metrics.jsonl: one object per step, written at once, so that a killed run leaves them."""

    def __init__(self, path: Path, *, first_step: int) -> None:
        self.path = path
        kept = [row for row in self.rows() if row["step"] < first_step] if path.is_file() else []
        with replace_when_done(path) as part:
            part.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def add(self, row: dict[str, Any]) -> None:
        """Appends one step."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, allow_nan=False) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """Returns all whole lines; a line cut off by a kill is left out."""
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line]
