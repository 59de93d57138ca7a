"""The model as training runs it: recomputed, compiled, sharded, filled.

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
from sbcore.model.layers import decoder_layers
from sbcore.model.loss import give_loss
from sbcore.model.own_forward import give_own_forward, suits_own_forward
from sbcore.model.recompute import Recompute
from sbcore.model.shard import shard_model
from sbcore.types import Barrier

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class TrainableModel:
    """A sharded model whose forward is its summed loss (`give_loss`)."""

    module: nn.Module
    recompute: Recompute


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
    on_gpu = mesh.device_type == "cuda"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    empty = start_model(architecture, model)
    made = prepare(empty, train)
    shard_model(
        empty,
        decoder_layers(empty),
        mesh,
        barrier=barrier,
        dtype=getattr(torch, model.dtype),
        layers_per_shard=train.layers_per_shard,
        keep_gathered=train.keep_gathered,
    )
    fill_model(empty, weights, device=device, seed=seed)
    empty.train()
    return made


def prepare(model: "PreTrainedModel", train: TrainConfig) -> TrainableModel:
    """Returns the model with its layers set to run as chosen; all of it before they are sharded."""
    layers = decoder_layers(model)
    if train.compile_layers:
        for layer in layers:
            layer.forward = torch.compile(layer.forward, dynamic=True)
    elif suits_own_forward(model):
        give_own_forward(model)
    mode = train.activation_checkpointing
    recompute = Recompute(layers, mode, above_tokens=train.recompute_above_tokens)
    give_loss(model)
    return TrainableModel(model, recompute)
