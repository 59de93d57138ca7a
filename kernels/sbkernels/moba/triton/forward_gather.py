"""Key-major forward: each key block attends all rows that chose it, its keys held on chip.

The work is exact whatever the rows choose, so it wins where neighbouring rows disagree (union
inflation above `MAX_INFLATION` in `tiles`). The rows' partial outputs meet in float32 sums in
memory, by atomic addition: 4 bytes x T x H x D, without slots or merge. Chunks are in the order of
heads, so the sums of the running programs stay in the L2 cache (3.0 against 1.2 TB/s of atomics).

Weights are relative to the largest logit of the row's own block, which is known beforehand: no
maximum is searched, and halves of a block need not wait for each other. The price: the last
bits vary from run to run, and a row whose logits exceed the reference too far would overflow.
Such a (head, sequence) is reported and done again by the union kernel, on the device.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences, S padded blocks,
R rows and C keys of a tile.
"""

import torch
import triton
import triton.language as tl

from sbkernels.moba.triton.blocks import BlockTable, load_block
from sbkernels.moba.triton.forward_union import LOG2_E, ForwardState
from sbkernels.moba.triton.rows import CHUNK_ROWS, RowLists, load_rows
from sbkernels.moba.triton.tiles import Tile, needs_wide_offsets

# Largest sum of a row's weights in one block, in the units of the reference: float32 sums end
# at 2^128, float16 weights at 2^16.
MAX_WEIGHT = tl.constexpr(2.0**100)
MAX_WEIGHT_FP16 = tl.constexpr(2.0**15)
FINISH_ROWS = 64


