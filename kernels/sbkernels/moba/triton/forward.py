"""The forward pass: lists, layout, and the kernels of both layouts one after the other.

Both layouts are launched; which one works is decided per (query head, sequence) on the device,
so no launch depends on data and a captured graph can be replayed with other inputs. Where the
host knows so much of top_k that the gather cannot win, or the work is less than launching it,
the union alone is launched.

Shapes: T packed tokens, H query heads, G key heads, D head dim, N sequences.
"""

import torch

from sbkernels.moba.budget import TopKRange
from sbkernels.moba.triton.blocks import BlockTable
from sbkernels.moba.triton.forward_gather import finish_forward_gather, run_forward_gather
from sbkernels.moba.triton.forward_union import ForwardState, Where, run_forward_union
from sbkernels.moba.triton.lists import bound_inflation, build_union_lists, choose_layout
from sbkernels.moba.triton.rows import build_row_lists
from sbkernels.moba.triton.tiles import choose_tile, count_programs, max_inflation_of
from sbkernels.moba.triton.windows import head_windows

# 0.25 ms of the union kernel at 500 TFLOP/s: less than the launches that the gather needs beside
# it keep the host busy.
SMALL_WORK_FLOPS = 1.2e11


def run_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    words: torch.Tensor,
    table: BlockTable,
    *,
    top_k_range: TopKRange,
    scale: float,
    deterministic: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the output [T, H, D] and the log2-sum-exp2 float32 [H, T]; k, v contiguous.

    q may lack the first rows of the one sequence. `deterministic` keeps to the union layout,
    which has no atomics.
    """
    tile = choose_tile("forward_union", q, block_size=table.block_size)
    num_skipped = k.shape[0] - q.shape[0]
    lists = build_union_lists(words, table, tile_rows=tile.rows, num_skipped=num_skipped)
    max_inflation = max_inflation_of(q.shape[2])
    worst = bound_inflation(words.shape[1], min_top_k=top_k_range.least)
    small = 2 * q.numel() * words.shape[1] * table.block_size <= SMALL_WORK_FLOPS

    def run_union(state: ForwardState, heads: range, *, where: Where) -> None:
        run_forward_union(
            q,
            k,
            v,
            words,
            lists,
            table,
            state,
            tile=tile,
            scale=scale,
            heads=heads,
            where=where,
        )

    if deterministic or small or worst <= max_inflation:
        # Overflows are not read: any tensor will do.
        state = _allocate(q, lists.layout, lists.layout, num_sums=0)
        run_union(state, range(q.shape[1]), where="layout")
        return state.out, state.lse
    overflow = choose_layout(lists, table, max_inflation=max_inflation)
    windows = head_windows(q.shape[1], q.shape[0], q.shape[2])
    state = _allocate(q, lists.layout, overflow, num_sums=len(windows[0]))
    for heads in windows:
        run_union(state, heads, where="layout")
        chosen = slice(heads.start, heads.stop)
        gather_tile = choose_tile("forward_gather", q, block_size=table.block_size)
        run_forward_gather(
            q,
            k,
            v,
            build_row_lists(
                words[chosen],
                table,
                lists.layout[chosen],
                max_top_k=top_k_range.most,
                num_skipped=num_skipped,
            ),
            table,
            state,
            tile=gather_tile,
            scale=scale,
            heads=heads,
            num_programs=count_programs(q.device, gather_tile),
        )
        finish_forward_gather(table, state, heads=heads, num_skipped=num_skipped)
        run_union(state, heads, where="overflow")
    return state.out, state.lse


def _allocate(
    q: torch.Tensor, layout: torch.Tensor, overflow: torch.Tensor, *, num_sums: int
) -> ForwardState:
    """Returns empty results, with sums for that many heads."""
    num_tokens, num_heads, head_dim = q.shape
    return ForwardState(
        out=q.new_empty((num_tokens, num_heads, head_dim)),
        lse=q.new_empty((num_heads, num_tokens), dtype=torch.float32),
        layout=layout,
        overflow=overflow,
        sums=q.new_empty((num_tokens, num_sums, head_dim), dtype=torch.float32),
        weights=q.new_empty((num_sums, num_tokens), dtype=torch.float32),
        reference=q.new_empty((num_sums, num_tokens), dtype=torch.float32),
    )
