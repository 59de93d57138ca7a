"""Tuning inside the training loop: targets before the step, curves after it.

N sequences of the step, K rungs of the ladder.
"""

from typing import Any

import numpy as np
import torch

from sbcore.config.stages import TrainStage
from sbcore.latency.additive import AdditiveLatency
from sbcore.plan.read import StepPlan
from sbcore.train.batches import PackedBatch
from sbcore.tune.clamp import ClampLimits, TargetBudgets
from sbcore.tune.coverage import CoverageModel
from sbcore.tune.ladder import make_ladder
from sbcore.tune.policy import Observation, learner_of, make_policy, p_of_step
from sbcore.tune.rung_latency import RungLatency
from sbcore.types import FloatArray, IntArray


class StepTuner:
    """Decides targets from what earlier steps measured; the same on every rank.

    ``lengths`` are those of all sequences that steps may have.
    """

    def __init__(
        self,
        stage: TrainStage,
        latency: AdditiveLatency,
        *,
        lengths: IntArray,
        device: torch.device,
    ) -> None:
        self.stage = stage
        self.policy = make_policy(stage.tuner)
        self._learner = learner_of(self.policy)
        block_size, top_k = stage.attention.block_size, stage.attention.top_k
        ladder = make_ladder(-(-int(lengths.max()) // block_size), top_k)
        decay = 0.0 if stage.tuner.kind == "fixed" else stage.tuner.ema_decay
        self.coverage = CoverageModel.empty(
            ladder, num_layers=latency.num_layers, block_size=block_size, ema_decay=decay
        )
        self._beyond = self.coverage.beyond(top_k)
        self.latency = latency
        if stage.tuner.kind != "fixed":  # which asks nothing
            self.latency = RungLatency(latency, ladder, lengths=lengths)
        self._rungs = tuple(ladder.tolist())
        self._ladder = torch.from_numpy(ladder.astype(np.int32)).to(device)

    def targets(self, plan: StepPlan, step: int) -> IntArray:
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
                coverage=self._beyond,
                top_k=self.stage.attention.top_k,
                step=step,
            )
        )

    def expected_delta(self, plan: StepPlan, targets: IntArray) -> float | None:
        """Returns the coverage_delta that the targets should bring, points; None if not known."""
        top_k = self.stage.attention.top_k
        return self.coverage.expected_delta(plan.lengths, targets, top_k=top_k)

    def budgets(self, targets: IntArray, batch: PackedBatch, *, step: int) -> TargetBudgets:
        """Returns the budgets of one micro-batch; a dummy takes the own block."""
        chosen = targets[:, list(batch.sequences)] if batch.sequences else targets[:, :1] * 0 + 1
        measures = not batch.is_dummy and self._measures(chosen, batch, step)
        return TargetBudgets(
            targets=torch.from_numpy(chosen.astype(np.int32)),
            sequences=batch.sequences,
            ladder=self._ladder,
            rungs=self._rungs,
            top_k0=self.stage.attention.top_k,
            limits=self._limits(step) if measures else None,
            measure=measures,
            dense=self.stage.kind == "dense",
        )

    def _measures(self, chosen: IntArray, batch: PackedBatch, step: int) -> bool:
        """Returns whether curves of the batch are needed: to bound its budgets, or to learn.

        Every curve allows k0, so budgets that are k0 need no bound. A tuner leaves sequences alone
        that k0 covers: there is nothing to gain, little to save, and the host knows that their
        attention is dense.
        """
        tuner, attention = self.stage.tuner, self.stage.attention
        if tuner.kind == "fixed" or step % tuner.clamp_every_steps:
            return tuner.kind == "fixed" and self.measures(step)
        if (chosen != attention.top_k).any():
            least = min(int(chosen.min()), attention.top_k)
            return max(batch.lengths) > attention.block_size * least
        beyond = [n for n in batch.lengths if n > attention.block_size * attention.top_k]
        return bool(beyond) and (self.measures(step) or self.coverage.is_new(np.array(beyond)))

    def learn(self, lengths: IntArray, curves: FloatArray) -> None:
        """Takes the step's measured curves [num_layers, N, K] into the averages."""
        self._know(self.coverage.updated(lengths, curves))

    def review(self, row: dict[str, Any]) -> None:
        """Shows a learning policy what a step took and what it covered."""
        if self._learner is not None:
            self._learner.learn(
                row["step"], step_ms=row["step_ms"], coverage_delta=row["coverage_delta"]
            )

    def measures(self, step: int) -> bool:
        """Whether the step measures all that k0 does not cover, also where budgets are k0."""
        every = self.stage.train.coverage_every_steps
        if self.stage.tuner.kind != "fixed":
            every *= self.stage.tuner.clamp_every_steps
        return step % every == 0

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run needs to decide as this one would, arrays by name."""
        learned = {} if self._learner is None else self._learner.state()
        return self.coverage.state() | learned

    def load(self, state: dict[str, Any]) -> None:
        """Takes over the averages."""
        self._know(self.coverage.restored(state))
        if self._learner is not None:
            self._learner.load(state)

    def _know(self, coverage: CoverageModel) -> None:
        if coverage is not self.coverage:
            self.coverage = coverage
            self._beyond = coverage.beyond(self.stage.attention.top_k)

    def _limits(self, step: int) -> ClampLimits | None:
        tuner = self.stage.tuner
        p = p_of_step(tuner, self._learner, step=step)
        if p is None or tuner.kind == "fixed":
            return None
        return ClampLimits(p, tuner.floor, tuner.cap or self._rungs[-1])
