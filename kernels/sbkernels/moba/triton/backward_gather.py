"""Key-major backward: dK and dV in registers, dQ by atomic addition, one pass for all three.

Each program holds C keys of a block and walks the rows that chose the block. Gathering rows
through pointers costs nothing (31.1 ms on real lists, 30.2 on contiguous ones).

What decides is where the atomics of dQ land: 3.0 TB/s while the float32 sums of all running
programs stay in the L2 cache, 1.2 TB/s beyond. So one query head is worked on at a time (33 MB
of sums at 64K tokens, D = 128; 34.9 against 43.9 ms with the heads of a group in one program),
and grouped heads meet in dK and dV by atomics as well. Without dQ (deterministic) a program
sums the heads of its group in registers, in order.

Shapes: T packed tokens, H query heads, G key heads, D head dim, S padded blocks, R rows and
C keys of a tile.
"""

import torch
import triton
import triton.language as tl

from sbkernels.moba.triton.blocks import BlockTable, load_block
from sbkernels.moba.triton.forward_union import LOG2_E
from sbkernels.moba.triton.rows import RowLists, load_rows
from sbkernels.moba.triton.stats import STATS
from sbkernels.moba.triton.tiles import Tile, needs_wide_offsets


def run_backward_gather(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    stats: torch.Tensor,
    lists: RowLists,
    table: BlockTable,
    dq_sums: torch.Tensor | None,
    *,
    dk: torch.Tensor,
    dv: torch.Tensor,
    heads: range,
    tile: Tile,
    scale: float,
) -> None:
    """Fills dK and dV [T, G, D], or adds to them; adds dQ to `dq_sums` float32 [T, V, D] if given.

    With sums the V heads alone are worked on, whose lists these are, and heads of a group meet
    in dK and dV: float32 and 0 to begin with. Else every element of them is written, since
    blocks cover every token. q may lack the first rows of the one sequence.

    dout has unit stride in D; stats are those of `compute_stats`. Without `dq_sums` there are
    no atomics: equal inputs give equal bits.
    """
    num_tokens, num_heads, head_dim = q.shape
    group = num_heads // k.shape[1]
    heads_per_program = group if dq_sums is None else 1
    _backward_gather_kernel[
        (table.num_blocks * (table.block_size // tile.keys), len(heads) // heads_per_program)
    ](
        dout,
        q,
        k,
        v,
        stats,
        q if dq_sums is None else dq_sums,
        dk,
        dv,
        lists.rows,
        lists.counts,
        lists.ends,
        table.entries,
        *dout.stride()[:2],
        *q.stride(),
        *k.stride(),
        *v.stride(),
        num_tokens,
        k.shape[0] - num_tokens,
        len(heads),
        heads.start,
        k.shape[1],
        table.num_blocks,
        scale * LOG2_E,
        scale,
        GROUP=group,
        HEADS=heads_per_program,
        BLOCK_SIZE=table.block_size,
        R=tile.rows,
        C=tile.keys,
        D=head_dim,
        WITH_DQ=dq_sums is not None,
        WIDE=needs_wide_offsets(q, dout),
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )


@triton.jit
def _pick_rows(rows_ptr, at, num_own, own, count, R: tl.constexpr):
    """Returns rows `at`... of the own rows followed by the list, -1 where there is none.

    The own rows take whole tiles up to `num_own`; rows within the sequence, int32 [R].
    """
    slot = at - num_own + tl.arange(0, R)
    listed = (slot >= 0) & (slot < count)
    row = tl.where(listed, load_rows(rows_ptr, slot, listed), -1)
    return tl.where(slot < 0, own + at + tl.arange(0, R), row)


@triton.jit(
    do_not_specialize=[
        "num_tokens",
        "num_skipped",
        "num_heads",
        "first_head",
        "num_kv_heads",
        "num_blocks",
    ]
)
def _backward_gather_kernel(
    dout_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    stats_ptr,
    dq_ptr,
    dk_ptr,
    dv_ptr,
    rows_ptr,
    counts_ptr,
    ends_ptr,
    table_ptr,
    stride_ot,
    stride_oh,
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
    num_kv_heads,
    num_blocks,
    logit_scale,
    scale,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    D: tl.constexpr,
    WITH_DQ: tl.constexpr,
    WIDE: tl.constexpr,
):
    """One program per (C keys of a block, HEADS query heads); early blocks have longest lists.

    Lists and sums are those of `num_heads` heads from `first_head` on.
    """
    SPLITS: tl.constexpr = BLOCK_SIZE // C
    block = tl.program_id(0) // SPLITS
    split = tl.program_id(0) % SPLITS
    kv_head = (first_head + tl.program_id(1) * HEADS) // GROUP
    _, token, length, first = load_block(table_ptr, block)
    start = (block - first) * BLOCK_SIZE + split * C
    if start >= length:
        return
    key = start + tl.arange(0, C)
    real_key = key < length
    dim = tl.arange(0, D)[None, :]
    at_key = (token + key).to(tl.int64)[:, None]
    mask = real_key[:, None]
    keys = tl.load(
        k_ptr + kv_head.to(tl.int64) * stride_kg + at_key * stride_kt + dim * stride_kd,
        mask=mask,
        other=0.0,
    )
    values = tl.load(
        v_ptr + kv_head.to(tl.int64) * stride_vg + at_key * stride_vt + dim * stride_vd,
        mask=mask,
        other=0.0,
    )
    HALF: tl.constexpr = min(D, 64)
    half = tl.arange(0, HALF)[None, :]
    if WITH_DQ:
        at_left = k_ptr + kv_head.to(tl.int64) * stride_kg + at_key * stride_kt + half * stride_kd
        keys_left = tl.load(at_left, mask=mask, other=0.0)
        if D > HALF:
            keys_right = tl.load(at_left + HALF * stride_kd, mask=mask, other=0.0)
    dk = tl.zeros((C, D), tl.float32)
    dv = tl.zeros((C, D), tl.float32)
    num_own = tl.cdiv(tl.minimum((block - first + 1) * BLOCK_SIZE, length) - start, R) * R
    num_own = tl.where(start < num_skipped, 0, num_own)
    column = tl.arange(0, STATS)[None, :]
    for i in tl.range(0, HEADS):
        place = (tl.program_id(1) * HEADS + i).to(tl.int64)
        head = first_head + place
        index = place * num_blocks + block
        count = tl.load(counts_ptr + index)
        rows = rows_ptr + tl.load(ends_ptr + index) - count
        # One tile ahead: the copies of a tile start when its rows are known.
        next_row = _pick_rows(rows, 0, num_own, start, count, R)
        for at in tl.range(0, num_own + count, R):
            row = next_row
            next_row = _pick_rows(rows, at + R, num_own, start, count, R)
            real = ((row >= 0) & (row < length))[:, None]
            at_row = (token - num_skipped + row)[:, None]
            if WIDE:
                at_row = at_row.to(tl.int64)
            q = tl.load(
                (q_ptr + head * stride_qh) + (at_row * stride_qt + dim * stride_qd),
                mask=real,
                other=0.0,
            )
            dout = tl.load(
                (dout_ptr + head * stride_oh) + (at_row * stride_ot + dim),
                mask=real,
                other=0.0,
            )
            # Missing rows are all zeros: p = 1, dP = 0, dS = 0.
            stats = tl.load(
                (stats_ptr + head * num_tokens * STATS) + (at_row * STATS + column),
                mask=real,
                other=0.0,
            )
            lse = tl.sum(tl.where(column == 0, stats, 0.0), axis=1)
            delta = tl.sum(tl.where(column == 1, stats, 0.0), axis=1)
            # Keys first: P and dS come out transposed, as the products into dK and dV need them
            # (1.2-2.2 times faster than rows first). dK before dV: 715 against 669 TFLOP/s.
            logits = tl.dot(keys, tl.trans(q), input_precision="ieee")
            p = tl.exp2(logits * logit_scale - lse[None, :])
            if at < num_own:
                # Not `row`: it would be carried along in this layout too, 16 registers.
                own = start + at + tl.arange(0, R)
                p = tl.where(key[:, None] <= own[None, :], p, 0.0)
            dp = tl.dot(values, tl.trans(dout), input_precision="ieee")
            ds = (p * (dp - delta[None, :])).to(q.dtype)
            dk = tl.dot(ds, q, dk, input_precision="ieee")
            dv = tl.dot(p.to(dout.dtype), dout, dv, input_precision="ieee")
            if WITH_DQ:
                target = (dq_ptr + place * D) + (at_row * num_heads * D + half)
                turned = tl.trans(ds)
                dq = tl.dot(turned, keys_left, input_precision="ieee") * scale
                tl.atomic_add(target, dq, mask=real, sem="relaxed")
                if D > HALF:
                    dq = tl.dot(turned, keys_right, input_precision="ieee") * scale
                    tl.atomic_add(target + HALF, dq, mask=real, sem="relaxed")
    target = (at_key * num_kv_heads + kv_head) * D + dim
    if HEADS < GROUP:
        tl.atomic_add(dk_ptr + target, dk * scale, mask=mask, sem="relaxed")
        tl.atomic_add(dv_ptr + target, dv, mask=mask, sem="relaxed")
    else:
        tl.store(dk_ptr + target, (dk * scale).to(dk_ptr.dtype.element_ty), mask=mask)
        tl.store(dv_ptr + target, dv.to(dv_ptr.dtype.element_ty), mask=mask)
