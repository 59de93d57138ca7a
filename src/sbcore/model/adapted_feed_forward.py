"""The gated feed-forward layer with low-rank adapters on some or all of its products.

As without them, x and both products are kept, and the activation is made again. Adapters add what
they keep: R values of each token, and where they drop any, a byte for each value that may be.

T tokens, E hidden size, I intermediate size.
"""

from typing import Any

import torch
from torch.nn.functional import linear

from sbcore.model.adapter import Group, Tensors, base_of, group_of, weights_of
from sbcore.model.feed_forward import product, product_backward, result_is_unused
from sbcore.model.low_rank import Kept, LowRank


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
        low = LowRank.draw(inner, of_inner, x=x)
        low.add_to([gated, raised])
        made = product(gated, raised)
        last = LowRank.draw(outer, of_outer, x=made)
        ctx.save_for_backward(x, gated, raised, *low.kept, *last.kept, *weights, *adapters)
        if result_is_unused():
            return x.detach()  # the one operator that checkpointing lets a second run add
        y = linear(made, down)
        last.add_to([y])
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, gated, raised, *rest = ctx.saved_tensors
        kept, kept_last, (gate, up, down) = Kept(*rest[:2]), Kept(*rest[2:4]), rest[4:7]
        of_inner, of_outer = _apart(rest[7:], ctx.inner)
        last = LowRank(ctx.outer, of_outer, kept=kept_last)
        by_last, by_b_last = last.backward([grad])
        by_made = grad @ down
        last.add_back(by_made, by_last)
        made, by_gated, by_raised = product_backward(by_made, gated, raised)
        by_outer = [*last.by_a(by_last, x=made), *by_b_last]

        low = LowRank(ctx.inner, of_inner, kept=kept)
        by_low, by_b = low.backward([by_gated, by_raised])
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = (by_gated @ gate).addmm_(by_raised, up)
            low.add_back(by_x, by_low)
        return by_x, None, None, None, *low.by_a(by_low, x=x), *by_b, *by_outer


def _apart(adapters: Tensors, inner: Group) -> tuple[Tensors, Tensors]:
    """Returns A and B of gate and up, and those of down."""
    num = 2 * len(inner.scalings)
    return adapters[:num], adapters[num:]
