"""Coverage curve: routing mass of the first k blocks, over a fixed stride of rows.

The sums run in a fixed order (tiles, then heads), so equal inputs give equal bits.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences, K rungs of the
ladder, S padded blocks, P tiles of SAMPLES sampled rows, B blocks (a power of two).
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl

from sbkernels.moba.triton.blocks import BlockTable, build_block_table, load_block
from sbkernels.moba.triton.pool import pool_keys
from sbkernels.moba.triton.score import score_blocks

# 16 rows and 1 warp: the sort stays in registers of one warp (4 warps are twice as slow).
SAMPLES = 16
WARPS_BY_WIDTH = {16: 1, 32: 1, 64: 1, 128: 1, 256: 1, 512: 4, 1024: 4, 2048: 8}


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
    """Returns the coverage float32 [N, K]; `scale` is that of the routing softmax."""
    num_tokens, num_heads, head_dim = q.shape
    # A "block" of this table is the span of one tile of sampled rows.
    tiles = build_block_table(cu_seqlens, num_tokens, block_size=SAMPLES * row_stride)
    rungs = ladder_on(ladder, q.device)
    partial = q.new_empty((tiles.num_blocks, num_heads, len(ladder)), dtype=torch.float32)
    width = max(16, triton.next_power_of_2(max_num_blocks))
    _coverage_kernel[(tiles.num_blocks, num_heads)](
        q,
        pool_keys(k, table),
        rungs,
        partial,
        tiles.entries,
        table.first_block,
        q.stride(0),
        q.stride(1),
        q.stride(2),
        table.num_blocks,
        len(ladder),
        scale,
        GROUP=num_heads // k.shape[1],
        BLOCK_SIZE=table.block_size,
        D=head_dim,
        SAMPLES=SAMPLES,
        ROW_STRIDE=row_stride,
        B=width,
        num_warps=WARPS_BY_WIDTH[width],
    )
    return _mean_coverage(partial, rungs, tiles, table, row_stride=row_stride)


def _mean_coverage(
    partial: torch.Tensor,
    rungs: torch.Tensor,
    tiles: BlockTable,
    table: BlockTable,
    *,
    row_stride: int,
) -> torch.Tensor:
    num_heads = partial.shape[1]
    curve = partial.new_empty((tiles.num_sequences, rungs.shape[0]))
    _mean_kernel[(tiles.num_sequences, rungs.shape[0])](
        partial,
        rungs,
        curve,
        tiles.entries,
        tiles.first_block,
        table.first_block,
        num_heads,
        rungs.shape[0],
        ROW_STRIDE=row_stride,
        PASS=1024,
        num_warps=4,
    )
    return curve


@lru_cache(maxsize=32)
def ladder_on(ladder: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Returns the ladder as int32 on the device; copied once, since a copy may wait for it."""
    return torch.tensor(ladder, dtype=torch.int32, device=device)


