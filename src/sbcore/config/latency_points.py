"""Which budgets and lengths the latency grid leads to.

The profile measures them; the check of a configuration counts them before anything is measured.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import isqrt

from sbcore.config.compute import AttentionConfig, LatencyGridConfig

LEAST_LENGTHS = LEAST_BUDGETS = 2
"""Of the points to interpolate between."""
LEAST_CHECKED = 3
"""Points left out of the fit, below which an error or a rank correlation says nothing."""


def num_budgets(grid: LatencyGridConfig, attention: AttentionConfig) -> int:
    """Returns the different budgets that attention is measured at to be interpolated between."""
    block_size = attention.block_size
    return len({k for n in grid.lengths for k in budgets_of(n, grid.top_k, block_size=block_size)})


def num_checked(grid: LatencyGridConfig, attention: AttentionConfig) -> int:
    """Returns the points between the grid's lines, which predictions are checked on."""
    budgets, block_size = checked_budgets(grid, attention), attention.block_size
    return sum(len(budgets_of(n, budgets, block_size=block_size)) for n in between(grid.lengths))


def checked_budgets(grid: LatencyGridConfig, attention: AttentionConfig) -> list[int]:
    """Returns the budgets that predictions are checked on, ascending."""
    return sorted({*between(grid.top_k), attention.top_k})


def budgets_of(length: int, budgets: Iterable[int], *, block_size: int) -> list[int]:
    """Returns the budgets that are sparse for a length, and all its blocks."""
    num_blocks = -(-length // block_size)
    return [*(k for k in budgets if k < num_blocks), num_blocks]


def between(values: Sequence[int]) -> list[int]:
    """Returns the geometric middle of each pair of neighbours, where there is one; ascending."""
    middles = {isqrt(low * high) for low, high in pairwise(values)}
    return sorted(middles - set(values))
