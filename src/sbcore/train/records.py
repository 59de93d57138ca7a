"""What a rank reports of a step, and how all ranks come to know all reports.

L layers, N sequences of the step, K rungs of the ladder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from sbcore.train.clock import PendingTimes, Span
from sbcore.tune.ledger import LedgerPart, PendingLedger
from sbcore.types import FloatArray


@dataclass(frozen=True)
class StepReport:
    """One rank's account of one step; milliseconds."""

    loss: float
    grad_norm: float
    step_ms: float
    spans: list[Span]
    parts: dict[str, float]
    ledger: list[LedgerPart]


@dataclass(frozen=True)
class PendingReport:
    """A step that the device may still be working on."""

    scalars: torch.Tensor  # float32 [2] on the host: loss, gradient norm; there when times are
    times: PendingTimes
    ledger: PendingLedger
    tune_ms: float  # host time of tuning inside the layers

    def read(self) -> StepReport:
        """Returns the report; waits for the end of this step, not of later ones."""
        times = self.times.read()
        parts = times.parts | {"tune": times.parts.get("tune", 0.0) + self.tune_ms}
        loss, grad_norm = self.scalars.tolist()
        return StepReport(loss, grad_norm, times.step_ms, times.spans, parts, self.ledger.result())


def copy_later(*scalars: torch.Tensor) -> torch.Tensor:
    """Returns the scalars on the host, float32; from a GPU they arrive with its stream."""
    together = torch.stack([scalar.float() for scalar in scalars])
    if together.device.type != "cuda":
        return together
    host = torch.empty(together.shape, dtype=torch.float32, pin_memory=True)
    return host.copy_(together, non_blocking=True)


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
