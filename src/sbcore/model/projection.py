"""Linear layers with or without a LoRA adapter, in few launches.

The adapter's modules are peft's and hold its weights; only its sum is made here, where peft asks in
every call which adapters are active and of what types.

T tokens, E input size, F output size, R rank of an adapter, s its scaling.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from sbcore.model.joint_linear import joint_linear
from sbcore.model.lora import ADAPTER


def is_adapted(layer: nn.Module) -> bool:
    """Returns whether the layer stands below an adapter."""
    return hasattr(layer, "lora_A")


def base_of(layer: Any) -> Any:
    """Returns the layer itself, or the one below its adapter."""
    return layer.base_layer if is_adapted(layer) else layer


def project(x: torch.Tensor, layer: Any) -> torch.Tensor:
    """Returns W x + b, and s B A dropout(x) on top where the layer is adapted; [T, F] of [T, E]."""
    base = base_of(layer)
    return _add_adapter(linear(x, base.weight, base.bias), x, layer)


def project_jointly(x: torch.Tensor, layers: Sequence[Any]) -> torch.Tensor:
    """Returns what the layers make of x [T, E], side by side: [T, sum of F].

    Either all layers have a bias or none.
    """
    bases = [base_of(layer) for layer in layers]
    joint = joint_linear(x, bases)
    if not any(map(is_adapted, layers)):
        return joint
    parts = joint.split([base.out_features for base in bases], dim=1)
    return torch.cat([_add_adapter(y, x, of) for y, of in zip(parts, layers, strict=True)], 1)


def _add_adapter(y: torch.Tensor, x: torch.Tensor, layer: Any) -> torch.Tensor:
    if not is_adapted(layer):
        return y
    dropped = layer.lora_dropout[ADAPTER](x)
    low = linear(dropped, layer.lora_A[ADAPTER].weight)
    return torch.addmm(y, low, layer.lora_B[ADAPTER].weight.t(), alpha=layer.scaling[ADAPTER])
