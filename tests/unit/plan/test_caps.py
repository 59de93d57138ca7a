"""Caps of micro-batches, by hand."""

import pytest

from sbcore.plan.caps import (
    OpenMicroBatches,
    keeps_caps,
    min_micro_batches,
    pack_best_fit,
    pack_in_order,
)
from sbcore.types import Barrier, Topology


def capped(max_tokens: int, max_sequences: int, *, num_ranks: int = 1) -> Topology:
    return Topology(num_ranks, Barrier.STEP, max_tokens, max_sequences)


@pytest.mark.parametrize(
    ("lengths", "max_sequences", "num_ranks", "fewest"),
    [
        ([150, 60, 60], 0, 1, 3),  # one alone, two over half
        ([150, 150, 30], 0, 1, 3),  # two alone leave no room
        ([30] * 10, 0, 1, 3),
        ([30] * 10, 0, 2, 2),
        ([50, 50, 50], 0, 1, 2),  # halves may meet
        ([51, 51, 51], 0, 1, 3),
        ([10] * 7, 3, 1, 3),
        ([150, *[10] * 7], 3, 1, 4),
        ([1], 0, 4, 1),
    ],
)
def test_no_layout_has_fewer_micro_batches(
    lengths: list[int], max_sequences: int, num_ranks: int, fewest: int
) -> None:
    topology = capped(100, max_sequences, num_ranks=num_ranks)
    assert min_micro_batches(lengths, topology) == fewest


@pytest.mark.parametrize(
    ("lengths", "max_sequences", "expected"),
    [
        ([20, 60, 50, 40, 30], 0, [[1, 3], [2, 4, 0]]),  # longest first, filled exactly
        ([60, 50, 30, 25, 20], 0, [[0, 2], [1, 3, 4]]),  # 30 beside 60, the fullest that has room
        ([60, 30, 10, 5], 2, [[0, 1], [2, 3]]),
        ([150, 10, 10], 0, [[0], [1, 2]]),
        ([50, 50, 50, 50], 0, [[0, 1], [2, 3]]),
    ],
)
def test_best_fit(lengths: list[int], max_sequences: int, expected: list[list[int]]) -> None:
    assert pack_best_fit(range(len(lengths)), lengths, capped(100, max_sequences)) == expected


def test_in_order_a_new_one_opens_when_the_last_is_full() -> None:
    assert pack_in_order([3, 0, 1, 2], [50, 50, 10, 50], capped(100, 0)) == [[3, 0], [1, 2]]
    assert pack_in_order([0, 1, 2], [1, 1, 1], capped(100, 2)) == [[0, 1], [2]]


def test_a_cap_may_be_met() -> None:
    lengths = [60, 40, 1, 150]
    assert keeps_caps([0, 1], lengths, capped(100, 2))
    assert not keeps_caps([0, 1, 2], lengths, capped(1000, 2))
    assert not keeps_caps([0, 1, 2], lengths, capped(100, 0))
    assert keeps_caps([3], lengths, capped(100, 1))


def test_a_micro_batch_being_filled() -> None:
    opened = OpenMicroBatches(3, [60, 40, 1, 150], capped(100, 3))
    assert not opened.is_full(0)
    assert opened.try_add(0, 0)
    assert opened.fits(0, 1)
    assert not opened.fits(0, 3)
    assert not opened.is_full(0)
    assert opened.try_add(0, 1)
    assert opened.is_full(0)
    assert not opened.fits(0, 2)
    assert not opened.try_add(0, 2)
    assert opened.try_add(1, 3), "an empty one takes even a longer one"
    assert opened.members == [[0, 1], [3], []]
    few = OpenMicroBatches(1, [1, 1, 1], capped(100, 2))
    assert few.try_add(0, 0)
    assert not few.is_full(0)
    assert few.try_add(0, 1)
    assert few.is_full(0)
    assert not few.fits(0, 2)
    assert not few.try_add(0, 2)
