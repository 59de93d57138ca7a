"""A tuner at work in a replay: it decides, is judged by the step's own curves, then learns."""

import numpy as np

from sbcore.config.method import TunerConfig
from sbcore.plan.cost import KnownTimesCost
from sbcore.plan.objective import micro_batch_ms, step_ms
from sbcore.simulate.coverage import LawfulCoverage, coverage_at
from sbcore.simulate.setting import Setting
from sbcore.tune.coverage import CoverageModel
from sbcore.tune.ladder import make_ladder
from sbcore.tune.policy import BudgetPolicy, LearningPolicy, Observation, make_policy
from sbcore.types import BatchPlan, IntArray


class EveryBlock:
    """Dense attention as a policy: all blocks of the longest sequence, everywhere."""

    def decide(self, observation: Observation) -> IntArray:
        """Returns the last rung for every layer and sequence, [num_layers, N]."""
        shape = (observation.latency.num_layers, len(observation.lengths))
        return np.full(shape, observation.coverage.ladder[-1], dtype=np.int64)


class SimulatedTuning:
    """Decides step by step, as in training; the clamp inside the layers is left out."""

    def __init__(
        self, setting: Setting, policy: BudgetPolicy, *, law: LawfulCoverage, taught: CoverageModel
    ) -> None:
        self._setting, self._policy, self._law = setting, policy, law
        self._known = taught
        self._gained, self._tokens, self._step = 0.0, 0, 0

    @property
    def coverage_delta(self) -> float:
        """Token-weighted mean of C(k used) - C(k0) over steps and layers, points."""
        return 100.0 * self._gained / self._tokens

    def __call__(self, lengths: IntArray, batch: BatchPlan) -> IntArray:
        """Returns top_k [num_layers, N] of the next step."""
        setting = self._setting
        top_k = self._policy.decide(
            Observation(
                lengths=lengths,
                batch=batch,
                barrier=setting.barrier,
                latency=setting.latency,
                coverage=self._known.beyond(setting.config.top_k),
                top_k=setting.config.top_k,
                step=self._step,
                num_stages=setting.num_stages,
            )
        )
        draw = setting.config.num_learning_steps + self._step
        curves = self._law.curves(lengths, draw=draw)
        base = np.full_like(top_k, setting.config.top_k)
        change = coverage_at(curves, self._law.ladder, top_k)
        change -= coverage_at(curves, self._law.ladder, base)
        gained = float((change.mean(axis=0) * lengths).sum())
        if isinstance(self._policy, LearningPolicy):
            delta = 100.0 * gained / int(lengths.sum())
            step_ms = self._step_ms(lengths, batch, top_k)
            self._policy.learn(self._step, step_ms=step_ms, coverage_delta=delta)
        self._gained += gained
        self._tokens += int(lengths.sum())
        self._step += 1
        self._known = self._known.updated(lengths, curves)
        return top_k

    def _step_ms(self, lengths: IntArray, batch: BatchPlan, top_k: IntArray) -> float:
        """Returns what the step takes, as predicted."""
        setting = self._setting
        cost = KnownTimesCost.at(setting.latency, lengths, top_k)
        times = micro_batch_ms(batch, lengths, cost)
        return step_ms(times, setting.barrier, num_stages=setting.num_stages)


def make_law(setting: Setting) -> LawfulCoverage:
    """Returns the setting's coverage curves."""
    return LawfulCoverage(
        setting.config.coverage,
        make_ladder(setting.num_blocks, setting.config.top_k),
        num_layers=setting.latency.num_layers,
        block_size=setting.block_size,
        seed=setting.config.seed,
    )


def teach(setting: Setting, law: LawfulCoverage, tuner: TunerConfig) -> CoverageModel:
    """Returns what a tuner knows after its learning steps, on batches drawn from the lengths."""
    known = CoverageModel.empty(
        law.ladder,
        num_layers=setting.latency.num_layers,
        block_size=setting.block_size,
        ema_decay=0.0 if tuner.kind == "fixed" else tuner.ema_decay,
    )
    rng = np.random.default_rng([setting.config.seed, 2])
    for draw in range(setting.config.num_learning_steps):
        lengths = rng.choice(setting.lengths, setting.global_batch, replace=False)
        known = known.updated(lengths, law.curves(lengths, draw=draw))
    return known


def make_tuning(setting: Setting, tuner: TunerConfig, *, dense: bool) -> SimulatedTuning:
    """Returns the variant's tuner, taught already; dense attention takes every block."""
    law = make_law(setting)
    policy = EveryBlock() if dense else make_policy(tuner)
    return SimulatedTuning(setting, policy, law=law, taught=teach(setting, law, tuner))
