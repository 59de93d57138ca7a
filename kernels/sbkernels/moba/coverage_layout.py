"""Where a pack's sampled rows and blocks are, for its coverage: the same in all layers.

Shapes: n sequences of a group, H query heads, G key heads, J query heads per key head, R rows (each
sampled token, J times), B blocks, K rungs of the ladder.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from sbkernels.moba.selection import num_blocks_of

MOST_BLOCKS = 256
"""Of sequences that share a group: each of its rows goes against all of its blocks."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sampling:
    """Which rows of a call's heads are measured, and at which budgets."""

    block_size: int
    row_stride: int
    ladder: tuple[int, ...]
    num_heads: int
    num_kv_heads: int

    @property
    def group_size(self) -> int:
        """Query heads per key head, J."""
        return self.num_heads // self.num_kv_heads


@dataclass(frozen=True)
class RowGroup:
    """Neighbours of a pack that go through together; all float32 but the tokens."""

    sequences: slice
    blocks: slice
    tokens: torch.Tensor  # int64 [R / J]
    hidden: torch.Tensor  # [R, B], -inf for a later block and for another sequence's, else 0
    past: torch.Tensor  # [R, B], 1 for a block before the row's own, else 0
    shares: torch.Tensor  # [n, G * R], of each row in the mean of its sequence, else 0
    left: torch.Tensor  # [B, K], 1 for what a budget leaves out of all blocks by rising mass


def row_groups(lengths: Sequence[int], sampling: Sampling) -> list[RowGroup]:
    """Returns all sequences with tokens, as many neighbours together as their blocks allow."""
    blocks = [num_blocks_of(length, sampling.block_size) for length in lengths]
    return [_group(members, lengths, blocks, sampling) for members in _neighbours(blocks)]


def _neighbours(num_blocks: Sequence[int]) -> Iterator[slice]:
    """Yields sequences that go through together; one without tokens is in none."""
    first = together = 0
    for n, more in enumerate([*num_blocks, 0]):
        if first < n and (not more or together + more > MOST_BLOCKS):
            yield slice(first, n)
            first, together = n, 0
        first, together = (first, together + more) if more else (n + 1, 0)


def _group(
    members: slice, lengths: Sequence[int], num_blocks: Sequence[int], sampling: Sampling
) -> RowGroup:
    blocks, begin = num_blocks[members], sum(lengths[: members.start])
    first_block = sum(num_blocks[: members.start])
    tokens = []
    for length in lengths[members]:
        tokens.append(np.arange(begin, begin + length, sampling.row_stride))
        begin += length
    rows = [len(each) * sampling.group_size for each in tokens]
    pattern = _pattern(_power_of_two(max(blocks)), sampling)
    masks = np.zeros((2, sum(rows), sum(blocks)), dtype=np.float32)
    masks[0] = -np.inf
    shares = np.zeros((len(rows), sampling.num_kv_heads, sum(rows)), dtype=np.float32)
    row = block = 0
    for n, (height, width) in enumerate(zip(rows, blocks, strict=True)):
        masks[:, row : row + height, block : block + width] = pattern[:, :height, :width]
        shares[n, :, row : row + height] = 1.0 / (height * sampling.num_kv_heads)
        row, block = row + height, block + width
    hidden, past = torch.from_numpy(masks)
    return RowGroup(
        members,
        slice(first_block, first_block + block),
        torch.from_numpy(np.concatenate(tokens)),
        hidden,
        past,
        torch.from_numpy(shares.reshape(len(rows), -1)),
        _left(_power_of_two(block), sampling.ladder)[-block:],
    )


def _power_of_two(number: int) -> int:
    """Returns the least one that is not below; few of them are kept, for all lengths."""
    return 1 << (number - 1).bit_length()


@lru_cache(maxsize=8)
def _pattern(num_blocks: int, sampling: Sampling) -> Floats:
    """Returns `hidden` and `past` of one sequence of so many blocks; shorter ones begin alike."""
    tokens = np.arange(0, num_blocks * sampling.block_size, sampling.row_stride)
    own = np.repeat(tokens // sampling.block_size, sampling.group_size)[:, None]
    number = np.arange(num_blocks)
    hidden = np.where(number > own, -np.inf, 0.0)
    return np.stack([hidden, number < own]).astype(np.float32)


@lru_cache(maxsize=8)
def _left(num_blocks: int, ladder: tuple[int, ...]) -> torch.Tensor:
    """Returns `left` of so many blocks; fewer end alike."""
    from_last = np.arange(num_blocks)[::-1, None]
    return torch.from_numpy((from_last >= np.array(ladder) - 1).astype(np.float32))
