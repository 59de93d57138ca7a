"""Attention time over (length, top_k): monotone, and exact where it was measured.

Power laws between the points (straight lines in logarithms). Sequences that the budget covers
follow the dense column, top_k = num_blocks, whatever top_k is. Q queries of the surface, n
measured lengths, m budgets (knots).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbcore.latency.isotonic import monotone
from sbcore.latency.table import MeasuredPoint
from sbcore.types import FloatArray, IntArray

_BEYOND = 1024.0
"""The table is extended to this multiple of its longest length by its last slopes."""


@dataclass(frozen=True, slots=True)
class Adjustments:
    """What making the table monotone changed: points, and the largest and mean relative change."""

    count: int
    largest: float
    mean: float


@dataclass(frozen=True)
class Surface:
    """Interpolated attention time of one layer."""

    log_lengths: FloatArray  # [n + 1], the last one is the extension
    log_top_k: FloatArray  # [m]
    log_ms: FloatArray  # [n + 1, m]
    block_size: int
    longest: int
    smallest_top_k: int
    adjustments: Adjustments

    def milliseconds(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        """Returns the time of each (length, top_k), [Q]; rises in both.

        Beyond its budget a sequence is never faster than the dense one that the budget covers.
        One shorter than the shortest measured costs what that does at its number of blocks.
        """
        covered = np.minimum(lengths, top_k * self.block_size)
        in_reach = np.log(covered) >= self.log_lengths[0]
        everything = np.where(
            in_reach, np.iinfo(np.int64).max, num_blocks(covered, self.block_size)
        )
        sparse = self._interpolate(lengths, np.minimum(top_k, num_blocks(lengths, self.block_size)))
        dense = self._interpolate(covered, everything)
        ms: FloatArray = np.exp(np.maximum(sparse, dense))
        return ms

    def extrapolates(self, lengths: IntArray, top_k: IntArray) -> NDArray[np.bool_]:
        """Returns where the grid does not reach: longer, or a smaller budget, than measured."""
        outside: NDArray[np.bool_] = (lengths > self.longest) | (top_k < self.smallest_top_k)
        return outside

    def _interpolate(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        row, along = _locate(self.log_lengths, np.log(np.maximum(lengths, 1)))
        column, across = _locate(self.log_top_k, np.log(np.maximum(top_k, 1).astype(np.float64)))
        low = _between(self.log_ms[row, column], self.log_ms[row, column + 1], across)
        high = _between(self.log_ms[row + 1, column], self.log_ms[row + 1, column + 1], across)
        return _between(low, high, along)


def num_blocks(lengths: IntArray, block_size: int) -> IntArray:
    """Returns the key blocks of each sequence."""
    return -(-lengths // block_size)


def fit_surface(points: list[MeasuredPoint], *, block_size: int) -> Surface:
    """Returns the surface through the points of part `attention` that are not held out.

    Each length needs its dense point (top_k = num_blocks) and at least two lengths are needed.
    """
    table = {(p.length, p.top_k): p.median_ms for p in points}
    lengths = np.array(sorted({length for length, _ in table}), dtype=np.int64)
    knots = np.array(sorted({top_k for _, top_k in table}), dtype=np.int64)
    measured = np.stack([_row(table, int(length), knots) for length in lengths])
    weights = np.stack([_weights(table, int(length), knots) for length in lengths])
    fitted = monotone(measured, weights)
    slopes = np.diff(fitted[-2:], axis=0)[0] / np.log(lengths[-1] / lengths[-2])
    last = fitted[-1] + np.maximum.accumulate(slopes) * np.log(_BEYOND)
    return Surface(
        log_lengths=np.log(np.append(lengths, lengths[-1] * _BEYOND)),
        log_top_k=np.log(knots),
        log_ms=np.vstack([fitted, last]),
        block_size=block_size,
        longest=int(lengths[-1]),
        smallest_top_k=int(knots[0]),
        adjustments=_adjustments(table, lengths, knots, fitted - measured),
    )


def _row(table: dict[tuple[int, int], float], length: int, knots: IntArray) -> FloatArray:
    """Returns log time at every knot; beyond the length's last one, its dense time."""
    own = sorted(top_k for at, top_k in table if at == length)
    return np.interp(np.log(knots), np.log(own), np.log([table[length, k] for k in own]))


def _weights(table: dict[tuple[int, int], float], length: int, knots: IntArray) -> FloatArray:
    """Returns 1 at measured knots and beyond, and next to nothing at interpolated ones."""
    own = {top_k for at, top_k in table if at == length}
    dense = max(own)
    return np.array([1.0 if k in own or k >= dense else 1e-6 for k in knots.tolist()])


def _adjustments(
    table: dict[tuple[int, int], float], lengths: IntArray, knots: IntArray, change: FloatArray
) -> Adjustments:
    rows = {length: i for i, length in enumerate(lengths.tolist())}
    columns = {top_k: j for j, top_k in enumerate(knots.tolist())}
    changes = [abs(np.expm1(change[rows[at], columns[k]])) for at, k in table]
    moved = [c for c in changes if c > 1e-9]
    return Adjustments(len(moved), float(max(changes)), float(np.mean(changes)))


def _locate(grid: FloatArray, at: FloatArray) -> tuple[IntArray, FloatArray]:
    """Returns the cell of each point and the share of the way through it, clipped to the grid."""
    cell = np.clip(np.searchsorted(grid, at, side="right") - 1, 0, len(grid) - 2)
    share: FloatArray = np.clip((at - grid[cell]) / (grid[cell + 1] - grid[cell]), 0.0, 1.0)
    return cell.astype(np.int64), share


def _between(low: FloatArray, high: FloatArray, share: FloatArray) -> FloatArray:
    mixed: FloatArray = low + (high - low) * share
    return mixed
