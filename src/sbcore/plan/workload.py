"""One global batch as the balancers see it: what each sequence weighs, and the caps.

N sequences, R ranks, M micro-batches per rank. Plain Python lists: at tens of sequences they
beat arrays, and at thousands they do not lose.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from sbcore.latency.packs import WorkShares, covered_of, shares_of
from sbcore.plan.objective import step_ms
from sbcore.types import Barrier, CostModel, IntArray, Topology


@dataclass(frozen=True, slots=True)
class Workload:
    """Sequences with their tokens and costs; costs are in what the balancer balances."""

    lengths: list[int]  # [N] tokens
    costs: list[float]  # [N]
    floor: float
    constant: float
    shares: WorkShares
    topology: Topology

    @property
    def num_sequences(self) -> int:
        """Sequences N."""
        return len(self.lengths)

    def objective(self, loads: list[list[float]]) -> float:
        """Returns the cost of a step under the barrier; loads is [R][M] of `work`."""
        floor, constant, topology = self.floor, self.constant, self.topology
        times = [[max(floor, load) + constant for load in rank] for rank in loads]
        if topology.speed_factors:
            each = zip(topology.speed_factors, times, strict=True)
            times = [[factor * ms for ms in rank] for factor, rank in each]
        if topology.num_stages > 1:
            array = np.array(times)
            return step_ms(array, topology.barrier, num_stages=topology.num_stages)
        if topology.barrier is Barrier.MICRO:
            return sum(max(waiting) for waiting in zip(*times, strict=True))
        return max(sum(rank) for rank in times)

    def work(self, pack: Iterable[int]) -> float:
        """Returns the cost of a micro-batch of these sequences, floor and constant left out."""
        if self.shares.even:
            return summed(self.costs, pack)
        members = list(pack)
        return self.shares.at(sum(self.lengths[i] for i in members)) * summed(self.costs, members)


def make_workload(lengths: IntArray, topology: Topology, cost: CostModel) -> Workload:
    """Returns the global batch weighed by the cost model."""
    return Workload(
        lengths=lengths.tolist(),
        costs=cost.sequence_ms(lengths).tolist(),
        floor=cost.floor_ms,
        constant=cost.constant_ms,
        shares=shares_of(cost),
        topology=topology,
    )


def least_workload(lengths: IntArray, topology: Topology, cost: CostModel) -> Workload:
    """Returns the global batch at the least that each sequence can cost, for bounds.

    Dense attention is cheaper where it serves a micro-batch.
    """
    workload, covered = make_workload(lengths, topology, cost), covered_of(cost, lengths)
    if covered is None:
        return workload
    least = covered.least_ms(np.array(workload.costs), lengths)
    return replace(workload, costs=least.tolist())


def longest_first(workload: Workload) -> list[int]:
    """Returns the sequences by falling cost, then length; equal ones by their index."""
    by_length = sorted(range(len(workload.costs)), key=workload.lengths.__getitem__, reverse=True)
    return sorted(by_length, key=workload.costs.__getitem__, reverse=True)


def summed(costs: list[float], members: Iterable[int]) -> float:
    """Returns the summed costs of these sequences."""
    return sum(map(costs.__getitem__, members))
