"""What is expected of coverage before a micro-batch runs: moving averages of measured curves.

l layer, N sequences, K rungs of the ladder, b length bucket. A bucket holds sequences whose
number of blocks agrees up to a factor of two, since coverage depends on length that way.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from sbcore.types import FloatArray, IntArray

NUM_BUCKETS = 24
"""Sequences of up to 2**23 blocks."""


def buckets_of(lengths: IntArray, block_size: int) -> IntArray:
    """Returns each sequence's bucket: the binary logarithm of its blocks, rounded up. [N]."""
    return np.frexp(np.maximum(lengths - 1, 0) // block_size)[1].astype(np.int64)


@dataclass(frozen=True)
class CoverageModel:
    """Expected coverage by layer, length bucket and budget.

    ``curves`` is float64 [num_layers, NUM_BUCKETS, K], NaN where nothing was measured yet, and
    ``counts`` int64 [NUM_BUCKETS] the sequences that were.
    """

    ladder: IntArray
    block_size: int
    ema_decay: float
    curves: FloatArray
    counts: IntArray

    @staticmethod
    def empty(
        ladder: IntArray, *, num_layers: int, block_size: int, ema_decay: float
    ) -> "CoverageModel":
        """Returns a model that has measured nothing."""
        curves = np.full((num_layers, NUM_BUCKETS, len(ladder)), np.nan)
        counts = np.zeros(NUM_BUCKETS, dtype=np.int64)
        return CoverageModel(ladder, block_size, ema_decay, curves, counts)

    def expected(self, lengths: IntArray) -> FloatArray:
        """Returns the curve of every sequence in every layer, [num_layers, N, K]."""
        return self.curves[:, self.buckets(lengths)]

    def buckets(self, lengths: IntArray) -> IntArray:
        """Returns the bucket of every sequence, [N]."""
        return buckets_of(lengths, self.block_size)

    def updated(self, lengths: IntArray, measured: FloatArray) -> "CoverageModel":
        """Returns the model after one step; measured is [num_layers, N, K].

        Sequences of one bucket count with their tokens, in the order given, so that every rank
        comes to the same bits. Curves that are not finite are left out.
        """
        usable = np.flatnonzero(np.isfinite(measured).all(axis=(0, 2)))
        if not len(usable):
            return self
        buckets = self.buckets(lengths[usable])
        order = np.argsort(buckets, kind="stable")
        usable, buckets = usable[order], buckets[order]
        counted, tokens = np.bincount(buckets, minlength=NUM_BUCKETS), lengths[usable]
        seen = np.flatnonzero(counted)
        first = np.searchsorted(buckets, seen)
        weighted = np.add.reduceat(measured[:, usable] * tokens[:, None], first, axis=1)
        new = weighted / np.add.reduceat(tokens, first)[:, None]
        curves = self.curves.copy()
        old = curves[:, seen]
        curves[:, seen] = np.where(
            np.isnan(old), new, self.ema_decay * old + (1 - self.ema_decay) * new
        )
        return replace(self, curves=curves, counts=self.counts + counted)

    def beyond(self, top_k: int) -> "CoverageModel":
        """Returns the model that knows nothing of buckets whose sequences top_k covers wholly."""
        covered = 2 ** np.arange(NUM_BUCKETS) <= top_k
        return replace(self, curves=np.where(covered[:, None], np.nan, self.curves))

    def is_new(self, lengths: IntArray) -> bool:
        """Returns whether a bucket has seen fewer of such sequences than its average remembers."""
        remembered = round(1.0 / (1.0 - self.ema_decay))
        return bool((self.counts[self.buckets(lengths)] < remembered).any())

    def delta(
        self, lengths: IntArray, used: IntArray, *, top_k: int, curves: FloatArray
    ) -> float | None:
        """Returns the token-weighted mean of C(used) - C(top_k), in points; used is [L, N].

        Over sequences whose curves [L, N, K] are known, None if budgets moved and no curve tells
        what that did. Sequences whose budgets are top_k, or covered by both, count too: their
        change is 0 without a measurement.
        """
        moved = (used != top_k).any(axis=0)
        if not moved.any():
            return 0.0
        moved &= lengths > self.block_size * np.minimum(used.min(axis=0), top_k)
        known = np.isfinite(curves).all(axis=(0, 2))
        changed = np.flatnonzero(moved & known)
        if moved.any() and not len(changed):
            return None
        there = curves[:, changed]
        change = coverage_at(there, self.ladder, used[:, changed])
        change -= there[..., np.searchsorted(self.ladder, top_k)]
        gained = (change.mean(axis=0) * lengths[changed]).sum()
        return 100.0 * float(gained / lengths[known | ~moved].sum())

    def expected_delta(self, lengths: IntArray, targets: IntArray, *, top_k: int) -> float | None:
        """Returns the coverage_delta that targets [num_layers, N] should bring, in points."""
        return self.delta(lengths, targets, top_k=top_k, curves=self.expected(lengths))

    def state(self) -> dict[str, Any]:
        """Returns the averages by name, for the checkpoint."""
        return {"coverage": self.curves, "coverage_counts": self.counts}

    def restored(self, state: dict[str, Any]) -> "CoverageModel":
        """Returns the model with the averages of a checkpoint."""
        return replace(
            self, curves=np.array(state["coverage"]), counts=np.array(state["coverage_counts"])
        )


def coverage_at(curves: FloatArray, ladder: IntArray, top_k: IntArray) -> FloatArray:
    """Returns C(top_k), [L, N], of curves [L, N, K]: linear between rungs, as it nearly is."""
    lower, upper, share = _places(tuple(ladder.tolist()))
    at = np.clip(top_k, ladder[0], ladder[-1]) - ladder[0]
    layer, sequence = np.ogrid[: top_k.shape[0], : top_k.shape[1]]
    low, high = (curves[layer, sequence, rung[at]] for rung in (lower, upper))
    between: FloatArray = low + share[at] * (high - low)
    return between


@lru_cache(maxsize=8)
def _places(ladder: tuple[int, ...]) -> tuple[IntArray, IntArray, FloatArray]:
    """Returns the neighbouring rungs of every budget from the first rung to the last.

    And the share of the way between them, all [budgets].
    """
    rungs, budgets = np.array(ladder), np.arange(ladder[0], ladder[-1] + 1)
    upper = np.searchsorted(rungs, budgets)
    lower = np.maximum(upper - 1, 0)
    return lower, upper, (budgets - rungs[lower]) / np.maximum(rungs[upper] - rungs[lower], 1)


def budget_bounds(curves: FloatArray, ladder: IntArray, *, top_k: int, p: float) -> IntArray:
    """Returns the least and the greatest budget that p allows, int64 [2, ...] for curves [..., K].

    The least keeps C(k) >= C(k0) - p. The greatest is the first with C(k) >= C(k0) + p, or the
    first that covers all there is: more would cost time for nothing (arXiv 2604.13847, DST's
    bounded coverage change). Where a curve is not known, both are k0.
    """
    base = curves[..., np.searchsorted(ladder, top_k), None]
    low = ladder[np.argmax(curves >= base - p, axis=-1)]
    goal = np.minimum(base + p, curves.max(axis=-1, keepdims=True))
    high = ladder[np.argmax(curves >= goal, axis=-1)]
    known = np.isfinite(curves).all(axis=-1)
    return np.where(known, np.stack([low, np.maximum(high, top_k)]), top_k)
