"""DST of the paper (arXiv 2604.13847): loads are tuned to an anchor latency, both ways.

What is tuned is whatever waits for the others: a rank's whole step under barrier `step`, the m-th
micro-batches of all ranks under barrier `micro` (the paper names micro-batches only). A load
slower than the anchor gets the largest budget that reaches it, among those that lose at most p of
coverage; when none does, the smallest that keeps the bound, a case the paper leaves open. A faster
one is raised until the anchor or until more blocks would cover nothing more.

What it gives up: one budget for all sequences of a load (each then clipped to its own bounds), so
time is not spent where a block covers most.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sbcore.config.method import AnchorTuner
from sbcore.tune.coverage import budget_bounds
from sbcore.tune.policy import Observation
from sbcore.types import Barrier, IntArray

_ANCHORS: dict[str, Callable[[list[float]], float]] = {
    "mean": lambda times: sum(times) / len(times),
    "min": min,
    "max": max,
}


@dataclass(frozen=True)
class Load:
    """What one rank does between two barriers: n sequences and the micro-batch each is in."""

    sequences: IntArray  # [n], indices into the step's lengths
    micro_batch: IntArray  # [n]


class AnchorPolicy:
    """Tunes every load to the anchor of the loads that wait for each other."""

    def __init__(self, config: AnchorTuner) -> None:
        self.config = config

    def decide(self, observation: Observation) -> IntArray:
        """Returns target top_k, [num_layers, N]; without known coverage it is k0."""
        low, high = self._bounds(observation)
        targets = np.full(low.shape, observation.top_k, dtype=np.int64)
        for loads in waiting_groups(observation):
            times = [load_ms(observation, x, targets[:, x.sequences]) for x in loads]
            anchor = _ANCHORS[self.config.anchor](times)
            for load in loads:
                at = load.sequences
                targets[:, at] = _largest_within(observation, load, anchor, low[:, at], high[:, at])
        return targets

    def _bounds(self, observation: Observation) -> tuple[IntArray, IntArray]:
        """Returns the least and the greatest top_k of each layer and sequence."""
        coverage = observation.coverage
        low, high = budget_bounds(
            coverage.expected(observation.lengths),
            coverage.ladder,
            top_k=observation.top_k,
            p=self.config.p,
        )
        cap = self.config.cap or int(coverage.ladder[-1])
        return np.clip(low, self.config.floor, cap), np.clip(high, self.config.floor, cap)


def waiting_groups(observation: Observation) -> list[list[Load]]:
    """Returns groups of loads that wait for each other; ranks without sequences are left out."""
    ranks = observation.batch.micro_batches
    if observation.barrier is Barrier.STEP:
        groups = [list(ranks)]
    else:
        groups = [[(rank[m],) for rank in ranks] for m in range(len(ranks[0]))]
    return [[_load(work) for work in group if any(work)] for group in groups]


def load_ms(observation: Observation, load: Load, top_k: IntArray) -> float:
    """Returns the load's predicted time at top_k [num_layers, n]: no micro-batch beats the floor.

    The constant of a micro-batch is left out, since equal counts make it equal for all.
    """
    times = observation.latency.predict(observation.lengths[load.sequences], top_k)
    per_micro_batch = np.bincount(load.micro_batch, weights=times)
    return float(np.maximum(per_micro_batch, observation.latency.floor_ms).sum())


def _load(work: tuple[tuple[int, ...], ...]) -> Load:
    sequences = [i for micro_batch in work for i in micro_batch]
    micro_batch = [m for m, members in enumerate(work) for _ in members]
    return Load(np.array(sequences, dtype=np.int64), np.array(micro_batch, dtype=np.int64))


def _largest_within(
    observation: Observation, load: Load, anchor: float, low: IntArray, high: IntArray
) -> IntArray:
    """Returns the budgets of the largest common k whose clipped version keeps the anchor."""
    least, most = int(low.min()), int(high.max())
    while least < most:
        middle = (least + most + 1) // 2
        if load_ms(observation, load, np.clip(middle, low, high)) <= anchor:
            least = middle
        else:
            most = middle - 1
    return np.clip(least, low, high)
