"""Coverage curve in one launch: routing mass of the first k blocks, over a fixed stride of rows.

A program sums over the rows of a tile; the last one of a sequence to finish takes the mean of all
and clamps the layer's budget. Which one is the last varies, the order of its sums does not (tiles,
then heads), so equal inputs give equal bits.

Shapes: H query heads, G key heads, D head dim, N sequences, K rungs of the ladder (rounded up to a
power of two), S padded blocks, P tiles of SAMPLES sampled rows, B blocks (a power of two).
"""

import triton
import triton.language as tl

from sbkernels.moba.triton.blocks import find_tile
from sbkernels.moba.triton.clamp import clamp_sequence
from sbkernels.moba.triton.score import score_blocks

# Sequences that a program looks through at a time for its own, and sums that it adds up at a time.
SEQUENCES_PER_PASS = tl.constexpr(32)
SUMS_PER_PASS = tl.constexpr(32)
# Fewer blocks are sorted as so many.
LEAST_WIDTH = tl.constexpr(16)


@triton.jit(
    do_not_specialize=[
        "num_blocks",
        "num_sequences",
        "num_rungs",
        "row_stride",
        "layer",
        "base_rung",
        "p",
        "floor",
        "cap",
    ]
)
def coverage_kernel(
    q_ptr,
    centroids_ptr,
    rungs_ptr,
    sums_ptr,
    arrived_ptr,
    curves_ptr,
    targets_ptr,
    budgets_ptr,
    carry_ptr,
    cu_ptr,
    first_block_ptr,
    stride_qt,
    stride_qh,
    stride_qd,
    stride_cu,
    num_blocks,
    num_sequences,
    num_rungs,
    row_stride,
    layer,
    scale,
    base_rung,
    p,
    floor,
    cap,
    GROUP: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    D: tl.constexpr,
    SAMPLES: tl.constexpr,
    B: tl.constexpr,
    K: tl.constexpr,
):
    """One program per (tile of sampled rows, query head); without k0, below 0, none is clamped."""
    tile, head = tl.program_id(0), tl.program_id(1)
    span = SAMPLES * row_stride
    sequence, token, length, first = find_tile(
        cu_ptr, stride_cu, num_sequences, tile, span, None, SEQUENCES_PER_PASS
    )
    if length == 0:
        return
    row = ((tile - first) * SAMPLES + tl.arange(0, SAMPLES)) * row_stride
    real = row < length
    dim = tl.arange(0, D)
    address = (token + row).to(tl.int64)[:, None] * stride_qt + dim[None, :] * stride_qd
    q = tl.load(q_ptr + head.to(tl.int64) * stride_qh + address, mask=real[:, None], other=0.0)
    own = row // BLOCK_SIZE
    seen = tl.max(tl.where(real, own, 0)) + 1
    start = tl.load(first_block_ptr + sequence)
    centroids_ptr += ((head // GROUP).to(tl.int64) * num_blocks + start) * D
    here = sums_ptr + (tile.to(tl.int64) * tl.num_programs(1) + head) * num_rungs
    # The sort is most of the work, and most tiles of most packs see few of the blocks.
    FEW: tl.constexpr = max(B // 8, LEAST_WIDTH)
    HALF: tl.constexpr = max(B // 2, LEAST_WIDTH)
    if seen <= FEW:
        _sum_rungs(here, rungs_ptr, q, centroids_ptr, real, own, seen, num_rungs, scale, D, FEW)
    elif seen <= HALF:
        _sum_rungs(here, rungs_ptr, q, centroids_ptr, real, own, seen, num_rungs, scale, D, HALF)
    else:
        _sum_rungs(here, rungs_ptr, q, centroids_ptr, real, own, seen, num_rungs, scale, D, B)

    num_sums = (length + span - 1) // span * tl.num_programs(1)
    # All threads have written before one of them says so.
    tl.debug_barrier()
    if tl.atomic_add(arrived_ptr + sequence, 1, sem="acq_rel") < num_sums - 1:
        return
    tl.store(arrived_ptr + sequence, 0)
    rung = tl.arange(0, K)
    ladder = tl.load(rungs_ptr + rung, mask=rung < num_rungs, other=0)
    sums_ptr += first.to(tl.int64) * tl.num_programs(1) * num_rungs
    total = _add_up(sums_ptr, num_sums, num_rungs, K)
    num_rows = (length + row_stride - 1) // row_stride * tl.num_programs(1)
    curve = total / num_rows.to(tl.float32)
    # Rounding only; comparisons leave what is not a number as it is, which `tl.minimum` does not.
    curve = tl.where(curve > 1.0, 1.0, curve)
    whole = ladder >= (length + BLOCK_SIZE - 1) // BLOCK_SIZE
    curve = tl.where(whole, curve * 0.0 + 1.0, curve)
    at = (layer * num_sequences + sequence).to(tl.int64) * num_rungs
    tl.store(curves_ptr + at + rung, curve, mask=rung < num_rungs)
    if base_rung >= 0:
        clamp_sequence(
            curve,
            ladder,
            targets_ptr,
            budgets_ptr,
            carry_ptr,
            layer,
            sequence,
            num_sequences,
            num_rungs,
            base_rung,
            p,
            floor,
            cap,
            K,
        )


@triton.jit
def _sum_rungs(
    sums_ptr,
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
        tl.store(sums_ptr + i, total)


@triton.jit
def _add_up(sums_ptr, num_sums, num_rungs, K: tl.constexpr):
    """Returns the sum over rows [num_sums, num_rungs] of memory, float32 [K], in fixed order.

    Read past the first cache, which may hold what another layer left there.
    """
    index, rung = tl.arange(0, SUMS_PER_PASS), tl.arange(0, K)
    total = tl.zeros((SUMS_PER_PASS, K), tl.float32)
    base = 0
    while base < num_sums:
        real = (base + index < num_sums)[:, None] & (rung < num_rungs)[None, :]
        address = (base + index)[:, None] * num_rungs + rung[None, :]
        total += tl.load(sums_ptr + address, mask=real, other=0.0, cache_modifier=".cg")
        base += SUMS_PER_PASS
    return tl.sum(total, axis=0)
