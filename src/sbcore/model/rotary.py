"""Rotary position embedding of queries and keys together, as the projections leave them.

T tokens, H query heads, G key heads, D head dim. The library's formula turns pairs (i, i + D/2).
"""

from typing import Any

import torch


def rotate(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, num_key_heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns q [T, H, D] and k [T, G, D] turned, and v as it was, of qkv [T, H + 2 G, D].

    ``cos`` and ``sin`` are [T, 1, D/2]. q and k are views of one tensor, v is one of qkv.
    """
    turned: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _Rotate.apply(
        qkv, cos, sin, num_key_heads
    )
    return turned


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, num_key_heads: int
    ) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(cos, sin)
        num_turned = qkv.shape[1] - num_key_heads
        if qkv.is_cuda:
            from sbkernels.pointwise.rotary import turn

            turned = turn(qkv, cos, sin, num_key_heads=num_key_heads)
        else:
            turned = torch.empty_like(qkv[:, :num_turned])
            _turn(qkv[:, :num_turned], cos, sin, turned, sign=1)
        num_heads = num_turned - num_key_heads
        return turned[:, :num_heads], turned[:, num_heads:], qkv[:, num_turned:]

    @staticmethod
    def backward(
        ctx: Any, dq: torch.Tensor, dk: torch.Tensor, dv: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        if dq.is_cuda:
            from sbkernels.pointwise.rotary import turn_back

            return turn_back(dq, dk, dv, cos, sin), None, None, None
        num_turned = dq.shape[1] + dk.shape[1]
        grad = dq.new_empty((len(dq), num_turned + dv.shape[1], dq.shape[2]))
        _turn(torch.cat([dq, dk], 1), cos, sin, grad[:, :num_turned], sign=-1)
        grad[:, num_turned:] = dv
        return grad, None, None, None


def _turn(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor, *, sign: int
) -> None:
    """Fills out with x turned by the angles, or back by them."""
    half = x.shape[-1] // 2
    pairs, new = x.unflatten(-1, (2, half)), out.unflatten(-1, (2, half))
    torch.mul(pairs, cos[:, :, None], out=new)
    new[:, :, 0].addcmul_(pairs[:, :, 1], sin, value=-sign)
    new[:, :, 1].addcmul_(pairs[:, :, 0], sin, value=sign)
