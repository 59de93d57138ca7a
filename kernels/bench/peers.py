"""What the kernels are measured against: the library's dense attention, and FlashMoBA.

Shapes: T tokens of one sequence, H query heads, G key heads, D head dim.
"""

import inspect
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

# Lengths are few here: cuDNN is measured with a plan for each, which is its fastest.
os.environ["TORCH_CUDNN_SDPA_AVOID_RECOMPILE"] = "0"

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from sbkernels.moba.dense import attend_dense
from sbkernels.testing import PackedInputs

DENSE = {"cudnn": SDPBackend.CUDNN_ATTENTION, "fa2": SDPBackend.FLASH_ATTENTION}


def dense_call(
    inputs: PackedInputs, implementation: str, *, backward: bool
) -> Callable[[], object]:
    """Returns a call of causal attention over one sequence by a backend of SDPA."""
    q, k, v, grad_out = batched(inputs, requires_grad=backward)

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


def flash_moba_call(
    inputs: PackedInputs, *, block_size: int, top_k: int, backward: bool
) -> Callable[[], object]:
    """Returns a call of FlashMoBA, selection included; raises ImportError where it is missing."""
    attend = import_module("flash_moba").flash_moba_varlen_func
    leaves = [x.detach().requires_grad_(backward) for x in (inputs.q, inputs.k, inputs.v)]
    ends, longest = inputs.cu_seqlens, inputs.max_seqlen

    def call() -> object:
        out = attend(*leaves, ends, ends, longest, longest, block_size, top_k, causal=True)
        return torch.autograd.grad(out, leaves, inputs.grad_out) if backward else out

    return call


def batched(inputs: PackedInputs, *, requires_grad: bool) -> tuple[torch.Tensor, ...]:
    """Returns q, k, v and the gradient of the output as [1, heads, T, D]."""
    tensors = (inputs.q, inputs.k, inputs.v)
    q, k, v = (x.transpose(0, 1)[None].detach().requires_grad_(requires_grad) for x in tensors)
    return q, k, v, inputs.grad_out.transpose(0, 1)[None]
