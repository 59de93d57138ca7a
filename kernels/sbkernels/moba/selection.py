"""What a selection of key blocks is, apart from who made it and how it is stored.

Shapes: T packed tokens, H query heads, N sequences, M = max_num_blocks,
R = min(largest top_k, M) ranks kept.
Rows are packed tokens; a block id counts from the start of the row's own sequence.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from sbkernels.moba.budget import ANY_TOP_K, TopKRange


@dataclass(frozen=True, kw_only=True)
class BlockSelection(ABC):
    """The key blocks that each (query head, query token) attends to, own block included.

    A selection is made once and reused: by the backward pass, by the recomputation of
    activation checkpointing, by probes. Each backend stores it in the form that its kernels
    read (a subclass); `membership` is the form that all of them can be turned into.

    Attributes:
        top_k: int32 [N], blocks per query of each sequence, own block counted.
        block_size: Tokens in a key block.
        max_seqlen: Upper bound of the sequence lengths, tokens.
        top_k_range: What the host knows of top_k.
    """

    top_k: torch.Tensor
    block_size: int
    max_seqlen: int
    top_k_range: TopKRange = ANY_TOP_K

    @property
    def max_num_blocks(self) -> int:
        """Blocks of the longest sequence that the selection can describe, at least 1."""
        return max(1, num_blocks_of(self.max_seqlen, self.block_size))

    @property
    @abstractmethod
    def num_heads_and_tokens(self) -> tuple[int, int]:
        """Returns (H, T), what the selection was made for."""

    @abstractmethod
    def membership(self) -> torch.Tensor:
        """Returns bool [H, T, M]: whether the row attends to the block of its sequence."""


@dataclass(frozen=True, kw_only=True)
class RankedSelection(BlockSelection):
    """A selection stored as block ids in rank order; the first k of a list are the top-k.

    Attributes:
        blocks: int32 [H, T, R]; own block first, then by score descending and lower index;
            -1 where the row has fewer blocks.
    """

    blocks: torch.Tensor

    @property
    def num_heads_and_tokens(self) -> tuple[int, int]:
        """Returns (H, T), what the selection was made for."""
        return self.blocks.shape[0], self.blocks.shape[1]

    def membership(self) -> torch.Tensor:
        """Returns bool [H, T, M]: whether the row attends to the block of its sequence."""
        return membership_of(self.blocks, self.max_num_blocks)


def membership_of(blocks: torch.Tensor, num_blocks: int) -> torch.Tensor:
    """Returns bool [H, T, num_blocks]: which block ids blocks [H, T, R] hold; -1 is none."""
    # The column after the last block takes the -1 entries and is cut off again.
    member = blocks.new_zeros((*blocks.shape[:2], num_blocks + 1), dtype=torch.bool)
    column = torch.where(blocks < 0, num_blocks, blocks)
    return member.scatter_(2, column.long(), True)[..., :-1]


def num_blocks_of(num_tokens: int, block_size: int) -> int:
    """Returns the number of key blocks of a sequence, the last one possibly short."""
    return -(-num_tokens // block_size)
