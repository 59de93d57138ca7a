"""A latency model whose answers at the ladder's rungs are asked once and looked up from then on.

A third of a decision is asking, most of it at rungs: 0.1 ms each time, against 60 ms for the 8,647
lengths of a training once. It is made before the first step, or the GPU would wait for it there.

N sequences, L layers, K rungs of the ladder.
"""

import numpy as np
from numpy.typing import NDArray

from sbcore.latency.additive import AdditiveLatency
from sbcore.latency.packs import Covered, WorkShares
from sbcore.types import FloatArray, IntArray

MOST_LENGTHS = 65_536
"""Lengths that the tables hold: 38 MB and 1.2 s at 36 rungs."""


class RungLatency(AdditiveLatency):
    """Answers as the model that it is made of, which it asks about other budgets and lengths."""

    def __init__(self, model: AdditiveLatency, ladder: IntArray, *, lengths: IntArray) -> None:
        self.model = model
        self.num_layers, self.ms_per_token = model.num_layers, model.ms_per_token
        self.floor_ms, self.constant_ms = model.floor_ms, model.constant_ms
        known = np.unique(lengths)[:MOST_LENGTHS]
        self._row, self._rung, self._num_rungs = _places(known), _places(ladder), len(ladder)
        self._attention_ms = model.attention_ms(known[:, None], ladder[None]).ravel()
        self._covered = model.covered(np.repeat(known, len(ladder)), np.tile(ladder, len(known)))

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
        cell = self._cell_of(lengths, top_k)
        if cell is None:
            return self.model.attention_ms(lengths, top_k)
        times: FloatArray = self._attention_ms[cell]
        return times

    def covered(self, lengths: IntArray, top_k: IntArray) -> Covered | None:
        """Returns where dense attention runs and what it saves; top_k is [N] or [L, N]."""
        least = top_k.min(axis=0) if top_k.ndim == 2 else top_k
        cell = self._cell_of(lengths, least)
        if cell is None or self._covered is None:
            return self.model.covered(lengths, least)
        return Covered(self._covered.reach[cell], self._covered.saving_ms[cell])

    def extrapolates(self, lengths: IntArray, top_k: IntArray) -> NDArray[np.bool_]:
        """Returns where nothing was measured; broadcasts."""
        return self.model.extrapolates(lengths, top_k)

    def _cell_of(self, lengths: IntArray, top_k: IntArray) -> IntArray | None:
        """Returns the cells of the tables that answer, None where they do not have them all."""
        if lengths.max() >= len(self._row) or top_k.max() >= len(self._rung):
            return None
        row, rung = self._row[lengths], self._rung[top_k]
        if min(row.min(), rung.min()) < 0:
            return None
        cell: IntArray = row * self._num_rungs + rung
        return cell


def _places(values: IntArray) -> IntArray:
    """Returns the place of each value among ascending ones, -1 for what is none of them."""
    places = np.full(int(values[-1]) + 1, -1)
    places[values] = np.arange(len(values))
    return places
