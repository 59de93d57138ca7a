"""What no plan of a global batch can beat, so that every plan can say how far it is from it.

w_1 >= w_2 >= ... sequence costs, R ranks, M micro-batches per rank, f floor, c constant.
"""

from dataclasses import replace

import numpy as np

from sbcore.latency.packs import EVEN
from sbcore.plan.bin_bound import bin_bound
from sbcore.plan.caps import min_micro_batches
from sbcore.plan.pipeline import FORWARD_SHARE
from sbcore.plan.pipeline_bound import pipeline_bound
from sbcore.plan.pipeline_proof import proved_bound
from sbcore.plan.room_bound import room_bound
from sbcore.plan.workload import Workload
from sbcore.types import Barrier, FloatArray, Topology


def lower_bound(workload: Workload) -> float:
    """Returns the best lower bound known on the step's cost under the workload's barrier."""
    return raised_bound(workload, first_bound(workload))


def raised_bound(workload: Workload, bound: float) -> float:
    """Returns the bound, raised by what can be proved in some milliseconds where ranks have stages.

    All ranks count as the fastest one. Under barrier `micro` nothing more is proved.
    """
    topology = workload.topology
    if topology.num_stages == 1 or topology.barrier is Barrier.MICRO:
        return bound
    fastest = min(topology.factors)
    return proved_bound(_at_least_shares(workload), bound / fastest) * fastest


def first_bound(workload: Workload) -> float:
    """Returns a lower bound on the step's cost by sums and paths alone.

    max(mean load, longest sequence, w_R + w_(R+1) and its kin, loads that gaps keep out of reach),
    where every rank also pays M * c and no micro-batch costs less than f, with M the fewest that
    the caps allow. The sum over micro-steps of the slowest is never below the slowest sum, so all
    of it holds for `micro` too, which adds that sequences that cannot share a micro-batch come at
    best sorted, and that the token cap leaves ranks idle beside them. What one rank does counts as
    on the fastest one. Where the work of a micro-batch depends on its tokens, sequences count at
    the least share that they can have.
    """
    topology, by_tokens = workload.topology, _shared_by_tokens(workload)
    workload = _at_least_shares(workload)
    fewest = min_micro_batches(workload.lengths, topology)
    floor, extra = workload.floor, fewest * workload.constant
    costs = np.sort(np.asarray(workload.costs))[::-1]
    factors = np.array(topology.factors)
    work = _work_bound(costs, topology)
    one_rank = [work, max(float(costs[0]), floor) + (fewest - 1) * floor]
    if topology.barrier is Barrier.MICRO:
        one_rank += [_sorted_bound(workload, fewest), _filled_bound(workload)]
        one_rank.append(room_bound(workload, fewest))
    together = max(float(costs.sum()) + topology.num_ranks * extra, by_tokens)
    shared = together / (1.0 / factors).sum()
    idle = (fewest * floor + extra) * factors.max()
    busiest = max(idle, shared, (max(one_rank) + extra) * factors.min())
    if topology.num_stages > 1:
        busy = max(shared, (work + extra) * factors.min())
        fastest = float(factors.min())
        last_stage = _last_stage_bound(workload, float(busiest), busy=float(busy))
        return max(last_stage, pipeline_bound(workload) * fastest)
    return float(busiest)


def _at_least_shares(workload: Workload) -> Workload:
    """Returns the workload with costs that no packing lowers, and even shares."""
    if workload.shares.even:
        return workload
    least = workload.shares.least(np.asarray(workload.lengths))
    return replace(workload, costs=(np.asarray(workload.costs) * least).tolist(), shares=EVEN)


def _shared_by_tokens(workload: Workload) -> float:
    """Returns what all ranks together take at least, where shares differ; else 0.

    A short micro-batch pays its constant for few tokens. So each sequence pays for its tokens'
    part of the constant, in whichever kind of micro-batch is cheaper for it.
    """
    shares, cap = workload.shares, workload.topology.max_tokens
    if shares.even:
        return 0.0
    costs, lengths = np.asarray(workload.costs), np.asarray(workload.lengths)
    full = shares.long * costs + workload.constant * np.minimum(lengths / cap, 1.0)
    room = max(min(shares.up_to_tokens, cap), 1)
    few = shares.short * costs + workload.constant * np.minimum(lengths / room, 1.0)
    return float(np.where(lengths <= shares.up_to_tokens, np.minimum(full, few), full).sum())


