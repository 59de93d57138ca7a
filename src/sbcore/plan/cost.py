"""What a sequence costs, as balancers see it. N sequences."""

from dataclasses import dataclass

import numpy as np

from sbcore.types import CostModel, FloatArray, IntArray, LatencyModel


@dataclass(frozen=True, slots=True)
class TokenCost:
    """One unit per token, nothing for a micro-batch: no measurement needed."""

    floor_ms: float = 0.0
    constant_ms: float = 0.0

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        """Returns the tokens. [N] -> [N]."""
        return lengths.astype(np.float64)


@dataclass(frozen=True, slots=True)
class SquaredCost:
    """The square of the tokens: dense attention alone, as several trainers weigh sequences."""

    floor_ms: float = 0.0
    constant_ms: float = 0.0

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        """Returns the squared tokens. [N] -> [N]."""
        return lengths.astype(np.float64) ** 2


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


@dataclass(frozen=True, slots=True)
class KnownTimesCost:
    """The times of one global batch's sequences, already predicted, as at budgets of their own."""

    milliseconds: FloatArray  # [N]
    floor_ms: float
    constant_ms: float

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        """Returns the times; lengths must be those of that global batch. [N] -> [N]."""
        assert lengths.shape == self.milliseconds.shape, (lengths.shape, self.milliseconds.shape)
        return self.milliseconds


class KnownLengthsCost:
    """Another cost model, asked once for each length of a data set and looked up from then on."""

    def __init__(self, cost: CostModel, lengths: IntArray) -> None:
        self._lengths = np.unique(lengths)
        self._times = cost.sequence_ms(self._lengths)
        self.floor_ms = cost.floor_ms
        self.constant_ms = cost.constant_ms

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        """Returns the other model's times; lengths must be among those given before. [N] -> [N]."""
        times: FloatArray = self._times[np.searchsorted(self._lengths, lengths)]
        return times