@triton.jit(do_not_specialize=["num_blocks", "num_rungs"])
def _coverage_kernel(
    q_ptr,
    centroids_ptr,
    rungs_ptr,
    partial_ptr,
    tiles_ptr,
    first_block_ptr,
    stride_qt,
    stride_qh,
    stride_qd,
    num_blocks,
    num_rungs,
    scale,
    GROUP: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    D: tl.constexpr,
    SAMPLES: tl.constexpr,
    ROW_STRIDE: tl.constexpr,
    B: tl.constexpr,
):
    """One program per (tile of sampled rows, query head): writes its sums for all rungs."""
    tile, head = tl.program_id(0), tl.program_id(1)
    sequence, token, length, first = load_block(tiles_ptr, tile)
    row = ((tile - first) * SAMPLES + tl.arange(0, SAMPLES)) * ROW_STRIDE
    real = row < length
    if tl.sum(real.to(tl.int32)) == 0:
        return
    dim = tl.arange(0, D)
    address = (token + row).to(tl.int64)[:, None] * stride_qt + dim[None, :] * stride_qd
    q = tl.load(q_ptr + head.to(tl.int64) * stride_qh + address, mask=real[:, None], other=0.0)
    own = row // BLOCK_SIZE
    seen = tl.max(tl.where(real, own, 0)) + 1
    start = tl.load(first_block_ptr + sequence)
    centroids_ptr += ((head // GROUP).to(tl.int64) * num_blocks + start) * D
    partial_ptr += (tile.to(tl.int64) * tl.num_programs(1) + head) * num_rungs
    # Tiles of the first half see at most half the blocks: half the sort.
    if seen <= B // 2:
        _sum_rungs(
            partial_ptr, rungs_ptr, q, centroids_ptr, real, own, seen, num_rungs, scale, D, B // 2
        )
    else:
        _sum_rungs(
            partial_ptr, rungs_ptr, q, centroids_ptr, real, own, seen, num_rungs, scale, D, B
        )


@triton.jit
def _sum_rungs(
    partial_ptr,
    rungs_ptr,
    q,
    centroids_ptr,
    real,
    own,
    seen,
    num_rungs,
    scale,
    D: tl.constexpr,
    B: tl.constexpr,
):
    """Writes for each rung the summed mass of the rows' first blocks, of B at most."""
    block = tl.arange(0, B)
    logits = score_blocks(q, centroids_ptr, seen, D, B, 0, 1) * scale
    logits = tl.where(block[None, :] <= own[:, None], logits, -float("inf"))
    mass = tl.exp(logits - tl.max(logits, axis=1)[:, None])
    mass = mass / tl.sum(mass, axis=1)[:, None]
    mass = tl.where(real[:, None], mass, 0.0)
    is_own = block[None, :] == own[:, None]
    # The own block has rank 0 whatever its mass, so it is added apart from the sorted rest.
    own_total = tl.sum(tl.where(is_own, mass, 0.0))
    by_rank = tl.sum(tl.sort(tl.where(is_own, 0.0, mass), dim=1, descending=True), axis=0)
    for i in tl.range(0, num_rungs):
        rung = tl.load(rungs_ptr + i)
        total = own_total + tl.sum(tl.where(block < rung - 1, by_rank, 0.0))
        tl.store(partial_ptr + i, total)


@triton.jit(do_not_specialize=["num_heads", "num_rungs"])
def _mean_kernel(
    partial_ptr,
    rungs_ptr,
    curve_ptr,
    tiles_ptr,
    first_tile_ptr,
    first_block_ptr,
    num_heads,
    num_rungs,
    ROW_STRIDE: tl.constexpr,
    PASS: tl.constexpr,
):
    """One program per (sequence, rung): the mean over its rows and heads, in fixed order."""
    sequence, i = tl.program_id(0), tl.program_id(1)
    tile = tl.load(first_tile_ptr + sequence)
    stop = tl.load(first_tile_ptr + sequence + 1)
    num_blocks = tl.load(first_block_ptr + sequence + 1) - tl.load(first_block_ptr + sequence)
    total = tl.zeros((PASS,), tl.float32)
    num_sums = (stop - tile) * num_heads
    for base in tl.range(0, num_sums, PASS):
        index = base + tl.arange(0, PASS)
        address = (tile.to(tl.int64) * num_heads + index) * num_rungs + i
        total += tl.load(partial_ptr + address, mask=index < num_sums, other=0.0)
    coverage = tl.sum(total)
    if tl.load(rungs_ptr + i) >= num_blocks:
        coverage = coverage * 0.0 + 1.0
    else:
        _, _, length, _ = load_block(tiles_ptr, tile)
        num_rows = (length + ROW_STRIDE - 1) // ROW_STRIDE
        coverage = tl.minimum(coverage / (num_rows * num_heads).to(tl.float32), 1.0)
    tl.store(curve_ptr + sequence * num_rungs + i, coverage)
