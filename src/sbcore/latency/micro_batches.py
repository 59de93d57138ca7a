"""Which whole micro-batches the ranks run, in the time that they are given.

Equal sequences, alone and packed, make the fit. Packs of unequal ones, as plans have them, check
it: with budgets that layers clamp, with the fixed one, and dense.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from sbcore.config.stages import ProfileLatencyStage
from sbcore.latency.table import GridPoint
from sbcore.types import LatencyModel

ROUNDS = 2
"""Times that all micro-batches but the longest are timed; each is run once before."""

_SHORT_MS, _LONG_MS = 300.0, 1500.0
"""Below, the host's scattering times are taken several times in a round; above, once is enough."""

_HOST_BOUND_MS = 100.0
"""A guess at what launching a micro-batch takes where the device is a GPU."""

_EQUAL = (
    *((4, 1), (16, 1), (4, 16), (1, 1), (64, 1), (8, 1), (32, 1)),
    *((4, 4), (2, 4), (1, 4), (1, 16), (2, 1), (2, 16)),
)
"""(of the most tokens one in so many, in so many sequences), those that tell most first."""

_FULL = (0.55, 0.21, 0.11, 0.06, 0.03, 0.02, 0.01, 0.006, 0.003)
_HALF = (0.16, 0.11, 0.08, 0.05, 0.04, 0.03, 0.02, 0.006, 0.003)
"""Lengths of a plan's packs as shares of the most tokens: of 64K, 36K to 200 tokens."""

_AS_PLANNED = (
    *((_FULL, "cut"), (_HALF, "fixed"), ((0.031,), "fixed"), (_HALF, "dense")),
    *((_FULL, "fixed"), ((0.137,), "fixed"), (_HALF, "clamped"), (_FULL, "dense")),
)
"""Packs with their budgets: half the configured one, unknown to the host as where layers clamp; the
configured one, known or not; all blocks."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Sequences packed together, and how they are run. ``part`` as in `MeasuredPoint`."""

    part: str
    lengths: tuple[int, ...]
    top_k: int
    recompute: bool
    held_out: bool

    @staticmethod
    def read(values: Mapping[str, Any]) -> "MicroBatch":
        """Returns the micro-batch of what json makes of one."""
        return MicroBatch(**{**values, "lengths": tuple(values["lengths"])})

    @property
    def num_tokens(self) -> int:
        """Packed tokens."""
        return sum(self.lengths)

    @property
    def point(self) -> GridPoint:
        """The point of the table."""
        longest, num = max(self.lengths), len(self.lengths)
        unequal = self.lengths if min(self.lengths) < longest else None
        return GridPoint(
            self.part, longest, self.top_k, num, self.held_out, self.recompute, unequal
        )


def choose_micro_batches(
    config: ProfileLatencyStage, model: LatencyModel, *, gpu: bool
) -> list[MicroBatch]:
    """Returns what to run, the floor first; those that time does not suffice for are left out.

    ``model`` says how long they take, before anything whole was measured. On a GPU both settings
    of recomputation are weighed.
    """
    floor = _micro_batch("floor", (config.attention.block_size,), config)
    both = chain.from_iterable(zip_longest(_equal(config), _as_planned(config)))
    timed = (one for one in both if one is not None)
    chosen, left_ms = [floor], 1e3 * config.latency.micro_batch_seconds
    for one in (*_weighed(config, gpu=gpu), *timed):
        once = max(_milliseconds(one, model), _HOST_BOUND_MS if gpu else 0.0)
        num = 1 if one.part == "memory" else 1 + rounds_of(once) * runs_of(once)
        if (cost := num * once) <= left_ms:
            left_ms -= cost
            chosen.append(one)
    return chosen


def rounds_of(once_ms: float) -> int:
    """Returns the rounds in which a micro-batch that takes so long is timed."""
    return 1 if once_ms > _LONG_MS else ROUNDS


def runs_of(once_ms: float) -> int:
    """Returns how often such a one runs in a round at least, the first of several not counted."""
    return 3 if once_ms < _SHORT_MS else 1


def _equal(config: ProfileLatencyStage) -> Iterator[MicroBatch]:
    longest, most = max(config.latency.lengths), config.max_tokens
    shapes = [(most // (part * packed), packed) for part, packed in _EQUAL] + [(longest, 1)]
    kept = [s for s in dict.fromkeys(shapes) if config.attention.block_size < s[0] <= longest]
    for number, (length, packed) in enumerate(kept):
        one = _micro_batch("micro_batch", (length,) * packed, config)
        yield one
        if number == 0 and config.recomputes(most) != one.recompute:
            yield replace(one, recompute=not one.recompute)  # what recomputing the same costs


def _as_planned(config: ProfileLatencyStage) -> Iterator[MicroBatch]:
    """Yields unequal packs, held out of the fit."""
    fixed, block_size = config.attention.top_k, config.attention.block_size
    for shares, budgets in _AS_PLANNED:
        lengths = tuple(int(s * config.max_tokens) for s in shares if s * config.max_tokens >= 1)
        if not lengths or max(lengths) > max(config.latency.lengths):
            continue
        needed = -(-max(lengths) // block_size)
        top_k = {"cut": max(fixed // 2, 1), "dense": needed}.get(budgets, fixed)
        known = "covered" if top_k >= needed else "fixed"
        part = known if budgets in ("fixed", "dense") else "micro_batch"
        yield replace(_micro_batch(part, lengths, config), top_k=top_k, held_out=True)


def _weighed(config: ProfileLatencyStage, *, gpu: bool) -> Iterator[MicroBatch]:
    """Yields two short micro-batches in each setting of recomputation, to be weighed only."""
    longest = min(max(config.latency.lengths), config.max_tokens)
    for part in (16, 8) if gpu else ():
        one = _micro_batch("memory", (max(longest // part, 1),), config)
        yield from (replace(one, recompute=again, held_out=True) for again in (True, False))


def _micro_batch(part: str, lengths: tuple[int, ...], config: ProfileLatencyStage) -> MicroBatch:
    recompute = config.recomputes(sum(lengths))
    return MicroBatch(part, lengths, config.attention.top_k, recompute, held_out=False)


def _milliseconds(one: MicroBatch, model: LatencyModel) -> float:
    """Returns the predicted time of one run."""
    lengths = np.array(one.lengths, dtype=np.int64)
    work = model.predict(lengths, np.full_like(lengths, one.top_k))
    return float(work.sum()) + model.constant_ms
