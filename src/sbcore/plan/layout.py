"""From a placement to a plan: how many micro-batches, and which of several layouts is best."""

from collections.abc import Callable, Iterable
from itertools import compress

from sbcore.plan.caps import min_micro_batches
from sbcore.plan.placement import Layout
from sbcore.plan.workload import Workload
from sbcore.types import BatchPlan

Placement = Callable[[Workload, int], Layout | None]
"""Returns a layout with so many micro-batches per rank, or None if they are too few."""


def layout_cost(workload: Workload, layout: Layout) -> float:
    """Returns the layout's predicted cost under the workload's barrier."""
    loads = [[workload.work(pack) for pack in rank] for rank in layout]
    return workload.objective(loads)


def with_fewest(workload: Workload, place: Placement) -> tuple[Layout, int]:
    """Returns the placement with the fewest micro-batches it can do, and their number.

    Each micro-batch costs at least the floor, so fewer is better; with one for each sequence
    every placement succeeds. Large numbers are tried 3 % apart.
    """
    num_micro_batches = min_micro_batches(workload.lengths, workload.topology)
    while (layout := place(workload, num_micro_batches)) is None:
        num_micro_batches += 1 + num_micro_batches // 32
    return layout, num_micro_batches


def placed(workload: Workload, place: Placement) -> Layout:
    """Returns the placement with as many micro-batches as are best.

    The fewest, but in pipelines: there, more and smaller ones keep more stages busy.
    """
    layout, fewest = with_fewest(workload, place)
    if workload.topology.num_stages == 1:
        return layout
    more = (place(workload, count) for count in counts_above(workload, fewest))
    return best_of(workload, [layout, *(found for found in more if found is not None)])


def counts_above(workload: Workload, fewest: int) -> list[int]:
    """Returns numbers of micro-batches to try, each half as many again, up to one per sequence."""
    most, counts = -(-workload.num_sequences // workload.topology.num_ranks), []
    while (fewest := fewest + max(fewest // 2, 1)) <= most:
        counts.append(fewest)
    return counts


def best_of(workload: Workload, layouts: Iterable[Layout]) -> Layout:
    """Returns the cheapest layout, the first of equals."""
    return min(layouts, key=lambda layout: layout_cost(workload, layout))


def to_plan(layout: Layout) -> BatchPlan:
    """Returns the layout as a plan, without places that are empty on all ranks.

    Where micro-batches cost nothing, a search may leave such a place.
    """
    used = [any(packs) for packs in zip(*layout, strict=True)]
    return BatchPlan(tuple(tuple(map(tuple, compress(rank, used))) for rank in layout))
