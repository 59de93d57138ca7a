"""Coverage curves of a pack on the device: which rows they are measured on, and their one launch.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences, L layers, K rungs of
the ladder, S sequences rounded up to a multiple of 4, P tiles of SAMPLES sampled rows.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
import triton

from sbkernels.moba.triton.blocks import BlockTable, bound_num_blocks
from sbkernels.moba.triton.coverage_kernel import coverage_kernel
from sbkernels.moba.triton.pool import pool_keys

# 16 rows and 1 warp: the sort stays in registers of one warp (4 warps are twice as slow).
SAMPLES = 16
WARPS_BY_WIDTH = {32: 1, 64: 1, 128: 1, 256: 1, 512: 4, 1024: 4, 2048: 8}


@dataclass(frozen=True, kw_only=True)
class SampledRows:
    """The rows of a pack that its curves are measured on, the same for all layers.

    Attributes:
        cu_seqlens: int32 [N+1].
        table: Where the key blocks of the pack lie.
        rungs: int32 [K], the ladder.
        row_stride: Query rows from one sampled row to the next.
        width: Power of two, at least the blocks of the longest sequence.
        sums: float32 [P, H, K], memory for what programs hand on; every layer writes it anew.
        arrived: int32 [N], zeros between launches.
    """

    cu_seqlens: torch.Tensor
    table: BlockTable
    rungs: torch.Tensor
    row_stride: int
    width: int
    sums: torch.Tensor
    arrived: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class LayerClamp:
    """What a layer's budgets are clamped to, and where they are written; see `clamp`.

    Attributes:
        targets: int32 [L, S].
        budgets: int32 [L, S], written.
        carry: int32 [N], blocks that earlier layers used beyond their targets; updated.
        base_rung: Index of k0 in the ladder.
        p: Most coverage lost or gained, 0..1.
        floor: Least budget.
        cap: Greatest budget.
    """

    targets: torch.Tensor
    budgets: torch.Tensor
    carry: torch.Tensor
    base_rung: int
    p: float
    floor: int
    cap: int


def sample_rows(
    q: torch.Tensor,
    cu_seqlens: torch.Tensor,
    table: BlockTable,
    *,
    rungs: torch.Tensor,
    max_num_blocks: int,
    row_stride: int,
) -> SampledRows:
    """Returns the rows of q [T, H, D] that count; ``max_num_blocks`` may be any upper bound.

    Packs with equal bounds share one compiled kernel.
    """
    num_sequences = cu_seqlens.shape[0] - 1
    span = SAMPLES * row_stride
    num_tiles = bound_num_blocks(q.shape[0], num_sequences, block_size=span)
    return SampledRows(
        cu_seqlens=cu_seqlens,
        table=table,
        rungs=rungs,
        row_stride=row_stride,
        width=max(min(WARPS_BY_WIDTH), triton.next_power_of_2(max_num_blocks)),
        sums=q.new_empty((num_tiles, q.shape[1], rungs.shape[0]), dtype=torch.float32),
        arrived=cu_seqlens.new_zeros(num_sequences),
    )


def write_curves(
    q: torch.Tensor,
    k: torch.Tensor,
    rows: SampledRows,
    curves: torch.Tensor,
    *,
    layer: int,
    scale: float,
    clamp: LayerClamp | None,
) -> None:
    """Writes a layer's curves, float32 [L, N, K], and its budgets if they are clamped.

    Sequences without tokens are left out: nothing is written for them. ``scale`` is that of the
    routing softmax.
    """
    num_tiles, num_heads, num_rungs = rows.sums.shape
    # Not read or written then: one compiled kernel does both.
    buffers, bounds = (rows.arrived,) * 3, (-1, 0.0, 0, 0)
    if clamp is not None:
        buffers = (clamp.targets, clamp.budgets, clamp.carry)
        bounds = (clamp.base_rung, clamp.p, clamp.floor, clamp.cap)
    coverage_kernel[(num_tiles, num_heads)](
        q,
        pool_keys(k, rows.table),
        rows.rungs,
        rows.sums,
        rows.arrived,
        curves,
        *buffers,
        rows.cu_seqlens,
        rows.table.first_block,
        *q.stride(),
        rows.cu_seqlens.stride(0),
        rows.table.num_blocks,
        rows.arrived.shape[0],
        num_rungs,
        rows.row_stride,
        layer,
        scale,
        *bounds,
        GROUP=num_heads // k.shape[1],
        BLOCK_SIZE=rows.table.block_size,
        D=q.shape[2],
        SAMPLES=SAMPLES,
        B=rows.width,
        K=triton.next_power_of_2(num_rungs),
        num_warps=WARPS_BY_WIDTH[rows.width],
    )


def compute_coverage(
    q: torch.Tensor,
    k: torch.Tensor,
    cu_seqlens: torch.Tensor,
    table: BlockTable,
    *,
    max_num_blocks: int,
    ladder: tuple[int, ...],
    row_stride: int,
    scale: float,
) -> torch.Tensor:
    """Returns the coverage float32 [N, K]; 1 for sequences without tokens."""
    rows = sample_rows(
        q,
        cu_seqlens,
        table,
        rungs=ladder_on(ladder, q.device),
        max_num_blocks=max_num_blocks,
        row_stride=row_stride,
    )
    curves = q.new_ones((table.num_sequences, len(ladder)), dtype=torch.float32)
    write_curves(q, k, rows, curves, layer=0, scale=scale, clamp=None)
    return curves


@lru_cache(maxsize=32)
def ladder_on(ladder: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Returns the ladder as int32 on the device; copied once, since a copy may wait for it."""
    return torch.tensor(ladder, dtype=torch.int32, device=device)
