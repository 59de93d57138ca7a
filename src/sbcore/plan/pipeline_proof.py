"""Whether any plan of pipelines takes at most so long: the heaviest sequences in all places.

Level by level, one sequence more. A partial layout is dropped when one of its ranks already takes
too long, or when the ranks have no room for the rest, were it divided at will. Where none is left,
no plan is that fast; that is often so after a few levels, since heavy sequences decide.

S partial layouts, N sequences, R ranks, M micro-batches per rank, P stages, L prices of paths.
"""

import numpy as np

from sbcore.plan.pipeline import makespan_ms
from sbcore.plan.pipeline_bound import NO_PRICE, PRICED, bounds_by_count
from sbcore.plan.pipeline_prices import path_prices
from sbcore.plan.workload import Workload
from sbcore.types import FloatArray

_UP_TO = 0.08
"""Above a bound: the part in which a better one is looked for."""
_HALVINGS = 5
"""Of that part; they end within 0.25 % of what can be proved."""
_FEW_LAYOUTS = 30
"""Partial layouts that bounds of plans look at: 5 to 10 ms; 400 prove 0.1 to 0.3 % more in 40."""
_MOST_SLOTS = 128
"""Micro-batches of all ranks beyond which nothing is tried: layouts are that times that large."""


def proved_bound(workload: Workload, least: float) -> float:
    """Returns a lower bound on the makespan of the slowest rank, from one that is known.

    All ranks are as the fastest one. Never below `least`.
    """
    low, high = least, least * (1.0 + _UP_TO)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if is_possible(workload, middle, max_layouts=_FEW_LAYOUTS) is False:
            low = middle
        else:
            high = middle
    return low


def is_possible(workload: Workload, limit_ms: float, *, max_layouts: int) -> bool | None:
    """Returns whether a plan takes at most so long; None if that would take too many layouts.

    Ranks are alike, and token caps are left out, so what is impossible is so with them too.
    """
    answer: bool | None = False
    for num_micro, _ in bounds_by_count(workload, up_to=limit_ms):
        found = _fits(workload, num_micro, limit_ms=limit_ms, max_layouts=max_layouts)
        if found:
            return True
        answer = None if found is None else answer
    return answer


def _fits(workload: Workload, num_micro: int, *, limit_ms: float, max_layouts: int) -> bool | None:
    """Returns whether a plan of so many micro-batches per rank takes at most so long."""
    topology = workload.topology
    layouts = np.zeros((1, topology.num_ranks, num_micro))
    if layouts.size > _MOST_SLOTS or num_micro > PRICED * topology.num_stages:
        return None
    order = np.sort(workload.costs)[::-1]
    for at, cost in enumerate(order.tolist()):
        layouts = _possible(workload, _placed(layouts, cost), order[at + 1 :], limit_ms=limit_ms)
        if len(layouts) == 0:
            return False
        if len(layouts) > max_layouts:
            return None
    return True


def _placed(layouts: FloatArray, cost: float) -> FloatArray:
    """Returns all layouts with one more sequence, alike ones once, [S, R, M] of loads."""
    num_ranks, num_micro = layouts.shape[1:]
    slots = np.eye(num_ranks * num_micro).reshape(-1, num_ranks, num_micro) * cost
    more = (layouts[:, None] + slots).reshape(-1, num_ranks, num_micro)
    of_rank = np.argsort(more @ np.sqrt(np.arange(2.0, num_micro + 2.0)), axis=1)
    more = np.round(np.take_along_axis(more, of_rank[..., None], axis=1), 9)
    flat = np.ascontiguousarray(more.reshape(len(more), -1))
    _, once = np.unique(flat.view(f"V{flat[0].nbytes}"), return_index=True)
    kept: FloatArray = more[once]
    return kept


def _possible(
    workload: Workload, layouts: FloatArray, rest: FloatArray, *, limit_ms: float
) -> FloatArray:
    """Returns the layouts whose ranks end in time and have room for the rest, which falls."""
    num_micro, num_stages = layouts.shape[2], workload.topology.num_stages
    times = np.maximum(layouts, workload.floor) + workload.constant
    ends = makespan_ms(times.reshape(-1, num_micro), num_stages).reshape(len(layouts), -1)
    in_time = ends.max(axis=1) <= limit_ms
    layouts, times = layouts[in_time], times[in_time]
    prices = path_prices(num_micro, num_stages)
    cheapest = np.maximum(prices.min(axis=1), NO_PRICE)
    room = ((limit_ms - times @ prices.T) / cheapest).min(axis=2).sum(axis=1)
    constants = layouts.shape[1] * num_micro * workload.constant
    work = layouts.sum(axis=(1, 2)) + rest.sum() + constants - times.sum(axis=(1, 2))
    needed = np.maximum(work, np.maximum(rest - workload.floor, 0.0).sum())
    kept: FloatArray = layouts[room >= needed - 1e-9 * limit_ms]
    return kept
