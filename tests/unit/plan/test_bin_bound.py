"""The bound on bins, by hand and against the best partition of few sequences."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbcore.plan.bin_bound import bin_bound, num_bins


def falling(costs: list[float]) -> np.ndarray:
    return np.array(sorted(costs, reverse=True))


@pytest.mark.parametrize(
    ("costs", "size", "expected"),
    [
        ([6, 6, 6], 10, 3),  # no two share a bin
        ([6, 4, 6, 4], 10, 2),  # the gaps are filled exactly
        ([6, 6, 5, 5], 10, 3),  # 5 fits beside no 6
        ([7, 7, 4, 4, 4], 10, 4),  # 4 fits beside no 7, and two share the third bin
        ([6, 6, 4, 4, 4], 10, 3),  # two gaps of 4 for three
        ([1, 1, 1], 10, 1),
        ([6, 6, 6, 1], 10, 3),  # gaps to spare save no bin
        ([0.2, 0.1], 0.3, 1),  # though 0.3 - 0.1 is rounded below 0.2
    ],
)
def test_bins_counted_by_hand(costs: list[float], size: float, expected: int) -> None:
    assert num_bins(falling(costs), size) == expected


def test_a_gap_that_nothing_fills_is_seen() -> None:
    """Three ranks, mean 10 and heaviest 6: two share a rank in any case, 6 + 5 at best."""
    costs = falling([6, 6, 6, 5, 5, 2])
    assert bin_bound(costs, 3, least=10.0) == pytest.approx(11.0, rel=1e-3)


def test_two_of_a_size_may_be_far_above_the_mean() -> None:
    assert bin_bound(falling([10] * 4), 3, least=40 / 3) == pytest.approx(20.0, rel=1e-3)


@given(
    costs=st.lists(st.floats(0.1, 100), min_size=1, max_size=7),
    num_ranks=st.integers(1, 3),
)
def test_no_partition_is_below(costs: list[float], num_ranks: int) -> None:
    least = max(sum(costs) / num_ranks, *costs, 0.0)
    best = min(
        max(sum(c for c, r in zip(costs, ranks, strict=True) if r == rank) for rank in range(3))
        for ranks in product(range(num_ranks), repeat=len(costs))
    )
    found = bin_bound(falling(costs), num_ranks, least=least)
    assert least <= found <= best * (1 + 1e-9)
