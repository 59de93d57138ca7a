"""Coverage curves by law: what tuners learn from and are judged by where nothing was measured.

L layers, N sequences, B blocks of the longest, K rungs of the ladder.
"""

import numpy as np

from sbcore.config.simulation import CoverageLaw
from sbcore.types import FloatArray, IntArray


class LawfulCoverage:
    """Curves of sequences whose alpha is drawn from the law; alphas of layers stay the same."""

    def __init__(
        self, law: CoverageLaw, ladder: IntArray, *, num_layers: int, block_size: int, seed: int
    ) -> None:
        self.ladder = ladder
        self._law, self._block_size, self._seed = law, block_size, seed
        alpha = np.random.default_rng([seed, 0]).normal(law.alpha, law.alpha_layer_std, num_layers)
        self._blocks = np.arange(1, ladder[-1] + 1, dtype=np.float64)
        self._by_layer = self._blocks ** -alpha[:, None]  # [L, B]

    def curves(self, lengths: IntArray, *, draw: int) -> FloatArray:
        """Returns C(k) at every rung, [L, N, K]; equal draws give equal curves.

        j^-(a + b) = j^-a * j^-b, so the mass between two rungs is a product of matrices.
        """
        rng = np.random.default_rng([self._seed, 1, draw])
        alpha = rng.normal(0.0, self._law.alpha_sequence_std, len(lengths))
        num_blocks = -(-lengths // self._block_size)
        by_sequence = self._blocks ** -alpha[:, None]  # [N, B]
        by_sequence[self._blocks > num_blocks[:, None]] = 0.0
        mass = np.empty((len(self._by_layer), len(lengths), len(self.ladder)))
        start = 0
        for rung, end in enumerate(self.ladder.tolist()):
            mass[..., rung] = self._by_layer[:, start:end] @ by_sequence[:, start:end].T
            start = end
        covered = np.cumsum(mass, axis=-1, out=mass)
        covered /= covered[..., -1:].copy()
        return covered


def coverage_at(curves: FloatArray, ladder: IntArray, top_k: IntArray) -> FloatArray:
    """Returns C(top_k), [L, N], of curves [L, N, K]; linear between rungs."""
    inside = np.clip(top_k, ladder[0], ladder[-1])
    upper = np.searchsorted(ladder, inside)
    lower = np.maximum(upper - 1, 0)
    span = np.maximum(ladder[upper] - ladder[lower], 1)
    share = (inside - ladder[lower]) / span
    low, high = (
        np.take_along_axis(curves, at[..., None], axis=-1)[..., 0] for at in (lower, upper)
    )
    at_budget: FloatArray = low + share * (high - low)
    return at_budget
