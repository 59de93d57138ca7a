"""Which whole micro-batches the ranks run, in the time that they are given.

Sequences alone and packed, at the configured budget; every second one is held out of the fit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sbcore.config.stages import ProfileLatencyStage
from sbcore.latency.table import GridPoint
from sbcore.types import LatencyModel

ROUNDS = 2
"""Times that all micro-batches are timed, once or more; each is run once before."""

_HOST_BOUND_MS = 100.0
"""A guess at what launching a micro-batch takes where the device is a GPU."""

_SHARES = (
    *((4, 1), (4, 16), (1, 1), (8, 1), (16, 1), (32, 1), (64, 1)),
    *((4, 4), (2, 4), (1, 4), (1, 16), (2, 1), (2, 16)),
)
"""(of the most tokens one in so many, in so many sequences), those that tell most first."""


_COVERED_PACK = 16
"""Packs of so many sequences run once more with a budget that the host knows to cover them."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Equal sequences packed together, and how they are run. ``part`` as in `MeasuredPoint`."""

    part: str
    length: int
    num_sequences: int
    recompute: bool
    held_out: bool

    @property
    def num_tokens(self) -> int:
        """Packed tokens."""
        return self.length * self.num_sequences

    def at(self, top_k: int) -> GridPoint:
        """Returns the point of the table."""
        return GridPoint(
            self.part, self.length, top_k, self.num_sequences, self.held_out, self.recompute
        )


def choose_micro_batches(
    config: ProfileLatencyStage, model: LatencyModel, *, gpu: bool
) -> list[MicroBatch]:
    """Returns what to run, the floor first; those that time does not suffice for are left out.

    ``model`` says how long they take, before anything whole was measured. On a GPU both settings
    of recomputation are weighed.
    """
    block = config.attention.block_size
    chosen = [MicroBatch("floor", block, 1, config.recomputes(block), held_out=False)]
    left_ms = 1e3 * config.latency.micro_batch_seconds
    for one in (*_weighed(config, gpu=gpu), *_timed(config)):
        once = max(_milliseconds(one, config, model), _HOST_BOUND_MS if gpu else 0.0)
        cost = once * (1 if one.part == "memory" else 1 + ROUNDS)
        if cost <= left_ms:
            left_ms -= cost
            chosen.append(one)
    return chosen


def _timed(config: ProfileLatencyStage) -> Iterator[MicroBatch]:
    longest, most = max(config.latency.lengths), config.max_tokens
    shapes = [(most // (part * packed), packed) for part, packed in _SHARES] + [(longest, 1)]
    kept = [s for s in dict.fromkeys(shapes) if config.attention.block_size < s[0] <= longest]
    covered = config.attention.top_k * config.attention.block_size
    for number, (length, packed) in enumerate(kept):
        recompute = config.recomputes(length * packed)
        one = MicroBatch("micro_batch", length, packed, recompute, held_out=number % 2 == 1)
        yield one
        if number == 0 and config.recomputes(most) != recompute:
            yield replace(one, recompute=not recompute)  # what recomputing the same tokens costs
        if length <= covered and packed == _COVERED_PACK:
            yield MicroBatch("covered", length, packed, recompute, held_out=True)


def _weighed(config: ProfileLatencyStage, *, gpu: bool) -> Iterator[MicroBatch]:
    """Yields two short micro-batches in each setting of recomputation, to be weighed only."""
    longest = min(max(config.latency.lengths), config.max_tokens)
    for part in (16, 8) if gpu else ():
        one = MicroBatch("memory", max(longest // part, 1), 1, recompute=True, held_out=True)
        yield from (one, replace(one, recompute=False))


def _milliseconds(one: MicroBatch, config: ProfileLatencyStage, model: LatencyModel) -> float:
    """Returns the predicted time of one run."""
    lengths = np.full(1, one.length, dtype=np.int64)
    top_k = np.full(1, config.attention.top_k, dtype=np.int64)
    return one.num_sequences * float(model.predict(lengths, top_k)[0]) + model.constant_ms
