"""One variant of the quality evidence trained on one device, its ranks one after the other."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from quality_weights import TwoTypes, working_type
from torch import nn

from sbcore.attention import AttentionCall
from sbcore.config.schema import Config
from sbcore.config.stages import TrainStage, plan_stage, train_stage
from sbcore.data.read import TokenStore
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.model.build import load_model
from sbcore.model.loss import give_loss
from sbcore.model.own_forward import give_own_forward
from sbcore.plan.balancers import load_balancer
from sbcore.plan.cost import BudgetCost, KnownLengthsCost
from sbcore.plan.read import StepPlan
from sbcore.plan.sampling import drawn_steps, step_seed
from sbcore.train.account import StepFacts, coverage_delta
from sbcore.train.batches import pack
from sbcore.train.step import learning_rate_at, packed_loss
from sbcore.train.tuning import StepTuner
from sbcore.tune.ledger import LedgerPart, collect
from sbcore.types import FloatArray, IntArray, Topology
from sbkernels.moba.dense import prefer_fastest_dense


class Method(Protocol):
    """How the variants of an experiment are trained."""

    def config(self, *, seed: int) -> Config:
        """Returns the run's configuration with this seed."""
        ...

    def latency(self) -> AnalyticLatencyModel:
        """Returns the predicted times."""
        ...


class Training:
    """A model, its optimizer and its tuner, step by step."""

    def __init__(
        self,
        method: Method,
        folder: Path,
        base: Path,
        name: str,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        config = method.config(seed=seed)
        self.stage: TrainStage = train_stage(config, name)
        self.plan, self.latency = plan_stage(config, name), method.latency()
        self.store, self.device = TokenStore(folder / "data"), device
        self.model: Any = load_model(base, dtype=torch.float32).to(device)
        self.model.train()
        self.weights = TwoTypes(self.model, working_type(device))
        give_own_forward(self.model)
        give_loss(self.model)
        train = self.stage.train
        self.optimizer = torch.optim.AdamW(
            self.weights.masters, betas=train.betas, weight_decay=train.weight_decay, fused=True
        )
        lengths = self.store.lengths
        self.tuner = StepTuner(self.stage, self.latency, lengths=lengths, device=device)
        self.batches = list(drawn_steps(self.store.lengths, config.sampling, seed=seed))

    def run_step(self, step: int) -> dict[str, float | None]:
        """Makes one update; returns its loss and coverage_delta."""
        plan = self.lay_out(step)
        targets = self.tuner.targets(plan, step)
        num_targets = int(self.store.num_target_tokens[plan.sample_ids].sum())
        loss, budgets = torch.zeros((), device=self.device), []
        for micro in (micro for rank in plan.batch.micro_batches for micro in rank if micro):
            samples = plan.sample_ids[list(micro)].tolist()
            batch = pack(self.store, samples, micro, self.device)
            budgets.append(self.tuner.budgets(targets, batch, step=step))
            attention = self.stage.attention
            call = AttentionCall(
                cu_seqlens=batch.cu_seqlens,
                lengths=batch.lengths,
                block_size=attention.block_size,
                backend=attention.backend,
                budgets=budgets[-1],
            )
            with prefer_fastest_dense():
                share = packed_loss(self.model, batch, call) / num_targets
                share.backward()
            self.weights.take_gradients()
            loss += share.detach()
        self._update(step)
        delta = self._learn(step, plan, collect(budgets).result())
        return {"loss": float(loss), "coverage_delta": delta}

    def save(self, folder: Path) -> None:
        """Writes a Hugging Face directory in float32."""
        whole = type(self.model)(self.model.config)
        whole.load_state_dict(self.weights.state_dict(), strict=False)
        whole.tie_weights()
        whole.save_pretrained(folder)

    def lay_out(self, step: int) -> StepPlan:
        """Returns the step's global batch over ranks, as the stage `plan` does it."""
        chosen, plan = self.batches[step], self.plan
        lengths = self.store.lengths[chosen]
        topology = Topology(
            plan.num_ranks, plan.barrier, plan.max_tokens, max_sequences=plan.max_sequences
        )
        dense = self.stage.kind == "dense"
        top_k = int(self.tuner.coverage.ladder[-1]) if dense else plan.top_k
        cost = KnownLengthsCost(BudgetCost(self.latency, top_k), self.store.lengths)
        balancer, seed = load_balancer(plan.balancer.kind), step_seed(plan.seed, step)
        batch = balancer(lengths, topology, cost=cost, seed=seed, config=plan.balancer)
        return StepPlan(sample_ids=chosen, lengths=lengths, batch=batch)

    def _update(self, step: int) -> None:
        train = self.stage.train
        nn.utils.clip_grad_norm_(self.weights.masters, train.max_grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(
                step,
                len(self.batches),
                peak=train.learning_rate,
                warmup_share=train.warmup_share,
                decay_share=train.decay_share,
            )
        self.optimizer.step()
        self.weights.give_weights()

    def _learn(self, step: int, plan: StepPlan, parts: list[LedgerPart]) -> float | None:
        """Shows the tuner the measured curves; returns coverage_delta in points."""
        shape = (self.latency.num_layers, len(plan.lengths))
        curves, used = of_parts(parts, shape, num_rungs=len(self.tuner.coverage.ladder))
        self.tuner.learn(plan.lengths, curves)
        facts = StepFacts(step, plan, [], used, curves)
        return coverage_delta(facts, self.tuner.coverage, top_k=self.stage.attention.top_k)


def of_parts(
    parts: list[LedgerPart], shape: tuple[int, int], *, num_rungs: int
) -> tuple[FloatArray, IntArray]:
    """Returns curves [L, N, K], NaN where not measured, and budgets used [L, N]."""
    curves, used = np.full((*shape, num_rungs), np.nan), np.zeros(shape, dtype=np.int64)
    for part in parts:
        sequences = list(part.sequences)
        used[:, sequences] = part.top_k
        if part.curves is not None:
            curves[:, sequences] = part.curves
    return curves, used
