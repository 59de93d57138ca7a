"""What adapters add to linear layers that read the same input, and their part of a backward pass.

Layers that read the same input see it with the same values dropped, so that one product serves the
A of all of them. What is dropped is made again from a mask. A group of none does nothing.

T tokens, E input size, F output size of a layer, R rank of an adapter, s its scaling.
"""

from typing import NamedTuple

import torch
from torch.nn.functional import linear

from sbcore.model.adapter import Group, Tensors
from sbcore.model.joint_linear import joined


class Kept(NamedTuple):
    """What the backward pass wants besides the input and the weights."""

    low: torch.Tensor | None  # [T, sum of R]: A dropout(x)
    mask: torch.Tensor | None  # bool [T, E]: what was not dropped


class LowRank:
    """A and B of a group's adapters, at work on one x [T, E]."""

    def __init__(self, group: Group, weights: Tensors, *, kept: Kept) -> None:
        num = len(group.scalings)
        self.group, self.a, self.b, self.kept = group, weights[:num], weights[num:], kept
        self._ranks = [len(weight) for weight in self.a]

    @classmethod
    def draw(cls, group: Group, weights: Tensors, *, x: torch.Tensor) -> "LowRank":
        """Returns the adapters with A dropout(x) and what was dropped."""
        if not group.scalings:
            return cls(group, weights, kept=Kept(None, None))
        p, mask, dropped = group.dropout, None, x
        if p:
            dropped, mask = torch.native_dropout(x, p, True)
        low = linear(dropped, joined(weights[: len(group.scalings)]))
        return cls(group, weights, kept=Kept(low, mask))

    def add_to(self, every: Tensors) -> None:
        """Adds s B A dropout(x) to the adapted layers' outputs among all, [T, F] each, in place."""
        if self.kept.low is None:
            return
        parts, outputs = self.kept.low.split(self._ranks, 1), self.group.outputs(every)
        for y, part, b, s in zip(outputs, parts, self.b, self.group.scalings, strict=True):
            y.addmm_(part, b.t(), alpha=s)

    def backward(self, every: Tensors) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """Returns the gradients by A dropout(x) and by all B, from those by the layers' outputs."""
        if self.kept.low is None:
            return None, []
        by_low, by_b = torch.empty_like(self.kept.low), []
        lows = zip(by_low.split(self._ranks, 1), self.kept.low.split(self._ranks, 1), strict=True)
        grads = zip(self.group.outputs(every), self.b, self.group.scalings, strict=True)
        for (by_part, part), (grad, b, s) in zip(lows, grads, strict=True):
            by_part.addmm_(grad, b, beta=0, alpha=s)
            by_b.append(torch.empty_like(b).addmm_(grad.t(), part, beta=0, alpha=s))
        return by_low, by_b

    def by_a(self, by_low: torch.Tensor | None, *, x: torch.Tensor) -> list[torch.Tensor]:
        """Returns the gradients by all A."""
        if by_low is None:
            return []
        return list((by_low.t() @ self._dropped(x)).split(self._ranks))

    def add_back(self, by_x: torch.Tensor, by_low: torch.Tensor | None) -> None:
        """Adds what comes back through the adapters to the gradient by x, in place."""
        if by_low is None:
            return
        if self.kept.mask is None:
            by_x.addmm_(by_low, joined(self.a))
        else:
            by_x.add_(self._dropped(by_low @ joined(self.a)))

    def _dropped(self, x: torch.Tensor) -> torch.Tensor:
        """Returns x with the values dropped that were, the others scaled up; so are gradients."""
        if self.kept.mask is None:
            return x
        scale = 1 / (1 - self.group.dropout)
        rest: torch.Tensor = torch.ops.aten.native_dropout_backward(x, self.kept.mask, scale)
        return rest
