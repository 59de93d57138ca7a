"""What every latency model of ours shares: sequences add up, layer by layer.

N sequences, L layers. t(micro-batch) = max(floor, sum of sequences) + constant.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from sbcore.latency.packs import EVEN, Covered, WorkShares
from sbcore.types import FloatArray, IntArray


class AdditiveLatency(ABC):
    """A LatencyModel made of one layer's attention and a price per token for all the rest."""

    num_layers: int
    ms_per_token: float
    floor_ms: float
    constant_ms: float

    @abstractmethod
    def attention_ms(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        """Returns a sequence's share of one layer's attention, selection included; broadcasts."""

    @abstractmethod
    def extrapolates(self, lengths: IntArray, top_k: IntArray) -> NDArray[np.bool_]:
        """Returns where nothing was measured; broadcasts."""

    def linear_ms(self, lengths: IntArray) -> FloatArray:
        """Returns all the rest of the model for these tokens; adds up over packed sequences."""
        linear: FloatArray = lengths * np.float64(self.ms_per_token)
        return linear

    def predict(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        """Returns the whole model's time per sequence, [N]; top_k is [N] or [L, N]."""
        attention = self.attention_ms(lengths, top_k)
        layers = attention.sum(axis=0) if attention.ndim == 2 else attention * self.num_layers
        total: FloatArray = layers + self.linear_ms(lengths)
        return total

    @property
    def update_ms(self) -> float:
        """What the optimizer's update adds to a step; 0 where it was not measured."""
        return 0.0

    @property
    def shares(self) -> WorkShares:
        """Factors on a micro-batch's work, from its packed tokens: all alike."""
        return EVEN

    def covered(self, lengths: IntArray, top_k: IntArray) -> Covered | None:
        """Returns where dense attention runs; None: it was not measured apart. top_k as above."""
        return None
