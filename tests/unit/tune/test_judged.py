"""Decisions and the budgets that they may not be slower than are timed by one clock."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sbcore.tune.coverage import CoverageModel
from sbcore.tune.judged import first_no_slower
from sbcore.tune.policy import Observation
from sbcore.types import Barrier, BatchPlan, FloatArray, IntArray

LADDER, NUM_LAYERS = np.array([1, 2, 4, 8, 16]), 2


class Law:
    """Time by a power of the budget, which no straight line between rungs meets."""

    num_layers, floor_ms, constant_ms = NUM_LAYERS, 2.0, 1.0

    def attention_ms(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        return 1e-3 * lengths * top_k**0.7

    def linear_ms(self, lengths: IntArray) -> FloatArray:
        return 1e-3 * lengths

    def predict(self, lengths: IntArray, top_k: IntArray) -> FloatArray:
        return self.attention_ms(lengths, top_k).sum(axis=0) + self.linear_ms(lengths)


def observe(lengths: list[int], num_ranks: int, barrier: Barrier) -> Observation:
    """Returns a step in which rank r has the sequences r, r + num_ranks, ..., each alone."""
    num_micro = len(lengths) // num_ranks
    packs = tuple(
        tuple((rank + num_ranks * micro,) for micro in range(num_micro))
        for rank in range(num_ranks)
    )
    coverage = CoverageModel.empty(LADDER, num_layers=NUM_LAYERS, block_size=128, ema_decay=0.5)
    kept = np.array(lengths[: num_ranks * num_micro])
    return Observation(kept, BatchPlan(packs), barrier, Law(), coverage, 4)


def clock_ms(seen: Observation, top_k: IntArray) -> float:
    """Returns the step's time, counted here anew."""
    each = np.maximum(Law().predict(seen.lengths, top_k), 2.0) + 1.0
    of_ranks = each.reshape(-1, seen.batch.num_ranks)  # [M, R]
    if seen.barrier is Barrier.MICRO:
        return float(of_ranks.max(axis=1).sum())
    return float(of_ranks.sum(axis=0).max())


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 4096), min_size=4, max_size=8),
    num_ranks=st.integers(1, 3),
    barrier=st.sampled_from([Barrier.STEP, Barrier.MICRO]),
    num_choices=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_first_choice_that_is_no_slower_is_taken_and_no_slower_one_is_dropped(
    lengths: list[int], num_ranks: int, barrier: Barrier, num_choices: int, seed: int
) -> None:
    """Choices next to k0 and between rungs, where a line and the law differ most."""
    seen, rng = observe(lengths, num_ranks, barrier), np.random.default_rng(seed)
    base = np.full((NUM_LAYERS, len(seen.lengths)), 4)
    choices = [base + rng.integers(-1, 2, size=base.shape) for _ in range(num_choices)]
    limit = clock_ms(seen, base) * (1 + 1e-9)
    wanted = next((top_k for top_k in choices if clock_ms(seen, top_k) <= limit), base)
    np.testing.assert_array_equal(first_no_slower(seen, base, choices), wanted)
