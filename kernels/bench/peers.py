"""What the kernels are measured against: the library's dense attention, and FlexAttention.

Shapes: T tokens of one sequence, H query heads, G key heads, D head dim.
"""

import inspect
import os
from collections.abc import Callable
from typing import Any

# Lengths are few here: cuDNN is measured with a plan for each, which is its fastest.
os.environ["TORCH_CUDNN_SDPA_AVOID_RECOMPILE"] = "0"

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from sbkernels.moba.dense import attend_dense
from sbkernels.moba.triton.lists import UnionLists
from sbkernels.testing import PackedInputs

DENSE = {"cudnn": SDPBackend.CUDNN_ATTENTION, "fa2": SDPBackend.FLASH_ATTENTION}
FLEX_TILE = 128


def dense_call(
    inputs: PackedInputs, implementation: str, *, backward: bool
) -> Callable[[], object]:
    """Returns a call of causal attention over one sequence by a backend of SDPA."""
    q, k, v, grad_out = _batched(inputs, requires_grad=backward)

    def call() -> object:
        with sdpa_kernel(DENSE[implementation]):
            out = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return torch.autograd.grad(out, (q, k, v), grad_out) if backward else out

    return call


def library_calls(
    inputs: PackedInputs, lengths: tuple[int, ...]
) -> dict[str, Callable[[], object]]:
    """Returns dense attention by the library: a call per sequence, and one for variable lengths."""
    leaves = [x.detach().requires_grad_() for x in (inputs.q, inputs.k, inputs.v)]
    scale = inputs.q.shape[2] ** -0.5

    def one_by_one() -> object:
        parts = zip(*(x.split(lengths) for x in leaves), strict=True)
        out = torch.cat([attend_dense(*part, scale=scale) for part in parts])
        return torch.autograd.grad(out, leaves, inputs.grad_out)

    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"is_causal": True} if "is_causal" in known else {}
    options = options or {"window_size": (-1, 0)}
    if "enable_gqa" in known:
        options["enable_gqa"] = True
    ends, longest = inputs.cu_seqlens, inputs.max_seqlen

    def varlen() -> object:
        out = varlen_attn(*leaves, ends, ends, longest, longest, **options)
        return torch.autograd.grad(out, leaves, inputs.grad_out)

    return {"cudnn_each": one_by_one, "varlen": varlen}


def flex_call(
    inputs: PackedInputs,
    words: torch.Tensor,
    lists: UnionLists,
    *,
    block_size: int,
    backward: bool,
) -> Callable[[], object]:
    """Returns a call of FlexAttention with the union of the tiles and the rows' own choice.

    The selection and the mask are made beforehand and not timed.
    """
    q, k, v, grad_out = _batched(inputs, requires_grad=backward)
    mask = _union_mask(words, lists, block_size=block_size, num_tokens=q.shape[2])
    attend = torch.compile(flex_attention)

    def call() -> object:
        out = attend(q, k, v, block_mask=mask, enable_gqa=True)
        return torch.autograd.grad(out, (q, k, v), grad_out) if backward else out

    return call


def _batched(inputs: PackedInputs, *, requires_grad: bool) -> tuple[torch.Tensor, ...]:
    tensors = (inputs.q, inputs.k, inputs.v)
    q, k, v = (x.transpose(0, 1)[None].detach().requires_grad_(requires_grad) for x in tensors)
    return q, k, v, inputs.grad_out.transpose(0, 1)[None]


def _union_mask(
    words: torch.Tensor, lists: UnionLists, *, block_size: int, num_tokens: int
) -> BlockMask:
    """Returns the mask over tiles of 128 x 128; `lists` are those of 128 rows."""
    num_heads, num_tiles, width = lists.blocks.shape
    position = torch.arange(width, device=words.device)
    listed = position <= lists.num_past[..., None]  # past blocks, then the own one
    union = words.new_zeros((num_heads, num_tiles, width), dtype=torch.bool)
    column = torch.where(listed, lists.blocks.long(), width - 1)
    union.scatter_(2, column, listed)
    union = union[..., :-1].repeat_interleave(block_size // FLEX_TILE, dim=2)
    tile = torch.arange(num_tiles, device=words.device)
    union &= tile[None, None, : union.shape[2]] <= tile[:, None]
    order = union.int().argsort(dim=2, descending=True, stable=True).int()
    counts = union.sum(2).int()

    def allowed(
        _batch: torch.Tensor, head: torch.Tensor, row: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        chosen = (words[head, key // block_size, row // 32] >> (row % 32)) & 1
        return (chosen != 0) & (key <= row)

    return BlockMask.from_kv_blocks(
        counts[None],
        order[None],
        BLOCK_SIZE=FLEX_TILE,
        mask_mod=allowed,
        seq_lengths=(num_tokens, num_tokens),
    )
