"""The gated feed-forward layer with a backward pass of its own: it keeps less, launches less.

T tokens, E hidden size, I intermediate size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn.functional import linear, silu

_RESULT_UNUSED = ContextVar("result_unused", default=False)


@contextmanager
def result_unused() -> Iterator[None]:
    """Leaves out the last product in the block: a recomputation wants what is kept on the way.

    That product is 29 % of a layer's weights in the 3B shape. Results are then wrong.
    """
    before = _RESULT_UNUSED.set(True)
    try:
        yield
    finally:  # the library leaves by an exception when it has what it wanted
        _RESULT_UNUSED.reset(before)


def result_is_unused() -> bool:
    """Returns whether the last product is to be left out."""
    return _RESULT_UNUSED.get()


def gated_feed_forward(
    x: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """Returns down(silu(gate x) * (up x)), [T, E] of x [T, E]; gate, up [I, E], down [E, I].

    Kept for the backward pass are x and both products; it makes the activation again, on a GPU in
    the launch that its gradients take, where the library keeps 2 I more values of each token.
    """
    out: torch.Tensor = _GatedFeedForward.apply(x, gate, up, down)
    return out


class _GatedFeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor
    ) -> torch.Tensor:
        gated, raised = linear(x, gate), linear(x, up)
        ctx.save_for_backward(x, gated, raised, gate, up, down)
        if result_is_unused():
            return x.detach()  # the one operator that checkpointing lets a second run add
        return linear(product(gated, raised), down)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, gated, raised, gate, up, down = ctx.saved_tensors
        made, by_gated, by_raised = product_backward(grad @ down, gated, raised)
        by_x = (by_gated @ gate).addmm_(by_raised, up) if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[1:]):
            return by_x, None, None, None
        return by_x, by_gated.t() @ x, by_raised.t() @ x, grad.t() @ made


def product(gated: torch.Tensor, raised: torch.Tensor) -> torch.Tensor:
    """Returns silu(gated) * raised, [T, I]."""
    if not gated.is_cuda:
        return silu(gated).mul_(raised)
    from sbkernels.pointwise.gated import silu_product

    return silu_product(gated, raised)


def product_backward(
    grad: torch.Tensor, gated: torch.Tensor, raised: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the product again and its gradients by gated and raised; overwrites grad. [T, I]."""
    if gated.is_cuda:
        from sbkernels.pointwise.gated import silu_product_backward

        return silu_product_backward(grad, gated, raised)
    active = silu(gated)
    made, by_raised = active * raised, active.mul_(grad)
    return made, torch.ops.aten.silu_backward(grad.mul_(raised), gated), by_raised
