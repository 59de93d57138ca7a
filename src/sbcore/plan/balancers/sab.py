"""SAB, sparsity-aware batching (SparseBalance, arXiv 2604.13847): even in predicted latency.

Greedy first, the heaviest sequence onto the emptiest rank (LPT, at most 4/3 of the best), then
micro-batches within ranks; differs from the paper by knowing the barrier, the host floor of a
micro-batch and the lower bound, and by a local search, which stops as soon as the bound is met.
Costs 0.1-0.6 ms for 16 sequences, 12 ms where the search begins again; within 2 % of the bound
unless one sequence or the caps bind.
"""

from collections.abc import Iterator
from dataclasses import replace

from sbcore.config.method import SabBalancer
from sbcore.plan.balancers.random import random_layout
from sbcore.plan.bounds import first_bound, raised_bound
from sbcore.plan.caps import min_micro_batches
from sbcore.plan.layout import layout_cost, to_plan, with_fewest
from sbcore.plan.local_search import improve
from sbcore.plan.pipeline_bound import bounds_by_count
from sbcore.plan.pipeline_search import improve_pipeline
from sbcore.plan.placement import Layout, by_levels, onto_ranks, tightly
from sbcore.plan.restarts import Start, restarted
from sbcore.plan.workload import Workload, make_workload
from sbcore.types import Barrier, BatchPlan, CostModel, IntArray, Topology

_NEAR_ENOUGH = 1e-6
"""Gap to the bound at which there is nothing left to find."""
_WORTH_RESTARTS = 0.005
"""Gap to the bound above which the search begins again."""
_WORTH_COUNTING = 0.05
"""Gap to the bound below which so many micro-batches of a pipeline are tried."""


def plan(
    lengths: IntArray,
    topology: Topology,
    *,
    cost: CostModel,
    seed: int,
    config: SabBalancer,
) -> BatchPlan:
    """Returns a plan even in predicted latency under the topology's barrier."""
    workload = make_workload(lengths, topology, cost)
    bound = first_bound(workload)
    enough = bound * (1.0 + _NEAR_ENOUGH)
    tried: list[Start] = []
    for layout in _greedy_layouts(workload, enough=enough, seed=seed):
        tried.append((layout_cost(workload, layout), layout))
        if tried[-1][0] <= enough:
            return to_plan(layout)
    enough = raised_bound(workload, bound) * (1.0 + _NEAR_ENOUGH)
    rounds = config.local_search_rounds
    alone = topology.num_stages > 1 and topology.barrier is not Barrier.MICRO
    improved = improve_pipeline if alone else improve

    def search(workload: Workload, layout: Layout) -> Layout:
        return improved(workload, layout, rounds=rounds, enough=enough)

    worth = enough * (1.0 + _WORTH_RESTARTS)
    return to_plan(
        restarted(workload, tried, search, restarts=config.restarts, enough=worth, seed=seed)
    )


def _greedy_layouts(workload: Workload, *, enough: float, seed: int) -> Iterator[Layout]:
    """Yields layouts to choose from, the likeliest first."""
    layout, num_micro_batches = with_fewest(workload, onto_ranks)
    yield layout
    if workload.topology.barrier is Barrier.MICRO:
        yield with_fewest(workload, by_levels)[0]
    if num_micro_batches > min_micro_batches(workload.lengths, workload.topology):
        yield with_fewest(workload, tightly)[0]
    for count in _other_counts(workload, num_micro_batches, enough=enough):
        looser = onto_ranks(workload, count)
        if looser is not None:
            yield looser
    yield from _short_layouts(workload)
    yield random_layout(workload.lengths, workload.topology, seed=seed)


def _other_counts(workload: Workload, fewest: int, *, enough: float) -> list[int]:
    """Returns further numbers of micro-batches to try: in pipelines those that bounds allow."""
    if workload.topology.num_stages == 1:
        return [fewest + 1]
    found = bounds_by_count(workload, up_to=enough * (1.0 + _WORTH_COUNTING))
    return [count for count, _ in found if count > fewest]


def _short_layouts(workload: Workload) -> Iterator[Layout]:
    """Yields layouts of micro-batches too short to be recomputed, where there is such a limit."""
    shares, topology = workload.shares, workload.topology
    if shares.short >= shares.long or shares.up_to_tokens >= topology.max_tokens:
        return
    short = replace(workload, topology=replace(topology, max_tokens=shares.up_to_tokens))
    yield with_fewest(short, onto_ranks)[0]
    if topology.barrier is Barrier.MICRO:
        yield with_fewest(short, by_levels)[0]
