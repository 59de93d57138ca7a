"""Rotary positions turned into queries and keys, and gradients turned back, one launch each.

T tokens, H query heads, G key heads, D head dim, whose pairs are (i, i + D/2). A program does a
token, heads down and half of the head dim across.
"""

import torch
import triton
import triton.language as tl


def turn(
    qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, num_key_heads: int
) -> torch.Tensor:
    """Returns the queries and keys of qkv [T, H + 2 G, D] turned, [T, H + G, D].

    ``cos`` and ``sin`` are [T, 1, D/2], of equal strides; all are dense in their last dimension.
    """
    num_turned = qkv.shape[1] - num_key_heads
    out = qkv.new_empty((len(qkv), num_turned, qkv.shape[2]))
    half = qkv.shape[2] // 2
    _turn_kernel[(len(qkv),)](
        qkv,
        cos,
        sin,
        out,
        qkv.stride(0),
        qkv.stride(1),
        cos.stride(0),
        NUM_HEADS=num_turned,
        HALF=half,
        HEADS=triton.next_power_of_2(num_turned),
        WIDTH=triton.next_power_of_2(half),
        num_warps=2,
    )
    return out


def turn_back(
    dq: torch.Tensor, dk: torch.Tensor, dv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> torch.Tensor:
    """Returns the gradient of qkv, [T, H + 2 G, D]: dq [T, H, D] and dk turned back, dv as it is.

    Gradients may be views with gaps between heads and tokens. What else is as in `turn`.
    """
    dq, dk, dv = (x if x.stride(2) == 1 else x.contiguous() for x in (dq, dk, dv))
    num_heads, num_key_heads, half = dq.shape[1], dk.shape[1], dq.shape[2] // 2
    out = dq.new_empty((len(dq), num_heads + 2 * num_key_heads, dq.shape[2]))
    _turn_back_kernel[(len(dq),)](
        dq,
        dk,
        dv,
        cos,
        sin,
        out,
        *(stride for x in (dq, dk, dv) for stride in x.stride()[:2]),
        cos.stride(0),
        NUM_HEADS=num_heads,
        NUM_KEY_HEADS=num_key_heads,
        HALF=half,
        HEADS=triton.next_power_of_2(out.shape[1]),
        WIDTH=triton.next_power_of_2(half),
        num_warps=2,
    )
    return out


@triton.jit
def _turn_kernel(
    qkv_ptr,
    cos_ptr,
    sin_ptr,
    out_ptr,
    token_stride,
    head_stride,
    angle_stride,
    NUM_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head, column = tl.arange(0, HEADS)[:, None], tl.arange(0, WIDTH)[None, :]
    inside = (head < NUM_HEADS) & (column < HALF)
    cos = tl.load(cos_ptr + token * angle_stride + column, mask=column < HALF).to(tl.float32)
    sin = tl.load(sin_ptr + token * angle_stride + column, mask=column < HALF).to(tl.float32)
    at = qkv_ptr + token * token_stride + head * head_stride + column
    first = tl.load(at, mask=inside).to(tl.float32)
    second = tl.load(at + HALF, mask=inside).to(tl.float32)
    to = out_ptr + (token * NUM_HEADS + head) * (2 * HALF) + column
    tl.store(to, first * cos - second * sin, mask=inside)
    tl.store(to + HALF, second * cos + first * sin, mask=inside)


@triton.jit
def _turn_back_kernel(
    dq_ptr,
    dk_ptr,
    dv_ptr,
    cos_ptr,
    sin_ptr,
    out_ptr,
    dq_token,
    dq_head,
    dk_token,
    dk_head,
    dv_token,
    dv_head,
    angle_stride,
    NUM_HEADS: tl.constexpr,
    NUM_KEY_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head, column = tl.arange(0, HEADS)[:, None], tl.arange(0, WIDTH)[None, :]
    key_head, value_head = head - NUM_HEADS, head - NUM_HEADS - NUM_KEY_HEADS
    real = column < HALF
    of_q = (head < NUM_HEADS) & real
    of_k = (key_head >= 0) & (value_head < 0) & real
    of_v = (value_head >= 0) & (value_head < NUM_KEY_HEADS) & real
    q_at = dq_ptr + token * dq_token + head * dq_head + column
    k_at = dk_ptr + token * dk_token + key_head * dk_head + column
    v_at = dv_ptr + token * dv_token + value_head * dv_head + column
    first, second = _half(q_at, of_q), _half(q_at + HALF, of_q)
    first += _half(k_at, of_k) + _half(v_at, of_v)
    second += _half(k_at + HALF, of_k) + _half(v_at + HALF, of_v)
    cos = tl.load(cos_ptr + token * angle_stride + column, mask=real).to(tl.float32)
    sin = tl.load(sin_ptr + token * angle_stride + column, mask=real).to(tl.float32)
    cos, sin = tl.where(of_v, 1.0, cos), tl.where(of_v, 0.0, sin)
    to = out_ptr + (token * (NUM_HEADS + 2 * NUM_KEY_HEADS) + head) * (2 * HALF) + column
    inside = of_q | of_k | of_v
    tl.store(to, first * cos + second * sin, mask=inside)
    tl.store(to + HALF, second * cos - first * sin, mask=inside)


@triton.jit
def _half(at, inside):
    """Returns half of the gradients as float32, 0 where they are not of this kind."""
    return tl.load(at, mask=inside, other=0.0).to(tl.float32)
