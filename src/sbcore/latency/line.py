"""Least squares with coefficients that cannot be negative: time never falls with work."""

from itertools import combinations

import numpy as np

from sbcore.types import FloatArray


def fit_times(columns: FloatArray, times: FloatArray) -> FloatArray:
    """Returns the coefficients >= 0 of columns [n, m] nearest to times [n], relatively. [m].

    Few columns: every subset of them is tried. The last one should be positive everywhere, so that
    some subset always fits.
    """
    design = columns / times[:, None]
    best, best_error = np.zeros(columns.shape[1]), np.inf
    for size in range(1, columns.shape[1] + 1):
        for chosen in map(list, combinations(range(columns.shape[1]), size)):
            found = np.linalg.lstsq(design[:, chosen], np.ones(len(times)), rcond=None)[0]
            error = float(((design[:, chosen] @ found - 1.0) ** 2).sum())
            if (found >= 0).all() and error < best_error:
                best, best_error = np.zeros(columns.shape[1]), error
                best[chosen] = found
    return best


def fit_line(x: FloatArray, times: FloatArray) -> tuple[float, float]:
    """Returns slope and intercept, both >= 0, of times by x, nearest in relative squares. [n]."""
    slope, intercept = fit_times(np.stack([x, np.ones(len(x))], axis=1), times).tolist()
    return slope, intercept
