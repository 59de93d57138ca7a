"""The greedy core (LPT): each sequence, the heaviest first, joins the emptiest group that fits."""

from heapq import heappop, heappush

from sbcore.plan.caps import OpenMicroBatches
from sbcore.plan.workload import Workload

_MAX_TRIES = 32
"""Groups looked at for one sequence. They come by rising cost, which goes with tokens, so what does
not fit into the emptiest ones hardly fits elsewhere; without the limit a tight cap costs R per
sequence."""


class Groups:
    """Groups of micro-batches, a heap by cost; full groups leave it."""

    def __init__(self, workload: Workload, num_groups: int, *, per_group: int) -> None:
        self.opened = OpenMicroBatches(num_groups * per_group, workload.lengths, workload.topology)
        self._costs, self._per_group = workload.costs, per_group
        self._sums = [0.0] * (num_groups * per_group)
        self._heap = [(0.0, group) for group in range(num_groups)]

    @property
    def emptiest(self) -> float:
        """Cost of the emptiest group that is not full, infinite if all are."""
        return self._heap[0][0] if self._heap else float("inf")

    def put(self, sequence: int, *, level: float) -> bool:
        """Puts the sequence where it fits without passing the level; returns whether it did."""
        cost = self._costs[sequence]
        passed: list[tuple[float, int]] = []
        placed = False
        while self._heap and not placed and len(passed) < _MAX_TRIES:
            if self._heap[0][0] + cost > level:  # the others are no emptier
                break
            load, group = heappop(self._heap)
            own = range(group * self._per_group, (group + 1) * self._per_group)
            fitting = [b for b in own if self.opened.fits(b, sequence)]
            if fitting:
                chosen = min(fitting, key=self._sums.__getitem__)
                self.opened.add(chosen, sequence)
                self._sums[chosen] += cost
                load, placed = load + cost, True
            if not all(self.opened.is_full(b) for b in own):
                passed.append((load, group))
        for entry in passed:
            heappush(self._heap, entry)
        return placed


def fill_emptiest(
    workload: Workload, order: list[int], *, num_groups: int, per_group: int, level: float
) -> tuple[list[list[int]], list[int]]:
    """Returns the micro-batches of all groups, and what found no place; the order falls in cost.

    A sequence is left out when it fits into none of the emptiest groups or its group would pass
    `level`. Without a level, the first that is left out ends the filling: there is no plan.
    """
    groups = Groups(workload, num_groups, per_group=per_group)
    left: list[int] = []
    for at, sequence in enumerate(order):
        if groups.put(sequence, level=level):
            continue
        if level == float("inf") or groups.emptiest + workload.costs[order[-1]] > level:
            return groups.opened.members, left + order[at:]
        left.append(sequence)
    return groups.opened.members, left
