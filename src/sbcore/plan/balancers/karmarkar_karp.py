"""Karmarkar-Karp: partial partitions are merged, the two most uneven ones first (LDM).

The heaviest part of one joins the lightest of the other. Evener than LPT when there are many
sequences per rank, else the same; about 100 times its time, 0.3-0.5 s for 1,024 sequences on 256
ranks, so take `sab` above 64 ranks. Token caps come after: more micro-batches where a part is too
long.
"""

from heapq import heapify, heappop, heappush

from sbcore.config.method import KarmarkarKarpBalancer
from sbcore.plan.balancers.random import no_worse_than_random
from sbcore.plan.caps import pack_best_fit
from sbcore.plan.layout import placed
from sbcore.plan.placement import Layout, arrange, spread
from sbcore.plan.workload import Workload, make_workload
from sbcore.types import Barrier, BatchPlan, CostModel, IntArray, Topology


def plan(
    lengths: IntArray,
    topology: Topology,
    *,
    cost: CostModel,
    seed: int,
    config: KarmarkarKarpBalancer,
) -> BatchPlan:
    """Returns a plan even in predicted latency; the random one where that is faster."""
    del config
    workload = make_workload(lengths, topology, cost)
    layout = placed(workload, _place)
    return no_worse_than_random(workload, layout, seed=seed)


def difference(costs: list[float], num_parts: int) -> list[list[int]]:
    """Returns a partition of the costs' indices into parts of nearly equal sums."""
    heap = []
    for index, cost in enumerate(costs):
        parts: list[list[int]] = [[] for _ in range(num_parts - 1)]
        heap.append((-cost, index, [0.0] * (num_parts - 1) + [cost], [*parts, [index]]))
    heapify(heap)
    while len(heap) > 1:
        _, tie, sums_a, parts_a = heappop(heap)
        _, _, sums_b, parts_b = heappop(heap)
        merged = sorted(
            (
                (low + high, one + other)
                for low, high, one, other in zip(
                    sums_a, reversed(sums_b), parts_a, reversed(parts_b), strict=True
                )
            ),
            key=lambda part: part[0],
        )
        sums = [total for total, _ in merged]
        heappush(heap, (sums[0] - sums[-1], tie, sums, [part for _, part in merged]))
    return heap[0][3]


def _place(workload: Workload, num_micro_batches: int) -> Layout | None:
    """Returns the layout of the parts, or None where one breaks a cap."""
    topology = workload.topology
    by_rank = topology.barrier is not Barrier.MICRO
    num_parts = topology.num_ranks * (1 if by_rank else num_micro_batches)
    parts = difference(workload.costs, num_parts)
    limit = num_micro_batches if by_rank else 1
    if any(len(pack_best_fit(part, workload.lengths, topology)) > limit for part in parts):
        return None
    if not by_rank:
        return arrange(workload, parts)
    return spread(workload, parts, num_micro_batches)
