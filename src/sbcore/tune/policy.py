"""The seam of budget policies, and the table of them.

A policy is a pure function of what it is shown: no clock, no rank, no torch. So every rank
computes the same budgets and nobody waits for anybody.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from sbcore.config.method import TunerConfig
from sbcore.errors import SparseBalanceError, unknown_name
from sbcore.tune.coverage import CoverageModel
from sbcore.types import Barrier, BatchPlan, IntArray, LatencyModel

POLICIES = {
    "fixed": "sbcore.tune.fixed:FixedPolicy",
    "anchor": "sbcore.tune.anchor:AnchorPolicy",
    "waterfill": "sbcore.tune.waterfill:WaterfillPolicy",
}


@dataclass(frozen=True)
class Observation:
    """One step before it runs: the plan's lengths [N], and what is known of time and coverage."""

    lengths: IntArray
    batch: BatchPlan
    barrier: Barrier
    latency: LatencyModel
    coverage: CoverageModel
    top_k: int


class BudgetPolicy(Protocol):
    """Decides budgets step by step."""

    def decide(self, observation: Observation) -> IntArray:
        """Returns the target top_k, int64 [num_layers, N], within the policy's floor and cap."""
        ...


def make_policy(config: TunerConfig) -> BudgetPolicy:
    """Returns the configured policy; raises SparseBalanceError for an unknown one."""
    if config.kind not in POLICIES:
        raise SparseBalanceError(unknown_name("tuner.kind", config.kind, POLICIES))
    module, name = POLICIES[config.kind].split(":")
    make = cast(Callable[[TunerConfig], BudgetPolicy], getattr(import_module(module), name))
    return make(config)
