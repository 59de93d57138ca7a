"""A selection as the kernels read it: one bit per (query head, key block, row)."""

from dataclasses import dataclass

import torch

from sbkernels.moba.selection import BlockSelection
from sbkernels.moba.triton.blocks import BlockTable, build_block_table


@dataclass(frozen=True, kw_only=True)
class PackedSelection(BlockSelection):
    """A selection stored as words of 32 rows; 33 MB at 64K tokens, 16 heads, 256 blocks.

    Attributes:
        words: int32 [H, M, W], layout in `select`.
        table: Where the blocks of the pack lie.
        num_tokens: T.
    """

    words: torch.Tensor
    table: BlockTable
    num_tokens: int

    @property
    def num_heads_and_tokens(self) -> tuple[int, int]:
        """Returns (H, T), what the selection was made for."""
        return self.words.shape[0], self.num_tokens

    def membership(self) -> torch.Tensor:
        """Returns bool [H, T, M]: whether the row attends to the block of its sequence."""
        row, own = padded_rows(self.table, self.num_tokens)
        word = self.words[:, :, row // 32].transpose(1, 2)  # [H, T, M]
        block = torch.arange(self.max_num_blocks, device=word.device)
        return ((word >> (row % 32)[:, None]) & 1).bool() & (block <= own[:, None])


def pack_selection(selection: BlockSelection, cu_seqlens: torch.Tensor) -> PackedSelection:
    """Returns the selection of any backend in packed form."""
    if isinstance(selection, PackedSelection):
        return selection
    num_heads, num_tokens = selection.num_heads_and_tokens
    block_size = selection.block_size
    table = build_block_table(cu_seqlens, num_tokens, block_size=block_size)
    row, _ = padded_rows(table, num_tokens)
    shape = (num_heads, selection.max_num_blocks, table.num_blocks * block_size // 32)
    words = torch.zeros(shape, dtype=torch.int32, device=row.device)
    bits = selection.membership().transpose(1, 2).int() << (row % 32).int()  # [H, M, T]
    return PackedSelection(
        top_k=selection.top_k,
        block_size=block_size,
        max_seqlen=selection.max_seqlen,
        top_k_range=selection.top_k_range,
        words=words.index_add_(2, row // 32, bits),
        table=table,
        num_tokens=num_tokens,
    )


def padded_rows(table: BlockTable, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns for each token its padded row and its block within the sequence, int64 [T]."""
    _, token, length, first = table.entries.long().unbind(1)
    block_size = table.block_size
    block = torch.arange(table.num_blocks, device=token.device)
    row = (block - first)[:, None] * block_size + torch.arange(block_size, device=token.device)
    # Unused blocks have length 0; the place behind the last token takes what is not real.
    at = torch.where(row < length[:, None], token[:, None] + row, num_tokens)
    padded = at.new_empty(num_tokens + 1)
    padded[at] = first[:, None] * block_size + row
    within = at.new_empty(num_tokens + 1)
    within[at] = row // block_size
    return padded[:num_tokens], within[:num_tokens]
