"""Least squares with coefficients that cannot be negative: time never falls with work."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from sbcore.types import FloatArray

_TIE = 1e-4
"""Weight of what is believed before measuring: it decides only what the points leave open."""


def fit_times(columns: FloatArray, times: FloatArray) -> FloatArray:
    """Returns the coefficients >= 0 of columns [n, m] nearest to times [n], relatively. [m].

    Few columns: every subset of them is tried. The last one should be positive everywhere, so that
    some subset always fits.
    """
    return _not_negative(columns / times[:, None], np.ones(len(times)))


def fit_line(x: FloatArray, times: FloatArray) -> tuple[float, float]:
    """Returns slope and intercept, both >= 0, of times by x, nearest in relative squares. [n]."""
    slope, intercept = fit_times(np.stack([x, np.ones(len(x))], axis=1), times).tolist()
    return slope, intercept


@dataclass(frozen=True)
class BentLine:
    """max(floor, columns @ slopes + constant), with 0 <= constant <= floor."""

    floor: float
    slopes: FloatArray  # [m]
    constant: float

    def at(self, columns: FloatArray) -> FloatArray:
        """Returns the line's times, [n, m] -> [n]."""
        times: FloatArray = np.maximum(self.floor, columns @ self.slopes + self.constant)
        return times


def fit_bent_line(columns: FloatArray, times: FloatArray, *, believed: FloatArray) -> BentLine:
    """Returns the bent line nearest to times [n], as ratios; columns are [n, m].

    The floor is that of the shortest times, how many of them is tried; the rest tells slopes and
    constant. ``believed`` [m] are slopes to choose where the points leave it open. Two points or
    more.
    """
    order = np.argsort(times, kind="stable")
    columns, times = columns[order], times[order]
    lines = [_bent_at(columns, times, number, believed=believed) for number in range(1, len(times))]
    return min(lines, key=lambda line: _log_error(line, columns, times))


def _bent_at(
    columns: FloatArray, times: FloatArray, number: int, *, believed: FloatArray
) -> BentLine:
    """Returns the line whose floor is the geometric mean of the first `number` times."""
    floor = float(np.exp(np.log(times[:number]).mean()))
    rest, left = times[number:, None], columns[number:]
    ties = _TIE * np.diag(1.0 / believed)
    design = np.hstack([left / rest, 1.0 / rest])
    open_constant = np.vstack([design, np.hstack([ties, np.zeros((len(ties), 1))])])
    wanted = np.append(np.ones(len(rest)), np.full(len(ties), _TIE))
    *slopes, constant = _not_negative(open_constant, wanted).tolist()
    if constant <= floor:
        return BentLine(floor, np.array(slopes), constant)
    beyond = np.append(1.0 - floor / rest[:, 0], np.full(len(ties), _TIE))
    fixed = _not_negative(np.vstack([left / rest, ties]), beyond)
    return BentLine(floor, fixed, floor)


def _log_error(line: BentLine, columns: FloatArray, times: FloatArray) -> float:
    return float((np.log(line.at(columns) / times) ** 2).sum())


def _not_negative(design: FloatArray, wanted: FloatArray) -> FloatArray:
    """Returns the x >= 0 with design @ x nearest to wanted, [n, m] and [n] -> [m]."""
    num = design.shape[1]
    best, best_error = np.zeros(num), np.inf
    for size in range(1, num + 1):
        for chosen in map(list, combinations(range(num), size)):
            found = np.linalg.lstsq(design[:, chosen], wanted, rcond=None)[0]
            error = float(((design[:, chosen] @ found - wanted) ** 2).sum())
            if (found >= 0).all() and error < best_error:
                best, best_error = np.zeros(num), error
                best[chosen] = found
    return best
