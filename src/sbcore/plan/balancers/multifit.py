"""MULTIFIT: the smallest load per rank that first-fit can keep, by bisection; at most 13/11.

Keeps the token cap in the same pass. First-fit looks at every rank, so it costs ranks times
sequences per bisection: for small jobs, and as a check on `sab`.
"""

from functools import partial

from sbcore.config.method import MultifitBalancer
from sbcore.plan.balancers.random import no_worse_than_random
from sbcore.plan.caps import OpenMicroBatches
from sbcore.plan.layout import placed
from sbcore.plan.placement import Layout, arrange, onto_ranks
from sbcore.plan.workload import Workload, longest_first, make_workload
from sbcore.types import Barrier, BatchPlan, CostModel, IntArray, Topology


def plan(
    lengths: IntArray,
    topology: Topology,
    *,
    cost: CostModel,
    seed: int,
    config: MultifitBalancer,
) -> BatchPlan:
    """Returns a plan even in predicted latency; the random one where that is faster."""
    workload = make_workload(lengths, topology, cost)
    layout = placed(workload, partial(_place, bisections=config.bisections))
    return no_worse_than_random(workload, layout, seed=seed)


def _place(workload: Workload, num_micro_batches: int, *, bisections: int) -> Layout | None:
    """Returns the layout of the smallest load found; LPT's where first-fit keeps none."""
    topology = workload.topology
    by_rank = topology.barrier is not Barrier.MICRO
    num_groups = topology.num_ranks * (1 if by_rank else num_micro_batches)
    per_group = num_micro_batches if by_rank else 1
    order = longest_first(workload)
    low = max(workload.costs[order[0]], sum(workload.costs) / num_groups)
    high = 2.0 * low
    best = onto_ranks(workload, num_micro_batches)
    for _ in range(bisections):
        level = (low + high) / 2.0
        members = _first_fit(workload, order, num_groups, per_group=per_group, level=level)
        if members is None:
            low = level
        else:
            best, high = arrange(workload, members), level
    return best


def _first_fit(
    workload: Workload, order: list[int], num_groups: int, *, per_group: int, level: float
) -> list[list[int]] | None:
    """Returns the micro-batches of all groups, none above the level, or None if it is too low."""
    opened = OpenMicroBatches(num_groups * per_group, workload.lengths, workload.topology)
    loads = [0.0] * num_groups
    for sequence in order:
        for group, load in enumerate(loads):
            own = range(group * per_group, (group + 1) * per_group)
            fitting = next((b for b in own if opened.fits(b, sequence)), None)
            if load + workload.costs[sequence] <= level and fitting is not None:
                opened.add(fitting, sequence)
                loads[group] += workload.costs[sequence]
                break
        else:
            return None
    return opened.members
