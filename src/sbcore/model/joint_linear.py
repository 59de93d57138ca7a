"""Several linear layers over the same input as one product: fewer launches, the same weights.

T tokens, E input size, F_i output size of each layer.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear


def joint_linear(x: torch.Tensor, layers: Sequence[nn.Linear]) -> torch.Tensor:
    """Returns what the layers make of x [T, E], side by side: [T, sum of F_i].

    Weights stay apart, each with a gradient of its own, if it wants one; either all layers have a
    bias or none.
    """
    weights = [layer.weight for layer in layers]
    biases = [layer.bias for layer in layers if layer.bias is not None]
    joint: torch.Tensor = _JointLinear.apply(x, len(weights), *weights, *biases)
    return joint


def joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the tensors below each other; one alone is not copied."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


class _JointLinear(torch.autograd.Function):
    """Joins the weights twice rather than keep a second copy of all of them till the backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, num: int, *tensors: torch.Tensor) -> torch.Tensor:
        weights, biases = tensors[:num], tensors[num:]
        ctx.wants = any(ctx.needs_input_grad[2:])  # frozen ones below adapters do not
        ctx.save_for_backward(x if ctx.wants else None, *weights)
        ctx.has_bias = bool(biases)
        return linear(x, joined(weights), joined(biases) if biases else None)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        by_x = grad @ joined(weights) if ctx.needs_input_grad[0] else None
        if not ctx.wants:
            return by_x, *[None] * (len(ctx.needs_input_grad) - 1)
        sizes = [len(weight) for weight in weights]
        by_weight = (grad.t() @ x).split(sizes)
        by_bias = grad.sum(0).split(sizes) if ctx.has_bias else ()
        return by_x, None, *by_weight, *by_bias
