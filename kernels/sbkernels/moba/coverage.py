"""Coverage: the share of routing mass that the first blocks in rank order hold.

All short sequences of a pack go through together, rows against all their blocks, since a pack
would otherwise cost more calls than arithmetic; a long one goes through alone. No padded copy is
made: fresh pages cost the processor more than the sums (0.25 ms for 13 sequences of 3,400 tokens,
1.2 to 3.3 ms with padding).

Shapes: T packed tokens, H query heads, G key heads, D head dim, n sequences of a group, R their
sampled rows, B their blocks, W blocks of the longest of them, K rungs of the ladder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import embedding_bag

SHORT_BLOCKS = 128
"""Sequences of at most this many blocks share a group."""

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]


def pack_coverage(
    q: torch.Tensor,
    k: torch.Tensor,
    lengths: Sequence[int],
    *,
    block_size: int,
    ladder: tuple[int, ...],
    row_stride: int,
) -> torch.Tensor:
    """Returns C(k) of each sequence for each k of the ladder, float64 [N, K]; 1 where empty.

    q is [T, H, D], k [T, G, D]; rows 0, row_stride, 2 * row_stride ... of a sequence count. Summed
    in a fixed order, so equal inputs give equal bits.
    """
    curves = np.ones((len(lengths), len(ladder)))
    for group in _groups(tuple(lengths), block_size, row_stride, ladder):
        scores = _scores(q[group.row_token], _means(k, group))
        curves[group.members] = _mean_share(_routing_mass(scores, group, q.shape[2]), group)
    return torch.from_numpy(curves)


@dataclass(frozen=True)
class _Group:
    """Sequences that go through together: where their rows and blocks are, the same in all layers.

    ``column`` is None for a single sequence, whose scores stand in place already; a shorter
    sequence's row ends with blocks of the next one, which ``future`` hides.
    """

    members: list[int]
    row_token: torch.Tensor  # [R]
    block_tokens: torch.Tensor  # all tokens of the blocks, block by block
    block_starts: torch.Tensor  # [B], where each block begins in them
    row: Ints  # [R], 0 .. R - 1
    own: Ints  # [R], own block within the sequence
    column: Ints | None  # [R, W], number of each block of the row's sequence
    future: NDArray[np.bool_]  # [R, W]
    first_row: Ints  # [n]
    num_rows: Ints  # [n, 1]
    rank: Ints  # [K], ladder within the widest sequence
    whole: NDArray[np.bool_]  # [n, K], where the budget holds all blocks


@lru_cache(maxsize=64)
def _groups(
    lengths: tuple[int, ...], block_size: int, row_stride: int, ladder: tuple[int, ...]
) -> list[_Group]:
    """Returns the sequences of more than one block: the short ones, then each long one.

    Kept for the other layers: a processor busy with a model takes 0.02 ms for each small call.
    """
    num_blocks = [-(-length // block_size) for length in lengths]
    short = [i for i, blocks in enumerate(num_blocks) if 1 < blocks <= SHORT_BLOCKS]
    long = [[i] for i, blocks in enumerate(num_blocks) if blocks > SHORT_BLOCKS]
    tokens = np.array(lengths, dtype=np.int64)
    starts = np.cumsum(tokens) - tokens
    return [
        _group(members, starts[members], tokens[members], block_size, row_stride, np.array(ladder))
        for members in ([short] if short else []) + long
    ]


def _group(
    members: list[int],
    starts: Ints,
    lengths: Ints,
    block_size: int,
    row_stride: int,
    ladder: Ints,
) -> _Group:
    num_rows, num_blocks = -(-lengths // row_stride), -(-lengths // block_size)
    row_of, row = _numbered(num_rows)
    block_of, block = _numbered(num_blocks)
    first_block = np.cumsum(num_blocks) - num_blocks
    size = np.minimum(lengths[block_of] - block * block_size, block_size)
    block_start = np.cumsum(size) - size
    at = np.repeat(starts[block_of] + block * block_size - block_start, size)
    own = row * row_stride // block_size
    column = first_block[row_of][:, None] + np.arange(num_blocks.max())
    return _Group(
        members=members,
        row_token=torch.from_numpy(starts[row_of] + row * row_stride),
        block_tokens=torch.from_numpy(at + np.arange(len(at))),
        block_starts=torch.from_numpy(block_start),
        row=np.arange(len(row)),
        own=own,
        column=np.minimum(column, len(block) - 1) if len(members) > 1 else None,
        future=np.arange(num_blocks.max()) > own[:, None],
        first_row=np.cumsum(num_rows) - num_rows,
        num_rows=num_rows[:, None],
        rank=np.minimum(ladder, num_blocks.max()) - 1,
        whole=ladder >= num_blocks[:, None],
    )


def _numbered(counts: Ints) -> tuple[Ints, Ints]:
    """Returns for every piece the sequence that it is of, and its number there."""
    sequence = np.repeat(np.arange(len(counts)), counts)
    return sequence, np.arange(len(sequence)) - (np.cumsum(counts) - counts)[sequence]


def _means(k: torch.Tensor, group: _Group) -> torch.Tensor:
    """Returns the mean key of each block, [G, B, D]: float32 sums, rounded once to the dtype."""
    wide = k if k.dtype == torch.float64 else k.float()
    heads = [
        embedding_bag(group.block_tokens, head, group.block_starts, mode="mean")
        for head in wide.unbind(1)
    ]
    return torch.stack(heads).to(k.dtype)


def _scores(rows: torch.Tensor, means: torch.Tensor) -> Floats:
    """Returns the scores of rows [R, H, D] with all blocks of the group, [H, R, B]."""
    wide = torch.float64 if rows.dtype == torch.float64 else torch.float32
    grouped = rows.to(wide).unflatten(1, (means.shape[0], -1)).permute(1, 2, 0, 3)
    scores = grouped.flatten(1, 2) @ means.to(wide).mT  # [G, H / G * R, B]
    array: Floats = scores.detach().view(rows.shape[1], rows.shape[0], -1).numpy()
    return array


def _routing_mass(scores: Floats, group: _Group, head_dim: int) -> Floats:
    """Returns the softmax of each row over its past blocks and its own, [H, R, W]."""
    if group.column is not None:
        scores = scores[:, group.row[:, None], group.column]
    scores *= scores.dtype.type(head_dim**-0.5)
    np.copyto(scores, -np.inf, where=group.future)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _mean_share(mass: Floats, group: _Group) -> NDArray[np.float64]:
    """Returns the mean over rows and heads of the first blocks' mass, [n, K].

    Equal masses are interchangeable, so values are sorted without their indices, in place. The own
    block is made infinite for that: it has rank 0 whatever its mass.
    """
    of_own = mass[:, group.row, group.own]
    mass[:, group.row, group.own] = np.inf
    mass.sort(axis=-1)
    mass[..., -1] = of_own
    by_rank = np.add.reduceat(mass.sum(axis=0, dtype=np.float64)[:, ::-1], group.first_row, axis=0)
    share = np.cumsum(by_rank, axis=1) / (group.num_rows * len(mass))
    at_rung = np.minimum(share, 1.0)[:, group.rank]
    at_rung[group.whole] = 1.0
    return at_rung
