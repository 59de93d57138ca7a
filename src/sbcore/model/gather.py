"""Whole weights out of a sharded model, one at a time, under the names that files give them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from sbcore.model.layers import adapter_weights, base_weights
from sbcore.model.lora import ADAPTER, lora_layers, merge


@dataclass(frozen=True)
class WholeWeight:
    """A weight that is put together when it is asked for; every rank must ask, and in one order."""

    shape: tuple[int, ...]
    gather: Callable[[], torch.Tensor]


def merged_weights(model: nn.Module) -> dict[str, WholeWeight]:
    """Returns the model's own weights by name, adapters added to those that have one."""
    reshard(model)
    adapted = lora_layers(model) if adapter_weights(model) else {}
    return {
        name: WholeWeight(
            tuple(weight.shape),
            partial(_merged, weight, adapted[name]) if name in adapted else partial(_whole, weight),
        )
        for name, weight in base_weights(model).items()
    }


def adapters_alone(model: nn.Module) -> dict[str, WholeWeight]:
    """Returns the adapters' weights under the names that peft gives them in files."""
    reshard(model)
    return {
        f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": WholeWeight(
            tuple(weight.shape), partial(_whole, weight)
        )
        for name, weight in adapter_weights(model).items()
    }


def reshard(model: nn.Module) -> None:
    """Leaves each rank with its own part only, as it may not be after a last forward pass."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _whole(weight: torch.Tensor) -> torch.Tensor:
    weight = weight.detach()
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def _merged(weight: torch.Tensor, layer: Any) -> torch.Tensor:
    return merge(
        _whole(weight),
        a=_whole(layer.lora_A[ADAPTER].weight),
        b=_whole(layer.lora_B[ADAPTER].weight),
        scaling=layer.scaling[ADAPTER],
    )