def optimality_gap(predicted: float, bound: float) -> float:
    """Returns how far a plan's cost is above the bound, as a share of the bound, >= 0."""
    return max(predicted / bound - 1.0, 0.0)


def _work_bound(costs: FloatArray, topology: Topology) -> float:
    """Returns what some rank does at least, floors and constants left out; costs fall."""
    mean = float(costs.sum()) / topology.num_ranks
    least = max(float(costs[0]), _sharing_bound(costs, topology.num_ranks), mean)
    return bin_bound(costs, topology.num_ranks, least=least)


def _sharing_bound(costs: FloatArray, num_ranks: int) -> float:
    """Returns the bound by the pigeonhole: of the n*R + 1 heaviest, some rank holds n + 1.

    Those weigh at least as much as the n + 1 lightest of them; n = 1 gives w_R + w_(R+1).
    """
    ends = np.arange(num_ranks, len(costs), num_ranks)
    sums = np.concatenate([[0.0], np.cumsum(costs)])
    starts = ends + 1 - (np.arange(len(ends)) + 2)
    return float((sums[ends + 1] - sums[starts]).max(initial=0.0))


def _sorted_bound(workload: Workload, fewest: int) -> float:
    """Returns the sum of every R-th of the sequences that must be in different micro-batches."""
    cap = workload.topology.max_tokens
    alone = [
        cost
        for cost, length in zip(workload.costs, workload.lengths, strict=True)
        if 2 * length > cap or workload.topology.max_sequences == 1
    ]
    slowest = sorted(alone, reverse=True)[:: workload.topology.num_ranks]
    idle = max(fewest - len(slowest), 0) * workload.floor
    return sum(max(cost, workload.floor) for cost in slowest) + idle


def _filled_bound(workload: Workload) -> float:
    """Returns the mean load and what the token cap keeps idle beside the longest sequences.

    Sequences over half the cap are in different micro-batches. One with room v holds at most that
    room's worth of others at their highest cost per token, any micro-batch without one at most a
    cap's worth. So when such sequences come sorted, R at a time, whatever their micro-step takes
    beyond those limits is idle time; any other order idles no less.
    """
    num_ranks, cap = workload.topology.num_ranks, workload.topology.max_tokens
    costs, lengths = np.asarray(workload.costs), np.asarray(workload.lengths)
    apart = 2 * lengths > cap
    dearest = float((costs[~apart] / lengths[~apart]).max(initial=0.0))
    room = np.maximum(cap - lengths[apart], 0)
    limits = np.sort(np.maximum(costs[apart] + dearest * room, dearest * cap))[::-1]
    heights = np.sort(costs[apart])[::-1][::num_ranks]
    slots = np.full((len(heights), num_ranks), dearest * cap)
    slots.flat[: len(limits)] = limits
    idle = float(np.maximum(heights[:, None] - slots, 0.0).sum())
    return (float(costs.sum()) + idle) / num_ranks


def _last_stage_bound(workload: Workload, busiest: float, *, busy: float) -> float:
    """Returns the bound of the 1F1B makespan from that of the busiest rank's summed times.

    Its last stage idles while the first micro-batch comes in (forward) and while the last one goes
    back (backward) through the P - 1 others. Each is the smallest sequence's, or a dummy's, which
    comes on top of `busy`, the sum without dummies.
    """
    others, floor = workload.topology.num_stages - 1, workload.floor
    fastest = min(workload.topology.factors)
    dummy = fastest * (floor + workload.constant)
    smallest = fastest * (max(min(workload.costs), floor) + workload.constant)
    ends = sum(
        min(share * others * smallest, fastest * floor + share * others * dummy)
        for share in (FORWARD_SHARE, 1.0 - FORWARD_SHARE)
    )
    return max(busy + ends, busiest + others * dummy) / (others + 1)
