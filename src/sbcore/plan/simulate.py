"""Replays methods on a file of lengths without a GPU: what a step would take, as predicted.

Nothing here is measured but the latency model. Every method sees the same global batches.
N sequences, R ranks, M micro-batches per rank.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sbcore.config.data import SamplingConfig
from sbcore.config.method import BalancerConfig
from sbcore.plan.balancers import load_balancer
from sbcore.plan.bounds import lower_bound, optimality_gap
from sbcore.plan.cost import BudgetCost
from sbcore.plan.objective import imbalance, micro_batch_ms, step_ms
from sbcore.plan.sampling import step_seed, steps
from sbcore.plan.workload import make_workload
from sbcore.types import Barrier, BatchPlan, FloatArray, IntArray, LatencyModel, Topology

BudgetDecision = Callable[[IntArray, BatchPlan], IntArray]
"""Returns top_k [num_layers, N] for a step's lengths [N] and plan: a tuner at work."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What all methods of a comparison share."""

    lengths: IntArray
    latency: LatencyModel
    top_k: int
    sampling: SamplingConfig
    num_ranks: int
    barrier: Barrier
    max_tokens: int
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


def replay(scene: Scene, method: Method) -> Replay:
    """Returns the method's steps over the scene's global batches."""
    batches = steps(len(scene.lengths), scene.sampling, seed=scene.seed)
    rows = [
        _step(scene, method, scene.lengths[chosen], seed=step_seed(scene.seed, number))
        for number, chosen in enumerate(batches)
    ]
    step, bound, uneven, plan = np.array(rows).T
    return Replay(step_ms=step, bound_ms=bound, imbalance=uneven, plan_ms=plan)


def _step(
    scene: Scene, method: Method, lengths: IntArray, *, seed: int
) -> tuple[float, float, float, float]:
    """Returns step_ms, bound_ms, imbalance and plan_ms of one global batch."""
    topology = Topology(scene.num_ranks, scene.barrier, scene.max_tokens, method.max_sequences)
    cost = BudgetCost(scene.latency, scene.top_k)
    balancer = load_balancer(method.balancer.kind)
    started = time.perf_counter()
    batch = balancer(lengths, topology, cost=cost, seed=seed, config=method.balancer)
    plan_ms = (time.perf_counter() - started) * 1e3
    used = cost if method.decide is None else _tuned(scene, method.decide(lengths, batch), lengths)
    times = micro_batch_ms(batch, lengths, used)
    bound = lower_bound(make_workload(lengths, topology, used))
    return step_ms(times, scene.barrier), bound, imbalance(times, scene.barrier), plan_ms


@dataclass(frozen=True, slots=True)
class _TunedCost:
    """The times of one step's sequences at the budgets that tuning has set."""

    milliseconds: FloatArray  # [N]
    floor_ms: float
    constant_ms: float

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        """Returns the times, in the order of the step's lengths."""
        assert lengths.shape == self.milliseconds.shape, (lengths.shape, self.milliseconds.shape)
        return self.milliseconds


def _tuned(scene: Scene, top_k: IntArray, lengths: IntArray) -> _TunedCost:
    latency = scene.latency
    return _TunedCost(latency.predict(lengths, top_k), latency.floor_ms, latency.constant_ms)
