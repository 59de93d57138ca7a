"""Weights in two types: the model computes in one, the optimizer keeps float32.

Gradients of micro-batches are summed in float32. Only parameters change their type: rotary
frequencies rounded to bfloat16 would be off by whole turns at 8,192 tokens.
"""

import torch
from torch import nn


class TwoTypes:
    """A float32 model's parameters, now of its working type, and their masters, in order."""

    def __init__(self, model: nn.Module, working: torch.dtype) -> None:
        self.names = [name for name, _ in model.named_parameters()]
        self.working = [p for _, p in model.named_parameters()]
        self.masters = [nn.Parameter(p.detach().clone()) for p in self.working]
        for master, parameter in zip(self.masters, self.working, strict=True):
            master.grad = torch.zeros_like(master)
            parameter.data = parameter.data.to(working)

    def take_gradients(self) -> None:
        """Adds the working gradients to the masters' and clears them."""
        grads = [p.grad.float() for p in self.working if p.grad is not None]
        held = [
            m.grad for m, p in zip(self.masters, self.working, strict=True) if p.grad is not None
        ]
        torch._foreach_add_(held, grads)
        for parameter in self.working:
            parameter.grad = None

    @torch.no_grad()
    def give_weights(self) -> None:
        """Copies the masters into the model and clears their gradients."""
        torch._foreach_copy_(self.working, self.masters)
        torch._foreach_zero_([master.grad for master in self.masters])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Returns the float32 weights by name."""
        return {n: m.detach() for n, m in zip(self.names, self.masters, strict=True)}


def working_type(device: torch.device) -> torch.dtype:
    """Returns what the device computes in."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32
