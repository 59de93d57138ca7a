"""Tuning inside the training loop: targets before the step, curves after it.

N sequences of the step, K rungs of the ladder.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sbcore.config.stages import TrainStage
from sbcore.plan.read import StepPlan
from sbcore.train.batches import PackedBatch
from sbcore.tune.clamp import ClampLimits, TargetBudgets
from sbcore.tune.coverage import CoverageModel
from sbcore.tune.ladder import make_ladder
from sbcore.tune.policy import Observation, make_policy
from sbcore.types import FloatArray, IntArray, LatencyModel


class StepTuner:
    """Decides targets from what earlier steps measured; the same on every rank."""

    def __init__(
        self, stage: TrainStage, latency: LatencyModel, *, longest: int, device: torch.device
    ) -> None:
        self.stage, self.latency = stage, latency
        self.policy = make_policy(stage.tuner)
        block_size, top_k = stage.attention.block_size, stage.attention.top_k
        ladder = make_ladder(-(-longest // block_size), top_k)
        decay = 0.0 if stage.tuner.kind == "fixed" else stage.tuner.ema_decay
        self.coverage = CoverageModel.empty(
            ladder, num_layers=latency.num_layers, block_size=block_size, ema_decay=decay
        )
        self._rungs = tuple(ladder.tolist())
        self._ladder = torch.from_numpy(ladder.astype(np.int32)).to(device)

    def targets(self, plan: StepPlan) -> IntArray:
        """Returns target top_k of the step, [num_layers, N]; all blocks for dense attention."""
        if self.stage.kind == "dense":
            shape = (self.latency.num_layers, len(plan.lengths))
            return np.full(shape, self.coverage.ladder[-1], dtype=np.int64)
        return self.policy.decide(
            Observation(
                lengths=plan.lengths,
                batch=plan.batch,
                barrier=self.stage.topology.barrier,
                latency=self.latency,
                coverage=self.coverage,
                top_k=self.stage.attention.top_k,
            )
        )

    def budgets(self, targets: IntArray, batch: PackedBatch, *, step: int) -> TargetBudgets:
        """Returns the budgets of one micro-batch; a dummy takes the own block."""
        chosen = targets[:, list(batch.sequences)] if batch.sequences else targets[:, :1] * 0 + 1
        every = self.stage.train.coverage_every_steps
        return TargetBudgets(
            targets=torch.from_numpy(chosen.astype(np.int32)),
            sequences=batch.sequences,
            ladder=self._ladder,
            rungs=self._rungs,
            top_k0=self.stage.attention.top_k,
            limits=None if batch.is_dummy else self._limits(batch),
            measure=not batch.is_dummy and step % every == 0,
            dense=self.stage.kind == "dense",
        )

    def learn(self, lengths: IntArray, curves: FloatArray) -> None:
        """Takes the step's measured curves [num_layers, N, K] into the averages."""
        self.coverage = self.coverage.updated(lengths, curves)

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run needs to decide as this one would."""
        return {"coverage": self.coverage.curves}

    def load(self, state: dict[str, Any]) -> None:
        """Takes over the averages."""
        self.coverage = replace(self.coverage, curves=np.asarray(state["coverage"]))

    def _limits(self, batch: PackedBatch) -> ClampLimits | None:
        tuner = self.stage.tuner
        if tuner.kind == "fixed":
            return None
        return ClampLimits(tuner.p, tuner.floor, tuner.cap or self._rungs[-1])
