"""The backward pass: row statistics, row lists, then the fused gather or the deterministic pair.

The row lists are made again from the selection words (less than 0.3 ms) rather than kept: the words
are 33 MB at 64K tokens x 16 heads, the lists up to 267 MB.

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
) -> torch.Tensor:
    """Returns dQ [T, H, D], dK and dV [T, G, D] one behind the other, flat, in the dtype of q.

    q may lack the first rows of the one sequence; k and v are contiguous. Atomics add to float32
    zeros, of dQ for the heads of a window, of dK and dV where the heads of a group meet in them:
    one buffer, so that a call of one window fills it once and converts it once.
    """
    if dout.stride(2) != 1:
        dout = dout.contiguous()
    stats = compute_stats(out, dout, lse)
    num_skipped = k.shape[0] - q.shape[0]
    tile = choose_tile("backward_gather", q, block_size=table.block_size)

    def run_gather(
        heads: range, dq_sums: torch.Tensor | None, dk: torch.Tensor, dv: torch.Tensor
    ) -> None:
        chosen = words[heads.start : heads.stop]
        run_backward_gather(
            dout,
            q,
            k,
            v,
            stats,
            build_row_lists(chosen, table, None, max_top_k=max_top_k, num_skipped=num_skipped),
            table,
            dq_sums,
            dk=dk,
            dv=dv,
            heads=heads,
            tile=tile,
            scale=scale,
        )

    if deterministic:
        gradients = q.new_empty(q.numel() + 2 * k.numel())
        dq, dk, dv = split_gradients(gradients, q, k)
        run_gather(range(q.shape[1]), None, dk, dv)
        tile = choose_tile("backward_union", q, block_size=table.block_size)
        lists = build_union_lists(words, table, tile_rows=tile.rows, num_skipped=0)
        run_backward_union(dout, q, k, v, stats, words, lists, table, dq, tile=tile, scale=scale)
        return gradients
    windows = head_windows(q.shape[1], q.shape[0], q.shape[2])
    window = q[:, : len(windows[0])]
    meet = k.shape[1] < q.shape[1]
    sums = q.new_zeros(window.numel() + 2 * k.numel() * meet, dtype=torch.float32)
    if meet and len(windows) == 1:
        run_gather(windows[0], *split_gradients(sums, q, k))
        return sums.to(q.dtype)
    gradients = q.new_empty(q.numel() + 2 * k.numel())
    dq, dk, dv = split_gradients(gradients, q, k)
    dk_sums, dv_sums = split_gradients(sums, window, k)[1:] if meet else (dk, dv)
    for heads in windows:
        # The last window may be the smaller one: its sums are dense in the same buffer.
        part = sums[: q.shape[0] * len(heads) * q.shape[2]]
        if heads.start > 0:
            part.zero_()
        part = part.view(q.shape[0], len(heads), q.shape[2])
        run_gather(heads, part, dk_sums, dv_sums)
        dq[:, heads.start : heads.stop] = part
    if meet:
        gradients[q.numel() :] = sums[window.numel() :]
    return gradients


def split_gradients(
    gradients: torch.Tensor, q: torch.Tensor, k: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the parts of the flat gradients, or of their sums, in the shapes of q, k and v."""
    dq, dk, dv = gradients.split([q.numel(), k.numel(), k.numel()])
    return dq.view(q.shape), dk.view(k.shape), dv.view(k.shape)
