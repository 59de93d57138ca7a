"""The forward pass: lists, layout, and the kernels of both layouts one after the other.

Both layouts are always launched; which one works is decided per (query head, sequence) on the
device, so no launch depends on data and a captured graph can be replayed with other inputs.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences.
"""

import torch

from sbkernels.moba.triton.blocks import BlockTable
from sbkernels.moba.triton.forward_gather import finish_forward_gather, run_forward_gather
from sbkernels.moba.triton.forward_union import ForwardState, run_forward_union
from sbkernels.moba.triton.lists import build_union_lists, choose_layout
from sbkernels.moba.triton.rows import build_row_lists
from sbkernels.moba.triton.tiles import choose_tile, count_programs, max_inflation_of


def run_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    words: torch.Tensor,
    table: BlockTable,
    *,
    scale: float,
    deterministic: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the output [T, H, D] and the log2-sum-exp2 float32 [H, T]; k, v contiguous.

    `deterministic` keeps to the union layout, which has no atomics.
    """
    tile = choose_tile("forward_union", q, block_size=table.block_size)
    lists = build_union_lists(words, table, tile_rows=tile.rows)
    if deterministic:
        layout = words.new_zeros((q.shape[1], table.num_sequences))
    else:
        layout = choose_layout(lists, table, max_inflation=max_inflation_of(q.shape[2]))
    state = _allocate(q, layout, sums=not deterministic)
    run_forward_union(q, k, v, words, lists, table, state, tile=tile, scale=scale, repair=False)
    if not deterministic:
        gather_tile = choose_tile("forward_gather", q, block_size=table.block_size)
        run_forward_gather(
            q,
            k,
            v,
            build_row_lists(words, table, layout),
            table,
            state,
            tile=gather_tile,
            scale=scale,
            num_programs=count_programs(q.device, gather_tile),
        )
        finish_forward_gather(table, state)
        run_forward_union(q, k, v, words, lists, table, state, tile=tile, scale=scale, repair=True)
    return state.out, state.lse


def _allocate(q: torch.Tensor, layout: torch.Tensor, *, sums: bool) -> ForwardState:
    num_tokens, num_heads, head_dim = q.shape
    shape = (num_tokens if sums else 0, num_heads, head_dim)
    return ForwardState(
        out=q.new_empty((num_tokens, num_heads, head_dim)),
        lse=q.new_empty((num_heads, num_tokens), dtype=torch.float32),
        layout=layout,
        overflow=torch.zeros_like(layout),
        sums=q.new_empty(shape, dtype=torch.float32),
        weights=q.new_empty((num_heads, num_tokens), dtype=torch.float32),
        reference=q.new_empty((num_heads, num_tokens), dtype=torch.float32),
    )
