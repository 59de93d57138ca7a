"""The gated feed-forward layer with low-rank adapters on some or all of its products.

As without them, x and both products are kept, and the activation is made again. Adapters add what
they keep: R values of each token, and where they drop any, a byte for each value that may be.

T tokens, E hidden size, I intermediate size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from sbcore.model.adapter import (
    Group,
    Kept,
    add_back,
    add_high,
    base_of,
    draw_low,
    group_of,
    high_backward,
    low_backward,
    weights_of,
)
from sbcore.model.feed_forward import product, product_backward, result_is_unused


def adapted_feed_forward(x: torch.Tensor, gate: Any, up: Any, down: Any) -> torch.Tensor:
    """Returns down(silu(gate x) * (up x)), [T, E] of x [T, E]; no layer has a bias."""
    layers = (gate, up, down)
    weights = [base_of(layer).weight for layer in layers]
    assert not any(weight.requires_grad for weight in weights), "adapters alone are trained"
    inner, outer = group_of([gate, up]), group_of([down])
    adapters = [*weights_of([gate, up]), *weights_of([down])]
    out: torch.Tensor = _AdaptedFeedForward.apply(x, weights, inner, outer, *adapters)
    return out


class _AdaptedFeedForward(torch.autograd.Function):
    """Weights are frozen, so autograd need not see them: they come in a list."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weights: list[torch.Tensor],
        inner: Group,
        outer: Group,
        *adapters: torch.Tensor,
    ) -> torch.Tensor:
        ctx.inner, ctx.outer = inner, outer
        gate, up, down = weights
        of_inner, of_outer = _apart(adapters, inner)
        gated, raised = linear(x, gate), linear(x, up)
        kept = draw_low(x, of_inner, inner)
        add_high([gated, raised], kept, of_inner, inner)
        made = product(gated, raised)
        kept_outer = draw_low(made, of_outer, outer)
        ctx.save_for_backward(x, gated, raised, *kept, *kept_outer, *weights, *adapters)
        if result_is_unused():
            return x.detach()  # the one operator that checkpointing lets a second run add
        y = linear(made, down)
        add_high([y], kept_outer, of_outer, outer)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, gated, raised, low, mask, low_outer, mask_outer, *rest = ctx.saved_tensors
        gate, up, down, *adapters = rest
        of_inner, of_outer = _apart(adapters, ctx.inner)
        outer = Kept(low_outer, mask_outer), of_outer, ctx.outer
        by_low_outer, by_b_outer = high_backward([grad], *outer)
        by_made = grad @ down
        add_back(by_made, by_low_outer, *outer)
        made, by_gated, by_raised = product_backward(by_made, gated, raised)
        by_outer = [*low_backward(by_low_outer, made, *outer), *by_b_outer]

        inner = Kept(low, mask), of_inner, ctx.inner
        by_low, by_b = high_backward([by_gated, by_raised], *inner)
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = (by_gated @ gate).addmm_(by_raised, up)
            add_back(by_x, by_low, *inner)
        by_inner = [*low_backward(by_low, x, *inner), *by_b]
        return by_x, None, None, None, *by_inner, *by_outer


def _apart(
    adapters: Sequence[torch.Tensor], inner: Group
) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
    """Returns A and B of gate and up, and those of down."""
    num = 2 * len(inner.scalings)
    return adapters[:num], adapters[num:]
