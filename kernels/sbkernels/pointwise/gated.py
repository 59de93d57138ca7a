"""silu(gate) * up and its backward: every value is read once and rounded once.

At 64K tokens of 4,864 a layer's activation took 14 passes over 0.64 GB backward and takes 6.

Tensors are dense, of one shape [T, I]; T tokens, I intermediate size.
"""

import torch
import triton
import triton.language as tl

BLOCK = 2048
"""Values of one program."""


def silu_product(gated: torch.Tensor, raised: torch.Tensor) -> torch.Tensor:
    """Returns silu(gated) * raised, [T, I]."""
    out = torch.empty_like(gated)
    _forward_kernel[_grid(gated)](gated, raised, out, gated.numel(), BLOCK=BLOCK)
    return out


def silu_product_backward(
    grad: torch.Tensor, gated: torch.Tensor, raised: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the product again and the gradients of gated and of raised, [T, I] each.

    ``grad``, that of the product, is overwritten: it is the memory of the second.
    """
    product, by_raised = torch.empty_like(gated), torch.empty_like(raised)
    _backward_kernel[_grid(gated)](
        grad, gated, raised, product, by_raised, gated.numel(), BLOCK=BLOCK
    )
    return product, grad, by_raised


def _grid(x: torch.Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel(), BLOCK),)


@triton.jit
def _forward_kernel(gated_ptr, raised_ptr, out_ptr, num_values, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < num_values
    gated = tl.load(gated_ptr + at, mask=inside, other=0.0).to(tl.float32)
    raised = tl.load(raised_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, gated * tl.sigmoid(gated) * raised, mask=inside)


@triton.jit
def _backward_kernel(
    grad_ptr,
    gated_ptr,
    raised_ptr,
    product_ptr,
    by_raised_ptr,
    num_values,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < num_values
    grad = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
    gated = tl.load(gated_ptr + at, mask=inside, other=0.0).to(tl.float32)
    raised = tl.load(raised_ptr + at, mask=inside, other=0.0).to(tl.float32)
    share = tl.sigmoid(gated)
    active = gated * share
    slope = share + active * (1.0 - share)
    tl.store(product_ptr + at, active * raised, mask=inside)
    tl.store(by_raised_ptr + at, grad * active, mask=inside)
    tl.store(grad_ptr + at, grad * raised * slope, mask=inside)
