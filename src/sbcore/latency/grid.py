"""The points that one process measures: the grid, and between its lines the points held out."""

from collections.abc import Iterator, Sequence

import numpy as np

from sbcore.config.latency_points import between, budgets_of, checked_budgets
from sbcore.config.stages import ProfileLatencyStage
from sbcore.latency.table import GridPoint

MAX_PACKED = 64
"""Most sequences packed together."""

_FEW = 16
"""Sequences of the pack that tells a call's own cost from theirs, where nothing else is packed."""


def grid_points(config: ProfileLatencyStage, *, pack_tokens: int, seed: int) -> list[GridPoint]:
    """Returns all points in the seed's order, so that a drift does not look like a trend.

    Sequences are measured in packs of up to `pack_tokens`: alone, a short one leaves most of a GPU
    idle, and in training it is packed. The shortest one is measured alone as well.
    """
    grid = config.latency
    lengths, budgets = sorted(set(grid.lengths)), sorted(set(grid.top_k))
    checked = checked_budgets(grid, config.attention)
    points = [
        *_attention(lengths, budgets, config, pack_tokens=pack_tokens, held_out=False),
        *_attention(between(lengths), checked, config, pack_tokens=pack_tokens, held_out=True),
        *_shortest(lengths[0], config, pack_tokens=pack_tokens),
        *_dense(lengths, config, pack_tokens=pack_tokens),
        *_rest(lengths, config),
    ]
    order = np.random.default_rng(seed).permutation(len(points))
    return [points[i] for i in order]


def reference_point(config: ProfileLatencyStage) -> GridPoint:
    """Returns the point that is measured again and again, to see how much the clock drifts."""
    lengths = sorted(set(config.latency.lengths))
    middle = lengths[len(lengths) // 2]
    covered = min(config.attention.top_k, -(-middle // config.attention.block_size))
    return _point("reference", middle, covered, 1, config, held_out=True)


def _attention(
    lengths: Sequence[int],
    budgets: Sequence[int],
    config: ProfileLatencyStage,
    *,
    pack_tokens: int,
    held_out: bool,
) -> Iterator[GridPoint]:
    """Yields each length with every budget that is sparse for it, and with all its blocks."""
    for length in lengths:
        packed = _packed(length, pack_tokens)
        for top_k in budgets_of(length, budgets, block_size=config.attention.block_size):
            yield _point("attention", length, top_k, packed, config, held_out=held_out)


def _dense(
    lengths: Sequence[int], config: ProfileLatencyStage, *, pack_tokens: int
) -> Iterator[GridPoint]:
    """Yields each length with a budget that the host knows to cover it."""
    for length in lengths:
        num_blocks, packed = -(-length // config.attention.block_size), _packed(length, pack_tokens)
        yield _point("dense", length, num_blocks, packed, config, held_out=False)


def _rest(lengths: Sequence[int], config: ProfileLatencyStage) -> Iterator[GridPoint]:
    """Yields what tells a layer's rest: the ends with a layer, without, and its own attention."""
    for length in lengths:
        for part, top_k in (("layer", 1), ("ends", 0), ("own_block", 1)):
            yield _point(part, length, top_k, 1, config, held_out=False)


def _shortest(length: int, config: ProfileLatencyStage, *, pack_tokens: int) -> Iterator[GridPoint]:
    """Yields what tells a call's own cost: the shortest length alone, and packed."""
    num_blocks = -(-length // config.attention.block_size)
    other = 1 if _packed(length, pack_tokens) > 1 else _FEW
    yield _point("attention", length, num_blocks, other, config, held_out=False)


def _packed(length: int, pack_tokens: int) -> int:
    return int(np.clip(pack_tokens // length, 1, MAX_PACKED))


def _point(
    part: str,
    length: int,
    top_k: int,
    num_sequences: int,
    config: ProfileLatencyStage,
    *,
    held_out: bool,
) -> GridPoint:
    """Returns a point, recomputed if full micro-batches are: plans fill them."""
    recompute = config.recomputes(max(config.max_tokens, length))
    return GridPoint(part, length, top_k, num_sequences, held_out, recompute)