def run_forward_gather(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lists: RowLists,
    table: BlockTable,
    state: ForwardState,
    *,
    tile: Tile,
    scale: float,
    heads: range,
    num_programs: int,
) -> None:
    """Adds the past blocks of the heads to `sums` and `weights`; sets `overflow` where too large.

    `lists` are those of the heads alone.
    """
    num_tokens, num_heads, head_dim = q.shape
    _forward_gather_kernel[(num_programs, table.block_size // tile.keys)](
        q,
        k,
        v,
        state.sums,
        state.weights,
        state.reference,
        state.overflow,
        lists.rows,
        lists.counts,
        lists.ends,
        lists.chunks,
        lists.chunk_ends,
        table.entries,
        *q.stride(),
        *k.stride(),
        *v.stride(),
        num_tokens,
        k.shape[0] - num_tokens,
        len(heads),
        heads.start,
        table.num_blocks,
        table.num_sequences,
        scale * LOG2_E,
        GROUP=num_heads // k.shape[1],
        BLOCK_SIZE=table.block_size,
        CHUNK_ROWS=CHUNK_ROWS,
        R=tile.rows,
        C=tile.keys,
        D=head_dim,
        WIDE=needs_wide_offsets(q, state.sums),
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )


def finish_forward_gather(
    table: BlockTable, state: ForwardState, *, heads: range, num_skipped: int
) -> None:
    """Fills `out` and `lse` of the heads from the sums where the layout is 1."""
    num_tokens, num_heads, head_dim = state.out.shape
    rows = min(FINISH_ROWS, table.block_size)
    _finish_kernel[(table.num_blocks * table.block_size // rows, len(heads))](
        state.sums,
        state.weights,
        state.reference,
        state.layout,
        state.out,
        state.lse,
        table.entries,
        num_tokens,
        num_skipped,
        num_heads,
        heads.start,
        table.num_sequences,
        BLOCK_SIZE=table.block_size,
        R=rows,
        D=head_dim,
        num_warps=4,
    )


@triton.jit
def _weigh(q, keys, reference, logit_scale):
    """Returns the weights [R, C] and their sums [R]."""
    logits = tl.dot(q, tl.trans(keys), input_precision="ieee")
    p = tl.exp2(logits * logit_scale - reference[:, None])
    return p.to(q.dtype), tl.sum(p, axis=1)


@triton.jit(
    do_not_specialize=[
        "num_tokens",
        "num_skipped",
        "num_heads",
        "first_head",
        "num_blocks",
        "num_sequences",
    ]
)
def _forward_gather_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    sums_ptr,
    weights_ptr,
    reference_ptr,
    overflow_ptr,
    rows_ptr,
    counts_ptr,
    ends_ptr,
    chunks_ptr,
    chunk_ends_ptr,
    table_ptr,
    stride_qt,
    stride_qh,
    stride_qd,
    stride_kt,
    stride_kg,
    stride_kd,
    stride_vt,
    stride_vg,
    stride_vd,
    num_tokens,
    num_skipped,
    num_heads,
    first_head,
    num_blocks,
    num_sequences,
    logit_scale,
    GROUP: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    CHUNK_ROWS: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    D: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Programs walk the chunks in turn; axis 1 splits a block that is wider than a tile.

    Lists and sums are those of `num_heads` heads from `first_head` on.
    """
    # Halves: of the keys, since weights of 128 x 256 spill; of the output, since it goes to
    # memory through a staging tile that must fit shared memory beside K, V and two tiles of Q.
    HALF: tl.constexpr = min(C, 128)
    WIDTH: tl.constexpr = min(D, 64)
    limit = MAX_WEIGHT_FP16 if q_ptr.dtype.element_ty == tl.float16 else MAX_WEIGHT
    num_chunks = tl.load(chunk_ends_ptr + num_heads * num_blocks - 1).to(tl.int32)
    dim = tl.arange(0, D)[None, :]
    for work in tl.range(tl.program_id(0), num_chunks, tl.num_programs(0)):
        index = tl.load(chunks_ptr + work * 2)
        start = tl.load(chunks_ptr + work * 2 + 1)
        place, block = (index // num_blocks).to(tl.int64), index % num_blocks
        head = first_head + place
        sequence, token, _, first = load_block(table_ptr, block)
        count = tl.load(counts_ptr + index)
        rows = rows_ptr + tl.load(ends_ptr + index) - count
        key = token + (block - first) * BLOCK_SIZE + tl.program_id(1) * C + tl.arange(0, HALF)
        key = key.to(tl.int64)[:, None]
        k_at = k_ptr + (head // GROUP) * stride_kg + key * stride_kt + dim * stride_kd
        v_at = v_ptr + (head // GROUP) * stride_vg + key * stride_vt
        v_at += tl.arange(0, WIDTH)[None, :] * stride_vd
        keys, values = tl.load(k_at), tl.load(v_at)
        if D > WIDTH:
            values_right = tl.load(v_at + WIDTH * stride_vd)
        if C > HALF:
            later_keys = tl.load(k_at + HALF * stride_kt)
            later_values = tl.load(v_at + HALF * stride_vt)
            if D > WIDTH:
                later_values_right = tl.load(v_at + HALF * stride_vt + WIDTH * stride_vd)
        most = tl.zeros((R,), tl.float32)
        slot = start + tl.arange(0, R)
        # One tile ahead: the copies of a tile start when its rows are known.
        next_row = load_rows(rows, slot, slot < count)
        for at in tl.range(start, tl.minimum(start + CHUNK_ROWS, count), R):
            slot = at + tl.arange(0, R)
            real = slot < count
            row = token - num_skipped + next_row
            if WIDE:
                row = row.to(tl.int64)
            next_row = load_rows(rows, slot + R, slot + R < count)
            address = row[:, None] * stride_qt + dim * stride_qd
            q = tl.load((q_ptr + head * stride_qh) + address, mask=real[:, None], other=0.0)
            reference = tl.load(
                (reference_ptr + place * num_tokens) + row, mask=real, other=float("inf")
            )
            p, total = _weigh(q, keys, reference, logit_scale)
            if C > HALF:
                later_p, later_total = _weigh(q, later_keys, reference, logit_scale)
                total += later_total
            most = tl.maximum(most, total)
            target = (row * num_heads * D)[:, None] + tl.arange(0, WIDTH)[None, :]
            target = (sums_ptr + place * D) + target
            out = tl.dot(p, values, input_precision="ieee")
            if C > HALF:
                out = tl.dot(later_p, later_values, out, input_precision="ieee")
            tl.atomic_add(target, out, mask=real[:, None], sem="relaxed")
            if D > WIDTH:
                out = tl.dot(p, values_right, input_precision="ieee")
                if C > HALF:
                    out = tl.dot(later_p, later_values_right, out, input_precision="ieee")
                tl.atomic_add(target + WIDTH, out, mask=real[:, None], sem="relaxed")
            weights = (weights_ptr + place * num_tokens) + row
            tl.atomic_add(weights, total, mask=real, sem="relaxed")
        if tl.max(most) >= limit:
            tl.store(overflow_ptr + head * num_sequences + sequence, 1)


@triton.jit(
    do_not_specialize=["num_tokens", "num_skipped", "num_heads", "first_head", "num_sequences"]
)
def _finish_kernel(
    sums_ptr,
    weights_ptr,
    reference_ptr,
    layout_ptr,
    out_ptr,
    lse_ptr,
    table_ptr,
    num_tokens,
    num_skipped,
    num_heads,
    first_head,
    num_sequences,
    BLOCK_SIZE: tl.constexpr,
    R: tl.constexpr,
    D: tl.constexpr,
):
    """One program per (tile of rows, query head): normalises the sums."""
    tile, place = tl.program_id(0), tl.program_id(1)
    head = first_head + place
    block = tile * R // BLOCK_SIZE
    sequence, token, length, first = load_block(table_ptr, block)
    start = (block - first) * BLOCK_SIZE + tile * R % BLOCK_SIZE
    if (start >= length) | (start < num_skipped):
        return
    if tl.load(layout_ptr + head * num_sequences + sequence) == 0:
        return
    row = start + tl.arange(0, R)
    real = row < length
    at = (token + row - num_skipped).to(tl.int64)
    index = place.to(tl.int64) * num_tokens + at
    total = tl.load(weights_ptr + index, mask=real, other=1.0)
    top = tl.load(reference_ptr + index, mask=real, other=0.0)
    dim = tl.arange(0, D)[None, :]
    source = (at * tl.num_programs(1) + place)[:, None] * D + dim
    out = tl.load(sums_ptr + source, mask=real[:, None], other=0.0) / total[:, None]
    target = (at * num_heads + head)[:, None] * D + dim
    tl.store(out_ptr + target, out.to(out_ptr.dtype.element_ty), mask=real[:, None])
    tl.store(lse_ptr + head.to(tl.int64) * num_tokens + at, top + tl.log2(total), mask=real)
