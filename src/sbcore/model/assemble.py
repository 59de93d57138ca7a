"""The model as training runs it: fused, recomputed, compiled, sharded, filled.

The latency profile takes the same one, or its times would be those of another program.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from sbcore.config.training import ModelConfig, TrainConfig
from sbcore.model.build import fill_model, start_model
from sbcore.model.fuse import Layers, choose_layers, fuse_layers
from sbcore.model.layers import decoder_layers
from sbcore.model.loss import give_loss
from sbcore.model.recompute import Recompute
from sbcore.model.shard import shard_model
from sbcore.types import Barrier

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class TrainableModel:
    """A sharded model whose forward is its summed loss (`give_loss`)."""

    module: nn.Module
    recompute: Recompute
    layers: Layers  # whose implementation runs


def assemble(
    architecture: "PretrainedConfig",
    model: ModelConfig,
    train: TrainConfig,
    *,
    mesh: DeviceMesh,
    barrier: Barrier,
    weights: Path | None,
    seed: int,
) -> TrainableModel:
    """Returns the model on the mesh's devices, with the directory's weights or random ones.

    No rank ever holds more than its own part: the model is made without memory, sharded, and only
    then filled.

    Raises:
        SparseBalanceError: The weights do not fit the model, or a library asked for is missing.
    """
    device = torch.device(mesh.device_type, _index(mesh))
    empty = start_model(architecture, model)
    made = _prepare(empty, train, device)
    shard_model(
        empty,
        decoder_layers(empty),
        mesh,
        barrier=barrier,
        dtype=_DTYPES[model.dtype],
        layers_per_shard=train.layers_per_shard,
    )
    fill_model(empty, weights, device=device, seed=seed)
    empty.train()
    return made


def _prepare(model: "PreTrainedModel", train: TrainConfig, device: torch.device) -> TrainableModel:
    """Chooses how the layers run; all of it before they are sharded."""
    layers, runs = decoder_layers(model), choose_layers(train.fused_layers, device)
    if runs == "liger":
        fuse_layers(model)
    if train.compile_layers:
        for layer in layers:
            layer.forward = torch.compile(layer.forward, dynamic=True)
    mode = train.activation_checkpointing
    recompute = Recompute(layers, mode, above_tokens=train.recompute_above_tokens)
    give_loss(model, "liger" if runs == "liger" else "chunked")
    return TrainableModel(model, recompute, runs)


def _index(mesh: DeviceMesh) -> int | None:
    return torch.cuda.current_device() if mesh.device_type == "cuda" else None
