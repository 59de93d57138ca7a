"""Query-major dQ: each tile of rows walks the union of its key blocks; the deterministic dQ.

No atomics: each row's sum is made by one program in list order. Level with the fused gather
where neighbouring rows agree (12.3 ms at inflation 1.3), twice its time on independent rows.

Shapes: T packed tokens, H query heads, G key heads, D head dim, R rows and C keys of a tile.
"""

import torch
import triton
import triton.language as tl

from sbkernels.moba.triton.blocks import BlockTable, load_block
from sbkernels.moba.triton.forward_union import LOG2_E, describe_tiles, row_bit
from sbkernels.moba.triton.lists import UnionLists
from sbkernels.moba.triton.stats import STATS
from sbkernels.moba.triton.tiles import Tile


def run_backward_union(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    stats: torch.Tensor,
    words: torch.Tensor,
    lists: UnionLists,
    table: BlockTable,
    dq: torch.Tensor,
    *,
    tile: Tile,
    scale: float,
) -> None:
    """Fills dQ [T, H, D], contiguous as k and v are; dout has unit stride in D."""
    num_tokens, num_heads, head_dim = q.shape
    _backward_union_kernel[(lists.num_past.shape[1], num_heads)](
        dout,
        q,
        describe_tiles(k, tile.keys),
        describe_tiles(v, tile.keys),
        stats,
        dq,
        words,
        lists.blocks,
        lists.num_past,
        table.entries,
        *dout.stride()[:2],
        *q.stride(),
        num_tokens,
        words.shape[1],
        words.shape[2],
        scale * LOG2_E,
        scale,
        GROUP=num_heads // k.shape[1],
        BLOCK_SIZE=table.block_size,
        R=tile.rows,
        C=tile.keys,
        D=head_dim,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )


@triton.jit(do_not_specialize=["num_tokens", "max_num_blocks", "num_words"])
def _backward_union_kernel(
    dout_ptr,
    q_ptr,
    k_tiles,
    v_tiles,
    stats_ptr,
    dq_ptr,
    words_ptr,
    blocks_ptr,
    num_past_ptr,
    table_ptr,
    stride_ot,
    stride_oh,
    stride_qt,
    stride_qh,
    stride_qd,
    num_tokens,
    max_num_blocks,
    num_words,
    logit_scale,
    scale,
    GROUP: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    D: tl.constexpr,
):
    """One program per (query tile, query head), late tiles first; steps as in the forward."""
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1)
    block = tile * R // BLOCK_SIZE
    _, token, length, first = load_block(table_ptr, block)
    in_block = tile * R % BLOCK_SIZE
    own = block - first
    row = own * BLOCK_SIZE + in_block + tl.arange(0, R)
    if own * BLOCK_SIZE + in_block >= length:
        return
    real = row < length
    dim = tl.arange(0, D)[None, :]
    at = (token + row).to(tl.int64)
    q_ptr += head.to(tl.int64) * stride_qh
    dout_ptr += head.to(tl.int64) * stride_oh
    q = tl.load(q_ptr + at[:, None] * stride_qt + dim * stride_qd, mask=real[:, None], other=0.0)
    dout = tl.load(dout_ptr + at[:, None] * stride_ot + dim, mask=real[:, None], other=0.0)
    stats = stats_ptr + (head.to(tl.int64) * num_tokens + at) * STATS
    lse = tl.load(stats, mask=real, other=0.0)
    delta = tl.load(stats + 1, mask=real, other=0.0)
    dq = tl.zeros((R, D), tl.float32)

    index = head.to(tl.int64) * tl.num_programs(0) + tile
    words_ptr += head.to(tl.int64) * max_num_blocks * num_words
    blocks_ptr += index * (max_num_blocks + 1)
    STEPS: tl.constexpr = BLOCK_SIZE // C
    masked = tl.load(num_past_ptr + index) * STEPS + in_block // C
    stop = masked + max(1, R // C)
    column = head // GROUP * D
    padded_row = first * BLOCK_SIZE + row
    next_block = tl.load(blocks_ptr).to(tl.int32)
    next_chosen = row_bit(words_ptr, next_block, num_words, padded_row)
    for step in tl.range(0, stop):
        listed, chosen = next_block, next_chosen
        ahead = tl.minimum(step + 1, stop - 1) // STEPS
        next_block = tl.load(blocks_ptr + ahead).to(tl.int32)
        next_chosen = row_bit(words_ptr, next_block, num_words, padded_row)
        key = listed * BLOCK_SIZE + step % STEPS * C
        keys = k_tiles.load([token + key, column])
        values = v_tiles.load([token + key, column])
        logits = tl.dot(q, tl.trans(keys), input_precision="ieee")
        p = tl.exp2(logits * logit_scale - tl.where(chosen, lse, float("inf"))[:, None])
        if step >= masked:
            past = (key + tl.arange(0, C))[None, :] <= row[:, None]
            p = tl.where(past, p, 0.0)
        dp = tl.dot(dout, tl.trans(values), input_precision="ieee")
        ds = (p * (dp - delta[:, None])).to(keys.dtype)
        dq = tl.dot(ds, keys, dq, input_precision="ieee")

    target = (at * tl.num_programs(1) + head)[:, None] * D + dim
    tl.store(dq_ptr + target, (dq * scale).to(dq_ptr.dtype.element_ty), mask=real[:, None])
