"""What a micro-batch takes other than the sum of its sequences, as far as its packing decides it.

Short micro-batches are not recomputed, and where the host knows that budgets cover every sequence
of a micro-batch, the library's dense attention runs. N sequences.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sbcore.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class WorkShares:
    """Factors on the work of micro-batches up to so many tokens, and of longer ones."""

    up_to_tokens: int
    short: float
    long: float

    @property
    def even(self) -> bool:
        """Whether tokens make no difference."""
        return self.short == self.long == 1.0

    def at(self, num_tokens: int) -> float:
        """Returns the factor of one micro-batch."""
        return self.short if num_tokens <= self.up_to_tokens else self.long

    def of(self, num_tokens: IntArray | FloatArray) -> FloatArray:
        """Returns the factor of each micro-batch, from its packed tokens."""
        return np.where(num_tokens <= self.up_to_tokens, self.short, self.long)

    def least(self, lengths: IntArray) -> FloatArray:
        """Returns the least factor that micro-batches with each sequence can have. [N]."""
        return np.where(lengths <= self.up_to_tokens, min(self.short, self.long), self.long)


EVEN = WorkShares(0, 1.0, 1.0)
"""All micro-batches alike."""


@dataclass(frozen=True, slots=True)
class Covered:
    """Where dense attention runs: micro-batches whose least reach is their greatest length."""

    reach: IntArray  # [N], tokens that the budget covers in every layer
    saving_ms: FloatArray  # [N], of a sequence in such a micro-batch; may be below 0

    def least_ms(self, sequence_ms: FloatArray, lengths: IntArray) -> FloatArray:
        """Returns what sequences take at least, however they are packed. [N]."""
        possible = (self.reach >= lengths) & (self.saving_ms > 0.0)
        least: FloatArray = sequence_ms - np.where(possible, self.saving_ms, 0.0)
        return least


def shares_of(model: object) -> WorkShares:
    """Returns a cost or latency model's `shares`, even ones where it knows none."""
    shares: WorkShares = getattr(model, "shares", EVEN)
    return shares


def covered_of(cost: object, lengths: IntArray) -> Covered | None:
    """Returns what a cost model's `covered` says of dense attention, None where it has none."""
    covered: Callable[[IntArray], Covered | None] | None = getattr(cost, "covered", None)
    return None if covered is None else covered(lengths)
