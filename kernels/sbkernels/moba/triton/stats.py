"""Row statistics of the backward pass: the log-sum-exp and delta = rowsum(out * dout).

They lie side by side, 16 bytes a row, because the gather kernel fetches them by row index: as
two vectors Triton 3.6 copies each element once per thread that needs it, 4 bytes at a time
(128 of 160 copy instructions of the loop).

Shapes: T packed tokens, H query heads, D head dim, R rows of a tile.
"""

import torch
import triton
import triton.language as tl

ROWS = 64
# Values per row: lse, delta, and two unused ones up to 16 bytes.
STATS = tl.constexpr(4)


def compute_stats(out: torch.Tensor, dout: torch.Tensor, lse: torch.Tensor) -> torch.Tensor:
    """Returns float32 [H, T, 4]: lse, delta, 0, 0; out is contiguous, dout has unit stride in D."""
    num_tokens, num_heads, head_dim = out.shape
    stats = lse.new_empty((num_heads, num_tokens, STATS.value))
    _stats_kernel[(triton.cdiv(num_tokens, ROWS), num_heads)](
        out,
        dout,
        lse,
        stats,
        *dout.stride()[:2],
        num_tokens,
        R=ROWS,
        D=head_dim,
        num_warps=4,
    )
    return stats


@triton.jit(do_not_specialize=["num_tokens"])
def _stats_kernel(
    out_ptr,
    dout_ptr,
    lse_ptr,
    stats_ptr,
    stride_ot,
    stride_oh,
    num_tokens,
    R: tl.constexpr,
    D: tl.constexpr,
):
    """One program per (tile of rows, query head)."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    head = tl.program_id(1)
    real = row < num_tokens
    dim = tl.arange(0, D)[None, :]
    at = row.to(tl.int64)[:, None]
    out = tl.load(
        out_ptr + (at * tl.num_programs(1) + head) * D + dim, mask=real[:, None], other=0.0
    )
    dout = tl.load(
        dout_ptr + at * stride_ot + head.to(tl.int64) * stride_oh + dim,
        mask=real[:, None],
        other=0.0,
    )
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), axis=1)
    index = head.to(tl.int64) * num_tokens + row
    lse = tl.load(lse_ptr + index, mask=real, other=0.0)
    column = tl.arange(0, STATS)[None, :]
    stats = tl.where(column == 0, lse[:, None], tl.where(column == 1, delta[:, None], 0.0))
    tl.store(stats_ptr + index[:, None] * STATS + column, stats, mask=real[:, None])
