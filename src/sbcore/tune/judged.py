"""What a step takes at decided budgets, judged as plans are: the last word on a decision.

Policies see times by rung, and know nothing of micro-batches that dense attention serves as long as
budgets cover them; a cut that ends such service can make a step slower.
"""

from collections.abc import Iterable

import numpy as np

from sbcore.plan.cost import KnownTimesCost
from sbcore.plan.objective import micro_batch_ms, step_ms
from sbcore.tune.policy import Observation
from sbcore.types import IntArray

_SAME_TIME = 1e-9
"""Relative difference below which two times are one."""


def judged_ms(observation: Observation, top_k: IntArray) -> float:
    """Returns the predicted time of the observed step at budgets [num_layers, N]."""
    lengths, batch = observation.lengths, observation.batch
    cost = KnownTimesCost.at(observation.latency, lengths, top_k)
    times = micro_batch_ms(batch, lengths, cost)
    return step_ms(times, observation.barrier, num_stages=observation.num_stages)


def first_no_slower(
    observation: Observation, base: IntArray, choices: Iterable[IntArray]
) -> IntArray:
    """Returns the first of the choices that is no slower than the budgets `base`, else those.

    One that is `base` itself needs no judgement, which takes a third of a decision.
    """
    limit = None
    for top_k in choices:
        if np.array_equal(top_k, base):
            return base
        if limit is None:
            limit = judged_ms(observation, base) * (1.0 + _SAME_TIME)
        if judged_ms(observation, top_k) <= limit:
            return top_k
    return base
