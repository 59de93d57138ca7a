"""What a micro-batch holds on the device beyond the model: a + b * tokens, measured.

Activations grow with tokens, whatever they are cut into; a is what every micro-batch needs
(gathered weights, gradients in flight).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sbcore.latency.table import MeasuredPoint


@dataclass(frozen=True, slots=True)
class MemoryLine:
    """Peak by tokens in one setting of recomputation, both coefficients >= 0."""

    gib: float
    gib_per_token: float

    def at(self, num_tokens: int) -> float:
        """Returns the peak above the model's own, GiB."""
        return self.gib + self.gib_per_token * num_tokens


@dataclass(frozen=True, slots=True)
class Memory:
    """Both settings, and from which micro-batch on layers are recomputed."""

    kept: MemoryLine
    recomputed: MemoryLine
    recompute_above: int | None
    """Tokens; None: nothing is recomputed."""

    def gib(self, num_tokens: int) -> float:
        """Returns the peak of a micro-batch of so many tokens, as the configuration runs it."""
        again = self.recompute_above is not None and num_tokens > self.recompute_above
        return (self.recomputed if again else self.kept).at(num_tokens)


def fit_memory(points: Sequence[MeasuredPoint], *, recompute_above: int | None) -> Memory | None:
    """Returns both lines; None where a setting has fewer than two sizes that were measured."""
    lines = [_line([p for p in points if p.recompute == recompute]) for recompute in (False, True)]
    if lines[0] is None or lines[1] is None:
        return None
    return Memory(lines[0], lines[1], recompute_above)


def _line(points: Sequence[MeasuredPoint]) -> MemoryLine | None:
    """Returns the line over the points, never below one: a planner must not overfill."""
    peaks = {sum(p.packed): p.peak_gib for p in points if p.peak_gib is not None}
    if len(peaks) < 2:
        return None
    tokens, gib = np.array(list(peaks), dtype=np.float64), np.array(list(peaks.values()))
    slope = max(float(np.polyfit(tokens, gib, 1)[0]), 0.0)
    return MemoryLine(max(float((gib - slope * tokens).max()), 0.0), slope)
