"""How a step's sequences are laid out: as planned, or anew with what training has learned.

Every rank learns from the same reports, so all come to the same layout without a message.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from sbcore.config.method import SabBalancer
from sbcore.config.stages import TrainStage
from sbcore.latency.model import TableLatencyModel
from sbcore.latency.speed import SpeedFactors
from sbcore.plan.budgets import BudgetAverages
from sbcore.plan.online import rebalance
from sbcore.plan.read import StepPlan
from sbcore.plan.sampling import step_seed
from sbcore.plan.speed import quantised
from sbcore.train.account import StepFacts, compute_micro_ms, predicted_micro_ms
from sbcore.types import Topology


class PlannedLayout:
    """The plan as it was made before training."""

    def lay_out(self, plan: StepPlan, step: int) -> StepPlan:
        """Returns the plan."""
        return plan

    def learn(self, facts: StepFacts) -> None:
        """Learns nothing."""

    def state(self) -> dict[str, Any]:
        """Returns nothing to keep."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Takes over nothing."""


class OnlineLayout:
    """The same sequences spread anew, by the budgets in use and the speeds of the ranks lately."""

    def __init__(
        self,
        stage: TrainStage,
        balancer: SabBalancer,
        latency: TableLatencyModel,
        *,
        max_tokens: int,
    ) -> None:
        self.stage, self.balancer, self.latency = stage, balancer, latency
        topology = stage.topology
        self.budgets = BudgetAverages(
            balancer,
            num_layers=latency.num_layers,
            block_size=stage.attention.block_size,
            top_k=stage.attention.top_k,
        )
        self.speeds = SpeedFactors(topology.num_ranks, ema_decay=balancer.budget_decay)
        self._topology = Topology(
            topology.num_ranks, topology.barrier, max_tokens, stage.max_sequences
        )

    def lay_out(self, plan: StepPlan, step: int) -> StepPlan:
        """Returns the plan's sequences on other ranks and in other micro-batches."""
        expected = self.budgets.expect(plan.lengths)
        batch = rebalance(
            plan.lengths,
            replace(self._topology, speed_factors=quantised(self.speeds.factors.tolist())),
            latency=self.latency,
            top_k=expected,
            config=self.balancer,
            seed=step_seed(self.stage.seed, step),
        )
        return replace(plan, batch=batch)

    def learn(self, facts: StepFacts) -> None:
        """Takes in the budgets that a step used, and what each rank's computing took."""
        self.budgets.update(facts.plan.lengths, facts.top_k)
        predicted = predicted_micro_ms(facts.plan, self.latency, facts.top_k)
        self.speeds.update(compute_micro_ms(facts.reports).sum(axis=1), predicted.sum(axis=1))

    def state(self) -> dict[str, Any]:
        """Returns the averages, arrays by name."""
        parts = {"budgets": self.budgets.state_dict(), "speeds": self.speeds.state_dict()}
        return {f"{part}.{k}": np.asarray(v) for part, s in parts.items() for k, v in s.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Takes over the averages."""
        self.budgets.load_state_dict(_part(state, "budgets."))
        self.speeds.load_state_dict(_part(state, "speeds."))


def make_layout(
    stage: TrainStage, latency: TableLatencyModel, *, max_tokens: int
) -> "PlannedLayout | OnlineLayout":
    """Returns the variant's way to lay out a step; ``max_tokens`` is the cap that the plan kept."""
    balancer = stage.balancer
    if balancer.kind == "sab" and balancer.online:
        return OnlineLayout(stage, balancer, latency, max_tokens=max_tokens)
    return PlannedLayout()


def _part(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
