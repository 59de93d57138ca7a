"""A trainer made of a sharded model and its inputs; variants that share a model make several."""

import torch
from torch import nn

from sbcore.config.stages import TrainStage
from sbcore.config.training import TrainConfig
from sbcore.model.assemble import TrainableModel
from sbcore.train.clock import Clock, make_clock
from sbcore.train.flops import FlopCounter, model_facts
from sbcore.train.inputs import Inputs
from sbcore.train.layout import make_layout
from sbcore.train.loop import Trainer
from sbcore.train.ranks import Ranks
from sbcore.train.tuning import StepTuner


def make_trainer(stage: TrainStage, ranks: Ranks, inputs: Inputs, made: TrainableModel) -> Trainer:
    """Returns the trainer of one variant, alone with its model."""
    return share_trainer(
        stage,
        ranks,
        inputs,
        made,
        optimizer=make_optimizer(made.module, stage.train),
        clock=make_clock(made.module, ranks.device),
    )


def share_trainer(
    stage: TrainStage,
    ranks: Ranks,
    inputs: Inputs,
    made: TrainableModel,
    *,
    optimizer: torch.optim.Optimizer,
    clock: Clock,
) -> Trainer:
    """Returns the trainer of one variant among others that take turns with model and optimizer."""
    lengths = inputs.store.lengths
    tuner = StepTuner(stage, inputs.latency, lengths=lengths, device=ranks.device)
    return Trainer(
        stage=stage,
        ranks=ranks,
        inputs=inputs,
        model=made.module,
        optimizer=optimizer,
        recompute=made.recompute,
        flops=FlopCounter(model_facts(made.module), made.recompute, stage.attention.block_size),
        layout=make_layout(stage, inputs.latency, max_tokens=inputs.plan.max_tokens),
        tuner=tuner,
        clock=clock,
    )


def make_optimizer(model: nn.Module, train: TrainConfig) -> torch.optim.Optimizer:
    """Returns AdamW over what is trained, one fused kernel for many weights."""
    return torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=train.learning_rate,
        betas=train.betas,
        weight_decay=train.weight_decay,
        fused=True,
    )
