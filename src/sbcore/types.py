"""What the stages hand to each other: plain, frozen, numpy only.

N sequences of a global batch, R ranks, M micro-batches per rank.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class Barrier(StrEnum):
    """Where ranks wait for each other; `pipeline` is `step` with stages inside the ranks."""

    STEP = "step"
    MICRO = "micro"
    PIPELINE = "pipeline"


@dataclass(frozen=True, slots=True)
class Topology:
    """The machine as a balancer sees it.

    ``max_tokens`` caps the packed tokens of a micro-batch (a longer sequence travels alone);
    ``max_sequences`` caps its sequences, 0 = no cap. With ``num_stages`` above 1 a rank is a
    pipeline (1F1B) of so many devices; under `micro` its micro-batches still wait for those of the
    others. ``speed_factors`` are each rank's real over its predicted time (1.25 =
    a quarter slower); none = all are as predicted.
    """

    num_ranks: int
    barrier: Barrier
    max_tokens: int
    max_sequences: int
    num_stages: int = 1
    speed_factors: tuple[float, ...] = ()

    @property
    def factors(self) -> tuple[float, ...]:
        """What each rank's predicted times are multiplied by, [R]."""
        return self.speed_factors or (1.0,) * self.num_ranks


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """One global batch laid out: ``micro_batches[rank][m]`` holds indices into its lengths.

    Every rank has the same number of micro-batches, since collectives hang otherwise; an empty
    one is run as a dummy of zero loss weight.
    """

    micro_batches: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def num_ranks(self) -> int:
        """Ranks R."""
        return len(self.micro_batches)

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches M of each rank."""
        return len(self.micro_batches[0])


class CostModel(Protocol):
    """Predicted milliseconds; ``micro_batch_ms = max(floor_ms, sum of sequence_ms) + constant_ms``.

    The host floor is real: a short micro-batch costs its launching, not its work.
    """

    @property
    def floor_ms(self) -> float:
        """What a micro-batch costs however short it is."""
        ...

    @property
    def constant_ms(self) -> float:
        """What every micro-batch pays on top."""
        ...

    def sequence_ms(self, lengths: IntArray) -> FloatArray:
        """Returns the share of each sequence, all layers, forward and backward. [N] -> [N]."""
        ...


class LatencyModel(Protocol):
    """Milliseconds by length and top_k; rising with both as long as top_k leaves blocks out."""

    @property
    def num_layers(self) -> int:
        """Layers of the model that was measured."""
        ...

    @property
    def floor_ms(self) -> float:
        """Host floor of a micro-batch."""
        ...

    @property
    def constant_ms(self) -> float:
        """Constant of a micro-batch."""
        ...

    def attention_ms(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        """Returns one layer's attention, selection included; the arguments broadcast."""
        ...

    def linear_ms(self, lengths: IntArray) -> FloatArray:
        """Returns all the rest of the model (all layers, embedding, head) for these tokens."""
        ...

    def predict(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        """Returns the whole model's time per sequence; top_k is [N] or [num_layers, N]."""
        ...

    def extrapolates(self, lengths: IntArray, top_k: IntArray) -> NDArray[np.bool_]:
        """Returns where the measured grid does not reach."""
        ...
