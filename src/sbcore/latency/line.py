"""The straight line through measured times."""

import numpy as np

from sbcore.types import FloatArray


def fit_line(x: FloatArray, times: FloatArray) -> tuple[float, float]:
    """Returns slope and intercept, both >= 0, of times by x, nearest in relative squares. [n]."""
    design = np.stack([x / times, 1.0 / times], axis=1)
    slope, intercept = np.linalg.lstsq(design, np.ones(len(x)), rcond=None)[0]
    if intercept < 0:
        share = x / times
        slope, intercept = share.sum() / (share**2).sum(), 0.0
    if slope < 0:
        slope, intercept = 0.0, float(np.median(times))
    return float(slope), float(intercept)
