"""Sequences laid out as whole blocks for the tiles, and back.

Shapes: L tokens of a sequence, H heads, D head dim, B blocks of all sequences, C tokens in a
block, W ranks, R = W - 1 past blocks per row.
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from sbkernels.moba.selection import num_blocks_of


def pad_to_blocks(sequences: Sequence[torch.Tensor], *, block_size: int) -> torch.Tensor:
    """Returns [H, B, C, D]: sequences [L, H, D], each padded behind with zeros, end to end."""
    padded = [pad(s, (0, 0, 0, 0, 0, -s.shape[0] % block_size)) for s in sequences]
    heads_first = torch.cat(padded).transpose(0, 1).contiguous()
    return heads_first.view(heads_first.shape[0], -1, block_size, heads_first.shape[2])


def cut_from_blocks(blocks: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
    """Returns the sequences [L, H, D] in blocks [H, B, C, D], without their padding."""
    block_size = blocks.shape[2]
    padded = [num_blocks_of(length, block_size) * block_size for length in lengths]
    parts = blocks.flatten(1, 2).transpose(0, 1).split(padded)
    return [part[:length] for part, length in zip(parts, lengths, strict=True)]


def past_blocks_of_pack(ranked: Sequence[torch.Tensor], *, block_size: int) -> torch.Tensor:
    """Returns the past blocks of each row, int64 [H, B * C, R], -1 where there is none.

    ranked int32 [H, L, W] holds, per sequence, block ids of that sequence in rank order, the own
    block first; here they count through the pack. Padding rows have no past blocks.
    """
    width = max(blocks.shape[2] for blocks in ranked)
    parts, first = [], 0
    for blocks in ranked:
        num_tokens, num_ranks = blocks.shape[1:]
        past = blocks[..., 1:].long()
        past = torch.where(past < 0, -1, past + first)
        around = (0, width - num_ranks, 0, -num_tokens % block_size)
        parts.append(pad(past, around, value=-1))
        first += num_blocks_of(num_tokens, block_size)
    return torch.cat(parts, dim=1)
