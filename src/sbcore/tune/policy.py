"""The seam of budget policies, and the table of them.

A policy is a pure function of what it is shown: no clock, no rank, no torch. So every rank
computes the same budgets and nobody waits for anybody. One that learns from measured times is shown
those that all ranks have gathered, and keeps what it learned in arrays for the checkpoint.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast, runtime_checkable

from sbcore.config.method import BoundedTuner, TunerConfig
from sbcore.errors import SparseBalanceError, unknown_name
from sbcore.tune.coverage import CoverageModel
from sbcore.types import Barrier, BatchPlan, IntArray, LatencyModel

POLICIES = {
    "fixed": "sbcore.tune.fixed:FixedPolicy",
    "anchor": "sbcore.tune.anchor:AnchorPolicy",
    "waterfill": "sbcore.tune.waterfill:WaterfillPolicy",
    "auto": "sbcore.tune.auto:AutoPolicy",
}


@dataclass(frozen=True)
class Observation:
    """One step before it runs: the plan's lengths [N], and what is known of time and coverage.

    ``step`` is its number, needed by policies that learn; None where steps have none. With
    ``num_stages`` above 1 a rank is a pipeline.
    """

    lengths: IntArray
    batch: BatchPlan
    barrier: Barrier
    latency: LatencyModel
    coverage: CoverageModel
    top_k: int
    step: int | None = None
    num_stages: int = 1


class BudgetPolicy(Protocol):
    """Decides budgets step by step."""

    def decide(self, observation: Observation) -> IntArray:
        """Returns the target top_k, int64 [num_layers, N], within the policy's floor and cap."""
        ...


@runtime_checkable
class LearningPolicy(BudgetPolicy, Protocol):
    """A policy whose decisions follow from what earlier steps took."""

    def p_at(self, step: int) -> float:
        """Returns the bound of a step, for the clamp in its layers."""
        ...

    def learn(self, step: int, *, step_ms: float, coverage_delta: float | None) -> None:
        """Takes in a finished step: measured milliseconds, and points (None: not measured).

        Both must be the same on all ranks.
        """
        ...

    def state(self) -> dict[str, Any]:
        """Returns small arrays by name, for the checkpoint."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Takes over such arrays."""
        ...


def learner_of(policy: BudgetPolicy) -> LearningPolicy | None:
    """Returns the policy if it learns. Asked once for a training: it takes 30 us."""
    return policy if isinstance(policy, LearningPolicy) else None


def p_of_step(config: TunerConfig, learner: LearningPolicy | None, *, step: int) -> float | None:
    """Returns the bound of a step's clamp; None where budgets are used as they are."""
    if learner is not None:
        return learner.p_at(step)
    return config.p if isinstance(config, BoundedTuner) else None


def make_policy(config: TunerConfig) -> BudgetPolicy:
    """Returns the configured policy; raises SparseBalanceError for an unknown one."""
    if config.kind not in POLICIES:
        raise SparseBalanceError(unknown_name("tuner.kind", config.kind, POLICIES))
    module, name = POLICIES[config.kind].split(":")
    make = cast(Callable[[TunerConfig], BudgetPolicy], getattr(import_module(module), name))
    return make(config)
