"""The backward pass: row statistics, row lists, then the fused gather or the deterministic pair.

The row lists are made again from the selection words (0.5 ms) rather than kept: the words are
33 MB at 64K tokens x 16 heads, the lists up to 267 MB.

Shapes: T packed tokens, H query heads, G key heads, D head dim.
"""

import torch

from sbkernels.moba.triton.backward_gather import gradients_of_keys, run_backward_gather
from sbkernels.moba.triton.backward_union import run_backward_union
from sbkernels.moba.triton.blocks import BlockTable
from sbkernels.moba.triton.lists import build_union_lists
from sbkernels.moba.triton.rows import build_row_lists
from sbkernels.moba.triton.stats import compute_stats
from sbkernels.moba.triton.tiles import choose_tile
from sbkernels.moba.triton.windows import head_windows


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
    max_top_k: int,
    scale: float,
    deterministic: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns dQ [T, H, D], dK and dV [T, G, D] in the dtype of q; k, v contiguous.

    q may lack the first rows of the one sequence.
    """
    if dout.stride(2) != 1:
        dout = dout.contiguous()
    stats = compute_stats(out, dout, lse)
    tile = choose_tile("backward_gather", q, block_size=table.block_size)
    meet = not deterministic and k.shape[1] < q.shape[1]
    dk, dv = (gradients_of_keys(x, meet=meet) for x in (k, v))

    def run_gather(heads: range, dq_sums: torch.Tensor | None) -> None:
        rows = build_row_lists(
            words[heads.start : heads.stop],
            table,
            None,
            max_top_k=max_top_k,
            num_skipped=k.shape[0] - q.shape[0],
        )
        run_backward_gather(
            dout,
            q,
            k,
            v,
            stats,
            rows,
            table,
            dq_sums,
            dk=dk,
            dv=dv,
            heads=heads,
            tile=tile,
            scale=scale,
        )

    if deterministic:
        run_gather(range(q.shape[1]), None)
        tile = choose_tile("backward_union", q, block_size=table.block_size)
        lists = build_union_lists(words, table, tile_rows=tile.rows, num_skipped=0)
        dq = run_backward_union(dout, q, k, v, stats, words, lists, table, tile=tile, scale=scale)
    else:
        dq = q.new_empty(q.shape)
        windows = head_windows(q.shape[1], q.shape[0], q.shape[2])
        sums = q.new_empty((q.shape[0], len(windows[0]), q.shape[2]), dtype=torch.float32)
        for heads in windows:
            # The last window may be the smaller one: its sums are dense in the same buffer.
            part = sums.view(-1)[: q.shape[0] * len(heads) * q.shape[2]]
            part = part.view(q.shape[0], len(heads), q.shape[2]).zero_()
            run_gather(heads, part)
            dq[:, heads.start : heads.stop] = part
    return dq, dk.to(k.dtype), dv.to(v.dtype)
