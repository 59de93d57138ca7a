"""A latency model whose answers at the ladder's rungs are asked once and looked up from then on.

A third of a decision is asking, most of it at rungs: 0.1 ms each time, against 40 ms for all
lengths up to 4,096 tokens once.

N sequences, L layers, K rungs of the ladder.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sbcore.latency.additive import AdditiveLatency
from sbcore.latency.packs import Covered, WorkShares
from sbcore.types import FloatArray, IntArray

MOST_LENGTHS = 65_536
"""Lengths that the tables hold: 38 MB and 1.2 s at 36 rungs."""


class RungLatency(AdditiveLatency):
    """Answers as the model that it is made of, which it asks about other budgets and lengths."""

    def __init__(self, model: AdditiveLatency, ladder: IntArray, *, longest: int) -> None:
        self.model, self._ladder = model, ladder
        self.num_layers, self.ms_per_token = model.num_layers, model.ms_per_token
        self.floor_ms, self.constant_ms = model.floor_ms, model.constant_ms
        self._lengths = np.arange(1, min(longest, MOST_LENGTHS) + 1)
        self._rung = np.full(int(ladder[-1]) + 1, -1)
        self._rung[ladder] = np.arange(len(ladder))

    @property
    def shares(self) -> WorkShares:
        """Factors on the work of micro-batches, as the model has them."""
        return self.model.shares

    @property
    def update_ms(self) -> float:
        """What the optimizer's update adds to a step."""
        return self.model.update_ms

    def attention_ms(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        """Returns a sequence's share of one layer's attention; broadcasts."""
        rung = self._rung_of(lengths, top_k)
        if rung is None:
            return self.model.attention_ms(lengths, top_k)
        times: FloatArray = self._attention_ms.ravel()[(lengths - 1) * len(self._ladder) + rung]
        return times

    def covered(self, lengths: IntArray, top_k: IntArray) -> Covered | None:
        """Returns where dense attention runs and what it saves; top_k is [N] or [L, N]."""
        least = top_k.min(axis=0) if top_k.ndim == 2 else top_k
        rung = self._rung_of(lengths, least)
        if rung is None or self._covered is None:
            return self.model.covered(lengths, least)
        at = lengths - 1, rung
        return Covered(self._covered.reach[at], self._covered.saving_ms[at])

    def extrapolates(self, lengths: IntArray, top_k: IntArray) -> NDArray[np.bool_]:
        """Returns where nothing was measured; broadcasts."""
        return self.model.extrapolates(lengths, top_k)

    def _rung_of(self, lengths: IntArray, top_k: IntArray) -> IntArray | None:
        """Returns the rung of each budget, None where the tables do not have them all."""
        if lengths.max() > len(self._lengths) or top_k.max() >= len(self._rung):
            return None
        rung: IntArray = self._rung[top_k]
        return None if rung.min() < 0 else rung

    @cached_property
    def _attention_ms(self) -> FloatArray:
        return self.model.attention_ms(self._lengths[:, None], self._ladder[None])

    @cached_property
    def _covered(self) -> Covered | None:
        """The answers for all lengths and rungs, [lengths, K]."""
        shape = len(self._lengths), len(self._ladder)
        lengths, rungs = np.repeat(self._lengths, shape[1]), np.tile(self._ladder, shape[0])
        known = self.model.covered(lengths, rungs)
        if known is None:
            return None
        return Covered(known.reach.reshape(shape), known.saving_ms.reshape(shape))
