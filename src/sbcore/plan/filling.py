"""The greedy core (LPT): each sequence, the heaviest first, joins the emptiest group that fits."""

from collections.abc import Sequence
from heapq import heappop, heappush, heapreplace

from sbcore.plan.caps import OpenMicroBatches
from sbcore.plan.workload import Workload

_MAX_TRIES = 32
"""Groups looked at for one sequence. They come by rising cost, which goes with tokens, so what does
not fit into the emptiest ones hardly fits elsewhere; without the limit a tight cap costs R per
sequence."""


class Groups:
    """Groups of micro-batches, a heap by cost for each speed factor; full groups leave it."""

    def __init__(self, workload: Workload, factors: Sequence[float], *, per_group: int) -> None:
        num = len(factors) * per_group
        self.opened = OpenMicroBatches(num, workload.lengths, workload.topology)
        self._costs, self._per_group = workload.costs, per_group
        self._sums = [0.0] * num
        single = per_group == 1  # most of the work of large jobs
        self._join = self.opened.try_add if single else self._join_emptiest
        self._is_full = self.opened.is_full if single else self._all_full
        self._heaps: dict[float, list[tuple[float, int]]] = {}
        for group, factor in enumerate(factors):
            self._heaps.setdefault(factor, []).append((0.0, group))

    @property
    def emptiest(self) -> float:
        """Cost of the emptiest group that is not full, infinite if all are."""
        return min((heap[0][0] for heap in self._heaps.values() if heap), default=float("inf"))

    def put(self, sequence: int, *, level: float) -> bool:
        """Puts the sequence where it fits without passing the level; returns whether it did.

        Ranks of the factor on which it would be done first are tried first.
        """
        if len(self._heaps) == 1:
            (heap,) = self._heaps.values()
            return self._put(heap, sequence, level=level)
        cost = self._costs[sequence]
        open_ones = [(f * (heap[0][0] + cost), heap) for f, heap in self._heaps.items() if heap]
        open_ones.sort(key=lambda done: done[0])
        return any(self._put(heap, sequence, level=level) for _, heap in open_ones)

    def _put(self, heap: list[tuple[float, int]], sequence: int, *, level: float) -> bool:
        cost = self._costs[sequence]
        passed: list[tuple[float, int]] = []
        placed = False
        # When the emptiest group would pass the level, the others would too.
        while not placed and heap and len(passed) < _MAX_TRIES and heap[0][0] + cost <= level:
            load, group = heap[0]
            placed = self._join(group, sequence)
            if placed and not self._is_full(group):
                heapreplace(heap, (load + cost, group))
            elif placed:
                heappop(heap)
            else:
                passed.append(heappop(heap))
        for entry in passed:
            heappush(heap, entry)
        return placed

    def _join_emptiest(self, group: int, sequence: int) -> bool:
        """Puts the sequence into the emptiest of the group's micro-batches that it fits into."""
        for b in sorted(self._members_of(group), key=self._sums.__getitem__):
            if self.opened.try_add(b, sequence):
                self._sums[b] += self._costs[sequence]
                return True
        return False

    def _all_full(self, group: int) -> bool:
        return all(map(self.opened.is_full, self._members_of(group)))

    def _members_of(self, group: int) -> range:
        return range(group * self._per_group, (group + 1) * self._per_group)


def fill_emptiest(
    workload: Workload, order: list[int], *, factors: Sequence[float], per_group: int, level: float
) -> tuple[list[list[int]], list[int]]:
    """Returns the micro-batches of all groups, and what found no place; the order falls in cost.

    There is a group for every speed factor; where its rank is open, the factor is 1.
    A sequence is left out when it fits into none of the emptiest groups or its group would pass
    `level`. Without a level, the first that is left out ends the filling: there is no plan.
    """
    groups = Groups(workload, factors, per_group=per_group)
    left: list[int] = []
    for at, sequence in enumerate(order):
        if groups.put(sequence, level=level):
            continue
        if level == float("inf") or groups.emptiest + workload.costs[order[-1]] > level:
            return groups.opened.members, left + order[at:]
        left.append(sequence)
    return groups.opened.members, left
