"""Attention of one sequence by the library's fused dense kernels, causal or with a mask.

Shapes: L tokens, H query heads, G key heads, D head dim, W ranks kept.
"""

import os
import warnings
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from sbkernels.moba.selection import membership_of, num_blocks_of

# On an H100 cuDNN's kernel takes little more than half the time of FlashAttention-2 (64K tokens,
# 16/2 heads, D = 128: 107 against 184 ms forward and backward). The others take what it cannot.
FASTEST_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
_PRIORITY = [backend.value for backend in FASTEST_FIRST]

# cuDNN plans each length that it has not met for 153 ms (one H100, torch 2.11): told so, the
# library shares plans between lengths of one power of two, which costs 0.4 ms a call. It reads
# this once, at its first call; who sets it beforehand is heard. docs/decisions/shared-plans.md
# It warns that it is experimental, and of calls with masks, which have plans of their own as ever.
os.environ.setdefault("TORCH_CUDNN_SDPA_AVOID_RECOMPILE", "1")
warnings.filterwarnings("ignore", message="TORCH_CUDNN_SDPA_AVOID_RECOMPILE=1 ")


def prefer_fastest_dense() -> AbstractContextManager[Any]:
    """Lets the library choose its fastest kernel first, in all calls of the block.

    Each `attend_dense` sees to it by itself, but setting it costs the host 15 to 30 us.
    """
    return sdpa_kernel(FASTEST_FIRST, set_priority=True)


def attend_dense(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float
) -> torch.Tensor:
    """Returns causal attention [L, H, D] of q [L, H, D] over k, v [L, G, D]."""
    if not q.is_cuda or _fastest_is_first():
        return attend_causal(q, k, v, scale=scale)
    with prefer_fastest_dense():
        return attend_causal(q, k, v, scale=scale)


def _fastest_is_first() -> bool:
    if torch.compiler.is_compiling():  # it cannot trace the question
        return False
    order: list[int] = torch._C._get_sdp_priority_order()
    return order[: len(FASTEST_FIRST)] == _PRIORITY


def attend_causal(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float
) -> torch.Tensor:
    """Returns the same as `attend_dense`, by whichever of its kernels the library prefers."""
    out = scaled_dot_product_attention(
        _heads_first(q),
        _heads_first(k),
        _heads_first(v),
        is_causal=True,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return _DenseGradient.apply(out.squeeze(0).transpose(0, 1))


class _DenseGradient(torch.autograd.Function):
    """Passes values on; the gradient arrives contiguous [L, H, D].

    The library keeps cuDNN's backward plan by the layouts of q, k and v, not by that of the
    output's gradient, which the plan bakes in (torch 2.11): a gradient of another layout than the
    first one's was read wrongly, and all of dq, dk, dv came out wrong without a word. So every
    call of ours has the layout that models have too.
    """

    @staticmethod
    def forward(ctx: Any, out: torch.Tensor) -> torch.Tensor:
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad.contiguous()


def attend_dense_masked(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allowed: torch.Tensor, *, scale: float
) -> torch.Tensor:
    """Returns attention [L, H, D] where allowed [H, L, L]; all L * L scores are computed."""
    out = scaled_dot_product_attention(
        _heads_first(q),
        _heads_first(k),
        _heads_first(v),
        attn_mask=allowed[None],
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out[0].transpose(0, 1)


def allowed_keys(ranked: torch.Tensor, num_tokens: int, *, block_size: int) -> torch.Tensor:
    """Returns bool [H, L, L]: causal keys in the ranked blocks int32 [H, L, W], -1 = none."""
    member = membership_of(ranked, num_blocks_of(num_tokens, block_size))
    return member.repeat_interleave(block_size, dim=2)[..., :num_tokens].tril()


def _heads_first(tensor: torch.Tensor) -> torch.Tensor:
    # Without a dense head dim the library takes its slow formula; only rows that lie one behind
    # the other, no views of q, k and v in one tensor, share cuDNN's plans.
    return tensor.contiguous().transpose(0, 1)[None]
