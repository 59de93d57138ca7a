"""The training loop: decide, run, update, report; nothing else happens in a step.

All ranks come to the same decisions from the same reports, so no decision is ever sent.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from sbcore.config.stages import TrainStage
from sbcore.plan.read import StepPlan
from sbcore.train.account import StepFacts, coverage_delta, metrics_row, used_top_k
from sbcore.train.batches import PackedBatch, pack
from sbcore.train.clock import StepClock
from sbcore.train.inputs import Inputs
from sbcore.train.records import StepReport, curves_of_step, gather_reports, make_report
from sbcore.train.sharding import Ranks
from sbcore.train.step import Work, learning_rate_at, run_micro_batches, update
from sbcore.train.tuning import StepTuner


@dataclass
class Trainer:
    """All that a step needs, built once."""

    stage: TrainStage
    ranks: Ranks
    inputs: Inputs
    model: nn.Module
    optimizer: torch.optim.Optimizer
    tuner: StepTuner
    clock: StepClock

    def run_step(self, step: int) -> tuple[StepFacts, dict[str, Any]]:
        """Trains one step; returns its facts and the row of metrics, the same on all ranks."""
        # What rank 0 wrote since the last step must not look like waiting on the others.
        dist.barrier(self.ranks.host_group)
        self.clock.start()
        with self.clock.part("plan"):
            plan = self.inputs.plan.step(step)
        batches, work = self._prepare(plan, step)
        loss = run_micro_batches(
            self.model,
            work,
            attention=self.stage.attention,
            barrier=self.stage.topology.barrier,
            recompute=self.stage.train.activation_checkpointing,
            clock=self.clock,
        )
        learning_rate = self._learning_rate(step)
        with self.clock.part("optimizer"):
            norm = update(
                self.model,
                self.optimizer,
                learning_rate=learning_rate,
                max_norm=self.stage.train.max_grad_norm,
            )
        step_ms = self.clock.elapsed_ms()
        report = make_report(loss, self.clock, batches, work.budgets)
        facts = self._gather(step, plan, report)
        row = self._row(facts, step_ms, work.num_target_tokens)
        return facts, row | {"grad_norm": norm, "learning_rate": learning_rate}

    def _prepare(self, plan: StepPlan, step: int) -> tuple[list[PackedBatch], Work]:
        with self.clock.part("data"):
            mine = plan.batch.micro_batches[self.ranks.rank]
            batches = [
                pack(
                    self.inputs.store,
                    plan.sample_ids[list(micro)].tolist(),
                    micro,
                    self.ranks.device,
                )
                for micro in mine
            ]
        with self.clock.part("tune"):
            targets = self.tuner.targets(plan)
            budgets = [self.tuner.budgets(targets, batch, step=step) for batch in batches]
        num_targets = int(self.inputs.store.num_target_tokens[plan.sample_ids].sum())
        return batches, Work(batches, budgets, num_targets)

    def _gather(self, step: int, plan: StepPlan, report: StepReport) -> StepFacts:
        reports = gather_reports(report, self.ranks.host_group, self.ranks.world_size)
        num_layers, num_sequences = self.inputs.latency.num_layers, len(plan.lengths)
        rungs = len(self.tuner.coverage.ladder)
        curves = curves_of_step(reports, (num_layers, num_sequences, rungs))
        self.tuner.learn(plan.lengths, curves)
        top_k = used_top_k(reports, (num_layers, num_sequences))
        return StepFacts(step, plan, reports, top_k, curves)

    def _row(self, facts: StepFacts, step_ms: float, num_targets: int) -> dict[str, Any]:
        delta = coverage_delta(facts, self.tuner.coverage.ladder, top_k=self.stage.attention.top_k)
        barrier = self.stage.topology.barrier
        row = metrics_row(facts, self.inputs.latency, barrier=barrier, delta=delta)
        parts = [report.parts for report in facts.reports]
        slowest = {f"{name}_ms": max(p.get(name, 0.0) for p in parts) for name in _PARTS}
        return (
            row
            | slowest
            | {
                "num_target_tokens": num_targets,
                "step_ms": step_ms,
                "measured": facts.step >= self.stage.train.warmup_steps_unmeasured,
            }
        )

    def _learning_rate(self, step: int) -> float:
        train = self.stage.train
        return learning_rate_at(
            step,
            self.inputs.plan.num_steps,
            peak=train.learning_rate,
            warmup_share=train.warmup_share,
            decay_share=train.decay_share,
        )


_PARTS = ("data", "plan", "tune", "optimizer")
