"""Which sequences and packs of a plan are rehearsed.

Kernels, and the plans of the library's attention, are made for powers of two of lengths, and which
of them serve a pack depends on its company.
"""

import numpy as np

from sbcore.attention.interface import suit_one_by_one
from sbcore.plan.read import PlanFile
from sbcore.types import IntArray


def one_of_each_size(plan: PlanFile) -> dict[int, tuple[int, int]]:
    """Returns (step, place in its global batch) of the shortest sequence of each `size_of`."""
    found: dict[int, tuple[int, int, int]] = {}
    for step in range(plan.num_steps):
        lengths = plan.step(step).lengths
        for size, length, place in zip(size_of(lengths), lengths, range(len(lengths)), strict=True):
            here = int(length), step, place
            found[int(size)] = min(here, found.get(int(size), here))
    return {size: found[size][1:] for size in sorted(found)}


def packs_of(
    lengths: IntArray, place: int, *, max_tokens: int, max_sequences: int, covered: int
) -> list[tuple[int, ...]]:
    """Returns the sequence alone, and in company of the shortest others of its global batch.

    What the budget covers is the library's dense attention alone and in a pair, and ours in as
    much company as makes the mean short. What is longer is ours, company or not.

    Args:
        lengths: Tokens of the global batch's sequences.
        place: The sequence's.
        max_tokens: Of a micro-batch; company that does not fit is left out.
        max_sequences: Of a micro-batch, 0 = any number.
        covered: Tokens of the longest sequence that the budget covers.
    """
    others = np.delete(np.arange(len(lengths)), place)
    company = others[lengths[others].argsort(kind="stable")].tolist()
    packs: list[tuple[int, ...]] = [(place,)]
    for size in range(2, (max_sequences or len(lengths)) + 1):
        pack = place, *company[: size - 1]
        if len(pack) < size or lengths[list(pack)].sum() > max_tokens:
            break
        in_one_call = not suit_one_by_one(tuple(lengths[list(pack)].tolist()))
        if size == 2 or in_one_call:
            packs.append(pack)
        if in_one_call or lengths[place] > covered:
            break
    return packs


def size_of(lengths: IntArray) -> IntArray:
    """Returns the exponents of the powers of two that lengths are rounded up to."""
    return np.frexp(np.maximum(lengths, 1) - 1)[1]
