"""The second level of tuning: inside a layer, the curve of this very micro-batch has the last word.

Nothing here waits for the device: targets go up from page-locked memory, one launch clamps a layer
and writes its part of the account, and `tune.ledger` brings the account back with one copy. On a
CPU the same is a few lines of Python, since a micro-batch has few sequences.

L layers, N sequences, K rungs of the ladder, T tokens, H query heads, G key heads, D head dim, S
sequences rounded up so that every layer's budgets are aligned alike.
"""

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

import torch

from sbcore.attention.call import AttentionCall
from sbkernels import coverage_curve

ALIGNMENT = 4
"""Budgets of a layer begin at a multiple of so many int32, as in sbkernels' clamp."""

MIN_ROW_STRIDE, MAX_ROW_STRIDE = 32, 128
ROWS_OF_LONGEST = 512
"""Rows of the longest sequence that its curve is measured on, where it has that many."""


@dataclass(frozen=True)
class ClampLimits:
    """How far a layer may move: p of coverage (0..1) against k0, within floor and cap.

    Floor and cap are budgets in blocks; they hold after the clamp and the carry, whatever the
    targets are.
    """

    p: float
    floor: int
    cap: int


@dataclass
class TargetBudgets:
    """Budgets of a micro-batch decided before the step: used as they are, or clamped by limits.

    ``targets`` is int32 [L, N] on the host and ``ladder`` int32 [K] on the device, ``rungs`` the
    same on the host. ``sequences`` are the step's indices of the micro-batch, none for a dummy.
    What a layer could not cut (or raise) within p is carried to the next one, in blocks: a block
    costs the same in every layer. ``measure`` asks for curves also without limits; ``dense`` only
    measures, and attention takes all blocks.
    """

    targets: torch.Tensor
    sequences: tuple[int, ...]
    ladder: torch.Tensor
    rungs: tuple[int, ...]
    top_k0: int
    limits: ClampLimits | None
    measure: bool
    dense: bool
    host_ms: float = 0.0
    account: torch.Tensor | None = field(default=None, init=False)
    """int32 on the device once a curve was measured: budgets [L, S], float32 curves [L, N, K]."""

    def __post_init__(self) -> None:
        num_layers, num_sequences = self.targets.shape
        stride = -(-num_sequences // ALIGNMENT) * ALIGNMENT
        padded = torch.zeros(
            (num_layers, stride), dtype=torch.int32, pin_memory=self.ladder.is_cuda
        )
        padded[:, :num_sequences] = self.targets
        self._uploaded = padded.to(self.ladder.device, non_blocking=True)
        self._used = self._uploaded[:, :num_sequences]
        if self.measures:
            size = num_layers * (stride + num_sequences * len(self.rungs))
            self.account = torch.empty(size, dtype=torch.int32, device=self.ladder.device)
            self._carry = torch.zeros(num_sequences, dtype=torch.int32, device=self.ladder.device)
            budgets, self._curves = self.views(self.account)
            self._used = self._used if self.limits is None else budgets

    @property
    def measures(self) -> bool:
        """Whether every layer measures its curve."""
        return self.measure or self.limits is not None

    @property
    def top_k_range(self) -> tuple[int, int] | None:
        """Least and greatest budget, if known before the layers have seen their curves."""
        if self.limits is not None or self.targets.numel() == 0:
            return None
        return int(self.targets.min()), int(self.targets.max())

    def top_k(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, call: AttentionCall
    ) -> torch.Tensor | None:
        """Returns the layer's top_k, int32 [N], None if dense; the account has it and its curve."""
        started = time.perf_counter()
        if self.measures:
            curve = _curve(q, k, call, self.rungs)
            (self._clamp_on_device if curve.is_cuda else self._clamp_on_host)(layer, curve)
        self.host_ms += 1e3 * (time.perf_counter() - started)
        return None if self.dense else self._used[layer]

    def views(self, account: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns budgets int32 [L, N] and curves float32 [L, N, K] of an account, not copied."""
        num_layers, num_sequences = self.targets.shape
        budgets = account[: self._uploaded.numel()].view(self._uploaded.shape)
        curves = account[self._uploaded.numel() :].view(torch.float32)
        return budgets[:, :num_sequences], curves.view(num_layers, num_sequences, -1)

    def _clamp_on_device(self, layer: int, curve: torch.Tensor) -> None:
        assert self.account is not None, "a curve was measured without an account"
        if self.limits is None:
            self._curves[layer].copy_(curve)
            return
        from sbkernels.moba.triton.clamp import clamp_budgets

        clamp_budgets(
            curve,
            self._uploaded,
            ladder=self.ladder,
            carry=self._carry,
            account=self.account,
            layer=layer,
            base_rung=self.rungs.index(self.top_k0),
            p=self.limits.p,
            floor=self.limits.floor,
            cap=self.limits.cap,
        )

    def _clamp_on_host(self, layer: int, curve: torch.Tensor) -> None:
        self._curves[layer] = curve
        if self.limits is None:
            return
        wanted = (self.targets[layer] - self._carry).tolist()
        used = [
            min(max(want, low), high)
            for want, (low, high) in zip(wanted, self._ranges(curve.tolist()), strict=True)
        ]
        self._used[layer] = torch.tensor(used)
        self._carry += self._used[layer] - self.targets[layer]

    def _ranges(self, curves: list[list[float]]) -> list[tuple[int, int]]:
        assert self.limits is not None, "nothing limits the budgets"
        base = self.rungs.index(self.top_k0)
        return [
            clamp_range(curve, self.rungs, base_rung=base, limits=self.limits) for curve in curves
        ]


def clamp_range(
    curve: Sequence[float], rungs: Sequence[int], *, base_rung: int, limits: ClampLimits
) -> tuple[int, int]:
    """Returns the least and the greatest budget of a rising curve [K]: p, floor and cap.

    As `tune.coverage.budget_bounds`, for few sequences without an array: in the middle of a step
    numpy's code is cold, and fifteen small calls of it took 0.4 ms where this takes 0.1.
    """
    least, cap = limits.floor, limits.cap
    low = high = rungs[base_rung]
    if isfinite(sum(curve)):
        base = curve[base_rung]
        low = rungs[bisect_left(curve, base - limits.p)]
        high = max(rungs[bisect_left(curve, min(base + limits.p, curve[-1]))], high)
    return min(max(low, least), cap), min(max(high, least), cap)


def row_stride(max_seqlen: int) -> int:
    """Returns the query rows between those that a curve is measured on, a power of two.

    At most 512 rows of the longest sequence where it has up to 64K tokens: more would cost time and
    change a curve by less than a point, a tenth of the default p (tests/unit/tune/test_rows.py).
    """
    stride = MIN_ROW_STRIDE
    while stride < MAX_ROW_STRIDE and max_seqlen > stride * ROWS_OF_LONGEST:
        stride *= 2
    return stride


def _curve(
    q: torch.Tensor, k: torch.Tensor, call: AttentionCall, rungs: tuple[int, ...]
) -> torch.Tensor:
    return coverage_curve(
        q,
        k,
        call.cu_seqlens,
        block_size=call.block_size,
        max_seqlen=call.max_seqlen,
        ladder=rungs,
        row_stride=row_stride(call.max_seqlen),
        backend=call.backend,
    )
