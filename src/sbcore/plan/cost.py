"""What a sequence costs, as balancers see it. N sequences."""

from dataclasses import dataclass

import numpy as np

from sbcore.latency.additive import AdditiveLatency
from sbcore.latency.packs import Covered, WorkShares, covered_of, shares_of
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

    @property
    def shares(self) -> WorkShares:
        """Factors on the work of micro-batches."""
        return shares_of(self.latency)

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        """Returns the whole model's time per sequence. [N] -> [N]."""
        return self.latency.predict(lengths, self._budgets(lengths))

    def covered(self, lengths: IntArray) -> Covered | None:
        """Returns which micro-batches dense attention serves."""
        return _covered_by(self.latency, lengths, self._budgets(lengths))

    def _budgets(self, lengths: IntArray) -> IntArray:
        return np.full(len(lengths), self.top_k, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class KnownTimesCost:
    """The times of one global batch's sequences, already predicted, as at budgets of their own."""

    milliseconds: FloatArray  # [N]
    floor_ms: float
    constant_ms: float
    shares: WorkShares
    known: Covered | None

    @staticmethod
    def at(latency: LatencyModel, lengths: IntArray, top_k: IntArray) -> "KnownTimesCost":
        """Returns the times at budgets [N] or [L, N] that the host knows."""
        return KnownTimesCost(
            latency.predict(lengths, top_k),
            latency.floor_ms,
            latency.constant_ms,
            shares_of(latency),
            _covered_by(latency, lengths, top_k),
        )

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        """Returns the times; lengths must be those of that global batch. [N] -> [N]."""
        assert lengths.shape == self.milliseconds.shape, (lengths.shape, self.milliseconds.shape)
        return self.milliseconds

    def covered(self, lengths: IntArray) -> Covered | None:
        """Returns which micro-batches dense attention serves; lengths as above."""
        return self.known


class KnownLengthsCost:
    """Another cost model, asked once for each length of a data set and looked up from then on."""

    def __init__(self, cost: CostModel, lengths: IntArray) -> None:
        self._lengths = np.unique(lengths)
        self._times = cost.sequence_ms(self._lengths)
        self._covered = covered_of(cost, self._lengths)
        self.floor_ms = cost.floor_ms
        self.constant_ms = cost.constant_ms
        self.shares = shares_of(cost)

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        """Returns the other model's times; lengths must be among those given before. [N] -> [N]."""
        times: FloatArray = self._times[np.searchsorted(self._lengths, lengths)]
        return times

    def covered(self, lengths: IntArray) -> Covered | None:
        """Returns which micro-batches dense attention serves; lengths as above."""
        if self._covered is None:
            return None
        at = np.searchsorted(self._lengths, lengths)
        return Covered(self._covered.reach[at], self._covered.saving_ms[at])


def _covered_by(latency: LatencyModel, lengths: IntArray, top_k: IntArray) -> Covered | None:
    return latency.covered(lengths, top_k) if isinstance(latency, AdditiveLatency) else None
