"""delta = rowsum(out * dout), what the softmax's backward subtracts.

Shapes: T packed tokens, H query heads, D head dim, R rows of a tile.
"""

import torch
import triton
import triton.language as tl

ROWS = 64


def compute_delta(out: torch.Tensor, dout: torch.Tensor) -> torch.Tensor:
    """Returns float32 [H, T]; out is contiguous, dout has unit stride in D."""
    num_tokens, num_heads, head_dim = out.shape
    delta = out.new_empty((num_heads, num_tokens), dtype=torch.float32)
    _delta_kernel[(triton.cdiv(num_tokens, ROWS), num_heads)](
        out,
        dout,
        delta,
        *dout.stride()[:2],
        num_tokens,
        R=ROWS,
        D=head_dim,
        num_warps=4,
    )
    return delta


@triton.jit(do_not_specialize=["num_tokens"])
def _delta_kernel(
    out_ptr,
    dout_ptr,
    delta_ptr,
    stride_ot,
    stride_oh,
    num_tokens,
    R: tl.constexpr,
    D: tl.constexpr,
):
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
    tl.store(delta_ptr + head.to(tl.int64) * num_tokens + row, delta, mask=real)
