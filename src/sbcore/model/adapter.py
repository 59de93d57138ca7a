"""What low-rank adapters add to linear layers that read the same input, and its backward pass.

The adapters are peft's and hold the weights; dropout is torch's. Layers that read the same input
see it with the same values dropped, so that one product serves the A of all of them. A group of
none is allowed, and nothing is done for it.

T tokens, E input size, F output size of a layer, R rank of an adapter, s its scaling.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import linear

from sbcore.model.joint_linear import joined
from sbcore.model.lora import ADAPTER

Tensors = Sequence[torch.Tensor]


class Group(NamedTuple):
    """What is no tensor of the adapters among layers that read the same input."""

    adapted: tuple[bool, ...]  # which of the layers
    scalings: tuple[float, ...]  # of the adapted ones
    dropout: float

    def outputs(self, every: Tensors) -> list[torch.Tensor]:
        """Returns those of the layers' outputs to which something is added."""
        return [one for one, adapted in zip(every, self.adapted, strict=True) if adapted]

    def halves(self, weights: Tensors) -> tuple[Tensors, Tensors]:
        """Returns A and B of the adapted layers out of `weights_of`."""
        return weights[: len(self.scalings)], weights[len(self.scalings) :]


class Kept(NamedTuple):
    """What the backward pass wants besides the input and the weights."""

    low: torch.Tensor | None  # [T, sum of R]: A dropout(x)
    mask: torch.Tensor | None  # bool [T, E]: what was not dropped


def is_adapted(layer: nn.Module) -> bool:
    """Returns whether the layer stands below an adapter."""
    return hasattr(layer, "lora_A")


def base_of(layer: Any) -> Any:
    """Returns the layer itself, or the one below its adapter."""
    return layer.base_layer if is_adapted(layer) else layer


def group_of(layers: Sequence[Any]) -> Group:
    """Returns the group of layers that read the same input; model.lora has one dropout for all."""
    ones = [layer for layer in layers if is_adapted(layer)]
    drops = {layer.lora_dropout[ADAPTER] for layer in ones}
    dropout = max((d.p for d in drops if isinstance(d, nn.Dropout) and d.training), default=0.0)
    scalings = tuple(layer.scaling[ADAPTER] for layer in ones)
    return Group(tuple(map(is_adapted, layers)), scalings, dropout)


def weights_of(layers: Sequence[Any]) -> list[torch.Tensor]:
    """Returns A [R, E] of all adapted layers, then B [F, R] of all."""
    ones = [layer for layer in layers if is_adapted(layer)]
    parts = [*(layer.lora_A for layer in ones), *(layer.lora_B for layer in ones)]
    return [part[ADAPTER].weight for part in parts]


def draw_low(x: torch.Tensor, weights: Tensors, group: Group) -> Kept:
    """Returns A dropout(x) of all adapters, side by side, of x [T, E]."""
    a, _ = group.halves(weights)
    if not a:
        return Kept(None, None)
    dropped, mask = torch.native_dropout(x, group.dropout, True) if group.dropout else (x, None)
    return Kept(linear(dropped, joined(a)), mask)


def add_high(every: Tensors, kept: Kept, weights: Tensors, group: Group) -> None:
    """Adds s B A dropout(x) to the adapted layers' outputs among all, [T, F] each, in place."""
    if kept.low is None:
        return
    a, b = group.halves(weights)
    parts = kept.low.split([len(weight) for weight in a], 1)
    for y, part, weight, s in zip(group.outputs(every), parts, b, group.scalings, strict=True):
        y.addmm_(part, weight.t(), alpha=s)


def high_backward(
    every: Tensors, kept: Kept, weights: Tensors, group: Group
) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
    """Returns the gradients by A dropout(x) [T, sum of R], and by all B, from those by outputs."""
    if kept.low is None:
        return None, []
    a, b = group.halves(weights)
    ranks = [len(weight) for weight in a]
    by_low, by_b = torch.empty_like(kept.low), []
    lows = zip(by_low.split(ranks, 1), kept.low.split(ranks, 1), strict=True)
    grads = zip(group.outputs(every), b, group.scalings, strict=True)
    for (by_part, part), (grad, weight, s) in zip(lows, grads, strict=True):
        by_part.addmm_(grad, weight, beta=0, alpha=s)
        by_b.append(torch.empty_like(weight).addmm_(grad.t(), part, beta=0, alpha=s))
    return by_low, by_b


def low_backward(
    by_low: torch.Tensor | None, x: torch.Tensor, kept: Kept, weights: Tensors, group: Group
) -> list[torch.Tensor]:
    """Returns the gradients by all A."""
    if by_low is None:
        return []
    a, _ = group.halves(weights)
    return list((by_low.t() @ _dropped(x, kept, group)).split([len(weight) for weight in a]))


def add_back(
    by_x: torch.Tensor, by_low: torch.Tensor | None, kept: Kept, weights: Tensors, group: Group
) -> None:
    """Adds what comes back through the adapters to the gradient by x [T, E], in place."""
    if by_low is None:
        return
    a = joined(group.halves(weights)[0])
    if kept.mask is None:
        by_x.addmm_(by_low, a)
    else:
        by_x.add_(_dropped(by_low @ a, kept, group))


def _dropped(x: torch.Tensor, kept: Kept, group: Group) -> torch.Tensor:
    """Returns x with the values dropped that were, the others scaled up; so are gradients."""
    if kept.mask is None:
        return x
    scale = 1 / (1 - group.dropout)
    rest: torch.Tensor = torch.ops.aten.native_dropout_backward(x, kept.mask, scale)
    return rest
