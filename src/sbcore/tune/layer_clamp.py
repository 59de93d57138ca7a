"""A layer's curve and what it makes of the layer's targets: in one launch, or on the host.

L layers, N sequences, K rungs of the ladder, T tokens, H query heads, G key heads, D head dim, S
sequences rounded up so that every layer's budgets are aligned alike.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from sbcore.attention.call import AttentionCall
from sbkernels import coverage_curve
from sbkernels.moba.coverage import PackCurves

if TYPE_CHECKING:
    from sbkernels.moba.triton.coverage import LayerClamp

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


@dataclass(frozen=True)
class LayerTables:
    """What all layers of a micro-batch read and write, on the device.

    ``ladder`` is int32 [K] and ``rungs`` the same on the host, where k0 has index ``base_rung``.
    ``limits`` None measures only.
    """

    targets: torch.Tensor  # int32 [L, S]
    budgets: torch.Tensor  # int32 [L, S], written
    curves: torch.Tensor  # float32 [L, N, K], written
    ladder: torch.Tensor
    rungs: tuple[int, ...]
    base_rung: int
    limits: ClampLimits | None


class LayerMeasure(Protocol):
    """Measures the layers of one micro-batch, in their order."""

    def measure(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, *, means: torch.Tensor | None = None
    ) -> None:
        """Writes the layer's curves, and its budgets if there are limits.

        ``means`` of the keys of each block [B, G, D] are used where they are of use.
        """
        ...


def make_measure(
    tables: LayerTables, q: torch.Tensor, k: torch.Tensor, call: AttentionCall
) -> LayerMeasure:
    """Returns what measures the layers of this call, of which q [T, H, D] and k [T, G, D] are one.

    On a GPU nothing waits for the device, unless a backend was asked for that has no launch for it.
    """
    if q.is_cuda and call.backend in ("auto", "triton"):
        return DeviceMeasure(tables, q, k, call)
    return HostMeasure(tables, call)


class DeviceMeasure:
    """One launch a layer besides the pooling of its keys."""

    def __init__(
        self, tables: LayerTables, q: torch.Tensor, k: torch.Tensor, call: AttentionCall
    ) -> None:
        from sbkernels.moba.triton.coverage_layers import LayerCurves

        self._clamp = _device_clamp(tables)
        self._layers = LayerCurves(
            q,
            k,
            call.cu_seqlens,
            block_size=call.block_size,
            max_seqlen=call.max_seqlen,
            rungs=tables.ladder,
            most_blocks=tables.rungs[-1],
            row_stride=row_stride(call.max_seqlen),
            curves=tables.curves,
        )

    def measure(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, *, means: torch.Tensor | None = None
    ) -> None:
        """Writes the layer's curves, and its budgets if there are limits."""
        self._layers.write(q, k, layer=layer, clamp=self._clamp)


def _device_clamp(tables: LayerTables) -> "LayerClamp | None":
    from sbkernels.moba.triton.coverage import LayerClamp

    if tables.limits is None:
        return None
    return LayerClamp(
        targets=tables.targets,
        budgets=tables.budgets,
        carry=torch.zeros_like(tables.budgets[0]),
        base_rung=tables.base_rung,
        p=tables.limits.p,
        floor=tables.limits.floor,
        cap=tables.limits.cap,
    )


class HostMeasure:
    """A few lines of Python a layer, since a micro-batch has few sequences."""

    def __init__(self, tables: LayerTables, call: AttentionCall) -> None:
        self._rungs, self._base_rung, self._limits = tables.rungs, tables.base_rung, tables.limits
        self._write = _writer(call, tables.rungs)
        num_sequences = len(call.lengths)
        self._curves = tables.curves.unbind()
        self._targets = tables.targets[:, :num_sequences].tolist()
        self._budgets = tables.budgets[:, :num_sequences].unbind()
        self._carry = [0] * num_sequences

    def measure(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, *, means: torch.Tensor | None = None
    ) -> None:
        """Writes the layer's curves, and its budgets if there are limits."""
        curves = self._curves[layer]
        self._write(q, k, means, curves)
        if self._limits is None:
            return
        used = []
        for n, (target, curve) in enumerate(
            zip(self._targets[layer], curves.tolist(), strict=True)
        ):
            low, high = clamp_range(
                curve, self._rungs, base_rung=self._base_rung, limits=self._limits
            )
            wanted = target - self._carry[n]
            used.append(min(max(wanted, low), high))
            self._carry[n] = used[n] - wanted
        self._budgets[layer].copy_(torch.from_numpy(np.array(used)))


_Writer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor], object]


def _writer(call: AttentionCall, rungs: tuple[int, ...]) -> _Writer:
    """Returns what writes a layer's curves [N, K], given q [T, H, D], k [T, G, D] and its means."""
    stride, blocks = row_stride(call.max_seqlen), call.key_blocks
    if blocks is not None:
        pack = PackCurves(call.lengths, block_size=call.block_size, ladder=rungs, row_stride=stride)
        return lambda q, k, means, curves: pack.write(
            q, blocks.means(k) if means is None else means, curves=curves
        )
    measure = partial(
        coverage_curve,
        cu_seqlens=call.cu_seqlens,
        block_size=call.block_size,
        max_seqlen=call.max_seqlen,
        ladder=rungs,
        row_stride=stride,
        backend=call.backend,
    )
    return lambda q, k, _, curves: curves.copy_(measure(q, k))


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
