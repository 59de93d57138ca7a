"""The second level of tuning: inside a layer, the curve of this very micro-batch has the last word.

Nothing here waits for the device: targets go up from page-locked memory, one launch measures and
clamps a layer and writes its part of the account (`tune.layer_clamp`), and `tune.ledger` brings the
account back with one copy.

L layers, N sequences, K rungs of the ladder, T tokens, H query heads, G key heads, D head dim, S
sequences rounded up so that every layer's budgets are aligned alike.
"""

import time
from dataclasses import dataclass, field

import torch

from sbcore.attention.call import AttentionCall
from sbcore.tune.layer_clamp import ClampLimits, LayerMeasure, LayerTables, make_measure

__all__ = ["ALIGNMENT", "ClampLimits", "TargetBudgets"]

ALIGNMENT = 4
"""Budgets of a layer begin at a multiple of so many int32, as in sbkernels' clamp."""


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
    """int32 on the device once a curve is measured: budgets [L, S], float32 curves [L, N, K]."""

    def __post_init__(self) -> None:
        num_layers, num_sequences = self.targets.shape
        stride = -(-num_sequences // ALIGNMENT) * ALIGNMENT
        padded = torch.zeros(
            (num_layers, stride), dtype=torch.int32, pin_memory=self.ladder.is_cuda
        )
        padded[:, :num_sequences] = self.targets
        self._uploaded = padded.to(self.ladder.device, non_blocking=True)
        if self.measures:
            size = num_layers * num_sequences * len(self.rungs)
            # A sequence without tokens keeps its target and a curve of ones.
            ones = self.ladder.new_ones(size, dtype=torch.float32).view(torch.int32)
            self.account = torch.cat([self._uploaded.flatten(), ones])
        used = self._uploaded
        if self.account is not None and self.limits is not None:
            used, _ = self._padded_views(self.account)
        self._used = used[:, :num_sequences].unbind()
        self._layers: LayerMeasure | None = None

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
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        call: AttentionCall,
        *,
        means: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """Returns the layer's top_k, int32 [N], None if dense; the account has it and its curve."""
        started = time.perf_counter()
        if self.measures:
            if self._layers is None:
                self._layers = make_measure(self._tables(), q, k, call)
            self._layers.measure(layer, q, k, means=means)
        self.host_ms += 1e3 * (time.perf_counter() - started)
        return None if self.dense else self._used[layer]

    def views(self, account: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns budgets int32 [L, N] and curves float32 [L, N, K] of an account, not copied."""
        budgets, curves = self._padded_views(account)
        return budgets[:, : curves.shape[1]], curves

    def _padded_views(self, account: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        num_layers, num_sequences = self.targets.shape
        budgets = account[: self._uploaded.numel()].view(self._uploaded.shape)
        curves = account[self._uploaded.numel() :].view(torch.float32)
        return budgets, curves.view(num_layers, num_sequences, -1)

    def _tables(self) -> LayerTables:
        assert self.account is not None, "a curve is measured without an account"
        budgets, curves = self._padded_views(self.account)
        base_rung = self.rungs.index(self.top_k0) if self.limits is not None else 0
        return LayerTables(
            self._uploaded, budgets, curves, self.ladder, self.rungs, base_rung, self.limits
        )
