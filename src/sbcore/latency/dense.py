"""What dense attention takes where the host knows that budgets cover a sequence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sbcore.latency.isotonic import isotonic
from sbcore.latency.table import MeasuredPoint
from sbcore.types import FloatArray, IntArray


@dataclass(frozen=True)
class DenseTimes:
    """One layer's time by length: power laws between the points, beyond them quadratic."""

    log_lengths: FloatArray  # [n], rising
    log_ms: FloatArray  # [n], rising

    def milliseconds(self, lengths: IntArray) -> FloatArray:
        """Returns the time of each sequence, [N]; shorter than measured: that of the shortest."""
        at = np.log(np.maximum(lengths, 1))
        beyond = 2.0 * np.maximum(at - self.log_lengths[-1], 0.0)
        ms: FloatArray = np.exp(np.interp(at, self.log_lengths, self.log_ms) + beyond)
        return ms


def fit_dense(points: Sequence[MeasuredPoint], *, call_ms: float) -> DenseTimes | None:
    """Returns the times through the points of part `dense`, a sequence's share without the call.

    None with fewer than two lengths.
    """
    shares = {
        p.length: max(p.median_ms - call_ms, 0.1 * p.median_ms) / p.num_sequences
        for p in points
        if p.part == "dense"
    }
    if len(shares) < 2:
        return None
    lengths = np.array(sorted(shares))
    logs = np.log([shares[length] for length in lengths.tolist()])
    return DenseTimes(np.log(lengths), isotonic(logs, np.ones(len(logs))))
