"""The points to measure: the grid itself, and between its lines the points held out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt

import numpy as np

from sbcore.config.compute import LatencyGridConfig

MAX_PACKED = 16
"""Most sequences packed together: enough to tell their own cost from that of the call."""


@dataclass(frozen=True, slots=True)
class GridPoint:
    """A point as in `MeasuredPoint`, not measured yet."""

    part: str
    length: int
    top_k: int
    num_sequences: int
    held_out: bool


def grid_points(
    grid: LatencyGridConfig, *, block_size: int, top_k: int, seed: int
) -> list[GridPoint]:
    """Returns all points in the seed's order, so that a drift does not look like a trend.

    `top_k` is the configured budget, that of points which measure the whole model.
    """
    lengths, budgets = sorted(set(grid.lengths)), sorted(set(grid.top_k))
    checked = sorted({*_between(budgets), top_k})
    shortest = lengths[0]
    points = [
        *_attention(lengths, budgets, block_size=block_size, held_out=False),
        *_attention(_between(lengths), checked, block_size=block_size, held_out=True),
        GridPoint("attention", shortest, -(-shortest // block_size), MAX_PACKED, held_out=False),
        *(GridPoint("linear", length, 0, 1, held_out=False) for length in lengths),
        *_micro_batches(lengths, top_k),
        GridPoint("floor", block_size, top_k, 1, held_out=False),
        GridPoint("optimizer", 0, 0, 1, held_out=False),
    ]
    order = np.random.default_rng(seed).permutation(len(points))
    return [points[i] for i in order]


def _attention(
    lengths: Sequence[int], budgets: Sequence[int], *, block_size: int, held_out: bool
) -> Iterator[GridPoint]:
    """Yields each length with every budget that is sparse for it, and with all its blocks."""
    for length in lengths:
        num_blocks = -(-length // block_size)
        for top_k in [k for k in budgets if k < num_blocks] + [num_blocks]:
            yield GridPoint("attention", length, top_k, 1, held_out)


def _between(values: Sequence[int]) -> list[int]:
    """Returns the geometric middle of each pair of neighbours, where there is one."""
    middles = {isqrt(low * high) for low, high in pairwise(values)}
    return sorted(middles - set(values))


def _micro_batches(lengths: Sequence[int], top_k: int) -> Iterator[GridPoint]:
    """Yields every second length alone and packed up to the longest."""
    for length in lengths[::-2]:
        yield GridPoint("micro_batch", length, top_k, 1, held_out=True)
        packed = min(lengths[-1] // length, MAX_PACKED)
        if packed > 1:
            yield GridPoint("micro_batch", length, top_k, packed, held_out=True)
