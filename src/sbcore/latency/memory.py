"""What a micro-batch holds on the device beyond the model, by its tokens, measured.

Activations grow with tokens, whatever they are cut into. Of few tokens the peak comes late, beside
gradients in flight, when part of the activations is gone; of many early, when all are kept. So a
peak is the greatest of several sums, and grows ever faster: between measured sizes it is at most
what a straight line says.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sbcore.latency.table import MeasuredPoint

_APART = 1.02
"""Sizes nearer to each other than this count as one: their difference tells nothing of growth."""


@dataclass(frozen=True, slots=True)
class MemoryCurve:
    """Peaks by tokens in one setting of recomputation; two sizes or more, both rising."""

    tokens: tuple[int, ...]
    gib: tuple[float, ...]

    @property
    def gib_per_token(self) -> float:
        """What a token costs between the two largest sizes, and beyond."""
        return (self.gib[-1] - self.gib[-2]) / (self.tokens[-1] - self.tokens[-2])

    def at(self, num_tokens: int) -> float:
        """Returns the peak above the model's own, GiB; below the smallest size, that size's."""
        beyond = max(num_tokens - self.tokens[-1], 0)
        return float(np.interp(num_tokens, self.tokens, self.gib)) + self.gib_per_token * beyond


@dataclass(frozen=True, slots=True)
class Memory:
    """Both settings, and from which micro-batch on layers are recomputed."""

    kept: MemoryCurve
    recomputed: MemoryCurve
    recompute_above: int | None
    """Tokens; None: nothing is recomputed."""

    def gib(self, num_tokens: int) -> float:
        """Returns the peak of a micro-batch of so many tokens, as the configuration runs it."""
        again = self.recompute_above is not None and num_tokens > self.recompute_above
        return (self.recomputed if again else self.kept).at(num_tokens)


def fit_memory(points: Sequence[MeasuredPoint], *, recompute_above: int | None) -> Memory | None:
    """Returns both curves; None where a setting has fewer than two sizes that were measured.

    The floor's peak is another one: it is the first to run after an update, so it gathers weights
    and makes gradients, which all others find on the device.
    """
    later = [p for p in points if p.part != "floor"]
    curves = [_curve([p for p in later if p.recompute == again]) for again in (False, True)]
    if curves[0] is None or curves[1] is None:
        return None
    return Memory(curves[0], curves[1], recompute_above)


def _curve(points: Sequence[MeasuredPoint]) -> MemoryCurve | None:
    """Returns the curve over the points, never below one: a planner must not overfill."""
    weighed = sorted((sum(p.packed), p.peak_gib) for p in points if p.peak_gib is not None)
    peaks: dict[int, float] = {}
    for tokens, gib in weighed:
        size = next((size for size in peaks if tokens < _APART * size), tokens)
        peaks[size] = max(gib, *peaks.values()) if peaks else gib
    return MemoryCurve(tuple(peaks), tuple(peaks.values())) if len(peaks) > 1 else None
