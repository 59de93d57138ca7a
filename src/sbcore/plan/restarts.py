"""Local search begun again from shaken layouts, since single moves and swaps get stuck.

With few sequences per rank a plan that no move or swap improves can be some percent above the best
one; thirty restarts end within 0.5 % of the optimum of 16 sequences on 4 or 8 ranks (p95), for
about 12 ms. So they are made only where the gap to the bound is worth that.
"""

from collections.abc import Callable, Sequence

import numpy as np

from sbcore.plan.caps import keeps_caps
from sbcore.plan.layout import layout_cost
from sbcore.plan.placement import Layout
from sbcore.plan.workload import Workload

Search = Callable[[Workload, Layout], Layout]
"""Returns a layout that is no slower."""

Start = tuple[float, Layout]
"""A layout and what it costs."""

_SHAKES = 3
"""Random moves or swaps before each restart: fewer fall back, more lose what was found."""
_NEARLY = 0.03
"""Share above the best up to which layouts with other numbers of micro-batches are shaken too."""
_MOST_WORK = 2048
"""Restarts times sequences, times half the stages since pipelines take longer to time: 8 restarts
at 256 sequences, none above 2,048."""


def restarted(
    workload: Workload,
    starts: Sequence[Start],
    search: Search,
    *,
    restarts: int,
    enough: float,
    seed: int,
) -> Layout:
    """Returns the best layout found from the cheapest start, then the others, then shaken ones.

    Stops at a cost of `enough`. Every start and every shaken layout is a restart.
    """
    (_, first), *others = sorted(starts, key=lambda start: start[0])
    kept = _Kept(workload)
    for cost, layout in starts:
        kept.add(cost, layout)
    found = search(workload, first)
    kept.add(layout_cost(workload, found), found)
    rng = np.random.default_rng(seed)
    work = workload.num_sequences * max(workload.topology.num_stages // 2, 1)
    for number in range(min(restarts, _MOST_WORK // work)):
        if kept.best[0] <= enough:
            break
        known = number < len(others)
        again = others[number][1] if known else shaken(workload, kept.base(number), rng)
        found = search(workload, again)
        kept.add(layout_cost(workload, found), found)
    return kept.best[1]


class _Kept:
    """The best layout; in pipelines the best with each number of micro-batches.

    Shaking never changes that number, and the best number is not known beforehand.
    """

    def __init__(self, workload: Workload) -> None:
        self._by_count = workload.topology.num_stages > 1
        self._starts: dict[int, Start] = {}

    @property
    def best(self) -> Start:
        """The cheapest of all."""
        return min(self._starts.values(), key=lambda start: start[0])

    def add(self, cost: float, layout: Layout) -> None:
        """Keeps the layout if it is the cheapest of its kind."""
        count = len(layout[0]) if self._by_count else 0
        if count not in self._starts or cost < self._starts[count][0]:
            self._starts[count] = (cost, layout)

    def base(self, number: int) -> Layout:
        """Returns one of those that are nearly as cheap as the best, in turn."""
        near = self.best[0] * (1.0 + _NEARLY)
        bases = sorted(
            (start for start in self._starts.values() if start[0] <= near),
            key=lambda start: start[0],
        )
        return bases[number % len(bases)][1]


def shaken(workload: Workload, layout: Layout, rng: np.random.Generator) -> Layout:
    """Returns the layout after a few random moves and swaps that keep the caps."""
    changed = [[list(pack) for pack in rank] for rank in layout]
    slots = [pack for rank in changed for pack in rank]
    for _ in range(_SHAKES):
        out, to = rng.choice(len(slots), 2, replace=len(slots) < 2)
        if slots[out]:
            _exchange(workload, slots[out], slots[to], rng)
    return changed


def _exchange(workload: Workload, out: list[int], to: list[int], rng: np.random.Generator) -> None:
    """Moves a sequence of `out` over, two times in three for one that comes back."""
    moved = out[rng.integers(len(out))]
    back = [to[rng.integers(len(to))]] if to and rng.random() < 2 / 3 else []
    left = [i for i in out if i != moved] + back
    right = [i for i in to if i not in back] + [moved]
    lengths, topology = workload.lengths, workload.topology
    if (
        out is not to
        and keeps_caps(left, lengths, topology)
        and keeps_caps(right, lengths, topology)
    ):
        out[:], to[:] = left, right
