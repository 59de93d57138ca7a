"""Memory for a model that was made without any: its shapes first, sharding, then its bytes."""

from typing import TYPE_CHECKING

import torch
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def materialise(model: "PreTrainedModel", device: torch.device) -> None:
    """Gives a model on `meta` its memory on the device, on each rank that of its own part.

    Weights are uninitialised afterwards; buffers, which no file holds, are computed anew.
    """
    model.to_empty(device=device)
    if not any(isinstance(weight, DTensor) for weight in model.parameters()):
        model.tie_weights()  # sharded ones stay tied, plain ones lose it with their memory
    _compute_buffers(model)


@torch.no_grad()
def _compute_buffers(model: "PreTrainedModel") -> None:
    """Fills buffers from a fresh module of the same class: rotary frequencies, in these models."""
    for module in model.modules():
        buffers = dict(module.named_buffers(recurse=False))
        if buffers:
            with torch.device("cpu"):
                fresh = dict(type(module)(model.config).named_buffers())
            for name, buffer in buffers.items():
                buffer.copy_(fresh[name])
