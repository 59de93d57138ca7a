"""Where a pack's sampled rows and blocks are, for its coverage: the same in all layers.

Shapes: n sequences of a group, R their sampled rows, B their blocks, C tokens in a block, W blocks
of the longest of them, K rungs of the ladder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

SHORT_BLOCKS = 128
"""Sequences of at most this many blocks share a group."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pieces:
    """How blocks of several sequences are gathered, and each row's own sequence found again."""

    tokens: torch.Tensor  # [B * C], block by block; a short block's last token fills it up
    counted: torch.Tensor  # float32 [B, 1, C], 0 where it is filled up
    sizes: torch.Tensor  # float32 [B, 1]
    place: Ints  # [R * W] in a table [R, B]; a short sequence's row ends with other blocks


@dataclass(frozen=True)
class RowGroup:
    """Sequences that go through together; ``pieces`` is None for one alone, which needs none."""

    members: Ints  # [n]
    tokens: slice  # of the first sequence
    row_token: torch.Tensor  # [R]
    pieces: Pieces | None
    future: NDArray[np.bool_]  # [R, W], no block of the row's, or one that is not there yet
    own: tuple[Ints, Ints]  # [R] each: row and its own block
    first_row: Ints  # [n]
    num_rows: Ints  # [n, 1]
    rank: Ints  # [K], ladder within the widest sequence
    whole: NDArray[np.bool_]  # [n, K], where the budget holds all blocks


def row_groups(
    lengths: Sequence[int], *, block_size: int, ladder: tuple[int, ...], row_stride: int
) -> list[RowGroup]:
    """Returns the sequences of more than one block: the short ones, then each long one."""
    tokens = np.array(lengths, dtype=np.int64)
    starts, num_blocks = np.cumsum(tokens) - tokens, -(-tokens // block_size)
    short = np.flatnonzero((num_blocks > 1) & (num_blocks <= SHORT_BLOCKS))
    long = np.flatnonzero(num_blocks > SHORT_BLOCKS)
    return [
        _group(members, starts[members], tokens[members], block_size, row_stride, np.array(ladder))
        for members in [short, *long[:, None]]
        if len(members)
    ]


def _group(
    members: Ints, starts: Ints, lengths: Ints, block_size: int, row_stride: int, ladder: Ints
) -> RowGroup:
    num_rows, num_blocks = -(-lengths // row_stride), -(-lengths // block_size)
    row_of, row = _numbered(num_rows)
    own, blocks = row * row_stride // block_size, np.arange(num_blocks.max())
    return RowGroup(
        members=members,
        tokens=slice(int(starts[0]), int(starts[0] + lengths[0])),
        row_token=torch.from_numpy(starts[row_of] + row * row_stride),
        pieces=_pieces(starts, lengths, num_blocks, row_of, block_size)
        if len(members) > 1
        else None,
        future=blocks > own[:, None],
        own=(np.arange(len(row)), own),
        first_row=np.cumsum(num_rows) - num_rows,
        num_rows=num_rows[:, None],
        rank=np.minimum(ladder, len(blocks)) - 1,
        whole=ladder >= num_blocks[:, None],
    )


def _pieces(starts: Ints, lengths: Ints, num_blocks: Ints, row_of: Ints, block_size: int) -> Pieces:
    block_of, block = _numbered(num_blocks)
    begin, within = block * block_size, np.arange(block_size)
    sizes = np.minimum(lengths[block_of] - begin, block_size)[:, None]
    tokens = (starts[block_of] + begin)[:, None] + np.minimum(within, sizes - 1)
    first_block = (np.cumsum(num_blocks) - num_blocks)[row_of][:, None]
    column = np.minimum(first_block + np.arange(num_blocks.max()), len(block) - 1)
    return Pieces(
        tokens=torch.from_numpy(tokens.ravel()),
        counted=torch.from_numpy((within < sizes).astype(np.float32))[:, None],
        sizes=torch.from_numpy(sizes.astype(np.float32)),
        place=(np.arange(len(row_of))[:, None] * len(block) + column).ravel(),
    )


def _numbered(counts: Ints) -> tuple[Ints, Ints]:
    """Returns for every piece the sequence that it is of, and its number there."""
    sequence = np.repeat(np.arange(len(counts)), counts)
    return sequence, np.arange(len(sequence)) - (np.cumsum(counts) - counts)[sequence]
