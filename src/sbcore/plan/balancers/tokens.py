"""LPT on a cost per sequence, as public trainers balance: the heaviest onto the lightest rank.

Ranks first, then each rank's micro-batches, whatever the barrier is: under `micro` the slowest of
each place is not looked at. Its cost is tokens unless told otherwise; `squared` is what several
trainers take for dense attention. To compare with; `length` is the same under `step`.
"""

from dataclasses import replace

from sbcore.config.method import TokensBalancer
from sbcore.plan.balancers.random import no_worse_than_random
from sbcore.plan.layout import placed
from sbcore.plan.placement import Layout, onto_ranks, with_small_ends
from sbcore.plan.workload import Workload, make_workload
from sbcore.types import Barrier, BatchPlan, CostModel, IntArray, Topology


def plan(
    lengths: IntArray,
    topology: Topology,
    *,
    cost: CostModel,
    seed: int,
    config: TokensBalancer,
) -> BatchPlan:
    """Returns a plan of ranks even in the cost; the random one where that costs less."""
    del config  # the cost is the one it names
    workload = make_workload(lengths, topology, cost)
    return no_worse_than_random(workload, placed(workload, _place), seed=seed)


def _place(workload: Workload, num_micro_batches: int) -> Layout | None:
    """Returns ranks of even sums, each rank's micro-batches heaviest first."""
    topology = workload.topology
    by_rank = replace(workload, topology=replace(topology, barrier=Barrier.STEP, num_stages=1))
    layout = onto_ranks(by_rank, num_micro_batches)
    if layout is not None and topology.num_stages > 1:
        return with_small_ends(by_rank, layout)
    return layout
