"""Key-major forward: each key block attends all rows that chose it, its keys held on chip.

The work is exact whatever the rows choose, so it wins where neighbouring rows disagree (union
inflation above 2.0 at D = 128). The rows' partial outputs meet in float32 sums in memory, by
atomic addition, relative to the largest logit of the own block: 4 bytes x T x H x D, without
slots or merge. The price: the last bits vary from run to run, and a logit that exceeds the
reference by 2^100 would overflow. Such a (head, sequence) is reported and done again by the
union kernel, on the device.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences, S padded blocks,
R rows and C keys of a tile.
"""

import torch
import triton
import triton.language as tl

from sbkernels.moba.triton.blocks import BlockTable, load_block
from sbkernels.moba.triton.forward_union import LOG2_E, ForwardState
from sbkernels.moba.triton.rows import CHUNK_ROWS, RowLists, load_rows
from sbkernels.moba.triton.tiles import Tile

# Powers of two that a logit may lie above the reference; float32 sums end at 2^128.
MAX_EXCESS = tl.constexpr(100.0)
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
    num_programs: int,
) -> None:
    """Adds the past blocks to `sums` and `weights`; sets `overflow` where they cannot hold it."""
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
        num_heads,
        table.num_blocks,
        table.num_sequences,
        scale * LOG2_E,
        GROUP=num_heads // k.shape[1],
        BLOCK_SIZE=table.block_size,
        CHUNK_ROWS=CHUNK_ROWS,
        R=tile.rows,
        C=tile.keys,
        D=head_dim,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )


def finish_forward_gather(table: BlockTable, state: ForwardState) -> None:
    """Fills `out` and `lse` from the sums where the layout is 1."""
    num_tokens, num_heads, head_dim = state.out.shape
    rows = min(FINISH_ROWS, table.block_size)
    _finish_kernel[(table.num_blocks * table.block_size // rows, num_heads)](
        state.sums,
        state.weights,
        state.reference,
        state.layout,
        state.out,
        state.lse,
        table.entries,
        num_tokens,
        table.num_sequences,
        BLOCK_SIZE=table.block_size,
        R=rows,
        D=head_dim,
        num_warps=4,
    )


@triton.jit
def _add_out(target, p, values, weight, real, P: tl.constexpr):
    out = tl.dot(p, values, input_precision="ieee") * weight[:, None]
    tl.atomic_add(target + tl.arange(0, P)[None, :], out, mask=real[:, None], sem="relaxed")


@triton.jit(do_not_specialize=["num_tokens", "num_heads", "num_blocks", "num_sequences"])
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
    num_heads,
    num_blocks,
    num_sequences,
    logit_scale,
    GROUP: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    CHUNK_ROWS: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    D: tl.constexpr,
):
    """Programs walk the chunks in turn; axis 1 splits a block that is wider than a tile."""
    # The output goes to memory through a staging tile: whole, it would not fit beside K, V and Q.
    P: tl.constexpr = min(D, 64)
    num_chunks = tl.load(chunk_ends_ptr + num_heads * num_blocks - 1).to(tl.int32)
    dim = tl.arange(0, D)
    for work in tl.range(tl.program_id(0), num_chunks, tl.num_programs(0)):
        index = tl.load(chunks_ptr + work * 2)
        start = tl.load(chunks_ptr + work * 2 + 1)
        head, block = index // num_blocks, index % num_blocks
        sequence, token, _, first = load_block(table_ptr, block)
        count = tl.load(counts_ptr + index)
        base = tl.load(ends_ptr + index) - count
        key = token + (block - first) * BLOCK_SIZE + tl.program_id(1) * C + tl.arange(0, C)
        key = key.to(tl.int64)[:, None]
        kv_head = (head // GROUP).to(tl.int64)
        keys = tl.load(k_ptr + kv_head * stride_kg + key * stride_kt + dim[None, :] * stride_kd)
        v_at = v_ptr + kv_head * stride_vg + key * stride_vt + tl.arange(0, P)[None, :] * stride_vd
        values = tl.load(v_at)
        if P < D:
            more_values = tl.load(v_at + P * stride_vd)
        excess = tl.full((R,), -float("inf"), tl.float32)
        for at in tl.range(start, tl.minimum(start + CHUNK_ROWS, count), R):
            slot = at + tl.arange(0, R)
            real = slot < count
            row = token + load_rows(rows_ptr + base, slot, real)
            address = row.to(tl.int64)[:, None] * stride_qt + dim[None, :] * stride_qd
            q = tl.load(
                q_ptr + head.to(tl.int64) * stride_qh + address, mask=real[:, None], other=0.0
            )
            at_row = head.to(tl.int64) * num_tokens + row
            reference = tl.load(reference_ptr + at_row, mask=real, other=float("inf"))
            logits = tl.dot(q, tl.trans(keys), input_precision="ieee")
            top = tl.max(logits, axis=1) * logit_scale
            p = tl.exp2(logits * logit_scale - top[:, None])
            excess = tl.maximum(excess, top - reference)
            weight = tl.exp2(tl.minimum(top - reference, MAX_EXCESS))
            total = tl.sum(p, axis=1) * weight
            p = p.to(values.dtype)
            target = sums_ptr + (row.to(tl.int64) * num_heads + head)[:, None] * D
            _add_out(target, p, values, weight, real, P)
            if P < D:
                _add_out(target + P, p, more_values, weight, real, P)
            tl.atomic_add(weights_ptr + at_row, total, mask=real, sem="relaxed")
        if tl.max(excess) >= MAX_EXCESS:
            tl.store(overflow_ptr + head * num_sequences + sequence, 1)


@triton.jit(do_not_specialize=["num_tokens", "num_sequences"])
def _finish_kernel(
    sums_ptr,
    weights_ptr,
    reference_ptr,
    layout_ptr,
    out_ptr,
    lse_ptr,
    table_ptr,
    num_tokens,
    num_sequences,
    BLOCK_SIZE: tl.constexpr,
    R: tl.constexpr,
    D: tl.constexpr,
):
    """One program per (tile of rows, query head): normalises the sums."""
    tile, head = tl.program_id(0), tl.program_id(1)
    block = tile * R // BLOCK_SIZE
    sequence, token, length, first = load_block(table_ptr, block)
    start = (block - first) * BLOCK_SIZE + tile * R % BLOCK_SIZE
    if start >= length:
        return
    if tl.load(layout_ptr + head * num_sequences + sequence) == 0:
        return
    row = start + tl.arange(0, R)
    real = row < length
    index = head.to(tl.int64) * num_tokens + token + row
    total = tl.load(weights_ptr + index, mask=real, other=1.0)
    top = tl.load(reference_ptr + index, mask=real, other=0.0)
    num_heads = tl.num_programs(1)
    target = ((token + row).to(tl.int64) * num_heads + head)[:, None] * D + tl.arange(0, D)[None, :]
    out = tl.load(sums_ptr + target, mask=real[:, None], other=0.0) / total[:, None]
    tl.store(out_ptr + target, out.to(out_ptr.dtype.element_ty), mask=real[:, None])
    tl.store(lse_ptr + index, top + tl.log2(total), mask=real)
