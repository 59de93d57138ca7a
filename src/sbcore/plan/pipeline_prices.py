"""Paths through 1F1B pipelines, as prices: what each micro-batch adds to when the last one ends.

A makespan is its longest path, so every path, and every mean of paths, is a bound on it: prices
times times. Which mean is the best for work that may be divided at will is a game of two: one
shares out the work, the other picks a path. Both learn; the mean of the paths picked is an answer.
Regret matching with regrets cut at 0 (Tammelin, "Solving large imperfect information games using
CFR+", arXiv 1407.5042) ends within 0.4 % of the linear program's answer in the mean, in 0.1 s for
each number of micro-batches. Prices know nothing of a step, so they are found once.

B shares of work, M micro-batches in the order of execution, P stages, L prices.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from sbcore.plan.pipeline import FORWARD_SHARE
from sbcore.types import FloatArray

_ROUNDS = 100
"""Paths that are picked for each share of work."""
_EMPTY_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares of a rank's work that its micro-batches take at least, all together."""
_LONGEST_SHARES = (0.15, 0.3, 0.45, 0.6, 0.75)
"""Shares of a rank's work that are one sequence."""


def longest_paths(times: FloatArray, num_stages: int) -> FloatArray:
    """Returns the prices of the longest path through the micro-batches, [B, M]; times are [B, M].

    Prices times times is `makespan_ms`, whose order of events this follows.
    """
    forward, backward = _on_a_stage(times, num_stages)
    num_micro, nothing = times.shape[1], np.zeros_like(forward[0])
    free = [nothing] * num_stages
    arrived = [nothing] * (num_stages + 1)
    for wave in range(1 - num_stages, num_micro):
        for stage in range(num_stages - 1, -1, -1):
            i = wave + num_stages - 1 - stage
            if 0 <= i < num_micro:
                free[stage] = _longer(free[stage], arrived[stage]) + forward[i]
                arrived[stage + 1] = free[stage]
        if wave >= 0:
            done = free[-1]
            for stage in range(num_stages - 1, -1, -1):
                done = free[stage] = _longer(free[stage], done) + backward[wave]
    return free[0][:, :-1]


def _on_a_stage(times: FloatArray, num_stages: int) -> tuple[FloatArray, FloatArray]:
    """Returns forward and backward passes as path and time, each [M, B, M + 1]; time comes last."""
    num_shares, num_micro = times.shape
    whole = np.zeros((num_micro, num_shares, num_micro + 1))
    at = np.arange(num_micro)
    whole[at, :, at] = 1.0
    whole[..., -1] = times.T
    forward = whole * (FORWARD_SHARE / num_stages)
    return forward, whole / num_stages - forward


def _longer(one: FloatArray, other: FloatArray) -> FloatArray:
    """Returns the paths that take longer, row by row."""
    return np.where(one[:, -1:] >= other[:, -1:], one, other)


@lru_cache(maxsize=128)
def path_prices(num_micro: int, num_stages: int) -> FloatArray:
    """Returns prices of paths for a rank's work, whatever of it cannot be divided, [L, M]."""
    shares = _shares(num_micro)
    divided, free = shares.divided[:, None], np.full(shares.fixed.shape, 1.0 / num_micro)
    regret, found = np.zeros_like(free), np.zeros_like(free)
    for number in range(1, _ROUNDS + 1):
        path = longest_paths(shares.fixed + divided * free, num_stages)
        found += number * path
        regret = np.maximum(regret + (free * path).sum(axis=1, keepdims=True) - path, 0.0)
        sums = regret.sum(axis=1, keepdims=True)
        free = np.where(sums > 0.0, regret / np.where(sums > 0.0, sums, 1.0), 1.0 / num_micro)
    prices = found * (2.0 / (_ROUNDS * (_ROUNDS + 1)))
    prices.setflags(write=False)  # shared by all that ask
    return prices


@dataclass(frozen=True, slots=True)
class _Shares:
    """Of a rank's work: what lies fixed in each micro-batch, and what may go anywhere."""

    fixed: FloatArray  # [B, M]
    divided: FloatArray  # [B]


def _shares(num_micro: int) -> _Shares:
    """Returns work with and without a long sequence, which may come anywhere."""
    fixed = []
    for empty in _EMPTY_SHARES:
        even = np.full(num_micro, empty / num_micro)
        fixed.append(even)
        for longest in _LONGEST_SHARES:
            longer = longest - even[0]
            if 0.0 < longer < 1.0 - empty:
                fixed += list(even + longer * np.eye(num_micro))
    array = np.array(fixed)
    return _Shares(array, 1.0 - array.sum(axis=1))
