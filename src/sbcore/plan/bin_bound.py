"""A load that R ranks cannot keep to, because heavy sequences leave gaps that nothing fills.

Ranks as bins of size T: sequences over T/2 are alone among their kind, so those that are too light
for the gaps beside them and too heavy to be many need bins of their own. The bound L2 on the number
of bins (Martello and Toth, "Knapsack Problems", 1990, chapter 8) says how many; a T at which it
exceeds R is out of reach. On real lengths with two sequences per rank it halves what the other
bounds leave open.
"""

import numpy as np

from sbcore.types import FloatArray

_BISECTIONS = 14
"""Halvings of the load; they end within 0.01 % of the greatest one found out of reach."""


def bin_bound(costs: FloatArray, num_ranks: int, *, least: float) -> float:
    """Returns a lower bound on the greatest load, at least `least`; costs fall.

    `least` is a bound already and holds max(mean load, heaviest), so the best plan is below twice
    of it (greedy plans are).
    """
    if num_bins(costs, least) <= num_ranks:
        return least
    low, high = least, 2.0 * least
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        if num_bins(costs, middle) > num_ranks:
            low = middle
        else:
            high = middle
    return low


def num_bins(costs: FloatArray, size: float) -> int:
    """Returns the bound L2 on the bins of this size that falling costs need.

    For each cost a up to half the size: those above size - a are alone, the others above half have
    gaps, and what is between a and half goes into the gaps first. A billionth more than the size
    counts as fitting, for the sake of rounding.
    """
    size *= 1.0 + 1e-9
    rising = costs[::-1]
    sums = np.concatenate([[0.0], np.cumsum(costs)])
    num = len(costs)
    num_large = num - int(np.searchsorted(rising, size / 2.0, side="right"))
    least = costs[num_large:]  # a: every cost up to half the size
    if len(least) == 0:
        return num_large
    alone = np.minimum(num - np.searchsorted(rising, size - least, side="right"), num_large)
    upto = num - np.searchsorted(rising, least, side="left")
    gaps = (num_large - alone) * size - (sums[num_large] - sums[alone])
    between = sums[upto] - sums[num_large]
    more = np.ceil((between - gaps) / size - 1e-9)
    return num_large + int(max(more.max(), 0.0))
