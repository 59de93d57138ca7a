"""The training loop: decide, run, update, report; nothing else happens in a step.

All ranks come to the same decisions from the same reports, so no decision is ever sent. Reports
are read a step late: while the device works on a step the host reads the one before, decides the
next and sends its tokens, so neither waits for the other.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from sbcore.config.stages import TrainStage
from sbcore.model.recompute import Recompute
from sbcore.plan.read import StepPlan
from sbcore.train.account import StepFacts, coverage_delta, metrics_row, used_top_k
from sbcore.train.batches import PackedBatch, pack
from sbcore.train.clock import Clock
from sbcore.train.flops import FlopCounter
from sbcore.train.inputs import Inputs
from sbcore.train.layout import OnlineLayout, PlannedLayout
from sbcore.train.ranks import Ranks
from sbcore.train.records import PendingReport, copy_later, curves_of_step, gather_reports
from sbcore.train.step import Work, learning_rate_at, run_micro_batches, update
from sbcore.train.tuning import StepTuner
from sbcore.tune.ledger import collect


@dataclass(frozen=True)
class Ready:
    """A step decided, its tokens on their way to the device."""

    step: int
    plan: StepPlan
    work: Work
    expected_delta: float | None  # points of coverage, by what earlier steps measured


@dataclass(frozen=True)
class Finished:
    """A step that is over: what rank 0 writes down, and its row of metrics."""

    facts: StepFacts
    row: dict[str, Any]


@dataclass
class Trainer:
    """What a training is made of; the model is sharded already."""

    stage: TrainStage
    ranks: Ranks
    inputs: Inputs
    model: nn.Module
    optimizer: torch.optim.Optimizer
    recompute: Recompute
    flops: FlopCounter
    layout: PlannedLayout | OnlineLayout
    tuner: StepTuner
    clock: Clock
    _ready: Ready | None = None
    _pending: tuple[Ready, PendingReport] | None = None

    def run_step(self, step: int) -> Finished | None:
        """Starts a step; returns the one before, which is over (None before the first).

        The next step is decided here, from the reports up to the one before this.
        """
        if self.ranks.device.type == "cpu":
            # What rank 0 wrote since the last step must not look like waiting on the others.
            dist.barrier(self.ranks.host_group)
        self.clock.start()
        ready = self._ready if self._ready and self._ready.step == step else self._prepare(step)
        loss, norm = self._launch(ready)
        following = step + 1
        with self.clock.deciding():
            before = self._collect()
            more = following < self.inputs.plan.num_steps
            self._ready = self._prepare(following) if more else None
        self._pending = ready, self._report(ready, loss, norm)
        return before

    def drain(self) -> Finished | None:
        """Returns the last step once it is over; what was decided after it is thrown away."""
        self._ready = None
        return self._collect()

    def _prepare(self, step: int) -> Ready:
        with self.clock.part("plan"):
            plan = self.layout.lay_out(self.inputs.plan.step(step), step)
        with self.clock.part("tune"):
            targets = self.tuner.targets(plan, step)
            expected = self.tuner.expected_delta(plan, targets)
        with self.clock.part("data"):
            batches = [self._pack(plan, micro) for micro in self._mine(plan)]
        with self.clock.part("tune"):
            budgets = [self.tuner.budgets(targets, batch, step=step) for batch in batches]
        num_targets = int(self.inputs.store.num_target_tokens[plan.sample_ids].sum())
        return Ready(step, plan, Work(batches, budgets, num_targets), expected)

    def _mine(self, plan: StepPlan) -> tuple[tuple[int, ...], ...]:
        return plan.batch.micro_batches[self.ranks.rank]

    def _pack(self, plan: StepPlan, micro: tuple[int, ...]) -> PackedBatch:
        samples = plan.sample_ids[list(micro)].tolist()
        return pack(self.inputs.store, samples, micro, self.ranks.device)

    def _launch(self, ready: Ready) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns this rank's share of the loss and the gradient norm, both on the device."""
        loss = run_micro_batches(
            self.model,
            ready.work,
            attention=self.stage.attention,
            barrier=self.stage.topology.barrier,
            recompute=self.recompute,
            clock=self.clock,
        )
        with self.clock.update():
            norm = update(
                self.model,
                self.optimizer,
                learning_rate=self._learning_rate(ready.step),
                max_norm=self.stage.train.max_grad_norm,
            )
        return loss, norm

    def _report(self, ready: Ready, loss: torch.Tensor, norm: torch.Tensor) -> PendingReport:
        budgets = ready.work.budgets
        ledger, scalars = collect(budgets), copy_later(loss, norm)
        inside = sum(source.host_ms for source in budgets)
        return PendingReport(scalars, self.clock.finish(), ledger, inside)

    def _collect(self) -> Finished | None:
        """Reads the pending step on all ranks and learns from it."""
        if self._pending is None:
            return None
        (ready, pending), self._pending = self._pending, None
        reports = gather_reports(pending.read(), self.ranks.host_group, self.ranks.world_size)
        num_layers, num_sequences = self.inputs.latency.num_layers, len(ready.plan.lengths)
        rungs = len(self.tuner.coverage.ladder)
        curves = curves_of_step(reports, (num_layers, num_sequences, rungs))
        top_k = used_top_k(reports, (num_layers, num_sequences))
        facts = StepFacts(ready.step, ready.plan, reports, top_k, curves)
        with self.clock.part("tune"):
            self.tuner.learn(ready.plan.lengths, curves)
        with self.clock.part("plan"):
            self.layout.learn(facts)
        row = self._row(facts, ready)
        self.tuner.review(row)
        return Finished(facts, row)

    def _row(self, facts: StepFacts, ready: Ready) -> dict[str, Any]:
        delta = coverage_delta(facts, self.tuner.coverage, top_k=self.stage.attention.top_k)
        barrier, num_targets = self.stage.topology.barrier, ready.work.num_target_tokens
        row = metrics_row(facts, self.inputs.latency, barrier=barrier, delta=delta)
        row |= self.flops.count(facts.plan, facts.top_k, num_target_tokens=num_targets)
        return row | {
            "expected_coverage_delta": ready.expected_delta,
            "num_target_tokens": num_targets,
            "learning_rate": self._learning_rate(facts.step),
            "measured": facts.step >= self.stage.train.warmup_steps_unmeasured,
        }

    def _learning_rate(self, step: int) -> float:
        train = self.stage.train
        return learning_rate_at(
            step,
            self.inputs.plan.num_steps,
            peak=train.learning_rate,
            warmup_share=train.warmup_share,
            decay_share=train.decay_share,
        )
