"""What a sequence costs, as balancers see it. N sequences."""

from dataclasses import dataclass

import numpy as np

from sbcore.types import FloatArray, IntArray, LatencyModel


@dataclass(frozen=True, slots=True)
class TokenCost:
    """One unit per token, nothing for a micro-batch: no measurement needed."""

    floor_ms: float = 0.0
    constant_ms: float = 0.0

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        """Returns the tokens. [N] -> [N]."""
        return lengths.astype(np.float64)


@dataclass(frozen=True, slots=True)
class BudgetCost:
    """Predicted milliseconds when every layer uses the budget top_k."""

    latency: LatencyModel
    top_k: int

    @property
    def floor_ms(self) -> float:
        """Host floor of a micro-batch."""
        return self.latency.floor_ms

    @property
    def constant_ms(self) -> float:
        """Constant of a micro-batch."""
        return self.latency.constant_ms

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        """Returns the whole model's time per sequence. [N] -> [N]."""
        return self.latency.predict(lengths, np.full(len(lengths), self.top_k, dtype=np.int64))
