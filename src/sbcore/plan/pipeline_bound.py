"""What no plan of 1F1B pipelines can beat, for each number of micro-batches per rank.

More micro-batches keep more stages busy, and each costs at least the floor: so there is a bound for
each number of them, and the least counts. R ranks, P stages, M micro-batches per rank, e what an
empty micro-batch takes, L prices of paths.
"""

from dataclasses import dataclass

import numpy as np

from sbcore.plan.bin_bound import bin_bound
from sbcore.plan.caps import min_micro_batches
from sbcore.plan.pipeline import FORWARD_SHARE
from sbcore.plan.pipeline_prices import path_prices
from sbcore.plan.workload import Workload
from sbcore.types import Barrier, FloatArray, IntArray

PRICED = 4
"""Micro-batches per stage up to which paths have prices; bounds of more know the last stage."""
_NEWTON_STEPS = 6
"""Each brings the bound nearer to what prices say; all are bounds."""
NO_PRICE = 1e-12
"""Instead of 0, where a path does not pass through all micro-batches."""


def pipeline_bound(workload: Workload) -> float:
    """Returns a lower bound on the 1F1B makespan of the slowest rank, all on the fastest rank.

    Costs are the least that sequences can have. Under `micro` the slowest of each micro-step make
    one pipeline, with the work of the busiest rank.
    """
    work, least = _make_work(workload), float("inf")
    for num_micro, rough in _rough_bounds(workload, work):
        if rough >= least:  # so are all that follow
            break
        least = min(least, work.bound(num_micro, rough))
    return least


def bounds_by_count(workload: Workload, *, up_to: float) -> list[tuple[int, float]]:
    """Returns all numbers of micro-batches whose lower bound is not above, the lowest first."""
    work, found = _make_work(workload), []
    for num_micro, rough in _rough_bounds(workload, work):
        if rough > up_to:
            break
        found.append((num_micro, work.bound(num_micro, rough)))
    return sorted((f for f in found if f[1] <= up_to), key=lambda found: (found[1], found[0]))


def _rough_bounds(workload: Workload, work: "_Work") -> list[tuple[int, float]]:
    """Returns all numbers of micro-batches with bounds that need no prices, the lowest first."""
    fewest = min_micro_batches(workload.lengths, workload.topology)
    counts = np.arange(fewest, workload.num_sequences + 1)
    rough = work.rough_bounds(counts)
    order = np.argsort(rough, kind="stable")
    return list(zip(counts[order].tolist(), rough[order].tolist(), strict=True))


def _make_work(workload: Workload) -> "_Work":
    topology = workload.topology
    return _Work(
        costs=np.sort(np.asarray(workload.costs))[::-1],
        floor=workload.floor,
        constant=workload.constant,
        num_bins=topology.num_ranks,
        num_ranks=1 if topology.barrier is Barrier.MICRO else topology.num_ranks,
        num_stages=topology.num_stages,
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """A step's work: in M micro-batches of each of these ranks, of which one has the longest."""

    costs: FloatArray  # [N], falling
    floor: float
    constant: float
    num_bins: int  # ranks for what cannot be divided
    num_ranks: int  # ranks for what can; the slowest of each micro-step are like one rank
    num_stages: int

    def per_rank(self, num_micro: IntArray) -> FloatArray:
        """Returns the mean rank's summed times at least, [J], of numbers of micro-batches [J].

        A micro-batch takes the floor and what its sequences are above it, at least.
        """
        above = np.maximum(self.costs - self.floor, 0.0).sum() / self.num_bins
        work = np.maximum(self.costs.sum() / self.num_bins, num_micro * self.floor + above)
        total: FloatArray = work + num_micro * self.constant
        return total

    def rough_bounds(self, num_micro: IntArray) -> FloatArray:
        """Returns bounds that need no prices, [J].

        On the last stage: all work, and while it idles the first micro-batch comes in (forward)
        and the last goes back (backward) through the others. And lanes, see there.
        """
        ends = (self.num_stages - 1) * (self.floor + self.constant)
        last_stage = (self.per_rank(num_micro) + ends) / self.num_stages
        return np.maximum(last_stage, self._lane_bounds(num_micro))

    def _lane_bounds(self, num_micro: IntArray) -> FloatArray:
        """Returns what the fullest lane of all ranks and that of the longest sequence take, [J].

        Every P-th micro-batch makes a lane: each enters the first stage when the one before has
        left it, after all stages. So a lane's times add up whole, as on a rank of its own. On the
        first stage, forward passes come before the lane's first and backward passes after its last.
        """
        first = np.arange(self.num_stages)[:, None]  # [P, 1] a lane by its first micro-batch
        members = -(-(num_micro - first) // self.num_stages)  # [P, J]
        after = num_micro - 1 - first - (members - 1) * self.num_stages
        ends = (first * FORWARD_SHARE + after * (1.0 - FORWARD_SHARE)) / self.num_stages
        beside = members * self.constant + ends * (self.floor + self.constant)
        beside = np.where(members > 0, beside, np.inf)
        lanes = np.minimum(num_micro, self.num_stages)
        bins = np.array([self._bins(int(k)) for k in range(1, int(lanes.max()) + 1)])
        longest = max(self.costs[0], self.floor) + (members - 1) * self.floor + beside
        return np.maximum(bins[lanes - 1] + beside.min(axis=0), longest.min(axis=0))

    def bound(self, num_micro: int, rough: float) -> float:
        """Returns the bound for so many micro-batches, from the one that needs no prices."""
        priced = num_micro <= PRICED * self.num_stages
        return max(rough, self._divided_bound(num_micro)) if priced else rough

    def _bins(self, lanes: int) -> float:
        """Returns the sequences that some of so many lanes per rank holds at least."""
        num_bins = self.num_bins * lanes
        least = max(float(self.costs[0]), float(self.costs.sum()) / num_bins)
        return bin_bound(self.costs, num_bins, least=least)

    def _divided_bound(self, num_micro: int) -> float:
        """Returns the bound by prices, for the best place of the longest sequence.

        A rank that ends by T has at most so much work that no path is longer, when all that is
        above e may go where it is cheapest. Ranks together must have room for all: the least T is
        found by Newton's method from below (room is concave in T).
        """
        empty = self.floor + self.constant
        prices = path_prices(num_micro, self.num_stages)
        others, longer = self.num_ranks - 1, max(float(self.costs[0]) - self.floor, 0.0)
        cheapest = np.maximum(prices.min(axis=1), NO_PRICE)
        idle = prices.sum(axis=1) * empty  # [L] a path through empty micro-batches
        holding = idle[:, None] + prices * longer  # [L, M] by the longest sequence's place
        work = self.num_ranks * float(self.per_rank(np.array([num_micro]))[0])
        rest = max(work - self.num_ranks * num_micro * empty - longer, 0.0)
        ends = holding.max(axis=0)  # [M]
        for _ in range(_NEWTON_STEPS):
            own = (ends - holding) / cheapest[:, None]
            other = (ends - idle[:, None]) / cheapest[:, None]
            tight, slack = own.argmin(axis=0), other.argmin(axis=0)
            lack = rest - own.min(axis=0) - others * other.min(axis=0)
            more_room = 1.0 / cheapest[tight] + others / cheapest[slack]
            ends = ends + np.maximum(lack, 0.0) / more_room
        return float(ends.min())
