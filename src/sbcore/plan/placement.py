"""Greedy placements: whole global batches into micro-batches, heaviest sequence first.

R ranks, M micro-batches per rank. A layout is ``[rank][m] -> sequences``; None says that the
sequences do not fit into so few micro-batches.
"""

from dataclasses import replace
from itertools import chain

import numpy as np

from sbcore.latency.packs import EVEN
from sbcore.plan.caps import pack_best_fit
from sbcore.plan.filling import fill_emptiest
from sbcore.plan.pipeline import small_ends
from sbcore.plan.workload import Workload, longest_first, summed
from sbcore.types import Barrier

Layout = list[list[list[int]]]


def onto_ranks(workload: Workload, num_micro_batches: int) -> Layout | None:
    """Returns a layout whose waiting units are even: micro-batches (`micro`), or else ranks."""
    topology = workload.topology
    by_rank = topology.barrier is not Barrier.MICRO
    members, left = fill_emptiest(
        workload,
        longest_first(workload),
        factors=topology.factors if by_rank else (1.0,) * topology.num_ranks * num_micro_batches,
        per_group=num_micro_batches if by_rank else 1,
        level=float("inf"),
    )
    return None if left else arrange(workload, members)


def by_levels(workload: Workload, num_micro_batches: int) -> Layout | None:
    """Returns a layout for barrier `micro`: each micro-step is filled up to its longest sequence.

    All ranks wait for the longest one anyway, so work beside it is free; where it is short, the
    level is the mean that is left for the micro-steps to come.
    """
    num_ranks = workload.topology.num_ranks
    any_ranks = (1.0,) * num_ranks
    left = longest_first(workload)
    members: list[list[int]] = []
    for later in range(num_micro_batches, 0, -1):
        if not left:
            break
        mean = summed(workload.costs, left) / (num_ranks * later)
        level = max(workload.costs[left[0]], mean) if later > 1 else float("inf")
        filled, left = fill_emptiest(workload, left, factors=any_ranks, per_group=1, level=level)
        members += filled
    return None if left else arrange(workload, members)


def tightly(workload: Workload, num_micro_batches: int) -> Layout | None:
    """Returns a layout of the fewest micro-batches by tokens, these then spread over the ranks."""
    topology = workload.topology
    packs = pack_best_fit(range(workload.num_sequences), workload.lengths, topology)
    whole = Workload(
        lengths=[1] * len(packs),
        costs=[workload.work(pack) for pack in packs],
        floor=workload.floor,
        constant=workload.constant,
        shares=EVEN,
        topology=replace(topology, max_tokens=1, max_sequences=1),
    )
    layout = onto_ranks(whole, num_micro_batches)
    if layout is None:
        return None
    return [[list(chain(*(packs[i] for i in m))) for m in rank] for rank in layout]


def spread(workload: Workload, parts: list[list[int]], num_micro_batches: int) -> Layout:
    """Returns the layout of these ranks' sequences, each rank's evenly over its micro-batches.

    Each part must fit: packed tightly where the even way breaks a cap.
    """
    members: list[list[int]] = []
    for part in parts:
        order = sorted(part, key=lambda i: (-workload.costs[i], i))
        packs, left = fill_emptiest(
            workload, order, factors=(1.0,), per_group=num_micro_batches, level=float("inf")
        )
        if left:
            packs = pack_best_fit(part, workload.lengths, workload.topology)
        members += packs + [[] for _ in range(num_micro_batches - len(packs))]
    return arrange(workload, members)


def arrange(workload: Workload, members: list[list[int]]) -> Layout:
    """Returns the micro-batches R*M laid out in the best order known for the barrier.

    Under `micro` any rank may take any: sorting all of them and giving R at a time to one
    micro-step, the heaviest to the fastest rank, is the best order there is for equal ranks. Else
    they belong to their ranks already (M in a row). The heaviest come first, but in pipelines the
    small ones first and last.
    """
    topology, loads = workload.topology, [workload.work(pack) for pack in members]
    num_ranks = topology.num_ranks
    if topology.barrier is Barrier.MICRO:
        order = sorted(range(len(members)), key=loads.__getitem__, reverse=True)
        fastest_first = sorted(range(num_ranks), key=topology.factors.__getitem__)
        dealt = {rank: order[at::num_ranks] for at, rank in enumerate(fastest_first)}
        ranks = [dealt[rank] for rank in range(num_ranks)]
    else:
        per_rank = len(members) // num_ranks
        own = [range(rank * per_rank, (rank + 1) * per_rank) for rank in range(num_ranks)]
        ranks = [sorted(b, key=loads.__getitem__, reverse=True) for b in own]
    layout = without_idle([[members[b] for b in rank] for rank in ranks])
    return with_small_ends(workload, layout) if topology.num_stages > 1 else layout


def with_small_ends(workload: Workload, layout: Layout) -> Layout:
    """Returns the layout with small micro-batches first and last: each rank's, or micro-steps."""
    loads = np.array([[workload.work(pack) for pack in rank] for rank in layout])
    if workload.topology.barrier is Barrier.MICRO:
        loads[:] = loads.max(axis=0)
    orders = [small_ends(rank).tolist() for rank in loads]
    return [[rank[m] for m in order] for rank, order in zip(layout, orders, strict=True)]


def without_idle(layout: Layout) -> Layout:
    """Returns the layout without micro-steps in which every rank would run a dummy.

    Ranks with fewer micro-batches than others get dummies, so that all have the same number.
    """
    packed = [[pack for pack in rank if pack] for rank in layout]
    num_micro_batches = max(len(rank) for rank in packed)
    return [rank + [[] for _ in range(num_micro_batches - len(rank))] for rank in packed]
