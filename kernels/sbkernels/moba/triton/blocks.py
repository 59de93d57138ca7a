"""The padded row space that all kernels share, built on the device from the boundaries.

Each sequence starts at a multiple of `block_size`, so a tile of rows never holds two
sequences and a word of 32 rows never holds two blocks. Block b of this space is a query block
and a key block at once. The price is at most `block_size` - 1 unused rows per sequence.

Shapes: T packed tokens, N sequences, S blocks in the padded space (static bound).
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

# A constant: with the number of sequences every power of two of them had its own compiled kernel.
_SEQUENCES_PER_PASS = tl.constexpr(128)


@dataclass(frozen=True, kw_only=True)
class BlockTable:
    """Where each block of the padded row space lies in the packed tokens.

    Attributes:
        entries: int32 [S, 4]: sequence, its first token, its length, its first block.
            Unused blocks at the end have length 0, so none of their rows is real.
        first_block: int32 [N+1], first block of each sequence and their number at the end.
        block_size: Rows of a block.
    """

    entries: torch.Tensor
    first_block: torch.Tensor
    block_size: int

    @property
    def num_blocks(self) -> int:
        """S, the static bound of the number of blocks."""
        return self.entries.shape[0]

    @property
    def num_sequences(self) -> int:
        """N."""
        return self.first_block.shape[0] - 1


def build_block_table(cu_seqlens: torch.Tensor, num_tokens: int, *, block_size: int) -> BlockTable:
    """Returns the table of the sequences cut into blocks; reads nothing on the host."""
    num_sequences = cu_seqlens.shape[0] - 1
    num_blocks = bound_num_blocks(num_tokens, num_sequences, block_size=block_size)
    entries = torch.empty((num_blocks, 4), dtype=torch.int32, device=cu_seqlens.device)
    first_block = cu_seqlens.new_empty(num_sequences + 1)
    _block_table_kernel[(num_blocks,)](
        cu_seqlens,
        entries,
        first_block,
        cu_seqlens.stride(0),
        num_sequences,
        BLOCK_SIZE=block_size,
        num_warps=1,
    )
    return BlockTable(entries=entries, first_block=first_block, block_size=block_size)


def bound_num_blocks(num_tokens: int, num_sequences: int, *, block_size: int) -> int:
    """Returns the most blocks that any split of the tokens into N sequences can have."""
    return (num_tokens + num_sequences * (block_size - 1)) // block_size


@triton.jit
def load_block(table_ptr, block):
    """Returns (sequence, its first token, its length, its first block) of a padded block."""
    entry = table_ptr + block * 4
    return tl.load(entry), tl.load(entry + 1), tl.load(entry + 2), tl.load(entry + 3)


@triton.jit
def find_tile(cu_ptr, stride_cu, num_sequences, tile, span, first_tile_ptr, PASS: tl.constexpr):
    """Returns (sequence, its first token, its length, its first tile); length 0 if there is none.

    A tile is `span` tokens of one sequence. By a running count of the tiles of all sequences, PASS
    at a time: cheaper than a launch that makes a table. With `first_tile_ptr`, which may be None,
    tile 0 writes there where each sequence's tiles begin, and their number at the end.
    """
    seen = 0
    sequence, token, length, first = 0, 0, 0, 0
    for base in tl.range(0, num_sequences, PASS):
        index = base + tl.arange(0, PASS)
        real = index < num_sequences
        start = tl.load(cu_ptr + index * stride_cu, mask=real, other=0)
        end = tl.load(cu_ptr + (index + 1) * stride_cu, mask=real, other=0)
        tiles = (end - start + span - 1) // span
        stop = seen + tl.cumsum(tiles)
        hit = (stop - tiles <= tile) & (tile < stop)
        sequence += tl.sum(tl.where(hit, index, 0))
        token += tl.sum(tl.where(hit, start, 0))
        length += tl.sum(tl.where(hit, end - start, 0))
        first += tl.sum(tl.where(hit, stop - tiles, 0))
        if first_tile_ptr is not None and tile == 0:
            tl.store(first_tile_ptr + index, stop - tiles, mask=real)
        seen += tl.sum(tiles)
    if first_tile_ptr is not None and tile == 0:
        tl.store(first_tile_ptr + num_sequences, seen)
    return sequence, token, length, first


@triton.jit(do_not_specialize=["num_sequences"])
def _block_table_kernel(
    cu_ptr,
    entries_ptr,
    first_block_ptr,
    stride_cu,
    num_sequences,
    BLOCK_SIZE: tl.constexpr,
):
    """One program per padded block; that of block 0 writes where sequences begin, too."""
    block = tl.program_id(0)
    sequence, token, length, first = find_tile(
        cu_ptr, stride_cu, num_sequences, block, BLOCK_SIZE, first_block_ptr, _SEQUENCES_PER_PASS
    )
    entry = entries_ptr + block * 4
    tl.store(entry, sequence)
    tl.store(entry + 1, token)
    tl.store(entry + 2, length)
    tl.store(entry + 3, first)
