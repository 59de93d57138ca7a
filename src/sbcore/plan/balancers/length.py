"""LBB, length-based batching: longest first onto the rank with the fewest tokens, then packed.

Its cost is the number of tokens, with no floor: what a planner knows that has measured nothing.
Close to the latency-based plan under top-k attention, whose cost is nearly linear in length once
the budget binds; worse where short sequences are dense and where micro-batches hit the floor.
"""

from sbcore.config.method import LengthBalancer
from sbcore.plan.balancers.random import no_worse_than_random
from sbcore.plan.cost import TokenCost
from sbcore.plan.layout import placed
from sbcore.plan.placement import onto_ranks
from sbcore.plan.workload import make_workload
from sbcore.types import BatchPlan, CostModel, IntArray, Topology


def plan(
    lengths: IntArray,
    topology: Topology,
    *,
    cost: CostModel,
    seed: int,
    config: LengthBalancer,
) -> BatchPlan:
    """Returns a plan even in tokens; the random one where that happens to be more even."""
    del cost, config  # lengths are all it looks at
    workload = make_workload(lengths, topology, TokenCost())
    layout = placed(workload, onto_ranks)
    return no_worse_than_random(workload, layout, seed=seed)
