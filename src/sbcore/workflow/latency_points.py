"""How many points of the latency grid the fit and its check get, before anything is measured.

The rules are those of `sbcore.latency`, which this package is below; a test compares the two.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import isqrt

from sbcore.config.compute import AttentionConfig, LatencyGridConfig

LEAST_LENGTHS = LEAST_BUDGETS = 2
"""Of the points to interpolate between."""
LEAST_CHECKED = 3
"""Of the points left out of the fit."""


def num_budgets(grid: LatencyGridConfig, attention: AttentionConfig) -> int:
    """Returns the different budgets that attention is measured at to be interpolated between."""
    block_size = attention.block_size
    return len({k for length in grid.lengths for k in _budgets(length, grid.top_k, block_size)})


def num_checked(grid: LatencyGridConfig, attention: AttentionConfig) -> int:
    """Returns the points between the grid's lines, which predictions are checked on."""
    budgets = {*_between(grid.top_k), attention.top_k}
    lengths = _between(grid.lengths)
    return sum(len(_budgets(length, budgets, attention.block_size)) for length in lengths)


def _budgets(length: int, budgets: Iterable[int], block_size: int) -> set[int]:
    """Returns the budgets that are sparse for a length, and all its blocks."""
    num_blocks = -(-length // block_size)
    return {*(k for k in budgets if k < num_blocks), num_blocks}


def _between(values: Sequence[int]) -> set[int]:
    """Returns the geometric middle of each pair of neighbours, where there is one."""
    return {isqrt(low * high) for low, high in pairwise(values)} - set(values)
