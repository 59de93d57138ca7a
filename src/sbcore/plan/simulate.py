"""Replays methods on a file of lengths without a GPU: what a step would take, as predicted.

Nothing here is measured but the latency model. Every method sees the same global batches.
N sequences, R ranks, M micro-batches per rank.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sbcore.config.data import SamplingConfig
from sbcore.config.method import BalancerConfig
from sbcore.errors import SparseBalanceError
from sbcore.latency.analytic import AnalyticLatencyModel
from sbcore.plan.balancers import load_balancer
from sbcore.plan.bounds import lower_bound, optimality_gap
from sbcore.plan.budgets import BudgetAverages
from sbcore.plan.cost import BudgetCost, KnownTimesCost
from sbcore.plan.objective import imbalance, micro_batch_ms, slowed, step_ms
from sbcore.plan.own_cost import own_cost
from sbcore.plan.sampling import drawn_steps, step_seed
from sbcore.plan.workload import least_workload
from sbcore.types import BatchPlan, CostModel, FloatArray, IntArray, LatencyModel, Topology

BudgetDecision = Callable[[IntArray, BatchPlan], IntArray]
"""Returns top_k [num_layers, N] for a step's lengths [N] and plan: a tuner at work."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What all methods of a comparison share; each sets the topology's max_sequences itself."""

    lengths: IntArray
    latency: LatencyModel
    block_size: int
    top_k: int
    sampling: SamplingConfig
    topology: Topology
    seed: int


@dataclass(frozen=True, slots=True)
class Method:
    """A balancer, how far it may pack (0 = up to max_tokens), and a tuner or fixed budgets."""

    balancer: BalancerConfig
    max_sequences: int
    decide: BudgetDecision | None


@dataclass(frozen=True, slots=True)
class Replay:
    """A method's steps as predicted, an entry per step; plan_ms is the time that planning took."""

    step_ms: FloatArray
    bound_ms: FloatArray
    imbalance: FloatArray
    plan_ms: FloatArray

    @property
    def bubble(self) -> float:
        """Share of rank time spent waiting, 0..1."""
        return 1.0 - float((self.step_ms / self.imbalance).sum() / self.step_ms.sum())

    @property
    def optimality_gap(self) -> float:
        """Share by which all steps together exceed their lower bounds at the budgets used."""
        return optimality_gap(float(self.step_ms.sum()), float(self.bound_ms.sum()))

    def speedup_over(self, baseline: "Replay") -> float:
        """Returns the ratio of the baseline's time for all steps to this one's."""
        return float(baseline.step_ms.sum() / self.step_ms.sum())


class Plans:
    """Plans that methods of one comparison share: each is made once, with the time it took.

    They are those of one scene; only its top_k may change.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[BalancerConfig, int, int, int], tuple[BatchPlan, float]] = {}

    def once(
        self, scene: Scene, method: Method, step: int, make: Callable[[], tuple[BatchPlan, float]]
    ) -> tuple[BatchPlan, float]:
        """Returns the method's plan of a step, made if no method has made it before."""
        key = (method.balancer, method.max_sequences, scene.top_k, step)
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def replay(scene: Scene, method: Method, plans: Plans | None = None) -> Replay:
    """Returns the method's steps over the scene's global batches; plans known are not made again.

    An online balancer makes its own: they follow from the budgets of earlier steps.
    """
    topology = replace(scene.topology, max_sequences=method.max_sequences)
    known = _known_budgets(scene, method.balancer)
    fixed = BudgetCost(scene.latency, scene.top_k)
    own = own_cost(method.balancer, fixed, formula=lambda: _formula(scene))
    rows = []
    batches = drawn_steps(scene.lengths, scene.sampling, seed=scene.seed)
    for number, chosen in enumerate(batches):
        lengths, seed = scene.lengths[chosen], step_seed(scene.seed, number)
        cost = own
        if known is not None:
            cost = KnownTimesCost.at(scene.latency, lengths, known.expect(lengths))
        make = partial(_timed_plan, lengths, topology, cost=cost, seed=seed, config=method.balancer)
        shared = plans if plans is not None and known is None else Plans()
        batch, plan_ms = shared.once(scene, method, number, make)
        used: CostModel = fixed
        if method.decide is not None:
            top_k = method.decide(lengths, batch)
            used = KnownTimesCost.at(scene.latency, lengths, top_k)
            if known is not None:
                known.update(lengths, top_k)
        rows.append((*_judged(batch, lengths, topology=topology, cost=used), plan_ms))
    step, bound, uneven, plan = np.array(rows).T
    return Replay(step_ms=step, bound_ms=bound, imbalance=uneven, plan_ms=plan)


def _formula(scene: Scene) -> LatencyModel:
    """Returns the scene's latency where that is a formula."""
    if not isinstance(scene.latency, AnalyticLatencyModel):
        raise SparseBalanceError(
            "balancer.cost = analytic: the latency of this comparison is a measured table. "
            "compare with cost: measured, or with latency analytic."
        )
    return scene.latency


def _known_budgets(scene: Scene, balancer: BalancerConfig) -> BudgetAverages | None:
    """Returns the averages that an online balancer plans with."""
    if not (balancer.kind == "sab" and balancer.online):
        return None
    num_layers = scene.latency.num_layers
    return BudgetAverages(
        balancer, num_layers=num_layers, block_size=scene.block_size, top_k=scene.top_k
    )


def _timed_plan(
    lengths: IntArray, topology: Topology, *, cost: CostModel, seed: int, config: BalancerConfig
) -> tuple[BatchPlan, float]:
    """Returns the balancer's plan and the milliseconds it took."""
    balancer = load_balancer(config.kind)
    started = time.perf_counter()
    batch = balancer(lengths, topology, cost=cost, seed=seed, config=config)
    return batch, (time.perf_counter() - started) * 1e3


def _judged(
    batch: BatchPlan, lengths: IntArray, *, topology: Topology, cost: CostModel
) -> tuple[float, float, float]:
    """Returns step_ms, bound_ms and imbalance of one global batch at the budgets used."""
    times = slowed(micro_batch_ms(batch, lengths, cost), topology)
    barrier, num_stages = topology.barrier, topology.num_stages
    bound = lower_bound(least_workload(lengths, topology, cost))
    step = step_ms(times, barrier, num_stages=num_stages)
    return step, bound, imbalance(times, barrier, num_stages=num_stages)
