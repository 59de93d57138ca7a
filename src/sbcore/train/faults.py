"""Losses that are not finite: the step is skipped without asking the device, and counted.

The decision stays on the device: fused AdamW takes a flag and leaves weights, moments and step
counts alone where it is one. The host reads the norm a step later, when it is there anyway.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from sbcore.errors import SparseBalanceError
from sbcore.types import IntArray


def finite_guard(optimizer: torch.optim.Optimizer, norm: torch.Tensor) -> torch.Tensor:
    """Makes the coming optimizer step do nothing if the global gradient norm is not finite.

    Returns the flag, float32 [] on the norm's device: 1.0 = skipped. The norm must be that of all
    ranks, so that all skip together. The optimizer must be fused: others refuse the flag.
    """
    whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
    found_inf = torch.logical_not(torch.isfinite(whole)).to(torch.float32)
    optimizer.found_inf = found_inf  # type: ignore[attr-defined]
    return found_inf


class NonFiniteCount:
    """Counts skipped steps; stops training after ``limit`` in a row."""

    def __init__(self, *, limit: int) -> None:
        self.limit, self.total, self.in_a_row = limit, 0, 0

    def observe(
        self, step: int, norm: float, *, losses: Sequence[float], last_good: str
    ) -> str | None:
        """Takes in a step's global gradient norm; returns a line to show if it was skipped.

        ``losses`` are the ranks' shares; ``last_good`` names the newest checkpoint.

        Raises:
            SparseBalanceError: So many steps in a row were skipped as the limit says.
        """
        if math.isfinite(norm):
            self.in_a_row = 0
            return None
        self.total += 1
        self.in_a_row += 1
        what = f"step {step}: gradient norm = {norm}{_bad_ranks(losses)}"
        if self.in_a_row >= self.limit:
            raise SparseBalanceError(
                f"{what}: not finite, step {self.limit} in a row. look at these samples, or "
                "lower train.learning_rate, with which training starts anew; "
                f"last good checkpoint: {last_good}."
            )
        return f"{what}: not finite, step skipped ({self.in_a_row} in a row, {self.total} in all)"

    def state(self) -> dict[str, IntArray]:
        """Returns the counts for a checkpoint."""
        return {"non_finite": np.array([self.total, self.in_a_row])}

    def load(self, state: Mapping[str, IntArray]) -> None:
        """Takes over the counts of a checkpoint."""
        self.total, self.in_a_row = (int(x) for x in state["non_finite"])


def _bad_ranks(losses: Sequence[float]) -> str:
    bad = [f"loss of rank {r} = {x}" for r, x in enumerate(losses) if not math.isfinite(x)]
    return "".join(f", {text}" for text in bad)
