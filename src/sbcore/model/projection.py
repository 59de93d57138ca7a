"""Linear layers with or without low-rank adapters, in few launches.

T tokens, E input size, F output size of each layer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from sbcore.model.adapter import Group, base_of, group_of, is_adapted, weights_of
from sbcore.model.joint_linear import joined, joint_linear
from sbcore.model.low_rank import Kept, LowRank


def project(x: torch.Tensor, layer: Any) -> torch.Tensor:
    """Returns W x + b, and s B A dropout(x) on top where the layer is adapted; [T, F] of [T, E]."""
    if is_adapted(layer):
        return _adapted(x, [layer])
    return linear(x, layer.weight, layer.bias)


def project_jointly(x: torch.Tensor, layers: Sequence[Any]) -> torch.Tensor:
    """Returns what the layers make of x [T, E], side by side: [T, sum of F].

    Either all layers have a bias or none.
    """
    if any(map(is_adapted, layers)):
        return _adapted(x, layers)
    return joint_linear(x, layers)


def _adapted(x: torch.Tensor, layers: Sequence[Any]) -> torch.Tensor:
    bases = [base_of(layer) for layer in layers]
    weights = [base.weight for base in bases]
    biases = [base.bias for base in bases if base.bias is not None]
    assert not any(weight.requires_grad for weight in weights), "adapters alone are trained"
    out: torch.Tensor = _Adapted.apply(x, weights, biases, group_of(layers), *weights_of(layers))
    return out


class _Adapted(torch.autograd.Function):
    """Weights and biases are frozen, so autograd need not see them: they come in lists."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weights: list[torch.Tensor],
        biases: list[torch.Tensor],
        group: Group,
        *adapters: torch.Tensor,
    ) -> torch.Tensor:
        ctx.sizes, ctx.group = [len(weight) for weight in weights], group
        y = linear(x, joined(weights), joined(biases) if biases else None)
        low = LowRank.draw(group, adapters, x=x)
        low.add_to(y.split(ctx.sizes, 1))
        ctx.save_for_backward(x, *low.kept, *weights, *adapters)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, kept_low, mask, *rest = ctx.saved_tensors
        weights, adapters = rest[: len(ctx.sizes)], rest[len(ctx.sizes) :]
        low = LowRank(ctx.group, adapters, kept=Kept(kept_low, mask))
        by_low, by_b = low.backward(grad.split(ctx.sizes, 1))
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = grad @ joined(weights)
            low.add_back(by_x, by_low)
        return by_x, None, None, None, *low.by_a(by_low, x=x), *by_b
