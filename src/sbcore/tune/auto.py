"""Picks the anchor and p from a probe: every pair is tried in turn, then the best one is kept.

Which pair a step tries follows from its number alone, so that ranks agree and a resumed run goes
on. A step counts by its measured time over what the plan is predicted to take at k0, since batches
differ more than tuners do, and by its measured coverage_delta; a pair counts by its medians. The
paper (arXiv 2604.13847) sets p and the anchor by hand.

What it gives up: the probe's steps, 45 by default, run partly with pairs that are slower or lose
more; and the choice is never looked at again, though curves drift while a model learns.
"""

from itertools import product
from typing import Any

import numpy as np

from sbcore.config.method import AnchorTuner, AutoTuner, WaterfillTuner
from sbcore.tune.anchor import AnchorPolicy
from sbcore.tune.policy import BudgetPolicy, LearningPolicy, Observation
from sbcore.tune.times import step_times
from sbcore.tune.waterfill import WaterfillPolicy
from sbcore.types import FloatArray, IntArray


class AutoPolicy:
    """Tries pairs of an anchor and a bound, then keeps one."""

    def __init__(self, config: AutoTuner) -> None:
        self.config = config
        self.pairs: list[tuple[str, float]] = list(product(config.anchors, config.p_choices))
        shape = (len(self.pairs), config.probe_rounds)
        self._time, self._delta = np.full(shape, np.nan), np.full(shape, np.nan)
        self._k0_ms: dict[int, float] = {}
        self._policies = {pair: _policy(config, *pair) for pair in self.pairs}

    def decide(self, observation: Observation) -> IntArray:
        """Returns target top_k, [num_layers, N], of the pair whose turn it is, or of the best."""
        assert observation.step is not None, "auto tries its pairs by the number of the step"
        if _is_known(observation) and observation.step < self._time.size:
            self._k0_ms[observation.step] = _ms_at_k0(observation)
        return self._policies[self.pair_at(observation.step)].decide(observation)

    def pair_at(self, step: int) -> tuple[str, float]:
        """Returns the anchor and p of a step."""
        num_pairs, rounds = self._time.shape
        known = np.isfinite(self._time).any(axis=1) & np.isfinite(self._delta).any(axis=1)
        if step < num_pairs * rounds or not known.any():
            return self.pairs[step % num_pairs]
        best = best_pair(
            np.nanmedian(self._time[known], axis=1),
            np.nanmedian(self._delta[known], axis=1),
            max_loss=self.config.max_coverage_loss,
        )
        return self.pairs[np.flatnonzero(known)[best]]

    def p_at(self, step: int) -> float:
        """Returns the bound of a step, for the clamp in its layers."""
        return self.pair_at(step)[1]

    def learn(self, step: int, *, step_ms: float, coverage_delta: float | None) -> None:
        """Takes in a finished step, if it belongs to the probe and had curves to decide by.

        A policy that learns itself, as `waterfill` does, is told of its own steps.
        """
        tried = self._policies[self.pair_at(step)]
        if isinstance(tried, LearningPolicy):
            tried.learn(step, step_ms=step_ms, coverage_delta=coverage_delta)
        number, pair = divmod(step, len(self.pairs))
        k0_ms = self._k0_ms.pop(step, None)
        if k0_ms is not None and coverage_delta is not None:
            self._time[pair, number] = step_ms / k0_ms
            self._delta[pair, number] = coverage_delta

    def state(self) -> dict[str, Any]:
        """Returns what was measured, for the checkpoint; steps under way are measured again."""
        learned = {
            f"probe_{number}_{name}": value
            for number, policy in enumerate(self._policies.values())
            if isinstance(policy, LearningPolicy)
            for name, value in policy.state().items()
        }
        return {"probe_time": self._time, "probe_delta": self._delta} | learned

    def load(self, state: dict[str, Any]) -> None:
        """Takes over what was measured."""
        self._time, self._delta = (np.array(state[f"probe_{name}"]) for name in ("time", "delta"))
        self._k0_ms = {}
        for number, policy in enumerate(self._policies.values()):
            if isinstance(policy, LearningPolicy):
                start = f"probe_{number}_"
                own = {name: value for name, value in state.items() if name.startswith(start)}
                policy.load({name.removeprefix(start): value for name, value in own.items()})


def _policy(config: AutoTuner, anchor: str, p: float) -> BudgetPolicy:
    shared = {"p": p, **config.model_dump(include={"floor", "cap", "ema_decay"})}
    if anchor == "optimum":
        return WaterfillPolicy(WaterfillTuner.model_validate(shared))
    return AnchorPolicy(AnchorTuner.model_validate(shared | {"anchor": anchor}))


def _is_known(observation: Observation) -> bool:
    """Returns whether there are curves to decide by, of all sequences that k0 does not cover."""
    lengths, coverage = observation.lengths, observation.coverage
    tuned = lengths[lengths > coverage.block_size * observation.top_k]
    return bool(len(tuned) and np.isfinite(coverage.expected(tuned)).all())


def best_pair(time: FloatArray, delta: FloatArray, *, max_loss: float | None) -> int:
    """Returns the index of the best of pairs with these times and coverage_deltas, [pairs].

    The fastest that loses at most max_loss points, or the one that loses least if none does. With
    None the knee: where the shares of both ranges, of time above the least and of coverage below
    the greatest, have the least sum.
    """
    if max_loss is None:
        cost = _share_of_range(time) + _share_of_range(-delta)
        return int(np.lexsort((-delta, cost))[0])
    within = delta >= -max_loss
    if not within.any():
        return int(np.lexsort((time, -delta))[0])
    return int(np.lexsort((-delta, np.where(within, time, np.inf)))[0])


def _share_of_range(values: FloatArray) -> FloatArray:
    span = float(np.ptp(values))
    share: FloatArray = (values - values.min()) / span if span > 0 else np.zeros_like(values)
    return share


def _ms_at_k0(observation: Observation) -> float:
    """Returns the predicted time of the step at k0 everywhere."""
    latency, ladder = observation.latency, observation.coverage.ladder
    shape = (latency.num_layers, len(observation.lengths))
    base = np.full(shape, np.searchsorted(ladder, observation.top_k))
    return step_times(observation).barrier_ms(base)
