"""The backward pass: row statistics, row lists, then the fused gather or the deterministic pair.

The row lists are made again from the selection words (0.5 ms) rather than kept: the words are
33 MB at 64K tokens x 16 heads, the lists up to 268 MB.

Shapes: T packed tokens, H query heads, G key heads, D head dim.
"""

import torch

from sbkernels.moba.triton.backward_gather import run_backward_gather
from sbkernels.moba.triton.backward_union import run_backward_union
from sbkernels.moba.triton.blocks import BlockTable
from sbkernels.moba.triton.lists import build_union_lists
from sbkernels.moba.triton.rows import build_row_lists
from sbkernels.moba.triton.stats import compute_stats
from sbkernels.moba.triton.tiles import choose_tile


def run_backward(
    dout: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    words: torch.Tensor,
    table: BlockTable,
    *,
    scale: float,
    deterministic: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns dQ [T, H, D], dK and dV [T, G, D] in the dtype of q; k, v contiguous."""
    if dout.stride(2) != 1:
        dout = dout.contiguous()
    stats = compute_stats(out, dout, lse)
    rows = build_row_lists(words, table, None)
    tile = choose_tile("backward_gather", q, block_size=table.block_size)
    dq_sums = None if deterministic else torch.zeros_like(out, dtype=torch.float32)
    dk, dv = run_backward_gather(
        dout,
        q,
        k,
        v,
        stats,
        rows,
        table,
        dq_sums,
        tile=tile,
        scale=scale,
    )
    if dq_sums is not None:
        return dq_sums.to(q.dtype), dk, dv
    tile = choose_tile("backward_union", q, block_size=table.block_size)
    lists = build_union_lists(words, table, tile_rows=tile.rows)
    dq = run_backward_union(dout, q, k, v, stats, words, lists, table, tile=tile, scale=scale)
    return dq, dk, dv
