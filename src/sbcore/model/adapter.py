"""Which linear layers have a low-rank adapter, and what it is made of.

The adapters are peft's modules and hold the weights.

E input size, F output size of a layer, R rank of its adapter.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

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
