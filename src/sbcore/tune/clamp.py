"""The second level of tuning: inside a layer, the curve of this very micro-batch has the last word.

Nothing here waits for the device. N sequences, K rungs of the ladder, T tokens, H query heads,
G key heads, D head dim.
"""

import time
from dataclasses import dataclass, field

import torch

from sbcore.attention.call import AttentionCall
from sbkernels import coverage_curve

ROW_STRIDE = 32
"""Query rows between those that the curve is measured on: 1/32 of the rows, 1/32 of the cost."""


@dataclass
class LayerRecord:
    """What one layer of one micro-batch did; tensors stay on the device until the step is over."""

    top_k_target: torch.Tensor  # int32 [N]
    top_k: torch.Tensor  # int32 [N]
    curve: torch.Tensor | None  # float32 [N, K], None where coverage was not measured


@dataclass
class TargetBudgets:
    """Budgets decided before the step: used as they are, or clamped when ``p`` is given.

    ``targets`` is int32 [num_layers, N] and ``ladder`` int32 [K], both on the device. What a layer
    could not cut (or raise) within p is carried to the next one, in blocks: a block costs the same
    in every layer. ``measure`` asks for curves also without clamping; ``dense`` only measures, and
    attention takes all blocks.
    """

    targets: torch.Tensor
    ladder: torch.Tensor
    top_k0: int
    p: float | None
    measure: bool
    dense: bool
    rungs: tuple[int, ...]
    records: dict[int, LayerRecord] = field(default_factory=dict)
    host_ms: float = 0.0
    _carry: torch.Tensor | None = None

    def top_k(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, call: AttentionCall
    ) -> torch.Tensor | None:
        """Returns the layer's top_k, int32 [N], None if dense; records it with its curve."""
        started = time.perf_counter()
        target = self.targets[layer]
        curve = self._curve(q, k, call) if self.measure or self.p is not None else None
        used = target if self.p is None or curve is None else self._clamped(target, curve)
        self.records[layer] = LayerRecord(target, used, curve)
        self.host_ms += 1e3 * (time.perf_counter() - started)
        return None if self.dense else used

    def _curve(self, q: torch.Tensor, k: torch.Tensor, call: AttentionCall) -> torch.Tensor:
        return coverage_curve(
            q,
            k,
            call.cu_seqlens,
            block_size=call.block_size,
            max_seqlen=call.max_seqlen,
            ladder=self.rungs,
            row_stride=ROW_STRIDE,
            backend=call.backend,
        )

    def _clamped(self, target: torch.Tensor, curve: torch.Tensor) -> torch.Tensor:
        carry = torch.zeros_like(target) if self._carry is None else self._carry
        low, high = clamp_bounds(
            curve, self.ladder, base_rung=self.rungs.index(self.top_k0), p=self.p or 0.0
        )
        used = torch.minimum(torch.maximum(target - carry, low), high)
        self._carry = used - (target - carry)
        return used


def clamp_bounds(
    curve: torch.Tensor, ladder: torch.Tensor, *, base_rung: int, p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the least and greatest budget, int32 [N], as `tune.coverage.budget_bounds` does.

    curve is float32 [N, K], ladder int32 [K] on the same device, ``ladder[base_rung]`` is k0.
    Where the curve is not finite both bounds are k0.
    """
    base, fixed = curve[:, base_rung, None], ladder[base_rung]
    low = ladder[(curve >= base - p).int().argmax(dim=1)]
    goal = torch.minimum(base + p, curve.amax(dim=1, keepdim=True))
    high = torch.maximum(ladder[(curve >= goal).int().argmax(dim=1)], fixed)
    known = curve.isfinite().all(dim=1)
    return torch.where(known, low, fixed), torch.where(known, high, fixed)
