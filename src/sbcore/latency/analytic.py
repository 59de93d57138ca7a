"""The analytic latency model: a + b * tokens + c * pairs + d * scores, for one layer's attention.

Few numbers and smooth everywhere, so it reaches beyond the grid and shows what a table's points
are worth; a table is nearer where kernels have steps. `scores` are the (query, block) products of
the selection.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbcore.latency.additive import AdditiveLatency
from sbcore.latency.line import fit_times
from sbcore.latency.pairs import attention_pairs
from sbcore.latency.table import MeasuredPoint
from sbcore.types import FloatArray, IntArray


@dataclass(frozen=True)
class AnalyticLatencyModel(AdditiveLatency):
    """Milliseconds by formula; a LatencyModel.

    All coefficients are >= 0, so it rises with tokens and with top_k, but for the last step: a
    budget of all blocks has none to score, and may take less than one block fewer.
    """

    block_size: int
    num_layers: int
    floor_ms: float
    constant_ms: float
    ms_per_token: float
    coefficients: FloatArray  # [4] per call, token, pair, score

    def attention_ms(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        """Returns one layer's attention, selection included; the arguments broadcast."""
        features = _features(lengths, top_k, block_size=self.block_size)
        ms: FloatArray = features @ self.coefficients
        return ms

    def extrapolates(self, lengths: IntArray, top_k: IntArray) -> NDArray[np.bool_]:
        """Returns False everywhere: a formula has no edge."""
        return np.zeros(np.broadcast_shapes(lengths.shape, top_k.shape), dtype=np.bool_)


def fit_coefficients(points: Sequence[MeasuredPoint], *, block_size: int) -> FloatArray:
    """Returns the coefficients >= 0 nearest to the points of part `attention`, relatively. [4]."""
    lengths = np.array([point.length for point in points], dtype=np.int64)
    top_k = np.array([point.top_k for point in points], dtype=np.int64)
    times = np.array([point.median_ms for point in points])
    return fit_times(_features(lengths, top_k, block_size=block_size), times)


def _features(lengths: IntArray, top_k: IntArray, *, block_size: int) -> FloatArray:
    """Returns [..., 4]: 1, tokens, pairs, scores; nothing is scored when all blocks fit."""
    lengths, top_k = np.broadcast_arrays(lengths, top_k)
    num_blocks = -(-lengths // block_size)
    scores = np.where(top_k < num_blocks, lengths * num_blocks / 2.0, 0.0)
    pairs = attention_pairs(lengths, top_k, block_size=block_size)
    return np.stack([np.ones(lengths.shape), lengths.astype(np.float64), pairs, scores], axis=-1)
