"""Which budgets are worth considering: the concave front of coverage against time.

P points, each a budget that one row (a layer of a sequence) may use; S segments, each a raise of
one row from a point to its next. A row's segments stand in the order in which they must be taken,
and along them coverage per millisecond never rises, so taking the best segments first takes each
row's own in order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbcore.types import FloatArray, IntArray

_SAME_TIME = 1e-9
"""Relative difference below which two times are one: steps of rounding would look like bargains."""


@dataclass(frozen=True, slots=True)
class Points:
    """Budgets by row and, within it, by rung; gain is coverage in the caller's weight."""

    row: IntArray  # [P]
    rung: IntArray  # [P]
    ms: FloatArray  # [P]
    gain: FloatArray  # [P]

    def at(self, chosen: NDArray[np.bool_] | IntArray) -> "Points":
        """Returns the chosen points."""
        return Points(self.row[chosen], self.rung[chosen], self.ms[chosen], self.gain[chosen])


@dataclass(frozen=True, slots=True)
class Segments:
    """Raises from one point to the next."""

    row: IntArray  # [S]
    ms: FloatArray  # [S], > 0
    gain: FloatArray  # [S], > 0


def concave_front(points: Points) -> Points:
    """Returns the points that no mixture of others in their row beats.

    Gains never fall along a row. Times need not rise nor be convex: a budget that takes as long as
    a larger one, or covers no more than a smaller one, is left out first. Every row keeps a point,
    and one of the best covering ones.
    """
    for worse in (_beaten, _below_chord):
        while (dropped := worse(points)).any():
            points = points.at(~dropped)
    return points


def segments_of(points: Points) -> Segments:
    """Returns the segments between neighbours of each row of a concave front."""
    inside = points.row[1:] == points.row[:-1]
    return Segments(
        points.row[1:][inside], np.diff(points.ms)[inside], np.diff(points.gain)[inside]
    )


def _beaten(points: Points) -> NDArray[np.bool_]:
    """Returns where a neighbour of the row covers as much in no more time, [P]."""
    inside = points.row[1:] == points.row[:-1]
    more, later = np.diff(points.gain), np.diff(points.ms) > _SAME_TIME * points.ms[:-1]
    lower = inside & ~later & (more >= 0)
    upper = inside & ~lower & (more <= 0)
    return np.append(lower, False) | np.append(False, upper)


def _below_chord(points: Points) -> NDArray[np.bool_]:
    """Returns where a point lies under the line between its neighbours of the row, [P].

    Those neighbours are budgets themselves, so any number of points may go at once.
    """
    inside = points.row[1:] == points.row[:-1]
    slope = np.divide(
        np.diff(points.gain), np.diff(points.ms), where=inside, out=np.zeros_like(points.ms[1:])
    )
    below = inside[:-1] & inside[1:] & (slope[:-1] < slope[1:])
    return np.concatenate([[False], below, [False]])
