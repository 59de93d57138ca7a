"""What the profile takes over from training: the settings that change times, and the layers.

Which forward, loss and recomputation a model gets is decided in `sbcore.model.assemble` alone.
"""

from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Literal

from sbcore.config.stages import ProfileLatencyStage
from sbcore.config.training import TrainConfig
from sbcore.model.assemble import TrainableModel, prepare
from sbcore.model.build import start_model

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from sbcore.config.training import ModelConfig

Forward = Literal["own", "library"]
"""Whose code runs the layers: `model.own_forward`, or the model library's."""


def train_config(config: ProfileLatencyStage, *, weighs: bool) -> TrainConfig:
    """Returns what of the training's settings changes its times.

    Where memory is weighed recomputation is possible in any case: it is weighed with and without.
    """
    mode = config.activation_checkpointing
    return TrainConfig(
        activation_checkpointing="full" if mode == "none" and weighs else mode,
        recompute_above_tokens=config.recompute_above_tokens,
        compile_layers=config.compile_layers,
        layers_per_shard=config.layers_per_shard,
        keep_gathered=config.keep_gathered,
        threads_per_rank=config.threads,
    )


def one_layer(
    architecture: "PretrainedConfig", model: "ModelConfig", train: TrainConfig
) -> TrainableModel:
    """Returns the model with one layer, as training prepares it; on `meta`, in one piece."""
    single = deepcopy(architecture)
    single.num_hidden_layers = 1
    if getattr(single, "layer_types", None):
        single.layer_types = single.layer_types[:1]
    return prepare(start_model(single, model), train)


def forward_of(
    architecture: "PretrainedConfig", model: "ModelConfig", train: TrainConfig
) -> Forward:
    """Returns whose forward training gives such a model."""
    decoder = one_layer(architecture, model, train).module.get_decoder()  # type: ignore[operator]
    return "own" if isinstance(decoder.forward, partial) else "library"
