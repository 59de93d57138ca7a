"""How much work the token cap lets into the highest micro-steps, so what is left for others.

Under barrier `micro` a micro-step waits for its longest sequence; where the cap leaves no room for
more work beside it, ranks idle, and that work makes other micro-steps longer. N sequences, R ranks,
G multipliers, J micro-steps.
"""

import numpy as np
from numpy.typing import NDArray

from sbcore.plan.workload import Workload
from sbcore.types import FloatArray, IntArray

_MULTIPLIERS = 8
"""Prices of a token that are tried; each gives a bound, the least counts."""
_MAX_STEPS = 8
"""Micro-steps that are looked at, the highest first."""


def room_bound(workload: Workload, fewest: int) -> float:
    """Returns a bound on the sum over micro-steps of the slowest, constants left out.

    Sequences that must be in different micro-batches make the i-th highest micro-step at least as
    long as the (i - 1) * R + 1-th of them. What the first j hold at most is a knapsack of j * R
    micro-batches; the rest is done in the others at best evenly, and none is below the floor.
    """
    topology, costs = workload.topology, np.asarray(workload.costs)
    lengths = np.asarray(workload.lengths)
    apart = (2 * lengths > topology.max_tokens) | (topology.max_sequences == 1)
    heights = np.sort(costs[apart])[::-1][:: topology.num_ranks][:_MAX_STEPS]
    if len(heights) == 0:
        return 0.0
    num_steps = np.arange(1, len(heights) + 1)
    held = _most_work(workload, costs, lengths, apart, num_steps)
    left = np.maximum(
        (costs.sum() - held) / topology.num_ranks, (fewest - num_steps) * workload.floor
    )
    return float((np.cumsum(np.maximum(heights, workload.floor)) + left).max())


def _most_work(
    workload: Workload,
    costs: FloatArray,
    lengths: IntArray,
    apart: NDArray[np.bool_],
    num_steps: IntArray,
) -> FloatArray:
    """Returns what j micro-steps hold at most, [J]: a knapsack's bound by multipliers.

    Each micro-batch has a cap of tokens and one sequence of those apart; at a price per token all
    that is worth its tokens is taken, and tokens that are left over are paid for.
    """
    topology = workload.topology
    tokens = np.minimum(lengths, topology.max_tokens)
    worth = costs / np.maximum(tokens, 1)
    price = np.quantile(worth, np.linspace(0.0, 1.0, _MULTIPLIERS))[:, None]  # [G, 1]
    beyond = np.maximum(costs - price * tokens, 0.0)  # [G, N]
    chosen = -np.sort(-beyond[:, apart], axis=1)
    most = np.concatenate([np.zeros_like(price), np.cumsum(chosen, axis=1)], axis=1)
    slots = num_steps * topology.num_ranks
    taken = most[:, np.minimum(slots, chosen.shape[1])]
    taken += beyond[:, ~apart].sum(axis=1, keepdims=True)
    bounds: FloatArray = (taken + price * topology.max_tokens * slots).min(axis=0)
    return bounds
