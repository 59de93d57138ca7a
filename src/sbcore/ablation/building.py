"""The model that all variants share, and the trainers that take turns with it."""

import gc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from sbcore.ablation.floor import ShortSteps, measure_floor, short_lengths
from sbcore.ablation.plans import PlannedSteps
from sbcore.ablation.store import RandomTokens
from sbcore.config.schema import Config
from sbcore.config.stages import plan_stage, train_stage
from sbcore.latency.model import TableLatencyModel
from sbcore.model.assemble import TrainableModel, assemble
from sbcore.model.build import shape_config
from sbcore.train.clock import Clock, make_clock
from sbcore.train.inputs import Inputs
from sbcore.train.loop import Trainer
from sbcore.train.ranks import Ranks
from sbcore.train.setup import make_optimizer, share_trainer
from sbcore.types import IntArray


@dataclass(frozen=True)
class SharedModel:
    """A model sharded for one barrier, with random weights."""

    made: TrainableModel
    optimizer: torch.optim.Optimizer
    clock: Clock
    vocab_size: int


@dataclass(frozen=True)
class Workshop:
    """What trainers are made of; ``config`` is that of one setting."""

    config: Config
    ranks: Ranks
    latency: TableLatencyModel
    profile: Path
    """Where the latency table lies."""

    def share_model(self) -> SharedModel:
        """Returns the setting's model; those of other barriers should be gone before."""
        gc.collect()
        if self.ranks.device.type == "cuda":
            torch.cuda.empty_cache()
        config = self.config
        vocab_size = config.model.shape.vocab_size
        assert vocab_size is not None, "checked with the command line"
        made = assemble(
            shape_config(
                config.model.shape, vocab_size=vocab_size, max_tokens=config.data.max_sample_tokens
            ),
            config.model,
            config.train,
            mesh=self.ranks.mesh(),
            barrier=config.topology.barrier,
            weights=None,
            seed=config.seed,
        )
        optimizer = make_optimizer(made.module, config.train)
        clock = make_clock(made.module, self.ranks.device)
        return SharedModel(made, optimizer, clock, vocab_size)

    def trainer(self, shared: SharedModel, name: str, lengths: IntArray) -> Trainer:
        """Returns the trainer of a variant on these lengths, its steps planned."""
        stage = plan_stage(self.config, name)
        plan = PlannedSteps(stage, lengths, self.latency, profile=self.profile)
        return self._trainer(shared, name, lengths, plan)

    def floor_ms(self, shared: SharedModel, name: str) -> float:
        """Returns the wall time of a short micro-batch of a variant, milliseconds."""
        topology = self.config.topology
        lengths = short_lengths(self.ranks.world_size, max_tokens=topology.max_tokens)
        plan = ShortSteps(lengths, plan_stage(self.config, name))
        return measure_floor(self._trainer(shared, name, lengths, plan), plan)

    def _trainer(
        self, shared: SharedModel, name: str, lengths: IntArray, plan: PlannedSteps | ShortSteps
    ) -> Trainer:
        store = RandomTokens(lengths, vocab_size=shared.vocab_size, seed=self.config.seed)
        # Plan and store stand in for files that were never written.
        inputs = Inputs(cast(Any, store), cast(Any, plan), self.latency)
        stage = train_stage(self.config, name)
        return share_trainer(
            stage,
            self.ranks,
            inputs,
            shared.made,
            optimizer=shared.optimizer,
            clock=shared.clock,
        )

    def of(self, config: Config) -> "Workshop":
        """Returns the workshop of another setting."""
        return replace(self, config=config)
