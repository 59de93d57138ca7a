"""The backward pass: delta, row lists, then the fused gather or the deterministic pair.

The row lists are made again from the selection words (0.5 ms) rather than kept: the words are
33 MB at 64K tokens x 16 heads, the lists up to 268 MB.

Shapes: T packed tokens, H query heads, G key heads, D head dim.
"""

import torch

from sbkernels.moba.triton.backward_gather import run_backward_gather
from sbkernels.moba.triton.backward_union import run_backward_union
from sbkernels.moba.triton.blocks import BlockTable
from sbkernels.moba.triton.delta import compute_delta
from sbkernels.moba.triton.lists import build_union_lists
from sbkernels.moba.triton.rows import build_row_lists
from sbkernels.moba.triton.tiles import choose_tile, count_processors

# Programs per processor under which the query heads of a group are split over programs.
MIN_WAVES = 4


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
    delta = compute_delta(out, dout)
    rows = build_row_lists(words, table, None)
    tile = choose_tile("backward_gather", q, block_size=table.block_size)
    dq_sums = None if deterministic else torch.zeros_like(out, dtype=torch.float32)
    dk, dv = run_backward_gather(
        dout,
        q,
        k,
        v,
        lse,
        delta,
        rows,
        table,
        dq_sums,
        tile=tile,
        scale=scale,
        num_parts=_count_parts(q, k, table, keys=tile.keys),
    )
    if dq_sums is not None:
        return dq_sums.to(q.dtype), dk, dv
    tile = choose_tile("backward_union", q, block_size=table.block_size)
    lists = build_union_lists(words, table, tile_rows=tile.rows)
    dq = run_backward_union(dout, q, k, v, lse, delta, words, lists, table, tile=tile, scale=scale)
    return dq, dk, dv


def _count_parts(q: torch.Tensor, k: torch.Tensor, table: BlockTable, *, keys: int) -> int:
    """Returns the parts that a group of query heads is split into: the fewest that fill up."""
    group = q.shape[1] // k.shape[1]
    programs = table.num_blocks * (table.block_size // keys) * k.shape[1]
    wanted = MIN_WAVES * count_processors(q.device)
    return next((p for p in range(1, group) if group % p == 0 and programs * p >= wanted), group)
