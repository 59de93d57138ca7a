"""Random order, dealt out to the ranks in turn: what a shuffling data loader does.

Packs in that order when packing is allowed; knows nothing of costs. The baseline.
"""

import numpy as np

from sbcore.config.method import RandomBalancer
from sbcore.plan.caps import pack_in_order
from sbcore.plan.layout import best_of, to_plan
from sbcore.plan.placement import Layout, without_idle
from sbcore.plan.workload import Workload
from sbcore.types import BatchPlan, CostModel, IntArray, Topology


def plan(
    lengths: IntArray,
    topology: Topology,
    *,
    cost: CostModel,
    seed: int,
    config: RandomBalancer,
) -> BatchPlan:
    """Returns a plan of the seed's order."""
    del cost, config  # it has no use for them
    return to_plan(random_layout(lengths.tolist(), topology, seed=seed))


def random_layout(lengths: list[int], topology: Topology, *, seed: int) -> Layout:
    """Returns the seed's order dealt out and packed."""
    order = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    dealt = [order[rank :: topology.num_ranks] for rank in range(topology.num_ranks)]
    return without_idle([pack_in_order(rank, lengths, topology) for rank in dealt])


def no_worse_than_random(workload: Workload, layout: Layout, *, seed: int) -> BatchPlan:
    """Returns the layout's plan, or the random one where that costs less by the same costs.

    Greedy methods are good on average, not always.
    """
    dealt = random_layout(workload.lengths, workload.topology, seed=seed)
    return to_plan(best_of(workload, [layout, dealt]))
