"""How fast each rank really is, from the micro-batches that it ran. R ranks."""

from typing import Any

import numpy as np

from sbcore.types import FloatArray

QUANTUM = 1.0 / 32.0
"""Factors are multiples of this: noise below 3 % changes no plan."""

_LEAST, _MOST = 0.25, 8.0
"""Factors are kept within; a rank beyond is broken, not slow."""


class SpeedFactors:
    """Moving averages of measured over predicted time, by rank; 1 is nominal, 2 twice as slow.

    Every rank that is fed the same times comes to the same factors: float64, fixed order, and
    quantised, so that a plan made with them can be made again from the log.
    """

    def __init__(self, num_ranks: int, *, ema_decay: float) -> None:
        self.ema_decay = ema_decay
        self._averages = np.ones(num_ranks)
        self._seen = np.zeros(num_ranks, dtype=np.bool_)

    @property
    def factors(self) -> FloatArray:
        """The factors to plan with, multiples of 1/32. [R]."""
        quantised: FloatArray = np.round(self._averages / QUANTUM) * QUANTUM
        return np.clip(quantised, _LEAST, _MOST)

    def update(self, measured_ms: FloatArray, predicted_ms: FloatArray) -> None:
        """Takes in a step: each rank's time in micro-batches and what was predicted for it. [R].

        A rank without a finite, positive pair (it ran dummies only) keeps its factor; the first
        pair of a rank counts wholly.

        Raises ValueError when there is not one time per rank.
        """
        for name, times in (("measured_ms", measured_ms), ("predicted_ms", predicted_ms)):
            if times.shape != self._averages.shape:
                raise ValueError(f"{name}: shape {times.shape} for {len(self._averages)} ranks")
        valid = np.isfinite(measured_ms) & np.isfinite(predicted_ms)
        valid &= (measured_ms > 0) & (predicted_ms > 0)
        ratio = np.divide(measured_ms, predicted_ms, out=np.ones_like(self._averages), where=valid)
        mixed = self.ema_decay * self._averages + (1.0 - self.ema_decay) * ratio
        new = np.where(self._seen, mixed, ratio)
        self._averages = np.where(valid, new, self._averages)
        self._seen |= valid

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages, for a checkpoint."""
        return {"averages": self._averages.copy(), "seen": self._seen.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over the averages; those of another number of ranks are dropped: factors are 1."""
        averages = np.asarray(state["averages"], dtype=np.float64)
        if averages.shape == self._averages.shape:
            self._averages = averages.copy()
            self._seen = np.asarray(state["seen"], dtype=np.bool_).copy()
